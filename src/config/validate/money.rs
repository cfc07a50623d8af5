//! Prices and the ledger.

use std::path::PathBuf;
use std::sync::Arc;

use super::Checker;
use crate::config::raw::RawPrice;
use crate::config::{Budget, CloudConfig, Config, LedgerConfig, RawCloud, RawConfig};
use crate::money::{Money, Price, Rate, TokenPrice};

/// Longest name of a tier in bytes.
const TIER_MAX: usize = 64;
/// Offsets of real clocks go from -12 to +14 hours.
const OFFSET_HOURS_MAX: i32 = 14;
/// The ledger's file in its default folder.
const FILE: &str = "weir/ledger.db";

impl Checker<'_> {
    /// A budget counts what a row costs; one that costs what nobody said is free to it.
    pub(super) fn warn_unpriced_clouds(&mut self, config: &Config) {
        let any = |budget: &Budget| *budget != Budget::default();
        let tenants = config.policy.tenants.iter();
        let budgeted = tenants.flat_map(|t| t.cloud_budgets.values().chain([&t.budget])).any(any);
        for cloud in config.clouds.iter().filter(|cloud| cloud.price.is_none()) {
            if budgeted || any(&cloud.budget) {
                self.warn(
                    &format!("[[cloud]] {}", cloud.name),
                    "has neither price nor hourly_usd, so no budget holds for it",
                );
            }
        }
    }

    /// None: there is nothing that would have to be written down.
    pub(super) fn ledger(
        &mut self,
        raw: &RawConfig,
        clouds: &[CloudConfig],
    ) -> Option<LedgerConfig> {
        self.prefix = "[ledger] ".into();
        let utc_offset_s = self.utc_offset(raw.ledger.utc_offset.as_deref());
        let priced = clouds.iter().find(|cloud| cloud.price.is_some());
        let path = match (raw.ledger.path.as_deref(), priced) {
            (Some(""), _) => {
                self.complain("path", "must be a path");
                None
            }
            (Some(path), _) => Some(PathBuf::from(path)),
            (None, Some(cloud)) => self.state_home().map(|home| home.join(FILE)).or_else(|| {
                let message = format!(
                    "is required: {} has a price, and neither XDG_STATE_HOME nor HOME says where \
                     this user's state is",
                    cloud.name
                );
                self.complain("path", message);
                None
            }),
            (None, None) => None,
        };
        Some(LedgerConfig { path: path?, utc_offset_s })
    }

    /// Where this user's state is, by the XDG Base Directory Specification.
    fn state_home(&self) -> Option<PathBuf> {
        // A relative path there is to be ignored, it says.
        let absolute = |variable| {
            (self.env)(variable).ok().map(PathBuf::from).filter(|path| path.is_absolute())
        };
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))
    }

    /// Seconds ahead of UTC, of a text as in `+02:00`.
    fn utc_offset(&mut self, typed: Option<&str>) -> i32 {
        let Some(text) = typed else { return 0 };
        offset_seconds(text).unwrap_or_else(|| {
            let message = format!("must be -14:00 to +14:00, as in +02:00, is {text:?}");
            self.complain("utc_offset", message);
            0
        })
    }

    /// None: nobody said what the row costs.
    pub(super) fn price(&mut self, raw: &RawCloud) -> Option<Price> {
        match (&raw.price, raw.hourly_usd) {
            (None, None) => None,
            (Some(_), Some(_)) => {
                self.complain("hourly_usd", "and price exclude each other");
                None
            }
            (Some(price), None) => self.token_price(price).map(Price::PerToken),
            (None, Some(usd)) => {
                // What is rented has an end, and behind it a request more would not be free.
                if raw.max_in_flight.is_none() {
                    let message = "is required with hourly_usd: how many requests what is paid for \
                                   answers at once";
                    self.complain("max_in_flight", message);
                }
                let dollars = Money::parse(&usd.to_string());
                if dollars.is_none() {
                    let message = "must be dollars, at least 0 and with at most nine decimals";
                    self.complain("hourly_usd", format!("{message}, is {usd}"));
                }
                dollars.map(Price::Hourly)
            }
        }
    }

    fn token_price(&mut self, raw: &RawPrice) -> Option<TokenPrice> {
        let input = self.rate("price.input_usd_per_mtok", raw.input_usd_per_mtok);
        let output = self.rate("price.output_usd_per_mtok", raw.output_usd_per_mtok);
        let cached = match raw.cached_usd_per_mtok {
            Some(usd) => self.rate("price.cached_usd_per_mtok", Some(usd)),
            None => input,
        };
        let tier = raw.tier.as_deref();
        if tier.is_some_and(|tier| tier.is_empty() || tier.len() > TIER_MAX) {
            self.complain("price.tier", format!("must be 1 to {TIER_MAX} bytes"));
        }
        let tier = tier.map(Arc::from);
        Some(TokenPrice { input: input?, output: output?, cached: cached?, tier })
    }

    fn rate(&mut self, key: &str, usd: Option<f64>) -> Option<Rate> {
        let Some(usd) = usd else {
            self.complain(key, "is required");
            return None;
        };
        // The shortest decimal that reads back as this number is what was typed.
        let rate = Rate::parse(&usd.to_string());
        if rate.is_none() {
            let message = "must be dollars per million tokens, at least 0 and with at most six \
                           decimals";
            self.complain(key, format!("{message}, is {usd}"));
        }
        rate
    }
}

fn offset_seconds(text: &str) -> Option<i32> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text[1..].split_once(':')?;
    let number = |part: &str| {
        let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse::<i32>().ok()).flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let minutes_in_all = hours * 60 + minutes;
    let fits = minutes < 60 && minutes_in_all <= OFFSET_HOURS_MAX * 60;
    fits.then_some(sign * minutes_in_all * 60)
}

#[cfg(test)]
mod tests {
    use super::offset_seconds;

    #[test]
    fn offsets_are_signed_hours_and_minutes() {
        assert_eq!(offset_seconds("+02:00"), Some(7200));
        assert_eq!(offset_seconds("-03:30"), Some(-12_600));
        assert_eq!(offset_seconds("+00:00"), Some(0));
        assert_eq!(offset_seconds("+14:00"), Some(50_400));
        for wrong in ["", "+", "02:00", "+2:00", "+02:60", "+14:01", "+02:00:00", "é02:00", "Z"] {
            assert_eq!(offset_seconds(wrong), None, "{wrong}");
        }
    }
}
