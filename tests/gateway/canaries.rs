//! Strings that nobody else has, put wherever a client, a key or a cloud can put one, and looked
//! for wherever they must not come out: the log at its most talkative, metrics, the ledger's
//! files, error bodies, and what clouds get.

mod cloud;
mod told;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use weir::api::ROUTES;

use self::cloud::{MODES, misbehave};
use self::told::{HEADERS, cursor, odd_bodies};

use crate::support::cloud::Cloud;
use crate::support::http::{Connection, Reply, request};
use crate::support::process::Process;
use crate::support::weir::clients;

const EXIT_MAX: Duration = Duration::from_secs(20);
/// Fewest of them.
const CANARIES: usize = 64;

/// Where one may be seen beside where it was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// What a model has to read: upstream.
    Text,
    /// A cloud's own key: upstream.
    CloudKey,
    /// Nowhere.
    Private,
}

/// All that were made, each with what it is of.
#[derive(Default)]
struct Canaries(Vec<(String, String, Kind)>);

impl Canaries {
    fn put(&mut self, kind: Kind, of: &str) -> String {
        let word = format!("cnry{:03}{:012x}", self.0.len(), fastrand::u64(..1 << 48));
        self.0.push((word.clone(), of.to_owned(), kind));
        word
    }

    fn private(&mut self, of: &str) -> String {
        self.put(Kind::Private, of)
    }

    /// A key that the scanner knows.
    fn secret(&mut self, of: &str) -> String {
        let letters = std::iter::repeat_with(fastrand::alphanumeric);
        let key = format!("ghp{}{}", "_", letters.take(36).collect::<String>());
        self.0.push((key.clone(), format!("a secret in {of}"), Kind::Private));
        key
    }

    /// None of these is in `place`, but for the kinds that may be.
    fn absent(&self, place: &str, text: &[u8], allowed: &[Kind]) {
        let text = String::from_utf8_lossy(text).to_ascii_lowercase();
        for (canary, of, _) in self.0.iter().filter(|(.., kind)| !allowed.contains(kind)) {
            if let Some(at) = text.find(&canary.to_ascii_lowercase()) {
                let start = text.floor_char_boundary(at.saturating_sub(200));
                let end = text.ceil_char_boundary((at + 200).min(text.len()));
                panic!("{of} is in {place}: {}", &text[start..end]);
            }
        }
    }
}

fn secret_file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).expect("a writable folder");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our own file");
    path.display().to_string()
}

/// A row for each way to misbehave, each in a region of its own, so that a header picks it.
fn config(cloud: &Cloud, folder: &Path, key: &str, cloud_key: &str) -> String {
    let (key, cloud_key) =
        (secret_file(folder, "tenant", key), secret_file(folder, "cloud", cloud_key));
    let row = |mode: &&str| {
        format!(
            "[[cloud]]\nname = \"c{mode}\"\nbase_url = \"http://{}/{mode}/v1\"\nmodel = \"m\"\n\
             fim = \"{}\"\nregions = [\"{mode}\"]\napi_key_file = \"{cloud_key}\"\n\
             first_token_timeout_ms = 400\nidle_timeout_ms = 400\n\
             price = {{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 4.0 }}\n",
            cloud.address,
            if *mode == "ok" { "template\"\nfim_family = \"qwen" } else { "suffix" },
        )
    };
    let rows: String = MODES.iter().map(row).collect();
    format!(
        "overflow.on_secret = \"redact\"\nledger.path = \"{}\"\n{rows}\
         [[path]]\npattern = \"only\"\npolicy = \"cloud-only\"\n\
         [[tenant]]\nname = \"team\"\nkey_file = \"{key}\"\n",
        folder.join("ledger.db").display()
    )
}

async fn ask(to: &Process, bytes: &[u8]) -> Reply {
    let mut connection = Connection::open(to.address).await;
    connection.send(bytes).await;
    connection.reply().await
}

type Header = (String, String);

/// All there is to send, as bytes.
struct Outbox {
    /// With every request.
    headers: Vec<Header>,
    good: Header,
    requests: Vec<Vec<u8>>,
}

impl Outbox {
    fn add(&mut self, method: &str, path: &str, more: &[Header], body: &[u8]) {
        let all = self.headers.iter().chain(more);
        let all: Vec<(&str, &str)> = all.map(|(name, value)| (&**name, &**value)).collect();
        self.requests.push(request(method, path, &all, body));
    }

    /// With the key of a tenant.
    fn keyed(&mut self, method: &str, path: &str, body: &[u8]) {
        let good = self.good.clone();
        self.add(method, path, &[good], body);
    }

    /// Every route, with keys of nobody's and with bodies of all kinds.
    fn doors(&mut self, canaries: &mut Canaries, cursor: &[u8]) {
        let query = canaries.private("a query");
        let odd = odd_bodies(canaries);
        // What only says back what it was given would be found saying it.
        let echoes = ["/tokenize", "/detokenize", "/apply-template"];
        for door in ROUTES.iter().filter(|door| !echoes.contains(&door.path)) {
            let path = format!(
                "{}?key={query}",
                door.path.replace("{*id}", &query).replace("{name}", &query)
            );
            for name in ["x-api-key", "api-key", "authorization"] {
                let wrong = (name.to_owned(), canaries.private(name));
                self.add(door.method, &path, &[wrong], cursor);
            }
            self.keyed(door.method, &path, cursor);
            if door.method == "POST" {
                odd.iter().for_each(|body| self.keyed("POST", &path, body));
            }
        }
    }

    /// Every cloud, whole and streamed.
    fn clouds(&mut self, cursor: &Value) {
        for mode in MODES {
            let region = ("x-weir-require".to_owned(), format!("region={mode}"));
            for stream in [false, true] {
                let mut body = cursor.clone();
                body["stream"] = json!(stream);
                if mode != "ok" {
                    body.as_object_mut().expect("an object").remove("extra_files");
                }
                let more = [self.good.clone(), region.clone()];
                self.add("POST", "/v1/completions", &more, body.to_string().as_bytes());
            }
        }
    }

    /// Headers, paths and methods that weir looks at and refuses.
    fn refused(&mut self, canaries: &mut Canaries, cursor: &[u8]) {
        for name in [
            "x-weir-require",
            "x-weir-overflow",
            "x-weir-deadline-ms",
            "content-type",
            "content-encoding",
            "host",
            "origin",
            "expect",
        ] {
            let more = [self.good.clone(), (name.to_owned(), canaries.private(name))];
            self.add("POST", "/v1/completions", &more, cursor);
        }
        let named = (canaries.private("a header's name"), "x".to_owned());
        self.add("POST", "/v1/completions", &[self.good.clone(), named], cursor);
        self.keyed(&canaries.private("a method"), "/v1/models", b"");
        self.keyed("GET", &format!("/{}", canaries.private("a path that is none")), b"");
        self.keyed("GET", &format!("/usage?since={}", canaries.private("since")), b"");
        let no_http = format!("{} no HTTP\r\n\r\n", canaries.private("no HTTP"));
        self.requests.push(no_http.into_bytes());
    }
}

/// Sends all of it, and looks at each reply.
async fn drive(weir: &Process, key: &str, canaries: &mut Canaries) {
    let headers = HEADERS.iter().map(|name| ((*name).to_owned(), canaries.private(name)));
    let mut outbox = Outbox {
        headers: headers.collect(),
        good: ("x-api-key".to_owned(), key.to_owned()),
        requests: Vec::new(),
    };
    let cursor = cursor(canaries);
    let bytes = cursor.to_string().into_bytes();
    // First, while no cloud is left alone for what the others make it answer.
    outbox.clouds(&cursor);
    outbox.doors(canaries, &bytes);
    outbox.refused(canaries, &bytes);
    for bytes in outbox.requests {
        let reply = ask(weir, &bytes).await;
        // Only the well-behaved cloud's answer may say again what it was told, and the model's: what
        // repeats itself it goes on repeating.
        let may_repeat = matches!(reply.header("x-weir-route"), Some("cloud:cok" | "local"));
        if !may_repeat || reply.status != 200 {
            canaries.absent("a reply's body", &reply.body, &[]);
        }
    }
    over_http2(weir, key, canaries).await;
}

/// The same over HTTP/2, which another library reads.
async fn over_http2(weir: &Process, key: &str, canaries: &mut Canaries) {
    let client: Client<_, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    for (path, status) in [("/v1/completions", 400), ("/nothing", 404), ("/v1/models", 200)] {
        let uri = format!("http://{}{path}?q={}", weir.address, canaries.private("HTTP/2's query"));
        let method = if path == "/v1/completions" { "POST" } else { "GET" };
        let request = hyper::Request::builder()
            .method(method)
            .uri(uri)
            .header("x-api-key", key)
            .header("cookie", canaries.private("HTTP/2's cookie"))
            .header("x-note", canaries.private("HTTP/2's header"))
            .body(Full::new(Bytes::from(canaries.private("HTTP/2's body"))));
        let reply = client.request(request.expect("a request")).await.expect("a reply");
        assert_eq!(reply.status(), status, "{path}");
    }
}

#[test]
fn what_is_private_comes_out_nowhere() {
    let clients = clients();
    let mut canaries = Canaries::default();
    let key = canaries.private("a tenant's key") + "0123456789";
    let cloud_key = canaries.put(Kind::CloudKey, "a cloud's key");
    let cloud = clients.block_on(Cloud::start(misbehave));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let toml = config(&cloud, folder.path(), &key, &cloud_key);
    let mut weir = Process::launch(&toml, |path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.arg("serve").arg("--config").arg(path).env("RUST_LOG", "trace");
        command
    });
    clients.block_on(drive(&weir, &key, &mut canaries));
    assert!(canaries.0.len() >= CANARIES, "{}", canaries.0.len());

    let asking = request("GET", "/metrics", &[("x-api-key", &key)], b"");
    let metrics = clients.block_on(ask(&weir, &asking));
    assert!(metrics.text().contains("weir_redacted_total{rule=\"github-token\"}"));
    canaries.absent("metrics", &metrics.body, &[]);
    let wal = folder.path().join("ledger.db-wal");
    canaries.absent("the ledger's log", &fs::read(wal).expect("it is open"), &[]);
    weir.terminate();
    assert!(weir.ends_within(EXIT_MAX).is_some_and(|status| status.success()));
    for file in fs::read_dir(folder.path()).expect("our folder").flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        if name.starts_with("ledger") {
            let bytes = fs::read(file.path()).expect("a file");
            assert!(!name.ends_with(".db") || bytes.len() > 4096, "it was written");
            canaries.absent(&name, &bytes, &[]);
        }
    }
    let log = weir.log();
    assert!(log.contains("TRACE") && log.contains("the cloud failed"), "the log was talkative");
    canaries.absent("the log", log.as_bytes(), &[]);

    let seen = cloud.seen();
    let asked = |mode: &&str| seen.iter().any(|seen| seen.path().starts_with(&format!("/{mode}/")));
    assert!(MODES.iter().all(asked), "every cloud was asked");
    for seen in &seen {
        let sent = format!("{}{}", seen.head, seen.body);
        canaries.absent("what a cloud got", sent.as_bytes(), &[Kind::Text, Kind::CloudKey]);
    }
    let all: String = seen.iter().map(|seen| seen.body.to_string()).collect();
    for (text, of, _) in canaries.0.iter().filter(|(.., kind)| *kind == Kind::Text) {
        assert!(all.contains(text), "{of} is what a model reads");
    }
}
