//! From a request's input to token ids that fit.

use std::sync::Arc;

use models::chat::{ChatError, ChatTemplate, Message};
use models::fim::{ExtraText, FimError, FimTemplate, FimText, Rendered, precut};
use models::fit::Cursor;
use models::tokenizer::{Tokenizer, TokenizerError};

use super::heal::{Taken, take_back};
use crate::completion::{ChatMessage, CompletionRequest, FimInput, Input, Reason, Refusal};

/// A prefix without FIM tokens is cut in steps of one such part of the room, so that the cut
/// stays where it is for many keystrokes and the cached prefix stays valid.
const CUT_PARTS: usize = 8;
/// Part of the context that a FIM prompt leaves free when the request names no `max_tokens`.
const FIM_OUTPUT_PART: usize = 4;

/// How a model wants to be spoken to.
pub(super) struct Prompts {
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) fim: Option<FimTemplate>,
    pub(super) chat: Option<ChatTemplate>,
    /// The model's ends of text.
    pub(super) eos: Vec<u32>,
    /// Ids that the model has.
    pub(super) vocab: usize,
    /// Most tokens of prompt and answer together.
    pub(super) context: usize,
}

/// A prompt that fits.
#[derive(Debug, Default)]
pub(super) struct Prompt {
    /// At least one; none only where none are read.
    pub(super) ids: Vec<u32>,
    /// Where in `ids` the text ends that is continued: at the end, but for a FIM prompt whose
    /// suffix follows.
    pub(super) cursor: usize,
    /// What `echo` says.
    pub(super) text: String,
    pub(super) truncated: bool,
    /// Tokens that may be generated, those of `healing` among them; 0 only if none were asked for.
    pub(super) max_tokens: usize,
    /// What ends the answer for the code's sake.
    pub(super) fit: Option<Arc<Cursor>>,
    /// What was taken back from the end of `ids`, to be said again.
    pub(super) healing: Option<Taken>,
}

impl Prompts {
    /// Renders, tokenises and checks. Takes time in proportion to the input.
    pub(super) fn prompt(&self, request: &CompletionRequest) -> Result<Prompt, Refusal> {
        let Rendered { mut ids, mut cursor, truncated } = match &request.input {
            Input::Text(text) => whole(self.text(text)?, false),
            Input::Tokens(ids) => whole(ids.clone(), false),
            Input::Chat(messages) => whole(self.conversation(messages)?, false),
            Input::Fim(input) => self.middle(input, request.max_tokens)?,
        };
        if ids.is_empty() {
            // nothing to go on from: what the model knows as a beginning
            ids.extend(self.tokenizer.bos().or(self.eos.first().copied()));
            cursor = ids.len();
        }
        self.check_ids(&ids)?;
        let max_tokens = self.max_tokens(ids.len(), request.max_tokens)?;
        let text = if request.echo { self.echo(&request.input, &ids) } else { String::new() };
        let single_line = self.fim.as_ref().is_some_and(FimTemplate::is_single_line);
        let fit = request.cursor(single_line).map(Arc::new);
        let mut prompt = Prompt { ids, cursor, text, truncated, max_tokens, fit, healing: None };
        if prompt.fit.is_some() && request.logprobs.is_none() {
            prompt.heal(&self.tokenizer);
        }
        Ok(prompt)
    }

    /// A text that cannot fit is refused before time is spent on tokenising it.
    fn text(&self, text: &str) -> Result<Vec<u32>, Refusal> {
        let least = self.tokenizer.tokens_min(text.len());
        if least > self.context {
            return Err(too_long(format!(
                "The prompt has more than {least} tokens; prompt and completion together may have \
                 {}.",
                self.context
            )));
        }
        self.tokenizer.encode_prompt(text).map_err(untokenised)
    }

    /// A first guess at the number of tokens, before they are counted.
    pub(super) fn estimate(&self, input: &Input) -> usize {
        /// Bytes of code in a token, about.
        const BYTES: usize = 3;
        let tokens = match input {
            Input::Text(text) => text.len() / BYTES,
            Input::Tokens(ids) => ids.len(),
            Input::Fim(input) => {
                let most = self.fim.as_ref().map_or(usize::MAX, FimTemplate::text_max);
                ((input.prefix.len() + input.suffix.len()) / BYTES).min(most)
            }
            Input::Chat(messages) => messages.iter().map(|m| m.content.len() / BYTES).sum(),
        };
        tokens.min(self.context)
    }

    fn check_ids(&self, ids: &[u32]) -> Result<(), Refusal> {
        let invalid =
            |message: String| Err(Refusal::new(Reason::Invalid { param: Some("prompt") }, message));
        if ids.is_empty() {
            return invalid("The prompt is empty.".into());
        }
        match ids.iter().find(|&&id| id as usize >= self.vocab) {
            Some(id) => invalid(format!(
                "Token id {id} is out of range: the model has the ids 0 to {}.",
                self.vocab - 1
            )),
            None => Ok(()),
        }
    }

    fn max_tokens(&self, prompt: usize, asked: Option<u32>) -> Result<usize, Refusal> {
        let asked = asked.map_or(usize::MAX, |asked| asked as usize);
        let room = self.context.saturating_sub(prompt);
        if prompt > self.context || (room == 0 && asked > 0) {
            return Err(too_long(format!(
                "The prompt has {prompt} tokens; prompt and completion together may have {}.",
                self.context
            )));
        }
        Ok(asked.min(room))
    }

    fn conversation(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, Refusal> {
        let template = self.template()?;
        template.encode(&self.tokenizer, &borrowed(messages)).map_err(unconversed)
    }

    /// A conversation as text.
    pub(super) fn render(&self, messages: &[ChatMessage]) -> Result<String, Refusal> {
        self.template()?.render(&borrowed(messages)).map_err(unconversed)
    }

    fn template(&self) -> Result<&ChatTemplate, Refusal> {
        self.chat.as_ref().ok_or_else(|| {
            let message = "This model has no chat template; use the completions route.";
            Refusal::new(Reason::Unsupported, message)
        })
    }

    /// The ids of a bare text, with control tokens where `special`.
    pub(super) fn bare(&self, text: &str, special: bool) -> Result<Vec<u32>, Refusal> {
        let ids = match special {
            true => self.tokenizer.encode_special(text),
            false => self.tokenizer.encode(text),
        };
        ids.map_err(untokenised)
    }

    fn middle(&self, input: &FimInput, max_tokens: Option<u32>) -> Result<Rendered, Refusal> {
        let output = max_tokens.map_or(self.context / FIM_OUTPUT_PART, |asked| asked as usize);
        // however much output is asked for, half of the context is for the text at the cursor
        let budget = self.context - output.min(self.context / 2);
        let Some(template) = &self.fim else { return self.prefix_only(input, budget) };
        let extras: Vec<ExtraText<'_>> = input
            .extra
            .iter()
            .map(|extra| ExtraText { path: &extra.path, text: &extra.text })
            .collect();
        let text = FimText {
            prefix: &input.prefix,
            suffix: &input.suffix,
            path: input.path.as_deref(),
            repository: input.repository.as_deref(),
            extras: &extras,
        };
        let pieces = template.tokenise(&self.tokenizer, &text, self.context).map_err(unfilled)?;
        template.render(&pieces, budget).map_err(unfilled)
    }

    /// A model without FIM tokens still goes on from a prefix.
    fn prefix_only(&self, input: &FimInput, budget: usize) -> Result<Rendered, Refusal> {
        if !input.suffix.is_empty() {
            return Err(Refusal::new(
                Reason::Unsupported,
                "This model cannot fill in the middle; it completes a prefix without a suffix.",
            ));
        }
        let (prefix, _, cut) = precut(&input.prefix, "", self.context);
        let ids = self.tokenizer.encode(prefix).map_err(untokenised)?;
        let bos = self.tokenizer.bos();
        let room = budget.saturating_sub(usize::from(bos.is_some()));
        let step = (room / CUT_PARTS).max(1);
        let dropped = (ids.len().saturating_sub(room).div_ceil(step) * step).min(ids.len());
        let ids = bos.into_iter().chain(ids[dropped..].iter().copied()).collect();
        Ok(whole(ids, cut || dropped > 0))
    }

    fn echo(&self, input: &Input, ids: &[u32]) -> String {
        match input {
            Input::Text(text) => text.clone(),
            Input::Fim(input) => input.prefix.clone(),
            Input::Tokens(_) | Input::Chat(_) => {
                let bytes: Vec<u8> =
                    ids.iter().flat_map(|&id| self.tokenizer.bytes(id)).copied().collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
        }
    }
}

impl Prompt {
    /// Takes back what a token may not end in, where the prompt ends with the cursor: what it is
    /// worth elsewhere was not measured.
    fn heal(&mut self, tokenizer: &Tokenizer) {
        if self.cursor == self.ids.len() && self.max_tokens > 0 {
            self.healing = take_back(&mut self.ids, tokenizer);
            self.cursor = self.ids.len();
            self.max_tokens += self.healing.as_ref().map_or(0, |taken| taken.tokens);
        }
    }
}

fn borrowed(messages: &[ChatMessage]) -> Vec<Message<'_>> {
    messages
        .iter()
        .map(|message| Message { role: &message.role, content: &message.content })
        .collect()
}

fn unconversed(error: ChatError) -> Refusal {
    match error {
        ChatError::Tokenizer(error) => untokenised(error),
        error => {
            let reason = Reason::Invalid { param: Some("messages") };
            Refusal::new(reason, sentence(&error)).with_source(error)
        }
    }
}

/// A prompt that is continued at its end.
fn whole(ids: Vec<u32>, truncated: bool) -> Rendered {
    Rendered { cursor: ids.len(), ids, truncated }
}

fn too_long(message: String) -> Refusal {
    Refusal::new(Reason::ContextLength, message)
}

fn untokenised(error: TokenizerError) -> Refusal {
    match error {
        TokenizerError::TooLong { .. } => too_long(sentence(&error)),
        error => Refusal::new(
            Reason::Invalid { param: Some("prompt") },
            "The prompt cannot be tokenised.",
        )
        .with_source(error),
    }
}

fn unfilled(error: FimError) -> Refusal {
    match error {
        FimError::Tokenizer(error) => untokenised(error),
        FimError::Budget { .. } => too_long(sentence(&error)),
        error => Refusal::new(Reason::Unsupported, "This model cannot fill in the middle here.")
            .with_source(error),
    }
}

/// An error's public words as a sentence.
fn sentence(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), chars.as_str())
}
