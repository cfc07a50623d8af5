//! A made-up configuration and a made-up request, as they were typed, and what may become of them,
//! said once more in the plainest way.

use std::collections::BTreeSet;
use std::io::Write as _;

use fastrand::Rng;
use weir::completion::{ExtraFile, FimInput, Input};
use weir::config::{Config, Overrides};

const LEVELS: [&str; 3] = ["low", "moderate", "high"];
const REGIONS: [&str; 3] = ["r1", "r2", "r3"];
const REALMS: [&str; 2] = ["a", "b"];
const CERTIFICATIONS: [&str; 2] = ["soc2", "hipaa"];
/// Each path rule is about one of these folders.
const FOLDERS: [&str; 4] = ["keys", "src", "big", "docs"];
const ACCESS: [&str; 3] = ["never-cloud", "cloud-allowed", "cloud-only"];

/// The index of High.
pub(super) const HIGH: usize = 2;

/// What a row declares, or what somebody requires, as it was typed.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    pub(super) fedramp: Option<usize>,
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

    pub(super) fn header(&self) -> String {
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

pub(super) struct Tenant {
    leaves: bool,
    pub(super) require: Terms,
}

struct PathRow {
    folder: &'static str,
    tenant: Option<usize>,
    access: &'static str,
    require: Terms,
}

pub(super) struct World {
    pub(super) clouds: Vec<Terms>,
    pub(super) tenants: Vec<Tenant>,
    paths: Vec<PathRow>,
    unknown_leaves: bool,
    unmatched_leaves: bool,
}

impl World {
    pub(super) fn any(random: &mut Rng) -> Self {
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

    pub(super) fn toml(&self) -> String {
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

    pub(super) fn load(&self) -> Config {
        let toml = self.toml();
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(toml.as_bytes()).expect("it can be written");
        let loaded = Config::load(Some(file.path()), Overrides::default());
        loaded.unwrap_or_else(|complaints| panic!("{complaints:?}\n{toml}")).0
    }
}

/// One request as it was made up. A part without a folder has no path; a folder that is in no rule
/// is unmatched.
pub(super) struct Asking {
    pub(super) tenant: usize,
    pub(super) header: Terms,
    pub(super) stays: bool,
    /// None: a raw prompt.
    parts: Option<Vec<Option<&'static str>>>,
}

impl Asking {
    pub(super) fn any(random: &mut Rng, world: &World) -> Self {
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

    pub(super) fn input(&self) -> Input {
        let Some(parts) = &self.parts else { return Input::Text("a".into()) };
        let path = |folder: &str| format!("/home/{folder}/a.rs");
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
    pub(super) fn may_go(&self, world: &World, index: usize) -> bool {
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

    pub(super) fn may_stay(&self, world: &World) -> bool {
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
