//! Asking: the box, the clouds in turn, or both at once, until somebody has content.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep, timeout_at};

use super::decide::{Decision, Place};
use super::row::{Known, Row, Wanted, not_allowed, was_not_sent};
use super::{Costs, Dispatched, Dispatcher, Local, Quote, Rejected, fit, restore};
use crate::completion::{
    Backend, CompletionRequest, CompletionStream, Event, Fault, FinishReason, Input, Reason,
    Refusal, Route, Usage,
};
use crate::money::Asked;
use crate::policy::redact::Cleared;

/// Clouds that one request is sent to after the first one failed it.
const RETRIES_MAX: u32 = 2;
/// What runs here ends by itself at its deadline, with what it has by then. So long after it, it
/// does not: a few steps.
pub(super) const LOCAL_GRACE: Duration = Duration::from_millis(250);

/// How often a request may still be sent to a cloud.
pub(super) struct Tries {
    left: u32,
    begun: bool,
    /// The row that had it last and failed it.
    last: Option<usize>,
}

/// What leaves, where to and why.
#[derive(Clone, Copy)]
struct Leaving<'a> {
    rows: &'a [usize],
    cleared: &'a Cleared,
    why: &'a str,
    /// The box does not take it.
    nowhere_else: bool,
}

/// What came of asking one row.
enum Answer {
    Content(Box<Dispatched>),
    /// It takes nobody now.
    NotNow,
    /// It would, but the request has had its tries.
    NoTriesLeft,
    Refused(Refusal),
}

impl Tries {
    pub(super) fn new() -> Self {
        Self { left: RETRIES_MAX, begun: false, last: None }
    }

    /// Whether nobody else is to be asked, whatever becomes of the request.
    pub(super) fn are_over(&self) -> bool {
        self.left == 0
    }
}

impl<L: Local, C: Backend + Quote> Dispatcher<L, C> {
    pub(super) async fn place(
        &self,
        request: &Arc<CompletionRequest>,
        decision: Decision,
        prepared: Option<L::Prepared>,
        tries: &mut Tries,
    ) -> Result<Dispatched, Rejected> {
        let Decision { place, why, cleared, .. } = decision;
        match place {
            Place::Shed(Reason::NotAllowed(code)) => Err((not_allowed(code), Route::Shed)),
            Place::Shed(reason @ Reason::Secret(_)) => {
                let message = "it holds a secret and may not run here";
                Err((Refusal::new(reason, message), Route::Shed))
            }
            Place::Shed(reason) => Err((late(reason), Route::Shed)),
            Place::Clouds(rows) => {
                // Its place here is given back: what is away is no work ahead of others.
                drop(prepared);
                let leaving = Leaving {
                    rows: &rows,
                    cleared: &cleared,
                    why: &why,
                    nowhere_else: !request.policy.here,
                };
                match self.ask_clouds(leaving, request, tries).await {
                    Ok(dispatched) => Ok(dispatched),
                    Err(refusal) if refusal.reason == Reason::Deadline => Err(self.reject(refusal)),
                    Err(refusal) if !request.policy.here => self.filtered(request, refusal, tries),
                    Err(refusal) => {
                        let why = refusal.reason.code();
                        let here = self.ask_local(request, None, &why, tries).await;
                        here.map_err(|refusal| self.reject(refusal))
                    }
                }
            }
            Place::Local => match self.ask_local(request, prepared, &why, tries).await {
                Ok(dispatched) => Ok(dispatched),
                Err(refusal) if !is_excess(&refusal.reason) => Err(self.reject(refusal)),
                Err(refusal) => {
                    let (rows, cleared) = self.open_rows(request, Instant::now());
                    let why = refusal.reason.code();
                    let leaving =
                        Leaving { rows: &rows, cleared: &cleared, why: &why, nowhere_else: true };
                    let asked = self.ask_clouds(leaving, request, tries).await;
                    asked.map_err(|_| self.reject(refusal))
                }
            },
        }
    }

    /// A completion that a cloud refuses for what it holds is no error in an editor: it is empty.
    fn filtered(
        &self,
        request: &CompletionRequest,
        refusal: Refusal,
        tries: &Tries,
    ) -> Result<Dispatched, Rejected> {
        let completes = matches!(request.input, Input::Fim(_) | Input::Text(_));
        let (Reason::Cloud(Fault::Filtered), true, Some(row)) =
            (&refusal.reason, completes, tries.last)
        else {
            return Err(self.reject(refusal));
        };
        let finished = |choice| Event::Finished { choice, reason: FinishReason::ContentFilter };
        let events = (0..request.n).map(finished).chain([Event::Usage(Usage::default())]);
        let stream = CompletionStream {
            model: "".into(),
            truncated: false,
            events: Box::pin(stream::iter(events.collect::<Vec<_>>())),
        };
        Ok(Dispatched {
            stream,
            route: Route::Cloud(self.rows[row].name.clone()),
            reason: refusal.reason.code(),
            costs: Costs::default(),
            predicted_ttft: None,
        })
    }

    /// Reads a request, no longer than its deadline.
    pub(super) async fn prepare(
        &self,
        request: &Arc<CompletionRequest>,
    ) -> Result<L::Prepared, Refusal> {
        by_deadline(request, self.local.prepare(request.clone())).await
    }

    /// Runs a request here, unless a hedge is faster.
    async fn ask_local(
        &self,
        request: &Arc<CompletionRequest>,
        prepared: Option<L::Prepared>,
        why: &str,
        tries: &mut Tries,
    ) -> Result<Dispatched, Refusal> {
        let began = Instant::now();
        let prepared = match prepared {
            Some(prepared) => prepared,
            None => self.prepare(request).await?,
        };
        let still = self.local.predicted_ttft(&prepared);
        let predicted = began.elapsed() + still;
        let starting = async {
            let stream = self.local.start(prepared)?;
            let patience = request.deadline.map(|deadline| deadline + LOCAL_GRACE);
            let stream = by(patience, with_content(stream)).await?;
            let took = began.elapsed();
            self.calibration.record(predicted, took);
            if let Some(hedge) = &self.hedge {
                hedge.answered(took);
            }
            Ok(Dispatched {
                stream,
                route: Route::Local,
                reason: why.to_owned(),
                costs: Costs::default(),
                predicted_ttft: Some(predicted),
            })
        };
        match &self.hedge {
            Some(hedge) if self.may_leave(&request.policy).is_ok() => {
                let delay = hedge.delay(still, self.objective);
                self.race(starting, delay, request, tries).await
            }
            _ => starting.await,
        }
    }

    /// `starting`, and after `delay` a cloud beside it, if one may have the request and there is
    /// something left of the share that may be asked twice. Whoever loses is cancelled, and what it
    /// cost is booked.
    async fn race(
        &self,
        starting: impl Future<Output = Result<Dispatched, Refusal>>,
        delay: Duration,
        request: &Arc<CompletionRequest>,
        tries: &mut Tries,
    ) -> Result<Dispatched, Refusal> {
        let mut starting = std::pin::pin!(starting);
        tokio::select! {
            biased;
            here = &mut starting => return here,
            () = sleep(delay) => {}
        }
        let mut hedged = std::pin::pin!(async {
            let (rows, cleared) = self.open_rows(request, Instant::now());
            let allowed = !rows.is_empty() && self.hedge.as_ref().is_some_and(|h| h.allowed());
            let leaving =
                Leaving { rows: &rows, cleared: &cleared, why: "hedged", nowhere_else: false };
            match allowed {
                true => self.ask_clouds(leaving, request, tries).await.ok(),
                false => None,
            }
        });
        tokio::select! {
            biased;
            here = &mut starting => match here {
                Ok(here) => Ok(here),
                // It may be saved yet.
                Err(refusal) => hedged.await.ok_or(refusal),
            },
            there = &mut hedged => match there {
                Some(there) => Ok(there),
                None => starting.await,
            },
        }
    }

    /// Asks the rows in this order, each once and no more than may be tried. The error is the last
    /// row's.
    async fn ask_clouds(
        &self,
        leaving: Leaving<'_>,
        request: &Arc<CompletionRequest>,
        tries: &mut Tries,
    ) -> Result<Dispatched, Refusal> {
        let mut last = Refusal::new(Reason::CloudBusy, "no cloud can take the request now");
        self.count_refusals(&request.policy);
        let Leaving { rows, cleared, .. } = leaving;
        let mut uncounted = cleared.redaction.as_ref();
        let asked = request;
        let request = cleared.request.as_ref().unwrap_or(request);
        for &row in rows {
            // First of all: whoever may not have the request is not asked, whatever else holds.
            if self.rows[row].may_have(&request.policy).is_err() {
                continue;
            }
            let answer = self.ask(row, request, leaving, tries).await;
            if matches!(answer, Answer::Content(_) | Answer::Refused(_))
                && let Some(redaction) = uncounted.take()
            {
                redaction.rules.iter().for_each(|rule| self.telemetry.redacted(rule));
            }
            match answer {
                Answer::Content(dispatched) => {
                    let dispatched = self.restored(*dispatched, cleared, request.n);
                    let stream = fit::answer(dispatched.stream, asked);
                    return Ok(Dispatched { stream, ..dispatched });
                }
                Answer::NotNow => {}
                Answer::NoTriesLeft => break,
                Answer::Refused(refusal) => {
                    self.rows[row].refused(&refusal, Instant::now());
                    let reason = &refusal.reason;
                    let over = *reason == Reason::Deadline || is_the_request_s(reason);
                    if !was_not_sent(reason) {
                        self.tried(tries);
                        tries.last = Some(row);
                    }
                    last = refusal;
                    if over {
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    /// An answer with the secrets back in it.
    fn restored(&self, dispatched: Dispatched, cleared: &Cleared, n: u32) -> Dispatched {
        let Some(redaction) = &cleared.redaction else { return dispatched };
        let damaged = self.telemetry.placeholders_damaged.clone();
        let stream = restore::answer(dispatched.stream, redaction, n, damaged);
        Dispatched { stream, ..dispatched }
    }

    /// Whether a request may be sent to one more cloud. The first costs nothing, and pays for the
    /// second tries of others.
    fn may_try(&self, tries: &Tries) -> bool {
        !tries.begun || (tries.left > 0 && self.retries.take())
    }

    /// A cloud had the request and failed it.
    pub(super) fn tried(&self, tries: &mut Tries) {
        match std::mem::replace(&mut tries.begun, true) {
            false => self.retries.pay_in(),
            true => tries.left = tries.left.saturating_sub(1),
        }
    }

    /// Asks one row, with its worst case set aside.
    async fn ask(
        &self,
        row: usize,
        request: &Arc<CompletionRequest>,
        leaving: Leaving<'_>,
        tries: &Tries,
    ) -> Answer {
        let Leaving { why, nowhere_else, .. } = leaving;
        let calibration = &self.calibrations[row];
        let row = &self.rows[row];
        let asked = match row.backend.quote(request) {
            Ok(asked) => asked,
            Err(refusal) => return Answer::Refused(refusal),
        };
        let began = Instant::now();
        let predicted = known(row.ttft(began), row, &asked).ttft();
        let left = row.backend.left(began);
        let wanted = Wanted { asked: &asked, left, now: began, nowhere_else };
        let Some(permit) = row.admit(wanted) else {
            return Answer::NotNow;
        };
        if !self.may_try(tries) {
            row.not_asked(began);
            return Answer::NoTriesLeft;
        }
        let charge = match row.till.charge(request, row.till.worst(&asked), predicted, why) {
            Ok(charge) => charge,
            Err(refusal) => return Answer::Refused(refusal),
        };
        let starting = async { with_content(row.backend.complete(request.clone()).await?).await };
        match by_deadline(request, starting).await {
            Ok(stream) => {
                let now = Instant::now();
                let took = now.duration_since(began);
                row.answered(took, now);
                if let Some(predicted) = predicted {
                    calibration.record(predicted, took);
                }
                let costs = Costs::of(charge.cost());
                Answer::Content(Box::new(Dispatched {
                    stream: charge.watch(row.watch(stream, permit)),
                    route: Route::Cloud(row.name.clone()),
                    reason: why.to_owned(),
                    costs,
                    predicted_ttft: predicted,
                }))
            }
            Err(refusal) => {
                charge.refused(&refusal);
                Answer::Refused(refusal)
            }
        }
    }
}

/// What is known of a row's time to first token: what it showed, or what it told where that is
/// more.
pub(super) fn known<C: Quote>(showed: Known, row: &Row<C>, asked: &Asked) -> Known {
    match (showed, row.backend.told_ttft(asked)) {
        (known, None) => known,
        (Known::Answers { ttft, enough }, Some(told)) => {
            Known::Answers { ttft: ttft.max(told), enough }
        }
        (_, Some(ttft)) => Known::Answers { ttft, enough: true },
    }
}

pub(super) fn late(reason: Reason) -> Refusal {
    Refusal::new(reason, "the deadline passed before the first token")
}

/// Whether the box, and not the request, is why it was refused: then a cloud may help.
pub(super) fn is_excess(reason: &Reason) -> bool {
    matches!(reason, Reason::QueueFull | Reason::EngineFailed)
}

/// Whether every cloud of that kind would refuse it.
fn is_the_request_s(reason: &Reason) -> bool {
    matches!(reason, Reason::Cloud(Fault::Filtered))
}

/// Waits until a stream has something to show.
async fn with_content(stream: CompletionStream) -> Result<CompletionStream, Refusal> {
    let CompletionStream { model, truncated, mut events } = stream;
    match events.next().await {
        Some(Event::Failed(refusal)) => Err(refusal),
        Some(first) => {
            let events = Box::pin(stream::iter([first]).chain(events));
            Ok(CompletionStream { model, truncated, events })
        }
        None => Err(Refusal::new(Reason::EngineFailed, "the completion ended unanswered")),
    }
}

/// `starting`, no longer than the request's deadline.
async fn by_deadline<T>(
    request: &CompletionRequest,
    starting: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    by(request.deadline, starting).await
}

async fn by<T>(
    deadline: Option<Instant>,
    starting: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    match deadline {
        None => starting.await,
        Some(deadline) => {
            timeout_at(deadline, starting).await.unwrap_or_else(|_| Err(late(Reason::Deadline)))
        }
    }
}
