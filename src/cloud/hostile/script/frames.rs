//! Frames of AWS's event stream, written from their definition.

/// A frame of one event.
pub(crate) fn event(name: &str, payload: &[u8]) -> Vec<u8> {
    let kind = (":content-type", "application/json");
    frame(&[(":event-type", name), kind, (":message-type", "event")], payload)
}

/// Lengths and a checksum of them; headers, all of type 7; the payload; a checksum of all.
pub(crate) fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(u8::try_from(name.len()).expect("a short name"));
        block.extend_from_slice(name.as_bytes());
        block.push(7);
        block.extend(u16::try_from(value.len()).expect("a short value").to_be_bytes());
        block.extend_from_slice(value.as_bytes());
    }
    let length = |bytes: usize| u32::try_from(bytes).expect("a short frame");
    let mut whole = prelude(length(16 + block.len() + payload.len()), length(block.len()));
    whole.extend(block);
    whole.extend_from_slice(payload);
    whole.extend(crc32(&whole).to_be_bytes());
    whole
}

/// The first twelve bytes of a frame of this length, with headers of that length.
pub(crate) fn prelude(length: u32, headers: u32) -> Vec<u8> {
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(headers.to_be_bytes());
    bytes.extend(crc32(&bytes).to_be_bytes());
    bytes
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
