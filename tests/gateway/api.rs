//! The HTTP side: shapes, streams, the guard, limits and the way down.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use weir::completion::{Fault, Input, Reason};

use crate::support::http::{self, Connection, Reply, get, post};
use crate::support::server::{Server, Setup};

async fn complete(server: &Server, body: Value) -> Value {
    let reply = post(server.address, "/v1/completions", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn texts(reply: &Value) -> Vec<&str> {
    let choices = reply["choices"].as_array().expect("choices");
    for (index, choice) in choices.iter().enumerate() {
        assert_eq!(choice["index"], index);
    }
    choices.iter().map(|choice| choice["text"].as_str().expect("text")).collect()
}

#[tokio::test]
async fn a_completion_has_exactly_openais_shape() {
    let server = Server::start().await;
    let reply =
        post(server.address, "/completions", &json!({"prompt": "x", "max_tokens": 2})).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("x-weir-route"), Some("local"));
    assert_eq!(reply.header("x-weir-reason"), Some("local"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let mut body = reply.json();
    assert!(body["id"].take().as_str().expect("id").starts_with("cmpl-"));
    assert!(body["created"].take().as_u64().expect("created") > 1_700_000_000);
    let expected = json!({
        "id": null,
        "object": "text_completion",
        "created": null,
        "model": "counting/1",
        "choices": [
            {"text": "0:0 0:1 ", "index": 0, "logprobs": null, "finish_reason": "length"}
        ],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 2,
            "total_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 3},
        },
    });
    assert_eq!(body, expected);
    assert!(!reply.text().contains(": "), "compact JSON: {}", reply.text());
}

#[tokio::test]
async fn max_tokens_is_sixteen_by_default_and_may_be_nothing() {
    let server = Server::start().await;
    complete(&server, json!({"prompt": "x"})).await;
    assert_eq!(server.counting.last().max_tokens, Some(16));
    let reply = complete(&server, json!({"prompt": "x", "max_tokens": 0})).await;
    assert_eq!(texts(&reply), [""]);
    assert_eq!(reply["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn choices_of_listed_prompts_are_numbered_through() {
    let server = Server::start().await;
    let body = json!({"prompt": ["a", "b", "c"], "n": 2, "max_tokens": 1});
    let reply = complete(&server, body).await;
    assert_eq!(texts(&reply), ["0:0 ", "1:0 ", "0:0 ", "1:0 ", "0:0 ", "1:0 "]);
    assert_eq!(reply["usage"]["prompt_tokens"], 21);
    assert_eq!(reply["usage"]["completion_tokens"], 6);
}

#[tokio::test]
async fn token_ids_are_a_prompt_or_a_list_of_prompts() {
    let server = Server::start().await;
    complete(&server, json!({"prompt": [1, 2, 999], "max_tokens": 1})).await;
    assert!(matches!(&server.counting.last().input, Input::Tokens(ids) if *ids == [1, 2, 999]));
    let reply = complete(&server, json!({"prompt": [[1], [2, 3]], "max_tokens": 1})).await;
    assert_eq!(texts(&reply).len(), 2);
}

#[tokio::test]
async fn best_of_returns_the_likeliest_and_hides_what_ranked_them() {
    let server = Server::start().await;
    let body = json!({"prompt": ["a", "b"], "n": 2, "best_of": 4, "max_tokens": 1});
    let reply = complete(&server, body).await;
    assert_eq!(texts(&reply), ["3:0 ", "2:0 ", "3:0 ", "2:0 "]);
    assert_eq!(reply["choices"][0]["logprobs"], Value::Null);
    assert_eq!(reply["usage"]["completion_tokens"], 8);
}

#[tokio::test]
async fn logprobs_with_echo_cover_the_prompt() {
    let server = Server::start().await;
    let body = json!({"prompt": "añb", "max_tokens": 2, "echo": true, "logprobs": 1});
    let reply = complete(&server, body).await;
    assert_eq!(texts(&reply), ["añb0:0 0:1 "]);
    let expected = json!({
        "tokens": ["añb", "0:0 ", "0:1 "],
        "token_logprobs": [null, -1.0, -1.0],
        "top_logprobs": [
            null, {"other": -0.125, "0:0 ": -1.0}, {"other": -0.125, "0:1 ": -1.0}
        ],
        "text_offset": [0, 3, 7],
    });
    assert_eq!(reply["choices"][0]["logprobs"], expected);
    let zero = complete(&server, json!({"prompt": "a", "max_tokens": 1, "logprobs": 0})).await;
    assert_eq!(zero["choices"][0]["logprobs"]["top_logprobs"], Value::Null);
    assert_eq!(zero["choices"][0]["logprobs"]["token_logprobs"], json!([-1.0]));
}

#[tokio::test]
async fn every_field_reaches_the_request() {
    let server = Server::start().await;
    let body = json!({
        "model": "some/other", "prompt": "p", "suffix": "s", "path": "a.rs", "repository": "r",
        "extra_files": [{"path": "b.rs", "text": "b"}], "max_tokens": 9, "min_tokens": 2,
        "temperature": 0.5, "top_p": 0.25, "top_k": -1, "min_p": 0.125, "n": 2,
        "presence_penalty": 1, "frequency_penalty": -1.5, "repetition_penalty": 1.25,
        "logit_bias": {"7": -100, "3": 1.5}, "seed": -2, "stop": ["a", "", "b"],
        "stop_token_ids": [5], "ignore_eos": true, "logprobs": null, "user": "u",
        "a field of tomorrow": [[[{}]]],
    });
    let headers =
        [("x-weir-session", "tab-1"), ("x-weir-deadline-ms", "60000"), ("x-request-id", "me")];
    let sent = body.to_string();
    let reply =
        http::send(server.address, "POST", "/v1/completions", &headers, sent.as_bytes()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["model"], "counting/1");
    let request = server.counting.last();
    let Input::Fim(fim) = &request.input else { panic!("{:?}", request.input) };
    assert_eq!((fim.prefix.as_str(), fim.suffix.as_str()), ("p", "s"));
    assert_eq!((fim.path.as_deref(), fim.repository.as_deref()), (Some("a.rs"), Some("r")));
    assert_eq!((fim.extra[0].path.as_str(), fim.extra[0].text.as_str()), ("b.rs", "b"));
    assert_eq!((request.n, request.max_tokens, request.stop.min_tokens), (2, Some(9), 2));
    let sampling = &request.sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (0.5, 0.25, 0));
    assert_eq!((sampling.min_p, sampling.repetition_penalty), (0.125, 1.25));
    assert_eq!((sampling.presence_penalty, sampling.frequency_penalty), (1.0, -1.5));
    assert_eq!(sampling.logit_bias, [(3, 1.5), (7, -100.0)]);
    assert_eq!(sampling.seed, Some((-2_i64).cast_unsigned()));
    assert_eq!(request.stop.strings, ["a", "b"]);
    assert_eq!((request.stop.token_ids.as_slice(), request.stop.ignore_eos), (&[5][..], true));
    assert_eq!((request.session.as_deref(), &*request.id), (Some("tab-1"), "me"));
    let left = request.deadline.expect("a deadline").duration_since(Instant::now());
    assert!(left > Duration::from_secs(50) && left <= Duration::from_secs(60), "{left:?}");
}

#[tokio::test]
async fn an_empty_suffix_is_a_cursor_and_null_is_none() {
    let server = Server::start().await;
    complete(&server, json!({"prompt": "p", "suffix": ""})).await;
    assert!(matches!(server.counting.last().input, Input::Fim(_)));
    complete(&server, json!({"prompt": "p", "suffix": null})).await;
    assert!(matches!(server.counting.last().input, Input::Text(_)));
}

#[tokio::test]
async fn cut_fim_input_is_announced() {
    let server = Server::start().await;
    for (prefix, truncated) in [("p".repeat(200), Some("true")), ("p".into(), None)] {
        let body = json!({"prompt": prefix, "suffix": "s"});
        let reply = post(server.address, "/v1/completions", &body).await;
        assert_eq!(reply.header("x-weir-truncated"), truncated);
    }
}

async fn streamed(server: &Server, path: &str, body: Value) -> (Reply, Vec<Value>) {
    let reply = post(server.address, path, &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    assert_eq!(reply.header("cache-control"), Some("no-cache"));
    let mut events = reply.events();
    assert_eq!(events.pop(), Some("[DONE]"));
    let chunks = events.iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
    (reply, chunks)
}

#[tokio::test]
async fn a_stream_carries_text_then_the_reason_then_usage_then_done() {
    let server = Server::start().await;
    let body = json!({"prompt": "x", "max_tokens": 2, "stream": true,
        "stream_options": {"include_usage": true}});
    let (_, chunks) = streamed(&server, "/v1/completions", body).await;
    let id = &chunks[0]["id"];
    assert!(chunks.iter().all(|chunk| chunk["id"] == *id && chunk["object"] == "text_completion"));
    let choice = |nth: usize| &chunks[nth]["choices"][0];
    let text =
        |text, reason| json!({"text": text, "index": 0, "logprobs": null, "finish_reason": reason});
    assert_eq!(*choice(0), text("0:0 ", Value::Null));
    assert_eq!(*choice(1), text("0:1 ", Value::Null));
    assert_eq!(*choice(2), text("", json!("length")));
    assert!(chunks[..3].iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)));
    assert_eq!((chunks.len(), &chunks[3]["choices"]), (4, &json!([])));
    assert_eq!(chunks[3]["usage"]["total_tokens"], 9);

    let body = json!({"prompt": "x", "max_tokens": 1, "stream": true});
    let (_, chunks) = streamed(&server, "/v1/completions", body).await;
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()));
}

#[tokio::test]
async fn a_streams_logprobs_continue_their_offsets() {
    let server = Server::start().await;
    let body = json!({"prompt": "x", "max_tokens": 3, "stream": true, "logprobs": 1});
    let (_, chunks) = streamed(&server, "/v1/completions", body).await;
    let offsets: Vec<_> =
        chunks[..3].iter().map(|c| &c["choices"][0]["logprobs"]["text_offset"][0]).collect();
    assert_eq!(offsets, [0, 4, 8]);
}

#[tokio::test]
async fn a_broken_stream_ends_with_an_error_and_no_done() {
    let mut setup = Setup::default();
    setup.counting.breaks_at = Some(2);
    let server = setup.start().await;
    let body = json!({"prompt": "x", "max_tokens": 5, "stream": true});
    let reply = post(server.address, "/v1/completions", &body).await;
    let events = reply.events();
    assert_eq!(events.len(), 3);
    let last: Value = serde_json::from_str(events[2]).expect("JSON");
    assert_eq!(last["error"]["code"], "engine_failed");
    assert_eq!(last["error"]["type"], "server_error");

    let body = json!({"prompt": "x", "max_tokens": 5});
    let reply = post(server.address, "/v1/completions", &body).await;
    assert_eq!((reply.status, &reply.error()["code"]), (503, &json!("engine_failed")));
    server.idle().await;
}

#[tokio::test]
async fn chat_has_its_own_shapes() {
    let server = Server::start().await;
    let messages = json!([
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": null},
    ]);
    let body = json!({"messages": messages, "max_completion_tokens": 1, "max_tokens": 9,
        "logprobs": true, "top_logprobs": 1});
    let reply = post(server.address, "/v1/chat/completions", &body).await.json();
    assert_eq!(reply["object"], "chat.completion");
    let choice = &reply["choices"][0];
    let message = json!({"role": "assistant", "content": "0:0 ", "refusal": null});
    assert_eq!((&choice["message"], &choice["finish_reason"]), (&message, &json!("length")));
    let token = &choice["logprobs"]["content"][0];
    assert_eq!((&token["token"], &token["bytes"]), (&json!("0:0 "), &json!([48, 58, 48, 32])));
    assert_eq!(token["top_logprobs"][0]["token"], "other");
    let Input::Chat(messages) = &server.counting.last().input else { panic!("chat") };
    let seen: Vec<_> = messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
    assert_eq!(seen, [("system", "be brief"), ("user", "ab"), ("assistant", "")]);

    let body =
        json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 2, "stream": true});
    let (_, chunks) = streamed(&server, "/chat/completions", body).await;
    assert!(chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk"));
    let deltas: Vec<_> = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
    let role = json!({"role": "assistant", "content": ""});
    let (first, second) = (json!({"content": "0:0 "}), json!({"content": "0:1 "}));
    assert_eq!(deltas, [&role, &first, &second, &json!({})]);
    assert_eq!(chunks[3]["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn chat_without_a_template_is_refused() {
    let mut setup = Setup::default();
    setup.counting.card.chat = false;
    let server = setup.start().await;
    let body = json!({"messages": [{"role": "user", "content": "x"}]});
    let reply = post(server.address, "/v1/chat/completions", &body).await;
    assert_eq!((reply.status, &reply.error()["code"]), (400, &json!("unsupported")));
    assert_eq!(reply.header("x-weir-route"), Some("shed"));
}

#[tokio::test]
async fn models_list_the_one_model() {
    let server = Server::start().await;
    for prefix in ["", "/v1"] {
        let list = get(server.address, &format!("{prefix}/models")).await.json();
        assert_eq!(
            (&list["object"], &list["data"][0]["id"]),
            (&json!("list"), &json!("counting/1"))
        );
        let one = get(server.address, &format!("{prefix}/models/counting/1")).await.json();
        assert_eq!(one, list["data"][0]);
        assert_eq!((&one["object"], &one["created"]), (&json!("model"), &json!(1_700_000_000)));
        let none = get(server.address, &format!("{prefix}/models/other")).await;
        assert_eq!((none.status, &none.error()["code"]), (404, &json!("model_not_found")));
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_get_json() {
    let server = Server::start().await;
    for path in ["//", "/v1", "/v1/nothing", "/v1/completions/", "/v1/v1/models"] {
        let reply = get(server.address, path).await;
        assert_eq!((reply.status, &reply.error()["code"]), (404, &json!("unknown_url")), "{path}");
        assert!(reply.header("x-request-id").is_some());
    }
    for (method, path) in [("GET", "/v1/completions"), ("POST", "/models"), ("DELETE", "/health")] {
        let reply = http::send(server.address, method, path, &[], b"").await;
        assert_eq!((reply.status, &reply.error()["code"]), (405, &json!("method_not_allowed")));
        assert!(reply.header("allow").is_some(), "{method} {path}");
    }
}

#[tokio::test]
async fn request_ids_are_kept_when_sane() {
    let server = Server::start().await;
    let asked = |id: String| async move {
        let headers = [("x-request-id", id.as_str())];
        let reply = http::send(server.address, "GET", "/health", &headers, b"").await;
        reply.header("x-request-id").expect("always there").to_owned()
    };
    assert_eq!(asked("editor-17".into()).await, "editor-17");
}

#[tokio::test]
async fn insane_request_ids_are_replaced() {
    let server = Server::start().await;
    for id in ["x".repeat(129), "a b".into(), "na\u{ef}ve".into(), String::new()] {
        let headers = [("x-request-id", id.as_str())];
        let reply = http::send(server.address, "GET", "/health", &headers, b"").await;
        assert!(reply.header("x-request-id").expect("always there").starts_with("req_"));
    }
}

#[tokio::test]
async fn ready_means_a_token_was_generated() {
    let mut setup = Setup::default();
    setup.counting.not_ready = true;
    let server = setup.start().await;
    assert_eq!(get(server.address, "/health").await.status, 200);
    let reply = get(server.address, "/ready").await;
    assert_eq!((reply.status, &reply.error()["code"]), (503, &json!("not_ready")));
    let server = Server::start().await;
    assert_eq!(get(server.address, "/ready").await.status, 200);
}

#[tokio::test]
async fn refusals_say_when_to_come_back() {
    let table = [
        (Reason::QueueFull, 503, "queue_full", true),
        (Reason::Deadline, 504, "deadline", false),
        (Reason::ContextLength, 400, "context_length_exceeded", false),
        (Reason::CloudUnreachable, 502, "cloud_unreachable", false),
        (Reason::CloudTimeout, 504, "cloud_timeout", false),
        (Reason::Cloud(Fault::Credentials), 502, "cloud_credentials", false),
        (Reason::CloudCannot("logit_bias"), 503, "cloud_cannot:logit_bias", true),
    ];
    for (reason, status, code, later) in table {
        let mut setup = Setup::default();
        setup.counting.refuse = Some(reason);
        let server = setup.start().await;
        let reply = post(server.address, "/v1/completions", &json!({"prompt": "x"})).await;
        assert_eq!((reply.status, &reply.error()["code"]), (status, &json!(code)));
        assert_eq!(reply.header("x-weir-route"), Some("shed"));
        assert_eq!(reply.header("x-weir-reason"), Some(code));
        assert_eq!(reply.header("retry-after"), later.then_some("3"));
        assert_eq!(reply.header("x-should-retry"), (status >= 500).then_some("false"));
    }
}

#[tokio::test]
async fn a_panic_is_a_500_and_nothing_more() {
    let mut setup = Setup::default();
    setup.counting.panics = true;
    let server = setup.start().await;
    let mut connection = Connection::open(server.address).await;
    for _ in 0..2 {
        let body = br#"{"prompt":"x"}"#;
        connection.send(&http::request("POST", "/completions", &[], body)).await;
        let reply = connection.reply().await;
        assert_eq!((reply.status, &reply.error()["code"]), (500, &json!("internal")));
        assert!(reply.header("x-request-id").is_some());
    }
    let failed = r#"weir_requests_total{route="shed",reason="internal",status="500"} 2"#;
    assert!(metric(&server, failed).await);
    assert!(metric(&server, "weir_cancelled_total 0").await, "the client stayed");
}

#[tokio::test]
async fn requests_are_counted_once_by_route_reason_and_status() {
    let server = Server::start().await;
    complete(&server, json!({"prompt": "x", "max_tokens": 3})).await;
    streamed(&server, "/v1/completions", json!({"prompt": "x", "stream": true})).await;
    post(server.address, "/v1/completions", &json!({"prompt": 3})).await;
    let reply = get(server.address, "/metrics").await;
    assert!(reply.header("content-type").expect("set").starts_with("text/plain"));
    let text = reply.text();
    for line in [
        r#"weir_requests_total{route="local",reason="local",status="200"} 2"#,
        r#"weir_requests_total{route="shed",reason="invalid",status="400"} 1"#,
        "weir_ttft_seconds_count 2",
        "weir_itl_seconds_count 17",
        "weir_request_seconds_count 3",
        "weir_cancelled_total 0",
        "weir_slots_total 8",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

async fn metric(server: &Server, line: &str) -> bool {
    get(server.address, "/metrics").await.text().lines().any(|one| one == line)
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_work() {
    let mut setup = Setup::default();
    setup.counting.pace = Duration::from_millis(10);
    let server = setup.start().await;
    for stream in [true, false] {
        let body = json!({"prompt": ["x", "y"], "max_tokens": 4000, "stream": stream}).to_string();
        let mut connection = Connection::open(server.address).await;
        connection.send(&http::request("POST", "/v1/completions", &[], body.as_bytes())).await;
        if stream {
            connection.head().await;
            connection.chunk().await.expect("a chunk");
        } else {
            sleep(Duration::from_millis(100)).await;
            assert_eq!(server.counting.running.load(std::sync::atomic::Ordering::SeqCst), 2);
        }
        drop(connection);
        server.idle().await;
    }
    assert!(metric(&server, "weir_cancelled_total 2").await);
    assert!(
        metric(&server, r#"weir_requests_total{route="local",reason="local",status="499"} 2"#)
            .await
    );
}

#[tokio::test]
async fn a_client_that_stops_reading_is_dropped() {
    let mut setup = Setup::default();
    setup.limits.write_stall = Duration::from_millis(200);
    let server = setup.start().await;
    let body = json!({"prompt": "x", "max_tokens": 4_000_000_000_u32, "stream": true}).to_string();
    let mut connection = Connection::open(server.address).await;
    connection.send(&http::request("POST", "/v1/completions", &[], body.as_bytes())).await;
    connection.head().await;
    server.idle().await;
    assert!(metric(&server, "weir_cancelled_total 1").await);
}

#[tokio::test]
async fn an_http2_client_with_a_shut_window_is_dropped() {
    let mut setup = Setup::default();
    setup.limits.write_stall = Duration::from_millis(200);
    let server = setup.start().await;
    let body = json!({"prompt": "x", "max_tokens": 4_000_000_000_u32, "stream": true}).to_string();
    // The client's connection task goes on reading the socket; only this body is not read.
    let response = http2().request(http2_post(&server, body)).await.expect("a response");
    assert_eq!(response.status(), 200);
    server.idle().await;
    drop(response);
}

fn http2() -> Client<hyper_util::client::legacy::connect::HttpConnector, Full<bytes::Bytes>> {
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

fn http2_post(server: &Server, body: String) -> hyper::Request<Full<bytes::Bytes>> {
    hyper::Request::post(format!("http://{}/v1/completions", server.address))
        .body(Full::from(body))
        .expect("a request")
}

#[tokio::test]
async fn http2_is_spoken_without_asking() {
    let server = Server::start().await;
    let body = json!({"prompt": "x", "max_tokens": 2}).to_string();
    let response = http2().request(http2_post(&server, body)).await.expect("a response");
    assert_eq!(response.version(), hyper::Version::HTTP_2);
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    let reply: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(texts(&reply), ["0:0 0:1 "]);
}

#[tokio::test]
async fn peers_that_never_finish_a_request_are_dropped() {
    let mut setup = Setup::default();
    setup.limits.header_read = Duration::from_millis(150);
    setup.limits.body_read = Duration::from_millis(150);
    let server = setup.start().await;
    for start in ["", "P", "PRI * HTTP/2.0\r\n", "GET /health HTTP/1.1\r\nhost: loc"] {
        let mut connection = Connection::open(server.address).await;
        connection.send(start.as_bytes()).await;
        assert!(connection.closes_within(Duration::from_secs(2)).await, "{start:?}");
    }
    let mut connection = Connection::open(server.address).await;
    connection
        .send(b"POST /completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{")
        .await;
    let reply = connection.reply().await;
    assert_eq!((reply.status, &reply.error()["code"]), (408, &json!("body_timeout")));
}

#[tokio::test]
async fn a_connection_too_many_waits_for_its_turn() {
    let mut setup = Setup::default();
    setup.limits.connections_max = 1;
    let server = setup.start().await;
    let mut first = Connection::open(server.address).await;
    first.send(&http::request("GET", "/health", &[], b"")).await;
    first.reply().await;
    let mut second = Connection::open(server.address).await;
    second.send(&http::request("GET", "/health", &[], b"")).await;
    assert!(!second.closes_within(Duration::from_millis(100)).await);
    drop(first);
    assert_eq!(second.reply().await.status, 200);
}

#[tokio::test]
async fn on_the_way_down_running_streams_finish() {
    let mut setup = Setup::default();
    setup.counting.pace = Duration::from_millis(10);
    let mut server = setup.start().await;
    let body = json!({"prompt": "x", "max_tokens": 20, "stream": true}).to_string();
    let mut connection = Connection::open(server.address).await;
    connection.send(&http::request("POST", "/v1/completions", &[], body.as_bytes())).await;
    connection.head().await;
    server.stop();
    let mut text = Vec::new();
    while let Some(chunk) = connection.chunk().await {
        text.extend(chunk);
    }
    assert!(text.ends_with(b"data: [DONE]\n\n"));
    server.gone().await;
}

#[tokio::test]
async fn the_grace_time_ends_streams_with_an_error() {
    let mut setup = Setup::default();
    setup.counting.pace = Duration::from_millis(10);
    setup.limits.grace = Duration::from_millis(200);
    let mut server = setup.start().await;
    let ask = |stream: bool| {
        let body = json!({"prompt": "x", "max_tokens": 4000, "stream": stream}).to_string();
        http::request("POST", "/v1/completions", &[], body.as_bytes())
    };
    let mut streaming = Connection::open(server.address).await;
    streaming.send(&ask(true)).await;
    streaming.head().await;
    let mut waiting = Connection::open(server.address).await;
    waiting.send(&ask(false)).await;
    sleep(Duration::from_millis(50)).await;
    let mut idle = Connection::open(server.address).await;
    server.stop();
    assert!(idle.closes_within(Duration::from_secs(1)).await);
    let mut text = Vec::new();
    while let Some(chunk) = streaming.chunk().await {
        text.extend(chunk);
    }
    let text = String::from_utf8(text).expect("UTF-8");
    let last = text.trim_end().rsplit("data: ").next().expect("events");
    let last: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(last["error"]["code"], "draining");
    let reply = waiting.reply().await;
    assert_eq!((reply.status, &reply.error()["code"]), (503, &json!("draining")));
    assert!(reply.header("retry-after").is_some());
    let address = server.address;
    server.gone().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

async fn guarded(setup: Setup, table: &[(&[(&str, &str)], u16)]) {
    let server = setup.start().await;
    for (headers, status) in table {
        let body = br#"{"prompt":"x","max_tokens":1}"#;
        let reply = http::send(server.address, "POST", "/v1/completions", headers, body).await;
        assert_eq!(reply.status, *status, "{headers:?}: {}", reply.text());
        if *status != 200 {
            reply.error();
            assert!(server.counting.last.lock().expect("not poisoned").is_none(), "{headers:?}");
        }
        *server.counting.last.lock().expect("not poisoned") = None;
    }
}

#[tokio::test]
async fn a_rebound_name_is_no_host_of_ours() {
    guarded(
        Setup::default(),
        &[
            (&[("host", "evil.example")], 403),
            (&[("host", "evil.example:8012")], 403),
            (&[("host", "localhost.evil.example")], 403),
            (&[("host", "127.0.0.1.evil.example")], 403),
            (&[("host", "localhost@evil.example")], 403),
            (&[("host", "192.168.1.7")], 403),
            (&[("host", "")], 403),
            (&[("host", "localhost"), ("host", "evil.example")], 403),
            (&[("host", "localhost:1")], 200),
            (&[("host", "LOCALHOST.")], 200),
            (&[("host", "127.9.9.9:8012")], 200),
            (&[("host", "[::1]:8012")], 200),
        ],
    )
    .await;
}

#[tokio::test]
async fn hosts_the_operator_names_are_ours() {
    let mut setup = Setup::default();
    setup.config.allow_hosts = vec!["box.lan".into(), "proxy.lan:443".into()];
    setup.config.listen = vec!["10.1.2.3:8012".parse().expect("an address")];
    guarded(
        setup,
        &[
            (&[("host", "Box.lan:8012")], 200),
            (&[("host", "proxy.lan:443")], 200),
            (&[("host", "proxy.lan:80")], 403),
            (&[("host", "10.1.2.3:8012")], 200),
            (&[("host", "10.1.2.4:8012")], 403),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_target_in_absolute_form_is_checked_too() {
    let server = Server::start().await;
    let path = "http://evil.example/health";
    assert_eq!(http::send(server.address, "GET", path, &[], b"").await.status, 403);
    let mut connection = Connection::open(server.address).await;
    connection.send(b"GET /health HTTP/1.1\r\n\r\n").await;
    assert_eq!(connection.reply().await.status, 400);
}

#[tokio::test]
async fn web_pages_may_not_use_the_gateway() {
    let json = ("content-type", "application/json");
    guarded(
        Setup::default(),
        &[
            (&[("origin", "https://evil.example"), json], 403),
            (&[("origin", "https://evil.example"), ("content-type", "text/plain")], 403),
            (&[("origin", "null"), json], 403),
            (&[("origin", "http://localhost:3000"), ("host", "localhost:8012"), json], 403),
            (&[("origin", "https://localhost:8012"), ("host", "localhost:8012"), json], 403),
            (&[("sec-fetch-site", "cross-site"), ("content-type", "text/plain")], 403),
            (&[("sec-fetch-site", "same-site"), json], 403),
            (&[("origin", "http://localhost:8012"), ("host", "localhost:8012"), json], 200),
            (&[("origin", "http://localhost:8012"), ("host", "localhost:8012")], 415),
            (&[("sec-fetch-site", "none"), json], 200),
            (&[("content-type", "application/x-www-form-urlencoded")], 200),
            (&[], 200),
        ],
    )
    .await;
    let server = Server::start().await;
    let page = [("origin", "https://evil.example")];
    for path in ["/health", "/metrics", "/v1/models", "/nothing"] {
        let reply = http::send(server.address, "GET", path, &page, b"").await;
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (403, None));
    }
    assert_eq!(
        http::send(server.address, "OPTIONS", "/v1/completions", &page, b"").await.status,
        403
    );
}

#[tokio::test]
async fn pages_the_operator_names_get_cors() {
    let mut setup = Setup::default();
    setup.config.allow_origins = vec!["https://app.example".into()];
    let server = setup.start().await;
    let origin = ("origin", "https://app.example");
    let asks = [
        origin,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,x-stainless-os"),
    ];
    let reply = http::send(server.address, "OPTIONS", "/v1/completions", &asks, b"").await;
    assert_eq!(reply.status, 204);
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(reply.header("access-control-allow-headers"), Some("content-type,x-stainless-os"));
    assert!(reply.header("access-control-allow-methods").expect("set").contains("POST"));

    let body = br#"{"prompt":"x"}"#;
    let json = ("content-type", "application/json; charset=utf-8");
    let reply = http::send(server.address, "POST", "/v1/completions", &[origin, json], body).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(reply.header("vary"), Some("origin"));
    let exposed = reply.header("access-control-expose-headers").expect("set");
    assert!(exposed.split(", ").any(|name| name == "x-should-retry"), "{exposed}");
    let plain = [origin, ("content-type", "text/plain")];
    let reply = http::send(server.address, "POST", "/v1/completions", &plain, body).await;
    assert_eq!(reply.status, 415);
    // What the page asked wrongly it may also read.
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://app.example"));
}
