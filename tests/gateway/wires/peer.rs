//! Another weir as overflow: nothing leaves before it said what it holds to, every answer says so
//! again, and a request goes no further than one weir.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use weir::cloud::{Provider, providers_of};
use weir::completion::compliance::{FedRamp, Requires};
use weir::completion::{Backend, CompletionRequest, Event, Input};
use weir::config::{Config, Overrides};
use weir::policy::peer::Instance;

use crate::support::cloud::{Cloud, Seen, Step, done, finish, status, text, usage};
use crate::support::http::{get, send};
use crate::support::server::Server;
use crate::support::weir::{PATIENCE, Weir, clients, comes_true};

const JSON: &str = "content-type: application/json";

fn said(instance: &str, work_ahead_ms: f64) -> Value {
    json!({
        "instance": instance,
        "acknowledges": ["x-weir-require", "x-weir-overflow", "x-weir-hops"],
        "ready": true,
        "work_ahead_ms": work_ahead_ms,
        "prefill_tokens_per_second": 1000.0,
    })
}

/// A stream that acknowledges this, or nothing.
fn answer(acknowledged: Option<&str>) -> Vec<Step> {
    let acknowledged =
        acknowledged.map(|text| format!("x-weir-acknowledged: {text}\r\n")).unwrap_or_default();
    let head = format!("HTTP/1.1 200 OK\r\n{acknowledged}content-type: text/event-stream\r\n\r\n");
    let parts = [head.into_bytes(), text("x"), finish("stop"), usage(7, 1), done()];
    vec![Step::Send(parts.concat()), Step::Close]
}

fn is_status(seen: &Seen) -> bool {
    seen.head.starts_with("GET /v1/peer ")
}

/// A peer with this status that answers so.
async fn peer(status_body: Value, answering: Vec<Step>) -> Cloud {
    Cloud::start(move |seen| match is_status(seen) {
        true => vec![Step::Send(status(200, &[JSON], &status_body.to_string()))],
        false => answering.clone(),
    })
    .await
}

fn provider(cloud: &Cloud, own: &Instance) -> Provider {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("weir.toml");
    let toml = format!(
        "[[cloud]]\nname = \"box\"\nprovider = \"weir\"\nbase_url = \"{}\"\nmodel = \"default\"\n",
        cloud.base_url()
    );
    std::fs::write(&file, toml).expect("it is written");
    let (config, _) = Config::load(Some(&file), Overrides::default()).expect("it is valid");
    providers_of(&config.clouds, own).expect("a client").pop().expect("a row")
}

fn request() -> CompletionRequest {
    let mut request = CompletionRequest::greedy("req-1", Input::Text("let a = ".into()), 8);
    let regions = ["us-gov-west-1".into(), "us-gov-east-1".into()].into();
    request.policy.require = Arc::new(Requires {
        fedramp: Some(FedRamp::High),
        regions: Some(regions),
        ..Requires::default()
    });
    request
}

const REQUIRED: &str = "fedramp=high, region=us-gov-east-1, region=us-gov-west-1";

/// The text, or why there is none.
async fn complete(provider: &Provider) -> Result<String, String> {
    let stream = provider.complete(Arc::new(request())).await;
    let mut events = stream.map_err(|refusal| refusal.reason.code())?.events;
    let mut text = String::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Chunk(chunk) => text += chunk.as_str(),
            Event::Failed(refusal) => return Err(refusal.reason.code()),
            _ => {}
        }
    }
    Ok(text)
}

async fn is_proven(provider: &Provider) -> bool {
    comes_true(Duration::from_secs(2), || provider.quote(&request()).is_ok()).await
}

/// What reached it that holds text.
fn prompts(cloud: &Cloud) -> usize {
    cloud.seen().iter().filter(|seen| !is_status(seen)).count()
}

#[tokio::test]
async fn a_peer_is_told_what_is_required_and_says_so() {
    let acknowledged = format!("overflow=never, {REQUIRED}");
    let cloud = peer(said("other", 40.0), answer(Some(&acknowledged))).await;
    let own = Instance::random();
    let provider = provider(&cloud, &own);
    assert!(is_proven(&provider).await);
    assert_eq!(complete(&provider).await, Ok("x".into()));
    let seen = cloud.seen().into_iter().find(|seen| !is_status(seen)).expect("a prompt");
    assert_eq!(seen.header("x-weir-require"), Some(REQUIRED));
    assert_eq!(seen.header("x-weir-overflow"), Some("never"));
    assert_eq!(seen.header("x-weir-hops"), Some(own.as_str()));
    let reported = provider.reported().expect("it said so just now");
    assert_eq!(reported.work_ahead, Duration::from_millis(40));
    assert_eq!(reported.ttft(100) - reported.round_trip, Duration::from_millis(140));
}

#[tokio::test]
async fn who_is_no_peer_gets_nothing() {
    let silent = json!({"status": "ok"});
    let older = json!({
        "instance": "other", "acknowledges": ["x-weir-require"], "ready": true,
        "work_ahead_ms": 0.0, "prefill_tokens_per_second": 0.0,
    });
    for body in [silent, older] {
        let cloud = peer(body, answer(None)).await;
        let provider = provider(&cloud, &Instance::random());
        let asked = comes_true(Duration::from_secs(2), || !cloud.seen().is_empty()).await;
        assert!(asked, "it is asked what it holds to");
        for _ in 0..3 {
            assert_eq!(complete(&provider).await, Err("cloud_unproven".into()));
        }
        assert!(provider.reported().is_none());
        assert_eq!(prompts(&cloud), 0);
    }
    let missing = Cloud::always(vec![Step::Send(status(404, &[JSON], "{}"))]).await;
    let provider = provider(&missing, &Instance::random());
    assert!(comes_true(Duration::from_secs(2), || !missing.seen().is_empty()).await);
    assert_eq!(complete(&provider).await, Err("cloud_unproven".into()));
    assert_eq!(prompts(&missing), 0);
}

/// It said once that it would, and then did not: dropped unread, and never asked again.
#[tokio::test]
async fn an_answer_that_does_not_acknowledge_is_the_last() {
    let weaker = "overflow=never, fedramp=low";
    let forwards = format!("overflow=auto, {REQUIRED}");
    for acknowledged in [None, Some("overflow=never"), Some(weaker), Some(&*forwards)] {
        let cloud = peer(said("other", 0.0), answer(acknowledged)).await;
        let provider = provider(&cloud, &Instance::random());
        assert!(is_proven(&provider).await);
        assert_eq!(complete(&provider).await, Err("cloud_unproven".into()), "{acknowledged:?}");
        assert!(provider.quote(&request()).is_err(), "{acknowledged:?}");
        assert_eq!(complete(&provider).await, Err("cloud_unproven".into()));
        if acknowledged.is_none() {
            // What it goes on to say of itself does not bring it back.
            tokio::time::sleep(Duration::from_millis(1100)).await;
            assert!(provider.quote(&request()).is_err());
        }
        assert_eq!(prompts(&cloud), 1, "{acknowledged:?}");
    }
}

/// A refusal holds no content, and a proxy before the peer cannot acknowledge anything.
#[tokio::test]
async fn a_refusal_need_not_acknowledge() {
    let busy = vec![Step::Send(status(503, &[JSON, "retry-after: 1"], "{}"))];
    let cloud = peer(said("other", 0.0), busy).await;
    let provider = provider(&cloud, &Instance::random());
    assert!(is_proven(&provider).await);
    assert_eq!(complete(&provider).await, Err("cloud_throttled".into()));
    assert!(provider.quote(&request()).is_ok());
    assert_eq!(
        provider.limits(tokio::time::Instant::now()).requests_left,
        Some(0),
        "until its retry-after"
    );
}

#[tokio::test]
async fn a_row_that_leads_back_here_is_not_used() {
    let own = Instance::random();
    let cloud = peer(said(own.as_str(), 0.0), answer(None)).await;
    let provider = provider(&cloud, &own);
    assert!(comes_true(Duration::from_secs(2), || !cloud.seen().is_empty()).await);
    assert_eq!(complete(&provider).await, Err("cloud_unproven".into()));
    assert_eq!(prompts(&cloud), 0);
}

/// Looked at all the time it is asked once a second, and what it said is believed for two.
#[tokio::test]
async fn what_a_peer_says_of_its_load_is_fresh_or_not_there() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let cloud = Cloud::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0..2 => vec![Step::Send(status(200, &[JSON], &said("other", 40.0).to_string()))],
        _ => vec![Step::Hang],
    })
    .await;
    let provider = provider(&cloud, &Instance::random());
    assert!(comes_true(Duration::from_secs(2), || provider.reported().is_some()).await);
    let gone = comes_true(Duration::from_secs(8), || provider.reported().is_none()).await;
    assert!(gone, "what is two seconds old is no longer said");
    assert!(asked.load(Ordering::SeqCst) <= 4, "once a second at most");
    assert!(provider.quote(&request()).is_ok(), "what it holds to is believed for longer");
}

#[tokio::test]
async fn the_door_acknowledges_and_turns_away() {
    let server = Server::start().await;
    let status = get(server.address, "/v1/peer").await;
    assert_eq!(status.status, 200);
    let status = status.json();
    let own = status["instance"].as_str().expect("a name").to_owned();
    assert_eq!((own.len(), &status["work_ahead_ms"]), (32, &json!(12.5)));
    let other = "0123456789abcdef0123456789abcdef";
    let ask = async |headers: &[(&str, &str)], stream: bool| {
        let body = json!({"prompt": "a", "max_tokens": 2, "stream": stream}).to_string();
        send(server.address, "POST", "/v1/completions", headers, body.as_bytes()).await
    };
    let require = ("x-weir-require", "region=b, fedramp=high");
    for stream in [false, true] {
        let reply =
            ask(&[("x-weir-hops", other), require, ("x-weir-overflow", "never")], stream).await;
        assert_eq!(
            reply.header("x-weir-acknowledged"),
            Some("overflow=never, fedramp=high, region=b")
        );
        let reply = ask(&[("x-weir-hops", other)], stream).await;
        assert_eq!(
            reply.header("x-weir-acknowledged"),
            Some("overflow=never"),
            "hops keep it here"
        );
        assert!(server.counting.last().policy.away.is_err());
        let reply = ask(&[require], stream).await;
        assert_eq!(reply.header("x-weir-acknowledged"), None, "a client's");
    }
    let long = [other; 5].join(",");
    for (hops, code) in [(&*own, "loop"), (&*format!("{other}, {own}"), "loop"), (&*long, "hops")] {
        let reply = ask(&[("x-weir-hops", hops)], false).await;
        assert_eq!(reply.status, 400);
        assert_eq!(reply.error()["code"], code);
        assert_eq!(reply.header("x-weir-acknowledged"), None);
    }
    let malformed = ask(&[("x-weir-hops", "me")], false).await;
    assert_eq!((malformed.status, malformed.error()["param"].clone()), (400, json!("x-weir-hops")));
    let twice = ask(&[("x-weir-hops", other), ("x-weir-hops", other)], false).await;
    assert_eq!(twice.status, 400);
}

/// A row that says `weir` and leads to something else: nothing reaches it that holds text, and the
/// request stays, with the reason told.
#[test]
fn through_the_door_a_server_that_is_no_weir_gets_nothing() {
    let clients = clients();
    let other = clients.block_on(Cloud::start(|seen| match is_status(seen) {
        true => vec![Step::Send(status(404, &[JSON], "{}"))],
        false => answer(Some("overflow=never")),
    }));
    let busy = Weir::start(&format!(
        "model.slots = 1\noverflow.anonymous_cloud = true\noverflow.ttft_objective_ms = 1\n\
         overflow.enter = 0.001\noverflow.leave = 0.001\n[[cloud]]\nname = \"box\"\n\
         provider = \"weir\"\nbase_url = \"{}\"\nmodel = \"default\"\n",
        other.base_url()
    ));
    let post = async |path: &str, body: Value, headers: &[(&str, &str)]| {
        send(busy.address, "POST", path, headers, body.to_string().as_bytes()).await
    };
    let story = async {
        let is_busy = comes_true(PATIENCE, || busy.saturation().work_ahead_ms() > 20.0).await;
        assert!(is_busy, "the box is busy");
        let body = json!({"prompt": "let a = ", "max_tokens": 4});
        let why = post("/v1/route/explain", body.clone(), &[]).await.json();
        assert_eq!(why["data"][0]["clouds"][0]["verdict"], "cloud_unproven");
        let kept = post("/v1/completions", body, &[]).await;
        assert_eq!(kept.header("x-weir-route"), Some("local"));
        assert_eq!(kept.header("x-weir-reason"), Some("cloud_unproven"));
    };
    let keep_busy = async {
        let body = json!({"prompt": "fn main() {", "max_tokens": 600, "ignore_eos": true});
        loop {
            post("/v1/completions", body.clone(), &[("x-weir-overflow", "never")]).await;
        }
    };
    clients.block_on(async {
        tokio::select! {
            () = story => {}
            () = keep_busy => unreachable!("it keeps on"),
        }
    });
    assert!(other.connections() > 0, "it was asked what it holds to");
    assert_eq!(prompts(&other), 0);
}

/// Two real weirs: what one has no room for the other one does, and it stays there.
#[test]
fn one_weir_overflows_into_another() {
    let clients = clients();
    let spare = Weir::start("overflow.anonymous_cloud = true\n");
    let busy = Weir::start(&format!(
        "model.slots = 1\noverflow.anonymous_cloud = true\noverflow.ttft_objective_ms = 1\n\
         overflow.enter = 0.001\noverflow.leave = 0.001\n[[cloud]]\nname = \"spare\"\n\
         provider = \"weir\"\nbase_url = \"http://{}/v1\"\nmodel = \"default\"\nrealm = \"site\"\n",
        spare.address
    ));
    let post = async |body: Value, headers: &[(&str, &str)]| {
        let body = body.to_string();
        send(busy.address, "POST", "/v1/completions", headers, body.as_bytes()).await
    };
    let story = async {
        let is_busy = comes_true(PATIENCE, || busy.saturation().work_ahead_ms() > 20.0).await;
        assert!(is_busy, "the box is busy");
        let cursor = json!({"prompt": "fn odd(n: u32) -> bool {\n    n", "suffix": "\n}\n",
            "path": "src/odd.rs", "max_tokens": 8, "temperature": 0});
        let left = post(cursor.clone(), &[("x-weir-require", "realm=site")]).await;
        assert_eq!(left.header("x-weir-route"), Some("cloud:spare"), "{}", left.text());
        let kept = post(cursor, &[("x-weir-require", "realm=elsewhere")]).await;
        assert_eq!(kept.header("x-weir-route"), Some("local"), "{}", kept.text());
        let text = |reply: &crate::support::http::Reply| reply.json()["choices"][0]["text"].clone();
        assert_eq!(text(&left), text(&kept), "the same model, so the same text");
    };
    let keep_busy = async {
        let body = json!({"prompt": "fn main() {", "max_tokens": 600, "ignore_eos": true});
        let one = || async {
            loop {
                post(body.clone(), &[("x-weir-overflow", "never")]).await;
            }
        };
        tokio::join!(one(), one(), one());
    };
    clients.block_on(async {
        tokio::select! {
            () = story => {}
            () = keep_busy => unreachable!("it keeps on"),
        }
    });
    let served = clients.block_on(spare.metrics()).sum("weir_requests_total", "route=\"local\"");
    assert!(served >= 1.0, "the spare one did it itself");
}
