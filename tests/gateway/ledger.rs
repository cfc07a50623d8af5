//! The ledger as an operator meets it, and `kill -9`.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use weir::ledger::audit::{self, Filter};
use weir::ledger::{
    Budget, BudgetTable, Clock, Entry, Ledger, Options, Outcome, Period, Refused, Scope,
    SystemClock, Terms,
};
use weir::money::Money;
use weir::telemetry::Telemetry;

use crate::support::http::get;
use crate::support::process::Process;
use crate::support::scale;
use crate::support::weir::drive;

/// Where the child of `kill -9` finds its ledger, and how the parent tells it its cap and seed.
const CHILD: &str = "WEIR_TEST_LEDGER_CHILD";
/// Kills in a release.
const KILLS: usize = 1_000;
/// Kills that one ledger survives before the next begins.
const KILLS_OF_ONE: usize = 50;
/// How long a child lives at most once it has reserved something: long enough to sync a few times.
const LIFE_MAX_MS: u64 = 80;
/// One of so many is killed while it starts.
const EARLY: usize = 8;
/// A start takes some milliseconds; a machine under load takes longer.
const START_MAX: Duration = Duration::from_secs(20);
const WORKERS: u64 = 4;

fn table(cap: Money) -> BudgetTable {
    let budget = |tenant: Option<&str>, cap| Budget {
        scope: Scope { tenant: tenant.map(Arc::from), cloud: None, period: Period::Month },
        cap,
    };
    // The second is never what stops a request; it is there to be counted.
    BudgetTable::new(vec![budget(None, cap), budget(Some("team"), cap)]).expect("two scopes")
}

/// 2026-11-21 at noon, for as long as the test takes: no month ends in it.
struct Noon;

impl Clock for Noon {
    fn unix_ms(&self) -> i64 {
        1_795_262_400_000
    }
}

fn open(path: &Path, budgets: BudgetTable, clock: impl Clock) -> Ledger {
    let options = Options {
        path: path.to_owned(),
        utc_offset_s: 0,
        clock: Box::new(clock),
        telemetry: Telemetry::new(),
    };
    let terms = Terms { config: "test".into(), budgets, rents: Vec::new() };
    Ledger::open(options, terms).expect("a thread")
}

/// The process that is killed: it says on standard output what it reserves (`r ID WORST`), what
/// it settles for how much (`s ID COST`), what it was told is on disk (`a ID`), and that there is
/// nothing more to spend (`x`).
#[test]
fn child_of_kill() {
    let Some(told) = scale::variable(CHILD) else { return };
    let mut told = told.splitn(3, ' ');
    let mut number = || told.next().expect("a field").parse::<u64>().expect("a number");
    let (seed, cap) = (number(), Money::from_nano(number()));
    let ledger = open(Path::new(told.next().expect("a path")), table(cap), Noon);
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let ledger = &ledger;
            scope.spawn(move || work(ledger, seed.wrapping_mul(WORKERS).wrapping_add(worker)));
        }
    });
}

/// One line, in one write: a line that the parent sees is whole.
fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).expect("the parent reads");
    out.flush().expect("the parent reads");
}

fn work(ledger: &Ledger, seed: u64) -> ! {
    let mut random = fastrand::Rng::with_seed(seed);
    let account = ledger.account(&"team".into(), &"azure".into());
    let mut complained = false;
    loop {
        let worst = Money::from_nano(random.u64(1..2_000));
        let reservation = match ledger.reserve(&account, worst) {
            Ok(reservation) => reservation,
            Err(Refused::Granting(_)) => {
                thread::yield_now();
                continue;
            }
            Err(_) => {
                if !std::mem::replace(&mut complained, true) {
                    tell("x");
                }
                thread::sleep(Duration::from_millis(1));
                continue;
            }
        };
        let id = random.u64(..);
        tell(&format!("r {id} {}", worst.nano()));
        let cost = Money::from_nano(random.u64(..=worst.nano()));
        // Told before the rest is given back, so that the parent never counts too much.
        tell(&format!("s {id} {}", cost.nano()));
        reservation.settle(Entry {
            reason: format!("{id}").into(),
            cost: Some(cost),
            ..Entry::new(Outcome::Answered)
        });
        if random.u8(..) < 64 {
            ledger.flush().expect("the disk is there");
            tell(&format!("a {id}"));
        }
    }
}

/// What the parent knows of one ledger, whatever became of its writers.
#[derive(Default)]
struct Told {
    /// By id: the worst case until the cost is told.
    used: HashMap<u64, u64>,
    acknowledged: Vec<u64>,
}

impl Told {
    fn hear(&mut self, line: &str) {
        let mut words = line.split(' ');
        let (kind, id) = (words.next(), words.next());
        let number = |word: Option<&str>| word.and_then(|word| word.parse::<u64>().ok());
        match (kind, number(id), number(words.next())) {
            (Some("r" | "s"), Some(id), Some(amount)) => {
                self.used.insert(id, amount);
            }
            (Some("a"), Some(id), None) => self.acknowledged.push(id),
            // The harness's own lines, among them.
            _ => {}
        }
    }
}

fn spawn(path: &Path, seed: u64, cap: Money) -> Child {
    let name = concat!(module_path!(), "::child_of_kill");
    let name = name.split_once("::").expect("a crate").1;
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{seed} {} {}", cap.nano(), path.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("this test runs")
}

/// Every line that a child said until it was killed, so long after its first reservation; without
/// a `life` it is killed while it starts. The last line may be cut off, and is left out.
fn live_and_die(mut child: Child, life: Option<Duration>) -> Vec<String> {
    let out = child.stdout.take().expect("piped");
    let (began, begun) = mpsc::sync_channel(1);
    let reader = thread::spawn(move || {
        let (mut out, mut lines, mut line) = (BufReader::new(out), Vec::new(), String::new());
        while out.read_line(&mut line).is_ok_and(|length| length > 0) {
            if line.starts_with("r ") || line == "x\n" {
                // Only the first is waited for.
                let _ = began.try_send(());
            }
            if line.ends_with('\n') {
                lines.push(line.trim_end().to_owned());
            }
            line.clear();
        }
        lines
    });
    match life {
        Some(life) => {
            begun.recv_timeout(START_MAX).expect("a child that reserves or has nothing to spend");
            thread::sleep(life);
        }
        None => thread::sleep(Duration::from_millis(u64::from(child.id() % 16))),
    }
    // SIGKILL.
    child.kill().expect("our own child");
    child.wait().expect("our own child");
    reader.join().expect("it only reads")
}

#[test]
fn kill_nine_loses_no_row_that_was_acknowledged_and_passes_no_cap() {
    let mut random = scale::random("kill_nine");
    let (kills, mut killed, mut rows, mut acknowledged, mut full) =
        (scale::count(KILLS), 0, 0, 0, 0);
    while killed < kills {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("ledger.db");
        // From a cap that a few children use up to one that all of them do not.
        let cap = Money::from_nano(random.u64(50_000..5_000_000));
        let mut told = Told::default();
        for _ in 0..KILLS_OF_ONE.min(kills - killed) {
            killed += 1;
            let early = random.usize(..EARLY) == 0;
            let life = (!early).then(|| Duration::from_millis(random.u64(..LIFE_MAX_MS)));
            let child = spawn(&path, random.u64(..), cap);
            live_and_die(child, life).iter().for_each(|line| told.hear(line));
            let used: u64 = told.used.values().sum();
            assert!(used <= cap.nano(), "{used} of {} after {killed} kills", cap.nano());
        }
        // A child that was killed before it had a file left nothing to be wrong.
        if !path.exists() {
            continue;
        }
        open(&path, table(cap), Noon).close();
        let verdict = audit::verify(&path, None).expect("a ledger");
        assert_eq!(verdict.wrong, None);
        let found = ids(&path);
        for id in &told.acknowledged {
            assert_eq!(found.get(id), Some(&1), "row {id} was acknowledged");
        }
        assert!(found.values().all(|count| *count == 1), "each row once");
        let spent: u64 = spent(&path);
        assert!(spent <= cap.nano(), "{spent} of {}", cap.nano());
        rows += verdict.rows;
        acknowledged += told.acknowledged.len();
        full += usize::from(told.used.values().sum::<u64>() * 2 > cap.nano());
    }
    let result = format!(
        "{killed} kills, {rows} rows, {acknowledged} acknowledged, {full} more than half spent"
    );
    scale::measured("ledger", &result);
    assert!(acknowledged > 0, "no child lived long enough to be told anything: {result}");
}

/// How often each id stands in the rows.
fn ids(path: &Path) -> HashMap<u64, usize> {
    let mut csv = Vec::new();
    audit::csv(path, Filter::default(), &mut csv).expect("a ledger");
    let csv = String::from_utf8(csv).expect("UTF-8");
    let mut lines = csv.lines();
    let names: Vec<_> = lines.next().expect("names").split(',').collect();
    let reason = names.iter().position(|name| *name == "reason").expect("a column");
    let mut ids = HashMap::new();
    for line in lines {
        let id = line.split(',').nth(reason).expect("a reason").parse().expect("an id");
        *ids.entry(id).or_default() += 1;
    }
    ids
}

/// What the ledger counts as spent, crashes included.
fn spent(path: &Path) -> u64 {
    let all = audit::budgets(path).expect("a ledger");
    let all = all.iter().find(|line| line.tenant.is_none()).expect("the budget of all");
    all.spent_usd.saturating_add(all.lost_usd).nano()
}

/// A configuration with a price and a ledger of its own.
struct Scene {
    folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        fs::write(scene.config(), scene.toml()).expect("a writable folder");
        scene
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("weir.toml")
    }

    fn ledger(&self) -> PathBuf {
        self.folder.path().join("state/ledger.db")
    }

    fn toml(&self) -> String {
        format!(
            "overflow.anonymous_cloud = true\n[[cloud]]\nname = \"rack\"\nbase_url = \"http://127.0.0.1:9/v1\"\nmodel = \"big\"\n\
             hourly_usd = 2.5\nmax_in_flight = 4\n[ledger]\npath = {:?}\n",
            self.ledger()
        )
    }

    fn weir(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_weir"))
            .arg("ledger")
            .args(arguments)
            .arg("--config")
            .arg(self.config())
            .output()
            .expect("the binary starts")
    }

    fn says(&self, arguments: &[&str]) -> String {
        let output = self.weir(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

#[test]
fn a_server_keeps_a_ledger_that_can_be_read_and_verified_beside_it() {
    let scene = Scene::new();
    let mut process = Process::serve(&scene.toml());
    let beside = scene.says(&["verify"]);
    assert!(beside.starts_with("1 rows, all as they were written; keep 1:"), "{beside}");
    let address = process.address;
    drive(async {
        let answer = get(address, "/v1/usage").await.json();
        assert_eq!(answer["data"][0]["cloud"], "rack");
        assert_eq!(answer["data"][0]["cost_usd"], "2.50");
        assert_eq!(get(address, "/v1/usage?since=2999-01-01").await.json()["data"][0], Value::Null);
        let wrong = get(address, "/v1/usage?since=yesterday").await;
        assert_eq!((wrong.status, &wrong.error()["param"]), (400, &Value::from("since")));
    });
    process.terminate();
    assert!(process.ends_within(Duration::from_secs(20)).is_some_and(|status| status.success()));

    let kept = beside.trim().rsplit_once("keep ").expect("a hash").1;
    let again = scene.says(&["verify", "--kept", kept]);
    assert!(again.contains("all as they were written"), "{again}");
    let summary = scene.says(&[]);
    assert!(summary.contains("rack") && summary.contains("2.50"), "{summary}");
    let csv = scene.says(&["--csv"]);
    assert_eq!(csv.lines().count(), 2, "{csv}");
    assert!(csv.contains(",hour,"), "{csv}");
    assert!(scene.says(&["--csv", "--since", "2999-01-01"]).lines().count() == 1);
}

#[test]
fn verify_names_the_first_row_that_is_wrong() {
    let scene = Scene::new();
    let ledger = open(&scene.ledger(), BudgetTable::default(), SystemClock);
    let account = ledger.account(&"team".into(), &"azure".into());
    for _ in 0..5 {
        ledger.note(&account, Entry::new(Outcome::Kept));
    }
    ledger.close();
    let file = fs::read(scene.ledger()).expect("a ledger");
    // The outcome of one row, in place: as long as it was, so that it still is a database.
    let at = file.windows(4).rposition(|bytes| bytes == b"kept").expect("a row");
    let mut changed = file;
    changed[at..at + 4].copy_from_slice(b"shed");
    fs::write(scene.ledger(), changed).expect("a writable folder");
    let output = scene.weir(&["verify"]);
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(said.contains("row 1 is not what was written; the 0 rows before are right"), "{said}");
    let wrong = scene.weir(&["--since", "yesterday"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("must be a day as in 2026-11-21"));
}

#[test]
fn without_a_price_there_is_no_ledger() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_weir")).arg("ledger").output().expect("it starts");
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(said.starts_with("no ledger: no [[cloud]] has a price"), "{said}");
}
