//! `[cloud.oci]`: Oracle's two APIs, and the signing key from the SDK's own file or from the row.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Checker;
use super::keys::{KEY_BYTES_MAX, secret_file, text_file};
use crate::config::raw::RawOci;
use crate::config::services::{Dialect, OciChat, OciFormat, OciKey, OciServing};
use crate::config::{CloudService, RawCloud};

/// Oracle's commercial realm.
const DOMAIN: &str = "oraclecloud.com";
/// Bytes of an OCID.
const OCID_BYTES_MAX: usize = 255;

/// What a profile of the SDK's file says.
#[derive(Default)]
struct Profile {
    tenancy: Option<String>,
    user: Option<String>,
    fingerprint: Option<String>,
    key_file: Option<String>,
    region: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Api {
    Chat,
    OpenAi,
}

impl Checker<'_> {
    /// Where the row's region is; None: it has none, or something was complained about.
    pub(super) fn oci_url(&mut self, raw: &RawCloud) -> Option<String> {
        let oci = raw.services.oci.as_ref()?;
        let region = oci.region.clone().or_else(|| self.profile(oci, false)?.region);
        let Some(region) = region else {
            self.complain("oci.region", "is required, or base_url, or a region in the profile");
            return None;
        };
        let domain = oci.domain.as_deref().unwrap_or(DOMAIN);
        let label = |text: &str| {
            let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            !text.is_empty() && text.bytes().all(letter)
        };
        if !label(&region) {
            self.complain("oci.region", "must be a region as in us-chicago-1");
            return None;
        }
        if !domain.contains('.') || !domain.split('.').all(label) {
            self.complain("oci.domain", "must be a domain as in oraclecloud.eu");
            return None;
        }
        let path = match self.oci_api(oci) {
            Api::Chat => "/20231130",
            Api::OpenAi => "/openai/v1",
        };
        Some(format!("https://inference.generativeai.{region}.oci.{domain}{path}"))
    }

    fn oci_api(&mut self, oci: &RawOci) -> Api {
        let words = [("chat", Api::Chat), ("openai", Api::OpenAi)];
        self.choice("oci.api", oci.api.as_deref(), Api::Chat, &words)
    }

    pub(super) fn oci(&mut self, raw: &RawCloud) -> Option<CloudService> {
        let Some(oci) = &raw.services.oci else {
            self.complain("oci", "is required for provider = \"oci\": a table with compartment");
            return None;
        };
        let bearer = raw.api_key_env.is_some() || raw.api_key_file.is_some();
        match self.oci_api(oci) {
            Api::OpenAi => {
                if !bearer {
                    self.complain(
                        "api_key_env",
                        "or api_key_file is required for api = \"openai\"",
                    );
                }
                self.oci_unused(oci);
                Some(CloudService::Dialect(Arc::new(Dialect::OCI)))
            }
            Api::Chat => {
                if bearer {
                    self.complain("api_key_env", "and api_key_file are for oci.api = \"openai\"");
                }
                self.oci_chat(oci).map(CloudService::Oci)
            }
        }
    }

    /// What only the signed API has.
    fn oci_unused(&mut self, oci: &RawOci) {
        let typed = [
            ("oci.compartment", &oci.compartment),
            ("oci.endpoint", &oci.endpoint),
            ("oci.format", &oci.format),
            ("oci.tenancy", &oci.tenancy),
            ("oci.user", &oci.user),
            ("oci.fingerprint", &oci.fingerprint),
            ("oci.key_file", &oci.key_file),
        ];
        for (key, _) in typed.into_iter().filter(|(_, typed)| typed.is_some()) {
            self.complain(key, "is for oci.api = \"chat\" only");
        }
    }

    fn oci_chat(&mut self, oci: &RawOci) -> Option<OciChat> {
        let formats = [("generic", OciFormat::Generic), ("cohere", OciFormat::Cohere)];
        let format = self.choice("oci.format", oci.format.as_deref(), OciFormat::Generic, &formats);
        let compartment = self.ocid("oci.compartment", oci.compartment.as_deref(), true);
        let endpoint = self.ocid("oci.endpoint", oci.endpoint.as_deref(), false);
        let key = self.oci_key(oci);
        Some(OciChat {
            compartment: compartment?.into(),
            serving: endpoint.map_or(OciServing::OnDemand, |id| OciServing::Dedicated(id.into())),
            format,
            key: key?,
        })
    }

    fn ocid<'t>(&mut self, key: &str, typed: Option<&'t str>, needed: bool) -> Option<&'t str> {
        let typed = match needed {
            true => self.required(key, typed)?,
            false => typed?,
        };
        let sane = typed.starts_with("ocid1.") && typed.len() <= OCID_BYTES_MAX;
        if sane && typed.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'/') {
            return Some(typed);
        }
        self.complain(key, "must be an OCID, as in ocid1.compartment.oc1..");
        None
    }

    fn oci_key(&mut self, oci: &RawOci) -> Option<OciKey> {
        let typed = [&oci.tenancy, &oci.user, &oci.fingerprint, &oci.key_file];
        let whole = typed.iter().all(|typed| typed.is_some());
        let profile = if whole { Profile::default() } else { self.profile(oci, true)? };
        let tenancy = oci.tenancy.clone().or(profile.tenancy);
        let user = oci.user.clone().or(profile.user);
        let tenancy = self.ocid("oci.tenancy", tenancy.as_deref(), true)?.to_owned();
        let user = self.ocid("oci.user", user.as_deref(), true)?.to_owned();
        let fingerprint = oci.fingerprint.clone().or(profile.fingerprint);
        let fingerprint = self.required("oci.fingerprint", fingerprint.as_deref())?.to_owned();
        let hex = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
        if fingerprint.split(':').count() != 16 || !fingerprint.split(':').all(hex) {
            self.complain("oci.fingerprint", "must be 16 pairs of digits with colons between");
            return None;
        }
        let file = oci.key_file.clone().or(profile.key_file);
        let file = self.required("oci.key_file", file.as_deref())?;
        let file = self.home_expanded(file);
        let id = format!("{tenancy}/{user}/{fingerprint}");
        let key = secret_file(&file, KEY_BYTES_MAX)
            .and_then(|pem| OciKey::from_pem(&id, pem.as_bytes()).map_err(|e| e.to_string()));
        match key {
            Ok(key) => Some(key),
            Err(wrong) => {
                self.complain("oci.key_file", format!("{}: {wrong}", file.display()));
                None
            }
        }
    }

    /// The profile in Oracle's own file. Without `loud` a file that is not there is no profile.
    fn profile(&mut self, oci: &RawOci, loud: bool) -> Option<Profile> {
        let file = self.home_expanded(oci.config_file.as_deref().unwrap_or("~/.oci/config"));
        let name = oci.profile.as_deref().unwrap_or("DEFAULT");
        let found = text_file(&file, KEY_BYTES_MAX).and_then(|text| {
            profile_in(&text, name).ok_or_else(|| format!("has no profile [{name}]"))
        });
        match found {
            Ok(profile) => Some(profile),
            Err(_) if !loud && oci.config_file.is_none() && oci.profile.is_none() => None,
            Err(wrong) => {
                let message = format!(
                    "{}: {wrong}; tenancy, user, fingerprint and key_file may stand in the row",
                    file.display()
                );
                self.complain("oci.config_file", message);
                None
            }
        }
    }

    /// `~/` as the shell reads it.
    fn home_expanded(&self, path: &str) -> PathBuf {
        let home = path.strip_prefix("~/").and_then(|rest| Some((rest, (self.env)("HOME").ok()?)));
        home.map_or_else(|| path.into(), |(rest, home)| Path::new(&home).join(rest))
    }
}

/// `[NAME]` and `key=value` lines; `DEFAULT` holds for every profile that does not say otherwise.
fn profile_in(text: &str, name: &str) -> Option<Profile> {
    let (mut own, mut default) = (None, Profile::default());
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if let Some(title) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = title.trim();
            if section == name {
                own.get_or_insert_with(Profile::default);
            }
        } else if let (Some((key, value)), false) = (line.split_once('='), line.starts_with('#')) {
            let value = value.trim().to_owned();
            if section == name {
                own.get_or_insert_with(Profile::default).set(key.trim(), value);
            } else if section == "DEFAULT" {
                default.set(key.trim(), value);
            }
        }
    }
    let own = own?;
    Some(Profile {
        tenancy: own.tenancy.or(default.tenancy),
        user: own.user.or(default.user),
        fingerprint: own.fingerprint.or(default.fingerprint),
        key_file: own.key_file.or(default.key_file),
        region: own.region.or(default.region),
    })
}

impl Profile {
    fn set(&mut self, key: &str, value: String) {
        let field = match key {
            "tenancy" => &mut self.tenancy,
            "user" => &mut self.user,
            "fingerprint" => &mut self.fingerprint,
            "key_file" => &mut self.key_file,
            "region" => &mut self.region,
            // A passphrase is complained about where the key turns out to need one.
            _ => return,
        };
        *field = Some(value);
    }
}
