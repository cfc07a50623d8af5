//! Secrets on their way through a cloud and back: what it sees, and what the client gets.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use weir::ledger::audit::{self, Filter};

use crate::support::cloud::{Cloud, Seen, Step, chunk, chunked_head, data, done, usage};
use crate::support::http::{Reply, send};
use crate::support::weir::{PATIENCE, Weir, clients, comes_true};

/// A key of a tenant that may redact, and one of a tenant that may not.
const STARTUP: &str = "startup-key-0123456789abcdef";
const HOME: &str = "home-key-0123456789abcdef00";

fn github() -> String {
    ["ghp", "_0123456789abcdefghijABCDEFGHIJ012345"].concat()
}

fn private_key() -> String {
    let lines = ["-----BEGIN EC ", "PRIVATE KEY-----\nMHcCAQEEIOdr\nAwEHoUQDQgAE\n-----END EC "];
    lines.concat() + "PRIVATE KEY-----"
}

/// A choice's parts, and how it ends.
type Choice = (Vec<String>, &'static str);

/// What a cloud says on `/completions`, one part of each choice after another.
fn say(choices: Vec<Choice>) -> Vec<Step> {
    let part = |index: usize, text: &str, reason: Option<&str>| {
        chunk(&data(&json!({"choices": [
            {"index": index, "text": text, "finish_reason": reason}
        ]})))
    };
    let mut body = chunked_head();
    let longest = choices.iter().map(|(parts, _)| parts.len()).max().unwrap_or_default();
    for at in 0..longest {
        for (index, (parts, _)) in choices.iter().enumerate() {
            body.extend(parts.get(at).iter().flat_map(|text| part(index, text, None)));
        }
    }
    for (index, (_, reason)) in choices.iter().enumerate() {
        body.extend(part(index, "", Some(reason)));
    }
    body.extend([chunk(&usage(7, 5)), chunk(&done()), chunk(b"")].concat());
    vec![Step::Send(body)]
}

/// A text in parts of so many characters.
fn parts(text: &str, step: usize) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    letters.chunks(step).map(|part| part.iter().collect()).collect()
}

fn prompt(seen: &Seen) -> &str {
    seen.body["prompt"].as_str().expect("a prompt")
}

/// The first placeholder in what a cloud saw.
fn placeholder(seen: &Seen) -> String {
    let text = prompt(seen);
    let at = text.find("WEIR_SECRET_").expect("a placeholder");
    text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

/// A weir whose requests all leave for `cloud`.
fn weir(cloud: &Cloud, ledger: &TempDir) -> Weir {
    let startup = "813fa75a2995cc627735e25c3be4251fd09d5cfc2eac62a90ae1fa85fe11c67e";
    let home = "c32af2cb927f1fc89d3bc0743630f70594bc5e3727d8d12e0139a798d9a2af07";
    Weir::start(&format!(
        "overflow.on_secret = \"redact\"\nledger.path = \"{}\"\n\
         [[cloud]]\nname = \"c\"\nbase_url = \"{}\"\nmodel = \"m\"\nfim = \"suffix\"\n\
         price = {{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 4.0 }}\n\
         [[path]]\npattern = \"only\"\npolicy = \"cloud-only\"\n\
         [[tenant]]\nname = \"startup\"\nkey_sha256 = \"{startup}\"\n\
         [[tenant]]\nname = \"home\"\nkey_sha256 = \"{home}\"\non_secret = \"stay\"\n",
        ledger.path().join("ledger.db").display(),
        cloud.base_url(),
    ))
}

async fn ask(weir: &Weir, key: &str, more: Value) -> Reply {
    let mut body = json!({"prompt": "", "suffix": ";", "path": "only/a.rs", "code_stops": false, "max_tokens": 64});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("one").clone());
    let headers = [("x-api-key", key)];
    send(weir.address, "POST", "/v1/completions", &headers, body.to_string().as_bytes()).await
}

/// Text and end of each choice, whether it came whole or in events.
fn choices(reply: &Reply, n: usize) -> Vec<(String, String)> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let whole = |body: &Value, all: &mut Vec<(String, String)>| {
        for choice in body["choices"].as_array().expect("choices") {
            let index = choice["index"].as_u64().expect("an index") as usize;
            all[index].0 += choice["text"].as_str().unwrap_or_default();
            all[index].1 += choice["finish_reason"].as_str().unwrap_or_default();
        }
    };
    let mut all = vec![Default::default(); n];
    if reply.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
        let events = reply.events();
        assert_eq!(events.last(), Some(&"[DONE]"));
        for event in &events[..events.len() - 1] {
            whole(&serde_json::from_str(event).expect("JSON"), &mut all);
        }
    } else {
        whole(&reply.json(), &mut all);
    }
    all
}

#[test]
fn an_echo_comes_back_exactly_in_whatever_parts_and_the_cloud_saw_no_secret() {
    let clients = clients();
    let cloud = clients.block_on(Cloud::start(|seen| {
        let step = seen.body["seed"].as_u64().expect("a seed") as usize;
        say(vec![(parts(prompt(seen), step), "stop")])
    }));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weir = weir(&cloud, &folder);
    let said = format!("a = '{}'\nb = \"{}\"\nWe = '{0}'\n", github(), private_key());
    let steps = 1..60;
    for step in steps.clone() {
        for stream in [false, true] {
            let asked = json!({"prompt": said, "seed": step, "stream": stream});
            let reply = clients.block_on(ask(&weir, STARTUP, asked));
            assert_eq!(reply.header("x-weir-route"), Some("cloud:c"));
            assert_eq!(choices(&reply, 1), [(said.clone(), "stop".into())], "{step}");
        }
    }
    for seen in cloud.seen() {
        let sent = format!("{}{}", seen.head, seen.body);
        assert!(!sent.contains(&github()) && !sent.contains("PRIVATE KEY"), "{sent}");
        let same = prompt(&seen).matches(&placeholder(&seen)).count();
        assert_eq!(same, 2, "the same secret has the same placeholder");
    }
    let key = [("x-api-key", HOME)];
    let metrics = clients.block_on(send(weir.address, "GET", "/metrics", &key, b""));
    for rule in ["github-token", "private-key"] {
        let line = format!("weir_redacted_total{{rule=\"{rule}\"}} {}", steps.len() * 2);
        assert!(metrics.text().contains(&line), "{line} is not in {}", metrics.text());
    }
    let path = folder.path().join("ledger.db");
    let written = || {
        let mut csv = Vec::new();
        let read = audit::csv(&path, Filter::default(), &mut csv);
        let csv = String::from_utf8(csv).expect("UTF-8");
        let rule = "path only, redacted github-token+private-key";
        read.is_ok() && csv.matches(rule).count() == steps.len() * 2
    };
    assert!(clients.block_on(comes_true(PATIENCE, written)), "the ledger tells the rules");
}

#[test]
fn a_damaged_placeholder_ends_its_choice_honestly_and_no_other() {
    let clients = clients();
    let cloud = clients.block_on(Cloud::start(|seen| {
        let whole = placeholder(seen);
        let cut = &whole[..whole.len() - 4];
        let choice = |text: String, end| (parts(&text, 3), end);
        say(vec![
            choice(format!("x = {whole};"), "stop"),
            choice(format!("x = {};", whole.to_lowercase()), "stop"),
            choice(format!("y = {cut}"), "length"),
            choice(format!("z = {cut} + 1;"), "stop"),
        ])
    }));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weir = weir(&cloud, &folder);
    for stream in [false, true] {
        let asked = json!({"prompt": format!("a = '{}'", github()), "n": 4, "stream": stream});
        let reply = clients.block_on(ask(&weir, STARTUP, asked));
        let withheld = |text: &str| (text.to_owned(), "content_filter".to_owned());
        let whole = (format!("x = {};", github()), "stop".to_owned());
        let expected = [whole, withheld("x = "), withheld("y = "), withheld("z = ")];
        assert_eq!(choices(&reply, 4), expected);
    }
    let key = [("x-api-key", HOME)];
    let metrics = clients.block_on(send(weir.address, "GET", "/metrics", &key, b""));
    assert!(metrics.text().contains("weir_placeholders_damaged_total 6"), "{}", metrics.text());
}

#[test]
fn a_stop_string_in_a_secret_ends_the_answer_there() {
    let clients = clients();
    let cloud = clients.block_on(Cloud::start(|seen| {
        say(vec![(parts(&format!("k = {}; more", placeholder(seen)), 5), "stop")])
    }));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weir = weir(&cloud, &folder);
    let asked = json!({"prompt": format!("a = '{}'", private_key()), "stop": "\n"});
    let reply = clients.block_on(ask(&weir, STARTUP, asked));
    let first = private_key().lines().next().expect("a line").to_owned();
    assert_eq!(choices(&reply, 1), [(format!("k = {first}"), "stop".into())]);
}

#[test]
fn what_breaks_within_a_placeholder_breaks_before_it() {
    let clients = clients();
    let cloud = clients.block_on(Cloud::start(|seen| {
        let text = format!("k = {}", &placeholder(seen)[..20]);
        let part = json!({"choices": [{"index": 0, "text": text, "finish_reason": null}]});
        vec![
            Step::Send([chunked_head(), chunk(&data(&part))].concat()),
            Step::Wait(Duration::from_millis(50)),
            Step::Reset,
        ]
    }));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weir = weir(&cloud, &folder);
    let asked = json!({"prompt": format!("a = '{}'", github()), "stream": true});
    let reply = clients.block_on(ask(&weir, STARTUP, asked));
    assert!(reply.text().contains("k = ") && !reply.text().contains("WEIR"), "{}", reply.text());
    assert!(!reply.text().contains("finish_reason\":\"stop"), "{}", reply.text());
}

#[test]
fn what_may_not_be_redacted_does_not_leave() {
    let clients = clients();
    let cloud = clients.block_on(Cloud::healthy(&["x"], Duration::ZERO));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weir = weir(&cloud, &folder);
    let key = github();
    let quoted = format!("a = '{key}'");
    let (before, behind) = (format!("a = '{}", &key[..20]), format!("{}';", &key[20..]));
    for (tenant, asked) in [
        (HOME, json!({"prompt": quoted})),
        (STARTUP, json!({"prompt": before, "suffix": behind})),
        (STARTUP, json!({"prompt": quoted, "logprobs": 1})),
        (STARTUP, json!({"prompt": quoted, "stop": "_"})),
        (HOME, json!({"prompt": "a", "stop": key})),
    ] {
        let reply = clients.block_on(ask(&weir, tenant, asked));
        assert_eq!(reply.status, 403, "{}", reply.text());
        assert_eq!(reply.header("x-weir-reason"), Some("secret:github-token"));
    }
    assert_eq!(cloud.connections(), 0);
    let stop = json!({"prompt": "a", "stop": key});
    let leaves = clients.block_on(ask(&weir, STARTUP, stop));
    assert_eq!(leaves.header("x-weir-route"), Some("cloud:c"));
    let sent = cloud.seen().remove(0).body["stop"].to_string();
    assert!(sent.contains("WEIR_SECRET_1_") && !sent.contains(&key), "{sent}");
}
