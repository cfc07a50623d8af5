//! `weir complete FILE:LINE:COLUMN`

use std::sync::Arc;

use futures_util::StreamExt;

use super::cursor::Cursor;
use super::{Failure, block_on, complain, say};
use crate::app::{Local, write_cache};
use crate::cloud;
use crate::completion::{
    Backend, CodeStops, CompletionRequest, CompletionStream, Event, FimInput, Input, SamplingParams,
};
use crate::config::{self, CloudConfig, Config};
use crate::telemetry::Telemetry;

#[derive(Debug, clap::Args)]
pub(super) struct CompleteArgs {
    /// The cursor: lines and columns from 1, columns in characters
    #[arg(value_name = "FILE:LINE:COLUMN")]
    cursor: Cursor,
    /// Ask the weir that runs there, as in http://127.0.0.1:8012, instead of loading a model; where
    /// it wants a key, with the one in WEIR_API_KEY
    #[arg(long, value_name = "URL")]
    url: Option<hyper::Uri>,
    /// Most tokens to generate
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_tokens: u32,
    /// 0 always takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
}

pub(super) fn run(args: CompleteArgs, config: &Config) -> Result<(), Failure> {
    let mut request = request(&args).map_err(Failure::Other)?;
    match &args.url {
        Some(url) => {
            let mut server = CloudConfig::of_peer(url).map_err(Failure::Other)?;
            server.api_key = config::peer_key().map_err(Failure::Other)?;
            let mut providers =
                cloud::providers(&[server]).map_err(crate::app::StartError::from)?;
            let provider = providers.remove(0);
            block_on(async { print(provider.complete(Arc::new(request)).await?).await })?
        }
        None => {
            let mut local = Local::load(&config.model)?;
            if local.facts().fim.is_none() && drop_suffix(&mut request) {
                complain(
                    "this model cannot fill in the middle: the text after the cursor is ignored",
                );
            }
            let unwritten = local.take_unwritten();
            let printed = block_on(async {
                let engine = local.start(Telemetry::new());
                print(engine.complete(Arc::new(request)).await?).await
            })?;
            // Whoever asked has the answer, and the next one will have it sooner.
            if let Some(unwritten) = unwritten {
                write_cache(&unwritten);
            }
            printed
        }
    }
}

fn request(args: &CompleteArgs) -> Result<CompletionRequest, String> {
    if !(0.0..=2.0).contains(&args.temperature) {
        return Err("--temperature must be 0 to 2".into());
    }
    let (prefix, suffix) = args.cursor.split()?;
    let path = args.cursor.file.file_name().map(|name| name.to_string_lossy().into_owned());
    let input = Input::Fim(FimInput { prefix, suffix, path, ..FimInput::default() });
    // It ends where it would in an editor.
    let fit = Some(CodeStops { block: true, ..CodeStops::default() });
    Ok(CompletionRequest {
        fit,
        sampling: SamplingParams { temperature: args.temperature, ..SamplingParams::default() },
        ..CompletionRequest::greedy("cli", input, args.max_tokens)
    })
}

/// Leaves only what is before the cursor; whether there was more.
fn drop_suffix(request: &mut CompletionRequest) -> bool {
    match &mut request.input {
        Input::Fim(fim) => !std::mem::take(&mut fim.suffix).is_empty(),
        _ => false,
    }
}

async fn print(mut stream: CompletionStream) -> Result<(), Failure> {
    while let Some(event) = stream.events.next().await {
        match event {
            Event::Chunk(chunk) => say(chunk.as_str())?,
            Event::Failed(refusal) => return Err(refusal.into()),
            Event::Prompt { .. } | Event::Finished { .. } | Event::Usage(_) => {}
        }
    }
    say("\n")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_fim_only_what_is_before_the_cursor_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.py");
        std::fs::write(&file, "one\ntwo\n").unwrap();
        for (place, behind) in [("2:1", true), ("3:1", false)] {
            let cursor = format!("{}:{place}", file.display()).parse().unwrap();
            let args = CompleteArgs { cursor, url: None, max_tokens: 1, temperature: 0.0 };
            let mut request = request(&args).unwrap();
            assert_eq!(drop_suffix(&mut request), behind, "{place}");
            let Input::Fim(fim) = request.input else { unreachable!("a cursor") };
            assert!(fim.prefix.starts_with("one\n") && fim.suffix.is_empty());
        }
    }
}
