//! Small runs, so that the benchmark never rots: a weir in this process, every client.

use std::env::VarError;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::counts::Counts;
use super::policies::{InFlight, PLAIN};
use super::*;
use crate::config::Overrides;

const SECONDS: f64 = 2.0;
const ROUNDS_MAX: u64 = 20;

pub(super) fn config() -> Config {
    let nothing = |_: &str| Err(VarError::NotPresent);
    Config::from_text("", Overrides::default(), &nothing).expect("the defaults hold").0
}

fn args(developers: usize) -> TypingArgs {
    TypingArgs {
        url: None,
        dialect: Dialect::Openai,
        name: String::new(),
        room: None,
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
        let server = Server {
            endpoint: own.endpoint(),
            dialect: args.dialect,
            model: String::new(),
            room: None,
        };
        let mut report = crowd(&args, &policies, &files, &server, 6).await;
        // On a machine that is slow, or busy with other tests, nobody may have been answered in
        // time: fewer people are.
        for seed in 2..=ROUNDS_MAX {
            if report.tokens_shown > 0 {
                break;
            }
            let few = if seed % 2 == 0 { 2 } else { 1 };
            let args = TypingArgs { seed, ..self::args(few) };
            report = crowd(&args, &policies, &files, &server, few).await;
        }
        own.stop().await;
        report
    })
    .unwrap();
    assert_eq!((report.failed, &report.complaint), (0, &None));
    assert!(report.keys > 1, "{report}");
    assert!(report.requests > 0 && report.asked > 0, "{report}");
    assert!(report.shown > 0 && report.tokens_shown > 0, "{report}");
    assert!(report.tokens_generated.is_some_and(|tokens| tokens > 0), "weir counts: {report}");
    assert!(report.ttft_ms.p50 > Some(0.0) && report.first_line_ms.p50 > Some(0.0), "{report}");
    assert!(report.cache_hit_share.is_none_or(|share| (0.0..1.0).contains(&share)), "{report}");
}

/// A server that never answers, and how many connections to it were open at once.
async fn silent() -> (Server, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let endpoint = listener.local_addr().unwrap().into();
    let most = Arc::new(AtomicUsize::new(0));
    let told = most.clone();
    tokio::spawn(async move {
        let open = Arc::new(AtomicUsize::new(0));
        while let Ok((mut stream, _)) = listener.accept().await {
            most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let open = open.clone();
            tokio::spawn(async move {
                let mut sink = [0; 4096];
                while matches!(stream.read(&mut sink).await, Ok(read) if read > 0) {}
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (Server { endpoint, dialect: Dialect::Openai, model: String::new(), room: None }, told)
}

/// What somebody came to whose requests are never answered, and how many were open at once.
fn unanswered(policy: &'static Policy) -> (Counts, usize) {
    block_on(async {
        let (server, most) = silent().await;
        let files = sources::own();
        let developer = Developer { number: 0, seed: 1, policy, files: &files, server: &server };
        let counts = developer.work(Duration::from_secs_f64(2.0 * SECONDS)).await;
        (counts, most.load(Ordering::SeqCst))
    })
    .unwrap()
}

#[test]
fn a_key_does_to_what_is_under_way_what_the_policy_says() {
    static WAITS: Policy = Policy { in_flight: InFlight::Wait, ..PLAIN };
    static ABORTS: Policy = Policy { in_flight: InFlight::Abort, ..PLAIN };
    static PARALLEL: Policy = Policy { in_flight: InFlight::Parallel(3), ..PLAIN };
    let work = |policy| std::thread::spawn(move || unanswered(policy));
    let [waits, aborts, parallel] =
        [work(&WAITS), work(&ABORTS), work(&PARALLEL)].map(|work| work.join().unwrap());
    assert_eq!((waits.0.requests, waits.0.cancelled, waits.1), (1, 0, 1));
    assert!(waits.0.asked > 3, "it would have asked more often");
    assert!(aborts.0.requests > 3 && aborts.0.cancelled + 1 >= aborts.0.requests);
    assert_eq!(aborts.0.cancelled, aborts.0.cancelled_unread);
    // What is closed may not be seen as closed before the next one comes.
    assert!(aborts.1 <= 2, "{} open at once", aborts.1);
    assert!((3..=4).contains(&parallel.1), "{} open at once", parallel.1);
    assert!(parallel.0.cancelled > 0 && parallel.0.cancelled < parallel.0.requests);
}

#[test]
fn what_cannot_be_asked_is_told() {
    let config = config();
    for wrong in [
        TypingArgs { policy: "emacs".into(), ..args(1) },
        TypingArgs { seconds: 0.0, ..args(1) },
        args(0),
        args(DEVELOPERS_MAX + 1),
        TypingArgs { room: Some(0), ..args(1) },
        TypingArgs { url: Some("127.0.0.1".into()), ..args(1) },
        TypingArgs { dialect: Dialect::Completion, ..args(1) },
        TypingArgs { files: Some("/nonexistent".into()), ..args(1) },
    ] {
        assert!(typing(&wrong, &config).is_err(), "{wrong:?}");
    }
}
