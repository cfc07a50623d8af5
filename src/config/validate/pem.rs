//! Certificates and keys in PEM, by the reader that TLS has.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::PrivateKey;

/// Every certificate of a text, in DER; at least one.
pub(super) fn certificates(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let found: Result<Vec<Vec<u8>>, _> = CertificateDer::pem_slice_iter(text.as_bytes())
        .map(|certificate| certificate.map(|der| der.to_vec()))
        .collect();
    match found {
        Ok(certificates) if certificates.is_empty() => Err("holds no certificate".into()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("is no PEM: {error}")),
    }
}

/// The first private key of a text.
pub(super) fn private_key(text: &str) -> Result<PrivateKey, String> {
    match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
        Ok(der) => Ok(PrivateKey::new(der.secret_der())),
        // What is wrong with it could quote it.
        Err(_) => Err("holds no private key in PEM".into()),
    }
}
