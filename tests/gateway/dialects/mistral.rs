//! Continue's, Zed's and lsp-ai's way to a cursor.

use serde_json::{Value, json};
use weir::completion::{Input, Reason};

use crate::support::http::post;
use crate::support::server::{Counting, Server, Setup};

/// crates/lsp-ai: mistral_fim.rs sends nulls for what is not set.
#[tokio::test]
async fn a_whole_answer_is_a_chats() {
    let server = Server::start().await;
    for path in ["/v1/fim/completions", "/fim/completions"] {
        let body = json!({
            "model": "codestral-latest", "prompt": "def f(", "suffix": "):\n    pass\n",
            "max_tokens": 2, "temperature": 0.2, "top_p": 1, "min_tokens": null,
            "random_seed": null, "stop": [], "stream": false,
        });
        let reply = post(server.address, path, &body).await;
        let answer = reply.json();
        assert_eq!(reply.status, 200, "{}", reply.text());
        let choice = &answer["choices"][0];
        assert_eq!(choice["message"]["role"], "assistant");
        assert_eq!(choice["message"]["content"], "0:0 0:1 ");
        assert_eq!(choice["finish_reason"], "length");
        for key in ["id", "object", "model"] {
            assert!(answer[key].is_string(), "{key}");
        }
        assert!(answer["created"].is_u64() && answer["usage"]["total_tokens"].is_u64());
    }
    let request = server.counting.last();
    let Input::Fim(fim) = &request.input else { panic!("a cursor") };
    assert_eq!((fim.prefix.as_str(), fim.suffix.as_str()), ("def f(", "):\n    pass\n"));
    assert!(request.fit.is_some());
}

/// core/llm/llms/Mistral.ts: streamFim reads delta.content.
#[tokio::test]
async fn a_stream_is_deltas() {
    let server = Server::start().await;
    let body = json!({ "prompt": "a", "suffix": "", "max_tokens": 2, "stream": true });
    let reply = post(server.address, "/v1/fim/completions", &body).await;
    let events = reply.events();
    assert_eq!(events.last(), Some(&"[DONE]"));
    let text: String = events[..events.len() - 1]
        .iter()
        .map(|event| serde_json::from_str::<Value>(event).expect("an object"))
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(text, "0:0 0:1 ");
}

#[tokio::test]
async fn errors_are_an_object_called_error() {
    let counting = Counting { refuse: Some(Reason::QueueFull), ..Counting::default() };
    let server = Setup { counting, ..Setup::default() }.start().await;
    let reply = post(server.address, "/v1/fim/completions", &json!({ "prompt": "a" })).await;
    assert_eq!((reply.status, &reply.json()["object"]), (503, &json!("error")));
    assert!(reply.json()["message"].is_string());
    let wrong = post(server.address, "/v1/fim/completions", &json!({ "suffix": "a" })).await;
    assert_eq!((wrong.status, &wrong.json()["param"]), (400, &json!("prompt")));
}
