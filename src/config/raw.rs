//! What the user typed: a file and flags, checked for shape only.
//!
//! The file is walked key by key instead of through derived deserialisation, because that stops
//! at the first wrong type or unknown key and a user wants to hear of all of them.

mod money;

use std::fmt;

pub(super) use money::{RawLedger, RawPrice};
use toml::{Table, Value};

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
    pub serve: RawServe,
    pub model: RawModel,
    pub overflow: RawOverflow,
    pub clouds: Vec<RawCloud>,
    pub ledger: RawLedger,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawServe {
    pub listen: Option<Vec<String>>,
    pub allow_hosts: Option<Vec<String>>,
    pub allow_origins: Option<Vec<String>>,
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
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawCloud {
    pub name: Option<String>,
    pub base_url: Option<String>,
    pub api_key_env: Option<String>,
    pub api_key_file: Option<String>,
    pub model: Option<String>,
    pub fim: Option<String>,
    pub fim_family: Option<String>,
    pub max_tokens: Option<i64>,
    pub max_in_flight: Option<i64>,
    pub connect_timeout_ms: Option<i64>,
    pub first_token_timeout_ms: Option<i64>,
    pub idle_timeout_ms: Option<i64>,
    pub price: Option<RawPrice>,
    pub hourly_usd: Option<f64>,
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
        raw.clouds = clouds(&mut table, complaints);
        raw.ledger.read(&mut Section::of(&mut table, "ledger", complaints));
        for key in table.keys() {
            let message = "unknown; there are [serve], [model], [overflow], [[cloud]] and [ledger]";
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
}

impl RawServe {
    fn read(&mut self, section: &mut Section<'_>) {
        self.listen = section.take("listen");
        self.allow_hosts = section.take("allow_hosts");
        self.allow_origins = section.take("allow_origins");
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
    }
}

impl RawCloud {
    fn read(&mut self, section: &mut Section<'_>) {
        self.name = section.take("name");
        self.base_url = section.take("base_url");
        self.api_key_env = section.take("api_key_env");
        self.api_key_file = section.take("api_key_file");
        self.model = section.take("model");
        self.fim = section.take("fim");
        self.fim_family = section.take("fim_family");
        self.max_tokens = section.take("max_tokens");
        self.max_in_flight = section.take("max_in_flight");
        self.connect_timeout_ms = section.take("connect_timeout_ms");
        self.first_token_timeout_ms = section.take("first_token_timeout_ms");
        self.idle_timeout_ms = section.take("idle_timeout_ms");
        self.price = section.table("price", RawPrice::read);
        self.hourly_usd = section.take("hourly_usd");
    }
}

fn clouds(table: &mut Table, complaints: &mut Vec<Complaint>) -> Vec<RawCloud> {
    let Some(value) = table.remove("cloud") else { return Vec::new() };
    let rows = match value {
        Value::Array(rows) if rows.iter().all(Value::is_table) => rows,
        _ => {
            let message = "must be rows, each begun by [[cloud]]";
            complaints.push(Complaint { key: "[[cloud]]".into(), message: message.into() });
            return Vec::new();
        }
    };
    let tables = rows.into_iter().filter_map(|row| match row {
        Value::Table(table) => Some(table),
        _ => None,
    });
    let mut clouds = Vec::new();
    for (index, table) in tables.enumerate() {
        let name = table.get("name").and_then(Value::as_str);
        let prefix = cloud_prefix(name, index);
        let mut cloud = RawCloud::default();
        cloud.read(&mut Section::new(prefix, table, complaints));
        clouds.push(cloud);
    }
    clouds
}

/// How complaints call a cloud row: by its name, or by its place where it has none.
pub(super) fn cloud_prefix(name: Option<&str>, index: usize) -> String {
    match name {
        Some(name) if !name.is_empty() => format!("[[cloud]] {name}: "),
        _ => format!("[[cloud]] row {}: ", index + 1),
    }
}

/// A table being read; what is left in it when it is dropped was not known.
struct Section<'a> {
    /// What complaints put before the key.
    prefix: String,
    table: Table,
    known: Vec<&'static str>,
    complaints: &'a mut Vec<Complaint>,
}

impl<'a> Section<'a> {
    fn new(prefix: String, table: Table, complaints: &'a mut Vec<Complaint>) -> Self {
        Self { prefix, table, known: Vec::new(), complaints }
    }

    /// Takes `[name]` out of the document.
    fn of(document: &mut Table, name: &str, complaints: &'a mut Vec<Complaint>) -> Self {
        let table = match document.remove(name) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                let message = format!("must be a table, is {}", kind(&other));
                complaints.push(Complaint { key: format!("[{name}]"), message });
                Table::new()
            }
        };
        Self::new(format!("[{name}] "), table, complaints)
    }

    fn take<T: FromToml>(&mut self, key: &'static str) -> Option<T> {
        self.known.push(key);
        let value = self.table.remove(key)?;
        let is = kind(&value);
        let taken = T::from_toml(value);
        if taken.is_none() {
            let message = format!("must be {}, is {is}", T::KIND);
            self.complaints.push(Complaint { key: format!("{}{key}", self.prefix), message });
        }
        taken
    }
}

impl Section<'_> {
    /// A table inside this one, read by `read`; None when it is not there.
    fn table<T: Default>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut T, &mut Section<'_>),
    ) -> Option<T> {
        self.known.push(key);
        let value = self.table.remove(key)?;
        let Value::Table(table) = value else {
            let message = format!("must be a table, is {}", kind(&value));
            self.complaints.push(Complaint { key: format!("{}{key}", self.prefix), message });
            return None;
        };
        let mut inside = T::default();
        let prefix = format!("{}{key}.", self.prefix);
        read(&mut inside, &mut Section::new(prefix, table, self.complaints));
        Some(inside)
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        for key in self.table.keys() {
            let message = format!("unknown key; known are {}", self.known.join(", "));
            self.complaints.push(Complaint { key: format!("{}{key}", self.prefix), message });
        }
    }
}

trait FromToml: Sized {
    /// With its article.
    const KIND: &'static str;
    fn from_toml(value: Value) -> Option<Self>;
}

impl FromToml for String {
    const KIND: &'static str = "a string";
    fn from_toml(value: Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
}

impl FromToml for i64 {
    const KIND: &'static str = "an integer";
    fn from_toml(value: Value) -> Option<Self> {
        value.as_integer()
    }
}

impl FromToml for f64 {
    const KIND: &'static str = "a number";
    fn from_toml(value: Value) -> Option<Self> {
        // Whoever writes `enter = 1` means 1.0.
        value.as_float().or_else(|| value.as_integer().map(|n| n as f64))
    }
}

impl FromToml for Vec<String> {
    const KIND: &'static str = "a list of strings";
    fn from_toml(value: Value) -> Option<Self> {
        match value {
            Value::Array(values) => values.into_iter().map(String::from_toml).collect(),
            _ => None,
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "a boolean",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
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
