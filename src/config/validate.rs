//! From what was typed to what we run: one conversion, all complaints at once.

mod money;

use std::collections::HashSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use models::fim::Family;

use super::raw::cloud_prefix;
use super::{
    Cache, CloudConfig, CloudFim, Complaint, Config, FimOrder, KvFormat, Lookup, ModelConfig,
    ModelPath, OverflowConfig, Quant, RawCloud, RawConfig, RawModel, RawOverflow, RawServe, Secret,
    ServeConfig, Speculate, defaults,
};

/// Most `[[cloud]]` rows; each is a label value of `weir_requests_total`.
const CLOUDS_MAX: usize = 64;
/// Longest cloud name in bytes; it goes into a header and a metric label.
const CLOUD_NAME_MAX: usize = 64;
/// Largest key file in bytes; keys have tens to a few thousand.
const KEY_BYTES_MAX: usize = 16 << 10;
/// Upper bound of every duration key: an hour. What is longer was meant in another unit.
const DURATION_MS_MAX: i64 = 3_600_000;
/// Upper bound of counts of connections, waiting and running requests.
const COUNT_MAX: i64 = 65_536;
/// Upper bound of token counts; no model here or out there reads a longer context.
const TOKENS_MAX: i64 = 1 << 24;
/// Shortest context that holds a FIM prompt worth the name.
const CONTEXT_MIN: i64 = 16;
/// Upper bound of saturation thresholds: a queue of this many objectives helps nobody.
const SATURATION_MAX: f64 = 1000.0;

/// Converts, and adds what is wrong to `complaints` and what is odd to `warnings`. The result
/// is only meant to be used when nothing was added to `complaints`.
pub(super) fn validate(
    raw: &RawConfig,
    env: Lookup<'_>,
    complaints: &mut Vec<Complaint>,
    warnings: &mut Vec<Complaint>,
) -> Config {
    let mut checker = Checker { prefix: String::new(), env, complaints, warnings };
    let clouds = checker.clouds(&raw.clouds);
    let config = Config {
        serve: checker.serve(&raw.serve),
        model: checker.model(&raw.model),
        overflow: checker.overflow(&raw.overflow),
        ledger: checker.ledger(raw, &clouds),
        clouds,
    };
    if raw.clouds.is_empty() && raw.overflow != RawOverflow::default() {
        checker.prefix = String::new();
        checker.warn("[overflow]", "has no effect without a [[cloud]]");
    }
    config
}

struct Checker<'a> {
    /// What complaints put before the key.
    prefix: String,
    env: Lookup<'a>,
    complaints: &'a mut Vec<Complaint>,
    warnings: &'a mut Vec<Complaint>,
}

impl Checker<'_> {
    fn complain(&mut self, key: &str, message: impl Into<String>) {
        let key = format!("{}{key}", self.prefix);
        self.complaints.push(Complaint { key, message: message.into() });
    }

    fn warn(&mut self, key: &str, message: impl Into<String>) {
        let key = format!("{}{key}", self.prefix);
        self.warnings.push(Complaint { key, message: message.into() });
    }

    /// The value if it is in the range, otherwise a complaint and the default.
    fn within<T>(&mut self, key: &str, value: Option<T>, default: T, range: RangeInclusive<T>) -> T
    where
        T: PartialOrd + Display + Copy,
    {
        match value {
            None => default,
            Some(value) if range.contains(&value) => value,
            Some(value) => {
                let (low, high) = (range.start(), range.end());
                self.complain(key, format!("must be {low} to {high}, is {value}"));
                default
            }
        }
    }

    fn count(&mut self, key: &str, value: Option<i64>, default: i64, max: i64) -> usize {
        usize::try_from(self.within(key, value, default, 1..=max)).unwrap_or(usize::MAX)
    }

    /// A count that weir works out by itself when it is absent.
    fn optional(
        &mut self,
        key: &str,
        value: Option<i64>,
        range: RangeInclusive<i64>,
    ) -> Option<usize> {
        value.map(|value| {
            let value = self.within(key, Some(value), *range.start(), range);
            usize::try_from(value).unwrap_or(usize::MAX)
        })
    }

    fn duration(&mut self, key: &str, value: Option<i64>, default: i64, min: i64) -> Duration {
        let ms = self.within(key, value, default, min..=DURATION_MS_MAX);
        Duration::from_millis(ms.unsigned_abs())
    }

    /// One of a few words.
    fn choice<T: Copy>(
        &mut self,
        key: &str,
        value: Option<&str>,
        default: T,
        choices: &[(&str, T)],
    ) -> T {
        let Some(value) = value else { return default };
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == value) {
            return *choice;
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        self.complain(key, format!("must be one of {}, is {value:?}", words.join(", ")));
        default
    }

    fn serve(&mut self, raw: &RawServe) -> ServeConfig {
        self.prefix = "[serve] ".into();
        let allow_hosts = self.hosts(raw.allow_hosts.as_deref().unwrap_or_default());
        let listen = self.listen(raw.listen.as_deref(), &allow_hosts);
        ServeConfig {
            connections_max: self.connections_max(raw.connections_max, listen.len()),
            listen,
            allow_hosts,
            allow_origins: self.origins(raw.allow_origins.as_deref().unwrap_or_default()),
            grace: self.duration("grace_ms", raw.grace_ms, defaults::GRACE_MS, 0),
        }
    }

    /// At least one for each address: a listener holds a place while it waits for a connection.
    fn connections_max(&mut self, typed: Option<i64>, addresses: usize) -> usize {
        let key = "connections_max";
        let max = self.count(key, typed, defaults::CONNECTIONS_MAX, COUNT_MAX);
        if max < addresses {
            let message = format!("must be at least one for each of {addresses} listen addresses");
            self.complain(key, format!("{message}, is {max}"));
        }
        max
    }

    fn listen(&mut self, typed: Option<&[String]>, allow_hosts: &[String]) -> Vec<SocketAddr> {
        let Some(typed) = typed else { return vec![defaults::LISTEN] };
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for text in typed {
            match text.parse::<SocketAddr>() {
                Ok(address) if address.port() != 0 && addresses.contains(&address) => {
                    self.complain("listen", format!("names {address} twice"));
                }
                Ok(address) => addresses.push(address),
                Err(_) => self.complain(
                    "listen",
                    format!("must be an IP address and a port as in 127.0.0.1:8012, is {text:?}"),
                ),
            }
        }
        if typed.is_empty() {
            self.complain("listen", "names no address");
        }
        for address in &addresses {
            if !address.ip().to_canonical().is_loopback() {
                self.warn_open(*address, allow_hosts);
            }
        }
        addresses
    }

    fn warn_open(&mut self, address: SocketAddr, allow_hosts: &[String]) {
        self.warn(
            "listen",
            format!(
                "{address} can be reached from other machines, and weir asks nobody for a key: \
                 whoever reaches it may use it"
            ),
        );
        if address.ip().is_unspecified() && allow_hosts.is_empty() {
            self.warn(
                "allow_hosts",
                format!(
                    "is empty while weir listens on {address}: a request is refused unless its \
                     Host is a loopback name or an address of this machine; list the names that \
                     clients use"
                ),
            );
        }
    }

    fn hosts(&mut self, typed: &[String]) -> Vec<String> {
        let mut hosts = Vec::new();
        for host in typed {
            let authority = host.parse::<hyper::http::uri::Authority>();
            match authority {
                Ok(authority) if !host.contains('@') && !authority.host().contains('*') => {
                    hosts.push(host.to_ascii_lowercase());
                }
                _ => self.complain(
                    "allow_hosts",
                    format!("must be names as in box.example or box.example:8012, has {host:?}"),
                ),
            }
        }
        hosts
    }

    fn origins(&mut self, typed: &[String]) -> Vec<String> {
        let mut origins = Vec::new();
        for origin in typed {
            if is_origin(origin) {
                origins.push(origin.to_ascii_lowercase());
            } else {
                let message = format!(
                    "must be origins as in https://editor.example (scheme, host, port, no path), \
                     has {origin:?}"
                );
                self.complain("allow_origins", message);
            }
        }
        origins
    }

    fn model(&mut self, raw: &RawModel) -> ModelConfig {
        self.prefix = "[model] ".into();
        let step_ms_max = self.within(
            "step_ms_max",
            raw.step_ms_max,
            i64::from(defaults::STEP_MS_MAX),
            1..=DURATION_MS_MAX,
        );
        ModelConfig {
            path: self.model_path(raw.path.as_deref()),
            quant: self.choice("quant", raw.quant.as_deref(), Quant::Auto, &QUANTS),
            kv: self.choice("kv", raw.kv.as_deref(), KvFormat::Auto, &KV_FORMATS),
            isa: self.isa(raw.isa.as_deref()),
            threads: self.optional("threads", raw.threads, 1..=1024),
            context: self.optional("context", raw.context, CONTEXT_MIN..=TOKENS_MAX),
            slots: self.count("slots", raw.slots, defaults::SLOTS, 1024),
            kv_memory_mb: self.optional("kv_memory_mb", raw.kv_memory_mb, 1..=TOKENS_MAX),
            queue_max: self.count("queue_max", raw.queue_max, defaults::QUEUE_MAX, COUNT_MAX),
            step_ms_max: u32::try_from(step_ms_max).unwrap_or(defaults::STEP_MS_MAX),
            fim_order: self.choice(
                "fim_order",
                raw.fim_order.as_deref(),
                FimOrder::Auto,
                &FIM_ORDERS,
            ),
            speculate: self.choice(
                "speculate",
                raw.speculate.as_deref(),
                Speculate::Auto,
                &SPECULATE,
            ),
            cache: self.cache(raw),
        }
    }

    /// None: it was not wanted, or there is no home for it.
    fn cache(&mut self, raw: &RawModel) -> Option<Cache> {
        let max = defaults::CACHE_MAX_MB;
        let mb = self.within("cache_max_mb", raw.cache_max_mb, max, 0..=TOKENS_MAX);
        let folder = match raw.cache_dir.as_deref() {
            Some("") => {
                self.complain("cache_dir", "must be a path; cache_max_mb = 0 turns the cache off");
                None
            }
            Some(path) => Some(path.into()),
            None => self.cache_home().map(|home| home.join("weir")),
        };
        let bytes_max = mb.unsigned_abs() << 20;
        folder.filter(|_| mb > 0).map(|folder| Cache { folder, bytes_max })
    }

    /// Where this user's caches are, by the XDG Base Directory Specification.
    fn cache_home(&self) -> Option<PathBuf> {
        // A relative path there is to be ignored, it says.
        let absolute = |variable| {
            (self.env)(variable).ok().map(PathBuf::from).filter(|path| path.is_absolute())
        };
        absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))
    }

    fn isa(&mut self, typed: Option<&str>) -> Option<kernels::Isa> {
        let isa = self.choice("isa", typed, None, &ISAS)?;
        if !isa.is_available() {
            let has: Vec<_> = kernels::Isa::available().iter().map(ToString::to_string).collect();
            let message = format!("is {isa}, which this machine lacks; it has {}", has.join(", "));
            self.complain("isa", message);
        }
        Some(isa)
    }

    fn model_path(&mut self, typed: Option<&str>) -> ModelPath {
        match typed {
            None | Some("builtin") => ModelPath::Builtin,
            Some(path) => {
                if !Path::new(path).is_dir() {
                    self.complain("path", format!("must be builtin or a directory, is {path:?}"));
                }
                ModelPath::Directory(path.into())
            }
        }
    }

    fn overflow(&mut self, raw: &RawOverflow) -> OverflowConfig {
        self.prefix = "[overflow] ".into();
        let ttft_objective = self.duration(
            "ttft_objective_ms",
            raw.ttft_objective_ms,
            defaults::TTFT_OBJECTIVE_MS,
            1,
        );
        let enter = self.threshold("enter", raw.enter, defaults::ENTER);
        // An operator who sets only a low `enter` gets a `leave` below it.
        let leave = self.threshold("leave", raw.leave, defaults::LEAVE.min(enter));
        if leave > enter {
            let message = format!("must not be above enter ({enter}), is {leave}");
            self.complain("leave", message);
        }
        let dwell = self.duration("dwell_ms", raw.dwell_ms, defaults::DWELL_MS, 0);
        OverflowConfig { ttft_objective, enter, leave, dwell }
    }

    fn threshold(&mut self, key: &str, value: Option<f64>, default: f64) -> f64 {
        match value {
            None => default,
            // NaN and both infinities fail this too.
            Some(value) if value > 0.0 && value <= SATURATION_MAX => value,
            Some(value) => {
                let message = format!("must be above 0 and at most {SATURATION_MAX}, is {value}");
                self.complain(key, message);
                default
            }
        }
    }

    fn clouds(&mut self, raw: &[RawCloud]) -> Vec<CloudConfig> {
        self.prefix = String::new();
        if raw.len() > CLOUDS_MAX {
            let message = format!("must be at most {CLOUDS_MAX} rows, are {}", raw.len());
            self.complain("[[cloud]]", message);
        }
        let mut names = HashSet::new();
        let mut clouds = Vec::new();
        for (index, row) in raw.iter().enumerate() {
            self.prefix = cloud_prefix(row.name.as_deref(), index);
            if row.name.as_deref().is_some_and(|name| !names.insert(name)) {
                self.complain("name", "is used by an earlier row");
            }
            clouds.extend(self.cloud(row));
        }
        clouds
    }

    /// None: a required key was absent or wrong, and complained about.
    fn cloud(&mut self, raw: &RawCloud) -> Option<CloudConfig> {
        let name = self.cloud_name(raw.name.as_deref());
        let base_url = self.base_url(raw.base_url.as_deref());
        let model = self.required("model", raw.model.as_deref());
        let fim = self.cloud_fim(raw);
        let api_key = self.api_key(raw);
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
        let price = self.price(raw);
        Some(CloudConfig {
            name: Arc::from(name?),
            base_url: base_url?,
            api_key,
            model: Arc::from(model?),
            fim: fim?,
            max_tokens: u32::try_from(max_tokens).unwrap_or(u32::MAX),
            max_in_flight,
            connect_timeout,
            first_token_timeout,
            idle_timeout,
            price,
        })
    }

    fn required<'t>(&mut self, key: &str, value: Option<&'t str>) -> Option<&'t str> {
        match value {
            Some(text) if !text.is_empty() => Some(text),
            _ => {
                self.complain(key, "is required");
                None
            }
        }
    }

    fn cloud_name<'t>(&mut self, typed: Option<&'t str>) -> Option<&'t str> {
        let name = self.required("name", typed)?;
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        if name.len() <= CLOUD_NAME_MAX && name.bytes().all(letter) {
            return Some(name);
        }
        let message = format!("must be at most {CLOUD_NAME_MAX} of a-z, 0-9, - and _");
        self.complain("name", message);
        None
    }

    fn base_url(&mut self, typed: Option<&str>) -> Option<hyper::Uri> {
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
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let loopback = host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if url.scheme_str() == Some("http") && !loopback {
            let what = if key { "prompts and the key" } else { "prompts" };
            self.warn("base_url", format!("is http: {what} travel unencrypted"));
        }
    }

    fn cloud_fim(&mut self, raw: &RawCloud) -> Option<CloudFim> {
        let words = [("suffix", "suffix"), ("template", "template"), ("chat", "chat")];
        let mode = self.choice("fim", raw.fim.as_deref(), defaults::CLOUD_FIM, &words);
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

    fn api_key(&mut self, raw: &RawCloud) -> Option<Secret> {
        match (raw.api_key_env.as_deref(), raw.api_key_file.as_deref()) {
            (None, None) => None,
            (Some(_), Some(_)) => {
                self.complain("api_key_env", "and api_key_file exclude each other");
                None
            }
            (Some(variable), None) => self.key_from_env(variable),
            (None, Some(path)) => match key_from_file(Path::new(path)) {
                Ok(key) => Some(key),
                Err(wrong) => {
                    self.complain("api_key_file", format!("{path}: {wrong}"));
                    None
                }
            },
        }
    }

    fn key_from_env(&mut self, variable: &str) -> Option<Secret> {
        let found = match (self.env)(variable) {
            Ok(text) => key(&text).map_err(|wrong| format!("variable {variable} {wrong}")),
            Err(std::env::VarError::NotPresent) => Err(format!("variable {variable} is not set")),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(format!("variable {variable} is not UTF-8"))
            }
        };
        match found {
            Ok(key) => Some(key),
            Err(wrong) => {
                self.complain("api_key_env", wrong);
                None
            }
        }
    }
}

const SPECULATE: [(&str, Speculate); 3] =
    [("auto", Speculate::Auto), ("off", Speculate::Off), ("always", Speculate::Always)];
const QUANTS: [(&str, Quant); 5] = [
    ("auto", Quant::Auto),
    ("f32", Quant::F32),
    ("bf16", Quant::Bf16),
    ("q8", Quant::Q8),
    ("q4", Quant::Q4),
];
const KV_FORMATS: [(&str, KvFormat); 4] = [
    ("auto", KvFormat::Auto),
    ("f32", KvFormat::F32),
    ("bf16", KvFormat::Bf16),
    ("q8", KvFormat::Q8),
];
const ISAS: [(&str, Option<kernels::Isa>); 5] = [
    ("auto", None),
    ("avx512", Some(kernels::Isa::Avx512)),
    ("avx2", Some(kernels::Isa::Avx2)),
    ("neon", Some(kernels::Isa::Neon)),
    ("scalar", Some(kernels::Isa::Scalar)),
];
const FIM_ORDERS: [(&str, FimOrder); 3] =
    [("auto", FimOrder::Auto), ("psm", FimOrder::Psm), ("spm", FimOrder::Spm)];

/// Scheme, host and port as a browser sends them, and nothing behind.
fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let scheme_ok = !scheme.is_empty()
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let rest_ok = !rest.contains(['/', '@', '*', '?', '#'])
        && rest.parse::<hyper::http::uri::Authority>().is_ok();
    scheme_ok && rest_ok
}

/// Reads a key that only its owner (and group) may read.
fn key_from_file(path: &Path) -> Result<Secret, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if !metadata.is_file() {
        return Err("is no file".into());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if metadata.permissions().mode() & 0o007 != 0 {
            return Err("is open to every user of this machine; chmod 600 it".into());
        }
    }
    if metadata.len() > KEY_BYTES_MAX as u64 {
        return Err(format!("is larger than {KEY_BYTES_MAX} bytes"));
    }
    key(&std::fs::read_to_string(path).map_err(cannot)?).map_err(Into::into)
}

/// A key goes into a header, so it is one line of visible characters.
fn key(text: &str) -> Result<Secret, &'static str> {
    let text = text.trim();
    if text.is_empty() {
        return Err("is empty");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("holds a character that cannot be in a key");
    }
    Ok(Secret::new(text))
}
