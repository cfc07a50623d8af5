//! How editors connect: with which names and keys, to which ports, and for how long.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::time::sleep;
use weir::app;
use weir::config::{Config, Overrides};

use crate::support::http::{Connection, get, request, send};
use crate::support::server::{Server, Setup};

const BODY: &[u8] = br#"{"prompt":"x","max_tokens":1}"#;

async fn asked_with(server: &Server, headers: &[(&str, &str)]) -> u16 {
    send(server.address, "POST", "/v1/completions", headers, BODY).await.status
}

#[tokio::test]
async fn over_the_loopback_the_unspecified_address_is_ours() {
    let server = Server::start().await;
    for host in ["0.0.0.0", "0.0.0.0:11434", "[::]:11434"] {
        assert_eq!(asked_with(&server, &[("host", host)]).await, 200, "{host}");
        let page = ("origin", "http://evil.example");
        assert_eq!(asked_with(&server, &[("host", host), page]).await, 403, "{host}");
    }
    assert_eq!(asked_with(&server, &[("host", "0.0.0.0.evil.example")]).await, 403);
}

#[tokio::test]
async fn where_nobody_has_a_key_none_is_as_good_as_any() {
    let server = Server::start().await;
    for header in [
        ("authorization", ""),
        ("authorization", "Bearer "),
        ("authorization", "Bearer"),
        ("authorization", "Bearer undefined"),
        ("authorization", "Basic eDp5"),
        ("api-key", ""),
        ("x-api-key", "undefined"),
    ] {
        assert_eq!(asked_with(&server, &[header]).await, 200, "{header:?}");
    }
}

#[tokio::test]
async fn a_connection_is_kept_over_pauses_but_not_over_half_a_head() {
    let mut setup = Setup::default();
    setup.limits.header_read = Duration::from_millis(150);
    let server = setup.start().await;
    let mut connection = Connection::open(server.address).await;
    for _ in 0..3 {
        connection.send(&request("POST", "/v1/completions", &[], BODY)).await;
        assert_eq!(connection.reply().await.status, 200);
        sleep(Duration::from_millis(400)).await;
    }
    connection.send(b"GET /health HTTP/1.1\r\nhost: loc").await;
    assert!(connection.closes_within(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn a_connection_without_requests_is_closed_at_last() {
    let mut setup = Setup::default();
    setup.limits.idle = Duration::from_millis(200);
    let server = setup.start().await;
    let mut connection = Connection::open(server.address).await;
    connection.send(&request("GET", "/health", &[], b"")).await;
    assert_eq!(connection.reply().await.status, 200);
    assert!(connection.closes_within(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_told_to() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    let head = request("POST", "/v1/completions", &[("expect", "100-continue")], BODY);
    let (head, body) = head.split_at(head.len() - BODY.len());
    connection.send(head).await;
    assert_eq!(connection.head().await.status, 100);
    connection.send(body).await;
    assert_eq!(connection.reply().await.status, 200);
}

/// A configuration that listens where `listen` says, and too where somebody might not.
fn listening(listen: &str, too: &[SocketAddr]) -> Config {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    writeln!(file, "serve.listen = {listen}").expect("it can be written");
    let (mut config, _) =
        Config::load(Some(file.path()), Overrides::default()).expect("it is valid");
    config.serve.listen_too = too.to_vec();
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn every_address_answers_and_one_the_machine_has_not_is_no_error() {
    // The second is reserved for documentation: no machine has it.
    let too = ["[::1]:0", "192.0.2.1:0"].map(|address| address.parse().expect("an address"));
    let config = listening(r#"["127.0.0.1:0", "127.0.0.1:0"]"#, &too);
    let app = app::start(config).await.expect("weir starts");
    let addresses = app.addresses().to_vec();
    assert!((2..=3).contains(&addresses.len()), "{addresses:?}");
    for address in addresses {
        assert_eq!(get(address, "/api/version").await.status, 200, "{address}");
    }
    app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_somebody_else_has_is_one() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let too = [taken.local_addr().expect("bound")];
    assert!(app::start(listening(r#"["127.0.0.1:0"]"#, &too)).await.is_err());
}
