//! llama.vim, llama.vscode, Continue, twinny, and Tabby's server.

use serde_json::{Value, json};
use weir::completion::{Input, Priority, Reason};

use super::{play, recorded};
use crate::support::http::{get, post, send};
use crate::support::server::{Counting, Server, Setup};
use crate::support::weir::{Weir, drive};

/// What llama.vim sends at a cursor, but for some fields.
fn vim(prompt: &str, more: Value) -> Value {
    let mut body = recorded("llama-vim", "fim")["body"].take();
    (body["prompt"], body["n_predict"]) = (json!(prompt), json!(3));
    for (key, value) in more.as_object().expect("an object") {
        body[key] = value.clone();
    }
    body
}

#[tokio::test]
async fn llama_vim_reads_its_flattened_fields_on_one_line() {
    let server = Server::start().await;
    let body = vim("    let x", json!({})).to_string();
    let headers = [("content-type", "application/json"), ("authorization", "Bearer ")];
    let reply = send(server.address, "POST", "/infill", &headers, body.as_bytes()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.text().starts_with('{') && !reply.text().contains('\n'));
    assert!(reply.text().contains(r#""content":"0:0 0:1 0:2 ""#), "{}", reply.text());
    let keys: Vec<_> = reply.json().as_object().expect("an object").keys().cloned().collect();
    assert_eq!(keys.len(), 11, "{keys:?}");
    assert_eq!(reply.json()["timings/prompt_n"], 4);
    assert_eq!(reply.json()["timings/predicted_n"], 3);
    let request = server.counting.last();
    let Input::Fim(fim) = &request.input else { panic!("a cursor") };
    assert_eq!(fim.prefix, "fn main() {\n    let x");
    assert_eq!(fim.suffix, "\n}\n");
    assert_eq!((fim.extra[0].path.as_str(), fim.extra.len()), ("a.rs", 1));
    assert_eq!(request.fit.and_then(|fit| fit.indent_min), Some(4));
    assert_eq!(request.time.prompt.map(|time| time.as_millis()), Some(500));
    assert_eq!(request.time.predict.map(|time| time.as_millis()), Some(250));
    assert!(request.sampling.temperature == 0.0);
}

#[tokio::test]
async fn llama_vim_warms_the_cache_while_nobody_types() {
    let server = Server::start().await;
    let reply = play(&server, "llama-vim", "warm-up").await;
    assert_eq!((reply.status, reply.text()), (200, "{}"));
    assert_eq!(server.counting.last().priority, Priority::WarmUp);
    assert_eq!(server.counting.last().max_tokens, Some(0));
}

#[tokio::test]
async fn any_slot_and_any_model_will_do() {
    let server = Server::start().await;
    for slot in [-1, 0, 7, 100_000] {
        let body = vim("x", json!({ "id_slot": slot, "model": "google/gemini-2.5-flash" }));
        assert_eq!(post(server.address, "/infill", &body).await.status, 200);
    }
}

#[tokio::test]
async fn llama_vscode_gets_one_object_or_a_list_of_different_ones() {
    let server = Server::start().await;
    let mut body = recorded("llama-vscode", "fim")["body"].take();
    let many = post(server.address, "/infill", &body).await.json();
    let many = many.as_array().expect("a list");
    assert_eq!(many.len(), 3);
    assert!(many[0]["content"] != many[1]["content"]);
    body["n_cmpl"] = json!(1);
    let one = post(server.address, "/infill", &body).await.json();
    assert_eq!(one["generation_settings"]["n_ctx"], 4096);
    assert!(one["timings"]["prompt_ms"].is_number() && one["tokens_cached"].is_number());
    assert_eq!((&one["stop"], &one["stop_type"]), (&json!(true), &json!("limit")));
    body["n_cmpl"] = json!(99);
    let error = post(server.address, "/infill", &body).await;
    let message = error.json()["error"]["message"].as_str().map(str::to_owned);
    let hint = "Field 'n_cmpl': Value must be between";
    assert!(message.is_some_and(|message| message.starts_with(hint)), "{}", error.text());
}

#[tokio::test]
async fn llama_vscode_is_shown_no_window_for_overload() {
    let counting = Counting { refuse: Some(Reason::QueueFull), ..Counting::default() };
    let server = Setup { counting, ..Setup::default() }.start().await;
    let body = json!({ "input_prefix": "a", "input_suffix": "b", "prompt": "" });
    let reply = post(server.address, "/infill", &body).await;
    assert_eq!((reply.status, &reply.json()["content"]), (200, &json!("")));
    assert_eq!(reply.header("x-weir-reason"), Some("queue_full"));
    let other = post(server.address, "/completion", &json!({ "prompt": "a" })).await;
    assert_eq!(other.status, 503);
    assert_eq!(other.json()["error"]["type"], "unavailable_error");
    assert_eq!(other.json()["error"]["code"], 503);
}

#[tokio::test]
async fn llama_vscode_probes() {
    let server = Server::start().await;
    assert_eq!(get(server.address, "/health").await.json()["status"], "ok");
    let props = get(server.address, "/props").await.json();
    assert_eq!(props["default_generation_settings"]["n_ctx"], 4096);
    assert_eq!(props["total_slots"], 4);
    let models = get(server.address, "/v1/models").await.json();
    assert_eq!(models["data"][0]["owned_by"], "llamacpp");
    assert!(models["data"][0]["meta"].is_object());
    let slots = get(server.address, "/slots").await.json();
    assert_eq!(slots.as_array().map(Vec::len), Some(4));
    assert_eq!(slots[0]["is_processing"], false);
    assert_eq!(get(server.address, "/slots?fail_on_no_slot=1").await.status, 200);
    let body = json!({ "content": "ab", "add_special": false, "parse_special": true });
    let ids = post(server.address, "/tokenize", &body).await.json();
    assert_eq!(ids, json!({ "tokens": [97, 98] }));
    let pieces = json!({ "content": "a\u{e9}", "with_pieces": true });
    let pieces = post(server.address, "/tokenize", &pieces).await.json();
    assert_eq!(pieces["tokens"][0], json!({ "id": 97, "piece": "a" }));
    assert_eq!(pieces["tokens"][1], json!({ "id": 195, "piece": [195] }));
    let text = post(server.address, "/detokenize", &ids).await.json();
    assert_eq!(text, json!({ "content": "ab" }));
    let messages = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    let prompt = post(server.address, "/apply-template", &messages).await.json();
    assert_eq!(prompt, json!({ "prompt": "user: hi\n" }));
}

/// core/llm/llms/LlamaCpp.ts; twinny's and Tabby's readers want the same of each event.
#[tokio::test]
async fn every_event_of_a_completion_has_content_and_stop() {
    let server = Server::start().await;
    let headers = [("authorization", "Bearer undefined"), ("content-type", "application/json")];
    let body = json!({ "prompt": "fn ", "stream": true, "max_tokens": 2, "penalty_last_n": 64 });
    let body = body.to_string();
    let reply = send(server.address, "POST", "/completion", &headers, body.as_bytes()).await;
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let events: Vec<Value> = reply
        .events()
        .into_iter()
        .map(|event| serde_json::from_str(event).expect("each event is an object"))
        .collect();
    assert_eq!(events.len(), 3, "two texts and an end, and no [DONE]");
    assert!(events.iter().all(|event| event["content"].is_string() && event["stop"].is_boolean()));
    assert_eq!(events[2]["stop"], true);
    assert_eq!(events[2]["tokens_predicted"], 2);
    assert_eq!(events[0]["content"], "0:0 ");
}

#[tokio::test]
async fn what_is_wrong_is_said_as_llama_cpp_says_it() {
    let server = Server::start().await;
    let reply = post(server.address, "/infill", &json!({ "input_prefix": 7 })).await;
    assert_eq!(reply.status, 400);
    let error = reply.json()["error"].clone();
    assert_eq!((&error["code"], &error["type"]), (&json!(400), &json!("invalid_request_error")));
    assert!(error["message"].as_str().is_some_and(|text| text.contains("input_prefix")));
}

#[test]
fn its_dashboards_find_their_names() {
    let weir = Weir::start("");
    let metrics = drive(get(weir.address, "/metrics"));
    let names = [
        "prompt_tokens_total",
        "tokens_predicted_total",
        "requests_processing",
        "requests_deferred",
        "spec_decode_num_draft_tokens_total",
        "spec_decode_num_accepted_tokens_total",
    ];
    for name in names {
        assert!(metrics.text().contains(&format!("\nllamacpp:{name} ")), "{name}");
    }
}
