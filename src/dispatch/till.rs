//! What an attempt may cost: set aside before it leaves, settled when it is over.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;

use crate::completion::{CompletionRequest, CompletionStream, Event, Reason, Refusal, Usage};
use crate::ledger::{Account, Entry, Ledger, Moment, Outcome, Reservation};
use crate::money::{Asked, Money, Price};

/// What is known of a row that costs something, or is written down.
pub struct Terms {
    /// None: nobody said.
    pub price: Option<Price>,
    /// What the cloud calls the model.
    pub model: Arc<str>,
    pub attested_by: Option<Arc<str>>,
    /// Where prompts are processed; None: in one of several regions, or nobody said.
    pub region: Option<Arc<str>>,
}

/// What one cloud's part of a reply costs.
#[derive(Clone, Debug, Default)]
pub(super) struct Cost {
    /// At most.
    max: Money,
    /// Set when the cloud has said what it used.
    settled: Arc<OnceLock<Money>>,
}

/// What a reply costs: of each cloud with a price that had a part in it. An answer that goes on in
/// another cloud gets one more while it is read.
#[derive(Clone, Debug, Default)]
pub struct Costs(Arc<Mutex<Vec<Cost>>>);

impl Costs {
    pub(super) fn of(cost: Option<Cost>) -> Self {
        Self(Arc::new(Mutex::new(cost.into_iter().collect())))
    }

    pub(super) fn add(&self, more: &Self) {
        let more = more.all().clone();
        self.all().extend(more);
    }

    /// The most that it may cost, as far as is known by now; None: nobody said what it costs.
    pub fn max(&self) -> Option<Money> {
        self.sum(|cost| cost.max)
    }

    /// What it costs, by the worst case where a cloud has not said.
    pub fn settled(&self) -> Option<Money> {
        self.sum(|cost| *cost.settled.get().unwrap_or(&cost.max))
    }

    fn sum(&self, of: impl Fn(&Cost) -> Money) -> Option<Money> {
        self.all().iter().map(of).reduce(Money::saturating_add)
    }

    fn all(&self) -> MutexGuard<'_, Vec<Cost>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes down what wanted to leave and did not.
pub(super) struct Stayed {
    ledger: Option<Ledger>,
    /// By the tenants' indices; empty without a ledger.
    accounts: Box<[Account]>,
}

impl Stayed {
    pub(super) fn new(ledger: Option<Ledger>, tenants: &[Arc<str>]) -> Self {
        let no_cloud: Arc<str> = "".into();
        let accounts = match &ledger {
            Some(ledger) => tenants.iter().map(|name| ledger.account(name, &no_cloud)).collect(),
            None => Box::default(),
        };
        Self { ledger, accounts }
    }

    /// `outcome`: it ran here instead, or nowhere.
    pub(super) fn note(&self, request: &CompletionRequest, outcome: Outcome, why: &str) {
        let account = self.accounts.get(request.tenant as usize);
        let (Some(ledger), Some(account)) = (&self.ledger, account) else { return };
        let mut entry = Entry::new(outcome);
        entry.reason = Cow::Owned(why.to_owned());
        entry.rule = Cow::Owned(request.policy.rule.to_string());
        ledger.note(account, entry);
    }
}

/// One row's prices and accounts.
pub(super) struct Till {
    ledger: Option<Ledger>,
    /// By the tenants' indices; empty without a ledger.
    accounts: Box<[Account]>,
    terms: Terms,
}

impl Till {
    pub(super) fn new(
        ledger: Option<Ledger>,
        tenants: &[Arc<str>],
        cloud: &Arc<str>,
        terms: Terms,
    ) -> Self {
        let accounts = match &ledger {
            Some(ledger) => tenants.iter().map(|name| ledger.account(name, cloud)).collect(),
            None => Box::default(),
        };
        Self { ledger, accounts, terms }
    }

    /// The most that a request may cost; zero where nobody said what it costs.
    pub(super) fn worst(&self, asked: &Asked) -> Money {
        self.terms.price.as_ref().map_or(Money::ZERO, |price| price.worst(asked))
    }

    /// Whether the budgets have room for so much, without taking it.
    pub(super) fn check(
        &self,
        tenant: u32,
        worst: Money,
        moment: Option<Moment>,
    ) -> Result<(), &'static str> {
        match (&self.ledger, self.accounts.get(tenant as usize), moment) {
            (Some(ledger), Some(account), Some(moment)) => {
                ledger.check(account, worst, moment).map_err(|refused| refused.code())
            }
            _ => Ok(()),
        }
    }

    /// For [`Till::check`] of this row and of every other; None: nothing is held to a budget.
    pub(super) fn moment(&self) -> Option<Moment> {
        self.ledger.as_ref().map(Ledger::moment)
    }

    /// Sets aside the most that an attempt may cost. Until the charge is settled, or dropped, it
    /// counts as spent.
    pub(super) fn charge(
        &self,
        request: &CompletionRequest,
        worst: Money,
        predicted: Option<Duration>,
        why: &str,
    ) -> Result<Charge, Refusal> {
        let account = self.accounts.get(request.tenant as usize);
        let reservation = match (&self.ledger, account) {
            (Some(ledger), Some(account)) => {
                let reserved = ledger.reserve(account, worst);
                Some(reserved.map_err(|refused| {
                    Refusal::new(Reason::Budget(refused.code()), refused.to_string())
                })?)
            }
            _ => None,
        };
        let mut entry = Entry::new(Outcome::Cancelled);
        if reservation.is_some() {
            entry.model = self.terms.model.clone();
            entry.region.clone_from(&self.terms.region);
            entry.tier = self.terms.price.as_ref().and_then(|price| price.tier().cloned());
            entry.ttft_predicted = predicted;
            entry.attested_by.clone_from(&self.terms.attested_by);
            entry.reason = Cow::Owned(why.to_owned());
            entry.rule = Cow::Owned(request.policy.rule.to_string());
        }
        let price = self.terms.price.clone();
        let cost = Cost { max: worst, settled: Arc::default() };
        Ok(Charge { reservation, entry, price, cost, began: Instant::now() })
    }
}

/// Money set aside for an attempt. Dropped, it is a client who left: nobody knows what the cloud
/// will ask for, so the worst case is booked.
pub(super) struct Charge {
    reservation: Option<Reservation>,
    entry: Entry,
    price: Option<Price>,
    cost: Cost,
    began: Instant,
}

impl Charge {
    /// None: nobody said what the row costs.
    pub(super) fn cost(&self) -> Option<Cost> {
        self.price.as_ref().map(|_| self.cost.clone())
    }

    /// The cloud gave nothing. What it refused in so many words costs nothing; where it fell
    /// silent or broke off, it may ask for what it had begun.
    pub(super) fn refused(mut self, refusal: &Refusal) {
        let free =
            matches!(refusal.reason, Reason::Cloud(_) | Reason::CloudCannot(_) | Reason::CloudBusy);
        self.entry.cost = free.then_some(Money::ZERO);
        self.settle(Outcome::Failed);
    }

    /// The stream that was paid for; its end settles.
    pub(super) fn watch(mut self, stream: CompletionStream) -> CompletionStream {
        self.entry.ttft = Some(self.began.elapsed());
        let mut charge = Some(self);
        let events = stream.events.inspect(move |event| match event {
            Event::Usage(usage) => {
                if let Some(charge) = charge.take() {
                    charge.answered(usage);
                }
            }
            Event::Failed(_) => {
                if let Some(mut charge) = charge.take() {
                    charge.settle(Outcome::Broke);
                }
            }
            _ => {}
        });
        CompletionStream { events: Box::pin(events), ..stream }
    }

    /// A cloud that does not report the prompt has reported nothing: tokens of the completion
    /// alone are our own count of what came.
    fn answered(mut self, usage: &Usage) {
        if usage.prompt_tokens > 0 {
            self.entry.usage = Some(*usage);
            self.entry.cost =
                Some(self.price.as_ref().map_or(Money::ZERO, |price| price.actual(usage)));
        }
        self.settle(Outcome::Answered);
    }

    fn settle(&mut self, outcome: Outcome) {
        let mut entry = std::mem::replace(&mut self.entry, Entry::new(outcome));
        entry.outcome = outcome;
        let cost = entry.cost.unwrap_or(self.cost.max);
        // Nothing is settled twice.
        if let (Ok(()), Some(reservation)) = (self.cost.settled.set(cost), self.reservation.take())
        {
            reservation.settle(entry);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.settle(Outcome::Cancelled);
    }
}
