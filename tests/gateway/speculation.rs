//! Drafts change when a token comes and never which.

use fastrand::Rng;
use kernels::Isa;
use serde_json::{Value, json};

use crate::independence::Choice;
use crate::support::http;
use crate::support::scale;
use crate::support::weir::{Metrics, PATIENCE, Weir, drive};

const QUANTS: [&str; 4] = ["f32", "bf16", "q8", "q4"];
/// Kinds of requests.
const KINDS: usize = 6;
/// Requests of a release.
const REQUESTS: usize = 240;

#[test]
fn drafts_change_no_bit_of_an_answer() {
    let mut random = scale::random("speculation");
    for isa in Isa::available() {
        for quant in quants(isa) {
            let is_default = isa == Isa::best() || scale::is_full();
            let count = if is_default { scale::count(REQUESTS) } else { KINDS };
            let bodies: Vec<Value> = (0..count).map(|kind| body(kind, &mut random)).collect();
            let toml = format!("model.isa = \"{isa}\"\nmodel.quant = \"{quant}\"\n");
            let (expected, _) = answers(&toml, "off", &bodies);
            for when in if is_default { &["always", "auto"][..] } else { &["always"] } {
                let (answers, metrics) = answers(&toml, when, &bodies);
                for ((body, expected), answer) in bodies.iter().zip(&expected).zip(&answers) {
                    assert_eq!(expected, answer, "{isa} {quant} {when}: {body}");
                }
                let drafted = metrics.value("weir_draft_tokens_total");
                let accepted = metrics.value("weir_draft_accepted_total");
                let generated = metrics.sum("weir_tokens_total", "generated");
                let result = format!("{accepted} of {drafted} drafted, {generated} in all");
                scale::measured(&format!("speculation, {isa} {quant} {when}"), &result);
                assert!(accepted <= drafted);
                assert!(*when == "auto" || accepted > 0.0, "{result}");
            }
        }
    }
}

/// A developer waits for little of the oracle, which is far slower.
fn quants(isa: Isa) -> &'static [&'static str] {
    if isa == Isa::Scalar && !scale::is_full() { &["bf16", "q8"] } else { &QUANTS }
}

/// Choices, and how many tokens the client is told of.
type Answer = (Vec<Choice>, Value);

/// Asks one after the other, so that a step has room for drafts.
fn answers(toml: &str, when: &str, bodies: &[Value]) -> (Vec<Answer>, Metrics) {
    let weir = Weir::start(&format!("{toml}model.speculate = \"{when}\""));
    drive(async {
        let mut answers = Vec::new();
        for body in bodies {
            let mut connection = http::Connection::open(weir.address).await;
            connection.patience = PATIENCE;
            let json = [("content-type", "application/json")];
            let body = body.to_string();
            let request = http::request("POST", "/v1/completions", &json, body.as_bytes());
            connection.send(&request).await;
            let reply = connection.reply().await;
            assert_eq!(reply.status, 200, "{} for {body}", reply.text());
            let reply = reply.json();
            answers.push((Choice::of(&reply), reply["usage"]["completion_tokens"].clone()));
        }
        (answers, weir.metrics().await)
    })
}

/// Every kind of request in turn, each over a text that repeats itself.
fn body(kind: usize, random: &mut Rng) -> Value {
    let line = scale::source(random, 6);
    let other = scale::source(random, 9);
    let text = format!("{line}\n{other}\n{line}\n{other}\n{line}\n");
    let mut body = match kind % KINDS {
        0 => json!({ "prompt": text }),
        1 => json!({ "prompt": text, "suffix": format!("\n{other}\n{line}\n"), "logprobs": 1 }),
        2 => json!({ "prompt": text, "n": 2, "temperature": 0.4, "seed": random.u32(..) }),
        3 => json!({ "prompt": text, "logprobs": 3, "stop": ["\n\n", "return"] }),
        4 => json!({ "prompt": text, "frequency_penalty": 0.3, "presence_penalty": 0.2 }),
        _ => json!({ "prompt": text, "min_tokens": 20, "temperature": 0.2, "seed": 5 }),
    };
    if body["temperature"].is_null() {
        body["temperature"] = json!(0);
    }
    let least = body["min_tokens"].as_u64().map_or(1, |least| least as u32);
    body["max_tokens"] = json!(random.u32(least..48));
    body["ignore_eos"] = json!(kind % KINDS != 5 && random.bool());
    body
}
