//! Three times more work than the machine can do: the excess leaves, or is refused, and what is
//! served here does not suffer.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::support::cloud::{self, Cloud, Step};
use crate::support::load::{Answer, LocalEvents, completion, exchange, steady_cloud};
use crate::support::scale;
use crate::support::weir::{Metrics, PATIENCE, Weir, clients};

const SLOTS: usize = 8;
/// Tokens out, where the model does not end sooner.
const COMPLETION_TOKENS: u32 = 32;
/// Of what the machine can do.
const BURST: f64 = 3.0;
/// From the end of a burst until nothing leaves any more.
const CALM_MAX: Duration = Duration::from_secs(5);

/// Some 500 tokens in, as an editor sends them, are about ten requests a second. Clients and cloud
/// run on weir's own cores here, as they never do outside, and with a prompt of a hundred tokens
/// they took a tenth of the machine from the engine that is being measured. Where nothing is
/// measured, a hundred fill slots and queue sooner.
fn prompt_words() -> usize {
    if scale::is_measured() { 400 } else { 100 }
}

/// How long each part takes.
struct Times {
    warm_up: Duration,
    capacity: Duration,
    /// At least.
    burst: Duration,
}

fn times() -> Times {
    let (warm_up, capacity, burst) = if scale::is_full() { (2, 8, 20) } else { (1, 2, 3) };
    let seconds = Duration::from_secs;
    Times { warm_up: seconds(warm_up), capacity: seconds(capacity), burst: seconds(burst) }
}

/// Short enough for a short burst to fill it.
fn queue_max() -> usize {
    if scale::is_full() { 256 } else { 8 }
}

/// Requests of a burst on a machine that serves so many a second. Their excess fills slots and
/// queue twice, so that some are turned away even where the machine, shared, is by then nearly
/// twice as fast as when it was measured.
fn burst_requests(served_per_second: f64) -> usize {
    let excess = 2.0 * (SLOTS + queue_max()) as f64;
    let lasting = served_per_second * times().burst.as_secs_f64();
    (BURST * lasting.max(excess / (BURST - 1.0))).ceil() as usize
}

/// The least share of capacity that is served here during a burst. In a development build the
/// HTTP side and the generator take most of the machine, and other tests run beside this one:
/// then it only shows that the engine was not left idle.
fn share_min() -> f64 {
    if scale::is_measured() { 0.85 } else { 0.2 }
}

/// How often a burst is measured. A shared machine is not as fast all the time: the median counts.
fn rounds() -> usize {
    if scale::is_measured() { 3 } else { 1 }
}

#[test]
fn the_excess_goes_to_the_cloud() {
    let clients = clients();
    let cloud = clients.block_on(steady_cloud(Duration::from_millis(10)));
    let bench = Bench::new(&cloud.base_url());
    local_is_unharmed(|| overflows(&clients, &bench));
}

/// Local throughput, as a share of capacity.
fn overflows(clients: &Runtime, bench: &Bench) -> f64 {
    let (run, calm) = clients.block_on(async {
        let burst = bench.burst().await;
        let calm = bench.calm().await;
        (bench.settle(burst).await, calm)
    });
    run.report("steady cloud");
    scale::measured("burst, time to calm", &format!("{calm:?}"));
    for answer in &run.answers {
        assert!(answer.is_complete(), "lost: {answer:?}");
        assert!(answer.header("x-weir-reason").is_some(), "no reason: {answer:?}");
    }
    assert!(run.count("cloud:far") > 0 && run.count("local") > 0, "nothing overflowed");
    assert!(run.changes <= 2.0, "{} changes", run.changes);
    assert!(run.counted_away as usize >= run.count("cloud:far"), "not in the metrics");
    assert!(run.seen_active, "the gauge never showed the overflow");
    let calm = calm.expect("all traffic is local again");
    assert!(calm < CALM_MAX, "calm only after {calm:?}");
    run.share()
}

#[test]
fn a_dead_cloud_harms_nobody() {
    // Bound and dropped: nobody listens there any more.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/v1", listener.local_addr().expect("bound"));
    drop(listener);
    ends_honestly("dead cloud", &clients(), &url);
}

#[test]
fn a_hanging_cloud_harms_nobody() {
    let clients = clients();
    let cloud = clients.block_on(Cloud::always(vec![Step::Hang]));
    ends_honestly("hanging cloud", &clients, &cloud.base_url());
}

#[test]
fn a_cloud_that_talks_garbage_harms_nobody() {
    let clients = clients();
    let next = AtomicUsize::new(0);
    let cloud = clients.block_on(Cloud::start(move |_| {
        let garbage = garbage();
        let turn = next.fetch_add(1, Ordering::Relaxed) % garbage.len();
        vec![Step::Send(garbage[turn].clone()), Step::Close]
    }));
    ends_honestly("garbage cloud", &clients, &cloud.base_url());
}

/// No HTTP; no event stream; no JSON in it; no completion in that; nothing at all.
fn garbage() -> [Vec<u8>; 5] {
    [
        b"\x00\xff\x16\x03garbage\r\n\r\n".to_vec(),
        cloud::status(200, &["content-type: text/html"], "<html>Welcome</html>"),
        [cloud::head(), b"data: {\"choices\": [{\"te\n\n".to_vec()].concat(),
        [cloud::head(), cloud::data(&json!({ "object": "weather", "sun": true }))].concat(),
        Vec::new(),
    ]
}

fn ends_honestly(name: &str, clients: &Runtime, url: &str) {
    let bench = Bench::new(url);
    local_is_unharmed(|| {
        let run = clients.block_on(async { bench.settle(bench.burst().await).await });
        run.report(name);
        for answer in &run.answers {
            assert!(answer.is_complete() || answer.is_shed(), "no honest end: {answer:?}");
        }
        assert_eq!(run.count("cloud:far"), 0, "a cloud that answers nothing answered");
        assert!(run.count("shed") > 0, "the burst was none");
        run.share()
    });
}

fn local_is_unharmed(mut burst: impl FnMut() -> f64) {
    let mut shares: Vec<f64> = (0..rounds()).map(|_| burst()).collect();
    shares.sort_by(f64::total_cmp);
    let share = shares[shares.len() / 2];
    assert!(share >= share_min(), "local service fell to {:.0} %: {shares:.2?}", share * 100.0);
}

/// A weir and a generator of load for it.
struct Bench {
    weir: Weir,
    random: RefCell<Rng>,
    events: Arc<LocalEvents>,
}

/// A burst whose last requests are still under way.
struct Burst {
    asked: Vec<JoinHandle<Answer>>,
    before: Metrics,
    /// Events a second of local answers, alone before the burst and during it.
    capacity: f64,
    during: f64,
    /// Whether the gauge showed the overflow when the last request had been sent.
    seen_active: bool,
}

/// What came of it.
struct Run {
    answers: Vec<Answer>,
    /// Before and after the burst, on average.
    capacity: f64,
    during: f64,
    seen_active: bool,
    changes: f64,
    /// Requests that the metrics say went to the cloud.
    counted_away: f64,
}

impl Bench {
    fn new(url: &str) -> Self {
        let random = scale::random("burst");
        let queue = queue_max();
        let weir = Weir::start(&format!(
            "model.slots = {SLOTS}\n\
             model.queue_max = {queue}\n\
             overflow.anonymous_cloud = true\n\
             [[cloud]]\nname = \"far\"\nbase_url = \"{url}\"\nmodel = \"m\"\n\
             connect_timeout_ms = 500\nfirst_token_timeout_ms = 500\n"
        ));
        Self { weir, random: RefCell::new(random), events: Arc::default() }
    }

    async fn burst(&self) -> Burst {
        let times = times();
        self.closed_loop(times.warm_up).await;
        let (capacity, requests) = self.closed_loop(times.capacity).await;
        let before = self.weir.metrics().await;
        let (heard, began) = (self.events.count(), Instant::now());
        let asked = self.open_loop(requests * BURST, burst_requests(requests)).await;
        let during = (self.events.count() - heard) as f64 / began.elapsed().as_secs_f64();
        let seen_active = self.weir.metrics().await.value("weir_overflow_active") > 0.0;
        Burst { asked, before, capacity, during, seen_active }
    }

    /// Waits for every answer.
    async fn settle(&self, burst: Burst) -> Run {
        let Burst { asked, before, capacity, during, seen_active } = burst;
        let answers = join_all(asked).await.into_iter().map(|one| one.expect("no panic"));
        let answers = answers.collect();
        let after = self.weir.metrics().await;
        let grown = |name, part| after.sum(name, part) - before.sum(name, part);
        let changes = grown("weir_overflow_changes_total", "");
        let counted_away = grown("weir_requests_total", "route=\"cloud:far\"");
        // Measured again, because a shared machine is not as fast all the time.
        let (afterwards, _) = self.closed_loop(times().capacity).await;
        let capacity = (capacity + afterwards) / 2.0;
        Run { answers, capacity, during, seen_active, changes, counted_away }
    }

    /// No prompt is like another, so that each is computed.
    fn request(&self, tokens: u32) -> Arc<[u8]> {
        let prompt = scale::source(&mut self.random.borrow_mut(), prompt_words());
        completion(&json!({
            "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": true,
        }))
    }

    fn ask(&self, tokens: u32) -> JoinHandle<Answer> {
        let (to, request, events) = (self.weir.address, self.request(tokens), self.events.clone());
        tokio::spawn(async move {
            let heard = |answer: &Answer, part: &[u8]| events.heard(answer, part);
            let asked = tokio::time::timeout(PATIENCE, exchange(to, &request, heard));
            asked.await.expect("nothing hangs").expect("every request has an answer")
        })
    }

    /// As many clients as keep every slot busy. Events and answers a second of this machine: what
    /// found no slot went to the cloud.
    async fn closed_loop(&self, duration: Duration) -> (f64, f64) {
        let (heard, began) = (self.events.count(), Instant::now());
        let clients = (0..SLOTS + 2).map(|_| async {
            let mut answers = 0;
            while began.elapsed() < duration {
                let answer = self.ask(COMPLETION_TOKENS).await.expect("no panic");
                assert!(answer.is_complete(), "{answer:?}");
                answers += u32::from(answer.route() == "local");
            }
            answers
        });
        let all = join_all(clients).await;
        let seconds = began.elapsed().as_secs_f64();
        let answers: u32 = all.iter().sum();
        ((self.events.count() - heard) as f64 / seconds, f64::from(answers) / seconds)
    }

    /// Requests by the clock, whatever becomes of them.
    async fn open_loop(&self, per_second: f64, count: usize) -> Vec<JoinHandle<Answer>> {
        let began = Instant::now();
        let mut asked = Vec::with_capacity(count);
        for index in 0..count {
            sleep_until(began + Duration::from_secs_f64(index as f64 / per_second)).await;
            asked.push(self.ask(COMPLETION_TOKENS));
        }
        asked
    }

    /// A trickle, until it has been local for a while and the overflow is over.
    async fn calm(&self) -> Option<Duration> {
        const LOCAL_IN_A_ROW: usize = 5;
        let ended = Instant::now();
        let (mut row, mut left) = (0, ended);
        while ended.elapsed() < CALM_MAX + Duration::from_secs(2) {
            let asked = Instant::now();
            let answer = self.ask(1).await.expect("no panic");
            row = if answer.route() == "local" { row + 1 } else { 0 };
            let over = self.weir.metrics().await.value("weir_overflow_active") == 0.0;
            if row == 0 || !over {
                left = asked;
            }
            if row >= LOCAL_IN_A_ROW && over {
                return Some(left - ended);
            }
            sleep(Duration::from_millis(100)).await;
        }
        None
    }
}

impl Run {
    fn count(&self, route: &str) -> usize {
        self.answers.iter().filter(|answer| answer.route() == route).count()
    }

    fn share(&self) -> f64 {
        self.during / self.capacity
    }

    fn report(&self, name: &str) {
        let result = format!(
            "{} requests, {} local, {} away, {} shed; local events/s {:.0} alone, {:.0} in the \
             burst ({:.0} %, at least {:.0} % wanted); {} changes",
            self.answers.len(),
            self.count("local"),
            self.count("cloud:far"),
            self.count("shed"),
            self.capacity,
            self.during,
            100.0 * self.share(),
            100.0 * share_min(),
            self.changes,
        );
        scale::measured(&format!("burst, {name}"), &result);
    }
}
