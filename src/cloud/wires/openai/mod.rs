//! OpenAI's wire, which most servers speak: `/completions` and `/chat/completions`, streamed as
//! server-sent events or whole. Where a server differs, its [`Dialect`] says so.

mod body;
mod read;

use std::sync::Arc;

use hyper::Uri;

use self::body::Body;
use super::prompt::{emulated, template};
use super::{Abilities, Rendered, Wire, json, max_tokens, stop_strings};
use crate::cloud::frames::sse;
use crate::completion::{CompletionRequest, Input, Refusal};
use crate::config::services::{Dialect, FimRoute};
use crate::config::{CloudConfig, CloudFim};

/// Which route answers, and so how its answer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// `/completions`: `choices[].text`.
    Completion,
    /// `/chat/completions`: `choices[].delta.content`, whole `choices[].message.content`.
    Chat,
}

/// One server's two routes.
pub(in crate::cloud) struct OpenAi {
    completions: Uri,
    chat: Uri,
    dialect: Arc<Dialect>,
}

impl OpenAi {
    /// None: `base` has no scheme or host.
    pub(in crate::cloud) fn new(base: &Uri, dialect: Arc<Dialect>) -> Option<Self> {
        let completions = match dialect.fim {
            FimRoute::Completions => "completions",
            FimRoute::FimCompletions => "fim/completions",
        };
        Some(Self {
            completions: under(base, completions)?,
            chat: under(base, "chat/completions")?,
            dialect,
        })
    }

    /// For a server with addresses of its own.
    #[cfg(any(feature = "azure", feature = "google"))]
    pub(in crate::cloud) fn at(completions: Uri, chat: Uri, dialect: Arc<Dialect>) -> Self {
        Self { completions, chat, dialect }
    }

    /// The route that answers, and how its answer reads.
    fn route(&self, shape: Shape) -> (&Uri, Shape) {
        match (shape, self.dialect.fim) {
            (Shape::Completion, FimRoute::FimCompletions) => (&self.completions, Shape::Chat),
            (Shape::Completion, FimRoute::Completions) => (&self.completions, Shape::Completion),
            (Shape::Chat, _) => (&self.chat, Shape::Chat),
        }
    }
}

impl Wire for OpenAi {
    fn abilities(&self, _row: &CloudConfig) -> Abilities {
        Abilities {
            chat: true,
            n: self.dialect.n,
            seed: self.dialect.seed.is_some(),
            penalties: self.dialect.penalties,
            top_k: false,
            logprobs: self.dialect.logprobs,
        }
    }

    fn render(&self, request: &CompletionRequest, row: &CloudConfig) -> Result<Rendered, Refusal> {
        let max_tokens = max_tokens(request, row);
        let mut stops = request.stop.strings.clone();
        let emulated = emulated(&request.input, row);
        let mut body = Body::new(request, row, max_tokens);
        let shape = match (&request.input, &emulated) {
            (_, Some(fim)) => body.emulate(fim),
            (Input::Chat(messages), _) => body.chat(messages),
            (Input::Text(text), _) => body.complete(text.clone(), None),
            (Input::Fim(fim), _) => match &row.fim {
                CloudFim::Template(family) => {
                    let prompt = template(family, fim, &mut stops)?;
                    body.complete(prompt, None)
                }
                CloudFim::Peer => body.complete_there(fim),
                CloudFim::Suffix | CloudFim::Chat => {
                    body.complete(fim.prefix.clone(), Some(&fim.suffix))
                }
            },
            (Input::Tokens(_), _) => unreachable!("abilities refuse it"),
        };
        body.stop = &stops[..stops.len().min(self.dialect.stops_max)];
        body.speak(&self.dialect, shape);
        let (uri, shape) = self.route(shape);
        Ok(Rendered {
            uri: uri.clone(),
            body: json(&body)?,
            accept: if row.stream { sse::CONTENT_TYPE } else { "application/json" },
            stops: stop_strings(&stops)?,
            max_tokens,
            emulated,
            frames: Box::new(sse::Parser::default()),
            reader: Box::new(read::Reading::new(shape, request.logprobs.is_some())),
        })
    }
}

/// `base_url` with `route` appended to its path.
pub(in crate::cloud) fn under(base: &Uri, route: &str) -> Option<Uri> {
    let authority = base.authority()?.as_str();
    let path = base.path().trim_end_matches('/');
    format!("{}://{authority}{path}/{route}", base.scheme_str()?).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_appended_to_the_base() {
        let at = |base: &str| under(&base.parse().unwrap(), "completions").unwrap().to_string();
        assert_eq!(at("http://h:9000/v1"), "http://h:9000/v1/completions");
        assert_eq!(at("https://h/a/v1/"), "https://h/a/v1/completions");
        assert_eq!(at("https://h"), "https://h/completions");
    }
}
