//! The client's side of a cell: its row, its request, and what it hears.

use std::sync::Arc;

use futures_util::StreamExt;
use tokio::time::Instant;
use weir::completion::{
    Backend, ChatMessage, CompletionRequest, CompletionStream, Event, FimInput, FinishReason, Input,
};
use weir::config::services::aws::{AwsBase, AwsKeys};
use weir::config::{CloudConfig, CloudService, Config, Overrides, Secret};

use super::Scene;
use super::outcome::Said;
use super::table::{Ask, Phase};
use super::wires::Wire;

/// The row of a wire, which leads nowhere yet.
pub(crate) fn load(wire: &Wire) -> CloudConfig {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let (key, file) = (folder.path().join("key"), folder.path().join("weir.toml"));
    std::fs::write(&key, wire.key()).expect("written");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("ours");
    let url = format!("http://127.0.0.1:9{}", wire.base_path);
    let toml = wire.toml(&url, &key.display().to_string());
    std::fs::write(&file, &toml).expect("written");
    let loaded = Config::load(Some(&file), Overrides::default());
    let (config, _) = loaded.unwrap_or_else(|said| panic!("{said:?}\n{toml}"));
    let mut row = config.clouds.into_iter().next().expect("a row");
    if let CloudService::Aws(aws) = &mut row.service {
        // Where its keys come from is read from the environment, which belongs to all tests.
        let keys = AwsKeys { id: "AKIA".into(), secret: Secret::new("secret"), token: None };
        let credentials = &mut Arc::make_mut(aws).credentials;
        credentials.as_mut().expect("it signs").base = AwsBase::Keys(keys);
    }
    row
}

/// What is asked in a cell.
pub(crate) fn request(scene: &Scene<'_>, ask: Ask) -> Arc<CompletionRequest> {
    let much = matches!(ask, Ask::Much | Ask::Slowly) && scene.phase == Phase::Sending;
    let before = if much { "x".repeat(256 * 1024) } else { "fn main() {".to_owned() };
    let input = match scene.wire.chats {
        true => Input::Chat(vec![ChatMessage { role: "user".into(), content: before }]),
        false => Input::Fim(FimInput { prefix: before, suffix: "}".into(), ..FimInput::default() }),
    };
    let mut request = CompletionRequest::greedy("req-1", input, 64);
    match ask {
        Ask::Two => request.n = 2,
        Ask::Stop => request.stop.strings = vec!["STOP".into()],
        Ask::Deadline => request.deadline = Some(Instant::now() + scene.pace.first / 2),
        Ask::Plain | Ask::Much | Ask::Slowly => {}
    }
    Arc::new(request)
}

/// What a backend makes of one request.
pub(crate) async fn ask(backend: &impl Backend, request: Arc<CompletionRequest>) -> Said {
    let began = Instant::now();
    let n = request.n;
    let mut said = match backend.complete(request).await {
        Err(refusal) => Said::refused(n, &refusal),
        Ok(stream) => read(stream, n).await,
    };
    said.took = began.elapsed();
    said
}

/// Everything that a stream of so many choices says.
pub(crate) async fn read(mut stream: CompletionStream, n: u32) -> Said {
    let mut said = Said::of(n);
    while let Some(event) = stream.events.next().await {
        said.events += 1;
        match event {
            Event::Chunk(chunk) => said.text(chunk.choice, chunk.as_str()),
            Event::Finished { choice, reason } => {
                said.finished(choice, reason == FinishReason::ContentFilter);
            }
            Event::Usage(usage) => said.used(usage.prompt_tokens, usage.completion_tokens),
            Event::Failed(refusal) => said.failed(refusal.reason.code()),
            Event::Prompt { .. } => panic!("no cloud echoes"),
        }
    }
    said
}
