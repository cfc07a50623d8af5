//! tabby-agent, which runs inside Tabby's extensions of all editors.

use serde_json::json;
use weir::completion::{Input, Reason};

use super::play;
use crate::support::http::{get, post};
use crate::support::server::{Counting, Server, Setup};

/// clients/tabby-agent/src/http/tabbyApiClient.ts
#[tokio::test]
async fn it_finds_a_server_that_wants_no_telemetry() {
    let server = Server::start().await;
    let health = get(server.address, "/v1/health").await.json();
    // A number is taken for a version of Tabby's, and servers before 0.9.0 are asked for no settings.
    let describe = health["version"]["git_describe"].as_str().expect("a string");
    assert!(!describe.contains(|c: char| c.is_ascii_digit()), "{describe}");
    for key in ["device", "arch", "cpu_info", "status"] {
        assert!(health[key].is_string(), "{key}");
    }
    assert!(health["cpu_count"].is_u64() && health["cuda_devices"].is_array());
    assert_eq!(post(server.address, "/v1/health", &json!({})).await.json(), health);
    let setting = get(server.address, "/v1beta/server_setting").await.json();
    assert_eq!(setting, json!({ "disable_client_side_telemetry": true }));
}

#[tokio::test]
async fn segments_are_a_cursor_and_its_files() {
    let server = Server::start().await;
    let reply = play(&server, "tabby", "segments").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let answer = reply.json();
    assert!(answer["id"].as_str().is_some_and(|id| id.starts_with("cmpl-")));
    assert_eq!(answer["choices"][0]["index"], 0);
    assert!(answer["choices"][0]["text"].as_str().is_some_and(|text| text.starts_with("0:0 ")));
    let request = server.counting.last();
    let Input::Fim(fim) = &request.input else { panic!("a cursor") };
    let extras: Vec<_> = fim.extra.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(extras, ["opened.rs", "changed.rs", "decl.rs"]);
    assert_eq!(fim.path.as_deref(), Some("src/a.rs"));
    assert_eq!(request.max_tokens, Some(64));
}

#[tokio::test]
async fn events_count_by_language_and_route_and_hold_no_text() {
    let server = Server::start().await;
    let body = json!({ "language": "rust", "segments": { "prefix": "a", "suffix": null } });
    let answer = post(server.address, "/v1/completions", &body).await.json();
    for (kind, id) in [("view", &answer["id"]), ("select", &answer["id"]), ("view", &json!("x"))] {
        let event = json!({ "type": kind, "completion_id": id, "choice_index": 0, "view_id": "v" });
        let reply = post(server.address, "/v1/events?select_kind=line", &event).await;
        assert_eq!((reply.status, reply.body.len()), (200, 0));
    }
    let metrics = get(server.address, "/metrics").await;
    for line in [
        r#"weir_suggestions_total{event="shown",language="rust",route="local"} 1"#,
        r#"weir_suggestions_total{event="accepted",language="rust",route="local"} 1"#,
        r#"weir_suggestions_total{event="shown",language="unknown",route="unknown"} 1"#,
    ] {
        assert!(metrics.text().contains(line), "{line} in {}", metrics.text());
    }
}

#[tokio::test]
async fn overload_leaves_health_green() {
    let counting = Counting { refuse: Some(Reason::QueueFull), ..Counting::default() };
    let server = Setup { counting, ..Setup::default() }.start().await;
    let body = json!({ "segments": { "prefix": "a" } });
    assert_eq!(post(server.address, "/v1/completions", &body).await.status, 503);
    assert_eq!(get(server.address, "/v1/health").await.status, 200);
}
