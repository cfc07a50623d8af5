//! Answers of another kind than was asked for.

use serde_json::json;

use super::super::upstream::Act;
use super::super::wires::Shape;
use super::super::{Scene, TEXTS};

fn answer(scene: &Scene<'_>, lines: &str, body: &[u8]) -> Vec<Act> {
    let lines = format!("{lines}content-length: {}\r\n", body.len());
    vec![Act::Send(scene.wire.head("200 OK", &lines)), Act::Send(body.to_vec())]
}

pub(crate) fn of_type(scene: &Scene<'_>, kind: &str) -> Vec<Act> {
    answer(scene, &format!("content-type: {kind}\r\n"), b"<html>Log in</html>")
}

pub(crate) fn compressed(scene: &Scene<'_>) -> Vec<Act> {
    let kind = scene.wire.content_type();
    let lines = format!("content-type: {kind}\r\ncontent-encoding: gzip\r\n");
    answer(scene, &lines, b"\x1f\x8b\x08\0\0\0\0\0")
}

pub(crate) fn json(scene: &Scene<'_>, body: &serde_json::Value) -> Vec<Act> {
    answer(scene, "content-type: application/json\r\n", body.to_string().as_bytes())
}

/// All of an honest answer at once.
pub(crate) fn whole(scene: &Scene<'_>) -> Vec<Act> {
    let text = TEXTS.concat();
    let choice = match scene.wire.shape {
        Shape::Completion => json!({"index": 0, "text": text, "finish_reason": "stop"}),
        _ => json!({"index": 0, "message": {"content": text}, "finish_reason": "stop"}),
    };
    let usage = json!({"prompt_tokens": 9, "completion_tokens": 4});
    json(scene, &json!({"choices": [choice], "usage": usage}))
}
