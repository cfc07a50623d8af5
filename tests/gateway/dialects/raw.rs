//! Prompts that a client wrote for a model of another name.

use serde_json::{Value, json};
use weir::completion::{FimInput, Input};

use crate::support::http::post;
use crate::support::server::Server;

/// Each as Continue, Zed or llm-ls writes it for a model of that family.
const WRITTEN: [&str; 6] = [
    "<fim_prefix>def f(<fim_suffix>):\n    pass<fim_middle>",
    "<|fim_prefix|>def f(<|fim_suffix|>):\n    pass<|fim_middle|>",
    "<PRE> def f( <SUF>):\n    pass <MID>",
    "[SUFFIX]):\n    pass[PREFIX]def f(",
    "<｜fim▁begin｜>def f(<｜fim▁hole｜>):\n    pass<｜fim▁end｜>",
    "<|code_suffix|>):\n    pass<|code_prefix|>def f(<|code_middle|>",
];

async fn asked(server: &Server, path: &str, body: Value) -> Input {
    let reply = post(server.address, path, &body).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    server.counting.last().input.clone()
}

#[tokio::test]
async fn any_familys_tokens_are_a_cursor_on_routes_without_a_suffix() {
    let server = Server::start().await;
    for prompt in WRITTEN {
        for (path, field) in [
            ("/v1/completions", "prompt"),
            ("/completion", "prompt"),
            ("/api/generate", "prompt"),
            ("/generate", "inputs"),
        ] {
            let body = json!({ field: prompt, "max_tokens": 1, "raw": true, "stream": false });
            let Input::Fim(FimInput { prefix, suffix, .. }) = asked(&server, path, body).await
            else {
                panic!("{path} took {prompt:?} for text");
            };
            assert_eq!((prefix.trim(), suffix.trim()), ("def f(", "):\n    pass"), "{prompt:?}");
        }
        assert!(server.counting.last().fit.is_some());
    }
}

#[tokio::test]
async fn elsewhere_and_in_part_they_are_text() {
    let server = Server::start().await;
    for prompt in [
        "<fim_prefix>a<fim_middle>",
        "<fim_prefix>a<fim_suffix>b",
        "<fim_suffix>a<fim_middle>b<fim_prefix>",
        "<fim_prefix>a<fim_suffix>b<fim_middle>c",
        "<fim_prefix>a<fim_prefix>b<fim_suffix>c<fim_middle>",
    ] {
        let input = asked(&server, "/v1/completions", json!({ "prompt": prompt })).await;
        assert!(matches!(&input, Input::Text(text) if text == prompt), "{prompt:?}");
    }
    let with_suffix = json!({ "prompt": WRITTEN[0], "suffix": "x", "max_tokens": 1 });
    let input = asked(&server, "/v1/completions", with_suffix).await;
    assert!(matches!(&input, Input::Fim(fim) if fim.prefix == WRITTEN[0]));
    let infill = json!({ "input_prefix": WRITTEN[1], "input_suffix": "", "prompt": "" });
    let input = asked(&server, "/infill", infill).await;
    assert!(matches!(&input, Input::Fim(fim) if fim.prefix == WRITTEN[1]));
    let chat = json!({ "messages": [{ "role": "user", "content": WRITTEN[0] }], "max_tokens": 1 });
    let input = asked(&server, "/v1/chat/completions", chat).await;
    assert!(matches!(&input, Input::Chat(messages) if messages[0].content == WRITTEN[0]));
}
