//! What the user typed: a file and flags, checked for shape only.
//!
//! The file is walked key by key instead of through derived deserialisation, because that stops
//! at the first wrong type or unknown key and a user wants to hear of all of them.

mod azure;
mod money;
mod policy;
mod section;
mod services;
mod vertex;

use std::fmt;

pub(super) use azure::RawAzure;
pub(super) use money::{RawLedger, RawPrice};
pub(super) use policy::{RawBudget, RawDeclared, RawPath, RawRequire, RawSecret, RawTenant};
pub(super) use section::row_prefix;
use section::{Section, rows};
pub(super) use services::{RawAws, RawOci, RawOpenAi, RawOpenRouter, RawServices};
use toml::Table;
pub(super) use vertex::RawVertex;

/// Something wrong with the configuration, and the key that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// As in `[model] slots` or `[[cloud]] burst: base_url`.
    pub key: String,
    /// A sentence without the key.
    pub message: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// The configuration as typed; None where a key was not. Numbers have any size.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawConfig {
    /// No key of the file: `weir serve --offline`.
    pub offline: bool,
    pub serve: RawServe,
    pub model: RawModel,
    pub overflow: RawOverflow,
    pub clouds: Vec<RawCloud>,
    pub tenants: Vec<RawTenant>,
    pub paths: Vec<RawPath>,
    pub secrets: Vec<RawSecret>,
    pub ledger: RawLedger,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawServe {
    pub listen: Option<Vec<String>>,
    pub allow_hosts: Option<Vec<String>>,
    pub allow_origins: Option<Vec<String>>,
    pub copilot_token: Option<bool>,
    pub strict_model: Option<bool>,
    pub grace_ms: Option<i64>,
    pub connections_max: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawModel {
    pub path: Option<String>,
    pub quant: Option<String>,
    pub kv: Option<String>,
    pub isa: Option<String>,
    pub threads: Option<i64>,
    pub context: Option<i64>,
    pub slots: Option<i64>,
    pub kv_memory_mb: Option<i64>,
    pub queue_max: Option<i64>,
    pub step_ms_max: Option<i64>,
    pub fim_order: Option<String>,
    pub fim_lines: Option<String>,
    pub fim_text_tokens: Option<i64>,
    pub speculate: Option<String>,
    pub cache_dir: Option<String>,
    pub cache_max_mb: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawOverflow {
    pub ttft_objective_ms: Option<i64>,
    pub enter: Option<f64>,
    pub leave: Option<f64>,
    pub dwell_ms: Option<i64>,
    pub place: Option<String>,
    pub hedge: Option<bool>,
    pub anonymous_cloud: Option<bool>,
    pub unknown_path: Option<String>,
    pub unmatched_path: Option<String>,
    pub on_secret: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawCloud {
    pub name: Option<String>,
    pub provider: Option<String>,
    pub base_url: Option<String>,
    pub api_key_env: Option<String>,
    pub api_key_file: Option<String>,
    pub model: Option<String>,
    pub fim: Option<String>,
    pub fim_family: Option<String>,
    pub stream: Option<bool>,
    pub max_tokens: Option<i64>,
    pub max_in_flight: Option<i64>,
    pub requests_per_min: Option<i64>,
    pub tokens_per_min: Option<i64>,
    pub prefer: Option<i64>,
    pub connect_timeout_ms: Option<i64>,
    pub first_token_timeout_ms: Option<i64>,
    pub idle_timeout_ms: Option<i64>,
    pub declared: RawDeclared,
    pub budget: RawBudget,
    pub price: Option<RawPrice>,
    pub hourly_usd: Option<f64>,
    pub connection: RawConnection,
    pub services: RawServices,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawConnection {
    pub proxy: Option<String>,
    pub proxy_auth_env: Option<String>,
    pub proxy_auth_file: Option<String>,
    pub ca_file: Option<String>,
    pub client_cert_file: Option<String>,
    pub client_key_file: Option<String>,
}

impl RawConfig {
    /// Reads a TOML text. What is wrong with its shape is added to `complaints`, and the rest
    /// is read all the same.
    pub fn parse(text: &str, complaints: &mut Vec<Complaint>) -> Self {
        let mut table = match text.parse::<Table>() {
            Ok(table) => table,
            Err(error) => {
                complaints.push(syntax(text, &error));
                return Self::default();
            }
        };
        let mut raw = Self::default();
        raw.serve.read(&mut Section::of(&mut table, "serve", complaints));
        raw.model.read(&mut Section::of(&mut table, "model", complaints));
        raw.overflow.read(&mut Section::of(&mut table, "overflow", complaints));
        raw.clouds = rows(&mut table, "cloud", "name", complaints, RawCloud::read);
        raw.tenants = rows(&mut table, "tenant", "name", complaints, RawTenant::read);
        raw.paths = rows(&mut table, "path", "pattern", complaints, RawPath::read);
        raw.secrets = rows(&mut table, "secret", "name", complaints, RawSecret::read);
        raw.ledger.read(&mut Section::of(&mut table, "ledger", complaints));
        for key in table.keys() {
            let message = "unknown; there are [serve], [model], [overflow], [[cloud]], [[tenant]], \
                           [[path]], [[secret]] and [ledger]";
            complaints.push(Complaint { key: key.clone(), message: message.into() });
        }
        raw
    }

    /// Puts what flags say over what the file says.
    pub fn override_with(&mut self, flags: Overrides) {
        fn set<T>(to: &mut Option<T>, from: Option<T>) {
            if from.is_some() {
                *to = from;
            }
        }
        self.offline |= flags.offline;
        set(&mut self.serve.listen, flags.listen);
        set(&mut self.model.path, flags.model);
        set(&mut self.model.quant, flags.quant);
        set(&mut self.model.kv, flags.kv);
        set(&mut self.model.isa, flags.isa);
        set(&mut self.model.threads, flags.threads);
        set(&mut self.model.context, flags.context);
        set(&mut self.model.slots, flags.slots);
        set(&mut self.model.speculate, flags.speculate);
    }
}

/// What flags can say; they win over the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    pub listen: Option<Vec<String>>,
    pub model: Option<String>,
    pub quant: Option<String>,
    pub kv: Option<String>,
    pub isa: Option<String>,
    pub threads: Option<i64>,
    pub context: Option<i64>,
    pub slots: Option<i64>,
    pub speculate: Option<String>,
    /// Whether no cloud is used, whatever the file says.
    pub offline: bool,
}

impl RawServe {
    fn read(&mut self, section: &mut Section<'_>) {
        self.listen = section.take("listen");
        self.allow_hosts = section.take("allow_hosts");
        self.allow_origins = section.take("allow_origins");
        self.copilot_token = section.take("copilot_token");
        self.strict_model = section.take("strict_model");
        self.grace_ms = section.take("grace_ms");
        self.connections_max = section.take("connections_max");
    }
}

impl RawModel {
    fn read(&mut self, section: &mut Section<'_>) {
        self.path = section.take("path");
        self.quant = section.take("quant");
        self.kv = section.take("kv");
        self.isa = section.take("isa");
        self.threads = section.take("threads");
        self.context = section.take("context");
        self.slots = section.take("slots");
        self.kv_memory_mb = section.take("kv_memory_mb");
        self.queue_max = section.take("queue_max");
        self.step_ms_max = section.take("step_ms_max");
        self.fim_order = section.take("fim_order");
        self.fim_lines = section.take("fim_lines");
        self.fim_text_tokens = section.take("fim_text_tokens");
        self.speculate = section.take("speculate");
        self.cache_dir = section.take("cache_dir");
        self.cache_max_mb = section.take("cache_max_mb");
    }
}

impl RawOverflow {
    fn read(&mut self, section: &mut Section<'_>) {
        self.ttft_objective_ms = section.take("ttft_objective_ms");
        self.enter = section.take("enter");
        self.leave = section.take("leave");
        self.dwell_ms = section.take("dwell_ms");
        self.place = section.take("place");
        self.hedge = section.take("hedge");
        self.anonymous_cloud = section.take("anonymous_cloud");
        self.unknown_path = section.take("unknown_path");
        self.unmatched_path = section.take("unmatched_path");
        self.on_secret = section.take("on_secret");
    }
}

impl RawCloud {
    fn read(&mut self, section: &mut Section<'_>) {
        self.name = section.take("name");
        self.provider = section.take("provider");
        self.base_url = section.take("base_url");
        self.api_key_env = section.take("api_key_env");
        self.api_key_file = section.take("api_key_file");
        self.model = section.take("model");
        self.fim = section.take("fim");
        self.fim_family = section.take("fim_family");
        self.stream = section.take("stream");
        self.max_tokens = section.take("max_tokens");
        self.max_in_flight = section.take("max_in_flight");
        self.requests_per_min = section.take("requests_per_min");
        self.tokens_per_min = section.take("tokens_per_min");
        self.prefer = section.take("prefer");
        self.connect_timeout_ms = section.take("connect_timeout_ms");
        self.first_token_timeout_ms = section.take("first_token_timeout_ms");
        self.idle_timeout_ms = section.take("idle_timeout_ms");
        self.declared.read(section);
        self.budget.read(section);
        self.price = section.table("price", RawPrice::read);
        self.hourly_usd = section.take("hourly_usd");
        self.connection.read(section);
        self.services.read(section);
    }
}

impl RawConnection {
    fn read(&mut self, section: &mut Section<'_>) {
        self.proxy = section.take("proxy");
        self.proxy_auth_env = section.take("proxy_auth_env");
        self.proxy_auth_file = section.take("proxy_auth_file");
        self.ca_file = section.take("ca_file");
        self.client_cert_file = section.take("client_cert_file");
        self.client_key_file = section.take("client_key_file");
    }
}

fn syntax(text: &str, error: &toml::de::Error) -> Complaint {
    let key = match error.span() {
        Some(span) => {
            let before = text.get(..span.start).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            format!("line {line}, column {column}")
        }
        None => "file".into(),
    };
    Complaint { key, message: error.message().trim().replace('\n', "; ") }
}
