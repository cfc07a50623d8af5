//! A request's answer does not depend on who else is being served.

use std::time::{Duration, Instant};

use fastrand::Rng;
use futures_util::future::join_all;
use kernels::Isa;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::http;
use crate::support::load::{completion, exchange};
use crate::support::scale;
use crate::support::weir::{PATIENCE, Weir, comes_true, drive};

const QUANTS: [&str; 4] = ["f32", "bf16", "q8", "q4"];
const SLOTS: usize = 8;
/// Requests that are there at once.
const CROWD: usize = 64;
/// Requests that run beside them and are cut off.
const LEAVERS: usize = 32;
/// Until a leaver leaves; most of the crowd is served in that time.
const LEAVES_MAX: Duration = Duration::from_millis(800);

#[test]
fn a_crowd_gets_exactly_what_each_gets_alone() {
    let mut random = scale::random("independence");
    for isa in Isa::available() {
        for quant in QUANTS {
            let (crowd, leavers) = size(isa);
            let cases = Case::mix(&mut random, crowd);
            let leavers = Case::mix(&mut random, leavers);
            check(isa, quant, &cases, &leavers, &mut random);
        }
    }
}

/// How many stay and how many leave. A developer waits for a crowd on the kernels that run by
/// default, for two full slots on others, and for little of the oracle, which is far slower.
fn size(isa: Isa) -> (usize, usize) {
    match isa {
        _ if scale::is_full() => (CROWD, LEAVERS),
        Isa::Scalar => (SLOTS / 2, SLOTS / 4),
        _ if isa == Isa::best() => (CROWD / 2, LEAVERS / 4),
        _ => (SLOTS, SLOTS / 4),
    }
}

fn check(isa: Isa, quant: &str, cases: &[Case], leavers: &[Case], random: &mut Rng) {
    let began = Instant::now();
    let toml = format!("model.isa = \"{}\"\nmodel.quant = \"{quant}\"\nmodel.slots = {SLOTS}", isa);
    // Whoever is alone gets one token a step; in the crowd drafts come on top, wanted or not.
    let alone = Weir::start(&format!("{toml}\nmodel.speculate = \"off\""));
    let expected = drive(async {
        let mut answers = Vec::new();
        for case in cases {
            answers.push(case.ask(&alone, false).await);
        }
        answers
    });
    drop(alone);
    let solo = began.elapsed();
    let together = Weir::start(&format!("{toml}\nmodel.speculate = \"always\""));
    let answers = drive(async {
        let crowd = join_all(cases.iter().map(|case| case.ask(&together, case.streams)));
        let leaving = leavers.iter().map(|case| {
            let stays = LEAVES_MAX.mul_f64(random.f64());
            case.leave(&together, stays)
        });
        let (answers, _) = tokio::join!(crowd, join_all(leaving));
        assert!(comes_true(PATIENCE, || together.is_at_rest()).await, "something is left");
        answers
    });
    let result = format!(
        "{} requests, {solo:?} one by one, {:?} together with {} that leave",
        cases.len(),
        began.elapsed() - solo,
        leavers.len(),
    );
    scale::measured(&format!("independence, {isa} {quant}"), &result);
    for ((case, expected), answer) in cases.iter().zip(&expected).zip(&answers) {
        case.compare(expected, answer, &format!("{} {quant}", isa));
    }
}

/// A request that is asked twice.
struct Case {
    body: Value,
    /// Whether it streams in the crowd.
    streams: bool,
}

impl Case {
    /// Every kind of request in turn.
    fn mix(random: &mut Rng, count: usize) -> Vec<Self> {
        let shared = scale::source(random, 20);
        let mut cases: Vec<Self> = Vec::with_capacity(count);
        for index in 0..count {
            let body = match index % 8 {
                // Two that are the same arrive together.
                7 => cases[index - 7].body.clone(),
                kind => Self::body(kind, &shared, random),
            };
            cases.push(Self { body, streams: random.bool() });
        }
        cases
    }

    fn body(kind: usize, shared: &str, random: &mut Rng) -> Value {
        let length = random.usize(1..30);
        let own = scale::source(random, length);
        let mut body = match kind {
            0 => json!({ "prompt": own, "logprobs": 2 }),
            1 | 2 => json!({ "prompt": format!("{shared}{own}") }),
            3 => json!({ "prompt": own, "suffix": scale::source(random, 10) }),
            4 => json!({ "prompt": format!("{shared}{own}"), "suffix": "\n}\n", "logprobs": 1 }),
            5 => json!({ "prompt": [own, shared], "n": 2 }),
            // Chance with a seed is as exact as none.
            _ => json!({ "prompt": own, "n": 3, "temperature": 0.8, "seed": random.u32(..) }),
        };
        if body["temperature"].is_null() {
            body["temperature"] = json!(0);
        }
        body["max_tokens"] = json!(random.u32(1..32));
        body["ignore_eos"] = json!(random.bool());
        body
    }

    async fn ask(&self, weir: &Weir, streams: bool) -> Vec<Choice> {
        let mut connection = http::Connection::open(weir.address).await;
        connection.patience = PATIENCE;
        let mut body = self.body.clone();
        body["stream"] = json!(streams);
        let json = [("content-type", "application/json")];
        let request = http::request("POST", "/v1/completions", &json, body.to_string().as_bytes());
        connection.send(&request).await;
        let reply = connection.reply().await;
        assert_eq!(reply.status, 200, "{} for {body}", reply.text());
        match streams {
            true => Choice::of_stream(&reply.events()),
            false => Choice::of(&reply.json()),
        }
    }

    async fn leave(&self, weir: &Weir, stays: Duration) {
        let request = completion(&self.body);
        // Whether it was answered before is chance; that it went is what matters.
        let _ = timeout(stays, exchange(weir.address, &request, |_, _| {})).await;
    }

    fn compare(&self, expected: &[Choice], answer: &[Choice], run: &str) {
        assert_eq!(expected, answer, "{run}, streamed {}: {}", self.streams, self.body);
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Choice {
    text: String,
    finish_reason: String,
    tokens: Vec<Value>,
    /// To the last digit.
    logprobs: Vec<Value>,
    alternatives: Vec<Value>,
}

impl Choice {
    pub(crate) fn of(reply: &Value) -> Vec<Self> {
        let mut choices = Vec::new();
        Self::add(&mut choices, reply);
        choices
    }

    fn of_stream(events: &[&str]) -> Vec<Self> {
        let (last, events) = events.split_last().expect("at least an end");
        assert_eq!(*last, "[DONE]");
        let mut choices = Vec::new();
        for event in events {
            Self::add(&mut choices, &serde_json::from_str(event).expect("JSON"));
        }
        choices
    }

    /// Appends what a reply, or a part of one, says.
    fn add(choices: &mut Vec<Self>, part: &Value) {
        for choice in part["choices"].as_array().expect("choices") {
            let index = choice["index"].as_u64().expect("an index") as usize;
            if choices.len() <= index {
                choices.resize_with(index + 1, Self::default);
            }
            let whole = &mut choices[index];
            whole.text += choice["text"].as_str().expect("a text");
            whole.finish_reason += choice["finish_reason"].as_str().unwrap_or("");
            let list = |name: &str| choice["logprobs"][name].as_array().cloned();
            whole.tokens.extend(list("tokens").unwrap_or_default());
            whole.logprobs.extend(list("token_logprobs").unwrap_or_default());
            whole.alternatives.extend(list("top_logprobs").unwrap_or_default());
        }
    }
}
