//! Recorded streams as frames of AWS's event stream.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::hostile::script::frames::{event, frame};

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
