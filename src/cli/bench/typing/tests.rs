//! Small runs, so that the benchmark never rots: a weir in this process, every client.

use std::env::VarError;

use super::*;
use crate::config::Overrides;

const SECONDS: f64 = 2.0;

pub(super) fn config() -> Config {
    let nothing = |_: &str| Err(VarError::NotPresent);
    Config::from_text("", Overrides::default(), &nothing).expect("the defaults hold").0
}

fn args(developers: usize) -> TypingArgs {
    TypingArgs {
        url: None,
        dialect: Dialect::Openai,
        name: String::new(),
        developers: vec![developers],
        seconds: SECONDS,
        seed: 1,
        policy: MIXED.into(),
        files: None,
        json: true,
    }
}

#[test]
fn people_who_type_are_shown_something() {
    let (args, config, files) = (args(6), config(), sources::own());
    let policies = policies(&args.policy).unwrap();
    let report = block_on(async {
        let own = Own::start(&config).await.unwrap();
        let server =
            Server { endpoint: own.endpoint(), dialect: args.dialect, model: String::new() };
        let report = crowd(&args, &policies, &files, &server, 6).await;
        own.stop().await;
        report
    })
    .unwrap();
    assert_eq!((report.failed, &report.complaint), (0, &None));
    assert!(report.keys > 6 * 4, "{report}");
    assert!(report.requests > 0 && report.asked > 0, "{report}");
    assert!(report.shown > 0 && report.tokens_shown > 0, "{report}");
    assert!(report.tokens_generated.unwrap() >= report.tokens_shown, "weir counts: {report}");
    assert!(report.first_line_ms.p50 >= report.ttft_ms.p50, "a line is more than a token");
    assert!(report.cache_hit_share.is_some_and(|share| (0.0..1.0).contains(&share)), "{report}");
}

#[test]
fn what_cannot_be_asked_is_told() {
    let config = config();
    for wrong in [
        TypingArgs { policy: "emacs".into(), ..args(1) },
        TypingArgs { seconds: 0.0, ..args(1) },
        args(0),
        args(DEVELOPERS_MAX + 1),
        TypingArgs { url: Some("127.0.0.1".into()), ..args(1) },
        TypingArgs { files: Some("/nonexistent".into()), ..args(1) },
    ] {
        assert!(typing(&wrong, &config).is_err(), "{wrong:?}");
    }
}
