//! Frames of AWS's event stream, written from their definition.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The bytes of one part of a recorded stream.
pub(crate) fn frames(part: &Value) -> Vec<u8> {
    if let Some(text) = part["parts"].as_str() {
        // A container's own stream, cut anywhere.
        let size = part["size"].as_u64().expect("a size") as usize;
        let parts = text.as_bytes().chunks(size);
        return parts.flat_map(|part| event("PayloadPart", part)).collect();
    }
    if let Some(name) = part["exception"].as_str() {
        let headers = [(":message-type", "exception"), (":exception-type", name)];
        return frame(&headers, part["payload"].to_string().as_bytes());
    }
    if let Some(code) = part["error"].as_str() {
        let headers = [(":message-type", "error"), (":error-code", code), (":error-message", "x")];
        return frame(&headers, b"");
    }
    let payload = match part.get("bytes") {
        Some(bytes) => json!({ "bytes": STANDARD.encode(bytes.to_string()), "p": part["p"] }),
        None => part["payload"].clone(),
    };
    event(part["event"].as_str().expect("an event"), payload.to_string().as_bytes())
}

fn event(name: &str, payload: &[u8]) -> Vec<u8> {
    let kind = (":content-type", "application/json");
    frame(&[(":event-type", name), kind, (":message-type", "event")], payload)
}

/// Lengths and a checksum of them; headers, all of type 7; the payload; a checksum of all.
fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(u8::try_from(name.len()).expect("a short name"));
        block.extend_from_slice(name.as_bytes());
        block.push(7);
        block.extend(u16::try_from(value.len()).expect("a short value").to_be_bytes());
        block.extend_from_slice(value.as_bytes());
    }
    let length = |bytes: usize| u32::try_from(bytes).expect("a short frame").to_be_bytes();
    let mut whole = length(16 + block.len() + payload.len()).to_vec();
    whole.extend(length(block.len()));
    whole.extend(crc32(&whole).to_be_bytes());
    whole.extend(block);
    whole.extend_from_slice(payload);
    whole.extend(crc32(&whole).to_be_bytes());
    whole
}

/// Bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc));
    !bytes.iter().fold(!0, byte)
}

#[test]
fn the_checksum_is_the_usual_one() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}
