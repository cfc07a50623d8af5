//! Caps hold: between threads, over midnights, across restarts.

use std::sync::atomic::AtomicU64;
use std::time::Instant;

use super::*;

/// Money that is out or spent, as the outside counts it: never more than the ledger's own count.
#[derive(Default)]
struct Truth {
    out: AtomicU64,
    highest: AtomicU64,
}

impl Truth {
    fn reserved(&self, worst: Money) {
        let out = self.out.fetch_add(worst.nano(), Ordering::SeqCst) + worst.nano();
        self.highest.fetch_max(out, Ordering::SeqCst);
    }

    fn settled(&self, worst: Money, cost: Money) {
        self.out.fetch_sub(worst.nano() - cost.nano(), Ordering::SeqCst);
    }
}

/// 10,000 reservations from 16 threads, settled, cancelled or dropped: no cap is ever passed, and
/// what the ledger says was spent is what was.
#[test]
fn ten_thousand_reservations_at_once_never_pass_a_cap() {
    const THREADS: u64 = 16;
    const EACH: u64 = 625;
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let scene = Scene::new();
    let day = budget(Some("team"), Some("azure"), Period::Day, nano(18_000_000));
    let month = budget(None, None, Period::Month, nano(40_000_000));
    let ledger = scene.open(terms(vec![day.clone(), month.clone()]));
    let (team, all, refused) = (Truth::default(), Truth::default(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (ledger, team, all, refused) = (&ledger, &team, &all, &refused);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed.wrapping_add(thread));
                let tenant: Arc<str> = if thread % 2 == 0 { "team" } else { "other" }.into();
                let account = ledger.account(&tenant, &"azure".into());
                let truths = if thread % 2 == 0 { &[team, all][..] } else { &[all] };
                let mut left = EACH;
                while left > 0 {
                    let worst = nano(random.u64(1..20_000));
                    let reservation = match ledger.reserve(&account, worst) {
                        Ok(reservation) => reservation,
                        Err(Refused::Granting(_)) => {
                            std::thread::yield_now();
                            continue;
                        }
                        Err(Refused::OverBudget(_)) => {
                            refused.fetch_add(1, Ordering::SeqCst);
                            left -= 1;
                            continue;
                        }
                        Err(other) => panic!("{other}"),
                    };
                    left -= 1;
                    truths.iter().for_each(|truth| truth.reserved(worst));
                    if random.bool() {
                        std::thread::yield_now();
                    }
                    if random.u8(..) < 16 {
                        drop(reservation);
                        continue;
                    }
                    let cost = nano(random.u64(..=worst.nano()));
                    truths.iter().for_each(|truth| truth.settled(worst, cost));
                    reservation.settle(answered(cost));
                }
            });
        }
    });
    ledger.close();
    let spent = |truth: &Truth| truth.out.load(Ordering::SeqCst);
    let highest = |truth: &Truth| truth.highest.load(Ordering::SeqCst);
    eprintln!("refused {refused:?}, spent {} and {}", spent(&team), spent(&all));
    assert!(highest(&team) <= day.cap.nano(), "{} at once", highest(&team));
    assert!(highest(&all) <= month.cap.nano(), "{} at once", highest(&all));
    assert!(refused.into_inner() > 0, "the caps were put to the test");
    assert!(spent(&all) * 10 > month.cap.nano() * 9, "the budget can be used: {}", spent(&all));
    scene.verify();
    let expected = [("*/* in 2026-11", &all), ("team/azure in 2026-11-21", &team)];
    let expected = expected.map(|(scope, truth)| (scope.into(), nano(spent(truth)), Money::ZERO));
    assert_eq!(scene.budgets(), expected, "nothing is lost in an orderly end");
}

/// Reserves and settles one request; what was refused, as its code.
fn spend(ledger: &Ledger, tenant: &str, worst: Money) -> Result<(), &'static str> {
    let account = ledger.account(&tenant.into(), &"azure".into());
    let reserved = ledger.reserve(&account, worst).or_else(|refused| match refused {
        // As a request does that comes a moment later.
        Refused::Granting(_) => {
            ledger.flush().unwrap();
            ledger.reserve(&account, worst)
        }
        other => Err(other),
    });
    reserved.map(|reservation| reservation.settle(answered(worst))).map_err(|error| error.code())
}

#[test]
fn days_and_months_begin_anew_by_the_clock() {
    let scene = Scene::new();
    let day = budget(Some("team"), None, Period::Day, dollars(2));
    let month = budget(Some("team"), None, Period::Month, dollars(5));
    let ledger = scene.open(terms(vec![day, month]));
    let spend = || spend(&ledger, "team", dollars(1));
    assert_eq!([spend(), spend(), spend()], [Ok(()), Ok(()), Err("budget_spent")]);
    // A minute before midnight tomorrow's grant is fetched; at midnight it is there.
    scene.clock.set(NOON + DAY / 2 - MINUTE);
    ledger.flush().unwrap();
    assert_eq!(spend(), Err("budget_spent"), "it is still today");
    scene.clock.advance(MINUTE);
    let account = ledger.account(&"team".into(), &"azure".into());
    let small = ledger.reserve(&account, nano(1_000)).expect("without a commit in between");
    small.settle(answered(Money::ZERO));
    assert_eq!([spend(), spend(), spend()], [Ok(()), Ok(()), Err("budget_spent")]);
    scene.clock.advance(DAY);
    assert_eq!([spend(), spend()], [Ok(()), Err("budget_spent")], "the month has 5 dollars");
    // 2026-12-01.
    scene.clock.set(NOON + 10 * DAY);
    assert_eq!([spend(), spend(), spend()], [Ok(()), Ok(()), Err("budget_spent")]);
    // A clock that goes back finds the old day as it was left.
    scene.clock.set(NOON);
    assert_eq!(spend(), Err("budget_spent"));
    ledger.close();
    scene.verify();
    let usage = scene.usage();
    let days: Vec<_> = usage.iter().map(|line| (&*line.day, line.cost_usd)).collect();
    let expected = [("2026-11-21", 2), ("2026-11-22", 2), ("2026-11-23", 1), ("2026-12-01", 2)];
    assert_eq!(days, expected.map(|(day, cost)| (day, dollars(cost))));
}

#[test]
fn midnight_is_where_the_offset_says() {
    let scene = Scene { utc_offset_s: 9 * 3600, ..Scene::new() };
    let ledger = scene.open(terms(vec![budget(None, None, Period::Day, dollars(1))]));
    assert_eq!(spend(&ledger, "team", dollars(1)), Ok(()));
    // 14:59 UTC is 23:59 there.
    scene.clock.advance(3 * 60 * MINUTE - 1);
    assert_eq!(spend(&ledger, "team", dollars(1)), Err("budget_spent"));
    scene.clock.advance(1);
    assert_eq!(spend(&ledger, "team", dollars(1)), Ok(()));
}

#[test]
fn a_crash_costs_no_more_than_what_was_granted_ahead_and_an_orderly_end_nothing() {
    let scene = Scene::new();
    let table = || terms(vec![budget(None, None, Period::Day, dollars(100))]);
    let account = |ledger: &Ledger| ledger.account(&"team".into(), &"azure".into());
    let mut first = scene.by_hand(table());
    assert!(first.write());
    let worst = nano(20_000_000);
    for _ in 0..3 {
        let reservation = first.ledger.reserve(&account(&first.ledger), worst).unwrap();
        reservation.settle(answered(nano(5_000_000)));
        assert!(first.write());
    }
    let in_flight = first.ledger.reserve(&account(&first.ledger), worst).unwrap();
    // As after `kill -9`: nobody closes anything.
    std::mem::forget(in_flight);
    drop(first);
    let second = scene.open(table());
    let [(_, spent, lost)] = &scene.budgets()[..] else { panic!() };
    assert_eq!(*spent, nano(15_000_000));
    assert!(*lost >= worst, "what was out may have been spent: {lost}");
    assert!(*lost <= dollars(1).saturating_add(worst), "a hundredth, and what was out: {lost}");
    second.close();
    let third = scene.open(table());
    third.close();
    assert_eq!(scene.budgets()[0].2, *lost, "orderly ends cost nothing more");
    scene.verify();
}

/// Whatever an account is drawn on for, little is open while little is asked.
#[test]
fn an_idle_budget_has_little_open() {
    let scene = Scene::new();
    let mut weir = scene.by_hand(terms(vec![budget(None, None, Period::Day, dollars(1000))]));
    let account = weir.ledger.account(&"team".into(), &"azure".into());
    let open = || account.purses()[0].available(NOON.div_euclid(DAY));
    assert!(weir.write());
    assert_eq!(open(), dollars(1), "a thousandth");
    let mut out = Vec::new();
    for _ in 0..10 {
        while let Ok(reservation) = weir.ledger.reserve(&account, nano(100_000_000)) {
            out.push(reservation);
        }
        assert!(weir.write());
    }
    assert!(open() > dollars(5), "a burst is met with more: {}", open());
    out.into_iter().for_each(|reservation| reservation.settle(answered(Money::ZERO)));
    assert!(weir.write());
    assert!(open() <= dollars(10), "but no more than a hundredth: {}", open());
    for _ in 0..900 {
        scene.clock.advance(1_000);
        assert!(weir.write());
    }
    assert!(open() <= dollars(1), "a thousandth again: {}", open());
    weir.close();
    assert_eq!(scene.budgets()[0].2, Money::ZERO);
}

#[test]
fn a_request_larger_than_a_slice_is_granted_and_one_larger_than_the_cap_is_not() {
    let scene = Scene::new();
    let ledger = scene.open(terms(vec![budget(None, None, Period::Day, dollars(10))]));
    let account = ledger.account(&"team".into(), &"azure".into());
    let refused = ledger.reserve(&account, dollars(6)).err().unwrap();
    assert_eq!(refused.code(), "budget_granting");
    assert_eq!(refused.to_string(), "the budget of */* per day is being granted");
    assert_eq!(spend(&ledger, "team", dollars(6)), Ok(()));
    assert_eq!(spend(&ledger, "team", dollars(5)), Err("budget_spent"));
    assert_eq!(spend(&ledger, "team", dollars(4)), Ok(()));
    assert_eq!(spend(&ledger, "team", dollars(11)), Err("budget_spent"));
}

#[test]
fn a_bill_above_the_worst_case_counts_and_stops_the_next() {
    let scene = Scene::new();
    let ledger = scene.open(terms(vec![budget(None, None, Period::Day, dollars(3))]));
    let account = ledger.account(&"team".into(), &"azure".into());
    assert_eq!(spend(&ledger, "team", dollars(1)), Ok(()));
    ledger.flush().unwrap();
    let reservation = ledger.reserve(&account, nano(1)).unwrap();
    reservation.settle(answered(dollars(5)));
    ledger.flush().unwrap();
    assert_eq!(spend(&ledger, "team", nano(1)), Err("budget_spent"));
    ledger.close();
    assert_eq!(scene.budgets()[0].1, dollars(6));
    scene.verify();
}

#[test]
fn a_reservation_that_is_dropped_books_its_worst_case_and_says_so() {
    let scene = Scene::new();
    let ledger = scene.open(Terms::default());
    let account = ledger.account(&"team".into(), &"azure".into());
    drop(ledger.reserve(&account, dollars(2)).unwrap());
    let silent = Entry { cost: None, ..answered(Money::ZERO) };
    ledger.reserve(&account, dollars(3)).unwrap().settle(silent);
    ledger.reserve(&account, dollars(4)).unwrap().settle(answered(dollars(1)));
    ledger.close();
    let [line] = &scene.usage()[..] else { panic!() };
    assert_eq!((line.requests, line.sent), (3, 3));
    assert_eq!((line.cost_usd, line.estimated_usd), (dollars(6), dollars(5)));
}

#[test]
fn other_budgets_hold_from_one_configuration_to_the_next() {
    let scene = Scene::new();
    let with = |tenant: &str, cap| terms(vec![budget(Some(tenant), None, Period::Day, cap)]);
    let ledger = scene.open(with("team", dollars(4)));
    assert_eq!(spend(&ledger, "team", dollars(3)), Ok(()));
    assert_eq!(spend(&ledger, "other", dollars(3)), Ok(()), "nobody bounds it");
    ledger.reconfigure(with("team", dollars(5))).unwrap();
    assert_eq!(spend(&ledger, "team", dollars(3)), Err("budget_spent"), "3 are gone");
    assert_eq!(spend(&ledger, "team", dollars(2)), Ok(()));
    // A budget that is new counts what its period has spent already.
    ledger.reconfigure(with("other", dollars(4))).unwrap();
    assert_eq!(spend(&ledger, "other", dollars(2)), Err("budget_spent"));
    assert_eq!(spend(&ledger, "team", dollars(9)), Ok(()));
    // And one that comes back, what was spent without it.
    ledger.reconfigure(with("team", dollars(16))).unwrap();
    assert_eq!(spend(&ledger, "team", dollars(3)), Err("budget_spent"), "14 are gone");
    assert_eq!(spend(&ledger, "team", dollars(2)), Ok(()));
    // A lower cap takes back what was granted.
    ledger.reconfigure(with("team", dollars(1))).unwrap();
    assert_eq!(spend(&ledger, "team", nano(1)), Err("budget_spent"));
    ledger.close();
    scene.verify();
}

/// A reservation made before a budget existed counts in it all the same.
#[test]
fn what_was_out_before_a_budget_came_counts_in_it() {
    let scene = Scene::new();
    let ledger = scene.open(Terms::default());
    let account = ledger.account(&"team".into(), &"azure".into());
    let out = ledger.reserve(&account, dollars(3)).unwrap();
    ledger.reconfigure(terms(vec![budget(None, None, Period::Day, dollars(4))])).unwrap();
    out.settle(answered(dollars(3)));
    ledger.flush().unwrap();
    assert_eq!(spend(&ledger, "team", dollars(2)), Err("budget_spent"));
    assert_eq!(spend(&ledger, "team", dollars(1)), Ok(()));
    ledger.close();
    scene.verify();
}

/// A figure on record, not a bound: the machine may be busy with other tests.
#[test]
fn what_a_reservation_takes() {
    const ROUNDS: u32 = 2_000;
    let scene = Scene::new();
    let both = [Period::Day, Period::Month];
    let table = both.map(|period| budget(Some("team"), None, period, dollars(1_000_000)));
    let ledger = Ledger::open(
        Options { clock: Box::new(SystemClock), ..scene.options() },
        terms(table.into()),
    )
    .unwrap();
    let account = ledger.account(&"team".into(), &"azure".into());
    let mut held = Vec::with_capacity(ROUNDS as usize);
    let began = Instant::now();
    for _ in 0..ROUNDS {
        held.push(ledger.reserve(&account, nano(1_000)).unwrap());
    }
    let reserved = began.elapsed();
    for reservation in held {
        reservation.settle(answered(nano(500)));
    }
    let settled = began.elapsed() - reserved;
    ledger.flush().unwrap();
    let durable = began.elapsed();
    eprintln!(
        "--- reserve {:?}, settle {:?}, durable {:.0} rows/s ({})",
        reserved / ROUNDS,
        settled / ROUNDS,
        f64::from(ROUNDS) / durable.as_secs_f64(),
        if cfg!(debug_assertions) { "not optimised" } else { "optimised" },
    );
    ledger.close();
    assert_eq!(scene.verify(), u64::from(ROUNDS));
}
