//! Random configurations and requests, through the same doors as real ones: the file is parsed,
//! the request settled, and a dispatcher asks backends that only take down that they were asked.
//! What was generated is remembered as it was typed, and held against who was asked; no code of
//! weir judges here.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use futures_util::stream;
use weir::completion::{
    Backend, Chunk, CompletionRequest, CompletionStream, Event, ExtraFile, FimInput, FinishReason,
    Input, Reason, Refusal, Route, Usage,
};
use weir::config::{Config, Overrides};
use weir::dispatch::{Dispatcher, Load, Target};
use weir::policy::asked::{self, Asked};
use weir::telemetry::Telemetry;

use crate::support::scale;

/// Cases of the full run.
const CASES: usize = 100_000;
/// A case's configuration serves so many requests.
const REQUESTS: usize = 10;

const LEVELS: [&str; 3] = ["low", "moderate", "high"];
const REGIONS: [&str; 3] = ["r1", "r2", "r3"];
const REALMS: [&str; 2] = ["a", "b"];
const CERTIFICATIONS: [&str; 2] = ["soc2", "hipaa"];
/// Each path rule is about one of these folders.
const FOLDERS: [&str; 4] = ["keys", "src", "big", "docs"];
const ACCESS: [&str; 3] = ["never-cloud", "cloud-allowed", "cloud-only"];

/// What a row declares, or what somebody requires, as it was typed.
#[derive(Clone, Debug, Default)]
struct Terms {
    fedramp: Option<usize>,
    regions: BTreeSet<&'static str>,
    realms: BTreeSet<&'static str>,
    certifications: BTreeSet<&'static str>,
    retention: Option<u32>,
}

impl Terms {
    /// Each term is there with this chance.
    fn any(random: &mut Rng, chance: f64) -> Self {
        let [level, region, realm, certification, retention] =
            std::array::from_fn(|_| random.f64() < chance);
        let some = |random: &mut Rng, of: &[&'static str]| {
            let count = random.usize(1..=of.len());
            random.choose_multiple(of.iter().copied(), count).into_iter().collect()
        };
        Self {
            // High more often than the others: it is the one that matters most.
            fedramp: level.then(|| random.usize(..LEVELS.len() + 2).min(LEVELS.len() - 1)),
            regions: if region { some(random, &REGIONS) } else { BTreeSet::new() },
            realms: if realm { some(random, &REALMS) } else { BTreeSet::new() },
            certifications: if certification {
                some(random, &CERTIFICATIONS)
            } else {
                BTreeSet::new()
            },
            retention: retention.then(|| random.u32(..3) * 30),
        }
    }

    /// The keys and values, in one line or in several.
    fn typed(&self, between: &str, realm: &str) -> String {
        let mut items = Vec::new();
        if let Some(level) = self.fedramp {
            items.push(format!("fedramp = {:?}", LEVELS[level]));
        }
        let lists = [("regions", &self.regions), ("certifications", &self.certifications)];
        for (key, names) in lists {
            if !names.is_empty() {
                items.push(format!("{key} = {names:?}").replace('{', "[").replace('}', "]"));
            }
        }
        match realm {
            "realm" => items.extend(self.realms.first().map(|one| format!("realm = {one:?}"))),
            _ if self.realms.is_empty() => {}
            _ => items
                .push(format!("realms = {:?}", self.realms).replace('{', "[").replace('}', "]")),
        }
        items.extend(self.retention.map(|days| format!("retention_days = {days}")));
        items.join(between)
    }

    fn header(&self) -> String {
        let named = |key: &str, names: &BTreeSet<&str>| {
            names.iter().map(|name| format!("{key}={name}")).collect::<Vec<_>>()
        };
        let mut items = named("region", &self.regions);
        items.extend(named("realm", &self.realms));
        items.extend(named("certification", &self.certifications));
        items.extend(self.fedramp.map(|level| format!("fedramp={}", LEVELS[level])));
        items.extend(self.retention.map(|days| format!("retention_days={days}")));
        items.join(", ")
    }

    /// Whether a row that declares `row` meets this, said once more in the plainest way.
    fn is_met_by(&self, row: &Terms) -> bool {
        let level = match (self.fedramp, row.fedramp) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(least), Some(has)) => has >= least,
        };
        let regions = self.regions.is_empty()
            || (!row.regions.is_empty() && row.regions.iter().all(|r| self.regions.contains(r)));
        let realm = self.realms.is_empty()
            || row.realms.first().is_some_and(|own| self.realms.contains(own));
        let certified = self.certifications.iter().all(|one| row.certifications.contains(one));
        let retention = match (self.retention, row.retention) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(most), Some(keeps)) => keeps <= most,
        };
        level && regions && realm && certified && retention
    }
}

struct Tenant {
    leaves: bool,
    require: Terms,
}

struct PathRow {
    folder: &'static str,
    tenant: Option<usize>,
    access: &'static str,
    require: Terms,
}

struct World {
    clouds: Vec<Terms>,
    tenants: Vec<Tenant>,
    paths: Vec<PathRow>,
    unknown_leaves: bool,
    unmatched_leaves: bool,
}

impl World {
    fn any(random: &mut Rng) -> Self {
        let tenants: Vec<Tenant> = (0..random.usize(1..4))
            .map(|_| Tenant { leaves: random.u8(..8) > 0, require: Terms::any(random, 0.2) })
            .collect();
        let count = random.usize(..3);
        let path = |random: &mut Rng| PathRow {
            folder: FOLDERS[random.usize(..FOLDERS.len())],
            tenant: random.bool().then(|| random.usize(..tenants.len())),
            access: ACCESS[random.usize(..ACCESS.len())],
            require: Terms::any(random, 0.1),
        };
        let paths = (0..count).map(|_| path(random)).collect();
        Self {
            clouds: (0..random.usize(1..5)).map(|_| Terms::any(random, 0.8)).collect(),
            tenants,
            paths,
            unknown_leaves: random.bool(),
            unmatched_leaves: random.bool(),
        }
    }

    fn toml(&self) -> String {
        let word = |leaves: bool| if leaves { "allow" } else { "never" };
        let mut text = format!(
            "[overflow]\nunknown_path = {:?}\nunmatched_path = {:?}\n",
            word(self.unknown_leaves),
            word(self.unmatched_leaves)
        );
        for (index, cloud) in self.clouds.iter().enumerate() {
            text += &format!(
                "[[cloud]]\nname = \"c{index}\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                 model = \"m\"\nattested_by = \"a test\"\n{}\n",
                cloud.typed("\n", "realm")
            );
        }
        for (index, tenant) in self.tenants.iter().enumerate() {
            text += &format!(
                "[[tenant]]\nname = \"t{index}\"\nkey_sha256 = \"{index:064x}\"\n\
                 overflow = {:?}\nrequire = {{ {} }}\n",
                if tenant.leaves { "auto" } else { "never" },
                tenant.require.typed(", ", "realms")
            );
        }
        for row in &self.paths {
            let tenant = row.tenant.map(|index| format!("tenant = \"t{index}\"\n"));
            text += &format!(
                "[[path]]\npattern = \"{}/**\"\npolicy = {:?}\n{}require = {{ {} }}\n",
                row.folder,
                row.access,
                tenant.unwrap_or_default(),
                row.require.typed(", ", "realms")
            );
        }
        text
    }

    fn load(&self) -> Config {
        let toml = self.toml();
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(toml.as_bytes()).expect("it can be written");
        let loaded = Config::load(Some(file.path()), Overrides::default());
        loaded.unwrap_or_else(|complaints| panic!("{complaints:?}\n{toml}")).0
    }
}

/// One request as it was made up. A part without a folder has no path; a folder that is in no rule
/// is unmatched.
struct Asking {
    tenant: usize,
    header: Terms,
    stays: bool,
    /// None: a raw prompt.
    parts: Option<Vec<Option<&'static str>>>,
}

impl Asking {
    fn any(random: &mut Rng, world: &World) -> Self {
        let part = |random: &mut Rng| {
            let at = random.usize(..FOLDERS.len() + 2);
            [Some("elsewhere"), None].into_iter().chain(FOLDERS.map(Some)).nth(at).expect("in it")
        };
        let parts = (0..random.usize(1..4)).map(|_| part(random)).collect();
        Self {
            tenant: random.usize(..world.tenants.len()),
            header: Terms::any(random, 0.1),
            stays: random.u8(..16) == 0,
            parts: (random.u8(..16) > 0).then_some(parts),
        }
    }

    fn input(&self) -> Input {
        let Some(parts) = &self.parts else { return Input::Text("a".into()) };
        let path = |folder: &str| format!("/root/{folder}/a.rs");
        Input::Fim(FimInput {
            path: parts[0].map(path),
            extra: parts[1..]
                .iter()
                .map(|part| ExtraFile { path: part.map(path).unwrap_or_default(), text: "".into() })
                .collect(),
            ..FimInput::default()
        })
    }

    /// Whether it may go to cloud `index`.
    fn may_go(&self, world: &World, index: usize) -> bool {
        let tenant = &world.tenants[self.tenant];
        let row = &world.clouds[index];
        tenant.leaves
            && !self.stays
            && tenant.require.is_met_by(row)
            && self.header.is_met_by(row)
            && self.rules(world).all(|rule| rule.access != "never-cloud")
            && self.rules(world).all(|rule| rule.require.is_met_by(row))
            && self.paths_may(world)
    }

    fn may_stay(&self, world: &World) -> bool {
        self.rules(world).all(|rule| rule.access != "cloud-only")
    }

    /// Every rule about a path of it.
    fn rules<'w>(&'w self, world: &'w World) -> impl Iterator<Item = &'w PathRow> {
        let folders = self.parts.iter().flatten().flatten();
        folders.flat_map(|folder| self.own(world).filter(move |rule| rule.folder == *folder))
    }

    fn own<'w>(&self, world: &'w World) -> impl Iterator<Item = &'w PathRow> {
        let tenant = self.tenant;
        world.paths.iter().filter(move |rule| rule.tenant.is_none_or(|own| own == tenant))
    }

    /// Whether nothing of it is of no path, or of a path that nobody thought of.
    fn paths_may(&self, world: &World) -> bool {
        if self.own(world).next().is_none() {
            return true;
        }
        let Some(parts) = &self.parts else { return world.unknown_leaves };
        parts.iter().all(|part| match part {
            None => world.unknown_leaves,
            Some(folder) => {
                world.unmatched_leaves || self.own(world).any(|rule| rule.folder == *folder)
            }
        })
    }
}

/// A backend that takes down that it was asked, and answers or refuses by lot.
struct Recorder {
    name: usize,
    asked: Arc<Mutex<Vec<usize>>>,
    refuses: Option<Reason>,
    work_ahead_ms: f64,
}

/// The box, among the names of clouds.
const HERE: usize = usize::MAX;

impl Load for Recorder {
    fn work_ahead_ms(&self) -> f64 {
        self.work_ahead_ms
    }
}

impl Backend for Recorder {
    async fn complete(&self, _: Arc<CompletionRequest>) -> Result<CompletionStream, Refusal> {
        self.asked.lock().expect("no panic under it").push(self.name);
        if let Some(reason) = &self.refuses {
            return Err(Refusal::new(reason.clone(), "by lot"));
        }
        let events = [
            Event::Chunk(Chunk { choice: 0, text: b"x".as_slice().into(), tokens: Vec::new() }),
            Event::Finished { choice: 0, reason: FinishReason::Stop },
            Event::Usage(Usage::default()),
        ];
        let events = Box::pin(stream::iter(events));
        Ok(CompletionStream { model: "m".into(), truncated: false, events })
    }
}

/// How often something was seen, so that the test knows it has power.
struct Tally {
    telemetry: Arc<Telemetry>,
    sent: usize,
    sent_by_high: usize,
    local: usize,
    shed: usize,
    /// A tenant requires FedRAMP High and no row has it.
    high_without_a_row: usize,
}

#[test]
fn nobody_is_asked_who_may_not_have_it() {
    let mut random = scale::random("policy");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut tally = Tally {
        telemetry: Telemetry::new(),
        sent: 0,
        sent_by_high: 0,
        local: 0,
        shed: 0,
        high_without_a_row: 0,
    };
    for _ in 0..scale::count(CASES).div_ceil(REQUESTS) {
        let world = World::any(&mut random);
        let config = world.load();
        let rules = config.policy.rules();
        for _ in 0..REQUESTS {
            let asking = Asking::any(&mut random, &world);
            let mut asked = Asked { stays_here: asking.stays, ..Asked::default() };
            let header = asking.header.header();
            if !header.is_empty() {
                asked::require(&header, &mut asked.require).expect("a valid header");
            }
            let input = asking.input();
            let policy = rules.settle(asking.tenant as u32, &asked, &input);
            let request = CompletionRequest { policy, ..CompletionRequest::greedy("r", input, 1) };
            runtime.block_on(one(&mut random, &world, &config, &asking, request, &mut tally));
        }
    }
    let Tally { sent, sent_by_high, local, shed, high_without_a_row, .. } = tally;
    let seen = [sent, sent_by_high, local, shed, high_without_a_row];
    let least = scale::count(CASES) / 200;
    assert!(seen.iter().all(|seen| *seen > least), "the cases are one-sided: {seen:?}");
    scale::measured(
        "policy: sent, sent though High is required, local, shed, no row",
        &format!("{seen:?}"),
    );
}

async fn one(
    random: &mut Rng,
    world: &World,
    config: &Config,
    asking: &Asking,
    request: CompletionRequest,
    tally: &mut Tally,
) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut backend = |name: usize, refusal: Reason| Recorder {
        name,
        asked: log.clone(),
        refuses: (random.u8(..3) == 0).then_some(refusal),
        work_ahead_ms: if random.u8(..4) > 0 { 2_000.0 } else { 0.0 },
    };
    let local = backend(HERE, Reason::QueueFull);
    let targets = config.clouds.iter().enumerate().map(|(index, row)| Target {
        name: row.name.clone(),
        declared: row.declared.clone(),
        backend: backend(index, Reason::CloudBusy),
    });
    let targets = targets.collect();
    let dispatcher = Dispatcher::new(local, targets, &config.overflow, tally.telemetry.clone());
    let patience = Duration::from_secs(10);
    let done = tokio::time::timeout(patience, dispatcher.dispatch(Arc::new(request)));
    let route = match done.await.expect("backends answer at once") {
        Ok(placed) => placed.route,
        Err((_, route)) => route,
    };
    let high = world.tenants[asking.tenant].require.fedramp == Some(2);
    for &name in log.lock().expect("no panic under it").iter() {
        let toml = || world.toml();
        if name == HERE {
            assert!(asking.may_stay(world), "ran here\n{}", toml());
            continue;
        }
        let has_high = world.clouds[name].fedramp == Some(2);
        assert!(!high || has_high, "a tenant that requires High was sent to c{name}\n{}", toml());
        assert!(asking.may_go(world, name), "c{name} was asked\n{}", toml());
    }
    match route {
        Route::Cloud(_) if high => tally.sent_by_high += 1,
        Route::Cloud(_) => tally.sent += 1,
        Route::Local => tally.local += 1,
        Route::Shed => tally.shed += 1,
    }
    tally.high_without_a_row +=
        usize::from(high && world.clouds.iter().all(|row| row.fedramp != Some(2)));
}
