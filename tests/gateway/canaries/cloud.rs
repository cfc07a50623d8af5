//! A cloud that repeats whatever it was told, in all the ways in which a cloud can fail.

use serde_json::json;

use crate::support::cloud::{Seen, Step, data, done, finish, head, status, text, usage};

/// How a cloud answers, by the first folder of its path. What it gets it repeats where it can.
pub(super) fn misbehave(seen: &Seen) -> Vec<Step> {
    let mode = seen.path().split('/').nth(1).unwrap_or_default();
    let echo = format!("{} {}", seen.head.replace(['\r', '\n'], " "), seen.body);
    let prompt = seen.body["prompt"].as_str().unwrap_or_default();
    let body = json!({"error": {"message": echo, "type": echo, "code": echo}});
    let sse =
        |parts: &[Vec<u8>]| vec![Step::Send([vec![head()], parts.to_vec()].concat().concat())];
    let header = format!("x-echo: {echo}");
    match mode {
        "ok" => sse(&[text(prompt), finish("stop"), usage(7, 5), done()]),
        "object" => sse(&[data(&body)]),
        "event" => sse(&[format!("event: error\ndata: {body}\n\n").into_bytes()]),
        "json" => sse(&[format!("data: {{\"choices\": [{echo}\n\n").into_bytes()]),
        "type" => sse(&[data(&json!({"choices": [{"index": 0, "text": {"a": echo}}]}))]),
        "reason" => sse(&[data(&json!({"choices": [{"index": 0, "finish_reason": echo}]}))]),
        "late" => sse(&[text("x"), data(&body)]),
        "break" => [sse(&[text("x")]), vec![Step::Reset]].concat(),
        "line" => sse(&[format!("data: {}\n\n", echo.repeat(300)).into_bytes()]),
        "bytes" => sse(&[[b"data: \xff\xfe".to_vec(), echo.into_bytes()].concat()]),
        "html" => vec![Step::Send(status(200, &["content-type: text/html", &header], &echo))],
        "http" => vec![Step::Send(echo.into_bytes()), Step::Close],
        "reset" => vec![Step::Reset],
        "hang" => vec![Step::Hang],
        "302" => {
            let to = format!("location: http://127.0.0.1:1/{}", prompt.replace(['\n', ' '], "-"));
            vec![Step::Send(status(302, &[&to], ""))]
        }
        code => {
            let code = code.parse().expect("a status");
            vec![Step::Send(status(
                code,
                &["content-type: application/json", &header],
                &body.to_string(),
            ))]
        }
    }
    .into_iter()
    .chain([Step::Close])
    .collect()
}

pub(super) const MODES: [&str; 24] = [
    "ok", "object", "event", "json", "type", "reason", "late", "break", "line", "bytes", "html",
    "http", "reset", "hang", "302", "400", "401", "404", "413", "422", "429", "500", "503", "529",
];
