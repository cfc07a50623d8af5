//! Oracle's own API and the key that signs for it.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rsa::KeyPair;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

/// `POST /20231130/actions/chat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciChat {
    /// The compartment that is billed and whose policies hold.
    pub compartment: Arc<str>,
    pub serving: OciServing,
    pub format: OciFormat,
    pub key: OciKey,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OciServing {
    /// The row's `model`, shared by all customers.
    OnDemand,
    /// The endpoint of a cluster that is the customer's own, by its OCID.
    Dedicated(Arc<str>),
}

/// Two request shapes on one route; the model's family tells which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OciFormat {
    Generic,
    Cohere,
}

/// An API signing key and the name that Oracle knows it by.
#[derive(Clone)]
pub struct OciKey {
    /// `TENANCY/USER/FINGERPRINT`.
    pub id: Arc<str>,
    pub pair: Arc<KeyPair>,
}

/// Why a file is no key that signs; a sentence without the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("is encrypted with a passphrase, which weir does not read; see docs/clouds.md")]
    Encrypted,
    #[error("is a public key; the private one is needed")]
    Public,
    #[error("is no RSA key of 2048 to 8192 bits in PEM (PKCS#1 or PKCS#8)")]
    Malformed,
}

impl OciKey {
    /// Reads PKCS#1 (`RSA PRIVATE KEY`) or PKCS#8 (`PRIVATE KEY`).
    pub fn from_pem(id: &str, pem: &[u8]) -> Result<Self, KeyError> {
        let has = |words: &[u8]| pem.windows(words.len()).any(|window| window == words);
        if has(b"ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        let pair = match PrivateKeyDer::from_pem_slice(pem) {
            Ok(PrivateKeyDer::Pkcs1(der)) => KeyPair::from_der(der.secret_pkcs1_der()),
            Ok(PrivateKeyDer::Pkcs8(der)) => KeyPair::from_pkcs8(der.secret_pkcs8_der()),
            _ if has(b"PUBLIC KEY") => return Err(KeyError::Public),
            _ => return Err(KeyError::Malformed),
        };
        let pair = Arc::new(pair.map_err(|_| KeyError::Malformed)?);
        Ok(Self { id: id.into(), pair })
    }
}

impl PartialEq for OciKey {
    /// Oracle's name of a key has its fingerprint in it.
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for OciKey {}

impl fmt::Debug for OciKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OciKey").field("id", &self.id).finish_non_exhaustive()
    }
}
