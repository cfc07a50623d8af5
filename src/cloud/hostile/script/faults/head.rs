//! Faults in the place of a head.

use std::time::Duration;

use super::super::Scene;
use super::super::upstream::Act;

pub(crate) fn slow(scene: &Scene<'_>) -> Vec<Act> {
    [vec![Act::Wait(scene.pace.slow() * 2)], scene.honest()].concat()
}

/// The honest answer under a head with these lines more.
fn with_lines(scene: &Scene<'_>, lines: &str) -> Vec<Act> {
    let kind = scene.wire.content_type();
    let head = format!("content-type: {kind}\r\n{lines}transfer-encoding: chunked\r\n");
    let mut acts = scene.honest();
    acts[0] = Act::Send(scene.wire.head("200 OK", &head));
    acts
}

pub(crate) fn huge(scene: &Scene<'_>) -> Vec<Act> {
    with_lines(scene, &format!("x-pad: {}\r\n", "x".repeat(128 * 1024)))
}

pub(crate) fn many(scene: &Scene<'_>) -> Vec<Act> {
    let lines: String = (0..100).map(|at| format!("x-{at}: y\r\n")).collect();
    with_lines(scene, &lines)
}

pub(crate) fn nul(scene: &Scene<'_>) -> Vec<Act> {
    with_lines(scene, "x-nul: a\0b\r\n")
}

pub(crate) fn two_lengths(scene: &Scene<'_>) -> Vec<Act> {
    let lines = "content-type: application/json\r\ncontent-length: 2\r\ncontent-length: 3\r\n";
    vec![Act::Send(scene.wire.head("200 OK", lines)), Act::Send(b"{} ".to_vec())]
}

pub(crate) fn endless(_: &Scene<'_>) -> Vec<Act> {
    let lines = format!("x: {}\r\n", "y".repeat(1024));
    vec![
        Act::Send(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Act::Repeat(lines.into_bytes(), Duration::ZERO),
    ]
}

pub(crate) fn garbage(_: &Scene<'_>) -> Vec<Act> {
    vec![Act::Send(vec![0x99; 512]), Act::Hang]
}

/// As from a server that speaks no TLS.
pub(crate) fn bad_request(_: &Scene<'_>) -> Vec<Act> {
    vec![Act::Send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_vec()), Act::Close]
}

/// Its first frame, SETTINGS.
pub(crate) fn http2(_: &Scene<'_>) -> Vec<Act> {
    vec![Act::Send(vec![0, 0, 0, 4, 0, 0, 0, 0, 0]), Act::Hang]
}

pub(crate) fn flood_of_1xx(_: &Scene<'_>) -> Vec<Act> {
    let again = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
    vec![Act::Repeat(again, Duration::from_millis(1))]
}

pub(crate) fn some_1xx(scene: &Scene<'_>) -> Vec<Act> {
    let early = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";
    [vec![Act::Send(early.repeat(5).into_bytes())], scene.honest()].concat()
}

/// The body ends with the connection.
pub(crate) fn http10(scene: &Scene<'_>) -> Vec<Act> {
    let head =
        scene.wire.head("200 OK", &format!("content-type: {}\r\n", scene.wire.content_type()));
    let head = String::from_utf8(head).expect("ASCII").replacen("1.1", "1.0", 1);
    vec![Act::Send(head.into_bytes()), Act::Send(scene.wire.body()), Act::Close]
}
