//! SIGHUP under load: another configuration, all of it or nothing, and nothing is lost on the way.

mod changes;

use std::collections::HashSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cloud::{Cloud, Step, status};
use crate::support::http::{self, Reply, send};
use crate::support::load::exchange;
use crate::support::process::Process;
use crate::support::scale;
use crate::support::weir::{PATIENCE, clients};

/// Half of them invalid.
const RELOADS: usize = 100;
const CLIENTS: usize = 6;
const BOSS: &str = "boss-key-0123456789abcdef00";
const POOR: &str = "poor-key-0123456789abcdef00";
const WORKER: [&str; 2] = ["worker-key-0123456789abcdef", "worker-key-fedcba9876543210"];

/// What goes wrong in a file, in turn.
const WRONG: [fn(String) -> String; 4] = [
    |toml| toml + "[[cloud]]\nname = \"near\"\n",
    |toml| toml.replace("overflow.enter = 0.001", "overflow.enter = -1.0"),
    |toml| toml + "no such = = toml",
    |toml| toml + "[[tenant]]\nname = \"nobody\"\nkey_file = \"/no/such/file\"\n",
];

struct Clouds {
    near: Cloud,
    held: Cloud,
    /// Out of quota, which pauses a row for ten minutes.
    broken: Cloud,
    ledger: TempDir,
}

impl Clouds {
    async fn start() -> Self {
        let quota = r#"{"error":{"message":"no","code":"insufficient_quota"}}"#;
        let texts = ["a", "b", "c", "d"];
        Self {
            near: Cloud::healthy(&texts, Duration::from_millis(1)).await,
            held: Cloud::healthy(&texts, Duration::ZERO).await,
            broken: Cloud::always(vec![Step::Send(status(429, &[], quota))]).await,
            ledger: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    /// A valid file: rows change places, the worker's key changes, `cap` is what `poor` may spend,
    /// and with each one a tenant comes whose number was nobody's.
    fn toml(&self, version: usize, cap: &str) -> String {
        let cloud = |name: &str, cloud: &Cloud, usd: f64| {
            let (url, price) = (cloud.base_url(), "input_usd_per_mtok = 0.0, output_usd_per_mtok");
            format!(
                "[[cloud]]\nname = \"{name}\"\nbase_url = \"{url}\"\nmodel = \"m\"\n\
                 price = {{ {price} = {usd} }}\n"
            )
        };
        let mut rows = [
            cloud("broken", &self.broken, 0.25),
            cloud("held", &self.held, 0.5),
            cloud("near", &self.near, 1.0),
        ];
        let mut tenants = [
            tenant("boss", BOSS, "admin = true"),
            tenant("poor", POOR, &format!("budget_usd_day = {cap}")),
            tenant("worker", WORKER[version % 2], ""),
            tenant(&format!("new{version}"), &newcomer(version), ""),
        ];
        rows.rotate_left(version % 3);
        tenants.rotate_left(version % 4);
        format!(
            "model.slots = 2\noverflow.enter = 0.001\noverflow.leave = 0.001\n\
             overflow.unknown_path = \"allow\"\n\
             ledger.path = {:?}\n{}{}\
             [[path]]\npattern = \"only\"\npolicy = \"cloud-only\"\n",
            self.ledger.path().join("ledger.db"),
            rows.concat(),
            tenants.concat(),
        )
    }
}

fn newcomer(version: usize) -> String {
    format!("newcomer-key-{version:016}")
}

fn tenant(name: &str, key: &str, more: &str) -> String {
    let digest = digest(&SHA256, key.as_bytes());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[[tenant]]\nname = \"{name}\"\nkey_sha256 = \"{hex}\"\n{more}\n")
}

/// A weir and what is asked of it.
struct Scene {
    weir: Process,
    applied: usize,
    refused: usize,
}

impl Scene {
    async fn ask(&self, key: &str, method: &str, path: &str, body: &Value) -> Reply {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        send(self.weir.address, method, path, &[("x-api-key", key)], body.as_bytes()).await
    }

    /// A request that must not run here.
    async fn away(&self, key: &str) -> Reply {
        let body = json!({"prompt": "let a = ", "suffix": ";", "path": "only/a", "max_tokens": 4});
        self.ask(key, "POST", "/v1/completions", &body).await
    }

    /// Tokens of the prompt that were cached for whoever has this key.
    async fn cached(&self, key: &str) -> u64 {
        let body = json!({"prompt": "fn main() { let x = 1; ".repeat(20), "max_tokens": 1});
        let stays = [("x-api-key", key), ("x-weir-overflow", "never")];
        let to = self.weir.address;
        let reply = send(to, "POST", "/v1/completions", &stays, body.to_string().as_bytes()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a count")
    }

    /// By name: the cloud's state.
    async fn states(&self) -> Vec<(String, String)> {
        let reply = self.ask(BOSS, "GET", "/v1/clouds", &Value::Null).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let json = reply.json();
        let data = json["data"].as_array().expect("a list").iter();
        let mut states: Vec<_> =
            data.map(|cloud| (text(&cloud["cloud"]), text(&cloud["state"]))).collect();
        states.sort();
        states
    }

    async fn count(&self, outcome: &str) -> usize {
        let reply = self.ask(BOSS, "GET", "/metrics", &Value::Null).await;
        let name = format!("weir_config_reloads_total{{outcome=\"{outcome}\"}} ");
        let line = reply.text().lines().find_map(|line| line.strip_prefix(&name)?.parse().ok());
        line.unwrap_or_else(|| panic!("no {name} in {}", reply.text()))
    }

    /// Gives weir another file and waits until it has made up its mind.
    async fn reload(&mut self, toml: &str, valid: bool) {
        self.weir.reload(toml);
        match valid {
            true => self.applied += 1,
            false => self.refused += 1,
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let told = (self.count("applied").await, self.count("refused").await);
            if told == (self.applied, self.refused) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{told:?}\n{}", self.weir.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Asks without a pause until it is told to stop; each answer must be whole.
async fn load(to: std::net::SocketAddr, stop: Arc<AtomicBool>, counts: Arc<[AtomicUsize; 2]>) {
    let body = json!({"prompt": "fn main() {", "max_tokens": 24, "stream": true}).to_string();
    let headers = [("x-api-key", BOSS), ("connection", "close")];
    let request = http::request("POST", "/v1/completions", &headers, body.as_bytes());
    while !stop.load(Ordering::SeqCst) {
        let answer = exchange(to, &request, |_, _| {}).await.expect("an answer");
        assert!(answer.is_complete(), "{answer:?}");
        let away = usize::from(answer.route() != "local");
        assert!(away == 0 || answer.route() == "cloud:near", "{answer:?}");
        counts[away].fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_hundred_reloads_under_load_drop_nothing_and_forget_nothing() {
    let clients = clients();
    let clouds = clients.block_on(Clouds::start());
    // Two answers of four tokens, and not a third.
    let cap = "0.00001";
    let weir = Process::serve(&clouds.toml(0, cap));
    let mut scene = Scene { weir, applied: 0, refused: 0 };
    clients.block_on(async {
        before(&scene, &clouds).await;
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let spawn = |_| tokio::spawn(load(scene.weir.address, stop.clone(), Arc::clone(&counts)));
        let clients: Vec<_> = (0..CLIENTS).map(spawn).collect();
        let reloads = scale::count(RELOADS).max(WRONG.len() * 2);
        for round in 1..=reloads / 2 {
            let wrong = WRONG[round % WRONG.len()];
            scene.reload(&wrong(clouds.toml(round, cap)), false).await;
            holds(&scene, &clouds, round - 1).await;
            scene.reload(&clouds.toml(round, cap), true).await;
            let cached = scene.cached(&newcomer(round)).await;
            assert_eq!(cached, 0, "{round}: its number was nobody's, and nothing is cached for it");
            holds(&scene, &clouds, round).await;
        }
        stop.store(true, Ordering::SeqCst);
        for client in clients {
            client.await.expect("every answer was whole");
        }
        let [here, away] = [0, 1].map(|place: usize| counts[place].load(Ordering::SeqCst));
        let told = format!("{here} answers here, {away} in a cloud, {reloads} reloads");
        scale::measured("reload", &told);
        assert!(here > 0 && away > 0, "{told}");
        after(&mut scene, &clouds).await;
    });
    let log = scene.weir.log();
    assert!(log.contains("[overflow] enter: must be above 0"), "{log}");
    assert!(!log.contains("panic"), "{log}");
    is_in_order(&scene, &clouds);
}

/// One cloud is held, one is out of quota, `poor` has spent what it may, the worker's prompt is
/// cached.
async fn before(scene: &Scene, clouds: &Clouds) {
    let held = scene.ask(BOSS, "POST", "/v1/clouds/held/pause", &Value::Null).await;
    assert_eq!((held.status, &held.json()["state"]), (200, &json!("cloud_held")));
    let first = scene.away(BOSS).await;
    assert_eq!((first.status, first.header("x-weir-route")), (200, Some("cloud:near")));
    assert_eq!((clouds.broken.seen().len(), clouds.held.seen().len()), (1, 0));
    spend(scene, 2).await;
    let cold = scene.cached(WORKER[0]).await;
    assert_eq!(cold, 0);
    holds(scene, clouds, 0).await;
}

/// `poor` has room for exactly so many requests.
async fn spend(scene: &Scene, times: usize) {
    let mut answered = 0;
    loop {
        let reply = scene.away(POOR).await;
        match (reply.status, reply.header("x-weir-reason")) {
            (200, _) => answered += 1,
            (_, Some("budget_spent")) => break,
            // A moment later it will be.
            (_, Some("budget_granting")) => tokio::time::sleep(Duration::from_millis(5)).await,
            other => panic!("{other:?} {}", reply.text()),
        }
    }
    assert_eq!(answered, times);
}

/// Everything is as it was, and as the file of this version says.
async fn holds(scene: &Scene, clouds: &Clouds, version: usize) {
    let states = scene.states().await;
    let state = |name: &str| &*states.iter().find(|(cloud, _)| cloud == name).expect("a row").1;
    assert_eq!((state("held"), state("broken")), ("cloud_held", "cloud_paused"), "{version}");
    assert_eq!((clouds.broken.seen().len(), clouds.held.seen().len()), (1, 0));
    let spent = scene.away(POOR).await;
    assert_eq!((spent.status, spent.header("x-weir-reason")), (503, Some("budget_spent")));
    let [new, old] = [WORKER[version % 2], WORKER[(version + 1) % 2]];
    assert!(scene.cached(new).await > 0, "{version}: its own number");
    let turned_away = async |key: &str| {
        let reply = scene.ask(key, "GET", "/v1/models", &Value::Null).await;
        reply.status == 401
    };
    assert!(turned_away(old).await, "{version}: the old key");
    if let Some(gone) = version.checked_sub(1) {
        assert!(turned_away(&newcomer(gone)).await, "{version}: a tenant who is gone");
    }
}

/// A higher cap holds at once and a lower one too; what was held can be let go.
async fn after(scene: &mut Scene, clouds: &Clouds) {
    let version = scene.applied + 1;
    scene.reload(&clouds.toml(version, "0.000014"), true).await;
    spend(scene, 1).await;
    scene.reload(&clouds.toml(version, "0.00001"), true).await;
    spend(scene, 0).await;
    let free = scene.ask(BOSS, "POST", "/v1/clouds/held/resume", &Value::Null).await;
    assert_eq!((free.status, &free.json()["state"]), (200, &json!("ok")));
    let cheaper = scene.away(BOSS).await;
    assert_eq!((cheaper.status, cheaper.header("x-weir-route")), (200, Some("cloud:held")));
    let starts = clouds.toml(version, "1.0").replace("model.slots = 2", "model.slots = 3");
    scene.reload(&format!("serve.grace_ms = 1\n{starts}"), true).await;
    let log = scene.weir.log();
    for kept in ["[serve] grace_ms: has changed and stays", "[model]: has changed and stays"] {
        assert!(log.contains(kept), "{kept} is not in {log}");
    }
}

/// The ledger verifies, and tells which of the configurations let each request out.
fn is_in_order(scene: &Scene, clouds: &Clouds) {
    let ledger = clouds.ledger.path().join("ledger.db");
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        let command = command.args(["ledger", "--file"]).arg(&ledger).args(more);
        let done = command.output().expect("it starts");
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).expect("text")
    };
    run(&["verify"]);
    let csv = run(&["--csv"]);
    let mut lines = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let head = lines.next().expect("a head");
    let column = head.iter().position(|name| *name == "config").expect("a column");
    let configs: HashSet<&str> = lines.map(|line| line[column]).collect();
    assert!(configs.len() > 2 && configs.len() <= scene.applied + 1, "{configs:?}");
}
