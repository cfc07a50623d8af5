//! Continue with provider `openai`: a prompt that it wrote itself, many stops, and more tokens than
//! it means to read.

use std::time::Duration;

use serde_json::{Value, json};
use weir::completion::{Input, Reason};

use super::recorded;
use crate::support::http::{Connection, post, request};
use crate::support::server::{Counting, Server, Setup};

const PATH: &str = "/v1/completions";

/// core/autocomplete/templating: template and stops of the family that the model's name says.
fn body() -> Value {
    let ollama = &recorded("continue", "ollama-raw")["body"];
    json!({
        "model": "qwen2.5-coder:1.5b-base", "prompt": ollama["prompt"], "max_tokens": 4096,
        "temperature": 0.01, "stop": ollama["options"]["stop"], "stream": true,
    })
}

#[tokio::test]
async fn a_stream_with_twelve_stops_is_left_when_enough_is_seen() {
    let counting = Counting { pace: Duration::from_millis(5), ..Counting::default() };
    let server = Setup { counting, ..Setup::default() }.start().await;
    let headers = [("authorization", "Bearer none"), ("api-key", "none")];
    let body = body();
    let mut connection = Connection::open(server.address).await;
    connection.send(&request("POST", PATH, &headers, body.to_string().as_bytes())).await;
    assert_eq!(connection.head().await.status, 200);
    let chunk = connection.chunk().await.expect("an event");
    let event = String::from_utf8(chunk).expect("UTF-8");
    let event: Value =
        serde_json::from_str(event.trim().trim_start_matches("data: ")).expect("JSON");
    assert!(event["choices"][0]["text"].is_string(), "{event}");
    let asked = server.counting.last();
    assert!(matches!(asked.input, Input::Fim(_)), "{:?}", asked.input);
    assert_eq!(asked.max_tokens, Some(4096));
    let stops = body["stop"].as_array().expect("a list");
    assert_eq!((stops.len(), json!(asked.stop.strings)), (12, body["stop"].clone()));
    drop(connection);
    server.idle().await;
}

/// core/util/withExponentialBackoff.ts: it asks five times where an error says "overloaded".
#[tokio::test]
async fn errors_are_objects_and_no_reason_to_ask_again() {
    let server = Server::start().await;
    let nowhere = post(server.address, "/v1/no/such/path", &body()).await;
    let counting = Counting { refuse: Some(Reason::QueueFull), ..Counting::default() };
    let full = Setup { counting, ..Setup::default() }.start().await;
    let refused = post(full.address, PATH, &body()).await;
    for (reply, status) in [(nowhere, 404), (refused, 503)] {
        assert_eq!(reply.status, status, "{}", reply.text());
        assert!(reply.json()["error"].is_object(), "{}", reply.text());
        assert!(!reply.text().to_lowercase().contains("overloaded"), "{}", reply.text());
    }
}
