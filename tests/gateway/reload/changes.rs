//! What one reload changes, and what it cannot.

use std::time::Duration;

use serde_json::json;
use weir::app::ReloadError;

use super::{BOSS, tenant};
use crate::support::cloud::Cloud;
use crate::support::http::{Connection, get, request, send};
use crate::support::weir::{Weir, clients};

/// A request that must not run here.
const AWAY: &str =
    r#"{"prompt":"let a = ","suffix":";","path":"only/a","code_stops":false,"stream":true}"#;
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

fn with_cloud(cloud: &Cloud, more: &str) -> String {
    let url = cloud.base_url();
    format!(
        "overflow.anonymous_cloud = true\n\
         [[cloud]]\nname = \"near\"\nbase_url = \"{url}\"\nmodel = \"m\"\n{more}\n\
         [[path]]\npattern = \"only\"\npolicy = \"cloud-only\"\n"
    )
}

#[test]
fn what_runs_finishes_on_what_it_began_with() {
    let clients = clients();
    let words: Vec<String> = (0..20).map(|word| format!("{word} ")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let cloud = clients.block_on(Cloud::healthy(&words, Duration::from_millis(20)));
    let mut weir = Weir::start("");
    let bytes = request("POST", "/v1/completions", &JSON, AWAY.as_bytes());
    let refused = |address| {
        clients.block_on(send(address, "POST", "/v1/completions", &JSON, AWAY.as_bytes()))
    };
    assert_eq!(refused(weir.address).status, 200, "there is no rule, and it runs here");
    weir.reload(&with_cloud(&cloud, "")).expect("it is valid");
    let mut running = clients.block_on(async {
        let mut connection = Connection::open(weir.address).await;
        connection.send(&bytes).await;
        assert_eq!(connection.head().await.header("x-weir-route"), Some("cloud:near"));
        connection
    });
    // The row is gone, and so are whoever needed no key and the rule.
    weir.reload(&tenant("boss", BOSS, "")).expect("it is valid");
    assert_eq!(refused(weir.address).status, 401);
    let text = clients.block_on(async {
        let mut text = Vec::new();
        while let Some(chunk) = running.chunk().await {
            text.extend(chunk);
        }
        String::from_utf8(text).expect("text")
    });
    assert!(text.contains("\"19 \"") && text.ends_with("data: [DONE]\n\n"), "{text}");
}

#[test]
fn a_row_that_nothing_changed_keeps_its_connections() {
    let clients = clients();
    let cloud = clients.block_on(Cloud::healthy(&["x"], Duration::ZERO));
    let mut weir = Weir::start(&with_cloud(&cloud, ""));
    let mut versions = ["overflow.enter = 0.5\n", "overflow.enter = 0.7\n"].iter().cycle();
    let mut went_on = |row: &str| {
        let asked = |address| {
            let asking = send(address, "POST", "/v1/completions", &JSON, AWAY.as_bytes());
            assert_eq!(clients.block_on(asking).header("x-weir-route"), Some("cloud:near"));
            cloud.connections()
        };
        let before = asked(weir.address);
        let version = versions.next().expect("for ever");
        weir.reload(&format!("{version}{}", with_cloud(&cloud, row))).expect("it is valid");
        asked(weir.address) == before
    };
    // A machine under load may let a connection grow old meanwhile.
    assert!((0..10).any(|_| went_on("")));
    assert!((10..20).all(|key| !went_on(&format!("max_tokens = {key}"))), "the test has power");
}

#[test]
fn the_first_price_opens_a_ledger_and_it_stays() {
    let clients = clients();
    let cloud = clients.block_on(Cloud::healthy(&["x"], Duration::ZERO));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [first, second] = ["first.db", "second.db"].map(|name| folder.path().join(name));
    let mut weir = Weir::start("");
    let priced = |path| {
        let price = "price = { input_usd_per_mtok = 1.0, output_usd_per_mtok = 1.0 }";
        format!("ledger.path = {path:?}\n{}", with_cloud(&cloud, price))
    };
    let reloaded = weir.reload(&priced(&first)).expect("it is valid");
    assert_eq!(reloaded.kept, [""; 0]);
    let away = || {
        let body = AWAY.replace(",\"stream\":true", "");
        clients.block_on(send(weir.address, "POST", "/v1/completions", &JSON, body.as_bytes()))
    };
    // The first of all may come before the grant.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while away().status != 200 {
        assert!(std::time::Instant::now() < deadline, "{}", away().text());
    }
    let reloaded = weir.reload(&priced(&second)).expect("it is valid");
    assert_eq!(reloaded.kept, ["[ledger]"]);
    let reloaded = weir.reload("").expect("it is valid");
    assert_eq!(reloaded.kept, [""; 0], "nothing wants one, and it stays");
    assert!(first.exists() && !second.exists());
    let usage = clients.block_on(get(weir.address, "/v1/usage"));
    assert_eq!(usage.json()["data"][0]["cloud"], json!("near"), "{}", usage.text());
}

#[test]
fn there_is_room_for_so_many_names_and_whoever_was_there_may_stay() {
    let clients = clients();
    let row = |name: &str| tenant(name, &format!("key-of-{name}-0123456789abcdef"), "");
    let rows = |batch: usize| -> String {
        let rows = (0..1023).map(|place| row(&format!("t{batch}-{place}")));
        rows.chain([tenant("boss", BOSS, "")]).collect()
    };
    let mut weir = Weir::start(&rows(0));
    let knows = |address, key: &str| {
        let headers = [("x-api-key", key)];
        clients.block_on(send(address, "GET", "/v1/models", &headers, b"")).status == 200
    };
    for batch in 1..4 {
        weir.reload(&rows(batch)).expect("there is room");
    }
    let few = [row("t0-7"), row("a"), row("b"), row("c")].concat();
    // 4 times 1023 and the boss are 4093 names; these are three more.
    weir.reload(&few).expect("there is room");
    assert!(knows(weir.address, "key-of-t0-7-0123456789abcdef"));
    let error = weir.reload(&row("one-more")).expect_err("there is none");
    assert!(matches!(error, ReloadError::Unusable(_)), "{error:?}");
    assert!(error.to_string().starts_with("more than 4096 different tenants"), "{error}");
    assert!(knows(weir.address, "key-of-t0-7-0123456789abcdef"));
    assert!(!knows(weir.address, BOSS) && !knows(weir.address, "key-of-one-more-0123456789abcdef"));
    weir.reload(&rows(2)).expect("they were there");
    assert!(knows(weir.address, BOSS));
}
