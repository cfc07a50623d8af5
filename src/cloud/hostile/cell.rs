//! One cell: an exchange with a hostile upstream, and everything that has to hold for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::script::outcome::{Said, check, limit};
use super::script::table::{Ask, Phase};
use super::script::upstream::{Act, Conduct, End, serve};
use super::script::wires::{WIRES, Wire};
use super::script::{Pace, Scene, TEXTS};
use crate::cloud::egress::Egress;
use crate::cloud::egress::memory::{Listener, Network};
use crate::cloud::{Provider, reached_by};
use crate::completion::{
    Backend, ChatMessage, CompletionRequest, Event, FimInput, FinishReason, Input,
};
use crate::config::services::aws::{AwsBase, AwsKeys};
use crate::config::{CloudConfig, CloudService, Config, Overrides, Secret};
use crate::policy::peer::Instance;

/// Those of a row that says nothing else, but for the first text.
pub(super) const PACE: Pace = Pace {
    connect: Duration::from_secs(2),
    first: Duration::from_secs(10),
    idle: Duration::from_secs(15),
};

/// One exchange is in flight at a time; a permit that is not given back shows in the next.
const IN_FLIGHT: usize = 1;
/// Longer than the rest of an answer is read beside the client's end.
const SETTLED: Duration = Duration::from_millis(600);
const AUTHORITY: &str = "127.0.0.1:9000";

/// A row for each wire.
pub(super) struct Rows {
    rows: HashMap<&'static str, CloudConfig>,
    /// Nobody has a certificate of it.
    authority: Arc<[Vec<u8>]>,
}

impl Rows {
    pub(super) fn load() -> Self {
        let authority = rcgen::generate_simple_self_signed(Vec::new()).expect("a certificate");
        Self {
            rows: WIRES.iter().filter(|wire| wire.is_built()).map(|w| (w.name, load(w))).collect(),
            authority: [authority.cert.der().to_vec()].into(),
        }
    }

    fn of(&self, scene: &Scene<'_>) -> CloudConfig {
        let mut row = self.rows[scene.wire.name].clone();
        row.base_url = scene.url(AUTHORITY).parse().expect("a URL");
        row.max_in_flight = IN_FLIGHT;
        row.connection.roots = Some(self.authority.clone());
        let Pace { connect, first, idle } = scene.pace;
        (row.connect_timeout, row.first_token_timeout, row.idle_timeout) = (connect, first, idle);
        row
    }
}

fn load(wire: &Wire) -> CloudConfig {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let (key, file) = (folder.path().join("key"), folder.path().join("weir.toml"));
    std::fs::write(&key, wire.key()).expect("written");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("ours");
    let url = format!("http://{AUTHORITY}{}", wire.base_path);
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

fn request(scene: &Scene<'_>, ask: Ask) -> Arc<CompletionRequest> {
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

/// What a provider makes of one request.
async fn ask(provider: &Provider, request: Arc<CompletionRequest>) -> Said {
    let began = Instant::now();
    let mut said = Said { texts: vec![String::new(); request.n as usize], ..Said::default() };
    match provider.complete(request).await {
        Err(refusal) => said.refused(refusal.reason.code(), refusal.retry_after),
        Ok(mut stream) => {
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
        }
    }
    said.took = began.elapsed();
    said
}

async fn listen(mut listener: Listener, conduct: Conduct) {
    let (asked, mut connections) = (AtomicUsize::new(0), JoinSet::new());
    let shared = Arc::new((asked, conduct));
    while let Some((mut stream, reset)) = listener.accept_to_end().await {
        let shared = shared.clone();
        connections.spawn(async move {
            if serve(&mut stream, &shared.1, &shared.0).await == End::Reset {
                reset.set();
            }
        });
    }
}

/// What went wrong with a cell.
pub(super) fn run(scene: &Scene<'_>, rows: &Rows) -> Result<(), String> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().expect("a runtime").block_on(async {
        let hours = Duration::from_secs(3600);
        let outcome = tokio::time::timeout(hours, meets(scene, rows)).await;
        outcome.unwrap_or_else(|_| Err("it never ends".into()))
    })
}

async fn meets(scene: &Scene<'_>, rows: &Rows) -> Result<(), String> {
    let network = if scene.phase == Phase::Tls { Network::with_tls() } else { Network::default() };
    let row = rows.of(scene);
    let url = row.base_url.to_string();
    let upstream = |listener| tokio::spawn(listen(listener, scene.conduct())).abort_handle();
    let listening: AbortHandle = upstream(network.listen(&url));
    let egress = Egress::builder_in_memory(network.clone());
    let provider =
        reached_by(&[row], egress, &Instance::random()).expect("a client").pop().expect("a row");
    // Credentials come from behind, and a peer proves itself.
    sleep(Duration::from_millis(50)).await;
    if scene.phase == Phase::Connect {
        listening.abort();
        match scene.acts()[0] {
            Act::Hang => network.silence(&url),
            _ => drop(network.listen(&url)),
        }
    }
    let said = ask(&provider, request(scene, scene.row.ask)).await;
    check(scene, &said)?;
    if said.took > limit(scene) + Duration::from_millis(10) {
        return Err(format!("it took {:?}", said.took));
    }
    sleep(SETTLED).await;
    if provider.in_flight.available_permits() != IN_FLIGHT {
        return Err("the permit was not given back".into());
    }
    if scene.phase == Phase::Tls {
        return Ok(());
    }
    if scene.phase == Phase::Connect {
        upstream(network.listen(&url));
        // The first requests after that are not struck.
        let said = ask(&provider, request(scene, Ask::Plain)).await;
        return if said.codes.is_empty() { Err("connected to nobody".into()) } else { Ok(()) };
    }
    let next = ask(&provider, request(scene, Ask::Plain)).await;
    match next.texts[0] == TEXTS.concat() && next.codes.is_empty() {
        true => Ok(()),
        false => Err(format!("and the next: {next:?}")),
    }
}
