//! Tabby's dialect, as tabby-agent speaks it in every editor: `POST /v1/completions` with segments
//! instead of a prompt, health with a version, settings, events.

mod segments;
pub(super) mod status;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use serde::{Deserialize, Serialize};

pub(super) use self::segments::Segments;
use super::acceptance::{Acceptance, Fate, language};
use super::answer::{Ask, Caller};
use super::error::ApiError;
use super::reply::{Collected, Heading, Letter, Summary};
use super::sampling::SharedFields;
use super::{Api, ModelCard, Service, body as whole};
use crate::completion::{CompletionRequest, FinishReason, Input, Priority, TokenLogprob};

/// What Tabby's own server allows; its clients cannot ask for more or fewer.
const MAX_TOKENS: u32 = 64;
/// What Tabby's own server draws at unless the client asks otherwise.
const TEMPERATURE_DEFAULT: f64 = 0.1;

/// A completion that was asked for in segments.
pub(super) fn ask(
    segments: Segments,
    said: Option<&str>,
    mut shared: SharedFields,
    caller: &Caller<'_>,
    model: &ModelCard,
) -> Result<Ask, ApiError> {
    shared.temperature = shared.temperature.or(Some(TEMPERATURE_DEFAULT));
    let request = CompletionRequest {
        max_tokens: Some(MAX_TOKENS),
        sampling: shared.sampling(model)?,
        ..caller.request(Input::Fim(segments.into()), Priority::Completion)
    };
    let letter = Words {
        acceptance: caller.acceptance.clone(),
        language: language(said),
        id: String::new(),
    };
    Ok(Ask {
        requests: vec![Arc::new(request)],
        letter: Box::new(letter),
        n: 1,
        best_of: 1,
        stream: false,
    })
}

/// `{"id","choices":[{"index","text"}]}`; without a choice where there is no text.
struct Words {
    acceptance: Arc<Acceptance>,
    language: &'static str,
    id: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    choices: Vec<Choice<'a>>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    text: &'a str,
}

impl Letter for Words {
    fn open(&mut self, heading: &Heading<'_>) {
        self.id = format!("cmpl-{:032x}", fastrand::u128(..));
        self.acceptance.remember(&self.id, self.language, heading.route);
    }

    fn text(&mut self, _: &mut BytesMut, _: u32, _: &str, _: &[TokenLogprob]) {
        unreachable!("Tabby's answers are never streamed");
    }

    fn finish(&mut self, _: &mut BytesMut, _: u32, _: FinishReason) {
        unreachable!("Tabby's answers are never streamed");
    }

    fn done(&mut self, _: &mut BytesMut, _: &Summary) {
        unreachable!("Tabby's answers are never streamed");
    }

    fn failed(&mut self, _: &mut BytesMut, _: &ApiError) {
        unreachable!("Tabby's answers are never streamed");
    }

    fn whole(&mut self, collected: &Collected, _summary: &Summary) -> Vec<u8> {
        let texts = collected.choices.iter().map(|choice| choice.text.as_str()).enumerate();
        let choices = texts
            .filter(|(_, text)| !text.is_empty())
            .map(|(index, text)| Choice { index, text })
            .collect();
        serde_json::to_vec(&Answer { id: &self.id, choices }).expect("strings serialise")
    }
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: Option<String>,
    completion_id: Option<String>,
}

/// `POST /v1/events`: a suggestion was seen, taken or dismissed. What else it says is not kept.
pub(super) async fn event<S: Service>(
    State(api): State<Arc<Api<S>>>,
    request: Request,
) -> Response {
    let read = async {
        let (_, whole) = whole::read(request, &api.body_room, api.limits.body_read).await?;
        serde_json::from_slice(&whole.bytes).map_err(|_| {
            ApiError::invalid(None, "an event is an object with `type` and `completion_id`")
        })
    };
    let event: Event = match read.await {
        Ok(event) => event,
        Err(error) => return error.into_response(),
    };
    let fate = match event.kind.as_deref() {
        Some("view") => Some(Fate::Shown),
        Some("select") => Some(Fate::Accepted),
        Some("dismiss") => Some(Fate::Dismissed),
        // Chat and others, which are no suggestion's.
        _ => None,
    };
    if let (Some(fate), Some(id)) = (fate, &event.completion_id) {
        api.acceptance.count(id, fate);
    }
    StatusCode::OK.into_response()
}
