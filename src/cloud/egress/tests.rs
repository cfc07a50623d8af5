mod connections;
mod memory;
mod servers;

use std::time::Instant;

use tokio::net::TcpListener;

use self::servers::{answering, get, one_row};
use super::*;
use crate::cloud::tests::row;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text += &format!(": {source}");
        next = source.source();
    }
    text
}

#[tokio::test]
async fn only_configured_origins_are_dialled() {
    let near = answering(OK).await;
    let other = answering(OK).await;
    let (port, other_port) = (near.port, other.port);
    let (egress, way) = one_row(&row(&format!("http://127.0.0.1:{port}/v1")));
    let ok = egress.send(get(&format!("http://127.0.0.1:{port}/any")), way).await.unwrap();
    assert_eq!(ok.status(), 200);
    for uri in [
        format!("http://127.0.0.1:{other_port}/v1"),
        format!("http://localhost:{port}/v1"),
        format!("https://127.0.0.1:{port}/v1"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
    ] {
        let refused = egress.send(get(&uri), way).await.unwrap_err();
        assert!(chain(&refused).contains("not the origin"), "{uri}: {}", chain(&refused));
    }
    assert_eq!((near.connections(), other.connections()), (1, 0));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let target = answering(OK).await;
    let head = format!(
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{}/\r\ncontent-length: 0\r\n\r\n",
        target.port
    );
    let redirecting = answering(head.leak()).await;
    let rows =
        [redirecting.port, target.port].map(|port| row(&format!("http://127.0.0.1:{port}/")));
    let mut egress = Egress::builder();
    let [way, _] = rows.each_ref().map(|row| egress.row(row).unwrap());
    let egress = egress.build();
    let ask = || get(&rows[0].base_url.to_string());
    let answer = egress.send(ask(), way).await.unwrap();
    assert_eq!(answer.status(), 302);
    let (head, _) = egress.call(ask(), way, 100, Duration::from_secs(5)).await.unwrap();
    assert_eq!(head.status, 302);
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn a_hanging_tls_handshake_ends_at_the_connect_timeout() {
    // Accepts and says nothing: TCP connects, TLS never does.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut row = row(&format!("https://{}/v1", silent.local_addr().unwrap()));
    row.connect_timeout = Duration::from_millis(100);
    let (egress, way) = one_row(&row);
    let started = Instant::now();
    let error = egress.send(get(&row.base_url.to_string()), way).await.unwrap_err();
    assert!(error.is_connect(), "{}", chain(&error));
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn response_heads_are_bounded() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(RESPONSE_HEADERS_MAX + 1));
    let long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(2 * HTTP1_BUFFER_MAX));
    for head in [many, long] {
        let server = answering(head.leak()).await;
        let uri = format!("http://127.0.0.1:{}/v1", server.port);
        let (egress, way) = one_row(&row(&uri));
        assert!(egress.send(get(&uri), way).await.is_err());
    }
}

#[test]
fn what_may_not_be_dialled_is_not_registered() {
    let allow = |uri: &str| {
        let (uri, wait) = (uri.parse().unwrap(), Duration::from_secs(1));
        Egress::builder().allow(&uri, wait, &Connection::default())
    };
    assert!(matches!(allow("/v1"), Err(EgressError::NotAnOrigin(_))));
    assert!(matches!(allow("ftp://a/v1"), Err(EgressError::NotAnOrigin(_))));
    for uri in [
        "http://169.254.169.254/latest/",
        "http://[fe80::1]/",
        "https://[::ffff:169.254.169.254]/",
        "http://metadata.google.internal/",
    ] {
        assert!(matches!(allow(uri), Err(EgressError::LinkLocal(_))), "{uri}");
    }
    let mut egress = Egress::builder();
    let wait = Duration::from_secs(1);
    let metadata = "http://169.254.169.254/latest/".parse().unwrap();
    let way = egress.allow_metadata(&metadata, wait).unwrap();
    let near = "http://127.0.0.1:1/".parse().unwrap();
    let usual = egress.allow(&near, wait, &Connection::default()).unwrap();
    assert_ne!(way, usual);
    assert!(matches!(egress.allow_metadata(&near, wait), Err(EgressError::LinkLocal(_))));
}

/// The system reads such a host as an address, as if a name server had said so.
#[tokio::test]
async fn a_name_that_resolves_to_a_link_local_address_is_not_dialled() {
    let uri: Uri = "http://2852039166/".parse().unwrap();
    let opened = Wire::tcp(Reach::Network).open(uri).await;
    let Err(refused) = opened else { panic!("it was dialled") };
    assert!(chain(&*refused).contains("may not be dialled"), "{}", chain(&*refused));
}
