//! GitHub Copilot's ghost text.

use serde_json::{Value, json};
use weir::completion::{Input, Reason};

use super::{play, recorded};
use crate::support::http::{get, post, send};
use crate::support::server::{Counting, Server, Setup};

const PATH: &str = "/v1/engines/gpt-41-copilot/completions";

fn ghost() -> Value {
    let mut body = recorded("copilot", "ghost")["body"].take();
    body["max_tokens"] = json!(2);
    body
}

#[tokio::test]
async fn ghost_text_streams() {
    let server = Server::start().await;
    let reply = play(&server, "copilot", "ghost").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("x-github-request-id"), Some("5c2d6a1e"));
    let events = reply.events();
    assert_eq!(events.last(), Some(&"[DONE]"));
    let first: Value = serde_json::from_str(events[0]).expect("an object");
    assert_eq!(
        (&first["choices"][0]["index"], &first["choices"][0]["text"]),
        (&json!(0), &json!("0:0 "))
    );
    let request = server.counting.last();
    assert_eq!(request.session.as_deref(), Some("some-session-1"));
    assert_eq!(request.fit.map(|fit| fit.block), Some(true));
    let Input::Fim(fim) = &request.input else { panic!("a cursor") };
    assert_eq!((fim.extra.len(), fim.repository.as_deref()), (2, Some("ada/engine")));
}

#[tokio::test]
async fn cycling_gets_three_choices() {
    let server = Server::start().await;
    let mut body = ghost();
    (body["n"], body["temperature"]) = (json!(3), json!(0.2));
    let reply = post(server.address, PATH, &body).await;
    let mut seen = [false; 3];
    for event in reply.events().into_iter().filter(|event| *event != "[DONE]") {
        let event: Value = serde_json::from_str(event).expect("an object");
        seen[event["choices"][0]["index"].as_u64().expect("a number") as usize] = true;
    }
    assert_eq!(seen, [true; 3]);
}

#[tokio::test]
async fn a_stream_that_is_left_frees_its_slot() {
    let counting = Counting { pace: std::time::Duration::from_millis(5), ..Counting::default() };
    let server = Setup { counting, ..Setup::default() }.start().await;
    let mut body = ghost();
    body["max_tokens"] = json!(500);
    let bytes = body.to_string();
    let mut connection = crate::support::http::Connection::open(server.address).await;
    connection.send(&crate::support::http::request("POST", PATH, &[], bytes.as_bytes())).await;
    connection.head().await;
    connection.chunk().await;
    drop(connection);
    server.idle().await;
}

#[tokio::test]
async fn overload_is_503_and_signed() {
    let counting = Counting { refuse: Some(Reason::QueueFull), ..Counting::default() };
    let server = Setup { counting, ..Setup::default() }.start().await;
    let reply = post(server.address, PATH, &ghost()).await;
    assert_eq!(reply.status, 503);
    assert!(reply.header("x-github-request-id").is_some());
    let wrong = post(server.address, PATH, &json!({ "prompt": 1 })).await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.header("x-github-request-id").is_some());
}

/// platform/authentication/common/copilotToken.ts
#[tokio::test]
async fn a_token_is_given_where_the_operator_wants_it() {
    let server = Server::start().await;
    let token = "/copilot_internal/v2/token";
    assert_eq!(get(server.address, token).await.status, 404);
    let mut setup = Setup::default();
    setup.config.copilot_token = true;
    let server = setup.start().await;
    let headers = [("authorization", "token gho_abc"), ("host", "127.0.0.1:8012")];
    let reply = send(server.address, "GET", token, &headers, b"").await;
    assert!(reply.header("x-github-request-id").is_some(), "or it is taken for a proxy's");
    let reply = reply.json();
    assert_eq!(reply["token"], "gho_abc");
    assert!(reply["expires_at"].is_u64() && reply["refresh_in"].is_u64());
    assert_eq!(reply["endpoints"]["proxy"], "http://127.0.0.1:8012");
    assert_eq!(get(server.address, "/copilot_internal/user").await.json()["login"], "weir");
}
