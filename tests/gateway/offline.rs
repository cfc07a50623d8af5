//! Nothing but the listener: without a `[[cloud]]`, with `--offline`, and in a build without
//! clouds, weir opens no connection and no file of the resolver, whatever its environment holds.
//! It runs a whole session under a trace, and the same trace sees a weir that has a cloud.
//!
//! `WEIR_TEST_WITHOUT_CLOUDS` names a binary that was built with `--no-default-features`.

mod trace;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use weir::api::ROUTES;

use self::trace::{Seen, Traced};
use crate::support::http::{Connection, get, post, request, send};
use crate::support::load::{completion, exchange};
use crate::support::scale::{self, skip};
use crate::support::weir::drive;

const READY_MAX: Duration = Duration::from_secs(20);

/// What the system's resolver reads.
const RESOLVER: [&str; 5] =
    ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"];

#[test]
fn without_a_cloud_nothing_is_opened_but_the_listener() {
    let bait = Bait::new();
    let weir = Traced::serve(&with_clouds(), "model.slots = 4", &[], &bait.variables());
    bait.is_left_alone(&after_a_session(weir));
}

#[test]
fn offline_no_cloud_is_used() {
    let (bait, cloud) = (Bait::new(), Cloud::new());
    let weir = Traced::serve(&with_clouds(), &cloud.row(), &["--offline"], &bait.variables());
    assert!(weir.program.banner.contains("cloud    none"), "{}", weir.program.banner);
    bait.is_left_alone(&after_a_session(weir));
    assert!(!cloud.was_asked());
}

#[test]
fn a_build_without_clouds_has_no_way_out() {
    let Some(binary) = scale::variable("WEIR_TEST_WITHOUT_CLOUDS").map(PathBuf::from) else {
        skip!("a build without clouds")
    };
    let bait = Bait::new();
    let weir = Traced::serve(&binary, "model.slots = 4", &["--offline"], &bait.variables());
    bait.is_left_alone(&after_a_session(weir));

    let row = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(&row, Cloud::new().row()).expect("writable");
    let config = row.path().display().to_string();
    let refused = says(&binary, &["check", "--config", &config]);
    assert_eq!(
        refused,
        "weir: [[cloud]]: needs a weir that was built with the cargo feature `cloud`\n"
    );
    let url = ["--url", "http://127.0.0.1:1"];
    let asking: [&[&str]; 4] = [
        &["complete", "Cargo.toml:1:1"],
        &["route", "Cargo.toml:1:1"],
        &["cloud", "list"],
        &["cloud", "pause", "near"],
    ];
    for command in asking {
        let refused = says(&binary, &[command, &url].concat());
        assert!(refused.contains("built without clouds"), "{command:?}: {refused}");
    }
}

#[test]
fn the_trace_sees_a_cloud() {
    let (bait, cloud) = (Bait::new(), Cloud::new());
    let weir = Traced::serve(&with_clouds(), &cloud.row(), &[], &bait.variables());
    let load = completion(&json!({ "prompt": "fn main() {", "max_tokens": 100 }));
    let address = weir.program.address;
    let asked = drive(join_all((0..16).map(|_| exchange(address, &load, |_, _| {}))));
    weir.program.terminate();
    let seen = weir.seen();
    assert!(seen.ways_out.iter().any(|call| call == "connect"), "{asked:?} {seen:?}");
    assert!(seen.opened.iter().any(|path| RESOLVER.contains(&&**path)), "{asked:?} {seen:?}");
    assert!(seen.sockets > 1, "{asked:?} {seen:?}");
    assert!(cloud.was_asked());
    // A cloud's proxy is its row's affair: with one in the environment it was asked directly.
    bait.was_not_read(&seen);
}

fn with_clouds() -> PathBuf {
    env!("CARGO_BIN_EXE_weir").into()
}

fn after_a_session(weir: Traced) -> Seen {
    drive(session(weir.program.address));
    weir.program.terminate();
    weir.seen()
}

/// What it says when it fails.
fn says(binary: &Path, arguments: &[&str]) -> String {
    let done = Command::new(binary).args(arguments).output().expect("it starts");
    assert!(!done.status.success(), "{done:?}");
    String::from_utf8(done.stderr).expect("text")
}

/// Somewhere to go by a name that has to be resolved.
struct Cloud(TcpListener);

impl Cloud {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        Self(listener)
    }

    /// A configuration with which anything but an idle box wants to send requests there.
    fn row(&self) -> String {
        let port = self.0.local_addr().expect("bound").port();
        format!(
            "model.slots = 4\n\
             overflow.ttft_objective_ms = 1\n\
             overflow.enter = 0.001\n\
             overflow.leave = 0.001\n\
             overflow.anonymous_cloud = true\n\
             [[cloud]]\nname = \"near\"\nmodel = \"m\"\n\
             base_url = \"http://localhost:{port}/v1\"\n\
             first_token_timeout_ms = 500\n"
        )
    }

    /// The backlog accepted for us.
    fn was_asked(&self) -> bool {
        self.0.accept().is_ok()
    }
}

/// Credentials and proxies, as an environment may hold them.
struct Bait {
    files: TempDir,
    /// Every proxy there is.
    proxy: TcpListener,
}

impl Bait {
    fn new() -> Self {
        let files = tempfile::tempdir().expect("a temporary folder");
        for name in ["credentials", "config", "google.json", "token", "ca.pem", "oci"] {
            std::fs::write(files.path().join(name), "bait").expect("writable");
        }
        let proxy = TcpListener::bind("127.0.0.1:0").expect("a free port");
        proxy.set_nonblocking(true).expect("a socket");
        Self { files, proxy }
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let file = |name: &str| self.files.path().join(name).display().to_string();
        let at = format!("http://{}", self.proxy.local_addr().expect("bound"));
        let proxies = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"];
        let services = [
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT",
            "AWS_ENDPOINT_URL",
            "IDENTITY_ENDPOINT",
            "MSI_ENDPOINT",
            "OPENAI_BASE_URL",
        ];
        let words = [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_BEARER_TOKEN_BEDROCK",
            "AWS_PROFILE",
            "AWS_REGION",
            "AWS_ROLE_ARN",
            "AZURE_CLIENT_ID",
            "AZURE_CLIENT_SECRET",
            "AZURE_TENANT_ID",
            "IDENTITY_HEADER",
            "GOOGLE_CLOUD_PROJECT",
            "OCI_CLI_USER",
            "NVIDIA_API_KEY",
            "OPENAI_API_KEY",
            "OPENROUTER_API_KEY",
        ];
        let mut variables = vec![
            ("AWS_SHARED_CREDENTIALS_FILE", file("credentials")),
            ("AWS_CONFIG_FILE", file("config")),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", file("token")),
            ("AZURE_FEDERATED_TOKEN_FILE", file("token")),
            ("GOOGLE_APPLICATION_CREDENTIALS", file("google.json")),
            ("OCI_CLI_CONFIG_FILE", file("oci")),
            ("SSL_CERT_FILE", file("ca.pem")),
        ];
        variables.extend(proxies.into_iter().chain(services).map(|name| (name, at.clone())));
        variables.extend(words.map(|name| (name, "bait".to_owned())));
        variables
    }

    fn is_left_alone(&self, seen: &Seen) {
        assert_eq!(seen.ways_out, [""; 0]);
        assert_eq!(seen.sockets, 1, "the listener's");
        let resolving = seen.opened.iter().find(|path| RESOLVER.contains(&&***path));
        assert_eq!(resolving, None);
        // It read its own configuration, so the trace does see files.
        assert!(seen.opened.iter().any(|path| path.ends_with("weir.toml")), "{seen:?}");
        self.was_not_read(seen);
    }

    fn was_not_read(&self, seen: &Seen) {
        let folder = self.files.path().to_string_lossy();
        assert!(!seen.opened.iter().any(|path| path.starts_with(&*folder)), "{seen:?}");
        assert!(self.proxy.accept().is_err(), "the proxy was asked");
    }
}

/// What clients do in a day.
async fn session(to: SocketAddr) {
    assert_eq!(get(to, "/health").await.status, 200);
    ready(to).await;
    assert_eq!(get(to, "/v1/models").await.status, 200);
    let plain = json!({ "prompt": "fn main() {", "max_tokens": 8 });
    completes(to, &plain).await;
    completes(to, &json!({ "prompt": "fn add(", "suffix": "\n}\n", "max_tokens": 8 })).await;
    completes(to, &json!({ "prompt": ["a", "b"], "n": 2, "max_tokens": 4 })).await;
    let streamed = json!({ "prompt": "let x", "max_tokens": 8, "stream": true });
    let reply = post(to, "/v1/completions", &streamed).await;
    assert_eq!((reply.status, reply.events().last()), (200, Some(&"[DONE]")));
    let chat = json!({ "messages": [{ "role": "user", "content": "hello" }] });
    post(to, "/v1/chat/completions", &chat).await.error();
    post(to, "/v1/completions", &json!({ "prompt": "a", "max_tokens": "many" })).await.error();
    send(to, "POST", "/v1/completions", &[("content-type", "application/json")], b"{")
        .await
        .error();
    let page = [("origin", "http://example.com"), ("content-type", "text/plain")];
    let refused = send(to, "POST", "/v1/completions", &page, plain.to_string().as_bytes()).await;
    assert_eq!(refused.status, 403);
    assert_eq!(get(to, "/no/such/path").await.status, 404);
    through_every_door(to).await;
    leaves_half_way(to).await;
    more_than_fit(to).await;
    let metrics = get(to, "/metrics").await;
    assert!(metrics.text().contains("weir_requests_total"));
}

/// Every route by all its names, with a body that most of them understand.
async fn through_every_door(to: SocketAddr) {
    let body = json!({ "model": "weir", "prompt": "let y", "max_tokens": 4 }).to_string();
    let headers = [("content-type", "application/json")];
    for door in ROUTES {
        let path = door.path.replace("{*id}", "weir").replace("{name}", "near");
        let prefixed = door.prefixed.then(|| format!("/v1{path}"));
        for path in [Some(path), prefixed].into_iter().flatten() {
            let body = if door.method == "POST" { body.as_bytes() } else { b"" };
            let reply = send(to, door.method, &path, &headers, body).await;
            assert!(reply.status < 500, "{path}: {}", reply.text());
        }
    }
}

async fn ready(to: SocketAddr) {
    let deadline = tokio::time::Instant::now() + READY_MAX;
    while get(to, "/ready").await.status != 200 {
        assert!(tokio::time::Instant::now() < deadline, "never ready");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn completes(to: SocketAddr, body: &Value) {
    let reply = post(to, "/v1/completions", body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("x-weir-route"), Some("local"));
}

async fn leaves_half_way(to: SocketAddr) {
    let body = json!({ "prompt": "fn", "max_tokens": 500, "stream": true, "ignore_eos": true });
    let mut connection = Connection::open(to).await;
    let json = [("content-type", "application/json")];
    let bytes = request("POST", "/v1/completions", &json, body.to_string().as_bytes());
    connection.send(&bytes).await;
    assert_eq!(connection.head().await.status, 200);
    connection.chunk().await.expect("a first event");
}

/// Saturation, where another weir would send some away.
async fn more_than_fit(to: SocketAddr) {
    let body = json!({ "prompt": "struct", "max_tokens": 32, "stream": true });
    let load = completion(&body);
    for answer in join_all((0..24).map(|_| exchange(to, &load, |_, _| {}))).await {
        let answer = answer.expect("an answer");
        assert!(answer.is_complete() && answer.route() == "local", "{answer:?}");
    }
}
