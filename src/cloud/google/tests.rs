//! Google's documented bytes, both ways.

use serde_json::{Value, json};

use super::*;
use crate::cloud::tests::row as any_row;
use crate::cloud::wires::prompt::instruction;
use crate::cloud::wires::recorded::{body, errors, streamed, whole};
use crate::completion::{ChatMessage, CompletionRequest, FimInput, Input};
use crate::config::CloudFim;
use crate::config::services::Thinking;

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../tests/fixtures/wires/google/", $name))
    };
}

const PLACE: &str = "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations";

fn row(below: &str, model: &str) -> CloudConfig {
    let base_url = format!("{PLACE}/us-central1/{below}");
    CloudConfig { model: model.into(), fim: CloudFim::Chat, ..any_row(&base_url) }
}

fn gemini() -> CloudConfig {
    row("publishers/google", "gemini-2.5-flash")
}

fn codestral() -> CloudConfig {
    let row = row("publishers/mistralai", "codestral-2501");
    CloudConfig { fim: CloudFim::Suffix, ..row }
}

fn wire_of(row: &CloudConfig, api: VertexApi) -> Box<dyn Wire> {
    let server = "http://metadata.google.internal".parse().unwrap();
    let credentials = GoogleCredentials::Metadata { server };
    let thinking = Some(Thinking::Budget(0));
    wire(row, &Vertex { api, thinking, credentials }).unwrap()
}

fn cursor() -> CompletionRequest {
    let fim = FimInput {
        prefix: "return ".into(),
        suffix: "\n}".into(),
        path: Some("src/sum.rs".into()),
        ..FimInput::default()
    };
    CompletionRequest::greedy("req-1", Input::Fim(fim), 64)
}

#[test]
fn generate_content_is_asked_as_documented() {
    let mut request = cursor();
    let sampling = &mut request.sampling;
    (sampling.temperature, sampling.top_p, sampling.top_k) = (0.5, 0.25, 40);
    (sampling.presence_penalty, sampling.frequency_penalty) = (0.5, -0.5);
    sampling.seed = Some(u64::MAX);
    request.stop.strings = ["\n\n", "2", "3", "4", "5", "6"].map(String::from).to_vec();
    let row = gemini();
    let rendered = wire_of(&row, VertexApi::GenerateContent).render(&request, &row).unwrap();
    let Input::Fim(fim) = &request.input else { unreachable!("made above") };
    let mut expected: Value = serde_json::from_str(fixture!("generate-request.json")).unwrap();
    expected["systemInstruction"]["parts"][0]["text"] = json!(instruction(fim));
    assert_eq!(body(&rendered), expected);
    let method = "models/gemini-2.5-flash:streamGenerateContent?alt=sse";
    assert_eq!(rendered.uri.to_string(), format!("{PLACE}/us-central1/publishers/google/{method}"));
    let row = CloudConfig { stream: false, ..row };
    let wire = wire_of(&row, VertexApi::GenerateContent);
    let rendered = wire.render(&CompletionRequest { n: 2, ..request }, &row).unwrap();
    assert!(rendered.uri.to_string().ends_with("models/gemini-2.5-flash:generateContent"));
    assert_eq!(body(&rendered)["generationConfig"]["candidateCount"], 2);
    assert!(wire.abilities(&row).n, "several candidates come whole");
    let row = gemini();
    assert!(!wire_of(&row, VertexApi::GenerateContent).abilities(&row).n);
}

#[test]
fn a_conversation_has_its_roles() {
    let told = |messages: &[(&str, &str)]| {
        let message = |(role, content): &(&str, &str)| ChatMessage {
            role: (*role).into(),
            content: (*content).into(),
        };
        let input = Input::Chat(messages.iter().map(message).collect());
        let request = CompletionRequest::greedy("req-1", input, 64);
        let row = gemini();
        let wire = wire_of(&row, VertexApi::GenerateContent);
        let mut body = body(&wire.render(&request, &row).unwrap());
        (body["systemInstruction"].take(), body["contents"].take())
    };
    let part = |text: &str| json!({ "text": text });
    let (system, contents) =
        told(&[("system", "a"), ("user", "b"), ("assistant", "c"), ("tool", "d"), ("system", "e")]);
    assert_eq!(system, json!({"parts": [part("a"), part("e")]}));
    assert_eq!(
        contents,
        json!([
            {"role": "user", "parts": [part("b")]},
            {"role": "model", "parts": [part("c")]},
            {"role": "user", "parts": [part("d")]},
        ])
    );
    let (system, contents) = told(&[("system", "a")]);
    assert_eq!((system, contents), (Value::Null, json!([{"role": "user", "parts": [part("a")]}])));
}

#[test]
fn answers_of_generate_content_are_read_however_they_are_split() {
    let row = gemini();
    let wire = wire_of(&row, VertexApi::GenerateContent);
    let cases = [
        // The line's end is the suffix's own.
        (fixture!("generate.sse"), "a + b — ë;|stop|31+26(16)"),
        (fixture!("generate-max-tokens.sse"), "|length|31+64(0)"),
        (fixture!("generate-recitation.sse"), "a +|contentfilter|31+2(0)"),
        (fixture!("generate-safety.sse"), "a +|contentfilter|31+2(0)"),
        (fixture!("generate-blocked.sse"), "|cloud_filtered"),
        (fixture!("generate-error.sse"), "a +|cloud_failed"),
        (fixture!("generate-given-up.sse"), "|cloud_garbage"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(streamed(&*wire, &row, &cursor(), bytes.as_bytes()), expected);
    }
}

#[test]
fn whole_answers_of_generate_content_are_read() {
    let row = CloudConfig { stream: false, ..gemini() };
    let wire = wire_of(&row, VertexApi::GenerateContent);
    let two = CompletionRequest { n: 2, ..cursor() };
    let said = whole(&*wire, &row, &two, fixture!("generate.json").as_bytes());
    assert_eq!(said, "a + b|stop/b + a|length|31+32(16)");
    // What comes where alt=sse was lost.
    let array = whole(&*wire, &row, &cursor(), fixture!("generate-array.json").as_bytes());
    assert_eq!(array, "|cloud_garbage");
}

#[test]
fn codestral_fills_in_by_itself() {
    let row = codestral();
    let wire = wire_of(&row, VertexApi::RawPredict);
    let mut request = cursor();
    request.sampling.seed = Some(7);
    let Input::Fim(fim) = &mut request.input else { unreachable!("made above") };
    fim.path = None;
    let rendered = wire.render(&request, &row).unwrap();
    let at = "us-central1/publishers/mistralai/models/codestral-2501:streamRawPredict";
    assert_eq!(rendered.uri.to_string(), format!("{PLACE}/{at}"));
    assert_eq!(
        body(&rendered),
        json!({
            "model": "codestral-2501", "prompt": "return ", "suffix": "\n}", "max_tokens": 64,
            "temperature": 0.0, "random_seed": 7, "stream": true,
        })
    );
    let said = streamed(&*wire, &row, &request, fixture!("raw-predict.sse").as_bytes());
    assert_eq!(said, "a + b|stop|12+4(0)");
    let row = CloudConfig { stream: false, ..row };
    let wire = wire_of(&row, VertexApi::RawPredict);
    let rendered = wire.render(&request, &row).unwrap();
    assert!(rendered.uri.to_string().ends_with("models/codestral-2501:rawPredict"));
    let said = whole(&*wire, &row, &request, fixture!("raw-predict.json").as_bytes());
    assert_eq!(said, "a + b|length|12+4(0)");
}

#[test]
fn the_openai_shaped_endpoint_is_one() {
    let row = row("endpoints/openapi", "google/gemini-2.5-flash");
    let wire = wire_of(&row, VertexApi::OpenAi);
    let rendered = wire.render(&cursor(), &row).unwrap();
    assert_eq!(
        rendered.uri.to_string(),
        format!("{PLACE}/us-central1/endpoints/openapi/chat/completions")
    );
    assert_eq!(body(&rendered)["model"], "google/gemini-2.5-flash");
    let said = streamed(&*wire, &row, &cursor(), fixture!("openai.sse").as_bytes());
    assert_eq!(said, "a + b|stop|31+4(16)");
}

#[tokio::test]
async fn errors_mean_what_google_says() {
    errors(&gemini(), fixture!("errors.json")).await;
}
