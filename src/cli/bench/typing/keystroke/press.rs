//! One key: a request, and all of its answer.

use std::time::{Duration, Instant};

use super::super::dialect::{Ask, Reply, Told};
use super::super::http::Wrong;
use super::super::server::Server;
use crate::cli::Failure;

/// Silence for so long is no answer.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// What a key came to.
#[derive(Clone, Debug)]
pub(super) struct Press {
    /// From the request to the first text, where there was any, and to the end.
    pub(super) ttft: Option<Duration>,
    pub(super) total: Duration,
    pub(super) text: String,
    pub(super) told: Told,
}

impl Press {
    /// Tokens of the prompt that had to be read; 0 where the server does not say.
    pub(super) fn read_again(&self) -> f64 {
        match (self.told.prompt, self.told.cached) {
            (Some(prompt), Some(cached)) => prompt.saturating_sub(cached) as f64,
            _ => 0.0,
        }
    }
}

/// `session`: what weir remembers of one edit session it does not know of another.
pub(super) async fn press(server: &Server, ask: &Ask, session: &str) -> Result<Press, Failure> {
    let pressing = tokio::time::timeout(ANSWER_MAX, exchange(server, ask, session));
    let outcome = pressing.await.unwrap_or(Err(Wrong::Ended));
    outcome.map_err(|wrong| Failure::Other(format!("{:?}: {wrong}", server.dialect)))
}

async fn exchange(server: &Server, ask: &Ask, session: &str) -> Result<Press, Wrong> {
    let request = server.request(ask, session);
    let began = Instant::now();
    let mut answer = request.send().await?;
    let (mut reply, mut ttft) = (Reply::new(server.dialect), None);
    while let Some(part) = answer.next().await? {
        reply.push(&part)?;
        if ttft.is_none() && !reply.text.is_empty() {
            ttft = Some(began.elapsed());
        }
    }
    reply.end()?;
    Ok(Press { ttft, total: began.elapsed(), text: reply.text, told: reply.told })
}
