//! LM Studio's routes, as JetBrains AI Assistant takes them.

use serde_json::json;

use super::play;
use crate::support::http::{get, post};
use crate::support::server::{Server, Setup};

#[tokio::test]
async fn jetbrains_finds_a_loaded_model() {
    let server = Server::start().await;
    let listed = play(&server, "jetbrains", "lmstudio-models").await.json();
    assert_eq!(listed["object"], "list");
    let model = &listed["data"][0];
    for (field, value) in
        [("id", "counting/1"), ("object", "model"), ("type", "llm"), ("state", "loaded")]
    {
        assert_eq!(model[field], value);
    }
    for field in ["publisher", "arch", "compatibility_type", "quantization"] {
        assert!(model[field].is_string(), "{field}: {model}");
    }
    assert_eq!(model["max_context_length"], 4096);
    assert_eq!(model["loaded_context_length"], 4096);
    assert_eq!(get(server.address, "/api/v0/models/counting/1").await.json(), *model);
    let unknown = get(server.address, "/api/v0/models/other").await;
    assert_eq!((unknown.status, &unknown.error()["code"]), (404, &json!("model_not_found")));
    assert_eq!(play(&server, "jetbrains", "tags").await.status, 200);
}

#[tokio::test]
async fn jetbrains_reads_how_fast_it_was() {
    let mut setup = Setup::default();
    setup.counting.pace = std::time::Duration::from_millis(2);
    let server = setup.start().await;
    for (name, text) in [
        ("lmstudio-completion", "/choices/0/text"),
        ("lmstudio-chat", "/choices/0/message/content"),
    ] {
        let reply = play(&server, "jetbrains", name).await.json();
        assert!(reply.pointer(text).and_then(|text| text.as_str()).is_some(), "{reply}");
        assert!(reply["usage"]["total_tokens"].is_u64());
        let stats = &reply["stats"];
        assert!(stats["tokens_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{stats}");
        assert!(stats["time_to_first_token"].as_f64().is_some_and(|time| time > 0.0), "{stats}");
        assert!(stats["generation_time"].as_f64().is_some_and(|time| time > 0.0), "{stats}");
        assert_eq!(stats["stop_reason"], "maxPredictedTokensReached");
        assert_eq!(reply["model_info"]["context_length"], 4096);
        assert_eq!(reply["model_info"]["quant"], "bf16");
        assert_eq!(reply["runtime"]["name"], "weir");
    }
    let stream = play(&server, "jetbrains", "lmstudio-completion-stream").await;
    assert_eq!(stream.events().last(), Some(&"[DONE]"));
}

#[tokio::test]
async fn without_a_limit_the_model_ends_it() {
    let server = Server::start().await;
    let body = json!({"prompt": "a"});
    assert_eq!(post(server.address, "/api/v0/completions", &body).await.status, 200);
    assert_eq!(server.counting.last().max_tokens, None);
    let chat = json!({"messages": [{"role": "user", "content": "a"}]});
    assert_eq!(post(server.address, "/v1beta/chat/completions", &chat).await.status, 200);
    // As LM Studio's own examples write it.
    for path in ["/api/v0/completions", "/v1/completions"] {
        let body = json!({"prompt": "a", "max_tokens": -1});
        assert_eq!(post(server.address, path, &body).await.status, 200, "{path}");
        assert_eq!(server.counting.last().max_tokens, None);
    }
}
