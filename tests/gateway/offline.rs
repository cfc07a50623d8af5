//! Without a `[[cloud]]`, no thread of weir ever tries to reach anything: it runs a whole session
//! under a filter that kills it on the first attempt. The same filter is tripped by a weir that
//! has a cloud and needs it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter_all_threads,
};
use serde_json::{Value, json};

use crate::support::http::{Connection, get, post, request, send};
use crate::support::load::{completion, exchange};
use crate::support::process::Process;
use crate::support::scale;
use crate::support::weir::drive;

/// Names the configuration file for [`becomes_weir_under_the_filter`].
const CONFIG: &str = "WEIR_TEST_OFFLINE_CONFIG";
const EXIT_MAX: Duration = Duration::from_secs(20);

/// Not a test by itself: the others start this one in a process of its own, where it puts the
/// filter on and becomes weir.
#[test]
fn becomes_weir_under_the_filter() {
    let Some(config) = scale::variable(CONFIG) else { return };
    apply_filter_all_threads(&no_way_out()).expect("this kernel filters system calls");
    let error =
        Command::new(env!("CARGO_BIN_EXE_weir")).arg("serve").arg("--config").arg(config).exec();
    panic!("{error}");
}

/// Everything is allowed but what opens a connection or sends to an address. io_uring would do
/// either without a call to be seen, so it is not allowed at all.
fn no_way_out() -> BpfProgram {
    let to_an_address =
        SeccompCondition::new(4, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0).expect("argument 4");
    let rules = BTreeMap::from([
        (libc::SYS_connect, Vec::new()),
        (libc::SYS_sendmsg, Vec::new()),
        (libc::SYS_sendmmsg, Vec::new()),
        (libc::SYS_io_uring_setup, Vec::new()),
        (libc::SYS_sendto, vec![SeccompRule::new(vec![to_an_address]).expect("one condition")]),
    ]);
    let machine = std::env::consts::ARCH.try_into().expect("a machine that weir runs on");
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::KillProcess, machine)
        .expect("a filter")
        .try_into()
        .expect("a program")
}

fn filtered(toml: &str) -> Process {
    Process::launch(toml, |config: &Path| {
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        command
            .args(["offline::becomes_weir_under_the_filter", "--exact", "--nocapture"])
            .env(CONFIG, config);
        command
    })
}

#[test]
fn no_cloud_no_outgoing_connection() {
    let mut weir = filtered("model.slots = 4");
    drive(session(weir.address));
    weir.terminate();
    let status = weir.ends_within(EXIT_MAX).expect("it ends");
    assert_eq!(status.code(), Some(0), "{status}\n{}", weir.log());
}

#[test]
fn the_filter_sees_a_cloud() {
    // Accepts by the backlog alone; that somebody tried is enough.
    let cloud = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/v1", cloud.local_addr().expect("bound"));
    let mut weir = filtered(&format!(
        "model.slots = 1\n\
         overflow.ttft_objective_ms = 1\n\
         overflow.enter = 0.001\n\
         overflow.leave = 0.001\n\
         overflow.anonymous_cloud = true\n\
         [[cloud]]\nname = \"near\"\nbase_url = \"{url}\"\nmodel = \"m\"\n"
    ));
    let body = json!({ "prompt": "fn main() {", "max_tokens": 100 });
    let load = completion(&body);
    let asked = drive(join_all((0..16).map(|_| exchange(weir.address, &load, |_, _| {}))));
    let status = weir.ends_within(EXIT_MAX).expect("the filter killed it");
    assert_eq!(status.signal(), Some(libc::SIGSYS), "{status} {asked:?}");
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
    leaves_half_way(to).await;
    more_than_fit(to).await;
    let metrics = get(to, "/metrics").await;
    assert!(metrics.text().contains("weir_requests_total"));
}

async fn ready(to: SocketAddr) {
    let deadline = tokio::time::Instant::now() + EXIT_MAX;
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
