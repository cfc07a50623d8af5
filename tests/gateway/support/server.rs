//! A running weir, and a backend whose every word is known beforehand.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Sleep, sleep};
use weir::api::{Api, Doors, Limits, Load, ModelCard, Placed, Service, Shed, serve};
use weir::completion::compliance::OnSecret;
use weir::completion::{
    ChatMessage, Chunk, CompletionRequest, CompletionStream, Event, FinishReason, Input, Reason,
    Refusal, Route, TokenLogprob, Usage,
};
use weir::config::{PolicyConfig, ServeConfig};
use weir::dispatch::{Explanation, Standing};
use weir::ledger::audit::{AuditError, UsageLine};
use weir::policy::peer::Instance;
use weir::telemetry::Telemetry;

/// A weir that goes down with the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) counting: Arc<Counting>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
}

/// What a test changes before the start.
pub(crate) struct Setup {
    pub(crate) counting: Counting,
    pub(crate) limits: Limits,
    pub(crate) config: ServeConfig,
    pub(crate) policy: PolicyConfig,
}

impl Default for Setup {
    fn default() -> Self {
        let config = ServeConfig {
            listen: Vec::new(),
            listen_too: Vec::new(),
            allow_hosts: Vec::new(),
            allow_origins: Vec::new(),
            copilot_token: false,
            strict_model: false,
            grace: Duration::from_secs(5),
            connections_max: 64,
        };
        Self {
            counting: Counting::default(),
            limits: Limits::new(&config),
            config,
            policy: nobody(),
        }
    }
}

/// No tenants and no rules.
fn nobody() -> PolicyConfig {
    PolicyConfig {
        tenants: Vec::new(),
        paths: Vec::new(),
        anonymous_cloud: false,
        unknown_path_leaves: false,
        unmatched_path_leaves: true,
        on_secret: OnSecret::Stay,
        secrets: Vec::new(),
    }
}

impl Setup {
    pub(crate) async fn start(self) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let counting = Arc::new(self.counting);
        let service = Shared(counting.clone());
        let doors = Doors {
            serve: &self.config,
            rules: self.policy.rules(),
            limits: self.limits,
            instance: Instance::random(),
        };
        let api = Api::new(service, Telemetry::new(), doors);
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let served = tokio::spawn(serve(vec![listener], api, shutdown));
        Server { address, counting, stop: Some(stop), served }
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Setup::default().start().await
    }

    /// Begins the way down.
    pub(crate) fn stop(&mut self) {
        self.stop.take().expect("stopped once").send(()).expect("still serving");
    }

    /// Waits until `serve` has returned.
    pub(crate) async fn gone(self) {
        self.served.await.expect("serve does not panic");
    }

    /// Waits until no stream of the backend is alive.
    pub(crate) async fn idle(&self) {
        let idle = async {
            while self.counting.running.load(Ordering::SeqCst) > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(2), idle).await.expect("streams were dropped");
    }
}

struct Shared(Arc<Counting>);

/// Counts: choice 0 of any prompt says "0 1 2 ...", one token a number, until `max_tokens`.
pub(crate) struct Counting {
    pub(crate) card: ModelCard,
    /// Time between two tokens.
    pub(crate) pace: Duration,
    /// Every request is refused so.
    pub(crate) refuse: Option<Reason>,
    /// Every stream breaks before this token.
    pub(crate) breaks_at: Option<u32>,
    /// The first text in a stream panics when placed.
    pub(crate) panics: bool,
    pub(crate) not_ready: bool,
    /// Streams that are alive.
    pub(crate) running: AtomicUsize,
    pub(crate) last: Mutex<Option<Arc<CompletionRequest>>>,
}

impl Default for Counting {
    fn default() -> Self {
        let card = ModelCard {
            id: "counting/1".into(),
            created: 1_700_000_000,
            chat: true,
            vocabulary: 1000,
            context: 4096,
            fim: true,
            parameters: 7_000_000,
            bytes: 14_000_000,
            weights: "bf16".into(),
            slots: 4,
        };
        Self {
            card,
            pace: Duration::ZERO,
            refuse: None,
            breaks_at: None,
            panics: false,
            not_ready: false,
            running: AtomicUsize::new(0),
            last: Mutex::new(None),
        }
    }
}

impl Counting {
    pub(crate) fn last(&self) -> Arc<CompletionRequest> {
        self.last.lock().expect("not poisoned").clone().expect("a request came")
    }
}

impl Service for Shared {
    async fn place(&self, request: Arc<CompletionRequest>) -> Result<Placed, Shed> {
        assert!(!self.0.panics, "as the test asked");
        *self.0.last.lock().expect("not poisoned") = Some(request.clone());
        if let Some(reason) = &self.0.refuse {
            let refusal = Refusal::new(reason.clone(), "as the test asked")
                .with_retry_after(Duration::from_millis(2300));
            return Err(Shed { refusal, route: Route::Shed, reason: reason.code().into() });
        }
        self.0.running.fetch_add(1, Ordering::SeqCst);
        let stream = CompletionStream {
            model: self.0.card.id.clone(),
            truncated: matches!(&request.input, Input::Fim(fim) if fim.prefix.len() > 100),
            events: Box::pin(Count::new(request, self.0.clone())),
        };
        let (route, reason) = (Route::Local, "local".into());
        Ok(Placed { stream, route, reason, costs: Default::default(), predicted_ttft: None })
    }

    async fn explain(&self, _: &Arc<CompletionRequest>) -> Explanation {
        Explanation {
            route: "local".into(),
            reason: "local".into(),
            saturation: 0.0,
            work_ahead_ms: 0.0,
            ttft_objective_ms: 300.0,
            predicted_ttft_ms: None,
            overflow_active: false,
            clouds: Vec::new(),
        }
    }

    fn model(&self) -> &ModelCard {
        &self.0.card
    }

    /// One id for each byte; control tokens are one byte like any other.
    async fn tokenize(&self, text: String, _special: bool) -> Result<Vec<u32>, Refusal> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn token_bytes(&self, id: u32) -> Vec<u8> {
        u8::try_from(id).into_iter().collect()
    }

    fn render_chat(&self, messages: &[ChatMessage]) -> Result<String, Refusal> {
        Ok(messages
            .iter()
            .map(|message| format!("{}: {}\n", message.role, message.content))
            .collect())
    }

    fn load(&self) -> Load {
        Load {
            work_ahead_ms: 12.5,
            prefill_tokens_per_second: 800.0,
            running: self.0.running.load(Ordering::SeqCst),
            waiting: 0,
        }
    }

    fn ready(&self) -> bool {
        !self.0.not_ready
    }

    async fn usage(
        &self,
        _tenant: Option<Arc<str>>,
        _since: Option<i64>,
    ) -> Result<Vec<UsageLine>, AuditError> {
        Ok(Vec::new())
    }

    fn clouds(&self) -> Vec<Standing> {
        let cloud = |cloud: &str| Standing {
            cloud: cloud.into(),
            state: "ok".into(),
            in_flight: 0,
            predicted_ttft_ms: None,
        };
        vec![cloud("counting")]
    }

    fn hold_cloud(&self, name: &str, _hold: bool) -> bool {
        name == "counting"
    }

    fn publish(&self, telemetry: &Telemetry) {
        telemetry.gauges.slots_total.set(8.0);
    }
}

/// Round robin over the choices, one token each.
struct Count {
    request: Arc<CompletionRequest>,
    of: Arc<Counting>,
    step: u32,
    pause: Pin<Box<Sleep>>,
    ended: bool,
}

impl Count {
    fn new(request: Arc<CompletionRequest>, of: Arc<Counting>) -> Self {
        let pause = Box::pin(sleep(of.pace));
        Self { request, of, step: 0, pause, ended: false }
    }

    /// The `step`-th event: n prompts (with echo), then tokens, then n ends, then usage.
    fn event(&mut self) -> Event {
        let n = self.request.n;
        let tokens = self.request.max_tokens.unwrap_or(8);
        let mut step = self.step;
        self.step += 1;
        if self.request.echo {
            if step < n {
                return self.prompt(step);
            }
            step -= n;
        }
        let (token, choice) = (step / n, step % n);
        if self.of.breaks_at == Some(token) {
            self.ended = true;
            return Event::Failed(Refusal::new(Reason::EngineFailed, "as the test asked"));
        }
        match token {
            token if token < tokens => self.token(token, choice),
            token if token == tokens => Event::Finished { choice, reason: FinishReason::Length },
            _ => {
                self.ended = true;
                let completion_tokens = u64::from(tokens * n);
                Event::Usage(Usage { prompt_tokens: 7, cached_tokens: 3, completion_tokens })
            }
        }
    }

    fn prompt(&self, choice: u32) -> Event {
        let Input::Text(text) = &self.request.input else { panic!("echo of text only") };
        let tokens = vec![logprob(text, None)];
        Event::Prompt { choice, text: text.clone(), tokens }
    }

    /// A later choice is likelier, so that `best_of` must turn their order round.
    fn token(&self, token: u32, choice: u32) -> Event {
        let text = format!("{}:{token} ", choice);
        let tokens = match self.request.logprobs {
            Some(_) => vec![logprob(&text, Some(-1.0 / f32::from(choice as u8 + 1)))],
            None => Vec::new(),
        };
        Event::Chunk(Chunk { choice, text: text.as_bytes().into(), tokens })
    }
}

fn logprob(text: &str, logprob: Option<f32>) -> TokenLogprob {
    let top = logprob.map(|_| (b"other".to_vec(), -0.125)).into_iter().collect();
    TokenLogprob { bytes: text.as_bytes().to_vec(), id: 1, logprob, top }
}

impl Stream for Count {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if !self.of.pace.is_zero() {
            std::task::ready!(self.pause.as_mut().poll(cx));
            self.pause = Box::pin(sleep(self.of.pace));
        }
        Poll::Ready(Some(self.event()))
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.of.running.fetch_sub(1, Ordering::SeqCst);
    }
}
