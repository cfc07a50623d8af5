//! `weir plan` and `weir bench spill`, as an operator and a script meet them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::scale;

const CONFIG: &str = "\
[overflow]
anonymous_cloud = true
[[cloud]]
name = \"near\"
base_url = \"http://127.0.0.1:9/v1\"
model = \"m\"
fim = \"suffix\"
price = { input_usd_per_mtok = 0.5, output_usd_per_mtok = 1.5 }
";
const SPEEDS: &str = "\
[local]
decode_ms = [[1, 8], [8, 12]]
prefill_ms = [[1, 8], [16, 10], [64, 20], [512, 128]]
[cloud.near]
ttft_ms = 120
";
/// Virtual runs of the benchmark in a release.
const SEEDS: usize = 20;

/// A folder with a configuration, speeds and a trace of a burst.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { folder: TempDir::new().expect("a folder") };
        desk.write("weir.toml", CONFIG.as_bytes());
        desk.write("speeds.toml", SPEEDS.as_bytes());
        let burst = [
            "plan", "generate", "--shape", "burst", "--hours", "0.05", "--rate", "8", "--seed", "3",
        ];
        let made = weir(&burst);
        assert!(made.status.success(), "{}", said(&made.stderr));
        desk.write("trace.jsonl", &made.stdout);
        assert_eq!(made.stdout, weir(&burst).stdout, "the same again");
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).expect("a file");
    }

    /// `weir plan` with all that is on the desk.
    fn plan(&self, more: &[&str]) -> Output {
        let path = |name: &str| text(&self.path(name));
        let (config, trace, speeds) = (path("weir.toml"), path("trace.jsonl"), path("speeds.toml"));
        let all = ["plan", "--config", &config, "--trace", &trace, "--speeds", &speeds];
        weir(&[&all, more].concat())
    }
}

fn weir(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir")).args(args).output().expect("the binary starts")
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn text(path: &Path) -> String {
    path.to_str().expect("a UTF-8 path").to_owned()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_plan_is_told_in_a_table_in_json_and_in_a_drawing() {
    let desk = Desk::new();
    let (svg, growth) = (text(&desk.path("plan.svg")), "2");
    let told = desk.plan(&["--growth", growth, "--rent", "4", "--svg", &svg]);
    assert!(told.status.success(), "{}", said(&told.stderr));
    let table = said(&told.stdout);
    for line in ["enter   in time", "1*", "never", "4.00 an hour at 4.00 $", "x 2  "] {
        assert!(table.contains(line), "no {line:?} in\n{table}");
    }

    let json = said(&desk.plan(&["--growth", growth, "--rent", "4", "--json"]).stdout);
    let report: Value = serde_json::from_str(&json).expect("JSON");
    let thresholds = report["thresholds"].as_array().expect("a list");
    let share = |swept: &Value, key: &str| number(&swept[key]);
    let overflow: Vec<f64> = thresholds.iter().map(|swept| share(swept, "overflow")).collect();
    assert_eq!(overflow.last(), Some(&0.0), "the last one is that nothing leaves");
    assert!(
        overflow.is_sorted_by(|a, b| a + 0.01 >= *b),
        "who waits longer sends less: {overflow:?}"
    );
    let configured: Vec<_> =
        thresholds.iter().filter(|swept| swept["configured"] == true).collect();
    let [configured] = configured[..] else { panic!("one is configured") };
    let never = thresholds.last().expect("some");
    assert!(share(configured, "attainment") > share(never, "attainment") + 0.05, "{json}");
    assert_eq!(report["break_even"]["rents"][0]["usd_per_hour"], "4.00");
    let growth = report["growth"].as_array().expect("a list");
    assert_eq!(
        growth.iter().map(|grown| number(&grown["factor"])).collect::<Vec<_>>(),
        [1.0, 1.25, 1.5, 2.0]
    );
    assert_eq!(growth[0]["overflow"], configured["overflow"]);
    assert_eq!(growth[3]["run_out"][0], "local");

    let drawing = std::fs::read_to_string(&svg).expect("a drawing");
    assert!(drawing.starts_with("<svg xmlns=") && drawing.ends_with("</svg>\n"));
    // Two charts, each with five lines of a grid and four of values; one threshold is marked.
    assert_eq!(drawing.matches("<polyline").count(), 2 * (5 + 4) + 1);
    assert!(!drawing.contains("NaN") && !drawing.contains("inf"), "{drawing}");
}

#[test]
fn what_a_plan_cannot_use_is_told() {
    let desk = Desk::new();
    desk.write("wrong.toml", b"[cloud.nobody]\nttft_ms = 100\n");
    desk.write("empty.jsonl", b"\n");
    let path = |name: &str| text(&desk.path(name));
    let (config, wrong, empty) = (path("weir.toml"), path("wrong.toml"), path("empty.jsonl"));
    let (trace, none) = (path("trace.jsonl"), path("none.jsonl"));
    for (args, why) in [
        (vec!["plan"], "--trace FILE or --ledger FILE"),
        (vec!["plan", "--trace", &none], "none.jsonl"),
        (vec!["plan", "--trace", &empty], "the trace has no request"),
        (vec!["plan", "--config", &config, "--trace", &trace, "--speeds", &wrong], "nobody in use"),
        (vec!["plan", "--trace", &trace, "--growth", "0.5"], "--growth"),
        (vec!["plan", "generate", "--shape", "burst", "--rate", "0"], "a rate above 0"),
        (vec!["bench", "spill", "--seeds", "0"], "--seeds"),
    ] {
        let refused = weir(&args);
        assert!(!refused.status.success(), "{args:?}");
        assert!(said(&refused.stderr).contains(why), "{args:?}: {}", said(&refused.stderr));
    }
}

/// The gate: every bar holds for every seed.
#[test]
fn a_peak_is_served_in_time_for_little_money() {
    let seeds = scale::count(SEEDS).to_string();
    let run = weir(&["bench", "spill", "--json", "--seeds", &seeds]);
    assert!(run.status.success(), "{}{}", said(&run.stderr), said(&run.stdout));
    let lines = said(&run.stdout);
    for line in lines.lines() {
        let judged: Value = serde_json::from_str(line).expect("JSON");
        let of = |key: &str| number(&judged[key]);
        let weir = &judged["weir"];
        assert!(number(&weir["attainment"]) >= 0.99 && of("changes") <= 4.0, "{line}");
        assert!(of("local_again_s") <= 3.0, "{line}");
        assert!(number(&weir["spend_usd"]) <= 1.15 * of("least_usd"), "{line}");
        for curve in ["queue_depth", "queue_depth_at_once", "cooldown"] {
            assert_eq!(judged[curve].as_array().map(Vec::len), Some(8), "{line}");
        }
        scale::measured(
            "spill",
            &format!(
                "seed {}: {:.2} % in time for {:.3} times the least",
                judged["seed"],
                100.0 * number(&weir["attainment"]),
                number(&weir["spend_usd"]) / of("least_usd")
            ),
        );
    }
}
