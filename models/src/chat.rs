//! Conversations as prompts: the model's own Jinja template, rendered within bounds.

use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, context};

use crate::tokenizer::SpecialTexts;

/// Bytes of a template; the longest in use have 20 thousand.
pub const TEMPLATE_BYTES_MAX: usize = 256 << 10;
/// Bytes of a rendered conversation: as much as can be tokenised.
pub const CHAT_BYTES_MAX: usize = crate::tokenizer::ENCODE_BYTES_MAX;
/// Instructions that one rendering may execute: tens per message are usual, a loop without end
/// stops within a fraction of a second.
const FUEL_MAX: u64 = 2_000_000;
/// Depth of macros calling macros.
const RECURSION_MAX: usize = 64;

/// Why a conversation has no prompt. The sentences name the template's mistake, never the
/// conversation.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    #[error("the chat template is too long, at most {TEMPLATE_BYTES_MAX} bytes are allowed")]
    TooLong,
    #[error("the chat template is not valid Jinja")]
    Syntax(#[source] Error),
    /// The template itself refuses, as with roles in a wrong order.
    #[error("the model's chat template refuses the conversation: {0}")]
    Refused(String),
    #[error("the conversation is too long, at most {CHAT_BYTES_MAX} bytes are allowed")]
    Output,
    #[error("the chat template failed")]
    Render(#[source] Error),
}

/// One turn.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub role: &'a str,
    pub content: &'a str,
}

/// A model's chat template, compiled.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    special: SpecialTexts,
}

const NAME: &str = "chat";

impl ChatTemplate {
    pub fn new(source: &str, special: SpecialTexts) -> Result<Self, ChatError> {
        if source.len() > TEMPLATE_BYTES_MAX {
            return Err(ChatError::TooLong);
        }
        let mut environment = Environment::new();
        // the way in which templates are written that come with models
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).lstrip_blocks(true);
        environment.set_syntax(syntax.build().map_err(ChatError::Syntax)?);
        environment.set_fuel(Some(FUEL_MAX));
        environment.set_recursion_limit(RECURSION_MAX);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_template_owned(NAME, source.to_owned()).map_err(ChatError::Syntax)?;
        Ok(Self { environment, special })
    }

    /// The conversation as text with control tokens in it, up to where the model goes on.
    pub fn render(&self, messages: &[Message<'_>]) -> Result<String, ChatError> {
        let template = self.environment.get_template(NAME).map_err(ChatError::Render)?;
        let turn = |message: &Message<'_>| {
            context! { role => message.role, content => message.content }
        };
        let context = context! {
            messages => messages.iter().map(turn).collect::<Vec<Value>>(),
            add_generation_prompt => true,
            bos_token => self.special.bos.as_str(),
            eos_token => self.special.eos.as_str(),
        };
        let mut out = Bounded::default();
        match template.render_captured_to(context, &mut out) {
            _ if out.full => Err(ChatError::Output),
            Err(error) => Err(refusal(error)),
            Ok(_) => Ok(String::from_utf8_lossy(&out.text).into_owned()),
        }
    }
}

/// What a template calls to refuse.
fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn refusal(error: Error) -> ChatError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(at) = cause {
        if let Some(Raised(message)) = at.downcast_ref() {
            return ChatError::Refused(message.clone());
        }
        cause = at.source();
    }
    ChatError::Render(error)
}

/// Takes text up to [`CHAT_BYTES_MAX`].
#[derive(Debug, Default)]
struct Bounded {
    text: Vec<u8>,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len() + bytes.len() > CHAT_BYTES_MAX {
            self.full = true;
            return Err(io::Error::other("the conversation is too long"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
