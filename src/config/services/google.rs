//! Google's Vertex AI.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rsa::KeyPair;
use hyper::Uri;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;

use crate::config::Secret;

/// A project's place on Vertex AI.
#[derive(Clone, Debug, PartialEq)]
pub struct Vertex {
    pub api: VertexApi,
    /// None: the model's own.
    pub thinking: Option<Thinking>,
    pub credentials: GoogleCredentials,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VertexApi {
    /// Gemini's own.
    GenerateContent,
    /// Chat in OpenAI's shape.
    OpenAi,
    /// A partner's own bytes; Mistral's, with a suffix of its own.
    RawPredict,
}

impl VertexApi {
    /// How it can be made to fill in, the usual way first.
    pub fn fim_words(self) -> &'static [&'static str] {
        match self {
            Self::GenerateContent | Self::OpenAi => &["chat"],
            Self::RawPredict => &["suffix", "chat"],
        }
    }
}

/// How much a model thinks before it answers; its thoughts count as output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thinking {
    /// In tokens; 0 turns it off, -1 leaves it to the model.
    Budget(i32),
    /// Of models that know levels and no budget.
    Level(Arc<str>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum GoogleCredentials {
    ServiceAccount {
        key: ServiceAccountKey,
        /// Where its proof is exchanged for a token; None: it is shown as it is.
        exchange: Option<Uri>,
    },
    /// The machine's own, from its metadata server.
    Metadata { server: Uri },
    /// Another provider's token, exchanged (workload identity federation).
    External(Arc<ExternalAccount>),
}

/// What a service account signs with.
#[derive(Clone)]
pub struct ServiceAccountKey {
    pub email: Arc<str>,
    pub id: Arc<str>,
    pub pair: Arc<KeyPair>,
}

impl PartialEq for ServiceAccountKey {
    /// Google gives each key of an account an id of its own.
    fn eq(&self, other: &Self) -> bool {
        self.email == other.email && self.id == other.id
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct ExternalAccount {
    /// The pool's provider.
    pub audience: Arc<str>,
    pub subject_token_type: Arc<str>,
    pub subject: Subject,
    /// Google's Security Token Service.
    pub tokens: Uri,
    pub impersonation: Option<Impersonation>,
}

/// Where the other provider's token is.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    pub place: SubjectPlace,
    /// The field of a JSON object that holds it; None: it is the whole text.
    pub field: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SubjectPlace {
    /// Read anew each time: it rotates.
    File(PathBuf),
    Url {
        url: Uri,
        headers: Vec<(hyper::header::HeaderName, Secret)>,
    },
}

/// The service account that a federated identity acts as.
#[derive(Clone, Debug, PartialEq)]
pub struct Impersonation {
    pub url: Uri,
    pub lifetime: Duration,
}

/// Why a key is none that signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("has no RSA key of 2048 to 8192 bits in PEM (PKCS#8)")]
pub struct BadKey;

impl ServiceAccountKey {
    /// `pem` is PKCS#8, as Google hands it out.
    pub fn new(email: &str, id: &str, pem: &str) -> Result<Self, BadKey> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| BadKey)?;
        let pair = KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| BadKey)?;
        Ok(Self { email: email.into(), id: id.into(), pair: Arc::new(pair) })
    }
}

impl fmt::Debug for ServiceAccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ServiceAccountKey");
        shown.field("email", &self.email).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Vertex {
    /// Where its tokens come from.
    pub fn credential_services(&self) -> Vec<&Uri> {
        match &self.credentials {
            GoogleCredentials::ServiceAccount { exchange, .. } => exchange.iter().collect(),
            GoogleCredentials::Metadata { server } => vec![server],
            GoogleCredentials::External(account) => {
                let subject = match &account.subject.place {
                    SubjectPlace::File(_) => None,
                    SubjectPlace::Url { url, .. } => Some(url),
                };
                let impersonation = account.impersonation.as_ref().map(|as_whom| &as_whom.url);
                [Some(&account.tokens), subject, impersonation].into_iter().flatten().collect()
            }
        }
    }
}
