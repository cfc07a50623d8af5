//! Refusals, well told and badly.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::super::Scene;
use super::super::errors::{self, Kind};
use super::super::upstream::Act;
use super::super::wires::chunk;
use super::answer;

/// A status and header lines, and no body.
pub(crate) fn bare(scene: &Scene<'_>, status: &str, lines: &str) -> Vec<Act> {
    let bodiless = status.starts_with('1') || status.starts_with("204");
    let length = if bodiless { "" } else { "content-length: 0\r\n" };
    vec![Act::Send(scene.wire.head(status, &format!("{lines}{length}")))]
}

/// A refusal in the provider's own words, with these header lines more.
pub(crate) fn told(scene: &Scene<'_>, kind: Kind, lines: &str) -> Vec<Act> {
    let (status, own, body) = errors::told(scene.wire.family, kind).expect("it tells that");
    let body = body.to_string();
    let lines = format!("content-type: application/json\r\n{own}{lines}");
    let lines = format!("{lines}content-length: {}\r\n", body.len());
    let head = scene.wire.head(&format!("{status} No"), &lines);
    vec![Act::Send(head), Act::Send(body.into_bytes())]
}

/// An hour from now by its own clock.
pub(crate) fn clock(scene: &Scene<'_>) -> Vec<Act> {
    let there = SystemTime::now() + Duration::from_secs(3600);
    told(scene, Kind::Clock, &format!("date: {}\r\n", httpdate::fmt_http_date(there)))
}

/// 429, and when to come again: so many seconds from now.
pub(crate) fn retry_at(scene: &Scene<'_>, seconds: i64) -> Vec<Act> {
    let by = Duration::from_secs(seconds.unsigned_abs());
    let now = SystemTime::now();
    let at = if seconds < 0 { now - by } else { now + by };
    bare(scene, "429 No", &format!("retry-after: {}\r\n", httpdate::fmt_http_date(at)))
}

fn internal(scene: &Scene<'_>, lines: &str, body: Vec<u8>, last: Act) -> Vec<Act> {
    let lines = format!("content-type: application/json\r\n{lines}");
    vec![Act::Send(scene.wire.head("500 Internal Server Error", &lines)), Act::Send(body), last]
}

pub(crate) fn hanging(scene: &Scene<'_>) -> Vec<Act> {
    internal(scene, "content-length: 99\r\n", b"{\"err".to_vec(), Act::Hang)
}

pub(crate) fn endless(scene: &Scene<'_>) -> Vec<Act> {
    let more = Act::Repeat(chunk(&[b' '; 4096]), Duration::ZERO);
    internal(scene, "transfer-encoding: chunked\r\n", chunk(b"{"), more)
}

pub(crate) fn nested(scene: &Scene<'_>) -> Vec<Act> {
    let body = "{\"error\":".repeat(5000).into_bytes();
    internal(scene, &format!("content-length: {}\r\n", body.len()), body, Act::Send(Vec::new()))
}

pub(crate) fn with_200(scene: &Scene<'_>) -> Vec<Act> {
    answer::json(scene, &json!({"error": {"message": "no", "type": "server_error"}}))
}
