//! The side of the engine that others hold: requests in, events out.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::Stream;
use models::text::{STOP_STRINGS_MAX, StopStrings};
use models::tokenizer::Tokenizer;
use tokio::sync::{Semaphore, mpsc, watch};

use super::Health;
use super::digest::Digest;
use super::message::{
    Command, SequenceEvent, SequenceId, SequenceRules, SequenceSpec, Submission, events_max,
};
use super::place::{Place, Places};
use super::predict::Predictor;
use super::prompt::{Prompt, Prompts};
use super::saturation::Saturation;
use crate::completion::{
    Backend, ChatMessage, CompletionRequest, CompletionStream, Event, FinishReason, Input,
    Priority, Reason, Refusal, Usage,
};

/// Prompts tokenised at once. A long one takes milliseconds, and the cores belong to the device.
const TOKENISE_MAX: usize = 4;
/// Least time after which asking a full engine again makes sense.
const RETRY_MIN: Duration = Duration::from_millis(250);

pub(super) const FAILED: &str = "The engine failed.";

/// Sends work to the engine's thread. Cheap to clone; the thread ends with the last one.
#[derive(Clone)]
pub struct EngineHandle {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    inbox: SyncSender<Command>,
    places: Arc<Places>,
    health: watch::Receiver<Health>,
    prompts: Arc<Prompts>,
    model: Arc<str>,
    thread: Mutex<Option<JoinHandle<()>>>,
    draining: AtomicBool,
    next_id: AtomicU64,
    tokenise: Arc<Semaphore>,
    cached: Arc<Digest>,
    predictor: Predictor,
}

/// The ends of what reaches to the engine's thread.
pub(super) struct Link {
    pub(super) inbox: SyncSender<Command>,
    pub(super) places: Arc<Places>,
    pub(super) health: watch::Receiver<Health>,
    /// Which prompts are in the prefix cache.
    pub(super) cached: Arc<Digest>,
    pub(super) thread: JoinHandle<()>,
}

impl Shared {
    pub(super) fn new(link: Link, prompts: Prompts, model: Arc<str>) -> Self {
        Self {
            inbox: link.inbox,
            places: link.places,
            health: link.health,
            cached: link.cached,
            predictor: Predictor::default(),
            prompts: Arc::new(prompts),
            model,
            thread: Mutex::new(Some(link.thread)),
            draining: AtomicBool::new(false),
            next_id: AtomicU64::new(0),
            tokenise: Arc::new(Semaphore::new(TOKENISE_MAX)),
        }
    }
}

impl EngineHandle {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// How much work is ahead of a new request, and the numbers behind it.
    pub fn saturation(&self) -> &Saturation {
        &self.shared.places.saturation
    }

    /// The model's id.
    pub fn model(&self) -> &Arc<str> {
        &self.shared.model
    }

    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.shared.prompts.tokenizer
    }

    /// Most tokens of prompt and completion together.
    pub fn context(&self) -> usize {
        self.shared.prompts.context
    }

    /// Whether the model fills in the middle; if not it completes prefixes.
    pub fn has_fim(&self) -> bool {
        self.shared.prompts.fim.is_some()
    }

    pub fn has_chat(&self) -> bool {
        self.shared.prompts.chat.is_some()
    }

    /// Whether a token was generated and the engine is alive.
    pub fn ready(&self) -> bool {
        self.health() == Health::Ready
    }

    /// Waits for the first token.
    pub async fn started(&self) -> Result<(), Refusal> {
        let mut health = self.shared.health.clone();
        // The thread says how it ended before it lets go of its end, so an error is no news.
        let _ended = health.wait_for(|health| *health != Health::Starting).await;
        if self.ready() { Ok(()) } else { Err(Refusal::new(Reason::EngineFailed, FAILED)) }
    }

    /// Refuses new requests from now on; what was let in goes on.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
    }

    /// Returns when nothing runs or waits any more.
    pub async fn drained(&self) {
        self.shared.places.emptied().await;
    }

    /// Ends the engine's thread and waits for it: at most one step. What still runs fails.
    pub fn stop(&self) {
        self.drain();
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // The inbox has room for one command to stop; a thread that ended needs none.
            let _ended = self.shared.inbox.try_send(Command::Stop);
            let _panicked = thread.join();
        }
    }

    fn health(&self) -> Health {
        *self.shared.health.borrow()
    }

    fn check_open(&self, request: &CompletionRequest) -> Result<(), Refusal> {
        let health = self.health();
        if self.shared.draining.load(Ordering::Acquire) || health == Health::Stopped {
            return Err(Refusal::new(Reason::Draining, "The server is going down."));
        }
        if health == Health::Failed {
            return Err(Refusal::new(Reason::EngineFailed, FAILED));
        }
        if request.deadline.is_some_and(|deadline| deadline <= tokio::time::Instant::now()) {
            return Err(Refusal::new(Reason::Deadline, "The request's deadline has passed."));
        }
        let places = self.shared.places.max();
        if request.n == 0 || request.n as usize > places {
            let reason = Reason::Invalid { param: Some("n") };
            return Err(Refusal::new(reason, format!("n must be 1 to {places}.")));
        }
        Ok(())
    }

    /// A place for each choice; none for a warm-up that there is no room for.
    fn reserve(&self, request: &CompletionRequest) -> Result<Vec<Place>, Refusal> {
        let places = self.shared.places.reserve(request.n as usize, request.priority);
        if places.is_none() && request.priority == Priority::WarmUp {
            return Ok(Vec::new());
        }
        let places = places.ok_or_else(|| {
            let ahead = Duration::from_secs_f64(self.saturation().work_ahead_ms() / 1e3);
            Refusal::new(Reason::QueueFull, "The queue is full; try again later.")
                .with_retry_after(ahead.max(RETRY_MIN))
        });
        let mut places = places?;
        // One prompt, whatever the number of choices: it is computed once.
        places[0].announce(self.shared.prompts.estimate(&request.input));
        Ok(places)
    }

    /// Renders and tokenises off the async threads, a few at a time; those that wait for their
    /// turn have a place already.
    async fn tokenise(&self, request: &Arc<CompletionRequest>) -> Result<Prompt, Refusal> {
        let turn = Arc::clone(&self.shared.tokenise).acquire_owned().await;
        let turn = turn.expect("the semaphore is never closed");
        let (prompts, request) = (Arc::clone(&self.shared.prompts), Arc::clone(request));
        let prompt = tokio::task::spawn_blocking(move || {
            let prompt = prompts.prompt(&request);
            drop(turn);
            prompt
        });
        prompt.await.unwrap_or_else(|error| {
            Err(Refusal::new(Reason::EngineFailed, "The prompt could not be tokenised.")
                .with_source(error))
        })
    }

    /// The ids of a text, off the async threads like every prompt's. What spells a control token is
    /// one only where `special` says so.
    pub async fn tokenize_text(&self, text: String, special: bool) -> Result<Vec<u32>, Refusal> {
        let turn = Arc::clone(&self.shared.tokenise).acquire_owned().await;
        let turn = turn.expect("the semaphore is never closed");
        let prompts = Arc::clone(&self.shared.prompts);
        let ids = tokio::task::spawn_blocking(move || {
            let ids = prompts.bare(&text, special);
            drop(turn);
            ids
        });
        ids.await.unwrap_or_else(|error| {
            Err(Refusal::new(Reason::EngineFailed, "The text could not be tokenised.")
                .with_source(error))
        })
    }

    /// A conversation as the model's chat template writes it.
    pub fn render_chat(&self, messages: &[ChatMessage]) -> Result<String, Refusal> {
        self.shared.prompts.render(messages)
    }

    fn rules(&self, request: &CompletionRequest) -> Result<SequenceRules, Refusal> {
        let stop = &request.stop;
        let prompts = &self.shared.prompts;
        let fim = prompts.fim.as_ref().filter(|_| matches!(request.input, Input::Fim(_)));
        let mut stop_ids = stop.token_ids.clone();
        let mut strings: Vec<&str> = stop.strings.iter().map(String::as_str).collect();
        if !stop.ignore_eos {
            stop_ids.extend(&prompts.eos);
            stop_ids.extend(fim.into_iter().flat_map(|fim| fim.stop_ids()));
            let room = STOP_STRINGS_MAX.saturating_sub(strings.len());
            strings.extend(fim.into_iter().flat_map(|fim| fim.stop_texts()).take(room));
        }
        stop_ids.sort_unstable();
        stop_ids.dedup();
        let stop_strings = StopStrings::new(&strings).map_err(|error| {
            Refusal::new(Reason::Invalid { param: Some("stop") }, format!("Bad stop: {error}."))
        })?;
        Ok(SequenceRules {
            sampling: request.sampling.clone(),
            stop_strings: Arc::new(stop_strings),
            fit: None,
            healing: None,
            stop_ids,
            min_tokens: stop.min_tokens as usize,
            logprobs: request.logprobs.map(|count| count as usize),
            echo: request.echo,
        })
    }

    /// Gives a request its places and reads it. From now on it counts as work ahead of others,
    /// until it was started and has ended, or until it is dropped.
    pub async fn prepare(&self, request: Arc<CompletionRequest>) -> Result<Prepared, Refusal> {
        self.check_open(&request)?;
        let rules = self.rules(&request)?;
        let mut places = self.reserve(&request)?;
        let Some(first) = places.first_mut() else {
            let (prompt, since) = (Prompt::default(), Instant::now());
            return Ok(Prepared { request, prompt, rules, places, work_ms: 0.0, since });
        };
        let prompt = self.tokenise(&request).await?;
        let uncached = self.uncached(request.tenant, &prompt);
        first.announce(uncached);
        // A warm-up does not count as work ahead, of itself neither.
        let counted = first.arrival.as_ref().map_or((0, 0), |_| (request.n as usize, uncached));
        let before = self.saturation().work_before_ms(counted.0, counted.1);
        let work_ms = before + self.saturation().own_work_ms(uncached);
        Ok(Prepared { request, prompt, rules, places, work_ms, since: Instant::now() })
    }

    /// From when a request was prepared until its first text.
    pub fn predicted_ttft(&self, prepared: &Prepared) -> Duration {
        self.time_of(prepared.work_ms)
    }

    /// The same for a request that would come now and gets no place.
    pub async fn estimate_ttft(
        &self,
        request: &Arc<CompletionRequest>,
    ) -> Result<Duration, Refusal> {
        self.check_open(request)?;
        let prompt = self.tokenise(request).await?;
        let own = self.saturation().own_work_ms(self.uncached(request.tenant, &prompt));
        Ok(self.time_of(self.saturation().work_ahead_ms() + own))
    }

    fn time_of(&self, work_ms: f64) -> Duration {
        Duration::try_from_secs_f64(self.shared.predictor.ms(work_ms) / 1e3).unwrap_or_default()
    }

    /// Prompt tokens that will have to be computed; at least the last one.
    fn uncached(&self, tenant: u32, prompt: &Prompt) -> usize {
        let ids = &prompt.ids;
        let reusable = &ids[..ids.len().saturating_sub(1)];
        ids.len() - self.shared.cached.known(tenant, reusable)
    }

    /// Sends the choices of a request, each its own sequence.
    pub fn start(&self, prepared: Prepared) -> Result<CompletionStream, Refusal> {
        let Prepared { request, prompt, rules, places, work_ms, since } = prepared;
        let truncated = prompt.truncated;
        let watch = Watch { work_ms, since };
        let answer = self.submit(&request, prompt, rules, places)?.with_watch(watch);
        let model = Arc::clone(&self.shared.model);
        Ok(CompletionStream { model, truncated, events: Box::pin(answer) })
    }

    fn submit(
        &self,
        request: &CompletionRequest,
        prompt: Prompt,
        rules: SequenceRules,
        places: Vec<Place>,
    ) -> Result<Answer, Refusal> {
        let choices = u64::from(request.n);
        let first = self.shared.next_id.fetch_add(choices, Ordering::Relaxed);
        let (reply, events) = mpsc::channel(events_max(prompt.max_tokens) * request.n as usize);
        let time_left = request
            .deadline
            .map(|deadline| deadline.saturating_duration_since(tokio::time::Instant::now()));
        let first_choice = SequenceSpec {
            id: SequenceId(first),
            choice: 0,
            cursor: prompt.cursor,
            prompt: prompt.ids.into(),
            max_tokens: prompt.max_tokens,
            rules: Arc::new(SequenceRules { fit: prompt.fit, healing: prompt.healing, ..rules }),
            seed: request.sampling.seed.unwrap_or_else(|| fastrand::u64(..)),
            priority: request.priority,
            tenant: request.tenant,
            time_left,
            time: request.time,
        };
        if places.is_empty() {
            for choice in 0..request.n {
                let reason = FinishReason::Length;
                let end = SequenceEvent::Finished { choice, reason, cached: 0, generated: 0 };
                reply.try_send(end).expect("a reply has room for all events of its sequences");
            }
        }
        let submitted = Instant::now();
        for (choice, place) in (0..request.n).zip(places) {
            let id = SequenceId(first + u64::from(choice));
            let spec = SequenceSpec { id, choice, ..first_choice.clone() };
            let submission = Submission { spec, reply: reply.clone(), place, submitted };
            self.shared.inbox.try_send(Command::Submit(Box::new(submission))).map_err(|error| {
                match error {
                    TrySendError::Disconnected(_) => Refusal::new(Reason::EngineFailed, FAILED),
                    TrySendError::Full(_) => {
                        Refusal::new(Reason::QueueFull, "The queue is full; try again later.")
                    }
                }
            })?;
        }
        let echo = request.echo.then_some(prompt.text);
        Ok(Answer::new(Arc::clone(&self.shared), events, &first_choice, request.n).with_echo(echo))
    }
}

impl Backend for EngineHandle {
    async fn complete(&self, request: Arc<CompletionRequest>) -> Result<CompletionStream, Refusal> {
        let prepared = self.prepare(request).await?;
        self.start(prepared)
    }
}

/// A request that has its places and was read, or a warm-up that there is no room for and that
/// ends as it starts. Dropping it gives the places back.
pub struct Prepared {
    request: Arc<CompletionRequest>,
    prompt: Prompt,
    rules: SequenceRules,
    places: Vec<Place>,
    /// Milliseconds of work until its first text.
    work_ms: f64,
    since: Instant,
}

/// What is to be learnt from the first text.
struct Watch {
    work_ms: f64,
    since: Instant,
}

/// The events of a request's sequences as they come. Dropping it cancels those that run.
struct Answer {
    shared: Arc<Shared>,
    events: mpsc::Receiver<SequenceEvent>,
    first: SequenceId,
    /// Whether each choice still runs: `[n]`.
    open: Vec<bool>,
    /// What `echo` says of the prompt.
    echo: Option<String>,
    /// None: the first text was seen.
    watch: Option<Watch>,
    usage: Usage,
    state: AnswerState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerState {
    Open,
    /// It failed, and said so.
    Failed,
    /// Usage was reported.
    Complete,
}

impl Answer {
    fn new(
        shared: Arc<Shared>,
        events: mpsc::Receiver<SequenceEvent>,
        first: &SequenceSpec,
        choices: u32,
    ) -> Self {
        // Cached tokens are the least that any choice found: a sibling's work is no cache.
        let taken_back = first.rules.healing.as_ref().map_or(0, |taken| taken.tokens);
        let usage = Usage {
            prompt_tokens: (first.prompt.len() + taken_back) as u64,
            cached_tokens: u64::MAX,
            completion_tokens: 0,
        };
        let open = vec![true; choices as usize];
        let state = AnswerState::Open;
        Self { shared, events, first: first.id, open, echo: None, watch: None, usage, state }
    }

    fn with_watch(mut self, watch: Watch) -> Self {
        self.watch = Some(watch);
        self
    }

    /// The first text is there.
    fn begun(&mut self) {
        if let Some(Watch { work_ms, since }) = self.watch.take() {
            self.shared.predictor.observe(work_ms, since.elapsed().as_secs_f64() * 1e3);
        }
    }

    fn with_echo(mut self, text: Option<String>) -> Self {
        self.echo = text;
        self
    }

    fn translate(&mut self, event: SequenceEvent) -> Event {
        match event {
            SequenceEvent::PromptRead { choice, tokens } => {
                Event::Prompt { choice, text: self.echo.clone().unwrap_or_default(), tokens }
            }
            SequenceEvent::Chunk(chunk) => {
                self.begun();
                Event::Chunk(chunk)
            }
            SequenceEvent::Finished { choice, reason, cached, generated } => {
                self.open[choice as usize] = false;
                self.usage.completion_tokens += generated as u64;
                self.usage.cached_tokens = self.usage.cached_tokens.min(cached as u64);
                Event::Finished { choice, reason }
            }
            SequenceEvent::Failed { reason, message } => self.fail(Refusal::new(reason, message)),
        }
    }

    fn fail(&mut self, refusal: Refusal) -> Event {
        self.state = AnswerState::Failed;
        Event::Failed(refusal)
    }
}

impl Stream for Answer {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let answer = &mut *self;
        if answer.state != AnswerState::Open {
            return Poll::Ready(None);
        }
        if !answer.open.contains(&true) {
            answer.state = AnswerState::Complete;
            return Poll::Ready(Some(Event::Usage(answer.usage)));
        }
        Poll::Ready(Some(match ready!(answer.events.poll_recv(context)) {
            Some(event) => answer.translate(event),
            // The engine's thread is gone, and took the other end with it.
            None => answer.fail(Refusal::new(Reason::EngineFailed, FAILED)),
        }))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.state == AnswerState::Complete || !self.open.contains(&true) {
            return;
        }
        // Once all sequences have let go of the reply there is nothing left to cancel.
        if self.events.is_closed() {
            return;
        }
        let ids = (self.first.0..).map(SequenceId).zip(&self.open);
        for (id, _) in ids.filter(|(_, open)| **open) {
            // A full inbox cannot be; and without the command the closed reply ends it.
            let _unneeded = self.shared.inbox.try_send(Command::Cancel(id));
        }
    }
}
