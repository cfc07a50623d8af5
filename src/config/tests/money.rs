//! Prices and the ledger.

use std::path::Path;

use super::*;
use crate::completion::Usage;
use crate::money::{Asked, Money};

const PRICE: &str = "price = { input_usd_per_mtok = 0.15, output_usd_per_mtok = 0.6 }";

fn load_at_home(text: &str) -> Config {
    let env = |name: &str| match name {
        "HOME" => Ok("/home/ada".to_owned()),
        _ => Err(VarError::NotPresent),
    };
    Config::from_text(text, Overrides::default(), &env).unwrap().0
}

#[test]
fn a_price_is_read_to_the_last_decimal() {
    let price = |line: &str| {
        let config = load_at_home(&format!("{CLOUD}{line}"));
        config.clouds.into_iter().next().unwrap().price
    };
    assert_eq!(price(""), None, "nobody said");
    let usage = Usage { prompt_tokens: 1_000, cached_tokens: 400, completion_tokens: 10 };
    assert_eq!(price(PRICE).unwrap().actual(&usage), Money::from_nano(156_000));
    let cached = PRICE.replace(" }", ", cached_usd_per_mtok = 0.0375, tier = \"flex\" }");
    let cached = price(&cached).unwrap();
    assert_eq!(cached.actual(&usage), Money::from_nano(90_000 + 15_000 + 6_000));
    assert_eq!(cached.tier().map(|tier| &**tier), Some("flex"));
    let whole = PRICE.replace("0.15", "3").replace("0.6", "0.000001");
    let asked = Asked { bytes: 10, messages: 0, max_tokens: 1_000, n: 1 };
    assert_eq!(price(&whole).unwrap().worst(&asked), Money::from_nano(30_001));
    let rent = price("hourly_usd = 12.5\nmax_in_flight = 8").unwrap();
    assert_eq!(rent, Price::Hourly(Money::parse("12.5").unwrap()));
}

#[test]
fn each_wrong_price_is_named() {
    let cases = [
        ("price = 3", "price: must be a table, is an integer"),
        ("price = {}", "price.input_usd_per_mtok: is required"),
        ("price = { input_usd_per_mtok = 1 }", "price.output_usd_per_mtok: is required"),
        (
            "price = { input_usd_per_mtok = -1, output_usd_per_mtok = 1 }",
            "price.input_usd_per_mtok: must be dollars per million tokens",
        ),
        (
            "price = { input_usd_per_mtok = 1, output_usd_per_mtok = 0.0000001 }",
            "price.output_usd_per_mtok: must be dollars per million tokens",
        ),
        (
            "price = { input_usd_per_mtok = nan, output_usd_per_mtok = 1 }",
            "price.input_usd_per_mtok: must be dollars per million tokens",
        ),
        ("price = { unheard = 1 }", "price.unheard: unknown key; known are input_usd_per_mtok"),
        (
            "price = { input_usd_per_mtok = 1, output_usd_per_mtok = 1, tier = \"\" }",
            "price.tier: must be 1 to 64 bytes",
        ),
        ("hourly_usd = 1", "max_in_flight: is required with hourly_usd"),
        ("hourly_usd = -1\nmax_in_flight = 1", "hourly_usd: must be dollars"),
        ("hourly_usd = inf\nmax_in_flight = 1", "hourly_usd: must be dollars"),
    ];
    for (line, expected) in cases {
        let said = complaints(&format!("{CLOUD}{line}"));
        let expected = format!("[[cloud]] burst: {expected}");
        assert!(said.iter().any(|said| said.starts_with(&expected)), "{line:?} said {said:#?}");
    }
    let both = complaints(&format!("{CLOUD}{PRICE}\nhourly_usd = 1"));
    assert_eq!(both, ["[[cloud]] burst: hourly_usd: and price exclude each other"]);
}

#[test]
fn the_ledger_is_where_the_user_keeps_state_once_something_has_a_price() {
    let path = |text: &str, variables: &[(&str, &str)]| {
        let env = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned()).ok_or(VarError::NotPresent)
        };
        let (config, _) = Config::from_text(text, Overrides::default(), &env).unwrap();
        config.ledger.map(|ledger| ledger.path)
    };
    let home = ("HOME", "/home/ada");
    let priced = format!("{CLOUD}{PRICE}");
    let default = Path::new("/home/ada/.local/state/weir/ledger.db");
    assert_eq!(path("", &[home]), None);
    assert_eq!(path(CLOUD, &[home]), None, "nothing costs anything, as far as we know");
    assert_eq!(path(&priced, &[home]).as_deref(), Some(default));
    let state = ("XDG_STATE_HOME", "/state");
    assert_eq!(path(&priced, &[home, state]).as_deref(), Some(Path::new("/state/weir/ledger.db")));
    let relative = ("XDG_STATE_HOME", "state");
    assert_eq!(path(&priced, &[home, relative]).as_deref(), Some(default));
    let typed = "ledger.path = \"here.db\"";
    assert_eq!(path(typed, &[]).as_deref(), Some(Path::new("here.db")), "asked for is kept");
    let rented = format!("{CLOUD}hourly_usd = 1\nmax_in_flight = 2");
    assert_eq!(path(&rented, &[home]).as_deref(), Some(default));
    let homeless = &complaints(&priced)[0];
    assert!(homeless.starts_with("[ledger] path: is required: burst has a price"), "{homeless}");
    assert_eq!(complaints("ledger.path = \"\""), ["[ledger] path: must be a path"]);
}

#[test]
fn the_day_begins_where_the_ledger_says() {
    let offset = |text: &str| load_at_home(text).ledger.unwrap().utc_offset_s;
    assert_eq!(offset("ledger.path = \"x\""), 0);
    assert_eq!(offset("[ledger]\npath = \"x\"\nutc_offset = \"-08:00\""), -8 * 3600);
    let said = complaints("ledger.utc_offset = \"CET\"");
    assert_eq!(said, ["[ledger] utc_offset: must be -14:00 to +14:00, as in +02:00, is \"CET\""]);
}

#[test]
fn configurations_have_fingerprints() {
    let fingerprint = |text: &str| load_at_home(text).fingerprint();
    let one = fingerprint(CLOUD);
    assert_eq!(one.len(), 16);
    assert!(one.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(one, fingerprint(CLOUD));
    assert_ne!(one, fingerprint(&format!("{CLOUD}{PRICE}")));
}

#[test]
fn a_budget_says_which_clouds_it_does_not_hold_for() {
    let unpriced = |text: &str| {
        let env = |_: &str| Err(VarError::NotPresent);
        let path = "[ledger]\npath = \"a\"\n";
        let text = format!("{path}{text}");
        let (_, warnings) = Config::from_text(&text, Overrides::default(), &env).unwrap();
        warnings.into_iter().any(|warning| warning.message.contains("no budget holds for it"))
    };
    assert!(!unpriced(CLOUD));
    assert!(unpriced(&format!("{CLOUD}budget_usd_day = 1.0\n")));
    assert!(!unpriced(&format!("{CLOUD}budget_usd_day = 1.0\n{PRICE}\n")));
}
