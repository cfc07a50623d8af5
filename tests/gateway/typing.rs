//! People who type: what a newer request does to an older one, what nobody may do to another, and
//! what is known before anything runs.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::http::{Connection, Reply, post, request, send};
use crate::support::server::{Counting, Server, Setup};
use crate::support::weir::{Weir, comes_true, drive};

/// Slow enough that a test can come between.
const PACE: Duration = Duration::from_millis(10);

async fn slow() -> Server {
    let counting = Counting { pace: PACE, ..Counting::default() };
    Setup { counting, ..Setup::default() }.start().await
}

fn cursor(prefix: &str, max_tokens: u32) -> Value {
    json!({ "prompt": prefix, "suffix": "\n}\n", "max_tokens": max_tokens, "temperature": 0 })
}

async fn ask(to: SocketAddr, headers: &[(&str, &str)], body: &Value) -> Reply {
    send(to, "POST", "/v1/completions", headers, body.to_string().as_bytes()).await
}

#[tokio::test]
async fn the_older_ends_with_what_it_has() {
    let server = slow().await;
    let older = cursor("fn main() {\n    le", 1000);
    let older = tokio::spawn(async move { post(server.address, "/v1/completions", &older).await });
    sleep(PACE * 6).await;
    let newer = post(server.address, "/v1/completions", &cursor("fn main() {\n    let", 2)).await;
    assert_eq!(newer.json()["choices"][0]["text"], "0:0 0:1 ");
    let older = older.await.expect("it is answered");
    assert_eq!((older.status, older.header("x-weir-reason")), (200, Some("superseded")));
    let text = older.json()["choices"][0]["text"].as_str().expect("a text").to_owned();
    assert!(text.starts_with("0:0 ") && text.len() < 500, "{text}");
    assert_eq!(older.json()["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn the_older_stream_ends_well() {
    let server = slow().await;
    let mut body = cursor("fn main() {\n    le", 1000);
    body["stream"] = json!(true);
    let mut older = Connection::open(server.address).await;
    older.send(&request("POST", "/v1/completions", &[], body.to_string().as_bytes())).await;
    assert_eq!(older.head().await.status, 200);
    older.chunk().await;
    post(server.address, "/v1/completions", &cursor("fn main() {\n    l", 2)).await;
    let mut rest = Vec::new();
    while let Some(chunk) = older.chunk().await {
        rest.extend(chunk);
    }
    let rest = String::from_utf8(rest).expect("UTF-8");
    assert!(rest.contains(r#""finish_reason":"stop""#) && rest.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn nobody_ends_for_the_same_prompt_or_for_several_choices() {
    let server = slow().await;
    let same = cursor("fn main() {\n    le", 20);
    let three = [0, 1, 2].map(|_| post(server.address, "/v1/completions", &same));
    let mut many = cursor("fn main() {\n    let", 20);
    many["n"] = json!(3);
    let many = post(server.address, "/v1/completions", &many);
    let (three, many) = tokio::join!(futures_util::future::join_all(three), many);
    for reply in three.iter().chain([&many]) {
        assert_eq!(reply.json()["choices"][0]["finish_reason"], "length");
        assert_eq!(reply.header("x-weir-reason"), Some("local"));
    }
}

/// They sit behind one proxy, in the same file, at the same line.
#[tokio::test]
async fn two_developers_in_one_file_do_not_meet() {
    let server = slow().await;
    let (ada, bob) = (cursor("fn main() {\n    le", 30), cursor("fn main() {\n    let", 30));
    let ada_typing = ask(server.address, &[("x-weir-session", "ada")], &ada);
    let bob_typing = async {
        sleep(PACE * 4).await;
        ask(server.address, &[("vscode-sessionid", "bob")], &bob).await
    };
    let (ada, bob) = tokio::join!(ada_typing, bob_typing);
    for reply in [ada, bob] {
        assert_eq!(reply.json()["choices"][0]["finish_reason"], "length");
    }
}

#[tokio::test]
async fn sixteen_users_of_one_connection_do_not_meet() {
    let server = slow().await;
    let client: Client<_, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let user = async |user: usize, keys: &str| {
        let prefix = format!("fn user_{user}() {{\n    {keys}");
        let ask = hyper::Request::post(format!("http://{}/v1/completions", server.address))
            .body(Full::new(Bytes::from(cursor(&prefix, 20).to_string())))
            .expect("a request");
        let reply = client.request(ask).await.expect("a reply");
        let body = reply.into_body().collect().await.expect("a body").to_bytes();
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        body["choices"][0]["finish_reason"].as_str().map(str::to_owned)
    };
    let typing = (0..16).map(async |number| {
        let first = user(number, "le");
        let second = async {
            sleep(PACE * 4).await;
            user(number, "let").await
        };
        tokio::join!(first, second)
    });
    for (first, second) in futures_util::future::join_all(typing).await {
        assert_eq!(first.as_deref(), Some("stop"), "one's own key ends one's own request");
        assert_eq!(second.as_deref(), Some("length"), "and nobody else's does");
    }
}

/// A prompt without a suffix may be a batch's: 1 and 12 are no keys of anybody's.
#[tokio::test]
async fn plain_prompts_are_nobodys_typing() {
    let server = slow().await;
    let plain = async |prompt: &str| {
        post(server.address, "/v1/completions", &json!({ "prompt": prompt, "max_tokens": 20 }))
            .await
    };
    let (one, twelve) = tokio::join!(plain("task 1"), plain("task 12"));
    for reply in [one, twelve] {
        assert_eq!(reply.json()["choices"][0]["finish_reason"], "length");
    }
}

#[test]
fn what_is_typed_along_costs_nothing() {
    let weir = Weir::start("");
    drive(async {
        let prefix = "use std::collections::HashMap;\n\nfn main() {\n    let mut ";
        let asked = post(weir.address, "/v1/completions", &cursor(prefix, 24)).await;
        let text = asked.json()["choices"][0]["text"].as_str().expect("a text").to_owned();
        assert!(text.len() > 4, "the model says too little: {text:?}");
        let before = weir.metrics().await.sum("weir_tokens_total", "generated");
        let mut typed = 0;
        for key in text.chars().take_while(char::is_ascii).take(3) {
            typed += key.len_utf8();
            let body = cursor(&format!("{prefix}{}", &text[..typed]), 24);
            let reply = post(weir.address, "/v1/completions", &body).await;
            assert_eq!(reply.header("x-weir-reason"), Some("typed_through"), "{text:?} at {typed}");
            assert_eq!(reply.json()["choices"][0]["text"], text[typed..]);
        }
        assert!(typed > 0);
        assert_eq!(weir.metrics().await.sum("weir_tokens_total", "generated"), before);
    });
}

#[test]
fn what_is_superseded_computes_no_further() {
    let weir = Weir::start("");
    drive(async {
        let long = |line: &str| {
            let mut body =
                cursor(&format!("// {}\nfn main() {{\n    {line}", "a ".repeat(200)), 700);
            body["ignore_eos"] = json!(true);
            body["code_stops"] = json!(false);
            body
        };
        let (address, older) = (weir.address, long("l"));
        let older = tokio::spawn(async move { post(address, "/v1/completions", &older).await });
        assert!(comes_true(Duration::from_secs(10), || weir.saturation().running() == 1).await);
        let mut short = long("le");
        short["max_tokens"] = json!(1);
        post(weir.address, "/v1/completions", &short).await;
        let older = older.await.expect("it is answered");
        assert_eq!(older.header("x-weir-reason"), Some("superseded"), "{}", older.text());
        assert!(comes_true(Duration::from_secs(1), || weir.is_at_rest()).await);
        let made = weir.metrics().await.sum("weir_tokens_total", "generated");
        sleep(Duration::from_millis(100)).await;
        assert_eq!(weir.metrics().await.sum("weir_tokens_total", "generated"), made);
        assert!(made < 600.0, "{made} tokens");
    });
}
