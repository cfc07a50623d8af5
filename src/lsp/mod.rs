//! `weir lsp`: a language server on standard input and output that suggests what comes next
//! (`textDocument/inlineCompletion` of LSP 3.18), and asks a weir for it.
//!
//! One task ([`server`]) owns the documents and answers in order; each suggestion is a task of its
//! own ([`completion`]) that ends when it is dropped, and its connection with it. Text of documents
//! appears in no log.

mod completion;
mod documents;
mod engine;
mod frame;
mod http;
mod prompt;
mod server;
mod shape;
mod stdio;
mod text;
mod workspace;

use std::ffi::OsString;

use hyper::Uri;

use self::engine::{Engine, Shared};
use self::http::{Address, Client};
use crate::config::Secret;
use crate::share::ShareError;

/// Which weir answers.
pub enum From {
    /// The one there.
    Server(Uri),
    /// The one that this user's editors share. Where there is none it is started, with these
    /// arguments of `weir serve`.
    Shared(Vec<OsString>),
}

/// Why a session did not end well.
#[derive(Debug, thiserror::Error)]
pub enum LspError {
    #[error("--server {0}")]
    Server(String),
    #[error(transparent)]
    Share(#[from] ShareError),
    #[error("the editor's messages cannot be read: {0}")]
    Lost(#[source] std::io::Error),
    #[error("the editor went without saying `shutdown`")]
    Gone,
}

/// Serves one editor until it goes.
pub async fn run(from: From, key: Option<Secret>) -> Result<(), LspError> {
    let engine = match from {
        From::Server(url) => Engine::Named(Address::of_url(&url).map_err(LspError::Server)?),
        From::Shared(arguments) => Engine::Shared(Shared::new(arguments)?),
    };
    let (inbox, outbox) = stdio::open();
    let asker = completion::Asker::new(engine, Client::new(key));
    let done = server::Server::new(asker, outbox.sender.clone()).serve(inbox).await;
    outbox.flushed().await;
    done
}
