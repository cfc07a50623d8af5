//! Money, in whole numbers: what a request may cost at most, and what it did cost.
//!
//! Amounts are nano-dollars (10^-9 USD) and prices pico-dollars (10^-12 USD) per token, so that
//! 1 USD per million tokens is exactly 1,000,000 and six decimals of a price are kept. A product
//! is rounded up to a whole nano-dollar once per request; sums are sums of integers.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::completion::Usage;

/// What one message of a conversation may add to the prompt beside its text: its role and the
/// marks of a chat template. No tokenizer makes more tokens than bytes.
pub const MESSAGE_BYTES: u64 = 64;
/// Decimals of a dollar that an amount keeps.
const DOLLAR_DECIMALS: u32 = 9;
const NANO_PER_DOLLAR: u64 = 10_u64.pow(DOLLAR_DECIMALS);
const PICO_PER_NANO: u128 = 1_000;
/// Decimals of a price in dollars per million tokens: 10^-6 USD / 10^6 is a pico-dollar.
const RATE_DECIMALS: u32 = 6;

/// An amount in nano-dollars. Sums saturate: what is too large to write is past every cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(u64);

impl Money {
    pub const ZERO: Self = Self(0);

    pub const fn from_nano(nano_usd: u64) -> Self {
        Self(nano_usd)
    }

    /// Millionths of a dollar.
    pub const fn from_micro(micro_usd: u64) -> Self {
        Self(micro_usd.saturating_mul(1_000))
    }

    pub const fn from_dollars(dollars: u64) -> Self {
        Self(dollars.saturating_mul(NANO_PER_DOLLAR))
    }

    /// An amount of dollars as a person writes it, as in `12.5`; None: it is negative, no number,
    /// or has more than nine decimals.
    pub fn parse(dollars: &str) -> Option<Self> {
        decimal(dollars, DOLLAR_DECIMALS).map(Self)
    }

    pub const fn nano(self) -> u64 {
        self.0
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// Dollars with as many decimals as are needed, two at least: `0.0004`, `12.50`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dollars, nano) = (self.0 / NANO_PER_DOLLAR, self.0 % NANO_PER_DOLLAR);
        let decimals = format!("{nano:09}");
        let needed = decimals.trim_end_matches('0').len().max(2);
        write!(f, "{dollars}.{}", &decimals[..needed])
    }
}

/// What a token costs, in pico-dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

impl Rate {
    pub const fn from_pico_per_token(pico_usd: u64) -> Self {
        Self(pico_usd)
    }

    /// Dollars per million tokens as price lists have them, as in `0.15`; None: negative, no
    /// number, or more than six decimals.
    pub fn parse(dollars_per_mtok: &str) -> Option<Self> {
        decimal(dollars_per_mtok, RATE_DECIMALS).map(Self)
    }

    /// Pico-dollars for so many tokens.
    fn times(self, tokens: u64) -> u128 {
        u128::from(self.0) * u128::from(tokens)
    }
}

/// What a `[[cloud]]` row costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Price {
    PerToken(TokenPrice),
    /// Rented by the hour or committed: a request more costs nothing while the row has room, and
    /// the clock books the rent.
    Hourly(Money),
}

/// Prices per token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPrice {
    pub input: Rate,
    pub output: Rate,
    /// Of prompt tokens that the cloud had in its cache.
    pub cached: Rate,
    /// The provider's name for what was bought, as in `flex`; stands in the ledger beside the cost.
    pub tier: Option<Arc<str>>,
}

/// What a request asks of a cloud, as far as it costs something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Of the prompt as it is sent.
    pub bytes: u64,
    /// Messages that the prompt is in; 0 for a raw prompt.
    pub messages: u64,
    /// As it is sent, so after clamping.
    pub max_tokens: u64,
    /// Choices.
    pub n: u64,
}

impl Asked {
    /// About how many tokens the prompt has.
    pub fn prompt_tokens(&self) -> u64 {
        /// Of code, about.
        const TOKEN_BYTES: u64 = 3;
        self.bytes / TOKEN_BYTES
    }
}

impl Price {
    /// Whether a request more costs something.
    pub fn is_metered(&self) -> bool {
        matches!(self, Price::PerToken(_))
    }

    /// The most that a request may cost: (bytes + 64 per message) x input + `max_tokens` x n x
    /// output.
    pub fn worst(&self, asked: &Asked) -> Money {
        let Price::PerToken(price) = self else { return Money::ZERO };
        let prompt = asked.bytes.saturating_add(asked.messages.saturating_mul(MESSAGE_BYTES));
        let completion = asked.max_tokens.saturating_mul(asked.n);
        // Where writing to a cache costs more than reading a prompt, that is the worst case.
        let input = price.input.max(price.cached);
        rounded_up(input.times(prompt), price.output.times(completion))
    }

    /// What a request cost by the cloud's own report.
    pub fn actual(&self, usage: &Usage) -> Money {
        let Price::PerToken(price) = self else { return Money::ZERO };
        let cached = usage.cached_tokens.min(usage.prompt_tokens);
        let fresh = price.input.times(usage.prompt_tokens - cached);
        let prompt = fresh.saturating_add(price.cached.times(cached));
        rounded_up(prompt, price.output.times(usage.completion_tokens))
    }

    pub fn tier(&self) -> Option<&Arc<str>> {
        match self {
            Price::PerToken(price) => price.tier.as_ref(),
            Price::Hourly(_) => None,
        }
    }
}

fn rounded_up(prompt: u128, completion: u128) -> Money {
    let nano = prompt.saturating_add(completion).div_ceil(PICO_PER_NANO);
    Money(u64::try_from(nano).unwrap_or(u64::MAX))
}

/// `text` x 10^`decimals`, exactly; None where that is no whole number of a u64.
fn decimal(text: &str, decimals: u32) -> Option<u64> {
    const DIGITS_MAX: RangeInclusive<usize> = 1..=20;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let fraction = match fraction.trim_end_matches('0') {
        "" if !fraction.is_empty() => "0",
        trimmed => trimmed,
    };
    let digits = |part: &str| {
        DIGITS_MAX.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let missing = decimals.checked_sub(u32::try_from(fraction.len()).ok()?)?;
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let fraction = fraction.parse::<u64>().ok()?.checked_mul(10_u64.checked_pow(missing)?)?;
    let whole = whole.parse::<u64>().ok()?.checked_mul(10_u64.checked_pow(decimals)?)?;
    whole.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn price(input: &str, output: &str, cached: &str) -> Price {
        let rate = |text| Rate::parse(text).unwrap();
        Price::PerToken(TokenPrice {
            input: rate(input),
            output: rate(output),
            cached: rate(cached),
            tier: None,
        })
    }

    #[test]
    fn amounts_are_read_and_written_exactly() {
        for (text, nano) in [
            ("0", 0),
            ("0.0", 0),
            ("1", 1_000_000_000),
            ("12.5", 12_500_000_000),
            ("0.000000001", 1),
            ("0.1000000000", 100_000_000),
            ("18446744073.709551615", u64::MAX),
        ] {
            assert_eq!(Money::parse(text), Some(Money(nano)), "{text}");
        }
        for wrong in ["", ".", "1.", ".5", "-1", "+1", "1e3", "0.0000000001", "18446744074", "NaN"]
        {
            assert_eq!(Money::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Money::from_micro(2_500_000), Money(2_500_000_000));
        assert_eq!(Money(0).to_string(), "0.00");
        assert_eq!(Money(1).to_string(), "0.000000001");
        assert_eq!(Money(12_500_000_000).to_string(), "12.50");
        assert_eq!(Money(400_000).to_string(), "0.0004");
    }

    #[test]
    fn the_worst_case_counts_bytes_messages_and_choices() {
        // 0.15 and 0.60 dollars per million: 150,000 and 600,000 pico-dollars a token.
        let price = price("0.15", "0.6", "0.15");
        let asked = Asked { bytes: 1000, messages: 2, max_tokens: 64, n: 3 };
        assert_eq!(price.worst(&asked).nano(), (1128 * 150_000 + 64 * 3 * 600_000) / 1000);
        let all = Asked { bytes: u64::MAX, messages: u64::MAX, max_tokens: u64::MAX, n: u64::MAX };
        assert_eq!(price.worst(&all), Money(u64::MAX), "it saturates");
    }

    #[test]
    fn the_bill_follows_usage_and_rounds_up_once() {
        let price = price("0.0375", "0.6", "0.01");
        let usage = Usage { prompt_tokens: 3, cached_tokens: 2, completion_tokens: 1 };
        // 37,500 + 2 x 10,000 + 600,000 = 657,500 pico-dollars.
        assert_eq!(price.actual(&usage), Money(658));
        let odd = Usage { prompt_tokens: 1, cached_tokens: 9, completion_tokens: 0 };
        assert_eq!(price.actual(&odd), Money(10), "no more is cached than there is");
    }

    #[test]
    fn rent_makes_a_request_free() {
        let rent = Price::Hourly(Money::from_dollars(4));
        assert!(!rent.is_metered());
        let asked = Asked { bytes: 1000, messages: 1, max_tokens: 64, n: 1 };
        assert_eq!(rent.worst(&asked), Money::ZERO);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(nano: u64) {
            prop_assert_eq!(Money::parse(&Money(nano).to_string()), Some(Money(nano)));
        }

        /// As long as a cloud counts no more prompt tokens than there were bytes and stays within
        /// `max_tokens`, no bill is higher than what was reserved for it.
        #[test]
        fn no_honest_bill_passes_the_worst_case(
            rates in prop::array::uniform3(0..200_000_000_u64),
            bytes in 0..100_000_u64,
            (cached, max_tokens, used) in (0..100_000_u64, 0..4096_u64, 0..4096_u64),
        ) {
            let [input, output, cached_rate] = rates.map(Rate::from_pico_per_token);
            let price =
                Price::PerToken(TokenPrice { input, output, cached: cached_rate, tier: None });
            let usage = Usage {
                prompt_tokens: bytes,
                cached_tokens: cached,
                completion_tokens: used.min(max_tokens),
            };
            let asked = Asked { bytes, messages: 0, max_tokens, n: 1 };
            prop_assert!(price.actual(&usage) <= price.worst(&asked));
        }
    }
}
