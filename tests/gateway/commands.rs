//! `weir route` and `weir cloud`, as an operator runs them beside a weir.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::runtime::Builder;

use crate::support::cloud::{Cloud, Step, status};
use crate::support::process::Process;
use crate::support::weir::clients;

/// Of somebody who runs the box, and its digest.
const BOSS: &str = "boss-key-0123456789abcdef00";
const DIGEST: &str = "83093117364bca752914677bdb708500c96a15d61eb0cd4e4584e74c1dc71335";

fn row(name: &str, cloud: &Cloud, more: &str) -> String {
    let url = cloud.base_url();
    format!("[[cloud]]\nname = \"{name}\"\nbase_url = \"{url}\"\nmodel = \"m\"\n{more}\n")
}

fn file(toml: &str) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), toml).expect("it can be written");
    file
}

/// `weir ARGUMENTS --config FILE`, with this key in the environment.
fn weir(arguments: &[&str], config: &Path, key: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    let command = command.args(arguments).arg("--config").arg(config);
    command.env("WEIR_API_KEY", key).output().expect("it starts")
}

/// What it says when it does what it is asked for.
fn says(arguments: &[&str], config: &Path, key: &str) -> String {
    let done = weir(arguments, config, key);
    assert!(done.status.success(), "{arguments:?}: {done:?}");
    String::from_utf8(done.stdout).expect("text")
}

/// What it complains of when it does not.
fn complains(arguments: &[&str], config: &Path, key: &str) -> String {
    let done = weir(arguments, config, key);
    assert!(!done.status.success(), "{arguments:?}: {done:?}");
    String::from_utf8(done.stderr).expect("text")
}

/// The cells of the line that begins with this one.
fn line<'a>(table: &'a str, first: &str) -> Vec<&'a str> {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = rows.into_iter().find(|cells| cells.first() == Some(&first));
    found.unwrap_or_else(|| panic!("no {first} in\n{table}"))
}

#[test]
fn a_route_is_explained_and_nothing_is_sent() {
    let clients = clients();
    let cloud = clients.block_on(Cloud::healthy(&["x"], Duration::ZERO));
    let price = "price = { input_usd_per_mtok = 1.0, output_usd_per_mtok = 2.0 }";
    let ledger = tempfile::tempdir().expect("a temporary folder");
    let toml = format!(
        "overflow.anonymous_cloud = true\nledger.path = {:?}\n{}{}",
        ledger.path().join("ledger.db"),
        row("near", &cloud, price),
        row("gov", &cloud, "regions = [\"basement\"]")
    );
    let running = Process::serve(&toml);
    let (config, url) = (running.config(), format!("http://{}", running.address));
    let source = file("one\ntwo\n");
    let cursor = format!("{}:2:2", source.path().display());
    let at = |more: &[&'static str]| {
        let arguments = ["route", "--url", &url, &cursor, "--max-tokens", "8"];
        says(&[&arguments, more].concat(), &config, "")
    };
    let told = at(&[]);
    assert!(told.starts_with("route  local: below_threshold\nbox    0.00 saturated"), "{told}");
    assert_eq!(line(&told, "local")[..3], ["local", "ok", "-"]);
    assert_eq!(line(&told, "near")[1..4], ["ok", "2", "-"]);
    // Eight tokens for two dollars a million, and something for the prompt.
    let cost: f64 = line(&told, "near")[4].parse().expect("dollars");
    assert!((0.000_016..0.001).contains(&cost), "{told}");
    assert_eq!(line(&told, "gov")[1..], ["ok", "1", "-", "0.00"]);
    let required = at(&["--require", "region=basement"]);
    assert_eq!(line(&required, "near")[1], "compliance:region");
    assert_eq!(line(&required, "gov")[1..3], ["ok", "1"]);
    let json: Value = serde_json::from_str(&at(&["--json"])).expect("JSON");
    assert_eq!(json["data"][0]["clouds"][0]["cloud"], "near");
    let prompt = says(&["route", "--url", &url, "--prompt", "let a = "], &config, "");
    assert_eq!(line(&prompt, "near")[1], "ok");
    let wrong = ["route", "--url", &url, "--prompt", "a", "--require", "fedramp=top"];
    assert!(complains(&wrong, &config, "").contains("400: `x-weir-require`"));
    assert!(complains(&["route", "--url", &url], &config, "").contains("required"));
    let nobody = ["route", "--url", "http://127.0.0.1:1", "--prompt", "a"];
    assert!(complains(&nobody, &config, "").contains("no weir answers at http://127.0.0.1:1/v1"));
    assert_eq!(cloud.connections(), 0);
}

#[test]
fn a_cloud_is_paused_and_used_again() {
    let clients = clients();
    let cloud = clients.block_on(Cloud::healthy(&["x"], Duration::ZERO));
    let tenants = format!(
        "[[tenant]]\nname = \"boss\"\nkey_sha256 = \"{DIGEST}\"\nadmin = true\n\
         [[tenant]]\nname = \"team\"\nkey_sha256 = \"{}\"\n",
        DIGEST.replace("83", "11")
    );
    let toml = format!("{}{}{tenants}", row("near", &cloud, ""), row("far", &cloud, ""));
    let running = Process::serve(&toml);
    let (config, url) = (running.config(), format!("http://{}", running.address));
    let state = |name: &str| {
        let list = says(&["cloud", "list", "--url", &url], &config, BOSS);
        line(&list, name)[1].to_owned()
    };
    assert_eq!((&*state("near"), &*state("far")), ("ok", "ok"));
    let hold = |word: &'static str, name: &'static str| ["cloud", word, name, "--url"];
    let paused = says(&[&hold("pause", "far")[..], &[&url]].concat(), &config, BOSS);
    assert_eq!(paused, "far cloud_held\n");
    assert_eq!((&*state("near"), &*state("far")), ("ok", "cloud_held"));
    let route = says(&["route", "--url", &url, "--prompt", "a"], &config, BOSS);
    assert_eq!(line(&route, "far")[1], "cloud_held");
    let resumed = says(&[&hold("resume", "far")[..], &[&url]].concat(), &config, BOSS);
    assert_eq!(resumed, "far ok\n");
    assert_eq!(state("far"), "ok");

    let unknown = complains(&[&hold("pause", "none")[..], &[&url]].concat(), &config, BOSS);
    assert!(unknown.contains("404: no such cloud"), "{unknown}");
    let odd = complains(&[&hold("pause", "../models")[..], &[&url]].concat(), &config, BOSS);
    assert!(odd.contains("there is no [[cloud]] ../models"), "{odd}");
    let keyless = complains(&[&hold("pause", "far")[..], &[&url]].concat(), &config, "");
    assert!(keyless.contains("401: "), "{keyless}");
    // Where the configuration listens there is nobody: the rows are shown all the same.
    let alone = weir(&["cloud", "list"], &config, BOSS);
    let (rows, note) = (String::from_utf8(alone.stdout), String::from_utf8(alone.stderr));
    assert_eq!(line(&rows.expect("text"), "near")[..2], ["near", "-"]);
    assert!(alone.status.success() && note.expect("text").contains("states are not known"));
}

#[test]
fn a_cloud_is_tried_with_one_token() {
    // The clouds answer while a command is waited for here.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let clients = runtime.expect("a thread");
    let good = clients.block_on(Cloud::healthy(&["x"], Duration::ZERO));
    let refusing = status(401, &[], r#"{"error":{"message":"no","code":"invalid_api_key"}}"#);
    let bad = clients.block_on(Cloud::always(vec![Step::Send(refusing)]));
    let price = "fim = \"chat\"\nprice = { input_usd_per_mtok = 1.0, output_usd_per_mtok = 2.0 }";
    let body = r#"{"choices":[{"index":0,"text":"x","finish_reason":"stop"}],
        "usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
    let headers = ["content-type: application/json", "x-ms-region: East US 2"];
    let there = Cloud::always(vec![Step::Send(status(200, &headers, body))]);
    let there = clients.block_on(there);
    let rows = row("good", &good, price) + &row("bad", &bad, "") + &row("there", &there, "");
    let config = file(&rows);
    let one = says(&["cloud", "test", "good"], config.path(), "");
    let cells = line(&one, "good");
    assert_eq!(cells[1..5], ["ok", "ok", "m", "chat"], "{one}");
    // Seven tokens in and one out.
    assert_eq!(cells[5], "-", "it does not say where it is");
    assert_eq!(cells[7..], ["7,", "1", "0.000009"], "{one}");
    assert!(!one.contains("bad"));
    let seen = good.seen().remove(0);
    assert_eq!((seen.path(), &seen.body["max_tokens"]), ("/v1/chat/completions", &1.into()));

    let both = weir(&["cloud", "test"], config.path(), "");
    let told = String::from_utf8(both.stdout).expect("text");
    assert!(!both.status.success());
    assert_eq!(line(&told, "good")[1], "ok");
    assert_eq!(line(&told, "there")[1..6], ["ok", "ok", "m", "suffix", "East-US-2"], "{told}");
    assert_eq!(line(&told, "bad")[1..5], ["cloud_credentials", "refused", "m", "suffix"]);
    let complaint = String::from_utf8(both.stderr).expect("text");
    assert!(complaint.contains("1 of 3 clouds failed"), "{complaint}");
    let none = complains(&["cloud", "test", "none"], config.path(), "");
    assert!(none.contains("there is no [[cloud]] none"), "{none}");
}
