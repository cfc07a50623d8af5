//! `[[cloud]]` rows.

use std::collections::HashSet;
use std::sync::Arc;

use models::fim::Family;

use super::service::Provider;
use super::{COUNT_MAX, Checker, TOKENS_MAX};
use crate::config::raw::row_prefix;
use crate::config::{CloudConfig, CloudFim, CloudService, RawCloud, defaults};

/// Most `[[cloud]]` rows; each is a label value of `weir_requests_total`.
const CLOUDS_MAX: usize = 64;
/// Highest rate in a minute; no provider sells as much.
const RATE_MAX: i64 = 1_000_000_000_000;
/// Furthest that a preference may be from 0.
const PREFER_MAX: i64 = 1_000_000;
/// Longest name of a row in bytes; it goes into a header and a metric label.
const ROW_NAME_MAX: usize = 64;

impl Checker<'_> {
    pub(super) fn clouds(&mut self, raw: &[RawCloud]) -> Vec<CloudConfig> {
        self.prefix = String::new();
        if cfg!(not(feature = "cloud")) && !raw.is_empty() {
            self.complain(
                "[[cloud]]",
                "needs a weir that was built with the cargo feature `cloud`",
            );
            return Vec::new();
        }
        if raw.len() > CLOUDS_MAX {
            let message = format!("must be at most {CLOUDS_MAX} rows, are {}", raw.len());
            self.complain("[[cloud]]", message);
        }
        let mut names = HashSet::new();
        let mut clouds = Vec::new();
        for (index, row) in raw.iter().enumerate() {
            self.prefix = row_prefix("cloud", row.name.as_deref(), index);
            if row.name.as_deref().is_some_and(|name| !names.insert(name)) {
                self.complain("name", "is used by an earlier row");
            }
            clouds.extend(self.cloud(row));
        }
        clouds
    }

    /// None: a required key was absent or wrong, and complained about.
    fn cloud(&mut self, raw: &RawCloud) -> Option<CloudConfig> {
        let name = self.row_name(raw.name.as_deref());
        let provider = self.provider(raw);
        let mut api_key = self.api_key(raw);
        let service = self.service(raw, provider, &mut api_key);
        let base_url = self.base_url(raw, provider, service.as_ref());
        let model = self.required("model", raw.model.as_deref());
        let fims = provider.fims(service.as_ref());
        let fim = fims.and_then(|fims| self.cloud_fim(raw, provider, fims));
        if let (Some(CloudService::Aws(aws)), Some(url)) = (&service, &base_url) {
            self.aws_region_of(aws, url);
        }
        if let Some(url) = &base_url {
            self.warn_clear_text(url, api_key.is_some());
        }
        let max_tokens =
            self.within("max_tokens", raw.max_tokens, defaults::CLOUD_MAX_TOKENS, 1..=TOKENS_MAX);
        let max_in_flight = self.count(
            "max_in_flight",
            raw.max_in_flight,
            defaults::CLOUD_MAX_IN_FLIGHT,
            COUNT_MAX,
        );
        let rates =
            [("requests_per_min", raw.requests_per_min), ("tokens_per_min", raw.tokens_per_min)];
        let [requests_per_min, tokens_per_min] =
            rates.map(|(key, typed)| Some(self.optional(key, typed, 1..=RATE_MAX)? as u64));
        let prefer = self.within("prefer", raw.prefer, 0, -PREFER_MAX..=PREFER_MAX);
        let timeouts = [
            ("connect_timeout_ms", raw.connect_timeout_ms, defaults::CONNECT_TIMEOUT_MS),
            (
                "first_token_timeout_ms",
                raw.first_token_timeout_ms,
                defaults::FIRST_TOKEN_TIMEOUT_MS,
            ),
            ("idle_timeout_ms", raw.idle_timeout_ms, defaults::IDLE_TIMEOUT_MS),
        ];
        let [connect_timeout, first_token_timeout, idle_timeout] =
            timeouts.map(|(key, value, default)| self.duration(key, value, default, 1));
        let declared = self.declared(raw, base_url.as_ref());
        let budget = self.budget(&raw.budget, "");
        let price = self.price(raw);
        let connection = self.connection(&raw.connection, base_url.as_ref());
        Some(CloudConfig {
            name: Arc::from(name?),
            base_url: base_url?,
            api_key,
            service: service?,
            model: Arc::from(model?),
            fim: fim?,
            stream: raw.stream.unwrap_or(true),
            max_tokens: u32::try_from(max_tokens).unwrap_or(u32::MAX),
            max_in_flight,
            requests_per_min,
            tokens_per_min,
            prefer,
            connect_timeout,
            first_token_timeout,
            idle_timeout,
            price,
            declared,
            budget,
            connection,
        })
    }

    pub(super) fn required<'t>(&mut self, key: &str, value: Option<&'t str>) -> Option<&'t str> {
        match value {
            Some(text) if !text.is_empty() => Some(text),
            _ => {
                self.complain(key, "is required");
                None
            }
        }
    }

    pub(super) fn row_name<'t>(&mut self, typed: Option<&'t str>) -> Option<&'t str> {
        let name = self.required("name", typed)?;
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        if name.len() <= ROW_NAME_MAX && name.bytes().all(letter) {
            return Some(name);
        }
        let message = format!("must be at most {ROW_NAME_MAX} of a-z, 0-9, - and _");
        self.complain("name", message);
        None
    }

    /// What the row says, or else where its provider is.
    fn base_url(
        &mut self,
        raw: &RawCloud,
        provider: &Provider,
        service: Option<&CloudService>,
    ) -> Option<hyper::Uri> {
        let known = match (raw.base_url.as_deref(), provider.word, service) {
            (None, "oci", _) if raw.services.oci.is_some() => Some(self.oci_url(raw)?),
            (None, "azure", _) if raw.services.azure.is_some() => Some(self.azure_url(raw)?),
            (None, "vertex", _) if raw.services.vertex.is_some() => Some(self.vertex_url(raw)?),
            (None, _, Some(CloudService::Aws(aws))) => Some(self.aws_address(aws, raw)?),
            // What is wrong with the provider was said.
            (None, "bedrock" | "sagemaker", None) => return None,
            _ => None,
        };
        let typed = raw.base_url.as_deref().or(known.as_deref()).or(provider.base_url);
        let typed = self.required("base_url", typed)?;
        let wrong = match typed.trim_end_matches('/').parse::<hyper::Uri>() {
            Err(_) => "must be a URL as in https://cloud.example/v1",
            Ok(uri) if !matches!(uri.scheme_str(), Some("http" | "https")) => {
                "must begin with https:// or http://"
            }
            Ok(uri) if uri.authority().is_some_and(|a| a.as_str().contains('@')) => {
                "must hold no user or password; use api_key_env or api_key_file"
            }
            Ok(_) if typed.contains(['?', '#']) => "must have no query and no fragment",
            Ok(uri) if uri.host().is_none_or(str::is_empty) => "must name a host",
            Ok(uri) => return Some(uri),
        };
        // The URL itself stays out of the message: what is wrong with it may be a password.
        self.complain("base_url", wrong);
        None
    }

    fn warn_clear_text(&mut self, url: &hyper::Uri, key: bool) {
        if url.scheme_str() == Some("http") && !is_loopback(url) {
            let what = if key { "prompts and the key" } else { "prompts" };
            self.warn("base_url", format!("is http: {what} travel unencrypted"));
        }
    }

    fn cloud_fim(
        &mut self,
        raw: &RawCloud,
        provider: &Provider,
        fims: &[&'static str],
    ) -> Option<CloudFim> {
        let Some(&usual) = fims.first() else {
            let typed = [("fim", raw.fim.is_some()), ("fim_family", raw.fim_family.is_some())];
            for (key, _) in typed.into_iter().filter(|(_, typed)| *typed) {
                self.complain(key, format!("is not for provider = {:?}", provider.word));
            }
            return Some(CloudFim::Peer);
        };
        let words: Vec<_> = fims.iter().map(|word| (*word, *word)).collect();
        let mode = self.choice("fim", raw.fim.as_deref(), usual, &words);
        if mode != "template" {
            if raw.fim_family.is_some() {
                self.complain("fim_family", "is for fim = \"template\" only");
            }
            return Some(if mode == "chat" { CloudFim::Chat } else { CloudFim::Suffix });
        }
        let family = match (raw.fim_family.as_deref(), raw.model.as_deref()) {
            (Some(name), _) => Family::by_name(name).or_else(|| {
                self.complain("fim_family", format!("is no family that weir knows: {name:?}"));
                None
            }),
            (None, Some(model)) => Family::guess(model).or_else(|| {
                let message = format!("is required: the model's name, {model:?}, does not tell it");
                self.complain("fim_family", message);
                None
            }),
            (None, None) => None,
        };
        family.map(CloudFim::Template)
    }
}

/// Whether what is sent to an address stays between two processes of this machine, or is encrypted.
pub(super) fn may_see_secrets(url: &hyper::Uri) -> bool {
    match url.scheme_str() {
        Some("https") => url.host().is_some_and(|host| !host.is_empty()),
        Some("http") => is_loopback(url),
        _ => false,
    }
}

fn is_loopback(url: &hyper::Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
