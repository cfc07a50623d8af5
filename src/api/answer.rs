//! From a parsed body to a reply: place every prompt, then stream or collect.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::acceptance::Acceptance;
use super::accounting::Account;
use super::error::ApiError;
use super::guard::{PeerAddress, RequestId};
use super::live::{self, Live};
use super::merged::Merged;
use super::reply::{Collected, Heading, Letter, Summary};
use super::sse::EventStream;
use super::tenant::TenantId;
use super::{Api, ModelCard, Placed, Service, Shed, body, sampling, tenant};
use crate::completion::compliance::KeptHere;
use crate::completion::{
    Chunk, CodeStops, CompletionRequest, CompletionStream, Event, Input, Priority, Reason, Refusal,
    Route, SamplingParams, StopRules, TimeLimits, Usage,
};
use crate::dispatch::Costs;
use crate::money::Money;
use crate::policy::asked::Asked;
use crate::policy::{Rules, peer};
use crate::sessions::{Entry, Known, SessionKey, Ticket, Who};

const ROUTE: HeaderName = HeaderName::from_static("x-weir-route");
const REASON: HeaderName = HeaderName::from_static("x-weir-reason");
const COST: HeaderName = HeaderName::from_static("x-weir-cost-usd");
const COST_MAX: HeaderName = HeaderName::from_static("x-weir-cost-max-usd");
const PREDICTED: HeaderName = HeaderName::from_static("x-weir-predicted-ttft-ms");
const ACKNOWLEDGED: HeaderName = HeaderName::from_static(peer::ACKNOWLEDGED);
/// Copilot's clients ask for what may come next with it.
const SPECULATIVE: HeaderName = HeaderName::from_static("x-copilot-speculative");
const TRUNCATED: HeaderName = HeaderName::from_static("x-weir-truncated");
/// Tells nginx and its kin to pass each event on at once.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// A newer request made this one worthless.
const SUPERSEDED: &str = "superseded";
/// The user typed what an earlier answer said: this is the rest of it.
const TYPED_THROUGH: &str = "typed_through";
/// Where the prompts of one list ran in different places.
const MIXED: &str = "mixed";
/// Why a request without a prompt was answered here.
const NO_PROMPT: &str = "no_prompt";

/// What a body asks for, in any dialect.
pub(super) struct Ask {
    /// One for each prompt; all have the same `n`, which is `best_of`. None where the dialect has
    /// requests without a prompt: then the letter's answer to nothing is the whole answer.
    pub requests: Vec<Arc<CompletionRequest>>,
    /// Writes the answer down.
    pub letter: Box<dyn Letter>,
    /// Choices returned for each prompt.
    pub n: u32,
    /// Choices generated for each prompt.
    pub best_of: u32,
    pub stream: bool,
}

/// Whose edit session a request is of, and whether its client says that nobody waits for it.
pub(super) struct Typing {
    key: SessionKey,
    speculative: bool,
}

/// Who asks, and what the headers say of a request.
pub(super) struct Caller<'a> {
    pub id: Arc<str>,
    pub deadline: Option<Instant>,
    pub session: Option<Arc<str>>,
    /// By its number in the rules.
    pub tenant: u32,
    pub acceptance: &'a Arc<Acceptance>,
    rules: &'a Rules,
    asked: Asked,
}

impl Caller<'_> {
    /// A request of this caller's for one choice, with everything at its default: what is written at
    /// a cursor ends where the code around it wants it to.
    pub(super) fn request(&self, input: Input, natural: Priority) -> CompletionRequest {
        let at_a_cursor = matches!(input, Input::Fim(_));
        let mut policy = self.rules.settle(self.tenant, &self.asked, &input);
        if natural == Priority::WarmUp {
            // It warms this box's cache, and nobody else's.
            policy.away = policy.away.and(Err(KeptHere::WarmUp));
        }
        CompletionRequest {
            id: self.id.clone(),
            policy,
            input,
            n: 1,
            max_tokens: None,
            sampling: SamplingParams::default(),
            stop: StopRules::default(),
            fit: at_a_cursor.then_some(CodeStops { block: true, ..CodeStops::default() }),
            time: TimeLimits::default(),
            logprobs: None,
            echo: false,
            deadline: self.deadline,
            priority: self.rules.tenant(self.tenant).class(natural),
            session: self.session.clone(),
            tenant: self.tenant,
        }
    }
}

/// No answer: who said no, why, and what the client gets.
pub(super) struct Failure {
    pub(super) error: ApiError,
    route: Route,
    reason: Cow<'static, str>,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let reason = error.reason();
        Self { error, route: Route::Shed, reason }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let reason = refusal.reason.code().into();
        Self::from(Shed { refusal, route: Route::Shed, reason })
    }
}

impl From<Shed> for Failure {
    fn from(shed: Shed) -> Self {
        let (message, source) = (&shed.refusal.message, shed.refusal.source.as_deref());
        let source = source.map(tracing::field::display);
        tracing::debug!(reason = %shed.reason, message, source, "refused");
        Self { error: ApiError::from(&shed.refusal), route: shed.route, reason: shed.reason }
    }
}

/// The whole life of a completion request.
pub(super) async fn answer<S: Service>(
    api: Arc<Api<S>>,
    request: Request,
    read: impl FnOnce(&[u8], &Caller<'_>, &ModelCard) -> Result<Ask, ApiError>,
) -> Response {
    let mut account = Account::open(api.telemetry.clone());
    let live = live::of::<S>(&request);
    let acknowledged = tenant::acknowledgement(request.headers(), &api.instance);
    let (mut ask, typing) = match receive((&api, &live), request, account.arrival, read).await {
        Ok(both) => both,
        Err(failure) => return refuse(failure, account),
    };
    if ask.requests.is_empty() {
        return without_work(&live, ask, account);
    }
    let placed = match before_the_end(&api, enter(&api, &live.service, &ask, typing)).await {
        Ok(Ok(placed)) => placed,
        Ok(Err(failure)) => return refuse_in(&mut *ask.letter, failure, account),
        Err(refusal) => return refuse_in(&mut *ask.letter, refusal.into(), account),
    };
    let route = placed.route.clone();
    account.placed(route, placed.reason.clone(), ask.requests.len() * ask.best_of as usize);
    let mut response = match ask.stream {
        true => stream(&api, ask, placed, account),
        false => collect(&api, ask, placed, account).await,
    };
    if let (Some(acknowledged), StatusCode::OK) = (acknowledged, response.status()) {
        response.headers_mut().insert(ACKNOWLEDGED, acknowledged);
    }
    response
}

pub(super) async fn receive<S: Service>(
    (api, live): (&Api<S>, &Live<S>),
    request: Request,
    arrival: Instant,
    read: impl FnOnce(&[u8], &Caller<'_>, &ModelCard) -> Result<Ask, ApiError>,
) -> Result<(Ask, Option<Typing>), Failure> {
    if api.lifecycle.draining.is_cancelled() {
        return Err(going_down().into());
    }
    let RequestId(id) = request.extensions().get().cloned().expect("every request is named");
    let &TenantId(tenant) = request.extensions().get().expect("every request is somebody's");
    let address = request.extensions().get::<PeerAddress>().map(|peer| peer.0.ip().to_canonical());
    let (headers, whole) = body::read(request, &api.body_room, api.limits.body_read).await?;
    let session: Option<Arc<str>> = sampling::session(&headers)?.map(Arc::from);
    let who = session.clone().map(Who::Named).or(address.map(Who::Address));
    let typing = who.map(|who| Typing {
        key: SessionKey { tenant, who },
        speculative: headers.get(SPECULATIVE).is_some_and(|value| value.as_bytes() == b"true"),
    });
    let caller = Caller {
        id,
        deadline: sampling::deadline(&headers, arrival)?,
        session,
        tenant,
        acceptance: &api.acceptance,
        rules: &live.rules,
        asked: tenant::asked(&headers, &api.instance)?,
    };
    let model = live.service.model();
    let ask = read(&whole.bytes, &caller, model)?;
    if live.strict_model && !super::models::is_named(&whole.bytes, model) {
        return Err(ApiError::no_such_model().into());
    }
    Ok((ask, typing))
}

/// Everything of one reply that runs.
struct Running {
    streams: Vec<CompletionStream>,
    /// Of the first prompt.
    route: Route,
    reason: Cow<'static, str>,
    /// Whether the prompts run in different places.
    mixed: bool,
    costs: Vec<Costs>,
    /// The longest of all prompts; None: of one nobody knew.
    predicted_ttft: Option<Duration>,
    /// Where it has a part in an edit session.
    ticket: Option<Arc<Ticket>>,
}

impl Running {
    /// What needs nobody to run.
    fn known(model: &ModelCard, known: Known, reason: &'static str) -> Self {
        let text = Chunk { text: known.text.as_bytes().into(), ..Chunk::default() };
        let events = [
            (!known.text.is_empty()).then_some(Event::Chunk(text)),
            Some(Event::Finished { choice: 0, reason: known.finish }),
            Some(Event::Usage(known.usage)),
        ];
        let events = futures_util::stream::iter(events.into_iter().flatten());
        let model = model.id.clone();
        let stream = CompletionStream { model, truncated: false, events: Box::pin(events) };
        Self {
            streams: vec![stream],
            route: Route::Local,
            reason: reason.into(),
            mixed: false,
            costs: Vec::new(),
            predicted_ttft: None,
            ticket: None,
        }
    }

    fn heading(&self, choices: usize) -> Heading<'_> {
        let truncated = self.streams.iter().any(|stream| stream.truncated);
        Heading::new(&self.streams[0].model, choices, truncated, &self.route)
    }
}

/// The sum of what is known of the prompts; None: of none.
pub(super) fn sum(costs: &[Costs], of: impl Fn(&Costs) -> Option<Money>) -> Option<Money> {
    costs.iter().filter_map(of).reduce(Money::saturating_add)
}

/// Places what was asked, unless the user has typed along an earlier suggestion; and gives it up
/// when a newer request makes it worthless.
async fn enter<S: Service>(
    api: &Api<S>,
    service: &S,
    ask: &Ask,
    typing: Option<Typing>,
) -> Result<Running, Failure> {
    let [request] = &ask.requests[..] else { return place(service, &ask.requests).await };
    let Some(Typing { key, speculative }) = typing else {
        return place(service, &ask.requests).await;
    };
    let ticket = match api.sessions.enter(key, request, speculative) {
        Entry::Alone => return place(service, &ask.requests).await,
        Entry::Known(known) => return Ok(Running::known(service.model(), known, TYPED_THROUGH)),
        Entry::Runs(ticket) => Arc::new(ticket),
    };
    let patient;
    let requests = match ticket.is_ahead() {
        true => {
            let priority = request.priority.min(Priority::Batch);
            patient = [Arc::new(CompletionRequest { priority, ..(**request).clone() })];
            &patient[..]
        }
        false => &ask.requests[..],
    };
    let mut running = tokio::select! {
        biased;
        () = ticket.superseded() => {
            Running::known(service.model(), Known::nothing(), SUPERSEDED)
        }
        placed = place(service, requests) => placed?,
    };
    for stream in &mut running.streams {
        let events = std::mem::replace(&mut stream.events, Box::pin(futures_util::stream::empty()));
        stream.events = ticket.clone().watch(events);
    }
    running.ticket = Some(ticket);
    Ok(running)
}

/// Places every prompt; one refusal refuses all, before anything was sent.
async fn place<S: Service>(
    service: &S,
    requests: &[Arc<CompletionRequest>],
) -> Result<Running, Failure> {
    let all = requests.iter().map(|request| service.place(request.clone()));
    let placed: Vec<Placed> = try_join_all(all).await?;
    let mixed = placed.iter().any(|one| one.route != placed[0].route);
    let (route, reason) = (placed[0].route.clone(), placed[0].reason.clone());
    let predicted: Option<Vec<Duration>> = placed.iter().map(|one| one.predicted_ttft).collect();
    let predicted_ttft = predicted.and_then(|all| all.into_iter().max());
    let (streams, costs) = placed.into_iter().map(|one| (one.stream, one.costs)).unzip();
    Ok(Running { streams, route, reason, mixed, costs, predicted_ttft, ticket: None })
}

/// What `work` gives, unless the grace time ends first.
async fn before_the_end<S, T>(api: &Api<S>, work: impl Future<Output = T>) -> Result<T, Refusal> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = api.lifecycle.ended.cancelled() => Err(going_down()),
    }
}

pub(super) fn going_down() -> Refusal {
    Refusal::new(Reason::Draining, "weir is going down; ask again in a moment")
}

fn refuse(failure: Failure, mut account: Account) -> Response {
    account.placed(failure.route.clone(), failure.reason.clone(), 0);
    account.settle(failure.error.status);
    let mut response = failure.error.into_response();
    where_and_why(response.headers_mut(), &failure.route.to_string(), &failure.reason);
    response
}

/// Refuses what was read, unless its client is better served by an answer without text.
fn refuse_in(letter: &mut dyn Letter, failure: Failure, mut account: Account) -> Response {
    let overload = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT]
        .contains(&failure.error.status);
    let instead = overload.then(|| letter.instead_of_overload()).flatten();
    let Some(body) = instead else { return refuse(failure, account) };
    account.placed(failure.route.clone(), failure.reason.clone(), 0);
    account.settle(StatusCode::OK);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    where_and_why(&mut headers, &failure.route.to_string(), &failure.reason);
    (headers, body).into_response()
}

fn without_work<S: Service>(live: &Live<S>, mut ask: Ask, mut account: Account) -> Response {
    ask.letter.open(&Heading::new(&live.service.model().id, 0, false, &Route::Local));
    let nothing = Collected { choices: Vec::new(), usage: Usage::default() };
    let body = ask.letter.whole(&nothing, &Summary::default());
    account.placed(Route::Local, NO_PROMPT.into(), 0);
    account.settle(StatusCode::OK);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    where_and_why(&mut headers, &Route::Local.to_string(), NO_PROMPT);
    (headers, body).into_response()
}

fn stream<S: Service>(api: &Api<S>, mut ask: Ask, running: Running, account: Account) -> Response {
    let choices = ask.requests.len() * ask.n as usize;
    ask.letter.open(&running.heading(choices));
    let mut headers = headers(&running, ask.letter.stream_type());
    if let Some(max) = sum(&running.costs, Costs::max) {
        dollars(&mut headers, COST_MAX, max);
    }
    let events = Merged::new(running.streams, ask.n);
    let ended = api.lifecycle.ended.clone();
    let body = Body::new(EventStream::new(ask.letter, events, running.costs, account, ended));
    let mut response = (headers, body).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

async fn collect<S: Service>(
    api: &Api<S>,
    mut ask: Ask,
    running: Running,
    mut account: Account,
) -> Response {
    ask.letter.open(&running.heading(ask.requests.len() * ask.n as usize));
    let mut headers = headers(&running, "application/json");
    let (route, costs, ticket) = (running.route.clone(), running.costs, running.ticket);
    let choices = ask.requests.len() * ask.best_of as usize;
    let events = Merged::new(running.streams, ask.best_of);
    let collecting = Collected::gather(events, choices, |choice| account.text(choice));
    match before_the_end(api, collecting).await.and_then(|collected| collected) {
        Ok(mut collected) => {
            collected.keep_best(ask.best_of as usize, ask.n as usize);
            let summary = Summary::new(collected.usage, &costs, &account);
            if ticket.is_some_and(|ticket| ticket.is_superseded()) {
                account.superseded(SUPERSEDED);
                headers.insert(REASON, HeaderValue::from_static(SUPERSEDED));
            }
            account.settle(StatusCode::OK);
            if let Some(cost) = summary.cost {
                dollars(&mut headers, COST, cost);
            }
            (headers, ask.letter.whole(&collected, &summary)).into_response()
        }
        Err(refusal) => {
            let reason = refusal.reason.code().into();
            let failure = Shed { refusal, route, reason }.into();
            refuse_in(&mut *ask.letter, failure, account)
        }
    }
}

fn headers(running: &Running, content_type: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    match running.mixed {
        true => where_and_why(&mut headers, MIXED, &running.reason),
        false => where_and_why(&mut headers, &running.route.to_string(), &running.reason),
    }
    if let Some(predicted) = running.predicted_ttft {
        // Tenths of a millisecond: a cached prompt has its first token in less than one.
        let value = format!("{:.1}", predicted.as_secs_f64() * 1e3);
        headers.insert(PREDICTED, HeaderValue::from_str(&value).expect("digits and a point"));
    }
    if running.streams.iter().any(|stream| stream.truncated) {
        headers.insert(TRUNCATED, HeaderValue::from_static("true"));
    }
    headers
}

fn dollars(headers: &mut HeaderMap, name: HeaderName, amount: Money) {
    let value = HeaderValue::from_str(&amount.to_string()).expect("digits and a point");
    headers.insert(name, value);
}

fn where_and_why(headers: &mut HeaderMap, route: &str, reason: &str) {
    // A cloud's name is the operator's; what no header can hold is left out.
    for (name, value) in [(ROUTE, route), (REASON, reason)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
}
