//! How connections to a cloud are made, beside to where.

use std::fmt;
use std::sync::Arc;

use super::Secret;

/// The default is a connection without a proxy, to whom the host's certificate store believes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connection {
    pub proxy: Option<Proxy>,
    /// Certificates in DER that are believed instead of the host's.
    pub roots: Option<Arc<[Vec<u8>]>>,
    /// What weir shows of itself.
    pub identity: Option<Identity>,
}

/// An HTTP proxy that is asked for a tunnel by CONNECT.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// `http://host:port`.
    pub uri: hyper::Uri,
    /// `user:password`.
    pub credentials: Option<Secret>,
}

impl PartialEq for Proxy {
    fn eq(&self, other: &Self) -> bool {
        let exposed = |proxy: &Self| proxy.credentials.as_ref().map(|it| it.expose().to_owned());
        self.uri == other.uri && exposed(self) == exposed(other)
    }
}

/// A client's certificate and the key to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// In DER; its own first.
    pub chain: Arc<[Vec<u8>]>,
    pub key: PrivateKey,
}

/// A private key in DER: PKCS#8, PKCS#1 or SEC1. It appears in no log and no debug output.
#[derive(Clone, PartialEq)]
pub struct PrivateKey(Arc<[u8]>);

impl PrivateKey {
    pub fn new(der: &[u8]) -> Self {
        Self(Arc::from(der))
    }

    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}
