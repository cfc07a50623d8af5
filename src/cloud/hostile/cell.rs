//! One cell: an exchange with a hostile upstream, and everything that has to hold for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use super::script::client::{ask, load, request};
use super::script::outcome::{check, limit};
use super::script::table::{Ask, Phase};
use super::script::upstream::{Act, Conduct, End, serve};
use super::script::wires::WIRES;
use super::script::{Pace, Scene, TEXTS};
use crate::cloud::egress::Egress;
use crate::cloud::egress::memory::{Listener, Network};
use crate::cloud::reached_by;
use crate::config::CloudConfig;
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
