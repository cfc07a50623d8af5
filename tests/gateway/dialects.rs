//! Clients as they ask, each in its own dialect: bodies and headers as their published sources
//! build them, and of the replies what those sources read.

mod copilot;
mod llama_cpp;
mod mistral;
mod tabby;
