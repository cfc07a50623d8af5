//! Authorities, client certificates and proxies over loopback.

use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::servers::{Authority, proxy, secure, sum};
use super::*;
use crate::config::{Proxy, Secret};

/// Longer than loopback takes, shorter than a test may.
const PATIENCE: Duration = Duration::from_secs(10);

fn secured(port: u16, connection: Connection) -> CloudConfig {
    CloudConfig {
        connection,
        connect_timeout: PATIENCE,
        ..row(&format!("https://127.0.0.1:{port}/v1"))
    }
}

async fn ask(egress: &Egress, way: Way, row: &CloudConfig) -> Result<String, CallError> {
    let request = get(&row.base_url.to_string());
    let (head, body) = egress.call(request, way, 1024, PATIENCE).await?;
    assert_eq!(head.status, 200);
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

async fn asked_alone(row: &CloudConfig) -> Result<String, CallError> {
    let (egress, way) = one_row(row);
    ask(&egress, way, row).await
}

#[tokio::test]
async fn an_authority_of_its_own_is_believed_by_that_row_alone() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = secure(ours.acceptor(false, &["http/1.1"])).await;
    assert_eq!(asked_alone(&secured(server.port, ours.believed())).await.unwrap(), "0");
    for stranger in [theirs.believed(), Connection::default()] {
        let refused = asked_alone(&secured(server.port, stranger)).await.unwrap_err();
        let refused = chain(&refused);
        assert!(refused.contains("UnknownIssuer") || refused.contains("certificate"), "{refused}");
    }
    // Two rows of one origin, one of which believes: the other does not share what it opened.
    let rows = [ours.believed(), theirs.believed()].map(|it| secured(server.port, it));
    let mut egress = Egress::builder();
    let [first, second] = rows.each_ref().map(|row| egress.row(row).unwrap());
    let egress = egress.build();
    ask(&egress, first, &rows[0]).await.unwrap();
    ask(&egress, second, &rows[1]).await.unwrap_err();
    ask(&egress, first, &rows[0]).await.unwrap();
}

#[tokio::test]
async fn a_certificate_is_for_the_name_that_was_asked_for() {
    let ours = Authority::new();
    let server = secure(ours.acceptor(false, &[])).await;
    let mut row = secured(server.port, ours.believed());
    row.base_url = format!("https://localhost:{}/v1", server.port).parse().unwrap();
    let refused = chain(&asked_alone(&row).await.unwrap_err());
    assert!(refused.contains("not valid for name"), "{refused}");
}

#[tokio::test]
async fn two_identities_share_no_connection() {
    let ours = Authority::new();
    let server = secure(ours.acceptor(true, &["http/1.1"])).await;
    let nobody = secured(server.port, ours.believed());
    asked_alone(&nobody).await.unwrap_err();
    let before = server.connections();
    let rows = ["first.example", "second.example"].map(|name| {
        let identity = Some(ours.identity(name));
        secured(server.port, Connection { identity, ..ours.believed() })
    });
    let mut egress = Egress::builder();
    let ways = rows.each_ref().map(|row| egress.row(row).unwrap());
    assert_ne!(ways[0], ways[1]);
    // The same once more is the same way.
    assert_eq!(egress.row(&rows[0]).unwrap(), ways[0]);
    let egress = egress.build();
    for _ in 0..4 {
        for (row, way) in rows.iter().zip(ways) {
            let shown = ask(&egress, way, row).await.unwrap();
            let own = &row.connection.identity.as_ref().unwrap().chain[0];
            assert_eq!(shown, sum(own).to_string());
        }
    }
    assert_eq!(server.connections() - before, 2);
}

#[test]
fn a_key_that_is_not_the_certificates_is_refused_at_once() {
    let ours = Authority::new();
    let (mut identity, other) = (ours.identity("a.example"), ours.identity("b.example"));
    identity.key = other.key;
    let row = secured(1, Connection { identity: Some(identity), ..ours.believed() });
    assert!(matches!(Egress::builder().row(&row), Err(EgressError::Identity(..))));
    let roots = Some(Arc::from([b"no certificate".to_vec()]));
    let row = secured(1, Connection { roots, ..Connection::default() });
    assert!(matches!(Egress::builder().row(&row), Err(EgressError::Authority(..))));
}

#[tokio::test]
async fn http2_is_spoken_where_both_can() {
    let ours = Authority::new();
    let acceptor = ours.acceptor(false, &["h2", "http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let row = secured(listener.local_addr().unwrap().port(), ours.believed());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = TokioIo::new(acceptor.accept(stream).await.unwrap());
        let answer = service_fn(async |request: Request<Incoming>| {
            let version = format!("{:?}", request.version());
            Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(version))))
        });
        let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        http2.serve_connection(stream, answer).await
    });
    let (egress, way) = one_row(&row);
    for _ in 0..2 {
        assert_eq!(ask(&egress, way, &row).await.unwrap(), "HTTP/2.0");
    }
}

fn through(port: u16, credentials: Option<&str>, connection: Connection) -> Connection {
    let uri = format!("http://127.0.0.1:{port}").parse().unwrap();
    let proxy = Some(Proxy { uri, credentials: credentials.map(Secret::new) });
    Connection { proxy, ..connection }
}

const OPEN: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

#[tokio::test]
async fn a_proxy_leads_to_the_origin_and_sees_nothing_of_it() {
    let ours = Authority::new();
    let server = secure(ours.acceptor(true, &["http/1.1"])).await;
    let (proxy, asked) = proxy(OPEN).await;
    let identity = ours.identity("first.example");
    let shown = sum(&identity.chain[0]).to_string();
    let connection = Connection { identity: Some(identity), ..ours.believed() };
    let rows = [None, Some("me:secret")].map(|credentials| {
        secured(server.port, through(proxy.port, credentials, connection.clone()))
    });
    let mut egress = Egress::builder();
    let ways = rows.each_ref().map(|row| egress.row(row).unwrap());
    assert_ne!(ways[0], ways[1]);
    let egress = egress.build();
    for (row, way) in rows.iter().zip(ways) {
        for _ in 0..2 {
            assert_eq!(ask(&egress, way, row).await.unwrap(), shown);
        }
    }
    let to = format!("127.0.0.1:{}", server.port);
    let bare = format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n");
    let with = format!("{bare}proxy-authorization: Basic bWU6c2VjcmV0\r\n\r\n");
    assert_eq!(*asked.lock().unwrap(), [format!("{bare}\r\n"), with]);
    assert_eq!((proxy.connections(), server.connections()), (2, 2));
}

#[tokio::test]
async fn a_proxy_that_does_not_open_is_an_error_and_no_detour() {
    let ours = Authority::new();
    let server = secure(ours.acceptor(false, &[])).await;
    let answers = [
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "status 403"),
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "wants credentials"),
        ("220 mail.example ESMTP\r\n\r\n", "as HTTP says"),
    ];
    for (answer, meaning) in answers {
        let (proxy, _) = proxy(answer).await;
        let row = secured(server.port, through(proxy.port, None, ours.believed()));
        let refused = chain(&asked_alone(&row).await.unwrap_err());
        assert!(refused.contains(meaning), "{refused}");
    }
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    asked_alone(&secured(server.port, through(gone, None, ours.believed()))).await.unwrap_err();
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_hanging_proxy_ends_at_the_connect_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut row = secured(1, through(port, None, Authority::new().believed()));
    row.connect_timeout = Duration::from_millis(100);
    let started = Instant::now();
    let refused = chain(&asked_alone(&row).await.unwrap_err());
    assert!(refused.contains("no connection within"), "{refused}");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn nothing_goes_through_a_proxy_in_clear() {
    let mut row = row("http://127.0.0.1:1/v1");
    row.connection = through(1, None, Connection::default());
    assert!(matches!(Egress::builder().row(&row), Err(EgressError::ProxyInClear(_))));
}

#[tokio::test]
async fn a_streamed_answer_comes_as_it_is_sent() {
    let ours = Authority::new();
    let server = secure(ours.acceptor(false, &["http/1.1"])).await;
    let row = secured(server.port, ours.believed());
    let (egress, way) = one_row(&row);
    let answer = egress.send(get(&row.base_url.to_string()), way).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "0");
}
