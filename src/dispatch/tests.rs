use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::completion::compliance::{FedRamp, KeptHere, Requires};
use crate::completion::{Chunk, FinishReason, Input, Usage};

/// What a fake backend does with one request.
#[derive(Clone)]
enum Act {
    Answer,
    /// Refuses after this time.
    Refuse(Refusal, Duration),
    /// Starts a stream that breaks before content.
    BreakEarly(Reason),
    /// Starts a stream that breaks after one chunk.
    BreakLate(Reason),
    Hang,
}

fn refuse(reason: Reason) -> Act {
    Act::Refuse(Refusal::new(reason, "no"), Duration::ZERO)
}

/// A backend that plays its acts in turn, and then the last one for ever.
struct Fake {
    acts: Mutex<VecDeque<Act>>,
    asked: AtomicUsize,
    /// Exchanges that are neither over nor dropped.
    open: Arc<AtomicUsize>,
    work_ahead_ms: Mutex<f64>,
}

struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Fake {
    fn new(acts: impl IntoIterator<Item = Act>) -> Arc<Self> {
        Arc::new(Self {
            acts: Mutex::new(acts.into_iter().collect()),
            asked: AtomicUsize::new(0),
            open: Arc::default(),
            work_ahead_ms: Mutex::new(0.0),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn load(&self, saturation: f64) {
        *self.work_ahead_ms.lock().unwrap() = saturation * 300.0;
    }
}

/// The fake as the dispatcher owns it, while the test keeps looking at it.
struct Shared(Arc<Fake>);

impl Load for Shared {
    fn work_ahead_ms(&self) -> f64 {
        *self.0.work_ahead_ms.lock().unwrap()
    }
}

impl Quote for Shared {
    fn quote(&self, _: &CompletionRequest) -> Result<Asked, Refusal> {
        Ok(Asked { bytes: 100, messages: 0, max_tokens: 16, n: 1 })
    }
}

impl Backend for Shared {
    async fn complete(&self, _: Arc<CompletionRequest>) -> Result<CompletionStream, Refusal> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        self.0.open.fetch_add(1, Ordering::SeqCst);
        let open = Open(self.0.open.clone());
        let act = {
            let mut acts = self.0.acts.lock().unwrap();
            let act = acts.front().cloned().expect("an act");
            if acts.len() > 1 {
                acts.pop_front();
            }
            act
        };
        let chunk =
            Event::Chunk(Chunk { choice: 0, text: b"x".as_slice().into(), tokens: Vec::new() });
        let events = match act {
            Act::Answer => vec![
                chunk,
                Event::Finished { choice: 0, reason: FinishReason::Stop },
                Event::Usage(Usage::default()),
            ],
            Act::Refuse(refusal, after) => {
                tokio::time::sleep(after).await;
                return Err(refusal);
            }
            Act::BreakEarly(reason) => vec![Event::Failed(Refusal::new(reason, "no"))],
            Act::BreakLate(reason) => vec![chunk, Event::Failed(Refusal::new(reason, "no"))],
            Act::Hang => std::future::pending().await,
        };
        let events = stream::iter(events).inspect(move |_| {
            let _held = &open;
        });
        Ok(CompletionStream { model: "m".into(), truncated: false, events: Box::pin(events) })
    }
}

struct Bench {
    local: Arc<Fake>,
    clouds: Vec<Arc<Fake>>,
    dispatcher: Dispatcher<Shared, Shared>,
    telemetry: Arc<Telemetry>,
}

fn bench(local: Arc<Fake>, clouds: &[Arc<Fake>]) -> Bench {
    bench_of(local, clouds, vec![Declared::default(); clouds.len()])
}

/// With what each cloud declares.
fn bench_of(local: Arc<Fake>, clouds: &[Arc<Fake>], declared: Vec<Declared>) -> Bench {
    let telemetry = Telemetry::new();
    let overflow = OverflowConfig {
        ttft_objective: Duration::from_millis(300),
        enter: 1.0,
        leave: 0.6,
        dwell: Duration::from_secs(2),
    };
    let rows = clouds.iter().zip(declared).enumerate().map(|(i, (fake, declared))| Target {
        name: format!("c{i}").into(),
        declared,
        terms: Terms { price: None, model: "m".into(), attested_by: None },
        backend: Shared(fake.clone()),
    });
    let rows = rows.collect();
    let payers = Payers::default();
    let local_too = Shared(local.clone());
    let dispatcher = Dispatcher::new(local_too, rows, &overflow, &payers, telemetry.clone());
    Bench { local, clouds: clouds.to_vec(), dispatcher, telemetry }
}

fn request(deadline: Option<Instant>) -> Arc<CompletionRequest> {
    let input = Input::Text("a".into());
    Arc::new(CompletionRequest { deadline, ..CompletionRequest::greedy("r", input, 1) })
}

impl Bench {
    /// Route and reason of one request, or of its refusal.
    async fn route(&self) -> (String, String) {
        match self.dispatcher.dispatch(request(None)).await {
            Ok(done) => (done.route.to_string(), done.reason),
            Err((refusal, route)) => (route.to_string(), refusal.reason.code()),
        }
    }

    async fn expect(&self, route: &str, reason: &str) {
        assert_eq!(self.route().await, (route.to_owned(), reason.to_owned()));
    }

    fn changes(&self) -> String {
        let text = self.telemetry.render();
        let line = text.lines().find(|l| l.starts_with("weir_overflow_changes_total"));
        line.and_then(|l| l.split(' ').next_back()).unwrap_or("0").to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_excess_leaves_and_calm_ends_it() {
    let b = bench(Fake::new([Act::Answer]), &[Fake::new([Act::Answer])]);
    b.expect("local", "below_threshold").await;
    b.local.load(1.0);
    b.expect("local", "below_threshold").await;
    b.local.load(1.1);
    b.expect("cloud:c0", "saturated").await;
    assert!(b.dispatcher.active());
    b.local.load(0.7);
    b.expect("cloud:c0", "saturated").await;
    b.local.load(0.6);
    b.expect("local", "below_threshold").await;
    tokio::time::advance(Duration::from_millis(1999)).await;
    assert!(b.dispatcher.active());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!b.dispatcher.active(), "ends without a request");
    b.local.load(0.9);
    b.expect("local", "below_threshold").await;
    assert_eq!(b.changes(), "2");
}

#[tokio::test(start_paused = true)]
async fn without_a_cloud_everything_is_local_or_shed() {
    let b = bench(Fake::new([Act::Answer, Act::Answer, refuse(Reason::QueueFull)]), &[]);
    b.expect("local", "below_threshold").await;
    b.local.load(50.0);
    b.expect("local", "no_cloud").await;
    assert!(!b.dispatcher.active());
    let (refusal, route) = b.dispatcher.dispatch(request(None)).await.err().unwrap();
    assert_eq!((route, refusal.reason), (Route::Shed, Reason::QueueFull));
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(15)), "the work ahead");
    b.local.load(f64::INFINITY);
    let (refusal, _) = b.dispatcher.dispatch(request(None)).await.err().unwrap();
    assert_eq!(refusal.retry_after, Some(RETRY_AFTER_MAX));
}

#[tokio::test(start_paused = true)]
async fn what_the_engine_says_of_coming_back_is_bounded_too() {
    let said =
        [(250, RETRY_AFTER_MIN), (15_000, Duration::from_secs(15)), (900_000, RETRY_AFTER_MAX)];
    for (ms, expected) in said {
        let full =
            Refusal::new(Reason::QueueFull, "no").with_retry_after(Duration::from_millis(ms));
        let b = bench(Fake::new([Act::Refuse(full, Duration::ZERO)]), &[]);
        let (refusal, _) = b.dispatcher.dispatch(request(None)).await.err().unwrap();
        assert_eq!(refusal.retry_after, Some(expected), "{ms} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_cloud_costs_a_try_and_nothing_else() {
    let failures = [
        refuse(Reason::CloudUnreachable),
        refuse(Reason::CloudCannot("top_k")),
        refuse(Reason::CloudBusy),
        refuse(Reason::CloudStatus(400)),
        Act::BreakEarly(Reason::CloudGarbage),
    ];
    for act in failures {
        let code = match &act {
            Act::Refuse(refusal, _) => refusal.reason.code(),
            Act::BreakEarly(reason) => reason.code(),
            _ => unreachable!(),
        };
        let b = bench(Fake::new([Act::Answer]), &[Fake::new([act.clone()])]);
        b.local.load(2.0);
        b.expect("local", &code).await;
        let b = bench(Fake::new([Act::Answer]), &[Fake::new([act]), Fake::new([Act::Answer])]);
        b.local.load(2.0);
        b.expect("cloud:c1", "saturated").await;
        assert_eq!(b.local.asked(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_or_a_dead_engine_turns_to_the_cloud_at_any_saturation() {
    for reason in [Reason::QueueFull, Reason::EngineFailed] {
        let b = bench(Fake::new([refuse(reason.clone())]), &[Fake::new([Act::Answer])]);
        b.expect("cloud:c0", &reason.code()).await;
        let b = bench(
            Fake::new([refuse(reason.clone())]),
            &[Fake::new([refuse(Reason::CloudStatus(500))])],
        );
        b.expect("shed", &reason.code()).await;
        b.local.load(2.0);
        b.expect("shed", &reason.code()).await;
        assert_eq!(b.clouds[0].asked(), 2, "a row is asked once per request");
    }
    let b = bench(Fake::new([Act::BreakEarly(Reason::EngineFailed)]), &[Fake::new([Act::Answer])]);
    b.expect("cloud:c0", "engine_failed").await;
}

#[tokio::test(start_paused = true)]
async fn a_wrong_request_is_nobody_elses() {
    for reason in [Reason::Invalid { param: None }, Reason::ContextLength, Reason::Unsupported] {
        let b = bench(Fake::new([refuse(reason.clone())]), &[Fake::new([Act::Answer])]);
        b.expect("local", &reason.code()).await;
        assert_eq!(b.clouds[0].asked(), 0);
    }
    let b = bench(Fake::new([refuse(Reason::Draining)]), &[Fake::new([Act::Answer])]);
    b.expect("shed", "draining").await;
}

#[tokio::test(start_paused = true)]
async fn after_content_nobody_else_is_asked() {
    let b = bench(
        Fake::new([Act::Answer]),
        &[Fake::new([Act::BreakLate(Reason::CloudTimeout)]), Fake::new([Act::Answer])],
    );
    b.local.load(2.0);
    for _ in 0..3 {
        let done = b.dispatcher.dispatch(request(None)).await.ok().unwrap();
        assert_eq!(done.route, Route::Cloud("c0".into()));
        let events: Vec<Event> = done.stream.events.collect().await;
        assert!(matches!(
            &events[..],
            [Event::Chunk(_), Event::Failed(r)] if r.reason == Reason::CloudTimeout
        ));
    }
    assert_eq!(b.clouds[1].asked() + b.local.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dead_cloud_is_paused_and_tried_by_one_request() {
    let timeout = Act::Refuse(Refusal::new(Reason::CloudUnreachable, "no"), Duration::from_secs(1));
    let dead = Fake::new([timeout.clone(), timeout.clone(), timeout.clone(), timeout, Act::Answer]);
    let b = bench(Fake::new([Act::Answer]), &[dead]);
    b.local.load(2.0);
    for _ in 0..3 {
        b.expect("local", "cloud_unreachable").await;
    }
    let started = Instant::now();
    b.expect("local", "cloud_paused").await;
    assert_eq!(started.elapsed(), Duration::ZERO, "no connect timeout is paid any more");
    tokio::time::advance(Duration::from_secs(5)).await;
    let (probe, other) = tokio::join!(b.route(), b.route());
    assert_eq!((probe.1.as_str(), other.1.as_str()), ("cloud_unreachable", "cloud_paused"));
    tokio::time::advance(Duration::from_secs(6)).await;
    b.expect("cloud:c0", "saturated").await;
    b.expect("cloud:c0", "saturated").await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_could_not_be_sent_does_not_count_as_a_try() {
    let dead = Act::BreakLate(Reason::CloudUnreachable);
    let cloud =
        Fake::new([dead.clone(), dead.clone(), dead, refuse(Reason::CloudBusy), Act::Answer]);
    let b = bench(Fake::new([Act::Answer]), &[cloud]);
    b.local.load(2.0);
    for _ in 0..3 {
        let done = b.dispatcher.dispatch(request(None)).await.ok().unwrap();
        assert_eq!(done.route, Route::Cloud("c0".into()));
        done.stream.events.collect::<Vec<_>>().await;
    }
    b.expect("local", "cloud_paused").await;
    tokio::time::advance(Duration::from_secs(5)).await;
    b.expect("local", "cloud_busy").await;
    b.expect("cloud:c0", "saturated").await;
}

#[tokio::test(start_paused = true)]
async fn retry_after_and_a_wrong_key_pause_at_once() {
    let limited = Refusal::new(Reason::CloudStatus(429), "no");
    let cases = [
        (limited.clone().with_retry_after(Duration::from_secs(7)), 7),
        (limited.with_retry_after(Duration::from_secs(7000)), 60),
        (Refusal::new(Reason::CloudStatus(401), "no"), 60),
    ];
    for (refusal, pause) in cases {
        let cloud = Fake::new([Act::Refuse(refusal.clone(), Duration::ZERO), Act::Answer]);
        let b = bench(Fake::new([Act::Answer]), &[cloud]);
        b.local.load(2.0);
        b.expect("local", &refusal.reason.code()).await;
        tokio::time::advance(Duration::from_millis(pause * 1000 - 1)).await;
        b.expect("local", "cloud_paused").await;
        tokio::time::advance(Duration::from_millis(1)).await;
        b.expect("cloud:c0", "saturated").await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_holds_wherever_the_request_is() {
    for saturation in [0.0, 2.0] {
        let b = bench(Fake::new([Act::Hang]), &[Fake::new([Act::Hang])]);
        b.local.load(saturation);
        let started = Instant::now();
        let deadline = started + Duration::from_millis(700);
        let (refusal, route) = b.dispatcher.dispatch(request(Some(deadline))).await.err().unwrap();
        assert_eq!((refusal.reason, route), (Reason::Deadline, Route::Shed));
        assert_eq!(started.elapsed(), Duration::from_millis(700));
        assert_eq!(b.local.asked() + b.clouds[0].asked(), 1);
        let late = b.dispatcher.dispatch(request(Some(started))).await.err().unwrap();
        assert_eq!(late.0.reason, Reason::Deadline);
        assert_eq!(b.local.asked() + b.clouds[0].asked(), 1, "nobody is asked too late");
    }
}

#[tokio::test(start_paused = true)]
async fn leaving_cancels_whoever_was_asked() {
    for saturation in [0.0, 2.0] {
        let b = bench(Fake::new([Act::Hang]), &[Fake::new([Act::Hang])]);
        b.local.load(saturation);
        let waiting = b.dispatcher.dispatch(request(None));
        assert!(tokio::time::timeout(Duration::from_secs(1), waiting).await.is_err());
        let open = |fake: &Arc<Fake>| fake.open.load(Ordering::SeqCst);
        assert_eq!(open(&b.local) + open(&b.clouds[0]), 0);
    }
    let b = bench(Fake::new([Act::Answer]), &[]);
    let done = b.dispatcher.dispatch(request(None)).await.ok().unwrap();
    assert_eq!(b.local.open.load(Ordering::SeqCst), 1);
    drop(done);
    assert_eq!(b.local.open.load(Ordering::SeqCst), 0);
}

/// A dispatcher whose rows declare these levels.
fn with_levels(levels: &[Option<FedRamp>]) -> Bench {
    let clouds: Vec<_> = levels.iter().map(|_| Fake::new([Act::Answer])).collect();
    let declared = levels.iter().map(|level| Declared { fedramp: *level, ..Declared::default() });
    bench_of(Fake::new([Act::Answer]), &clouds, declared.collect())
}

fn of(policy: RequestPolicy) -> Arc<CompletionRequest> {
    let input = Input::Text("a".into());
    Arc::new(CompletionRequest { policy, ..CompletionRequest::greedy("r", input, 1) })
}

fn high() -> RequestPolicy {
    let require = Requires { fedramp: Some(FedRamp::High), ..Requires::default() };
    RequestPolicy { require: Arc::new(require), ..RequestPolicy::open() }
}

impl Bench {
    async fn expect_of(&self, policy: RequestPolicy, route: &str, reason: &str) {
        let placed = match self.dispatcher.dispatch(of(policy)).await {
            Ok(done) => (done.route.to_string(), done.reason),
            Err((refusal, route)) => (route.to_string(), refusal.reason.code()),
        };
        assert_eq!(placed, (route.to_owned(), reason.to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn only_rows_that_qualify_are_asked() {
    let b = with_levels(&[None, Some(FedRamp::Moderate), Some(FedRamp::High)]);
    b.expect_of(high(), "local", "below_threshold").await;
    b.local.load(2.0);
    b.expect_of(high(), "cloud:c2", "saturated").await;
    assert_eq!(b.clouds[0].asked() + b.clouds[1].asked(), 0);
    b.expect_of(RequestPolicy::open(), "cloud:c0", "saturated").await;
    let text = b.telemetry.render();
    let counted = r#"weir_kept_from_cloud_total{cloud="c0",reason="compliance:fedramp"} 1"#;
    assert!(text.contains(counted), "{text}");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_may_have_stays_and_begins_no_overflow() {
    let b = with_levels(&[None, Some(FedRamp::Moderate)]);
    b.local.load(2.0);
    b.expect_of(high(), "local", "compliance:fedramp").await;
    let kept = RequestPolicy { away: Err(KeptHere::Path), ..RequestPolicy::open() };
    b.expect_of(kept.clone(), "local", "policy:path").await;
    assert!(!b.dispatcher.active());
    let full = bench(Fake::new([refuse(Reason::QueueFull)]), &[Fake::new([Act::Answer])]);
    full.expect_of(kept, "shed", "queue_full").await;
    full.expect_of(high(), "shed", "queue_full").await;
    assert_eq!(full.clouds[0].asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_must_not_run_here_goes_to_a_cloud_or_nowhere() {
    let only = || RequestPolicy { here: false, ..RequestPolicy::open() };
    let b = with_levels(&[None]);
    b.expect_of(only(), "cloud:c0", "cloud_only").await;
    b.expect_of(RequestPolicy { here: false, ..high() }, "shed", "compliance:fedramp").await;
    let nowhere = RequestPolicy { away: Err(KeptHere::Path), ..only() };
    b.expect_of(nowhere, "shed", "policy:nowhere").await;
    let busy = bench(Fake::new([Act::Answer]), &[Fake::new([refuse(Reason::CloudBusy)])]);
    busy.expect_of(only(), "shed", "cloud_busy").await;
    let none = bench(Fake::new([Act::Answer]), &[]);
    none.expect_of(only(), "shed", "policy:nowhere").await;
    assert_eq!(b.local.asked() + busy.local.asked() + none.local.asked(), 0);
}
