//! Text Generation Inference's routes.

use serde_json::{Value, json};
use weir::completion::{Input, Reason};

use super::{error_text, play};
use crate::support::http::{Reply, post};
use crate::support::server::{Server, Setup};

/// The payloads of a stream, each written as TGI writes it.
fn events(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let text = reply.text();
    assert!(text.ends_with("\n\n"), "{text:?}");
    let event = |event: &str| {
        let data = event.strip_prefix("data:").expect("only data events");
        serde_json::from_str(data).expect("JSON")
    };
    text.split_terminator("\n\n").map(event).collect()
}

#[tokio::test]
async fn llm_ls_gets_an_object_not_a_list() {
    let server = Server::start().await;
    let reply = play(&server, "llm-ls", "tgi").await.json();
    assert!(reply["generated_text"].as_str().is_some_and(|text| text.starts_with("0:0 0:1 ")));
    assert_eq!(reply.as_object().map(serde_json::Map::len), Some(1));
    let asked = server.counting.last();
    assert_eq!((asked.max_tokens, asked.logprobs), (Some(60), None));
    assert!((asked.sampling.temperature - 0.2).abs() < 1e-6);
    assert!(!matches!(asked.input, Input::Chat(_)));

    let reply = play(&server, "llm-ls", "tgi-without-parameters").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let asked = server.counting.last();
    assert_eq!(asked.max_tokens, Some(100));
    assert!(asked.sampling.temperature.abs() < 1e-6, "without being told to, nothing is drawn");
}

#[tokio::test]
async fn errors_are_a_text_and_a_word() {
    let mut setup = Setup::default();
    setup.counting.refuse = Some(Reason::QueueFull);
    let server = setup.start().await;
    let refused = play(&server, "llm-ls", "tgi").await;
    assert_eq!(refused.status, 503);
    assert!(!error_text(&refused).is_empty());
    assert_eq!(refused.json()["error_type"], "overloaded");
    for (body, field) in [
        (json!({}), "`inputs`"),
        (json!({"inputs": "a", "parameters": {"temperature": -1}}), "`temperature`"),
        (json!({"inputs": "a", "parameters": {"max_new_tokens": "x"}}), "`max_new_tokens`"),
        (json!({"inputs": "a", "parameters": []}), "`parameters`"),
    ] {
        let reply = post(server.address, "/generate", &body).await;
        assert_eq!((reply.status, &reply.json()["error_type"]), (400, &json!("validation")));
        assert!(error_text(&reply).starts_with(field), "{}", reply.text());
    }
}

#[tokio::test]
async fn parameters_say_how_tokens_are_drawn() {
    let server = Server::start().await;
    for (parameters, draws) in [
        (json!(null), false),
        (json!({"temperature": null, "top_p": null, "seed": null, "stop": null}), false),
        (json!({"temperature": 1.0, "top_k": 0}), false),
        (json!({"do_sample": true}), true),
        (json!({"top_k": 10}), true),
        (json!({"top_p": 0.9}), true),
        (json!({"temperature": 0.5}), true),
    ] {
        let body = json!({"inputs": "a", "parameters": parameters});
        assert_eq!(post(server.address, "/generate", &body).await.status, 200);
        let drawn = server.counting.last().sampling.temperature > 0.0;
        assert_eq!(drawn, draws, "{body}");
    }
    let parameters = json!({"max_new_tokens": 2, "best_of": 2, "return_full_text": true});
    let body = json!({"inputs": "a = ", "parameters": parameters});
    let reply = post(server.address, "/generate", &body).await.json();
    // The backend makes later choices likelier.
    assert_eq!(reply["generated_text"], "a = 1:0 1:1 ");
}

#[tokio::test]
async fn details_name_every_token() {
    let server = Server::start().await;
    let parameters = json!({"max_new_tokens": 2, "details": true, "stop": ["x"]});
    let body = json!({"inputs": "a", "parameters": parameters});
    let details = post(server.address, "/generate", &body).await.json()["details"].take();
    assert_eq!(details["finish_reason"], "length");
    assert_eq!(details["generated_tokens"], 2);
    let tokens = details["tokens"].as_array().expect("a list");
    assert_eq!(tokens[1], json!({"id": 1, "text": "0:1 ", "logprob": -1.0, "special": false}));
}

#[tokio::test]
async fn a_stream_ends_with_all_of_the_text() {
    let server = Server::start().await;
    let body = json!({"inputs": "a = ", "parameters": {"max_new_tokens": 3}});
    let all = events(&post(server.address, "/generate_stream", &body).await);
    let (last, parts) = all.split_last().expect("a last event");
    for (nth, part) in parts.iter().enumerate() {
        assert_eq!(part["index"], nth + 1);
        assert_eq!(part["token"]["text"], format!("0:{nth} "));
        assert!(part["token"]["id"].is_u64() && part["token"]["logprob"].is_f64(), "{part}");
        assert!(part["generated_text"].is_null() && part["details"].is_null());
    }
    assert_eq!((parts.len(), &last["token"]["special"]), (3, &json!(true)));
    assert_eq!(last["generated_text"], "0:0 0:1 0:2 ");
    assert_eq!(last["details"]["finish_reason"], "length");
    assert_eq!(last["details"]["generated_tokens"], 3);

    let mut setup = Setup::default();
    setup.counting.breaks_at = Some(1);
    let server = setup.start().await;
    let all = events(&post(server.address, "/generate_stream", &body).await);
    assert_eq!(all[1], json!({"error": "as the test asked", "error_type": "generation"}));
}
