//! Tokens that a client is told of with the text that they make.

use super::TokenLogprob;

/// The tokens of one choice that have not been reported: none is told of before some of its text,
/// and one that lies wholly in what is cut is never told of.
#[derive(Debug, Default)]
pub struct Reported {
    tokens: Vec<TokenLogprob>,
    /// Bytes of tokens less bytes of text sent: what is held back.
    held: usize,
}

impl Reported {
    pub fn push(&mut self, token: TokenLogprob) {
        self.tokens.push(token);
    }

    /// So many bytes of tokens came, and so many of text went out.
    pub fn took(&mut self, bytes: usize, sent: usize) {
        self.held = (self.held + bytes).saturating_sub(sent);
    }

    /// The tokens of which something was sent.
    pub fn take(&mut self) -> Vec<TokenLogprob> {
        let held = self.tokens.split_off(self.sent());
        std::mem::replace(&mut self.tokens, held)
    }

    /// All tokens, whatever is held back: nothing of it is cut.
    pub fn take_all(&mut self) -> Vec<TokenLogprob> {
        self.held = 0;
        std::mem::take(&mut self.tokens)
    }

    /// What is held back is no part of the answer.
    pub fn forget_held(&mut self) {
        self.tokens.truncate(self.sent());
        self.held = 0;
    }

    /// How many tokens do not lie wholly in what is held back.
    fn sent(&self) -> usize {
        let mut held = self.held;
        let is_held = |token: &&TokenLogprob| {
            let left = held.checked_sub(token.bytes.len()).filter(|_| held > 0);
            held = left.unwrap_or(held);
            left.is_some()
        };
        self.tokens.len() - self.tokens.iter().rev().take_while(is_held).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_wait_for_their_text_and_go_with_it() {
        let token = |text: &str| TokenLogprob {
            bytes: text.as_bytes().to_vec(),
            id: 0,
            logprob: Some(0.0),
            top: Vec::new(),
        };
        let texts = |tokens: Vec<TokenLogprob>| -> Vec<String> {
            tokens.iter().map(|token| String::from_utf8_lossy(&token.bytes).into_owned()).collect()
        };
        let mut reported = Reported::default();
        for (text, sent) in [("ab", 2), ("cd", 1), ("", 0), ("ef", 0)] {
            reported.push(token(text));
            reported.took(text.len(), sent);
        }
        assert_eq!(texts(reported.take()), ["ab", "cd"]);
        reported.took(0, 2);
        assert_eq!(texts(reported.take()), ["", "ef"]);
        reported.push(token("gh"));
        reported.took(2, 0);
        reported.forget_held();
        assert!(reported.take_all().is_empty());
    }
}
