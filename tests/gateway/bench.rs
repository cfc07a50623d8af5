//! `weir bench`, as a script reads it: one line of JSON for each result.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

/// The shortest context that is configurable, and few tokens: what is tested is the report.
const CONTEXT: [&str; 2] = ["--context", "16"];
const SMALL: [&str; 4] = ["--runs", "1", "--json", "--quant"];
const TOKENS: u64 = 4;

/// Runs `weir bench` with what `input` says and returns its results.
fn bench(args: &[&str], input: &str) -> Vec<Value> {
    let (good, results) = run(args, input);
    assert!(good, "{args:?} {results:?}");
    results
}

/// The same, whether or not it succeeds: an unoptimised build misses bars.
fn run(args: &[&str], input: &str) -> (bool, Vec<Value>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .arg("bench")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("piped");
    // A bench that does not read its input may have ended by now.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("our own child");
    let said = String::from_utf8(output.stdout).expect("text");
    let lines = said.lines().map(|line| serde_json::from_str(line).expect("a line of JSON"));
    (output.status.success(), lines.collect())
}

fn decode(more: &[&str]) -> Value {
    let tokens = TOKENS.to_string();
    let context = if more.contains(&"--context") { &[][..] } else { &CONTEXT };
    let args = [&["decode"], context, &SMALL, &["bf16", "--tokens", &tokens], more];
    let mut results = bench(&args.concat(), "");
    assert_eq!(results.len(), 1);
    results.remove(0)
}

fn number(result: &Value, key: &str) -> f64 {
    result[key].as_f64().unwrap_or_else(|| panic!("{key} in {result}"))
}

/// Bytes of weights in the embedded model's matrices, stored in so many bytes a number, and of
/// its norms, which are always f32.
fn weight_bytes(each: u64) -> u64 {
    let layer = (256 + 2 * 128) * 256 + 256 * 256 + 3 * 704 * 256;
    (8 * layer + 8192 * 256) * each + (8 * 2 + 1) * 256 * 4
}

#[test]
fn a_decode_says_what_was_measured_and_where() {
    let result = decode(&["--kv", "f32"]);
    for key in ["tokens_per_second", "ms_per_token", "bandwidth_gbps", "roofline_share"] {
        assert!(number(&result, key) > 0.0, "{key} in {result}");
    }
    assert_eq!(result["quant"], "bf16");
    assert_eq!(result["kv"], "f32");
    assert_eq!(result["token_hash"].as_str().unwrap().len(), 16);
    let share = number(&result, "tokens_per_second") * number(&result, "bytes_per_token")
        / number(&result, "bandwidth_gbps")
        / 1e9;
    assert!((share / number(&result, "roofline_share") - 1.0).abs() < 1e-9, "of one run");
}

#[test]
fn a_token_reads_the_weights_and_what_it_attends_to() {
    // K and V of 8 layers of 2 heads of 64; the tokens attend to 17, 18, 19 and 20 positions.
    let kv = |each: u64| 2 * 8 * 2 * 64 * each * (17 + 18 + 19 + 20) / TOKENS;
    let result = decode(&["--kv", "f32"]);
    assert_eq!(number(&result, "bytes_per_token"), (weight_bytes(2) + kv(4)) as f64);
    let tokens = TOKENS.to_string();
    let args = [
        &["batch"],
        &CONTEXT[..],
        &SMALL,
        &["f32", "--kv", "bf16", "--tokens", &tokens, "--batch", "1,3"],
    ];
    let results = bench(&args.concat(), "");
    assert_eq!(results.len(), 2);
    for (result, batch) in results.iter().zip([1, 3]) {
        assert_eq!(number(result, "batch"), f64::from(batch));
        let weights = weight_bytes(4) as f64 / f64::from(batch);
        assert_eq!(number(result, "bytes_per_token"), weights + kv(2) as f64);
    }
}

#[test]
fn the_tokens_are_the_same_in_every_run_and_with_any_number_of_threads() {
    let hash = |more: &[&str]| decode(more)["token_hash"].clone();
    let first = hash(&["--threads", "1"]);
    assert_eq!(first, hash(&["--threads", "1"]));
    assert_eq!(first, hash(&["--threads", "2"]));
    assert_ne!(first, hash(&["--context", "17"]), "a hash of what was generated");
}

#[test]
fn a_prefill_is_measured_in_one_pass_and_in_steps() {
    let results = bench(&[&["prefill"], &CONTEXT[..], &SMALL, &["bf16"]].concat(), "");
    assert_eq!(results.len(), 1);
    let keys =
        ["tokens_per_second", "chunked_tokens_per_second", "chunked_share", "gops", "chunks"];
    for key in keys {
        assert!(number(&results[0], key) > 0.0, "{key} in {}", results[0]);
    }
}

#[test]
fn each_line_on_standard_input_is_a_run() {
    let tokens = TOKENS.to_string();
    let args = [&["decode"], &CONTEXT[..], &SMALL, &["bf16", "--tokens", &tokens, "--stdin"]];
    let results = bench(&args.concat(), "go\n\ngo on\n");
    assert_eq!(results.len(), 3);
    for result in &results {
        assert_eq!(number(result, "runs"), 1.0);
        assert_eq!(result["token_hash"], results[0]["token_hash"]);
    }
}

#[test]
fn speculation_is_measured_for_each_class_of_edit() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("traces.json");
    let ids: Vec<u32> = (300..316).cycle().take(48).collect();
    let trace = |class: &str| {
        serde_json::json!({
            "class": class, "source": "made up", "prompt": ids, "cursor": 48, "output": ids[..16],
        })
    };
    let traces = serde_json::json!([trace("one"), trace("other"), trace("one")]);
    std::fs::write(&path, traces.to_string()).expect("a writable temporary folder");
    let path = path.to_str().expect("text");
    let args = [&["spec"], &CONTEXT[..], &SMALL, &["bf16", "--trace", path]];
    let results = bench(&args.concat(), "");
    let classes: Vec<_> = results.iter().map(|result| result["class"].as_str().unwrap()).collect();
    assert_eq!(classes, ["one", "other"]);
    for result in &results {
        let (with, without) =
            (number(result, "tokens_per_second"), number(result, "plain_tokens_per_second"));
        assert!((with / without / number(result, "ratio") - 1.0).abs() < 1e-9, "{result}");
        assert_eq!(result["recorded"], false);
    }
}

/// Mean KL in nats of llama.cpp's Q8_0 and Q4_0 (llama-cpp-python 0.3.36, f16 KV) on the ids of the
/// test below, by benches/peers/quality.py: the bar for q8 and q4.
const PEER_KL: [(&str, f64); 2] = [("q8", 2.0764e-4), ("q4, head q8", 1.7187e-2)];

#[test]
fn quantised_weights_are_as_near_to_bf16_as_the_peers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().to_str().expect("text");
    let traces = ["complete", "edit"]
        .map(|class| format!("{}/benches/traces/{class}.json", env!("CARGO_MANIFEST_DIR")));
    let mut args = vec!["quality", "--out", out, "--prompts", "12", "--json"];
    args.extend(traces.iter().map(String::as_str));
    let results = bench(&args, "");
    let ids = std::fs::read_to_string(folder.path().join("ids.jsonl")).expect("the ids");
    assert_eq!(ids.lines().count(), 12);
    let positions = 12 * 64;
    for file in ["reference", "bf16", "q8", "q4"] {
        let written = folder.path().join(format!("{file}.f32")).metadata().expect("the logits");
        assert_eq!(written.len(), positions * 8192 * 4, "{file}");
    }
    let of = |quant: &str| {
        let result = results.iter().find(|result| result["quant"] == quant);
        result.unwrap_or_else(|| panic!("no {quant} in {results:?}"))
    };
    // The KV cache alone: were the logits those of another position, this would say so.
    assert!(number(of("bf16"), "kl_mean") < 1e-5, "{}", of("bf16"));
    assert!(number(of("q8"), "agreement") >= 0.99, "{}", of("q8"));
    for (quant, most) in PEER_KL {
        let result = of(quant);
        assert_eq!(result["positions"], positions);
        assert!(number(result, "kl_mean") <= most, "{result} where {most} is the peer's");
    }
}

#[test]
fn deciding_is_measured_beside_one_cloud_and_many() {
    let (_, results) = run(&["decide", "--decisions", "1000", "--json"], "");
    let rows: Vec<u64> = results.iter().filter_map(|result| result["rows"].as_u64()).collect();
    assert_eq!(rows, [1, 8, 64]);
    for result in &results {
        assert_eq!(result["decisions"], 1000);
        assert!(number(result, "p50_us") > 0.0, "{result}");
        assert!(number(result, "p99_us") >= number(result, "p50_us"), "{result}");
    }
}

#[test]
fn what_is_proxied_arrives_in_full_and_no_sooner_than_it_was_said() {
    let args = ["proxy", "--rate", "20", "--seconds", "1", "--runs", "1", "--json"];
    let (_, results) = run(&args, "");
    let reports: Vec<&Value> =
        results.iter().filter(|result| result["added_ttft_ms"].is_object()).collect();
    let ways: Vec<&str> = reports.iter().filter_map(|report| report["way"].as_str()).collect();
    assert_eq!(ways, ["direct", "weir", "relay"]);
    for report in reports {
        assert_eq!((&report["requests"], &report["failed"]), (&20.into(), &0.into()), "{report}");
        assert!(number(&report["ttft_ms"], "p50") >= 20.0, "{report}");
        assert!(number(&report["total_ms"], "p50") >= 20.0 + 16.0 * 5.3, "{report}");
    }
}
