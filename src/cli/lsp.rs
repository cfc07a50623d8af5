//! `weir lsp`

use std::ffi::OsString;
use std::path::PathBuf;

use super::{Failure, Source, block_on};
use crate::config;
use crate::lsp;

/// A language server on standard input and output, which suggests what comes next
/// (`textDocument/inlineCompletion`). Editors start it; docs/lsp.md has their settings.
///
/// Without --server it asks the engine that all editors of this user share. Where none runs it
/// starts one, with --config, --model and the other flags it was given itself; the engine ends a
/// minute after the last editor. To keep one running instead: `weir serve --share`.
#[derive(Debug, clap::Args)]
pub(super) struct LspArgs {
    /// Ask the weir that runs there, as in http://127.0.0.1:8012, and start none
    #[arg(long, value_name = "URL")]
    server: Option<hyper::Uri>,
    /// A file with the key that weir wants where it has tenants; without it, the one in WEIR_API_KEY
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// `source`: what an engine would be started with.
pub(super) fn run(args: LspArgs, source: &Source) -> Result<(), Failure> {
    let key = match &args.key_file {
        Some(path) => config::key_file(path).map(Some),
        None => config::peer_key(),
    };
    let key = key.map_err(Failure::Other)?;
    let from = match args.server {
        Some(url) => lsp::From::Server(url),
        None => lsp::From::Shared(arguments(source)),
    };
    block_on(lsp::run(from, key))?.map_err(Failure::from)
}

/// The flags that `weir serve` would have been given in the same place.
fn arguments(source: &Source) -> Vec<OsString> {
    let flags = &source.flags;
    let texts = [
        ("--model", flags.model.clone()),
        ("--quant", flags.quant.clone()),
        ("--kv", flags.kv.clone()),
        ("--isa", flags.isa.clone()),
        ("--threads", flags.threads.map(|number| number.to_string())),
        ("--context", flags.context.map(|number| number.to_string())),
        ("--slots", flags.slots.map(|number| number.to_string())),
        ("--speculate", flags.speculate.clone()),
    ];
    let file = source.file.iter().flat_map(|file| ["--config".into(), file.clone().into()]);
    let given = texts.into_iter().filter_map(|(name, value)| Some((name, value?)));
    file.chain(given.flat_map(|(name, value)| [name.into(), value.into()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    #[test]
    fn an_engine_gets_the_flags_that_were_given() {
        let flags = Overrides { model: Some("m".into()), slots: Some(2), ..Overrides::default() };
        let source = Source { file: Some("a b.toml".into()), flags };
        let expected = ["--config", "a b.toml", "--model", "m", "--slots", "2"];
        assert_eq!(arguments(&source), expected);
        let nothing = Source { file: None, flags: Overrides::default() };
        assert!(arguments(&nothing).is_empty());
    }
}
