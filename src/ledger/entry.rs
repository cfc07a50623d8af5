//! A row of the ledger: what the dispatcher knows of a request, and how it is stored.
//!
//! No field holds text of a prompt or of an answer, and none comes from a client: names are the
//! operator's, reasons are of a closed list.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::account::Account;
use super::calendar::Moment;
use crate::completion::Usage;
use crate::money::Money;

/// Longest text of a field in bytes; what is longer is cut. Names are far shorter.
const TEXT_BYTES_MAX: usize = 256;

/// What is known of a request that left, or wanted to, once it is over.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What the cloud calls the model.
    pub model: Arc<str>,
    /// Where it was processed, as far as known.
    pub region: Option<Arc<str>>,
    /// What was bought, where a provider sells the same tokens at several prices.
    pub tier: Option<Arc<str>>,
    /// Why it left, or why it did not; `x-weir-reason`.
    pub reason: Cow<'static, str>,
    /// The rule of the policy that allowed or forbade it.
    pub rule: Cow<'static, str>,
    /// Who vouches for a claim of the row that weir's own data does not know.
    pub attested_by: Option<Arc<str>>,
    /// As the cloud reported it.
    pub usage: Option<Usage>,
    pub ttft_predicted: Option<Duration>,
    pub ttft: Option<Duration>,
    /// None: the cloud did not say, so that the worst case is booked and marked.
    pub cost: Option<Money>,
    pub outcome: Outcome,
}

impl Entry {
    /// An entry that knows how it ended and nothing else.
    pub fn new(outcome: Outcome) -> Self {
        Self {
            model: Arc::default(),
            region: None,
            tier: None,
            reason: Cow::Borrowed(""),
            rule: Cow::Borrowed(""),
            attested_by: None,
            usage: None,
            ttft_predicted: None,
            ttft: None,
            cost: None,
            outcome,
        }
    }
}

/// How a request ended; the closed list in the ledger's column `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The cloud answered to the end.
    Answered,
    /// The answer broke after it had begun.
    Broke,
    /// The client left, or another answer was faster.
    Cancelled,
    /// The cloud refused, or failed before its first content.
    Failed,
    /// It wanted to leave and ran on this box instead.
    Kept,
    /// It wanted to leave and ran nowhere.
    Shed,
    /// Its reservation was dropped without a word: booked at worst case.
    Dropped,
    /// No request: an hour's rent.
    Hour,
}

impl Outcome {
    pub const ALL: [Self; 8] = [
        Self::Answered,
        Self::Broke,
        Self::Cancelled,
        Self::Failed,
        Self::Kept,
        Self::Shed,
        Self::Dropped,
        Self::Hour,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Broke => "broke",
            Outcome::Cancelled => "cancelled",
            Outcome::Failed => "failed",
            Outcome::Kept => "kept",
            Outcome::Shed => "shed",
            Outcome::Dropped => "dropped",
            Outcome::Hour => "hour",
        }
    }
}

/// An entry with its money, on its way to the disk.
pub(super) struct Row {
    pub(super) account: Account,
    /// When it was reserved or noted.
    pub(super) unix_ms: i64,
    /// The day and month whose budgets it counts for.
    pub(super) moment: Moment,
    pub(super) worst: Money,
    pub(super) cost: Money,
    /// The cost is the worst case, since nobody knows better.
    pub(super) estimated: bool,
    pub(super) entry: Entry,
}

/// A stored value. SQLite's other kinds, floats and blobs, are in no column that is hashed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Field<'a> {
    Null,
    Int(i64),
    Text(&'a str),
}

/// The hashed columns behind `seq`, in the order in which they are hashed.
pub(super) const COLUMNS: [&str; 20] = [
    "time_ms",
    "day",
    "month",
    "tenant",
    "cloud",
    "model",
    "region",
    "tier",
    "reason",
    "rule",
    "attested_by",
    "config",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "ttft_predicted_us",
    "ttft_us",
    "worst_nusd",
    "cost_nusd",
    "estimated",
];
/// The last hashed column.
pub(super) const OUTCOME: &str = "outcome";

impl Row {
    /// The values of [`COLUMNS`] and [`OUTCOME`].
    pub(super) fn fields(&self) -> [Field<'_>; COLUMNS.len() + 1] {
        let entry = &self.entry;
        let tokens = |pick: fn(&Usage) -> u64| match &entry.usage {
            Some(usage) => integer(pick(usage)),
            None => Field::Null,
        };
        [
            Field::Int(self.unix_ms),
            Field::Int(self.moment.day),
            Field::Int(self.moment.month),
            text(self.account.tenant()),
            text(self.account.cloud()),
            text(&entry.model),
            optional(entry.region.as_deref()),
            optional(entry.tier.as_deref()),
            text(&entry.reason),
            text(&entry.rule),
            optional(entry.attested_by.as_deref()),
            text(self.account.config()),
            tokens(|usage| usage.prompt_tokens),
            tokens(|usage| usage.cached_tokens),
            tokens(|usage| usage.completion_tokens),
            micros(entry.ttft_predicted),
            micros(entry.ttft),
            integer(self.worst.nano()),
            integer(self.cost.nano()),
            Field::Int(i64::from(self.estimated)),
            Field::Text(entry.outcome.name()),
        ]
    }
}

fn integer(value: u64) -> Field<'static> {
    Field::Int(i64::try_from(value).unwrap_or(i64::MAX))
}

fn micros(time: Option<Duration>) -> Field<'static> {
    time.map_or(Field::Null, |time| integer(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)))
}

fn optional(value: Option<&str>) -> Field<'_> {
    value.map_or(Field::Null, text)
}

fn text(value: &str) -> Field<'_> {
    Field::Text(&value[..value.floor_char_boundary(TEXT_BYTES_MAX)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_have_names_of_their_own() {
        let mut names: Vec<_> = Outcome::ALL.map(Outcome::name).into();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Outcome::ALL.len());
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let long = "é".repeat(TEXT_BYTES_MAX);
        assert_eq!(text(&long), Field::Text(&long[..TEXT_BYTES_MAX]));
        let odd = format!("x{long}");
        assert_eq!(text(&odd), Field::Text(&odd[..TEXT_BYTES_MAX - 1]));
    }
}
