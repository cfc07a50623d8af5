//! Bad input through a real listener: a clear 4xx, and the next request is served.

use serde_json::{Value, json};

use crate::support::http::{self, Connection, Reply};
use crate::support::server::Server;

/// What a good request gets, before and after every bad one.
async fn serves(server: &Server) {
    let reply = http::post(server.address, "/v1/completions", &json!({"prompt": "x"})).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

async fn sent(server: &Server, path: &str, body: &[u8]) -> Reply {
    http::send(server.address, "POST", path, &[("content-type", "application/json")], body).await
}

/// Each body must be refused with 400, blaming `param`, in words that repeat nothing of it.
async fn refused(path: &str, table: &[(&[u8], Option<&str>)]) {
    let server = Server::start().await;
    for (body, param) in table {
        let shown = String::from_utf8_lossy(&body[..body.len().min(200)]);
        let reply = sent(&server, path, body).await;
        assert_eq!(reply.status, 400, "{shown}: {}", reply.text());
        let error = reply.error();
        assert_eq!(error["type"], "invalid_request_error", "{shown}");
        assert_eq!(error["param"].as_str(), *param, "{shown}: {error}");
        assert!(reply.body.len() < 600, "{shown}: {error}");
        assert!(!reply.text().contains("CANARY"), "{shown}: {error}");
        assert_eq!(reply.header("x-weir-route"), Some("shed"));
        assert_eq!(reply.header("x-weir-reason"), Some("invalid"));
    }
    serves(&server).await;
}

/// `{"prompt":"x", FIELD: VALUE}` for each pair.
async fn refused_fields(table: &[(&str, &str)]) {
    let bodies: Vec<Vec<u8>> = table
        .iter()
        .map(|(field, value)| format!(r#"{{"prompt":"x","{field}":{value}}}"#).into_bytes())
        .collect();
    let table: Vec<(&[u8], Option<&str>)> = bodies
        .iter()
        .zip(table)
        .map(|(body, (field, _))| (body.as_slice(), Some(*field)))
        .collect();
    refused("/v1/completions", &table).await;
}

#[tokio::test]
async fn bodies_that_are_no_json_object() {
    let deep_array = "[".repeat(100_000);
    let deep_prompt = format!(r#"{{"prompt":{}"#, "[".repeat(100_000));
    let deep_object = r#"{"prompt":"#.repeat(50_000);
    refused(
        "/v1/completions",
        &[
            (b"", None),
            (b" ", None),
            (b"null", None),
            (b"[]", None),
            (b"\"CANARY\"", None),
            (b"17", None),
            (b"{", None),
            (b"{\"prompt\"", Some("prompt")),
            (b"{\"prompt\":", Some("prompt")),
            (b"{\"prompt\":\"CANARY", Some("prompt")),
            (b"{\"prompt\":\"CANARY\"", None),
            (b"{\"prompt\":\"CANARY\",}", None),
            (b"{\"prompt\":\"x\"} CANARY", None),
            (b"{\"prompt\":\"x\"}{\"prompt\":\"x\"}", None),
            (b"{'prompt':'x'}", None),
            (b"prompt=CANARY&max_tokens=4", None),
            (b"{\"prompt\":\"\xff\xfe\"}", None),
            (b"{\"prompt\":\"\xc3\"}", None),
            (b"\xef\xbb\xbf{\"prompt\":\"x\"}", None),
            (b"{\"prompt\":\"\\ud800\"}", Some("prompt")),
            (b"{\"prompt\":\"\\u12\"}", Some("prompt")),
            (b"{\"prompt\":\"a\nb\"}", Some("prompt")),
            (b"{\"prompt\":\"a\0b\"}", Some("prompt")),
            (b"{\"a\":[1,2", None),
            (b"{\"prompt\":\"x\",\"max_tokens\":0x10}", None),
            (deep_array.as_bytes(), None),
            (deep_prompt.as_bytes(), Some("prompt")),
            (deep_object.as_bytes(), Some("prompt")),
        ],
    )
    .await;
}

#[tokio::test]
async fn prompts_of_the_wrong_kind() {
    let many = format!(r#"{{"prompt":[{}"x"]}}"#, r#""x","#.repeat(64));
    let choices = format!(r#"{{"n":16,"prompt":[{}"x"]}}"#, r#""x","#.repeat(63));
    refused(
        "/v1/completions",
        &[
            (b"{}", Some("prompt")),
            (b"{\"prompt\":null}", Some("prompt")),
            (b"{\"messages\":[]}", Some("prompt")),
            (b"{\"prompt\":1}", Some("prompt")),
            (b"{\"prompt\":true}", Some("prompt")),
            (b"{\"prompt\":{}}", Some("prompt")),
            (b"{\"prompt\":[]}", Some("prompt")),
            (b"{\"prompt\":[[]]}", Some("prompt")),
            (b"{\"prompt\":[[1],[]]}", Some("prompt")),
            (b"{\"prompt\":[null]}", Some("prompt")),
            (b"{\"prompt\":[\"x\",1]}", Some("prompt")),
            (b"{\"prompt\":[1,\"x\"]}", Some("prompt")),
            (b"{\"prompt\":[[1],2]}", Some("prompt")),
            (b"{\"prompt\":[[\"x\"]]}", Some("prompt")),
            (b"{\"prompt\":[[[1]]]}", Some("prompt")),
            (b"{\"prompt\":[1.5]}", Some("prompt")),
            (b"{\"prompt\":[-1]}", Some("prompt")),
            (b"{\"prompt\":[1000]}", Some("prompt")),
            (b"{\"prompt\":[4294967296]}", Some("prompt")),
            (b"{\"prompt\":[[1],[18446744073709551616]]}", Some("prompt")),
            (b"{\"prompt\":\"x\",\"prompt\":\"y\"}", Some("prompt")),
            (b"{\"prompt\":[1],\"suffix\":\"y\"}", Some("prompt")),
            (b"{\"prompt\":\"x\",\"suffix\":\"y\",\"echo\":true}", Some("echo")),
            (many.as_bytes(), Some("prompt")),
            (choices.as_bytes(), Some("n")),
        ],
    )
    .await;
}

#[tokio::test]
async fn numbers_out_of_their_range() {
    refused_fields(&[
        ("max_tokens", "-2"),
        ("max_tokens", "1.5"),
        ("max_tokens", "4294967296"),
        ("max_tokens", "1e308"),
        ("max_tokens", "1e999"),
        ("max_tokens", "NaN"),
        ("max_tokens", "Infinity"),
        ("max_tokens", "-Infinity"),
        ("max_tokens", "016"),
        ("max_tokens", "\"16\""),
        ("max_tokens", "true"),
        ("max_tokens", "[]"),
        ("max_tokens", "123456789012345678901234567890"),
        ("min_tokens", "17"),
        ("min_tokens", "-1"),
        ("n", "0"),
        ("n", "-1"),
        ("n", "17"),
        ("n", "9223372036854775807"),
        ("n", "9223372036854775808"),
        ("best_of", "0"),
        ("best_of", "17"),
        ("temperature", "-0.1"),
        ("temperature", "2.1"),
        ("temperature", "1e308"),
        ("temperature", "-1e308"),
        ("temperature", "1e999"),
        ("temperature", "NaN"),
        ("temperature", "\"hot\""),
        ("top_p", "-0.01"),
        ("top_p", "1.01"),
        ("top_p", "\"NaN\""),
        ("top_k", "-2"),
        ("top_k", "2.5"),
        ("top_k", "4294967296"),
        ("min_p", "-1"),
        ("min_p", "2"),
        ("presence_penalty", "-2.1"),
        ("presence_penalty", "2.1"),
        ("frequency_penalty", "-3"),
        ("frequency_penalty", "1e39"),
        ("repetition_penalty", "0"),
        ("repetition_penalty", "-1"),
        ("repetition_penalty", "1e308"),
        ("logprobs", "-1"),
        ("logprobs", "6"),
        ("logprobs", "true"),
        ("seed", "1.5"),
        ("seed", "18446744073709551616"),
        ("seed", "-9223372036854775809"),
        ("seed", "\"7\""),
    ])
    .await;
}

#[tokio::test]
async fn fields_of_the_wrong_type() {
    let long = format!("\"{}\"", "s".repeat(1025));
    let stops = format!("[{}\"x\"]", "\"x\",".repeat(32));
    let stop_ids = format!("[{}1]", "1,".repeat(64));
    let biases = (0..1025).map(|id| format!("\"{id}\":0")).collect::<Vec<_>>().join(",");
    let biases = format!("{{{biases}}}");
    let path = format!("\"{}\"", "p".repeat(4097));
    let files = format!(
        "[{}{{\"path\":\"a\",\"text\":\"\"}}]",
        "{\"path\":\"a\",\"text\":\"\"},".repeat(64)
    );
    refused_fields(&[
        ("stop", "1"),
        ("stop", "[1]"),
        ("stop", "[\"a\",null]"),
        ("stop", "{\"a\":1}"),
        ("stop", &long),
        ("stop", &stops),
        ("stop_token_ids", "5"),
        ("stop_token_ids", "[\"5\"]"),
        ("stop_token_ids", "[-5]"),
        ("stop_token_ids", "[1000]"),
        ("stop_token_ids", &stop_ids),
        ("logit_bias", "[]"),
        ("logit_bias", "{\"x\":1}"),
        ("logit_bias", "{\"-1\":1}"),
        ("logit_bias", "{\"1000\":1}"),
        ("logit_bias", "{\"99999999999\":1}"),
        ("logit_bias", "{\"1\":101}"),
        ("logit_bias", "{\"1\":-1e308}"),
        ("logit_bias", "{\"1\":null}"),
        ("logit_bias", "{\"1\":\"CANARY\"}"),
        ("logit_bias", &biases),
        ("suffix", "1"),
        ("suffix", "[\"CANARY\"]"),
        ("echo", "1"),
        ("echo", "\"true\""),
        ("stream", "\"CANARY\""),
        ("stream", "0"),
        ("stream_options", "true"),
        ("stream_options", "{\"include_usage\":\"CANARY\"}"),
        ("ignore_eos", "\"no\""),
        ("model", "7"),
        ("user", "{}"),
        ("path", "7"),
        ("repository", "[]"),
        ("extra_files", "{}"),
        ("extra_files", "[\"CANARY\"]"),
        ("extra_files", "[{\"path\":\"CANARY\"}]"),
        ("extra_files", "[{\"path\":\"a\",\"text\":7}]"),
        ("extra_files", &files),
    ])
    .await;
    let body = format!("{{\"prompt\":\"x\",\"suffix\":\"\",\"path\":{path}}}");
    refused("/v1/completions", &[(body.as_bytes(), Some("path"))]).await;
}

#[tokio::test]
async fn fields_that_contradict_each_other() {
    refused(
        "/v1/completions",
        &[
            (br#"{"prompt":"x","n":3,"best_of":2}"#, Some("best_of")),
            (br#"{"prompt":"x","best_of":2,"stream":true}"#, Some("best_of")),
            (br#"{"prompt":"x","max_tokens":2,"min_tokens":3}"#, Some("min_tokens")),
            (br#"{"prompt":"x","max_tokens":2,"max_tokens":2}"#, Some("max_tokens")),
        ],
    )
    .await;
}

#[tokio::test]
async fn conversations_that_are_none() {
    let many = format!(
        r#"{{"messages":[{}{{"role":"user","content":""}}]}}"#,
        r#"{"role":"user","content":""},"#.repeat(1024)
    );
    let user = |rest: &str| {
        format!(r#"{{"messages":[{{"role":"user","content":"x"}}],{rest}}}"#).into_bytes()
    };
    refused(
        "/v1/chat/completions",
        &[
            (b"{}", Some("messages")),
            (b"{\"prompt\":\"x\"}", Some("messages")),
            (b"{\"messages\":[]}", Some("messages")),
            (b"{\"messages\":\"x\"}", Some("messages")),
            (b"{\"messages\":[\"x\"]}", Some("messages")),
            (b"{\"messages\":[{}]}", Some("messages")),
            (b"{\"messages\":[{\"content\":\"x\"}]}", Some("messages")),
            (b"{\"messages\":[{\"role\":\"CANARY\",\"content\":\"x\"}]}", Some("messages")),
            (b"{\"messages\":[{\"role\":\"user\",\"content\":7}]}", Some("messages")),
            (
                b"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
                Some("messages"),
            ),
            (many.as_bytes(), Some("messages")),
            (&user(r#""top_logprobs":2"#), Some("top_logprobs")),
            (&user(r#""logprobs":true,"top_logprobs":21"#), Some("top_logprobs")),
            (&user(r#""logprobs":2"#), Some("logprobs")),
            (&user(r#""max_completion_tokens":-2"#), Some("max_completion_tokens")),
            (&user(r#""best_of":2"#), Some("best_of")),
        ],
    )
    .await;
}

#[tokio::test]
async fn headers_out_of_their_range() {
    let server = Server::start().await;
    let long = "s".repeat(129);
    for (name, value) in [
        ("x-weir-deadline-ms", "0"),
        ("x-weir-deadline-ms", "-1"),
        ("x-weir-deadline-ms", "soon"),
        ("x-weir-deadline-ms", "600001"),
        ("x-weir-deadline-ms", "99999999999999999999"),
        ("x-weir-session", ""),
        ("x-weir-session", "na\u{ef}ve"),
        ("x-weir-session", &long),
    ] {
        let body = br#"{"prompt":"x"}"#;
        let headers = [(name, value)];
        let reply = http::send(server.address, "POST", "/completions", &headers, body).await;
        assert_eq!((reply.status, &reply.error()["param"]), (400, &json!(name)), "{value}");
    }
    serves(&server).await;
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let server = Server::start().await;
    let prompt = |size: usize| {
        let mut body = br#"{"prompt":""#.to_vec();
        body.resize(size - 2, b'x');
        body.extend(b"\"}");
        body
    };
    let most = 8 << 20;
    assert_eq!(sent(&server, "/v1/completions", &prompt(most)).await.status, 200);
    for size in [most + 1, 2 * most] {
        let reply = sent(&server, "/v1/completions", &prompt(size)).await;
        assert_eq!((reply.status, &reply.error()["code"]), (413, &json!("request_too_large")));
        assert_eq!(reply.header("x-weir-reason"), Some("request_too_large"));
    }
    serves(&server).await;

    // A client that asks first is told before it sends.
    let mut connection = Connection::open(server.address).await;
    connection
        .send(
            b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n\
              content-length: 9000000000\r\n\r\n",
        )
        .await;
    assert_eq!(connection.reply().await.status, 413);
    serves(&server).await;
}

#[tokio::test]
async fn a_model_whose_name_is_no_text() {
    let server = Server::start().await;
    for path in ["/v1/models/%ff", "/models/%C3%28", "/v1/models/counting%00"] {
        let reply = http::send(server.address, "GET", path, &[], b"").await;
        assert_eq!((reply.status, &reply.error()["code"]), (404, &json!("model_not_found")));
    }
    serves(&server).await;
}

#[tokio::test]
async fn a_chunked_body_is_bounded_too() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    connection
        .send(
            b"POST /completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n",
        )
        .await;
    let chunk = [b"100000\r\n".as_slice(), &vec![b' '; 1 << 20], b"\r\n"].concat();
    for _ in 0..9 {
        connection.send(&chunk).await;
    }
    connection.send(b"0\r\n\r\n").await;
    assert_eq!(connection.reply().await.status, 413);
    serves(&server).await;
}

/// Framing that two parsers could read differently must not be read at all.
#[tokio::test]
async fn requests_that_are_no_http() {
    let server = Server::start().await;
    let json = "{\"prompt\":\"x\"}";
    let heads = [
        "content-length: 14\r\ncontent-length: 15\r\n",
        "content-length: -1\r\n",
        "content-length: 1e3\r\n",
        "content-length: 99999999999999999999999\r\n",
        "content-length: 14\r\n bad: folded\r\n",
        "transfer-encoding: gzip\r\n",
        "no colon here\r\n",
        "na me: x\r\n",
    ];
    for head in heads {
        let request = format!("POST /completions HTTP/1.1\r\nhost: localhost\r\n{head}\r\n{json}");
        let mut connection = Connection::open(server.address).await;
        connection.send(request.as_bytes()).await;
        let reply = connection.head().await;
        assert!((400..500).contains(&reply.status), "{head}: {}", reply.status);
    }
    let many = "x: y\r\n".repeat(100);
    let large = format!("x: {}\r\n", "y".repeat(100_000));
    for head in [many, large] {
        let request = format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{head}\r\n");
        let mut connection = Connection::open(server.address).await;
        connection.send(request.as_bytes()).await;
        assert_eq!(connection.head().await.status, 431);
    }
    serves(&server).await;
}

/// Every prefix of a good body is a clean 400, whatever the cut splits.
#[tokio::test]
async fn truncated_bodies() {
    let server = Server::start().await;
    let good = json!({
        "prompt": ["añ", "b"], "max_tokens": 3, "stop": ["\n"], "logit_bias": {"7": 1.5},
        "stream_options": {"include_usage": true}, "unknown": [{"a": null}],
    });
    let good = good.to_string();
    let mut connection = Connection::open(server.address).await;
    for cut in 0..good.len() {
        let body = &good.as_bytes()[..cut];
        connection.send(&http::request("POST", "/completions", &[], body)).await;
        let reply = connection.reply().await;
        assert_eq!(reply.status, 400, "{cut}: {}", reply.text());
        assert_eq!(reply.error()["code"], Value::Null);
    }
    connection.send(&http::request("POST", "/completions", &[], good.as_bytes())).await;
    assert_eq!(connection.reply().await.status, 200);
}
