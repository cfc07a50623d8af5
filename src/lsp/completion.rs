//! One suggestion: a question to weir, and as much of the answer as fits. Dropped, it ends at once.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use lsp_types::Uri;
use serde::Serialize;
use tokio::time::sleep;

use super::engine::{Engine, EngineError};
use super::http::{Address, AskError, Client, Question};
use super::prompt::Prompt;
use super::shape::Shape;

/// Times that a weir is asked which goes away meanwhile, and the pause before it is looked for.
const ATTEMPTS_MAX: u32 = 3;
const PAUSE: Duration = Duration::from_millis(50);
/// More than `max_tokens` of any vocabulary come to.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// Why there is no suggestion; nothing in it comes from a document.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("weir gave no completion: {0}")]
    Ask(#[from] AskError),
}

/// What is asked for.
pub(super) struct Wish {
    pub(super) uri: Uri,
    pub(super) prompt: Prompt,
    pub(super) shape: Shape,
}

/// In the words of `/v1/completions`.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(flatten)]
    prompt: &'a Prompt,
    max_tokens: u32,
    temperature: f32,
    stop: &'static [&'static str],
    stream: bool,
}

pub(super) struct Asker {
    engine: Engine,
    client: Client,
    /// Tells the editors of one machine apart.
    process: u64,
}

impl Asker {
    pub(super) fn new(engine: Engine, client: Client) -> Self {
        Self { engine, client, process: fastrand::u64(..) }
    }

    /// Says that questions will come.
    pub(super) fn wake(&self) {
        self.engine.wake();
    }

    /// None: nothing is suggested.
    pub(super) async fn complete(&self, wish: &Wish) -> Result<Option<String>, Failure> {
        let question = self.question(wish);
        for _ in 1..ATTEMPTS_MAX {
            let address = self.engine.address().await?;
            match self.answer(&address, &question, wish.shape).await {
                Err(error) if error.is_lost() => self.engine.lost(&address),
                done => return Ok(done?),
            }
            sleep(PAUSE).await;
        }
        let address = self.engine.address().await?;
        Ok(self.answer(&address, &question, wish.shape).await?)
    }

    fn question(&self, wish: &Wish) -> Question {
        let body = Body {
            prompt: &wish.prompt,
            max_tokens: wish.shape.max_tokens(),
            temperature: 0.0,
            stop: wish.shape.stop(),
            stream: true,
        };
        // Strings and numbers always are JSON.
        let body = serde_json::to_vec(&body).map_or_else(|_| Bytes::new(), Bytes::from);
        Question { session: self.session(&wish.uri), body }
    }

    /// The same for a document as long as this process lives, and nobody else's.
    fn session(&self, uri: &Uri) -> String {
        let mut document = DefaultHasher::new();
        uri.as_str().hash(&mut document);
        format!("lsp-{:016x}-{:016x}", self.process, document.finish())
    }

    async fn answer(
        &self,
        address: &Address,
        question: &Question,
        shape: Shape,
    ) -> Result<Option<String>, AskError> {
        let mut answer = self.client.ask(address, question).await?;
        let mut text = String::new();
        while let Some(part) = answer.next().await? {
            text += &part;
            if text.len() > TEXT_BYTES_MAX || shape.end(&text).is_some() {
                break;
            }
        }
        Ok(shape.suggestion(&text).map(str::to_owned))
    }
}
