//! From what was typed to what we run: one conversion, all complaints at once.

mod aws;
mod azure;
mod cloud;
mod connection;
mod declared;
mod google_file;
mod keys;
mod money;
mod oci;
mod pem;
mod secrets;
mod service;
mod tenant;
mod vertex;

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) use keys::{key, key_from_file};

use super::{
    Cache, Complaint, Config, FimLines, FimOrder, KvFormat, Lookup, ModelConfig, ModelPath,
    OverflowConfig, Placing, Quant, RawConfig, RawModel, RawOverflow, RawServe, ServeConfig,
    Speculate, defaults,
};

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
        offline: raw.offline,
        serve: checker.serve(&raw.serve, !raw.tenants.is_empty()),
        model: checker.model(&raw.model),
        overflow: checker.overflow(&raw.overflow),
        ledger: checker.ledger(raw, &clouds),
        clouds,
        policy: checker.policy(raw),
    };
    checker.prefix = String::new();
    checker.warn_unused_clouds(&config);
    checker.warn_unpriced_clouds(&config);
    if raw.clouds.is_empty() && raw.overflow != RawOverflow::default() {
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

    fn serve(&mut self, raw: &RawServe, keyed: bool) -> ServeConfig {
        self.prefix = "[serve] ".into();
        let allow_hosts = self.hosts(raw.allow_hosts.as_deref().unwrap_or_default());
        let (listen, listen_too) = match raw.listen.as_deref() {
            Some(typed) => (self.listen(typed), Vec::new()),
            None => (vec![defaults::LISTEN], vec![defaults::LISTEN_V6]),
        };
        for address in listen.iter().filter(|at| !at.ip().to_canonical().is_loopback()) {
            self.warn_open(*address, &allow_hosts, keyed);
        }
        ServeConfig {
            connections_max: self
                .connections_max(raw.connections_max, listen.len() + listen_too.len()),
            listen,
            listen_too,
            allow_hosts,
            allow_origins: self.origins(raw.allow_origins.as_deref().unwrap_or_default()),
            copilot_token: raw.copilot_token.unwrap_or(false),
            strict_model: raw.strict_model.unwrap_or(false),
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

    fn listen(&mut self, typed: &[String]) -> Vec<SocketAddr> {
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
        addresses
    }

    fn warn_open(&mut self, address: SocketAddr, allow_hosts: &[String], keyed: bool) {
        let what = match keyed {
            true => "and weir speaks no TLS: keys and prompts travel unencrypted",
            false => {
                "and weir asks nobody for a key: whoever reaches it may use it ([[tenant]] rows \
                 have keys)"
            }
        };
        self.warn("listen", format!("{address} can be reached from other machines, {what}"));
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
            fim_lines: self.choice(
                "fim_lines",
                raw.fim_lines.as_deref(),
                FimLines::Auto,
                &FIM_LINES,
            ),
            fim_text_tokens: self.count(
                "fim_text_tokens",
                raw.fim_text_tokens,
                defaults::FIM_TEXT_TOKENS,
                TOKENS_MAX,
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
        let words = [("excess", Placing::Excess), ("fastest", Placing::Fastest)];
        let placing = self.choice("place", raw.place.as_deref(), Placing::Excess, &words);
        let hedge = raw.hedge.unwrap_or(false);
        OverflowConfig { ttft_objective, enter, leave, dwell, placing, hedge }
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
const ISAS: [(&str, Option<kernels::Isa>); 6] = [
    ("auto", None),
    ("amx", Some(kernels::Isa::Amx)),
    ("avx512", Some(kernels::Isa::Avx512)),
    ("avx2", Some(kernels::Isa::Avx2)),
    ("neon", Some(kernels::Isa::Neon)),
    ("scalar", Some(kernels::Isa::Scalar)),
];
const FIM_ORDERS: [(&str, FimOrder); 3] =
    [("auto", FimOrder::Auto), ("psm", FimOrder::Psm), ("spm", FimOrder::Spm)];
const FIM_LINES: [(&str, FimLines); 3] =
    [("auto", FimLines::Auto), ("one", FimLines::One), ("block", FimLines::Block)];

/// Scheme, host and port as a browser sends them, and nothing behind.
fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let scheme_ok = !scheme.is_empty()
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let rest_ok = !rest.contains(['/', '@', '*', '?', '#'])
        && rest.parse::<hyper::http::uri::Authority>().is_ok();
    scheme_ok && rest_ok
}
