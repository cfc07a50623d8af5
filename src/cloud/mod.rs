//! Remote backends: clouds.
//!
//! [`Provider`] is one `[[cloud]]` row: an address, a proof of who asks ([`auth`]) and the bytes of
//! an API ([`wires`]). A rendered request leaves through [`egress`], and its answer is read by
//! [`stream`]: bytes to messages by [`frames`], messages to events of ours by [`reply`], each
//! choice cleaned and cut by [`choice`]. What is no answer is read by [`fault`].

mod auth;
#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
mod choice;
mod clean;
mod egress;
mod fault;
mod frames;
#[cfg(feature = "google")]
mod google;
#[cfg(test)]
mod hostile;
mod limits;
#[cfg(feature = "oci")]
mod oci;
mod peer;
mod region;
mod remote;
mod reply;
mod services;
mod stream;
mod wires;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
pub use egress::EgressError;
use egress::{Egress, Way};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response};
use hyper_util::client::legacy::Error as SendError;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::completion::compliance::Declared;
use crate::completion::{Backend, CompletionRequest, CompletionStream, Fault, Reason, Refusal};
use crate::config::{CloudConfig, CloudFim, CloudService};
use crate::money::Asked;
use crate::policy::peer::Instance;
use auth::Auth;
use auth::fetch::{self, Services};
pub use limits::Limits;
use limits::Meter;
pub use peer::Reported;
use peer::{Marks, Peer};
use region::Whereabouts;
pub use remote::{Question, Remote, RemoteError, Said};
use reply::Reply;
use stream::{Reading, Start, Timing};
use wires::{Rendered, Wire};

/// One cloud row.
pub struct Provider {
    row: CloudConfig,
    door: Door,
    /// One permit per exchange; the stream holds it.
    in_flight: Arc<Semaphore>,
    wire: Box<dyn Wire>,
    auth: Box<dyn Auth>,
    /// Seconds that the cloud's clock is ahead of ours, since it complained of ours.
    clock_ahead_s: AtomicI64,
    /// What it last said is left of our quota.
    meter: Meter,
    /// Where it is another weir.
    peer: Option<Peer>,
    whereabouts: Whereabouts,
}

/// A provider for every row, all behind one client, for a program that is no server itself.
pub fn providers(rows: &[CloudConfig]) -> Result<Vec<Provider>, EgressError> {
    providers_of(rows, &Instance::random())
}

/// A provider for every row, all behind one client. No row, no client. `own` is the name by which
/// other weirs know this one.
pub fn providers_of(rows: &[CloudConfig], own: &Instance) -> Result<Vec<Provider>, EgressError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    reached_by(rows, Egress::builder(), own)
}

fn reached_by(
    rows: &[CloudConfig],
    mut egress: egress::Builder,
    own: &Instance,
) -> Result<Vec<Provider>, EgressError> {
    let registered = |row| Ok((row, egress.row(row)?, fetch::ways(row, &mut egress)?));
    let rows: Vec<_> = rows.iter().map(registered).collect::<Result<_, EgressError>>()?;
    let egress = Arc::new(egress.build());
    let provider = |(row, way, ways)| {
        let services = Arc::new(Services::new(egress.clone(), ways));
        Provider::new(row, Door { egress: egress.clone(), way }, services, own)
    };
    rows.into_iter().map(provider).collect()
}

/// The way out for one row.
#[derive(Clone)]
struct Door {
    egress: Arc<Egress>,
    way: Way,
}

impl Door {
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, SendError> {
        self.egress.send(request, self.way).await
    }
}

/// One request on its way.
struct Sending<'a> {
    id: &'a str,
    rendered: &'a Rendered,
    timing: &'a Timing,
    /// For another weir.
    marks: Option<&'a Marks>,
}

impl Provider {
    /// `services` reach whoever grants the row's credentials.
    fn new(
        row: &CloudConfig,
        door: Door,
        services: Arc<Services>,
        own: &Instance,
    ) -> Result<Self, EgressError> {
        let peer = match row.service {
            CloudService::Weir => {
                let auth = services::auth(row, services.clone())?;
                let peer = Peer::start(row, own.clone(), door.clone(), auth);
                Some(peer.ok_or_else(|| EgressError::Origin(row.name.clone()))?)
            }
            _ => None,
        };
        Ok(Self {
            peer,
            meter: Meter::default(),
            whereabouts: Whereabouts::default(),
            wire: services::wire(row)?,
            auth: services::auth(row, services)?,
            clock_ahead_s: AtomicI64::new(0),
            in_flight: Arc::new(Semaphore::new(row.max_in_flight.min(Semaphore::MAX_PERMITS))),
            row: row.clone(),
            door,
        })
    }

    pub fn name(&self) -> &Arc<str> {
        &self.row.name
    }

    /// What the operator says it is.
    pub fn declared(&self) -> &Declared {
        &self.row.declared
    }

    /// The row as it was configured.
    pub fn row(&self) -> &CloudConfig {
        &self.row
    }

    /// What a request would be here, without rendering it; or why it cannot be one.
    pub fn quote(&self, request: &CompletionRequest) -> Result<Asked, Refusal> {
        self.peer.as_ref().map_or(Ok(()), Peer::is_proven)?;
        self.whereabouts.check()?;
        wires::quote(request, &self.row, self.wire.abilities(&self.row))
    }

    /// Whether something could be sent there now: credentials may still be on their way, another
    /// weir may not have said what it holds to. Sends nothing.
    pub fn is_ready(&self) -> Result<(), Refusal> {
        // Looking at a peer is what makes it be asked.
        self.reported();
        self.peer.as_ref().map_or(Ok(()), Peer::is_proven)?;
        let nothing = Request::post(self.row.base_url.clone()).body(());
        let (mut head, ()) = nothing.expect("a row has an address").into_parts();
        self.auth.sign(&mut head, &Bytes::new(), self.cloud_time())
    }

    /// Where its last answer says that it was made; None: it does not say.
    pub fn region(&self) -> Option<Arc<str>> {
        self.whereabouts.told()
    }

    /// What the provider last said is left of the row's quota, as far as that holds at `now`.
    pub fn limits(&self, now: Instant) -> Limits {
        self.meter.limits(now)
    }

    /// How busy another weir says it is; None: it is none, or has not said so for two seconds.
    pub fn reported(&self) -> Option<Reported> {
        self.peer.as_ref()?.reported()
    }

    /// The request as it leaves, signed. Nothing of the client's own headers is in it.
    fn outgoing(&self, sending: &Sending<'_>) -> Result<Request<Full<Bytes>>, Refusal> {
        let Sending { id, rendered, marks, .. } = *sending;
        let mut head = Request::post(rendered.uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, rendered.accept)
            .header(header::ACCEPT_ENCODING, "identity")
            .header(header::USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
            .body(())
            .expect("constant headers are valid")
            .into_parts()
            .0;
        // An id that a client chose may name somebody, so only another weir of its own gets it.
        let told = self.row.fim == CloudFim::Peer || is_our_own(id);
        if let (true, Ok(id)) = (told, HeaderValue::from_str(id)) {
            head.headers.insert("x-request-id", id);
        }
        if let Some(marks) = marks {
            marks.put(&mut head.headers);
        }
        head.headers.extend(self.wire.headers());
        self.auth.sign(&mut head, &rendered.body, self.cloud_time())?;
        Ok(Request::from_parts(head, Full::new(rendered.body.clone())))
    }

    /// What goes beside a request to another weir, which has to be proven by now.
    fn marks(&self, request: &CompletionRequest) -> Result<Option<Marks>, Refusal> {
        let Some(peer) = &self.peer else { return Ok(None) };
        let marks = peer.marks(&request.policy.require)?;
        peer.is_proven()?;
        Ok(Some(marks))
    }

    /// The time as the cloud sees it.
    fn cloud_time(&self) -> SystemTime {
        let ahead = self.clock_ahead_s.load(Ordering::Relaxed);
        let by = Duration::from_secs(ahead.unsigned_abs());
        if ahead < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
    }

    /// Takes the cloud's time from the head of an answer; whether that changes anything.
    fn set_clock(&self, headers: &HeaderMap) -> bool {
        let date = headers.get(header::DATE).and_then(|value| value.to_str().ok());
        let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
            return false;
        };
        let ahead = match date.duration_since(SystemTime::now()) {
            Ok(ahead) => i64::try_from(ahead.as_secs()),
            Err(behind) => i64::try_from(behind.duration().as_secs()).map(i64::wrapping_neg),
        };
        let ahead = ahead.unwrap_or(0);
        self.clock_ahead_s.swap(ahead, Ordering::Relaxed) != ahead
    }

    async fn exchange(&self, sending: &Sending<'_>) -> Result<Response<Incoming>, Refusal> {
        let timing = sending.timing;
        let response = timeout_at(timing.first_due(), self.door.send(self.outgoing(sending)?));
        let response =
            response.await.map_err(|_| timing.late(Instant::now()))?.map_err(unreachable)?;
        let good = response.status().is_success();
        self.meter.read(response.headers(), good);
        if let (Some(peer), Some(marks), true) = (&self.peer, sending.marks, good) {
            peer.acknowledged(response.headers(), marks)?;
        }
        self.whereabouts.read(&self.row, response.headers())?;
        Ok(response)
    }

    /// An answer of a kind that can be read, or why there is none. A request that was refused for
    /// our clock is signed anew, once, by the cloud's.
    async fn answer(
        &self,
        sending: &Sending<'_>,
    ) -> Result<(fault::Kind, Response<Incoming>), Refusal> {
        let mut again = true;
        loop {
            let response = self.exchange(sending).await?;
            if let Some(kind) = fault::kind(&response, sending.rendered.accept) {
                return Ok((kind?, response));
            }
            let headers = response.headers().clone();
            let refusal = fault::refusal(&self.row, response).await;
            match refusal.reason {
                Reason::Cloud(Fault::Clock) if again && self.set_clock(&headers) => again = false,
                Reason::Cloud(Fault::Credentials) => {
                    self.auth.rejected();
                    return Err(refusal);
                }
                _ => return Err(refusal),
            }
        }
    }
}

impl Backend for Provider {
    /// Returns once the cloud answered 200 with an event stream. The stream's first event may
    /// still be [`Failed`](crate::completion::Event::Failed); nothing was promised until then.
    async fn complete(&self, request: Arc<CompletionRequest>) -> Result<CompletionStream, Refusal> {
        wires::check(&request, &self.row, self.wire.abilities(&self.row))?;
        let rendered = self.wire.render(&request, &self.row)?;
        let permit = self.in_flight.clone().try_acquire_owned().map_err(|_| {
            Refusal::new(Reason::CloudBusy, "the cloud has all the requests it may have")
        })?;
        let timing = Timing::new(&self.row, request.deadline, Instant::now());
        let marks = self.marks(&request)?;
        let sending = Sending {
            id: &request.id,
            rendered: &rendered,
            timing: &timing,
            marks: marks.as_ref(),
        };
        let (kind, response) = self.answer(&sending).await?;
        let Rendered { stops, emulated, frames, mut reader, max_tokens, .. } = rendered;
        let (head, body) = response.into_parts();
        reader.head(&head.headers);
        let reading = Reading::new(Start {
            body,
            permit,
            kind,
            frames,
            reply: Reply::new(&request, reader, &stops, emulated.as_ref()),
            timing,
            bytes_max: stream::bytes_max(max_tokens, request.n),
        });
        Ok(CompletionStream {
            model: self.row.model.clone(),
            truncated: false,
            events: Box::pin(reading.into_stream()),
        })
    }
}

/// Whether an id is one that weir gave to a request without: `req_` and 32 digits.
fn is_our_own(id: &str) -> bool {
    id.strip_prefix("req_").is_some_and(|digits| {
        digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

fn unreachable(error: SendError) -> Refusal {
    Refusal::new(Reason::CloudUnreachable, "the cloud cannot be reached").with_source(error)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::egress::memory::{Listener, Network};
    use super::*;
    use crate::completion::{Event, Input};
    use crate::config::{Budget, CloudService, Connection};

    /// A row with short timeouts.
    pub(super) fn row(base_url: &str) -> CloudConfig {
        CloudConfig {
            name: "burst".into(),
            base_url: base_url.parse().unwrap(),
            api_key: None,
            service: CloudService::OpenAi,
            model: "coder".into(),
            fim: CloudFim::Suffix,
            stream: true,
            max_tokens: 64,
            max_in_flight: 4,
            requests_per_min: None,
            tokens_per_min: None,
            prefer: 0,
            connect_timeout: Duration::from_millis(500),
            first_token_timeout: Duration::from_millis(500),
            idle_timeout: Duration::from_millis(500),
            declared: Declared::default(),
            budget: Budget::default(),
            price: None,
            connection: Connection::default(),
        }
    }

    #[test]
    fn without_rows_there_is_no_client() {
        assert!(providers(&[]).unwrap().is_empty());
    }

    /// Answers with each part after a pause, and then says nothing more.
    async fn slow(mut cloud: Listener, pause: Duration, parts: &'static [&'static str]) {
        let mut stream = cloud.accept().await.unwrap();
        let mut read = [0; 4096];
        assert_ne!(stream.read(&mut read).await.unwrap(), 0);
        for part in parts {
            tokio::time::sleep(pause).await;
            stream.write_all(part.as_bytes()).await.unwrap();
        }
        std::future::pending().await
    }

    #[tokio::test(start_paused = true)]
    async fn a_cloud_is_waited_for_in_virtual_time() {
        let network = Network::default();
        let url = "https://cloud.example/v1";
        tokio::spawn(slow(
            network.listen(url),
            Duration::from_millis(200),
            &[
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
                "data: {\"choices\":[{\"index\":0,\"text\":\"one\"}]}\n\n",
                "data: {\"choices\":[{\"index\":0,\"text\":\" two\"}]}\n\n",
            ],
        ));
        let providers =
            reached_by(&[row(url)], Egress::builder_in_memory(network), &Instance::random())
                .unwrap();
        let request = CompletionRequest::greedy("req-1", Input::Text("a".into()), 8);
        let began = Instant::now();
        let mut stream = providers[0].complete(Arc::new(request)).await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_millis(200));
        let (mut text, mut failed) = (String::new(), None);
        while let Some(event) = stream.events.next().await {
            match event {
                Event::Chunk(chunk) => text += chunk.as_str(),
                Event::Failed(refusal) => failed = Some(refusal.reason),
                _ => {}
            }
        }
        assert_eq!((text.as_str(), failed), ("one two", Some(Reason::CloudTimeout)));
        assert_eq!(began.elapsed(), Duration::from_millis(600) + row(url).idle_timeout);
    }
}
