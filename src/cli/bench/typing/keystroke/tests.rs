//! A small run, so that the benchmark never rots: a weir in this process, and another beside it.

use super::super::tests::config;
use super::*;

fn args(beside: String) -> KeystrokeArgs {
    KeystrokeArgs {
        prompt: 200,
        suffix: 0.4,
        tokens: 4,
        runs: 1,
        keys: 2,
        seed: 1,
        dialect: Dialect::Openai,
        beside: Some(beside),
        beside_dialect: Dialect::Openai,
        files: None,
        json: true,
    }
}

#[test]
fn a_key_costs_what_it_has_to() {
    let config = config();
    let report = block_on(async {
        let beside = Own::start(&config).await.unwrap();
        let report = measure(&args(beside.url()), &config).await.unwrap();
        beside.stop().await;
        serde_json::to_value(&report).unwrap()
    })
    .unwrap();
    let number = |key: &str| {
        let figure = report.pointer(key).and_then(serde_json::Value::as_f64);
        figure.unwrap_or_else(|| panic!("{key} in {report}"))
    };
    for side in ["/weir", "/beside"] {
        assert_eq!(number(&format!("{side}/generated")), 4.0);
        let (read, prompt) =
            (number(&format!("{side}/read_again")), number(&format!("{side}/prompt")));
        // The context was read before; a key changes a few tokens at its end.
        assert!((195.0..=203.0).contains(&prompt), "{report}");
        assert!((1.0..=20.0).contains(&read), "{report}");
    }
    assert!(number("/over_due") > 0.0 && number("/ratio") > 0.0, "{report}");
    assert!(keystroke(&args("http://127.0.0.1:1".into()), &config).is_err(), "nobody is there");
}
