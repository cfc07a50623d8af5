//! The name of the model in a request.

use serde_json::json;

use super::error_text;
use crate::support::http::post;
use crate::support::server::{Server, Setup};

/// A route and its request without a model.
fn asks() -> [(&'static str, serde_json::Value); 6] {
    let text = json!({ "prompt": "a", "max_tokens": 2 });
    let chat = json!([{ "role": "user", "content": "hello" }]);
    [
        ("/v1/completions", text.clone()),
        ("/v1/chat/completions", json!({ "messages": chat, "max_tokens": 2 })),
        ("/v1/fim/completions", text.clone()),
        ("/infill", json!({ "input_prefix": "a", "input_suffix": "", "n_predict": 2 })),
        (
            "/api/generate",
            json!({ "prompt": "a", "stream": false, "options": { "num_predict": 2 } }),
        ),
        ("/api/v0/completions", text),
    ]
}

#[tokio::test]
async fn another_name_means_the_model_there_is() {
    let server = Server::start().await;
    for (path, mut body) in asks() {
        body["model"] = json!("google/gemini-2.5-flash");
        let reply = post(server.address, path, &body).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        assert_eq!(reply.json()["model"], "counting/1", "{path}");
    }
}

#[tokio::test]
async fn another_name_is_refused_where_the_operator_wants_it() {
    let mut setup = Setup::default();
    setup.config.strict_model = true;
    let server = setup.start().await;
    for (path, body) in asks() {
        for name in [json!(null), json!(""), json!("counting/1"), json!("counting/1:latest")] {
            let mut body = body.clone();
            body["model"] = name.clone();
            let reply = post(server.address, path, &body).await;
            assert_eq!(reply.status, 200, "{path} {name}: {}", reply.text());
        }
        assert_eq!(post(server.address, path, &body).await.status, 200, "{path} without one");
        let mut other = body.clone();
        other["model"] = json!("counting/2");
        let reply = post(server.address, path, &other).await;
        assert_eq!(reply.status, 404, "{path}");
        assert!(reply.text().contains("no such model"), "{path}: {}", reply.text());
        let whole = reply.json();
        match path {
            "/api/generate" => assert!(error_text(&reply).contains("no such model")),
            "/infill" => assert_eq!(whole["error"]["code"], 404),
            "/v1/fim/completions" => assert_eq!(whole["code"], "model_not_found"),
            _ => assert_eq!(whole["error"]["code"], "model_not_found", "{path}"),
        }
    }
    let card = post(server.address, "/tokenize", &json!({ "content": "a", "model": "x" })).await;
    assert_eq!(card.status, 200, "nothing is generated");
}
