//! A tunnel through an HTTP proxy: CONNECT, and nothing of the request behind it.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Origin;
use crate::config::Proxy;

/// Longest answer to CONNECT. What a refusing proxy has to say beyond that is not read.
const HEAD_MAX: usize = 8 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    #[error("the proxy answered CONNECT with status {0}")]
    Refused(u16),
    #[error("the proxy wants credentials, or other ones: proxy_auth_env or proxy_auth_file")]
    Credentials,
    #[error("the proxy does not answer CONNECT as HTTP says")]
    Garbage,
    #[error("the connection to the proxy broke")]
    Broken(#[source] std::io::Error),
}

/// Returns once every byte on `stream` is the origin's.
pub(super) async fn tunnel<S>(stream: &mut S, proxy: &Proxy, to: &Origin) -> Result<(), ProxyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = connect(proxy, to);
    stream.write_all(request.as_bytes()).await.map_err(ProxyError::Broken)?;
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_MAX {
            return Err(ProxyError::Garbage);
        }
        // In a tunnel we speak first, so a proxy has no more to say than its head and reading it
        // by bytes is short. Whatever were read past it would be the origin's.
        head.push(stream.read_u8().await.map_err(ProxyError::Broken)?);
    }
    match status(&head) {
        Some(200..=299) => Ok(()),
        Some(407) => Err(ProxyError::Credentials),
        Some(status) => Err(ProxyError::Refused(status)),
        None => Err(ProxyError::Garbage),
    }
}

fn connect(proxy: &Proxy, to: &Origin) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    let to = to.authority();
    let mut request = format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n");
    if let Some(credentials) = &proxy.credentials {
        let credentials = STANDARD.encode(credentials.expose());
        request += &format!("proxy-authorization: Basic {credentials}\r\n");
    }
    request + "\r\n"
}

/// The status in the first line of a head.
fn status(head: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(head.split(|&byte| byte == b'\r').next()?).ok()?;
    let (version, rest) = line.split_once(' ')?;
    let digits = rest.split(' ').next()?;
    let known = matches!(version, "HTTP/1.1" | "HTTP/1.0") && digits.len() == 3;
    known.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn proxy(credentials: Option<&str>) -> Proxy {
        Proxy {
            uri: "http://proxy.example:3128".parse().unwrap(),
            credentials: credentials.map(Secret::new),
        }
    }

    fn origin() -> Origin {
        Origin::of(&"https://cloud.example/v1".parse().unwrap()).unwrap()
    }

    async fn answered(answer: &'static [u8]) -> Result<(), ProxyError> {
        let (mut ours, mut theirs) = tokio::io::duplex(64 * 1024);
        theirs.write_all(answer).await.unwrap();
        // It has nothing more to say, and still reads what it is told.
        let (_reading, mut writing) = tokio::io::split(theirs);
        writing.shutdown().await.unwrap();
        tunnel(&mut ours, &proxy(None), &origin()).await
    }

    #[test]
    fn the_request_names_the_origin_and_the_credentials() {
        let bare = "CONNECT cloud.example:443 HTTP/1.1\r\nhost: cloud.example:443\r\n";
        assert_eq!(connect(&proxy(None), &origin()), format!("{bare}\r\n"));
        let with = format!("{bare}proxy-authorization: Basic dXNlcjpwYXNz\r\n\r\n");
        assert_eq!(connect(&proxy(Some("user:pass")), &origin()), with);
    }

    #[tokio::test]
    async fn every_answer_has_its_meaning() {
        assert!(answered(b"HTTP/1.1 200 Connection established\r\n\r\n").await.is_ok());
        assert!(answered(b"HTTP/1.0 200\r\nvia: a\r\n\r\n").await.is_ok());
        let refused = answered(b"HTTP/1.1 403 Forbidden\r\n\r\nno").await;
        assert!(matches!(refused, Err(ProxyError::Refused(403))));
        let unknown = answered(b"HTTP/1.1 407 Who\r\nproxy-authenticate: Basic\r\n\r\n").await;
        assert!(matches!(unknown, Err(ProxyError::Credentials)));
        for garbage in
            [&b"SSH-2.0\r\n\r\n"[..], b"HTTP/1.1 2000 OK\r\n\r\n", b"HTTP/1.1\r\n\r\n", b"\r\n\r\n"]
        {
            assert!(matches!(answered(garbage).await, Err(ProxyError::Garbage)), "{garbage:?}");
        }
        let cut = answered(b"HTTP/1.1 200 OK\r\n").await;
        assert!(matches!(cut, Err(ProxyError::Broken(_))));
        let endless = answered([b'a'; 2 * HEAD_MAX].as_slice().to_vec().leak()).await;
        assert!(matches!(endless, Err(ProxyError::Garbage)));
    }

    #[tokio::test]
    async fn what_follows_the_head_is_left_to_the_origin() {
        let (mut ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").await.unwrap();
        tunnel(&mut ours, &proxy(None), &origin()).await.unwrap();
        let mut rest = [0; 5];
        ours.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"hello");
    }
}
