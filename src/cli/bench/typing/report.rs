//! What so many developers came to.

use std::fmt;

use serde::Serialize;

use super::counts::{Counts, Spread};

/// All developers of a run together. What the server does not tell is null.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) server: String,
    pub(super) dialect: String,
    pub(super) policy: String,
    pub(super) developers: usize,
    pub(super) seconds: f64,
    pub(super) seed: u64,
    pub(super) keys: u64,
    /// Times that a client wanted a suggestion; how many it showed, and which part of what was
    /// wanted it showed before the next key.
    pub(super) asked: u64,
    pub(super) shown: u64,
    pub(super) shown_in_time_share: Option<f64>,
    pub(super) typed_through: u64,
    pub(super) taken: u64,
    /// From when a request was due.
    pub(super) ttft_ms: Spread,
    pub(super) first_line_ms: Spread,
    /// Of the developer who waited longest: nobody starves.
    pub(super) first_line_p95_worst_ms: Option<f64>,
    pub(super) requests: u64,
    pub(super) follow_ups: u64,
    pub(super) warm_ups: u64,
    pub(super) cancelled: u64,
    pub(super) cancelled_unread: u64,
    pub(super) cut: u64,
    pub(super) empty: u64,
    pub(super) failed: u64,
    /// By the server's own count.
    pub(super) tokens_generated: Option<u64>,
    /// That a client received, and of the suggestions it showed.
    pub(super) tokens_received: u64,
    pub(super) tokens_shown: u64,
    /// Of what was generated, or else of what was received: what nobody saw.
    pub(super) thrown_away_share: Option<f64>,
    /// Of the prompts of answers that came to their end.
    pub(super) cache_hit_share: Option<f64>,
    /// Why the first request that failed did.
    pub(super) complaint: Option<String>,
}

/// What a run was.
pub(super) struct Scene {
    pub(super) server: String,
    pub(super) dialect: String,
    pub(super) policy: String,
    pub(super) seconds: f64,
    pub(super) seed: u64,
    /// Tokens that the server says it generated in this run.
    pub(super) generated: Option<u64>,
}

impl Report {
    /// `each`: what every developer counted.
    pub(super) fn of(scene: Scene, each: &[Counts]) -> Self {
        let mut all = Counts::default();
        each.iter().for_each(|counts| all.add(counts));
        let worst = each.iter().filter_map(|counts| Spread::of(&counts.line_ms).p95);
        let made = scene.generated.unwrap_or(all.tokens_received).max(all.tokens_shown);
        Self {
            server: scene.server,
            dialect: scene.dialect,
            policy: scene.policy,
            developers: each.len(),
            seconds: scene.seconds,
            seed: scene.seed,
            keys: all.keys,
            asked: all.asked,
            shown: all.shown,
            shown_in_time_share: share(all.in_time, all.asked),
            typed_through: all.typed_through,
            taken: all.taken,
            ttft_ms: Spread::of(&all.ttft_ms),
            first_line_ms: Spread::of(&all.line_ms),
            first_line_p95_worst_ms: worst.max_by(f64::total_cmp),
            requests: all.requests,
            follow_ups: all.follow_ups,
            warm_ups: all.warm_ups,
            cancelled: all.cancelled,
            cancelled_unread: all.cancelled_unread,
            cut: all.cut,
            empty: all.empty,
            failed: all.failed,
            tokens_generated: scene.generated,
            tokens_received: all.tokens_received,
            tokens_shown: all.tokens_shown,
            thrown_away_share: share(made - all.tokens_shown, made),
            cache_hit_share: share(all.cached_tokens, all.prompt_tokens),
            complaint: all.complaint,
        }
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, dialect, policy, developers, seconds, keys, .. } = self;
        writeln!(
            f,
            "{developers} developers, {policy}, {seconds} s: {keys} keys; {server}, {dialect}"
        )?;
        writeln!(
            f,
            "  shown      {} of {} asked, {} before the next key; {} keys typed through, {} taken",
            self.shown,
            self.asked,
            part(self.shown_in_time_share),
            self.typed_through,
            self.taken
        )?;
        let Spread { p50, p95, p99 } = self.ttft_ms;
        writeln!(f, "  ttft       p50 {}, p95 {}, p99 {} ms", ms(p50), ms(p95), ms(p99))?;
        let Spread { p50, p95, .. } = self.first_line_ms;
        let worst = ms(self.first_line_p95_worst_ms);
        writeln!(f, "  first line p50 {}, p95 {} ms; worst p95 {worst} ms", ms(p50), ms(p95))?;
        writeln!(
            f,
            "  requests   {} and {} ahead, {} warm-ups; {} cancelled ({} unread), {} cut, {} empty, \
             {} failed",
            self.requests,
            self.follow_ups,
            self.warm_ups,
            self.cancelled,
            self.cancelled_unread,
            self.cut,
            self.empty,
            self.failed
        )?;
        let generated = self.tokens_generated.map_or("?".into(), |tokens| tokens.to_string());
        writeln!(
            f,
            "  tokens     {generated} generated, {} received, {} shown: {} thrown away; cache hits {}",
            self.tokens_received,
            self.tokens_shown,
            part(self.thrown_away_share),
            part(self.cache_hit_share)
        )?;
        match &self.complaint {
            Some(complaint) => writeln!(f, "  failed     {complaint}"),
            None => Ok(()),
        }
    }
}

fn ms(figure: Option<f64>) -> String {
    figure.map_or("?".into(), |figure| format!("{figure:.1}"))
}

fn part(share: Option<f64>) -> String {
    share.map_or("?".into(), |share| format!("{:.1} %", share * 1e2))
}
