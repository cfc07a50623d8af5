//! Faults of a body: of how HTTP carries it, and of what the stream in it says.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::table::Phase;
use super::super::upstream::Act;
use super::super::wires::{LAST, Shape, chunk};
use super::super::{Scene, TEXTS};
use super::{at_last, then, within};

/// The honest body until now, under a head that tells its length.
fn of_length(scene: &Scene<'_>, length: usize) -> Vec<Act> {
    let kind = scene.wire.content_type();
    let lines = format!("content-type: {kind}\r\ncontent-length: {length}\r\n");
    let so_far = Act::Send(scene.wire.body_before(scene.phase));
    vec![Act::Send(scene.wire.head("200 OK", &lines)), so_far]
}

pub(crate) fn too_long(scene: &Scene<'_>) -> Vec<Act> {
    let mut acts = of_length(scene, scene.wire.body().len() + 100);
    acts.push(Act::Close);
    acts
}

/// What follows is no body any more.
pub(crate) fn too_short(scene: &Scene<'_>) -> Vec<Act> {
    let mut acts = of_length(scene, scene.wire.body_before(scene.phase).len());
    acts.push(Act::Send(scene.wire.text(0, "lost")));
    acts.push(Act::Close);
    acts
}

pub(crate) fn no_size(scene: &Scene<'_>) -> Vec<Act> {
    then(scene, Act::Send(b"zz\r\n".to_vec()))
}

pub(crate) fn huge_size(scene: &Scene<'_>) -> Vec<Act> {
    then(scene, Act::Send(b"fffffffffffffffff\r\n".to_vec()))
}

pub(crate) fn no_end(scene: &Scene<'_>) -> Vec<Act> {
    then(scene, Act::Send(b"3\r\nabcXY".to_vec()))
}

pub(crate) fn cut_chunk(scene: &Scene<'_>) -> Vec<Act> {
    let mut acts = at_last(scene, Act::Send(b"ff\r\nabc".to_vec()));
    acts.push(Act::Close);
    acts
}

pub(crate) fn ends(scene: &Scene<'_>) -> Vec<Act> {
    at_last(scene, Act::Send(LAST.to_vec()))
}

pub(crate) fn trailers(scene: &Scene<'_>) -> Vec<Act> {
    let mut acts = scene.honest();
    acts.pop();
    acts.push(Act::Send(b"0\r\nx-trailer: y\r\n\r\n".to_vec()));
    acts
}

/// Each in a chunk of its own.
pub(crate) fn bytewise(scene: &Scene<'_>) -> Vec<Act> {
    let chunks: Vec<u8> = scene.wire.body().chunks(1).flat_map(chunk).collect();
    vec![Act::Send(scene.wire.good_head()), Act::Send(chunks), Act::Send(LAST.to_vec())]
}

pub(crate) fn pauses(scene: &Scene<'_>) -> Vec<Act> {
    let pause = || Act::Wait(scene.pace.slow());
    scene.honest().into_iter().flat_map(|act| [act, pause()]).collect()
}

pub(crate) fn raw(scene: &Scene<'_>, bytes: &[u8]) -> Vec<Act> {
    within(scene, &scene.wire.raw(bytes))
}

fn message(scene: &Scene<'_>, body: &Value) -> Vec<Act> {
    within(scene, &scene.wire.message(body))
}

pub(crate) fn wrong_type(scene: &Scene<'_>) -> Vec<Act> {
    message(scene, &scene.wire.text_of(0, &json!(7)))
}

/// A text with `@`, and something else in its place.
fn in_text(scene: &Scene<'_>, instead: &str) -> Vec<Act> {
    let text = scene.wire.text_of(0, &json!("@")).to_string();
    raw(scene, text.replace('@', instead).as_bytes())
}

pub(crate) fn control(scene: &Scene<'_>) -> Vec<Act> {
    in_text(scene, "\u{1}")
}

pub(crate) fn surrogate(scene: &Scene<'_>) -> Vec<Act> {
    in_text(scene, "\\ud800")
}

pub(crate) fn nested(scene: &Scene<'_>) -> Vec<Act> {
    raw(scene, "[".repeat(10_000).as_bytes())
}

pub(crate) fn stranger(scene: &Scene<'_>) -> Vec<Act> {
    within(scene, &scene.wire.text(7, "b"))
}

pub(crate) fn far_stranger(scene: &Scene<'_>) -> Vec<Act> {
    let text = scene.wire.text_of(0, &json!("b")).to_string();
    raw(scene, text.replace("\"index\":0", "\"index\":4294967296").as_bytes())
}

pub(crate) fn given_up(scene: &Scene<'_>) -> Vec<Act> {
    let word = match scene.wire.shape {
        Shape::Generate => "OTHER",
        Shape::Cohere => "ERROR",
        Shape::Converse => "malformed_model_output",
        _ => "error",
    };
    within(scene, &scene.wire.ended(word))
}

pub(crate) fn filtered(scene: &Scene<'_>) -> Vec<Act> {
    let word = match scene.wire.shape {
        Shape::Generate => "SAFETY",
        Shape::Cohere => "ERROR_TOXIC",
        Shape::Converse => "content_filtered",
        _ => "content_filter",
    };
    within(scene, &scene.wire.ended(word))
}

pub(crate) fn error(scene: &Scene<'_>) -> Vec<Act> {
    let error = match scene.wire.shape {
        Shape::Generate => json!({"error": {"code": 503, "status": "UNAVAILABLE"}}),
        Shape::Generic | Shape::Cohere => json!({"code": "503", "message": "no"}),
        Shape::Tgi => json!({"error": "no", "error_type": "generation"}),
        _ => json!({"error": {"message": "no", "code": 503}}),
    };
    message(scene, &error)
}

pub(crate) fn error_event(scene: &Scene<'_>) -> Vec<Act> {
    within(scene, b"event: error\ndata: {\"message\": \"no\"}\n\n")
}

pub(crate) fn huge_line(scene: &Scene<'_>) -> Vec<Act> {
    raw(scene, &[b'x'; 300 * 1024])
}

pub(crate) fn huge_event(scene: &Scene<'_>) -> Vec<Act> {
    let line = format!("data: {}\n", "x".repeat(100 * 1024));
    within(scene, format!("{}\n", line.repeat(12)).as_bytes())
}

/// The honest lines behind others, each with another end.
pub(crate) fn lines(scene: &Scene<'_>, first: &str, end: &str) -> Vec<Act> {
    let body = String::from_utf8(scene.wire.body()).expect("text");
    let body = format!("{first}{body}").replace('\n', end);
    let head = scene.wire.good_head();
    [head, chunk(body.as_bytes()), LAST.to_vec()].map(Act::Send).to_vec()
}

pub(crate) fn comments(scene: &Scene<'_>) -> Vec<Act> {
    at_last(scene, Act::Repeat(chunk(b": keep-alive\n\n"), scene.pace.drip()))
}

pub(crate) fn flood(scene: &Scene<'_>) -> Vec<Act> {
    let comment = format!(": {}\n\n", "x".repeat(16 * 1024));
    at_last(scene, Act::Repeat(chunk(comment.as_bytes()), Duration::ZERO))
}

pub(crate) fn empty_texts(scene: &Scene<'_>) -> Vec<Act> {
    at_last(scene, Act::Repeat(chunk(&scene.wire.text(0, "")), scene.pace.drip()))
}

pub(crate) fn flood_of_nothing(scene: &Scene<'_>) -> Vec<Act> {
    let mut text = scene.wire.text_of(0, &json!(""));
    text["pad"] = json!("x".repeat(4096));
    let many = chunk(&scene.wire.message(&text));
    at_last(scene, Act::Repeat(many, Duration::ZERO))
}

pub(crate) fn flood_of_text(scene: &Scene<'_>) -> Vec<Act> {
    let text = chunk(&scene.wire.text(0, &"more ".repeat(200)));
    vec![Act::Send(scene.wire.good_head()), Act::Repeat(text, Duration::ZERO)]
}

/// An honest answer that says this.
pub(crate) fn texts(scene: &Scene<'_>, texts: &[&str]) -> Vec<Act> {
    scene.wire.answer(texts).into_iter().map(|(_, bytes)| Act::Send(bytes)).collect()
}

/// The texts of two choices, in turn.
fn two(scene: &Scene<'_>) -> Vec<Act> {
    let texts = TEXTS.iter().flat_map(|text| [0, 1].map(|choice| scene.wire.text(choice, text)));
    let texts = texts.map(|text| Act::Send(chunk(&text)));
    [Act::Send(scene.wire.good_head())].into_iter().chain(texts).collect()
}

pub(crate) fn interleaved(scene: &Scene<'_>) -> Vec<Act> {
    let wire = scene.wire;
    let end = [wire.finish(1), wire.finish(0), wire.count(9, 8), wire.done()];
    let end = end.map(|bytes| Act::Send(chunk(&bytes)));
    [two(scene), end.to_vec(), vec![Act::Send(LAST.to_vec())]].concat()
}

pub(crate) fn one_hangs(scene: &Scene<'_>) -> Vec<Act> {
    [two(scene), vec![Act::Send(chunk(&scene.wire.finish(1))), Act::Hang]].concat()
}

/// An honest answer with this behind its finish.
fn behind_finish(scene: &Scene<'_>, bytes: &[u8]) -> Vec<Act> {
    within(&Scene { phase: Phase::Tail, ..*scene }, bytes)
}

pub(crate) fn finished_twice(scene: &Scene<'_>) -> Vec<Act> {
    behind_finish(scene, &scene.wire.finish(0))
}

pub(crate) fn text_after_finish(scene: &Scene<'_>) -> Vec<Act> {
    behind_finish(scene, &scene.wire.text(0, "more"))
}

pub(crate) fn done(scene: &Scene<'_>) -> Vec<Act> {
    within(scene, &scene.wire.done())
}

pub(crate) fn done_twice(scene: &Scene<'_>) -> Vec<Act> {
    within(&Scene { phase: Phase::AfterEnd, ..*scene }, &scene.wire.done())
}

/// What is behind the finish, and nothing of what was used.
pub(crate) fn no_count(scene: &Scene<'_>) -> Vec<Act> {
    let end = [chunk(&scene.wire.done()), LAST.to_vec()].map(Act::Send);
    [scene.before(), end.to_vec()].concat()
}

pub(crate) fn count(scene: &Scene<'_>, tokens: &Value) -> Vec<Act> {
    let counted = scene.wire.counted(tokens, tokens);
    let end = [chunk(&counted), chunk(&scene.wire.done()), LAST.to_vec()].map(Act::Send);
    [scene.before(), end.to_vec()].concat()
}
