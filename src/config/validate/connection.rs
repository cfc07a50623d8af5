//! How a cloud is connected to: `proxy` and what belongs to it, `ca_file`, `client_cert_file` and
//! `client_key_file`.

use std::path::Path;
use std::sync::Arc;

use super::keys::{secret_file, text_file};
use super::{Checker, pem};
use crate::config::{Connection, Identity, Proxy, RawConnection};

/// Largest PEM file in bytes: a whole host's store of authorities is a quarter of that.
const PEM_BYTES_MAX: usize = 1 << 20;

impl Checker<'_> {
    pub(super) fn connection(
        &mut self,
        raw: &RawConnection,
        base_url: Option<&hyper::Uri>,
    ) -> Connection {
        let proxy = self.proxy(raw);
        let roots = raw.ca_file.as_deref().and_then(|path| self.certificates("ca_file", path));
        let identity = self.identity(raw);
        if base_url.is_some_and(|url| url.scheme_str() == Some("http")) {
            let typed = [
                ("proxy", &raw.proxy),
                ("ca_file", &raw.ca_file),
                ("client_cert_file", &raw.client_cert_file),
            ];
            for (key, _) in typed.iter().filter(|(_, value)| value.is_some()) {
                self.complain(key, "is for an https base_url only");
            }
        }
        Connection { proxy, roots, identity }
    }

    fn proxy(&mut self, raw: &RawConnection) -> Option<Proxy> {
        let [variable, path] = [&raw.proxy_auth_env, &raw.proxy_auth_file];
        let auth = (("proxy_auth_env", variable.as_deref()), ("proxy_auth_file", path.as_deref()));
        let credentials = self.key_from(auth.0, auth.1);
        if credentials.as_ref().is_some_and(|secret| !secret.expose().contains(':')) {
            let key = if variable.is_some() { auth.0.0 } else { auth.1.0 };
            self.complain(key, "must hold user:password");
        }
        let Some(typed) = raw.proxy.as_deref() else {
            if variable.is_some() || path.is_some() {
                self.complain("proxy", "is required beside proxy_auth_env and proxy_auth_file");
            }
            return None;
        };
        let uri = self.proxy_uri(typed)?;
        Some(Proxy { uri, credentials })
    }

    fn proxy_uri(&mut self, typed: &str) -> Option<hyper::Uri> {
        let wrong = match typed.parse::<hyper::Uri>() {
            Ok(uri) if uri.authority().is_some_and(|a| a.as_str().contains('@')) => {
                "must hold no user or password; use proxy_auth_env or proxy_auth_file"
            }
            Ok(uri)
                if uri.scheme_str() == Some("http")
                    && uri.host().is_some_and(|host| !host.is_empty())
                    && uri.port_u16().is_some()
                    && uri.path() == "/"
                    && !typed.contains(['?', '#']) =>
            {
                return Some(uri);
            }
            _ => "must be as in http://proxy.example:3128",
        };
        // As with base_url, the text itself may hold a password.
        self.complain("proxy", wrong);
        None
    }

    fn identity(&mut self, raw: &RawConnection) -> Option<Identity> {
        let (certificates, key) = match (&raw.client_cert_file, &raw.client_key_file) {
            (None, None) => return None,
            (Some(certificates), Some(key)) => (certificates, key),
            (Some(_), None) => {
                self.complain("client_key_file", "is required beside client_cert_file");
                return None;
            }
            (None, Some(_)) => {
                self.complain("client_cert_file", "is required beside client_key_file");
                return None;
            }
        };
        let chain = self.certificates("client_cert_file", certificates);
        let text = secret_file(Path::new(key), PEM_BYTES_MAX);
        let key = match text.and_then(|text| pem::private_key(&text)) {
            Ok(key) => Some(key),
            Err(wrong) => {
                self.complain("client_key_file", format!("{key}: {wrong}"));
                None
            }
        };
        Some(Identity { chain: chain?, key: key? })
    }

    fn certificates(&mut self, key: &str, path: &str) -> Option<Arc<[Vec<u8>]>> {
        let text = text_file(Path::new(path), PEM_BYTES_MAX);
        match text.and_then(|text| pem::certificates(&text)) {
            Ok(certificates) => Some(certificates.into()),
            Err(wrong) => {
                self.complain(key, format!("{path}: {wrong}"));
                None
            }
        }
    }
}
