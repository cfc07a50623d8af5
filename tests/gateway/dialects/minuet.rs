//! minuet-ai.nvim, and llama.vim where it needs a model to answer: what of a prompt is computed.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::recorded;
use crate::support::http::post;
use crate::support::weir::{Weir, drive};

/// Long enough that computing it twice would show.
fn context() -> String {
    (0..60).map(|line| format!("let name_{line} = read(source_{line})?;\n")).collect()
}

/// As many requests as completions are wanted.
#[test]
fn three_identical_requests_compute_their_prompt_once() {
    let weir = Weir::start("");
    drive(async {
        let mut body = recorded("minuet", "fim")["body"].take();
        (body["prompt"], body["max_tokens"]) = (json!(context()), json!(8));
        body["stream_options"] = json!({ "include_usage": true });
        let replies = join_all([0; 3].map(|_| post(weir.address, "/v1/completions", &body))).await;
        let computed: u64 = replies
            .iter()
            .map(|reply| {
                let last = reply.events().into_iter().rev().nth(1).expect("a usage");
                let usage = serde_json::from_str::<Value>(last).expect("JSON")["usage"].take();
                let cached = &usage["prompt_tokens_details"]["cached_tokens"];
                let prompt = usage["prompt_tokens"].as_u64().expect("a count");
                (prompt, prompt - cached.as_u64().expect("a count"))
            })
            .map(|(prompt, computed)| {
                assert!(prompt > 500, "{prompt} tokens");
                computed
            })
            .sum();
        // Once, and the block that the prompt's end lies in for each of the others.
        assert!(computed < 1100, "{computed} tokens were computed");
        for reply in replies {
            assert_eq!(reply.header("x-weir-reason"), Some("below_threshold"));
        }
    });
}

/// autoload/llama.vim spawns a curl for each request.
#[test]
fn two_connections_share_what_was_computed() {
    let weir = Weir::start("");
    drive(async {
        let infill = |prompt: &str| {
            json!({
                "input_prefix": context(), "input_suffix": "\n}\n", "prompt": prompt,
                "n_predict": 4, "cache_prompt": true, "id_slot": 0,
            })
        };
        let first = post(weir.address, "/infill", &infill("    re")).await.json();
        let second = post(weir.address, "/infill", &infill("    rex")).await.json();
        let computed = |reply: &Value| reply["timings"]["prompt_n"].as_u64().expect("a count");
        assert!(computed(&first) > 500, "{first}");
        assert!(computed(&second) <= 32, "{second}");
    });
}
