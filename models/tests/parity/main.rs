//! The decoder against its oracles: HF transformers (fixtures/README.md), itself alone, and
//! files that are not what they should be.

mod blocks;
mod broken;
mod independence;
mod oracle;
mod session;
