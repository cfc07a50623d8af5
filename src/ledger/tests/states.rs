//! Whatever happens in whatever order, what is spent and reserved stays within the cap: the grant
//! state machine, driven by hand against a count kept outside of it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const CAP_DAY: u64 = 10_000;
const CAP_MONTH: u64 = 25_000;
const CAP_ALL: u64 = 15_000;

#[derive(Clone, Debug)]
enum Step {
    Reserve {
        team: bool,
        worst: u64,
    },
    /// The reservation at this place (of those that are out) costs so many percent.
    Settle {
        place: usize,
        percent: u64,
    },
    Drop {
        place: usize,
    },
    Write,
    /// The next commit fails.
    Break,
    Pass {
        ms: i64,
    },
    /// Budgets come and go and get other caps.
    Configure {
        month: bool,
        cap_day: u64,
    },
    Kill,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any::<bool>(), prop_oneof![1..200_u64, 1..4_000_u64])
            .prop_map(|(team, worst)| Step::Reserve { team, worst }),
        5 => (any::<usize>(), 0..=100_u64)
            .prop_map(|(place, percent)| Step::Settle { place, percent }),
        1 => any::<usize>().prop_map(|place| Step::Drop { place }),
        8 => Just(Step::Write),
        1 => Just(Step::Break),
        2 => prop_oneof![0..2_000_i64, 0..DAY, Just(15 * DAY), Just(-DAY)]
            .prop_map(|ms| Step::Pass { ms }),
        1 => (any::<bool>(), 1..=CAP_DAY)
            .prop_map(|(month, cap_day)| Step::Configure { month, cap_day }),
        1 => Just(Step::Kill),
        1 => Just(Step::Restart),
    ]
}

/// The ledger under test, and what the outside knows of it.
struct Machine {
    scene: Scene,
    weir: Option<ByHand>,
    terms: Terms,
    out: Vec<(Reservation, Vec<(Scope, i64)>)>,
    /// What was spent, or may have been, by scope and period; reserved amounts included.
    used: BTreeMap<(Scope, i64), u64>,
    /// Requests that are settled, and rows that a kill may have taken.
    settled: u64,
}

fn table(month: bool, cap_day: u64) -> Terms {
    let mut budgets = vec![
        budget(Some("team"), None, Period::Day, nano(cap_day)),
        budget(None, Some("azure"), Period::Day, nano(CAP_ALL)),
    ];
    if month {
        budgets.push(budget(None, None, Period::Month, nano(CAP_MONTH)));
    }
    terms(budgets)
}

impl Machine {
    fn new() -> Self {
        let mut machine = Self {
            scene: Scene::new(),
            weir: None,
            terms: table(true, CAP_DAY),
            out: Vec::new(),
            used: BTreeMap::new(),
            settled: 0,
        };
        machine.start();
        machine
    }

    fn start(&mut self) {
        let mut weir = self.scene.by_hand(self.terms.clone());
        assert!(weir.write());
        weir.writer.books().unwrap().hurry();
        self.weir = Some(weir);
    }

    fn weir(&mut self) -> &mut ByHand {
        self.weir.as_mut().unwrap()
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Reserve { team, worst } => self.reserve(team, nano(worst)),
            Step::Settle { place, percent } if !self.out.is_empty() => {
                let (reservation, scopes) = self.out.swap_remove(place % self.out.len());
                let cost = nano(reservation.worst().nano() * percent / 100);
                self.give_back(&scopes, reservation.worst().saturating_sub(cost));
                reservation.settle(answered(cost));
                self.settled += 1;
            }
            Step::Drop { place } if !self.out.is_empty() => {
                drop(self.out.swap_remove(place % self.out.len()));
                self.settled += 1;
            }
            Step::Settle { .. } | Step::Drop { .. } => {}
            Step::Write => {
                self.weir().write();
            }
            Step::Break => {
                if let Some(books) = self.weir().writer.books() {
                    books.refuse();
                }
            }
            Step::Pass { ms } => self.scene.clock.advance(ms),
            Step::Configure { month, cap_day } => {
                self.terms = table(month, cap_day);
                let terms = self.terms.clone();
                self.weir().reconfigure(terms);
                // As `reconfigure` does before it returns.
                self.weir().write();
            }
            Step::Kill => {
                self.weir = None;
                // What was out may have been billed, and stays in `used`.
                self.out.clear();
                self.start();
            }
            Step::Restart => {
                for (reservation, scopes) in std::mem::take(&mut self.out) {
                    self.give_back(&scopes, reservation.worst());
                    reservation.settle(answered(Money::ZERO));
                    self.settled += 1;
                }
                let mut weir = self.weir.take().unwrap();
                // A disk that was broken gets its second chance.
                while !weir.write_now() {}
                weir.close();
                self.start();
            }
        }
        self.check();
    }

    fn reserve(&mut self, team: bool, worst: Money) {
        let tenant: Arc<str> = if team { "team" } else { "other" }.into();
        let ledger = self.weir().ledger.clone();
        let account = ledger.account(&tenant, &"azure".into());
        let checked = ledger.check(&account, worst, ledger.moment());
        let reserved = ledger.reserve(&account, worst);
        assert_eq!(checked.as_ref().err(), reserved.as_ref().err(), "a check says what comes");
        let Ok(reservation) = reserved else { return };
        let scopes: Vec<_> = account
            .purses()
            .iter()
            .map(|purse| (purse.scope.clone(), reservation.moment.number(purse.scope.period)))
            .collect();
        for scope in &scopes {
            *self.used.entry(scope.clone()).or_default() += worst.nano();
        }
        self.out.push((reservation, scopes));
    }

    fn give_back(&mut self, scopes: &[(Scope, i64)], rest: Money) {
        for scope in scopes {
            *self.used.get_mut(scope).unwrap() -= rest.nano();
        }
    }

    /// The largest cap that a budget had holds for what was drawn from it.
    fn check(&self) {
        for ((scope, period), used) in &self.used {
            let cap = match (&scope.tenant, scope.period) {
                (Some(_), _) => CAP_DAY,
                (None, Period::Day) => CAP_ALL,
                (None, Period::Month) => CAP_MONTH,
            };
            assert!(*used <= cap, "{scope} in {period}: {used} of {cap}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_passes_a_cap(steps in prop::collection::vec(step(), 1..120)) {
        let mut machine = Machine::new();
        for step in &steps {
            machine.take(step);
        }
        machine.take(&Step::Restart);
        let rows = machine.scene.verify();
        let killed = steps.iter().any(|step| matches!(step, Step::Kill));
        if killed {
            prop_assert!(rows <= machine.settled);
        } else {
            prop_assert_eq!(rows, machine.settled, "each request has its row");
        }
    }
}
