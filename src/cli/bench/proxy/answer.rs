//! An answer as a client reads it: HTTP/1.1 in chunks, and the text of its events.

use serde_json::Value;

/// Longest answer; one of the benchmark's is a hundredth of it.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Why an answer is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Wrong {
    #[error("the answer is {0:?}")]
    Status(String),
    #[error("the answer is malformed")]
    Malformed,
    #[error("the answer is too long")]
    TooLong,
}

/// An answer being read.
#[derive(Default)]
pub(super) struct Answer {
    /// As it came, without what was understood.
    raw: Vec<u8>,
    begun: bool,
    /// What the chunks held, without the events that were understood.
    body: Vec<u8>,
    pub(super) text: String,
    /// The last chunk came.
    pub(super) over: bool,
}

impl Answer {
    /// Takes what came.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Wrong> {
        self.raw.extend_from_slice(bytes);
        if self.raw.len() + self.body.len() + self.text.len() > ANSWER_BYTES_MAX {
            return Err(Wrong::TooLong);
        }
        if !self.begun && !self.head()? {
            return Ok(());
        }
        while !self.over && self.chunk()? {}
        while let Some(end) = self.body.windows(2).position(|end| end == b"\n\n") {
            let event: Vec<u8> = self.body.drain(..end + 2).collect();
            self.event(&event)?;
        }
        Ok(())
    }

    /// Whether the head is whole; it is cut off then.
    fn head(&mut self) -> Result<bool, Wrong> {
        let Some(end) = self.raw.windows(4).position(|end| end == b"\r\n\r\n") else {
            return Ok(false);
        };
        let head = String::from_utf8_lossy(&self.raw[..end]).to_ascii_lowercase();
        let chunked = head.lines().any(|line| line == "transfer-encoding: chunked");
        if !head.starts_with("http/1.1 200 ") || !chunked {
            return Err(Wrong::Status(head.lines().next().unwrap_or_default().to_owned()));
        }
        self.raw.drain(..end + 4);
        self.begun = true;
        Ok(true)
    }

    /// Whether a chunk was whole; it is moved to the body then.
    fn chunk(&mut self) -> Result<bool, Wrong> {
        let Some(line) = self.raw.windows(2).position(|end| end == b"\r\n") else {
            return Ok(false);
        };
        let size = std::str::from_utf8(&self.raw[..line]).map_err(|_| Wrong::Malformed)?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| Wrong::Malformed)?;
        let (from, to) = (line + 2, (line + 2).saturating_add(size));
        if self.raw.len() < to.saturating_add(2) {
            return Ok(false);
        }
        self.body.extend_from_slice(&self.raw[from..to]);
        self.raw.drain(..to + 2);
        self.over = size == 0;
        Ok(true)
    }

    fn event(&mut self, event: &[u8]) -> Result<(), Wrong> {
        let event = std::str::from_utf8(event).map_err(|_| Wrong::Malformed)?;
        let Some(data) = event.trim().strip_prefix("data:").map(str::trim) else { return Ok(()) };
        if data == "[DONE]" {
            return Ok(());
        }
        let data: Value = serde_json::from_str(data).map_err(|_| Wrong::Malformed)?;
        if let Some(text) = data["choices"][0]["text"].as_str() {
            self.text += text;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        2d\r\ndata: {\"choices\":[{\"index\":0,\"text\":\"one\"}]}\n\r\n\
        18\r\n\ndata: {\"choices\":[]}\n\nda\r\nb\r\nta: [DONE]\n\n\r\n0\r\n\r\n";

    #[test]
    fn an_answer_is_read_however_it_is_cut() {
        for cut in 0..WHOLE.len() {
            let mut answer = Answer::default();
            let (before, after) = WHOLE.as_bytes().split_at(cut);
            answer.push(before).unwrap();
            assert!(!answer.over);
            answer.push(after).unwrap();
            assert!(answer.over && answer.text == "one", "cut at {cut}: {}", answer.text);
        }
    }

    #[test]
    fn what_is_no_answer_is_told() {
        let refused = Answer::default().push(b"HTTP/1.1 429 Busy\r\n\r\n");
        assert_eq!(refused, Err(Wrong::Status("http/1.1 429 busy".into())));
        let bad = WHOLE.replace("2d\r\n", "xx\r\n");
        assert_eq!(Answer::default().push(bad.as_bytes()), Err(Wrong::Malformed));
    }
}
