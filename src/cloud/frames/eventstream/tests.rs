use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue};
use proptest::prelude::*;

use super::*;

/// Made by botocore, see tests/oracles/aws.py.
const FRAMES: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wires/aws/frames.json"));

#[derive(Deserialize)]
struct Case {
    bytes: String,
    events: Vec<(String, String, bool)>,
    broken: bool,
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

fn parse(
    mut parser: Parser,
    parts: &mut dyn Iterator<Item = &[u8]>,
) -> (Vec<Message>, Option<Malformed>) {
    let mut out = VecDeque::new();
    let mut pushed = Ok(());
    for part in parts {
        pushed = pushed.and_then(|()| parser.push(part, &mut out));
    }
    (out.into(), pushed.err())
}

fn frame(headers: &[(&'static str, &'static str)], payload: &[u8]) -> Vec<u8> {
    let mut message = Frame::new(Bytes::copy_from_slice(payload));
    for (name, value) in headers {
        message = message.add_header(Header::new(*name, HeaderValue::String((*value).into())));
    }
    let mut bytes = Vec::new();
    write_message_to(&message, &mut bytes).unwrap();
    bytes
}

fn event(name: &'static str, payload: &[u8]) -> Vec<u8> {
    frame(&[(":message-type", "event"), (":event-type", name)], payload)
}

/// A prelude with a checksum that fits, whatever it says.
fn prelude(length: u32, headers: u32) -> Vec<u8> {
    let mut bytes = [length.to_be_bytes(), headers.to_be_bytes()].concat();
    bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
    bytes
}

#[test]
fn it_reads_what_botocore_reads_however_the_bytes_come() {
    let cases: Vec<Case> = serde_json::from_str(FRAMES).unwrap();
    assert!(cases.iter().any(|case| case.broken) && cases.iter().any(|case| !case.broken));
    for case in cases {
        let bytes = unhex(&case.bytes);
        let expected: Vec<Message> = case
            .events
            .into_iter()
            .map(|(event, data, failure)| Message { event, data, failure })
            .collect();
        for size in [1, 2, 7, 12, 13, 64, bytes.len()] {
            let (read, error) = parse(Parser::events(), &mut bytes.chunks(size));
            assert_eq!(read, expected, "in parts of {size}");
            assert_eq!(error.is_some(), case.broken, "in parts of {size}");
        }
    }
}

#[test]
fn a_bad_prelude_ends_it_before_anything_behind_it_is_kept() {
    let long = u32::try_from(FRAME_MAX).unwrap() + 1;
    let heads = u32::try_from(HEADERS_MAX).unwrap() + 1;
    let mut damaged = prelude(100, 10);
    damaged[11] ^= 1;
    let cases = [
        (prelude(long, 10), TOO_LONG),
        (prelude(u32::MAX, u32::MAX), TOO_LONG),
        (prelude(heads + 16, heads), HEADERS),
        (prelude(15, 0), LENGTH),
        (prelude(0, 0), LENGTH),
        (prelude(20, 5), LENGTH),
        (damaged, CHECKSUM),
    ];
    for (bytes, expected) in cases {
        let mut parser = Parser::events();
        let mut out = VecDeque::new();
        let more = [bytes, vec![0; 4096]].concat();
        assert_eq!(parser.push(&more, &mut out), Err(expected));
        assert_eq!(parser.buffer.len(), PRELUDE);
    }
}

#[test]
fn the_longest_frame_is_read_and_no_longer_one() {
    let room = FRAME_MAX - event("x", b"").len();
    let (read, error) =
        parse(Parser::events(), &mut event("x", &vec![b'a'; room]).chunks(8 * 1024));
    assert_eq!((read.len(), error), (1, None));
    let (read, error) =
        parse(Parser::events(), &mut event("x", &vec![b'a'; room + 1]).chunks(8 * 1024));
    assert_eq!((read.len(), error), (0, Some(TOO_LONG)));
}

#[test]
fn a_frame_says_what_it_is() {
    let nameless: [&[(&'static str, &'static str)]; 5] = [
        &[],
        &[(":message-type", "news")],
        &[(":message-type", "event")],
        &[(":message-type", "exception"), (":event-type", "x")],
        &[(":message-type", "error")],
    ];
    for headers in nameless {
        let bytes = frame(headers, b"{}");
        assert_eq!(parse(Parser::events(), &mut bytes.chunks(9)).1, Some(KIND), "{headers:?}");
    }
    let bytes = event("x", b"\xff");
    assert_eq!(parse(Parser::events(), &mut bytes.chunks(9)).1, Some(UTF8));
    let bytes = frame(&[(":message-type", "exception"), (":exception-type", "Gone")], b"\xff");
    let gone = Message { event: "Gone".into(), data: String::new(), failure: true };
    assert_eq!(parse(Parser::events(), &mut bytes.chunks(9)), (vec![gone], None));
}

#[test]
fn a_wrapped_payload_is_what_the_model_wrote() {
    let good = event("chunk", br#"{"bytes":"eyJhIjoiw6kifQ==","p":"abc"}"#);
    let other = event("news", b"not looked at");
    let bytes = [other, good].concat();
    let (read, error) = parse(Parser::wrapped(), &mut bytes.chunks(5));
    let expected = Message { data: r#"{"a":"é"}"#.into(), ..Message::default() };
    assert_eq!((read, error), (vec![expected], None));
    for (bad, expected) in [
        (r#"{"bytes":"!"}"#, CHUNK),
        (r#"{"p":"abc"}"#, CHUNK),
        ("", CHUNK),
        (r#"{"bytes":"/w=="}"#, UTF8),
    ] {
        let bytes = event("chunk", bad.as_bytes());
        assert_eq!(parse(Parser::wrapped(), &mut bytes.chunks(5)).1, Some(expected), "{bad}");
    }
}

proptest! {
    /// A container's lines are cut into parts anywhere, within a character too, and the parts'
    /// frames are cut anew by the connection.
    #[test]
    fn parts_need_not_be_lines(
        texts in prop::collection::vec("[ -~é漢🦀]{0,12}", 1..8),
        part in 1usize..40,
        size in 1usize..60,
    ) {
        let lines: String = texts.iter().map(|text| format!("data: {text}\n\n")).collect();
        let frames: Vec<u8> =
            lines.as_bytes().chunks(part).flat_map(|part| event("PayloadPart", part)).collect();
        let (read, error) = parse(Parser::parts(), &mut frames.chunks(size));
        prop_assert_eq!(error, None);
        let read: Vec<String> = read.into_iter().map(|message| message.data).collect();
        // A field's value begins after one space.
        prop_assert_eq!(read, texts);
    }
}
