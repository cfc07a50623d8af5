//! One choice of a cloud's answer: its text is cleaned, cut at stop strings and given out.

use std::collections::VecDeque;
use std::sync::Arc;

use models::text::{Progress, StopStrings, TextAssembler};
use smallvec::SmallVec;

use super::clean::Cleaner;
use crate::completion::{Chunk, Event, FimInput, FinishReason, TokenLogprob};

type Text = SmallVec<[u8; 40]>;

pub(super) struct Choice {
    index: u32,
    /// Stop strings are matched here too, by the rules of the engine, whatever a cloud made of
    /// them.
    assembler: TextAssembler,
    cleaner: Option<Cleaner>,
    /// Tokens whose text is not given out yet, each with the byte its text begins at.
    tokens: VecDeque<(usize, TokenLogprob)>,
    /// Bytes of text that arrived with tokens, and that were given out.
    arrived: usize,
    released: usize,
    finished: bool,
}

impl Choice {
    pub(super) fn new(index: u32, stops: &Arc<StopStrings>, emulated: Option<&FimInput>) -> Self {
        Self {
            index,
            assembler: TextAssembler::new(stops.clone()),
            cleaner: emulated.map(|fim| Cleaner::new(&fim.prefix, &fim.suffix)),
            tokens: VecDeque::new(),
            arrived: 0,
            released: 0,
            finished: false,
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Takes the next text. Nothing comes of it after the choice ended.
    pub(super) fn push(
        &mut self,
        text: &str,
        tokens: Vec<TokenLogprob>,
        out: &mut VecDeque<Event>,
    ) {
        if self.finished {
            return;
        }
        for token in tokens {
            let begins = self.arrived;
            self.arrived += token.bytes.len();
            self.tokens.push_back((begins, token));
        }
        let mut cleaned = String::new();
        let ended = match &mut self.cleaner {
            Some(cleaner) => cleaner.push(text, &mut cleaned),
            None => {
                cleaned.push_str(text);
                false
            }
        };
        let mut free = Text::new();
        let met = self.assembler.push(cleaned.as_bytes(), &mut free) == Progress::Stopped;
        self.give(free, out);
        if met {
            self.end(FinishReason::Stop, out);
        } else if ended {
            self.finish(FinishReason::Stop, out);
        }
    }

    /// The cloud ended the choice.
    pub(super) fn finish(&mut self, reason: FinishReason, out: &mut VecDeque<Event>) {
        if self.finished {
            return;
        }
        let met = self.flush(out);
        if !met {
            // Tokens without text of their own (the end of text) still count.
            self.released = usize::MAX;
            self.give(Text::new(), out);
        }
        self.end(if met { FinishReason::Stop } else { reason }, out);
    }

    /// Gives out all text that was held back; true when a stop string was in it.
    fn flush(&mut self, out: &mut VecDeque<Event>) -> bool {
        if self.finished {
            return false;
        }
        let mut cleaned = String::new();
        if let Some(cleaner) = &mut self.cleaner {
            cleaner.finish(&mut cleaned);
        }
        let mut free = Text::new();
        let met = self.assembler.push(cleaned.as_bytes(), &mut free) == Progress::Stopped;
        self.assembler.finish(&mut free);
        self.give(free, out);
        met
    }

    fn end(&mut self, reason: FinishReason, out: &mut VecDeque<Event>) {
        self.finished = true;
        self.tokens.clear();
        out.push_back(Event::Finished { choice: self.index, reason });
    }

    fn give(&mut self, text: Text, out: &mut VecDeque<Event>) {
        self.released = self.released.saturating_add(text.len());
        let whole = self.tokens.iter().take_while(|(begins, _)| *begins < self.released).count();
        let tokens: Vec<TokenLogprob> = self.tokens.drain(..whole).map(|(_, t)| t).collect();
        if text.is_empty() && tokens.is_empty() {
            return;
        }
        out.push_back(Event::Chunk(Chunk { choice: self.index, text, tokens }));
    }
}
