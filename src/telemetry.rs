//! The metrics registry: one per server, no global, so two servers in a process never mix.
//!
//! Handles are made once here; recording is an atomic operation. Gauges are set from the
//! engine's published state when somebody scrapes.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::completion::Route;

const METADATA: Metadata<'static> = Metadata::new("weir", Level::INFO, Some("weir"));

/// Upper bounds in seconds; from a cached token to a slow prefill.
const SECONDS_BUCKETS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

const CALIBRATION: &str = "weir_predicted_ttft_error";
/// Upper bounds of an error as a part of the whole.
const PART_BUCKETS: [f64; 8] = [0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 4.0];

/// Every metric weir exports. Counters and histograms are handles; `render` is the scrape.
pub struct Telemetry {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// From arrival in the engine's queue to admission.
    pub queue_seconds: Histogram,
    /// From the request's arrival to its first text.
    pub ttft_seconds: Histogram,
    /// Between two texts of a choice.
    pub itl_seconds: Histogram,
    /// From the request's arrival to its end.
    pub request_seconds: Histogram,
    pub tokens_prompt: Counter,
    pub tokens_cached: Counter,
    pub tokens_generated: Counter,
    /// Drafted tokens that were verified, and those of them that were right. Both are work, not
    /// usage: every generated token counts once above, however it came about.
    pub draft_tokens: Counter,
    pub draft_accepted: Counter,
    /// Requests whose client left before their end.
    pub cancelled: Counter,
    /// Requests without the key of a tenant.
    pub unauthorized: Counter,
    /// Configurations that were read while weir runs: those that hold since, and those that do not.
    pub reloads_applied: Counter,
    pub reloads_refused: Counter,
    /// Times that overflow began or ended.
    pub overflow_changes: Counter,
    /// Prompt tokens looked up in, and found in, the prefix cache.
    pub prefix_cache_queries: Counter,
    pub prefix_cache_hits: Counter,
    /// Choices that ended where a placeholder for a secret came back damaged.
    pub placeholders_damaged: Counter,
    /// Rows of the ledger that are on disk, and those that found no room to wait for it.
    pub ledger_rows: Counter,
    pub ledger_unwritten: Counter,
    pub gauges: Gauges,
}

/// How well times to first token are predicted, for one route.
pub struct Calibration {
    predicted: Histogram,
    actual: Histogram,
    error: Histogram,
}

impl Calibration {
    /// A first token that was predicted came after `actual`.
    pub fn record(&self, predicted: Duration, actual: Duration) {
        let (predicted, actual) = (predicted.as_secs_f64(), actual.as_secs_f64());
        self.predicted.record(predicted);
        self.actual.record(actual);
        self.error.record((predicted - actual).abs() / actual.max(f64::MIN_POSITIVE));
    }
}

/// State read off the engine and the dispatcher when scraped.
pub struct Gauges {
    pub sequences_running: Gauge,
    pub sequences_waiting: Gauge,
    pub slots_used: Gauge,
    pub slots_total: Gauge,
    pub kv_blocks_referenced: Gauge,
    pub kv_blocks_cached: Gauge,
    pub kv_blocks_total: Gauge,
    pub saturation: Gauge,
    pub overflow_active: Gauge,
    pub ledger_writable: Gauge,
}

impl Telemetry {
    pub fn new() -> Arc<Self> {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&SECONDS_BUCKETS)
            .expect("the list of buckets is not empty")
            .set_buckets_for_metric(Matcher::Full(CALIBRATION.into()), &PART_BUCKETS)
            .expect("the list of buckets is not empty")
            .build_recorder();
        let handle = recorder.handle();
        let registry = Registry(&recorder);
        let tokens = "weir_tokens_total";
        let tokens_help = "Tokens by kind.";
        let reloads = "weir_config_reloads_total";
        let reloads_help = "Configurations read while weir runs, by whether they hold now.";
        let telemetry = Self {
            queue_seconds: registry.seconds("weir_queue_seconds", "Wait for a slot."),
            ttft_seconds: registry.seconds("weir_ttft_seconds", "Time to first text."),
            itl_seconds: registry.seconds("weir_itl_seconds", "Time between texts of a choice."),
            request_seconds: registry.seconds("weir_request_seconds", "Whole requests."),
            tokens_prompt: registry.counter(tokens, tokens_help, &[("kind", "prompt")]),
            tokens_cached: registry.counter(tokens, tokens_help, &[("kind", "cached")]),
            tokens_generated: registry.counter(tokens, tokens_help, &[("kind", "generated")]),
            draft_tokens: registry.counter(
                "weir_draft_tokens_total",
                "Drafted tokens that were verified.",
                &[],
            ),
            draft_accepted: registry.counter(
                "weir_draft_accepted_total",
                "Drafted tokens that were right.",
                &[],
            ),
            cancelled: registry.counter("weir_cancelled_total", "Clients that left early.", &[]),
            unauthorized: registry.counter(
                "weir_unauthorized_total",
                "Requests without the key of a tenant.",
                &[],
            ),
            reloads_applied: registry.counter(reloads, reloads_help, &[("outcome", "applied")]),
            reloads_refused: registry.counter(reloads, reloads_help, &[("outcome", "refused")]),
            overflow_changes: registry.counter(
                "weir_overflow_changes_total",
                "Times that overflow began or ended.",
                &[],
            ),
            prefix_cache_queries: registry.counter(
                "weir_prefix_cache_queries_total",
                "Prompt tokens looked up in the prefix cache.",
                &[],
            ),
            prefix_cache_hits: registry.counter(
                "weir_prefix_cache_hits_total",
                "Prompt tokens found in the prefix cache.",
                &[],
            ),
            placeholders_damaged: registry.counter(
                "weir_placeholders_damaged_total",
                "Choices that ended where a placeholder for a secret came back damaged.",
                &[],
            ),
            ledger_rows: registry.counter(
                "weir_ledger_rows_total",
                "Rows of the ledger that are on disk.",
                &[],
            ),
            ledger_unwritten: registry.counter(
                "weir_ledger_unwritten_total",
                "Rows that the ledger had no room for while it could not be written.",
                &[],
            ),
            gauges: Gauges {
                sequences_running: registry.gauge("weir_sequences_running", "In the batch."),
                sequences_waiting: registry.gauge("weir_sequences_waiting", "In the queue."),
                slots_used: registry.gauge("weir_slots_used", "Slots in use."),
                slots_total: registry
                    .gauge("weir_slots_total", "Slots: room for one running sequence each."),
                kv_blocks_referenced: registry
                    .gauge("weir_kv_blocks_referenced", "KV blocks that sequences hold."),
                kv_blocks_cached: registry
                    .gauge("weir_kv_blocks_cached", "KV blocks kept for their prefix only."),
                kv_blocks_total: registry.gauge("weir_kv_blocks_total", "KV blocks in all."),
                saturation: registry
                    .gauge("weir_saturation", "Work ahead over the TTFT objective; 1 is full."),
                overflow_active: registry
                    .gauge("weir_overflow_active", "1 while excess requests leave."),
                ledger_writable: registry
                    .gauge("weir_ledger_writable", "1 while the ledger can be written."),
            },
            recorder,
            handle,
        };
        Arc::new(telemetry)
    }

    /// Counts one answered request. Route and reason come from closed lists and the operator's
    /// own cloud names, so the number of label sets is bounded.
    pub fn request(&self, route: &Route, reason: &str, status: u16) {
        Registry(&self.recorder)
            .counter(
                "weir_requests_total",
                "Requests by where they ran, why, and HTTP status.",
                &[
                    ("route", &route.to_string()),
                    ("reason", reason),
                    ("status", &status.to_string()),
                ],
            )
            .increment(1);
    }

    /// Counts what a client says of a suggestion; all three come from closed lists.
    pub fn suggestion(&self, fate: &str, language: &str, route: &str) {
        Registry(&self.recorder)
            .counter(
                "weir_suggestions_total",
                "What clients say of suggestions: shown, accepted, dismissed.",
                &[("event", fate), ("language", language), ("route", route)],
            )
            .increment(1);
    }

    /// Counts one request that would have left, and a cloud that policy kept it from.
    pub fn kept_from(&self, cloud: &str, reason: &str) {
        Registry(&self.recorder)
            .counter(
                "weir_kept_from_cloud_total",
                "Requests that would have left, by the cloud that may not have them and why.",
                &[("cloud", cloud), ("reason", reason)],
            )
            .increment(1);
    }

    /// The histograms of one route.
    pub fn calibration(&self, route: &Route) -> Calibration {
        let registry = Registry(&self.recorder);
        let labels: &[(&str, &str)] = &[("route", &route.to_string())];
        let of = |name, help, unit| registry.histogram(name, help, unit, labels);
        Calibration {
            predicted: of(
                "weir_predicted_ttft_seconds",
                "Time to first text as predicted, of requests that had one.",
                Unit::Seconds,
            ),
            actual: of(
                "weir_predicted_ttft_actual_seconds",
                "Time to first text of the same requests as it was.",
                Unit::Seconds,
            ),
            error: of(
                CALIBRATION,
                "How far the prediction was off, as a part of the actual time.",
                Unit::Count,
            ),
        }
    }

    /// Counts an answer that broke and was gone on with at this route.
    pub fn resumed(&self, route: &Route) {
        Registry(&self.recorder)
            .counter(
                "weir_resumed_total",
                "Answers that broke after they had begun, by where they went on.",
                &[("route", &route.to_string())],
            )
            .increment(1);
    }

    /// Counts a request that would have left and stayed for a secret, by the rule that found it.
    pub fn secret(&self, rule: &str) {
        Registry(&self.recorder)
            .counter(
                "weir_secrets_total",
                "Requests that stayed because they hold a secret, by the rule that found it.",
                &[("rule", rule)],
            )
            .increment(1);
    }

    /// Counts a request that left with placeholders for secrets, by a rule that found one.
    pub fn redacted(&self, rule: &str) {
        Registry(&self.recorder)
            .counter(
                "weir_redacted_total",
                "Requests that left with placeholders for secrets, by the rules that found them.",
                &[("rule", rule)],
            )
            .increment(1);
    }

    /// Folds what histograms recorded; without it they keep every sample until the next scrape.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// The scrape, in Prometheus text format.
    pub fn render(&self) -> String {
        self.upkeep();
        self.handle.render()
    }
}

struct Registry<'a>(&'a PrometheusRecorder);

impl Registry<'_> {
    fn counter(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Counter {
        self.0.describe_counter(KeyName::from(name), Some(Unit::Count), help.into());
        self.0.register_counter(&key(name, labels), &METADATA)
    }

    fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        self.0.describe_gauge(KeyName::from(name), None, help.into());
        self.0.register_gauge(&key(name, &[]), &METADATA)
    }

    fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        unit: Unit,
        labels: &[(&str, &str)],
    ) -> Histogram {
        self.0.describe_histogram(KeyName::from(name), Some(unit), help.into());
        self.0.register_histogram(&key(name, labels), &METADATA)
    }

    fn seconds(&self, name: &'static str, help: &'static str) -> Histogram {
        self.0.describe_histogram(KeyName::from(name), Some(Unit::Seconds), help.into());
        self.0.register_histogram(&key(name, &[]), &METADATA)
    }
}

fn key(name: &'static str, labels: &[(&str, &str)]) -> Key {
    let labels: Vec<Label> =
        labels.iter().map(|(k, v)| Label::new((*k).to_owned(), (*v).to_owned())).collect();
    Key::from_parts(name, labels)
}
