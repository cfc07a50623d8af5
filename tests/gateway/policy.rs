//! Who may send what where, through the door: keys, headers, paths, and what reaches a cloud.

mod property;

use std::io::Write;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use weir::api::{Access, ROUTES};
use weir::completion::Priority;
use weir::completion::compliance::{FedRamp, KeptHere};
use weir::config::{Config, Overrides, PolicyConfig};

use crate::support::cloud::Cloud;
use crate::support::http::{Reply, get, post, send};
use crate::support::server::{Server, Setup};
use crate::support::weir::{Weir, clients};

const AGENCY: &str = "agency-key-0123456789abcdef";
const STARTUP: &str = "startup-key-0123456789abcdef";
const HOME: &str = "home-key-0123456789abcdef00";

/// Three tenants: one that requires High, one that requires nothing, one that never leaves.
fn tenants() -> String {
    let row = |name: &str, key: &str, more: &str| {
        format!("[[tenant]]\nname = \"{name}\"\nkey_sha256 = \"{}\"\n{more}\n", sha256(key))
    };
    let agency = row("agency", AGENCY, "require = { fedramp = \"high\" }\nclasses = [\"batch\"]");
    let startup = row("startup", STARTUP, "");
    let home = row("home", HOME, "overflow = \"never\"");
    agency + &startup + &home
}

/// As `sha256sum` says.
fn sha256(key: &str) -> &'static str {
    match key {
        AGENCY => "4d8a9fe266b0cf97e4a6d5d3e365cbba04e391a00648442e3b5da52098a27aad",
        STARTUP => "813fa75a2995cc627735e25c3be4251fd09d5cfc2eac62a90ae1fa85fe11c67e",
        HOME => "c32af2cb927f1fc89d3bc0743630f70594bc5e3727d8d12e0139a798d9a2af07",
        _ => unreachable!("a key of this test"),
    }
}

/// The policy of a configuration.
fn policy(toml: &str) -> PolicyConfig {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(toml.as_bytes()).expect("it can be written");
    let (config, _) = Config::load(Some(file.path()), Overrides::default()).expect("it is valid");
    config.policy
}

async fn keyed(more: &str) -> Server {
    every_door(Setup { policy: policy(&(tenants() + more)), ..Setup::default() }).await
}

/// With those open that only open where the operator says so.
async fn every_door(mut setup: Setup) -> Server {
    setup.config.copilot_token = true;
    setup.start().await
}

/// Everything a door leads to, as a client writes it.
fn targets() -> Vec<(&'static str, String, Access)> {
    let mut all = Vec::new();
    for door in ROUTES {
        let path = door
            .path
            .replace("{*id}", "counting/1")
            .replace("{name}", "counting")
            .replace("{engine}", "any");
        if door.prefixed {
            all.push((door.method, format!("/v1{path}"), door.access));
        }
        all.push((door.method, path, door.access));
    }
    all
}

#[tokio::test]
async fn without_a_key_every_door_is_shut_but_three() {
    let server = keyed("").await;
    let body = json!({"prompt": "a", "inputs": "a", "max_tokens": 1,
        "messages": [{"role": "user", "content": "a"}]});
    let body = body.to_string();
    let ask = async |method: &str, path: &str, headers: &[(&str, &str)]| {
        send(server.address, method, path, headers, body.as_bytes()).await.status
    };
    let wrong_keys: [&[(&str, &str)]; 9] = [
        &[],
        &[("authorization", "Bearer nobodys-key-0123456789")],
        &[("authorization", AGENCY)],
        &[("authorization", "Basic YWRhOmxvdmVsYWNl")],
        &[("authorization", "Bearer ")],
        &[("x-api-key", "")],
        &[("api-key", "undefined")],
        &[("x-api-key", AGENCY), ("x-api-key", AGENCY)],
        // The first that is there counts, so a wrong one is not made good by another.
        &[("authorization", "Bearer undefined"), ("x-api-key", AGENCY)],
    ];
    let open: Vec<_> =
        targets().into_iter().filter(|(.., access)| *access == Access::Open).collect();
    assert_eq!(
        open.iter().map(|(_, path, _)| path.as_str()).collect::<Vec<_>>(),
        ["/", "/health", "/ready"]
    );
    for (method, path, access) in targets() {
        for headers in wrong_keys {
            let status = ask(method, &path, headers).await;
            let expected = if access == Access::Open { 200 } else { 401 };
            assert_eq!(status, expected, "{method} {path} {headers:?}");
        }
        let right: [&[(&str, &str)]; 5] = [
            &[("authorization", &format!("Bearer {AGENCY}"))],
            &[("authorization", &format!("bearer {STARTUP}"))],
            &[("x-api-key", HOME)],
            &[("api-key", STARTUP)],
            // As an editor sends it that has no key for the one header.
            &[("api-key", ""), ("authorization", &format!("Bearer {HOME}"))],
        ];
        // None of their rows says that they run the box.
        let expected = if access == Access::Admin { 403 } else { 200 };
        for headers in right {
            let status = ask(method, &path, headers).await;
            assert_eq!(status, expected, "{method} {path} {headers:?}");
        }
    }
    for (method, path) in [
        ("GET", "/v1"),
        ("GET", "//"),
        ("GET", "/v1/"),
        ("GET", "/api"),
        ("POST", "/nope"),
        ("GET", "/health/"),
        ("DELETE", "/v1/models"),
        ("GET", "/%68ealth"),
        ("GET", "/v1/health"),
    ] {
        assert_eq!(ask(method, path, &[]).await, 401, "{method} {path} tells nothing");
    }
    let refused = get(server.address, "/v1/models").await;
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    let error = refused.error();
    assert_eq!(error["type"], "authentication_error");
    assert_eq!(error["code"], "invalid_api_key");
}

#[tokio::test]
async fn without_tenants_nobody_is_asked_for_a_key() {
    let server = every_door(Setup::default()).await;
    for (method, path, _) in targets() {
        let body = json!({"prompt": "a", "inputs": "a",
            "messages": [{"role": "user", "content": "a"}]});
        let reply = send(server.address, method, &path, &[], body.to_string().as_bytes()).await;
        assert_eq!(reply.status, 200, "{method} {path}");
    }
}

#[tokio::test]
async fn who_runs_the_box_is_whose_row_says_so() {
    const BOSS: &str = "boss-key-0123456789abcdef00";
    let digest = "83093117364bca752914677bdb708500c96a15d61eb0cd4e4584e74c1dc71335";
    let boss = format!("[[tenant]]\nname = \"boss\"\nkey_sha256 = \"{digest}\"\nadmin = true\n");
    let server = keyed(&boss).await;
    let admin = targets().into_iter().filter(|(.., access)| *access == Access::Admin);
    for (method, path, _) in admin {
        let ask = async |key: &str| {
            let headers = [("x-api-key", key)];
            send(server.address, method, &path, &headers, b"").await
        };
        assert_eq!(ask(BOSS).await.status, 200, "{method} {path}");
        let refused = ask(AGENCY).await;
        assert_eq!((refused.status, &refused.error()["code"]), (403, &json!("not_admin")));
        let unknown = path.replace("counting", "nobody");
        if unknown != path {
            let headers = [("x-api-key", BOSS)];
            let refused = send(server.address, method, &unknown, &headers, b"").await;
            assert_eq!(
                (refused.status, &refused.error()["code"]),
                (404, &json!("cloud_not_found"))
            );
        }
    }
}

#[tokio::test]
async fn where_nobody_has_a_key_the_box_is_run_from_its_own_machine() {
    let server = Server::start().await;
    let ask = async |headers: &[(&str, &str)]| {
        send(server.address, "GET", "/v1/clouds", headers, b"").await.status
    };
    assert_eq!(ask(&[]).await, 200);
    for header in ["x-forwarded-for", "forwarded", "x-real-ip", "via"] {
        assert_eq!(ask(&[(header, "192.0.2.1")]).await, 403, "{header}: a proxy brought it");
    }
}

async fn complete(server: &Server, key: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
    let key = [("x-api-key", key)];
    let headers: Vec<_> = key.iter().chain(headers).copied().collect();
    send(server.address, "POST", "/v1/completions", &headers, body.to_string().as_bytes()).await
}

#[tokio::test]
async fn what_a_tenant_and_its_headers_say_is_settled_on_arrival() {
    let server = keyed("[[path]]\npattern = \"keys\"\npolicy = \"never-cloud\"\n").await;
    let cursor = json!({"prompt": "a", "suffix": "b", "path": "src/a.rs", "max_tokens": 1});
    let last = || server.counting.last();
    complete(&server, AGENCY, &[], &cursor).await;
    assert_eq!((last().tenant, last().priority), (0, Priority::Batch), "its only class");
    assert_eq!(last().policy.require.fedramp, Some(FedRamp::High));
    assert_eq!((last().policy.away, &*last().policy.rule), (Ok(()), "tenant agency"));
    complete(&server, AGENCY, &[("x-weir-require", "fedramp=low")], &cursor).await;
    assert_eq!(last().policy.require.fedramp, Some(FedRamp::High), "a header does not loosen");
    let two = [("x-weir-require", "region=a,region=b"), ("x-weir-require", "certification=soc2")];
    complete(&server, STARTUP, &two, &cursor).await;
    assert_eq!((last().tenant, last().priority), (1, Priority::Completion));
    let require = last().policy.require.clone();
    assert_eq!(require.regions.as_ref().map(|all| all.len()), Some(2));
    assert!(require.certifications.contains("soc2"));
    complete(&server, STARTUP, &[("x-weir-overflow", "never")], &cursor).await;
    assert_eq!(last().policy.away, Err(KeptHere::Header));
    complete(&server, HOME, &[], &cursor).await;
    assert_eq!(last().policy.away, Err(KeptHere::Tenant));
    let extra = json!([{"path": "deep/keys/b.rs", "text": "b"}]);
    let with_extra = json!({"prompt": "a", "suffix": "b", "path": "a.rs", "extra_files": extra});
    complete(&server, STARTUP, &[], &with_extra).await;
    assert_eq!(last().policy.away, Err(KeptHere::Path));
    complete(&server, STARTUP, &[], &json!({"prompt": "// path: src/a.rs"})).await;
    assert_eq!(last().policy.away, Err(KeptHere::UnknownPath), "a raw prompt is of no path");
}

#[tokio::test]
async fn a_header_that_cannot_be_read_is_refused() {
    let server = keyed("").await;
    let body = json!({"prompt": "a", "max_tokens": 1});
    let long = format!("region={}", "a,region=".repeat(200));
    for (name, value) in [
        ("x-weir-require", "fedramp=top"),
        ("x-weir-require", ""),
        ("x-weir-require", "none"),
        ("x-weir-require", "fedramp=low,"),
        ("x-weir-require", &long),
        ("x-weir-overflow", "always"),
        ("x-weir-overflow", ""),
        ("x-weir-overflow", "Never"),
    ] {
        let reply = complete(&server, STARTUP, &[(name, value)], &body).await;
        assert_eq!((reply.status, &reply.error()["param"]), (400, &json!(name)), "{value:?}");
    }
}

/// A weir between a cloud that declares nothing, a moderate one and one for the agency.
fn between(clouds: [&Cloud; 3], more: &str) -> Weir {
    let row = |name: &str, cloud: &Cloud, declared: &str| {
        format!(
            "[[cloud]]\nname = \"{name}\"\nbase_url = \"{}\"\nmodel = \"m\"\nfim = \"chat\"\n\
             {declared}\n",
            cloud.base_url()
        )
    };
    let attested = |level: &str| format!("fedramp = \"{level}\"\nattested_by = \"the test\"");
    let rows = row("cheap", clouds[0], "certifications = [\"fedramp-high\"]")
        + &row("moderate", clouds[1], &attested("moderate"))
        + &row("gov", clouds[2], &attested("high"));
    Weir::start(&format!(
        "model.slots = 1\nmodel.queue_max = 2\n\
         overflow.ttft_objective_ms = 1\noverflow.enter = 0.001\noverflow.leave = 0.001\n\
         {more}{rows}{}\
         [[path]]\npattern = \"only\"\npolicy = \"cloud-only\"\n\
         [[path]]\npattern = \"keys\"\npolicy = \"never-cloud\"\n",
        tenants()
    ))
}

#[test]
fn nothing_not_even_a_connection_reaches_a_cloud_that_does_not_qualify() {
    let clients = clients();
    let pace = Duration::from_millis(1);
    let start = || clients.block_on(Cloud::healthy(&["x"], pace));
    let (cheap, moderate, gov) = (start(), start(), start());
    let weir = between([&cheap, &moderate, &gov], "");
    let ask = async |key: &str, headers: &[(&str, &str)], path: &str, extra: Value| {
        let body = json!({"prompt": "let a = ", "suffix": ";", "path": path, "max_tokens": 40,
            "extra_files": extra});
        let own = [("x-api-key", key)];
        let headers: Vec<_> = own.iter().chain(headers).copied().collect();
        let to = weir.address;
        let reply =
            send(to, "POST", "/v1/completions", &headers, body.to_string().as_bytes()).await;
        let told = |name| reply.header(name).unwrap_or("nothing").to_owned();
        (reply.status, told("x-weir-route"), told("x-weir-reason"))
    };
    let expect = |status: u16, route: &str, reason: &str| (status, route.into(), reason.into());
    let high = [("x-weir-require", "fedramp=high")];
    let never = [("x-weir-overflow", "never")];
    let none = || json!([]);
    clients.block_on(async {
        let only = ask(AGENCY, &[], "only/a.rs", none()).await;
        assert_eq!(only, expect(200, "cloud:gov", "cloud_only"));
        let by_header = ask(STARTUP, &high, "only/a.rs", none()).await;
        assert_eq!(by_header, expect(200, "cloud:gov", "cloud_only"));
        let nowhere = expect(403, "shed", "policy:nowhere");
        assert_eq!(ask(STARTUP, &never, "only/a.rs", none()).await, nowhere);
        assert_eq!(ask(HOME, &[], "only/a.rs", none()).await, nowhere);
        let keys = json!([{"path": "keys/a.pem", "text": "secret"}]);
        assert_eq!(ask(AGENCY, &[], "only/a.rs", keys).await, nowhere);
        let too_much = [("x-weir-require", "impact_level=il6")];
        let refused = ask(STARTUP, &too_much, "only/a.rs", none()).await;
        assert_eq!(refused, expect(403, "shed", "compliance:impact_level"));

        // More than the box holds: the excess leaves for the one that qualifies, or is shed.
        let flood = join_all((0..24).map(|_| ask(AGENCY, &[], "src/a.rs", none()))).await;
        let routes: Vec<&str> = flood.iter().map(|(_, route, _)| route.as_str()).collect();
        assert!(routes.contains(&"cloud:gov"), "{flood:?}");
        let allowed = ["local", "cloud:gov", "shed"];
        assert!(routes.iter().all(|route| allowed.contains(route)), "{flood:?}");
        let before = gov.connections();
        let kept = join_all((0..24).map(|_| ask(AGENCY, &[], "keys/a.rs", none()))).await;
        assert!(kept.iter().all(|(_, route, _)| route == "local" || route == "shed"), "{kept:?}");
        assert!(kept.iter().any(|(.., reason)| reason == "policy:path"), "{kept:?}");
        let home = join_all((0..24).map(|_| ask(HOME, &[], "src/a.rs", none()))).await;
        assert!(home.iter().all(|(_, route, _)| route == "local" || route == "shed"), "{home:?}");
        assert!(home.iter().any(|(.., reason)| reason == "policy:tenant"), "{home:?}");
        assert_eq!(gov.connections(), before);
    });
    assert_eq!((cheap.connections(), moderate.connections()), (0, 0));
    let open = clients.block_on(ask(STARTUP, &[], "only/a.rs", none()));
    assert_eq!(open, expect(200, "cloud:cheap", "cloud_only"), "the test has power");
    let key = [("x-api-key", HOME)];
    let metrics = clients.block_on(send(weir.address, "GET", "/metrics", &key, b""));
    let counted = metrics
        .text()
        .contains("weir_kept_from_cloud_total{cloud=\"cheap\",reason=\"compliance:fedramp\"}");
    assert!(counted, "{}", metrics.text());
}

#[test]
fn what_leaves_tells_nothing_of_the_machine() {
    let clients = clients();
    let start = || clients.block_on(Cloud::healthy(&["x"], Duration::ZERO));
    let (cheap, moderate, gov) = (start(), start(), start());
    let weir = between([&cheap, &moderate, &gov], "");
    let body = json!({
        "prompt": "let a = ", "suffix": ";", "path": "/home/ada/canary-1/weir/only/a.rs",
        "repository": "https://canary-2:canary-3@git.example/canary-4/weir.git",
        "extra_files": [{"path": "C:\\Users\\canary-5\\b.rs", "text": "fn b() {}"}],
        "user": "canary-6", "git_url": "canary-7", "max_tokens": 4,
    });
    let headers = [
        ("x-api-key", STARTUP),
        ("x-weir-session", "canary-8"),
        ("cookie", "canary-9"),
        ("x-request-id", "canary-10"),
    ];
    let to = weir.address;
    let reply = clients.block_on(send(
        to,
        "POST",
        "/v1/completions",
        &headers,
        body.to_string().as_bytes(),
    ));
    assert_eq!((reply.status, reply.header("x-weir-route")), (200, Some("cloud:cheap")));
    let seen = cheap.seen().remove(0);
    let sent = format!("{}{}", seen.head, seen.body);
    assert!(!sent.contains("canary") && !sent.contains(STARTUP), "{sent}");
    for told in ["<path>only/a.rs</path>", "<path>b.rs</path>", "<repository>weir</repository>"] {
        assert!(sent.contains(told), "{told} is not in {sent}");
    }
}

#[test]
fn tenants_never_share_what_is_cached() {
    let clients = clients();
    let weir = Weir::start(&tenants());
    let body = json!({"prompt": "fn main() { let x = 1; ".repeat(20), "max_tokens": 1}).to_string();
    let cached = |key: &str| {
        let headers = [("x-api-key", key)];
        let asking = send(weir.address, "POST", "/v1/completions", &headers, body.as_bytes());
        let reply = clients.block_on(asking).json();
        reply["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a count")
    };
    assert_eq!(cached(AGENCY), 0);
    assert!(cached(AGENCY) > 0, "its own");
    assert_eq!(cached(STARTUP), 0);
    assert_eq!(cached(HOME), 0);
    assert!(cached(STARTUP) > 0);
}

#[test]
fn without_a_tenant_a_cloud_is_used_only_when_that_was_said() {
    let clients = clients();
    let cloud = clients.block_on(Cloud::healthy(&["x"], Duration::ZERO));
    let start = |said: &str| {
        Weir::start(&format!(
            "{said}[[cloud]]\nname = \"far\"\nbase_url = \"{}\"\nmodel = \"m\"\nfim = \"chat\"\n\
             [[path]]\npattern = \"only\"\npolicy = \"cloud-only\"\n",
            cloud.base_url()
        ))
    };
    let body = json!({"prompt": "a", "suffix": "b", "path": "only/a.rs", "max_tokens": 1});
    let off = start("");
    let reply = clients.block_on(post(off.address, "/v1/completions", &body));
    assert_eq!((reply.status, reply.header("x-weir-reason")), (403, Some("policy:nowhere")));
    assert_eq!(cloud.connections(), 0);
    let on = start("overflow.anonymous_cloud = true\n");
    let reply = clients.block_on(post(on.address, "/v1/completions", &body));
    assert_eq!((reply.status, reply.header("x-weir-route")), (200, Some("cloud:far")));
}
