//! The nouns every room shares: what a completion asks for, what comes back, who may answer.
//!
//! Nothing here knows a dialect, a tensor or a socket. An API route fills a
//! [`CompletionRequest`]; the engine and every cloud answer it through [`Backend`].

pub mod compliance;
mod reported;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
pub use models::fit::CodeStops;
use models::fit::Cursor;
pub use models::sampler::SamplingParams;
use smallvec::SmallVec;
use tokio::time::Instant;

use self::compliance::RequestPolicy;
pub use self::reported::Reported;

/// One prompt and everything that decides how it is completed.
#[derive(Clone, Debug)]
pub struct CompletionRequest {
    /// `x-request-id`, for logs on both sides.
    pub id: Arc<str>,
    pub input: Input,
    /// Number of choices; each is its own sequence over the shared prompt. At least 1.
    pub n: u32,
    /// None: as many as fit. 0: nothing is generated, the prompt is only read.
    pub max_tokens: Option<u32>,
    pub sampling: SamplingParams,
    pub stop: StopRules,
    /// Stops that follow from the code around the cursor of [`Input::Fim`]; None: only those of
    /// `stop`.
    pub fit: Option<CodeStops>,
    /// What the client gives each part of the work; at the end of it the text so far is the answer.
    pub time: TimeLimits,
    /// Number of alternatives reported with each token's log-probability; None reports neither.
    pub logprobs: Option<u32>,
    /// Whether the prompt's own tokens are reported too, before the first generated one, as
    /// [`Event::Prompt`].
    pub echo: bool,
    /// When the client stops waiting; work past it is wasted.
    pub deadline: Option<Instant>,
    pub priority: Priority,
    /// Whose edit session this belongs to, when the client said so.
    pub session: Option<Arc<str>>,
    /// Whose cached prefixes may be shared: requests of different tenants never see each other's.
    pub tenant: u32,
    /// Where it may run.
    pub policy: RequestPolicy,
}

impl CompletionRequest {
    /// One choice of at most `max_tokens`, always the likeliest token: what a program inside
    /// this house asks, and what the rest of a request is when it only has an input.
    pub fn greedy(id: &str, input: Input, max_tokens: u32) -> Self {
        Self {
            id: id.into(),
            input,
            n: 1,
            max_tokens: Some(max_tokens),
            sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            stop: StopRules::default(),
            fit: None,
            time: TimeLimits::default(),
            logprobs: None,
            echo: false,
            deadline: None,
            priority: Priority::Completion,
            session: None,
            tenant: 0,
            policy: RequestPolicy::open(),
        }
    }

    /// Where in code the answer stands, if it is to end with it. A client that wants so many tokens,
    /// or tokens past the model's end of text, gets them. `single_line`: the model is good for no
    /// more than a line.
    pub fn cursor(&self, single_line: bool) -> Option<Cursor> {
        let (Some(mut stops), Input::Fim(fim)) = (self.fit, &self.input) else { return None };
        stops.single_line |= single_line;
        let is_free = self.stop.min_tokens == 0 && !self.stop.ignore_eos;
        is_free.then(|| Cursor::new(stops, &fim.prefix, &fim.suffix, fim.path.as_deref()))
    }
}

/// What is to be completed.
#[derive(Clone, Debug)]
pub enum Input {
    /// Continue this text.
    Text(String),
    /// Continue these ids (never leaves the box: ids mean nothing to another model).
    Tokens(Vec<u32>),
    /// Fill in between prefix and suffix.
    Fim(FimInput),
    /// Answer this conversation through the model's chat template.
    Chat(Vec<ChatMessage>),
}

/// A cursor in a file.
#[derive(Clone, Debug, Default)]
pub struct FimInput {
    pub prefix: String,
    pub suffix: String,
    /// Path of the file as the model should see it.
    pub path: Option<String>,
    pub repository: Option<String>,
    /// Other files, the most relevant last (next to the cursor's file).
    pub extra: Vec<ExtraFile>,
}

#[derive(Clone, Debug)]
pub struct ExtraFile {
    pub path: String,
    pub text: String,
}

#[derive(Clone, Debug)]
pub struct ChatMessage {
    pub role: String,
    pub content: String,
}

/// When a choice ends before `max_tokens`.
#[derive(Clone, Debug, Default)]
pub struct StopRules {
    /// Texts that end the choice; not part of it.
    pub strings: Vec<String>,
    /// Ids that end the choice beside the model's own.
    pub token_ids: Vec<u32>,
    /// Go on past the model's end of text.
    pub ignore_eos: bool,
    /// Neither eos nor stop ids before this many tokens.
    pub min_tokens: u32,
}

/// How long a client lets parts of the work take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeLimits {
    /// From its start until the prompt is read (`t_max_prompt_ms`).
    pub prompt: Option<Duration>,
    /// From the first token until the end, once the text holds a line's end (`t_max_predict_ms`).
    pub predict: Option<Duration>,
}

/// Which work goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Reads a prompt that may be asked for soon; given up for any other work.
    WarmUp,
    Batch,
    Chat,
    #[default]
    Completion,
}

/// A part of the answer. `choice` is in `0..n`.
#[derive(Clone, Debug)]
pub enum Event {
    /// The prompt's own text and log-probabilities (`echo` only; once per choice, first).
    Prompt {
        choice: u32,
        text: String,
        tokens: Vec<TokenLogprob>,
    },
    Chunk(Chunk),
    /// A choice ended; nothing of it follows.
    Finished {
        choice: u32,
        reason: FinishReason,
    },
    /// The last event of a stream that ended well.
    Usage(Usage),
    /// The last event of a stream that broke after it had begun.
    Failed(Refusal),
}

/// Text of one choice, in order. Small texts are stored in place: no allocation per token.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    pub choice: u32,
    /// Whole UTF-8 characters.
    pub text: SmallVec<[u8; 40]>,
    /// The tokens that `text` came from, when log-probabilities were asked for.
    pub tokens: Vec<TokenLogprob>,
}

impl Chunk {
    /// The text as a string; bytes that are not UTF-8 were replaced before they got here.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).expect("chunks are cut at characters")
    }
}

#[derive(Clone, Debug)]
pub struct TokenLogprob {
    /// The token's own bytes.
    pub bytes: Vec<u8>,
    pub id: u32,
    /// Natural logarithm; None for a prompt's first token.
    pub logprob: Option<f32>,
    /// The likeliest tokens here, best first: bytes and log-probability.
    pub top: Vec<(Vec<u8>, f32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop string, a stop id or the model's end of text.
    Stop,
    /// `max_tokens` or the context.
    Length,
    /// A cloud refused the content.
    ContentFilter,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: u64,
    /// Of the prompt, how many came from the prefix cache.
    pub cached_tokens: u64,
    pub completion_tokens: u64,
}

/// Where an answer comes from: the label of `x-weir-route`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Local,
    Cloud(Arc<str>),
    Shed,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Route::Local => f.write_str("local"),
            Route::Cloud(name) => write!(f, "cloud:{name}"),
            Route::Shed => f.write_str("shed"),
        }
    }
}

/// An answer that has begun. Dropping it cancels the work, wherever it runs.
pub struct CompletionStream {
    /// Id of the model that answers.
    pub model: Arc<str>,
    /// Whether FIM input was cut to fit.
    pub truncated: bool,
    pub events: Pin<Box<dyn Stream<Item = Event> + Send>>,
}

/// Someone who can complete: the engine, or a cloud.
pub trait Backend: Send + Sync + 'static {
    /// Starts a completion. A refusal here costs nobody anything: the caller may ask another.
    fn complete(
        &self,
        request: Arc<CompletionRequest>,
    ) -> impl Future<Output = Result<CompletionStream, Refusal>> + Send;
}

impl<B: Backend> Backend for Arc<B> {
    fn complete(
        &self,
        request: Arc<CompletionRequest>,
    ) -> impl Future<Output = Result<CompletionStream, Refusal>> + Send {
        B::complete(self, request)
    }
}

/// Why a request was not served, as a value: a reason to count, a sentence for the client, a
/// chain for the log.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub reason: Reason,
    /// For the client: says what to change, names nothing private.
    pub message: String,
    /// For the log.
    #[source]
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    /// When it is worth asking again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), source: None, retry_after: None }
    }

    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

/// The closed list of reasons; [`Reason::code`] is the metric label and `x-weir-reason`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The request itself is wrong; `param` names the field.
    Invalid {
        param: Option<&'static str>,
    },
    /// The prompt does not fit the context.
    ContextLength,
    /// The model has no tokens for this (FIM, chat).
    Unsupported,
    /// The engine's queue is full.
    QueueFull,
    /// The deadline would pass, or passed, before the first token.
    Deadline,
    /// The process is going down.
    Draining,
    /// The device failed.
    EngineFailed,
    /// Policy keeps the request from where it would have to run; the code is
    /// `policy:WHO` or `compliance:WHAT`.
    NotAllowed(&'static str),
    /// A row cannot honour the request in full; names the field.
    CloudCannot(&'static str),
    /// `max_in_flight` of a row is used up.
    CloudBusy,
    /// Another weir, which has not said or no longer says that it holds to what is required.
    CloudUnproven,
    /// It has answered from a region that its row does not declare.
    CloudElsewhere,
    /// Could not connect, or the connection broke.
    CloudUnreachable,
    CloudTimeout,
    /// It answered with an error.
    Cloud(Fault),
    /// It answered something that is no completion.
    CloudGarbage,
    /// It holds a secret; the name of the rule that found it.
    Secret(Arc<str>),
    /// No budget, or no ledger, has room for what it may cost; the code says which.
    Budget(&'static str),
}

/// What a cloud's error says of what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Too much at once: it is left alone for a while, and is not broken.
    Throttled,
    /// A quota or the account's money is used up.
    Quota,
    /// It does not accept who we say we are.
    Credentials,
    /// It finds the time wrong at which we signed.
    Clock,
    /// It finds the request wrong, as another cloud may not.
    Request,
    /// It refuses what the request holds.
    Filtered,
    /// It has no such model, deployment or route.
    NotFound,
    /// It failed.
    Failed,
}

impl Fault {
    /// Stable, lower case.
    pub fn code(self) -> &'static str {
        match self {
            Fault::Throttled => "cloud_throttled",
            Fault::Quota => "cloud_quota",
            Fault::Credentials => "cloud_credentials",
            Fault::Clock => "cloud_clock",
            Fault::Request => "cloud_refused",
            Fault::Filtered => "cloud_filtered",
            Fault::NotFound => "cloud_not_found",
            Fault::Failed => "cloud_failed",
        }
    }
}

impl Reason {
    /// Stable, lower case, safe as a metric label and a header value.
    pub fn code(&self) -> String {
        match self {
            Reason::Invalid { .. } => "invalid".into(),
            Reason::ContextLength => "context_length_exceeded".into(),
            Reason::Unsupported => "unsupported".into(),
            Reason::QueueFull => "queue_full".into(),
            Reason::Deadline => "deadline".into(),
            Reason::Draining => "draining".into(),
            Reason::EngineFailed => "engine_failed".into(),
            Reason::NotAllowed(code) => (*code).into(),
            Reason::CloudCannot(field) => format!("cloud_cannot:{field}"),
            Reason::CloudBusy => "cloud_busy".into(),
            Reason::CloudUnproven => "cloud_unproven".into(),
            Reason::CloudElsewhere => "cloud_elsewhere".into(),
            Reason::CloudUnreachable => "cloud_unreachable".into(),
            Reason::CloudTimeout => "cloud_timeout".into(),
            Reason::Cloud(fault) => fault.code().into(),
            Reason::CloudGarbage => "cloud_garbage".into(),
            Reason::Secret(rule) => format!("secret:{rule}"),
            Reason::Budget(code) => (*code).into(),
        }
    }
}
