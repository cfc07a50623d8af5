//! Clients that leave at any moment leave nothing behind.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use fastrand::Rng;
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::support::load::{completion, exchange, steady_cloud};
use crate::support::scale;
use crate::support::weir::{PATIENCE, Weir, clients, comes_true};

const ABORTS: usize = 2000;
/// Requests at once: some run, some wait, some are away.
const CROWD: usize = 24;
const SLOTS: usize = 4;
/// From the last abort until nothing is left.
const REST_MAX: Duration = Duration::from_secs(1);

/// Where requests were when their clients left.
#[derive(Debug, Default)]
struct Moments {
    before_the_head: Cell<usize>,
    local: Cell<usize>,
    cloud: Cell<usize>,
    /// Too late: the answer was there.
    over: Cell<usize>,
}

#[test]
fn aborted_requests_leave_nothing() {
    let mut random = scale::random("aborts");
    let count = scale::count(ABORTS).max(CROWD * 4);
    let clients = clients();
    let cloud = clients.block_on(steady_cloud(Duration::from_millis(20)));
    let weir = Weir::start(&format!(
        "model.slots = {SLOTS}\n\
         model.queue_max = 64\n\
         overflow.ttft_objective_ms = 100\n\
         overflow.anonymous_cloud = true\n\
         [[cloud]]\nname = \"far\"\nbase_url = \"{}\"\nmodel = \"m\"\nmax_in_flight = 8\n",
        cloud.base_url()
    ));
    let moments = Moments::default();
    clients.block_on(async {
        let calm = settled(&weir, &mut random).await;
        let leavers = (0..count).map(|_| {
            let (body, leaves) = (body(&mut random), Leaves::any(&mut random));
            leave(&weir, body, leaves, &moments)
        });
        let leavers: Vec<_> = leavers.collect();
        stream::iter(leavers).buffer_unordered(CROWD).collect::<()>().await;
        let at_rest = || weir.is_at_rest() && cloud.running() == 0 && weir.tasks() <= calm;
        let rests = comes_true(REST_MAX, at_rest).await;
        assert!(
            rests,
            "{:?}, {} requests in the cloud, {} tasks where there were {calm}",
            weir.saturation(),
            cloud.running(),
            weir.tasks()
        );
        scale::measured("aborts", &format!("{moments:?}"));
        check_metrics(&weir, &moments).await;
        serves_still(&weir).await;
    });
    for hit in [&moments.before_the_head, &moments.local, &moments.cloud] {
        assert!(hit.get() > 0, "aborts missed a moment: {moments:?}");
    }
}

/// Tasks of a weir that has served and has nothing to do.
async fn settled(weir: &Weir, random: &mut Rng) -> usize {
    let request = completion(&body(random));
    exchange(weir.address, &request, |_, _| {}).await.expect("an answer");
    assert!(comes_true(PATIENCE, || weir.is_at_rest()).await);
    // The connection's own task ends right behind its last byte.
    let mut fewest = weir.tasks();
    comes_true(Duration::from_millis(200), || {
        fewest = fewest.min(weir.tasks());
        false
    })
    .await;
    fewest
}

/// Long prompts to leave in prefill, long answers to leave in decode.
fn body(random: &mut Rng) -> Value {
    let words = *random.choice([4, 60, 300].as_slice()).expect("three");
    let mut body = json!({
        "prompt": scale::source(random, words),
        "max_tokens": random.u32(1..200),
        "stream": random.u32(..4) > 0,
        "n": if random.u32(..8) == 0 { 2 } else { 1 },
    });
    if random.u32(..3) == 0 {
        body["suffix"] = json!("\n}\n");
        body["n"] = json!(1);
    }
    body
}

/// When a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    /// So long after it asked.
    After(Duration),
    /// So long after its answer began.
    IntoTheAnswer(Duration),
}

impl Leaves {
    /// Most leave early, some late: what happens to a request happens soon.
    fn any(random: &mut Rng) -> Self {
        let stays = Duration::from_millis(400).mul_f64(random.f64().powi(2));
        if random.bool() { Self::After(stays) } else { Self::IntoTheAnswer(stays / 4) }
    }

    async fn comes(self, answer_began: &Notify) {
        match self {
            Self::After(stays) => sleep(stays).await,
            Self::IntoTheAnswer(stays) => {
                answer_began.notified().await;
                sleep(stays).await;
            }
        }
    }
}

async fn leave(weir: &Weir, body: Value, leaves: Leaves, moments: &Moments) {
    let (route, began) = (RefCell::new(String::new()), Notify::new());
    let request = completion(&body);
    let asked = exchange(weir.address, &request, |answer, _| {
        route.borrow_mut().replace_range(.., answer.route());
        began.notify_one();
    });
    let gone = tokio::select! {
        _ = timeout(PATIENCE, asked) => false,
        () = leaves.comes(&began) => true,
    };
    let moment = match route.borrow().as_str() {
        _ if !gone => &moments.over,
        "" => &moments.before_the_head,
        "local" => &moments.local,
        _ => &moments.cloud,
    };
    moment.set(moment.get() + 1);
}

async fn check_metrics(weir: &Weir, moments: &Moments) {
    let metrics = weir.metrics().await;
    for gauge in ["weir_slots_used", "weir_sequences_running", "weir_sequences_waiting"] {
        assert!(metrics.value(gauge) == 0.0, "{gauge}");
    }
    assert!(metrics.value("weir_kv_blocks_referenced") == 0.0);
    // A client that left in the middle of its answer was surely seen to leave.
    let seen = moments.local.get() + moments.cloud.get();
    assert!(metrics.value("weir_cancelled_total") as usize >= seen);
}

async fn serves_still(weir: &Weir) {
    let body = json!({ "prompt": "fn main() {", "max_tokens": 4, "stream": true });
    let answer = exchange(weir.address, &completion(&body), |_, _| {}).await.expect("an answer");
    assert!(answer.is_complete(), "{answer:?}");
}
