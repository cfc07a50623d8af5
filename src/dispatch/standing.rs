//! How the clouds are, for whoever runs the box.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::ask::known;
use super::row::{Row, Wanted};
use super::{Dispatcher, Quote};
use crate::money::Asked;

/// One row as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    pub cloud: String,
    /// `ok`, or the code for which it would not be asked, whatever the request.
    pub state: String,
    /// Requests it has now.
    pub in_flight: usize,
    /// Time to first token of its recent answers, the ninth of ten; none is recent: null.
    pub predicted_ttft_ms: Option<f64>,
}

impl<L, C: Quote> Dispatcher<L, C> {
    /// In the order of the rows.
    pub fn standings(&self) -> Vec<Standing> {
        // What fits in nowhere else is no larger than this.
        let nothing = Asked { bytes: 0, messages: 0, max_tokens: 0, n: 0 };
        let now = Instant::now();
        let standing = |row: &Row<C>| {
            let left = row.backend.left(now);
            let wanted = Wanted { asked: &nothing, left, now, nowhere_else: false };
            let (showed, open) = row.look(wanted);
            let ttft = known(showed, row, &nothing).ttft();
            Standing {
                cloud: row.name.to_string(),
                state: open.err().unwrap_or("ok").to_owned(),
                in_flight: row.in_flight(),
                predicted_ttft_ms: ttft.map(|ttft| ttft.as_secs_f64() * 1e3),
            }
        };
        self.rows.iter().map(standing).collect()
    }
}
