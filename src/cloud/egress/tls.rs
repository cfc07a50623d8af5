//! TLS to an origin: whose certificates are believed, and what we show of ourselves.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::EgressError;
use crate::config::Connection;

/// Makes TLS for each connection profile. Reads the host's certificates once, and only where a
/// profile without its own needs them.
#[derive(Default)]
pub(super) struct Tls {
    of_host: Option<Arc<RootCertStore>>,
}

impl Tls {
    /// `host` is for the messages of what goes wrong.
    pub(super) fn connector(
        &mut self,
        connection: &Connection,
        host: &str,
    ) -> Result<TlsConnector, EgressError> {
        let roots = match &connection.roots {
            Some(own) => Arc::new(
                parsed(own)
                    .map_err(|error| EgressError::Authority(host.into(), Box::new(error)))?,
            ),
            None => self.of_host()?,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| EgressError::Tls(Box::new(error)))?
            .with_root_certificates(roots);
        let mut config = match &connection.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let wrong = |error| EgressError::Identity(host.into(), Box::new(error));
                let key = PrivateKeyDer::try_from(identity.key.expose().to_vec())
                    .map_err(|what| wrong(rustls::Error::General(what.into())))?;
                builder.with_client_auth_cert(chain(&identity.chain), key).map_err(wrong)?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config).into())
    }

    fn of_host(&mut self) -> Result<Arc<RootCertStore>, EgressError> {
        if let Some(roots) = &self.of_host {
            return Ok(roots.clone());
        }
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a certificate of the host cannot be read");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(EgressError::Roots);
        }
        Ok(self.of_host.insert(Arc::new(roots)).clone())
    }
}

fn parsed(certificates: &[Vec<u8>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(certificates) {
        roots.add(certificate)?;
    }
    Ok(roots)
}

fn chain(certificates: &[Vec<u8>]) -> Vec<CertificateDer<'static>> {
    certificates.iter().map(|certificate| CertificateDer::from(certificate.clone())).collect()
}
