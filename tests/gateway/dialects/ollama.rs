//! Ollama's API, as editors and its own clients speak it.

use serde_json::{Value, json};
use weir::completion::{Input, Priority, Reason};

use super::{error_text, lines, play, recorded};
use crate::support::http::{Connection, post, request, send};
use crate::support::server::{Server, Setup};

/// Numbers that every last object has.
const COUNTS: [&str; 6] = [
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
];

fn ends_well(last: &Value, reason: &str) {
    assert_eq!((&last["done"], &last["done_reason"]), (&json!(true), &json!(reason)), "{last}");
    assert!(COUNTS.iter().all(|name| last[name].is_u64()), "{last}");
    let time = |name: &str| last[name].as_u64().expect("nanoseconds");
    let parts = time("prompt_eval_duration") + time("eval_duration");
    assert_eq!(time("total_duration"), parts, "{last}");
}

fn text_of(parts: &[Value]) -> String {
    parts.iter().map(|part| part["response"].as_str().expect("text")).collect()
}

async fn without_chat() -> Server {
    let mut setup = Setup::default();
    setup.counting.card.chat = false;
    setup.start().await
}

#[tokio::test]
async fn continue_streams_by_default_and_fills_in_the_middle() {
    let server = Server::start().await;
    for (name, suffix) in [("ollama-fim", "\n\nprint(add(1, 2))\n"), ("ollama-fim-at-the-end", "")]
    {
        // As asked it would go on for 4096 tokens, which its reader never waits for.
        let mut body = recorded("continue", name)["body"].clone();
        body["options"]["num_predict"] = json!(5);
        let reply = post(server.address, "/api/generate", &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
        let parts = lines(&reply);
        let (last, parts) = parts.split_last().expect("a last object");
        assert_eq!(text_of(parts), "0:0 0:1 0:2 0:3 0:4 ");
        assert!(parts.iter().all(|part| part["done"] == false && part["error"].is_null()));
        assert_eq!(last["response"], "");
        ends_well(last, "length");
        let asked = server.counting.last();
        let Input::Fim(cursor) = &asked.input else { panic!("{:?}", asked.input) };
        assert_eq!((cursor.prefix.as_str(), cursor.suffix.as_str()), (PREFIX, suffix));
        assert_eq!((asked.n, asked.max_tokens, asked.priority), (1, Some(5), Priority::Completion));
        assert_eq!((asked.stop.strings.len(), asked.fit.is_some()), (12, true));
        assert!((asked.sampling.temperature - 0.01).abs() < 1e-6);
    }
}

const PREFIX: &str = "def add(a, b):\n    return ";

#[tokio::test]
async fn continue_frees_its_slot_when_it_has_seen_enough() {
    let mut setup = Setup::default();
    setup.counting.pace = std::time::Duration::from_millis(5);
    let server = setup.start().await;
    let body = recorded("continue", "ollama-fim")["body"].to_string();
    let mut connection = Connection::open(server.address).await;
    let json = [("content-type", "application/json")];
    connection.send(&request("POST", "/api/generate", &json, body.as_bytes())).await;
    assert_eq!(connection.head().await.status, 200);
    connection.chunk().await.expect("a first line");
    drop(connection);
    server.idle().await;
}

#[tokio::test]
async fn continue_learns_that_the_model_fills_in_the_middle() {
    let server = Server::start().await;
    let shown = play(&server, "continue", "show").await.json();
    assert!(shown["template"].as_str().expect("text").contains(".Suffix"));
    let parameters = shown["parameters"].as_str().expect("text");
    let words: Vec<_> = parameters.split_whitespace().collect();
    assert_eq!(words, ["num_ctx", "4096"]);
    assert_eq!(shown["capabilities"], json!(["completion", "insert"]));
    let info = &shown["model_info"];
    let architecture = info["general.architecture"].as_str().expect("a name");
    assert_eq!(info[format!("{architecture}.context_length")], 4096);
    assert!(shown["details"]["family"].is_string());

    let mut setup = Setup::default();
    setup.counting.card.fim = false;
    let server = setup.start().await;
    let shown = play(&server, "jetbrains", "show").await.json();
    assert!(!shown["template"].as_str().expect("text").contains(".Suffix"));
    assert_eq!(shown["capabilities"], json!(["completion"]));
}

#[tokio::test]
async fn a_raw_prompt_is_continued_as_it_stands() {
    let server = Server::start().await;
    for (client, name) in [("continue", "ollama-raw"), ("zed", "ollama"), ("lsp-ai", "ollama")] {
        let mut body = recorded(client, name)["body"].clone();
        body["options"]["num_predict"] = json!(2);
        assert_eq!(post(server.address, "/api/generate", &body).await.status, 200);
        assert!(!matches!(server.counting.last().input, Input::Chat(_)), "{client}");
        body["prompt"] = json!("let a = ");
        assert_eq!(post(server.address, "/api/generate", &body).await.status, 200);
        let asked = server.counting.last();
        assert!(matches!(&asked.input, Input::Text(text) if text == "let a = "), "{client}");
    }
}

#[tokio::test]
async fn zed_gets_one_object_with_its_time() {
    let server = Server::start().await;
    let reply = play(&server, "zed", "ollama").await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let whole = reply.json();
    assert!(whole["response"].as_str().is_some_and(|text| text.starts_with("0:0 0:1 ")));
    let created = whole["created_at"].as_str().expect("a time");
    assert!(created.starts_with("20") && created.ends_with('Z'), "{created}");
    ends_well(&whole, "length");
    let tags = play(&server, "zed", "tags").await.json();
    assert_eq!(tags["models"][0]["name"], "counting/1");
    assert_eq!(play(&server, "zed", "show").await.status, 200);
}

#[tokio::test]
async fn twinny_comes_over_its_default_address_with_an_empty_key() {
    let server = without_chat().await;
    let reply = play(&server, "twinny", "ollama").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let parts = lines(&reply);
    assert_eq!(parts.len(), 513, "num_predict is honoured");
    assert!(parts.iter().all(|part| part["response"].is_string()));
}

#[tokio::test]
async fn llm_ls_reads_response_or_error() {
    let server = without_chat().await;
    let reply = play(&server, "llm-ls", "ollama").await;
    assert!(reply.json()["response"].is_string(), "{}", reply.text());
    assert!((server.counting.last().sampling.top_p - 0.95).abs() < 1e-6);
    let mut setup = Setup::default();
    setup.counting.refuse = Some(Reason::QueueFull);
    let server = setup.start().await;
    let refused = play(&server, "llm-ls", "ollama").await;
    assert_eq!(refused.status, 503);
    assert!(!error_text(&refused).is_empty());
}

#[tokio::test]
async fn its_python_client_finds_what_it_reads() {
    let server = Server::start().await;
    let whole = play(&server, "ollama-python", "generate").await.json();
    assert_eq!(whole["response"], "0:0 0:1 0:2 0:3 0:4 0:5 ");
    assert_eq!((&whole["prompt_eval_count"], &whole["eval_count"]), (&json!(7), &json!(6)));
    assert_eq!(lines(&play(&server, "ollama-python", "generate-stream").await).len(), 7);
    // What is not raw is a turn, where the model has a template for those.
    assert!(matches!(server.counting.last().input, Input::Chat(_)));
    for (name, reason) in [("load", "load"), ("unload", "unload")] {
        let reply = play(&server, "ollama-python", name).await;
        assert_eq!(reply.header("x-weir-reason"), Some("no_prompt"));
        let reply = reply.json();
        assert_eq!((&reply["response"], &reply["done"]), (&json!(""), &json!(true)));
        assert_eq!(reply["done_reason"], reason);
    }
    let chat = play(&server, "ollama-python", "chat").await.json();
    assert_eq!(chat["message"], json!({"role": "assistant", "content": "0:0 0:1 0:2 0:3 "}));
    assert_eq!(server.counting.last().priority, Priority::Chat);
    let listed = play(&server, "ollama-python", "list").await.json()["models"][0].take();
    let running = play(&server, "ollama-python", "ps").await.json()["models"][0].take();
    for model in [&listed, &running] {
        assert_eq!((&model["model"], &model["size"]), (&json!("counting/1"), &json!(14_000_000)));
        assert_eq!(model["digest"].as_str().map(str::len), Some(64));
        assert_eq!(model["details"]["parameter_size"], "7.0M");
        assert_eq!(model["details"]["quantization_level"], "bf16");
    }
    assert_eq!(running["context_length"], 4096);
    assert!(running["expires_at"].is_string() && running["size_vram"].is_u64());
    assert_eq!(play(&server, "ollama-python", "show").await.status, 200);
}

#[tokio::test]
async fn its_javascript_client_gets_a_last_object() {
    let server = Server::start().await;
    let parts = lines(&play(&server, "ollama-js", "generate-stream").await);
    ends_well(parts.last().expect("an object"), "length");
    let chat = lines(&play(&server, "ollama-js", "chat-stream").await);
    assert_eq!(chat[0]["message"], json!({"role": "assistant", "content": "0:0 "}));
    ends_well(chat.last().expect("an object"), "length");
    let version = play(&server, "ollama-js", "version").await.json();
    assert!(version["version"].as_str().is_some_and(|text| text.split('.').count() == 3));
    assert_eq!(play(&server, "ollama-js", "alive").await.text(), "Ollama is running");
    let mut connection = Connection::open(server.address).await;
    for _ in 0..2 {
        connection.send(&request("HEAD", "/", &[], b"")).await;
        let alive = connection.head().await;
        assert_eq!((alive.status, alive.header("content-length")), (200, Some("17")));
    }
}

#[tokio::test]
async fn a_chat_without_a_template_is_refused_and_one_without_messages_is_none() {
    let server = without_chat().await;
    let reply = play(&server, "ollama-python", "chat").await;
    assert_eq!(reply.status, 400);
    assert!(error_text(&reply).contains("chat template"));
    let reply = post(server.address, "/api/chat", &json!({"model": "m", "messages": []})).await;
    let reply = reply.json();
    assert_eq!(reply["message"], json!({"role": "assistant", "content": ""}));
    assert_eq!(reply["done_reason"], "load");
}

#[tokio::test]
async fn a_system_prompt_goes_through_the_template() {
    let server = Server::start().await;
    let body = json!({"prompt": "hello", "system": "be brief", "stream": false});
    assert_eq!(post(server.address, "/api/generate", &body).await.status, 200);
    let asked = server.counting.last();
    let Input::Chat(messages) = &asked.input else { panic!("{:?}", asked.input) };
    let said: Vec<_> = messages.iter().map(|one| (&*one.role, &*one.content)).collect();
    assert_eq!(said, [("system", "be brief"), ("user", "hello")]);
}

#[tokio::test]
async fn what_breaks_later_says_so_on_a_line_of_its_own() {
    let mut setup = Setup::default();
    setup.counting.breaks_at = Some(2);
    let server = setup.start().await;
    let parts = lines(&play(&server, "ollama-js", "generate-stream").await);
    assert_eq!(parts.len(), 3);
    assert_eq!(parts[2], json!({"error": "as the test asked"}));
}

#[tokio::test]
async fn options_are_read_as_ollama_reads_them() {
    let server = Server::start().await;
    let ask = async |options: Value| {
        let body = json!({"prompt": "a", "raw": true, "stream": false, "options": options});
        post(server.address, "/api/generate", &body).await
    };
    assert_eq!(ask(Value::Null).await.status, 200);
    let asked = server.counting.last();
    assert_eq!(asked.max_tokens, None);
    let drawn = &asked.sampling;
    assert!((drawn.temperature - 0.8).abs() < 1e-6 && (drawn.top_p - 0.9).abs() < 1e-6);
    assert_eq!((drawn.top_k, drawn.seed), (40, None));
    let all = json!({"num_predict": 3, "temperature": 0, "top_k": 1, "top_p": 0.5, "min_p": 0.1,
        "seed": 7, "stop": "x", "repeat_penalty": 1.1, "presence_penalty": 0.5,
        "frequency_penalty": 0.25, "num_ctx": 999_999, "num_thread": 4, "unknown": {"a": [1]}});
    assert_eq!(ask(all).await.status, 200);
    let asked = server.counting.last();
    assert_eq!((asked.max_tokens, asked.sampling.seed), (Some(3), Some(7)));
    assert!((asked.sampling.repetition_penalty - 1.1).abs() < 1e-6);
    assert_eq!(asked.stop.strings, ["x"]);
    for nulls in [
        json!({"num_predict": null, "temperature": null, "stop": null, "seed": null}),
        json!({"num_predict": -1}),
        json!({"num_predict": -2}),
    ] {
        assert_eq!(ask(nulls).await.status, 200);
        assert_eq!(server.counting.last().max_tokens, None);
    }
    for (wrong, field) in [
        (json!({"num_predict": "many"}), "`num_predict`"),
        (json!({"num_predict": -3}), "`num_predict`"),
        (json!({"temperature": 9}), "`temperature`"),
        (json!({"repeat_penalty": 0}), "`repeat_penalty`"),
        (json!({"stop": [1]}), "`stop`"),
        (json!("none"), "`options`"),
    ] {
        let reply = ask(wrong).await;
        assert_eq!(reply.status, 400);
        assert!(error_text(&reply).starts_with(field), "{}", reply.text());
    }
    let twice = br#"{"prompt":"a","options":{},"options":{}}"#;
    let reply = send(server.address, "POST", "/api/generate", &[], twice).await;
    assert_eq!(
        (reply.status, error_text(&reply).as_str()),
        (400, "`options` must be there only once")
    );
}
