//! How a source of credentials asks: small exchanges with token and metadata services.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, Uri};

use super::renewed::CredentialError;
use crate::cloud::egress::{Builder, Egress, EgressError, Origin, Way};
use crate::config::CloudConfig;

/// Bytes of an answer; tokens have a few thousand.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// One exchange, connecting included.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Bytes of a file that holds a token.
const TOKEN_FILE_BYTES_MAX: u64 = 64 * 1024;

pub(in crate::cloud) type Fetching<'a> =
    Pin<Box<dyn Future<Output = Result<Response<Bytes>, CredentialError>> + Send + 'a>>;

/// Asks a service that was registered. The answer may have any status.
pub(in crate::cloud) trait Fetch: Send + Sync + 'static {
    fn call(&self, request: Request<Full<Bytes>>) -> Fetching<'_>;
}

/// The services that the credentials of one row come from.
pub(in crate::cloud) struct Services {
    egress: Arc<Egress>,
    ways: Ways,
}

/// How each of them is reached.
pub(in crate::cloud) type Ways = HashMap<Origin, Way>;

/// Registers what `row`'s credentials come from.
pub(in crate::cloud) fn ways(row: &CloudConfig, egress: &mut Builder) -> Result<Ways, EgressError> {
    let mut ways = Ways::new();
    for uri in row.service.credential_services() {
        let way = egress.allow_credentials(uri, row.connect_timeout, &row.connection)?;
        ways.extend(Origin::of(uri).map(|origin| (origin, way)));
    }
    Ok(ways)
}

impl Services {
    pub(in crate::cloud) fn new(egress: Arc<Egress>, ways: Ways) -> Self {
        Self { egress, ways }
    }
}

impl<T: Fetch> Fetch for Arc<T> {
    fn call(&self, request: Request<Full<Bytes>>) -> Fetching<'_> {
        T::call(self, request)
    }
}

impl Fetch for Services {
    fn call(&self, request: Request<Full<Bytes>>) -> Fetching<'_> {
        Box::pin(async move {
            let host = request.uri().host().unwrap_or_default().to_owned();
            let failed =
                |error: &dyn std::fmt::Display| CredentialError(format!("{host}: {error}"));
            let way = Origin::of(request.uri()).and_then(|origin| self.ways.get(&origin));
            let way = *way.ok_or_else(|| failed(&"is no service of this cloud's credentials"))?;
            let answer = self.egress.call(request, way, ANSWER_BYTES_MAX, ANSWER_WAIT).await;
            let (head, body) = answer.map_err(|error| failed(&error))?;
            Ok(Response::from_parts(head, body))
        })
    }
}

/// A question without a body.
pub(in crate::cloud) fn get(
    uri: &Uri,
    query: &[(&str, &str)],
) -> Result<Request<Full<Bytes>>, CredentialError> {
    let joint = if uri.query().is_some() { '&' } else { '?' };
    let pairs = urlencoded(query);
    let whole = if pairs.is_empty() { uri.to_string() } else { format!("{uri}{joint}{pairs}") };
    let uri: Uri = whole.parse().map_err(|_| CredentialError("the address is too long".into()))?;
    Ok(request(Method::GET, &uri, Bytes::new()))
}

/// A form, posted.
pub(in crate::cloud) fn post_form(uri: &Uri, fields: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = request(Method::POST, uri, urlencoded(fields).into());
    let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
    request.headers_mut().insert(header::CONTENT_TYPE, kind);
    request
}

/// JSON, posted.
#[cfg(feature = "google")]
pub(in crate::cloud) fn post_json(uri: &Uri, body: &serde_json::Value) -> Request<Full<Bytes>> {
    let mut request = request(Method::POST, uri, body.to_string().into());
    let kind = HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::CONTENT_TYPE, kind);
    request
}

fn request(method: Method, uri: &Uri, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri.clone();
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::ACCEPT, json);
    let agent = HeaderValue::from_static(concat!("weir/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().insert(header::USER_AGENT, agent);
    request
}

/// `name=value` pairs, with everything escaped but letters, digits and `-._~`: right in a form
/// and in a query.
pub(in crate::cloud) fn urlencoded(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        escape(name, &mut text);
        text.push('=');
        escape(value, &mut text);
    }
    text
}

fn escape(part: &str, out: &mut String) {
    const HEX: [u8; 16] = *b"0123456789ABCDEF";
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let digits = [byte >> 4, byte & 15].map(|half| char::from(HEX[usize::from(half)]));
            out.push('%');
            out.extend(digits);
        }
    }
}

/// The text of a file whose content others change, read anew each time.
pub(in crate::cloud) async fn token_file(path: &Path) -> Result<String, CredentialError> {
    let shown = path.display().to_string();
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read_token_file(&path)).await;
    let wrong = |wrong: String| CredentialError(format!("{shown}: {wrong}"));
    read.map_err(|error| wrong(error.to_string()))?.map_err(wrong)
}

fn read_token_file(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut text = String::new();
    let read = file.take(TOKEN_FILE_BYTES_MAX + 1).read_to_string(&mut text);
    match read {
        Err(error) => Err(format!("cannot be read: {error}")),
        Ok(bytes) if bytes as u64 > TOKEN_FILE_BYTES_MAX => {
            Err(format!("is larger than {TOKEN_FILE_BYTES_MAX} bytes"))
        }
        Ok(_) if text.trim().is_empty() => Err("is empty".into()),
        Ok(_) => Ok(text.trim().to_owned()),
    }
}

#[cfg(test)]
pub(in crate::cloud) mod tests {
    use std::sync::Mutex;

    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;

    /// Services that give the same answers to whoever asks, in turn, and keep what was asked.
    pub(in crate::cloud) struct Recorded {
        asked: Mutex<Vec<Value>>,
        answers: Mutex<std::collections::VecDeque<(u16, &'static str)>>,
    }

    impl Recorded {
        pub(in crate::cloud) fn new(answers: &[(u16, &'static str)]) -> Arc<Self> {
            let answers = Mutex::new(answers.iter().copied().collect());
            Arc::new(Self { asked: Mutex::default(), answers })
        }

        /// What was asked, in the words of the oracles' fixtures.
        pub(in crate::cloud) fn asked(&self) -> Vec<Value> {
            self.asked.lock().unwrap().clone()
        }
    }

    impl Fetch for Recorded {
        fn call(&self, request: Request<Full<Bytes>>) -> Fetching<'_> {
            Box::pin(async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.expect("a body in memory").to_bytes();
                self.asked.lock().unwrap().push(recorded(&head, &body));
                let (status, text) = self.answers.lock().unwrap().pop_front().expect("an answer");
                let flavor = ("metadata-flavor", "Google");
                let answer = Response::builder().status(status).header(flavor.0, flavor.1);
                Ok(answer.body(Bytes::from_static(text.as_bytes())).unwrap())
            })
        }
    }

    /// The headers that a service reads; the others are our own business.
    const TELLING: [&str; 9] = [
        "content-type",
        "metadata",
        "x-identity-header",
        "metadata-flavor",
        "authorization",
        "x-of-the-test",
        "x-amz-security-token",
        "x-aws-ec2-metadata-token",
        "x-aws-ec2-metadata-token-ttl-seconds",
    ];

    fn recorded(head: &hyper::http::request::Parts, body: &[u8]) -> Value {
        let headers: serde_json::Map<_, _> = TELLING
            .iter()
            .filter_map(|name| Some((*name, head.headers.get(*name)?.to_str().unwrap())))
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        let body = std::str::from_utf8(body).unwrap();
        let is_json = headers.get("content-type") == Some(&json!("application/json"));
        let (scheme, authority) = (head.uri.scheme_str(), head.uri.authority());
        json!({
            "method": head.method.as_str(),
            "origin": format!("{}://{}", scheme.unwrap(), authority.unwrap()),
            "path": head.uri.path(),
            "query": pairs(head.uri.query().unwrap_or_default()),
            "headers": headers,
            "form": pairs(if is_json { "" } else { body }),
            "json": if is_json { serde_json::from_str(body).unwrap() } else { Value::Null },
        })
    }

    /// Written from the definition of a form, not from [`escape`].
    fn pairs(text: &str) -> Value {
        let decode = |part: &str| {
            let part = part.replace('+', " ");
            let mut bytes = Vec::new();
            let mut rest = part.as_bytes();
            while let Some((first, more)) = rest.split_first() {
                if *first == b'%' {
                    let digits = std::str::from_utf8(&more[..2]).unwrap();
                    bytes.push(u8::from_str_radix(digits, 16).unwrap());
                    rest = &more[2..];
                } else {
                    bytes.push(*first);
                    rest = more;
                }
            }
            String::from_utf8(bytes).unwrap()
        };
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        Value::Object(pairs.map(|(name, value)| (decode(name), json!(decode(value)))).collect())
    }

    #[test]
    fn every_character_is_told_apart_from_those_that_mean_something() {
        let all: String = (1..=255).map(|code| char::from(code as u8)).collect();
        let text = urlencoded(&[("a b", &all), ("c", "")]);
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%=&".contains(&b)));
        assert_eq!(pairs(&text), json!({"a b": all, "c": ""}));
    }

    #[test]
    fn a_query_joins_one_that_is_there() {
        let uri: Uri = "http://a.example/b?c=d".parse().unwrap();
        assert_eq!(get(&uri, &[("e", "f/g")]).unwrap().uri(), "http://a.example/b?c=d&e=f%2Fg");
        assert_eq!(get(&uri, &[]).unwrap().uri(), &uri);
    }

    #[tokio::test]
    async fn a_file_is_read_anew_and_bounded() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let written = |bytes: &[u8]| std::fs::write(file.path(), bytes).unwrap();
        for token in ["first", "second"] {
            written(format!(" {token}\n").as_bytes());
            assert_eq!(token_file(file.path()).await.unwrap(), token);
        }
        let wrong: [(&[u8], &str); 3] = [
            (b"\n", "is empty"),
            (&[b'a'; TOKEN_FILE_BYTES_MAX as usize + 1], "is larger"),
            (b"\xff\xfe", "cannot be read"),
        ];
        for (bytes, told) in wrong {
            written(bytes);
            let error = token_file(file.path()).await.unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        let gone = token_file(Path::new("/nowhere/token")).await.unwrap_err().to_string();
        assert!(gone.contains("/nowhere/token: cannot be read"), "{gone}");
    }
}
