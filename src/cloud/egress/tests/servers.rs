//! What the client talks to over loopback: plain, TLS and proxy servers with an authority of
//! their own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::{Identity, PrivateKey};

pub(super) fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

pub(super) fn one_row(row: &CloudConfig) -> (Egress, Way) {
    let mut egress = Egress::builder();
    let way = egress.row(row).unwrap();
    (egress.build(), way)
}

/// A server on a port of its own, and the connections it had.
pub(super) struct Server {
    pub(super) port: u16,
    count: Arc<AtomicUsize>,
}

impl Server {
    pub(super) fn connections(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

/// Gives every connection to `serve`.
async fn serving<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Server
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(stream));
        }
    });
    Server { port, count }
}

/// Answers every request with `answer`, on as many connections as there are.
pub(super) async fn answering(answer: &'static str) -> Server {
    serving(move |stream| answer_all(stream, answer)).await
}

pub(super) async fn answer_all(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) {
    while read_head(&mut stream).await.is_some() {
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Up to the empty line; None: the connection ended.
pub(super) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// Issues certificates that nobody believes but who is told to.
pub(super) struct Authority {
    certificate: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// As `ca_file` would have it.
    pub(super) fn believed(&self) -> Connection {
        let roots = Some(Arc::from([self.certificate.clone()]));
        Connection { roots, ..Connection::default() }
    }

    pub(super) fn identity(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            chain: Arc::from([certificate.der().to_vec()]),
            key: PrivateKey::new(&key.serialize_der()),
        }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.certificate.clone())).unwrap();
        Arc::new(roots)
    }

    /// A server's side of TLS for `127.0.0.1`; with `clients`, who has to show a certificate.
    pub(super) fn acceptor(&self, clients: bool, protocols: &[&str]) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            false => builder.with_no_client_auth(),
            true => {
                let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let own = self.identity("127.0.0.1");
        let chain = own.chain.iter().cloned().map(CertificateDer::from).collect();
        let key = PrivateKeyDer::try_from(own.key.expose().to_vec()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Answers in TLS with the name of the certificate that the connection's client showed.
pub(super) async fn secure(acceptor: TlsAcceptor) -> Server {
    serving(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let shown = shown.first().map_or(0, |certificate| sum(certificate));
            let body = format!("{shown}");
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
            answer_all(stream, &answer).await;
        }
    })
    .await
}

/// Tells certificates apart.
pub(super) fn sum(certificate: &[u8]) -> u64 {
    certificate.iter().fold(7, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
}

/// A proxy that answers CONNECT with `answer` and, where that opens a tunnel, leads to where it
/// was asked to; with what it was asked.
pub(super) async fn proxy(answer: &'static str) -> (Server, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heads = asked.clone();
    let server = serving(move |mut stream| {
        let heads = heads.clone();
        async move {
            let Some(head) = read_head(&mut stream).await else { return };
            let to = head.split(' ').nth(1).unwrap_or_default().to_owned();
            heads.lock().unwrap().push(head);
            if stream.write_all(answer.as_bytes()).await.is_err() || !answer.contains(" 200 ") {
                return;
            }
            let mut far = TcpStream::connect(to).await.unwrap();
            // How it ends is the ends' affair.
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut far).await;
        }
    });
    (server.await, asked)
}
