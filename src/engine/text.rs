//! A sequence's text on its way from tokens to the client.

use std::sync::Arc;

use models::fit::FitText;
use models::text::{Progress, TextAssembler};

use super::message::SequenceRules;

/// Characters that one token completes, about: what stop strings held back may be more.
const CERTAIN_BYTES: usize = 256;

/// Bytes of tokens in, text that is certain to belong to the answer out.
pub(super) struct OutputText {
    assembler: TextAssembler,
    fit: Option<Fit>,
}

struct Fit {
    text: FitText,
    /// What is certain as far as stop strings are concerned.
    certain: Vec<u8>,
}

impl OutputText {
    pub(super) fn new(rules: &SequenceRules) -> Self {
        let fit = rules.fit.as_ref().map(|cursor| Fit {
            text: FitText::new(Arc::clone(cursor)),
            certain: Vec::with_capacity(CERTAIN_BYTES),
        });
        Self { assembler: TextAssembler::new(Arc::clone(&rules.stop_strings)), fit }
    }

    /// Whether the answer may end before its tokens do.
    pub(super) fn is_fitted(&self) -> bool {
        self.fit.is_some()
    }

    pub(super) fn push(&mut self, token: &[u8], out: &mut impl Extend<u8>) -> Progress {
        let Some(Fit { text, certain }) = &mut self.fit else {
            return self.assembler.push(token, out);
        };
        certain.clear();
        let progress = self.assembler.push(token, certain);
        if text.push(certain, out) == Progress::Stopped {
            return Progress::Stopped;
        }
        if progress == Progress::Stopped {
            text.finish(out);
        }
        progress
    }

    /// Like [`OutputText::push`] where nothing may end the text yet.
    pub(super) fn push_through(&mut self, token: &[u8], out: &mut impl Extend<u8>) -> Progress {
        assert!(self.fit.is_none(), "code ends no answer that must have so many tokens");
        self.assembler.push_through(token, out)
    }

    /// The sequence ended: what was held back, as far as it belongs to the answer.
    pub(super) fn finish(&mut self, out: &mut impl Extend<u8>) {
        let Some(Fit { text, certain }) = &mut self.fit else {
            return self.assembler.finish(out);
        };
        certain.clear();
        self.assembler.finish(certain);
        text.push(certain, out);
        text.finish(out);
    }
}
