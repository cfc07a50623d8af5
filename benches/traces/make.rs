//! Writes the traces beside it: `cargo run --example traces`.
//!
//! A trace is a prompt and what was really written after it, in ids of the embedded model's
//! tokenizer. `edits.toml` says which lines of this repository, as it was at one commit.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use models::FimOrder;
use models::fim::{FimText, Order};
use models::language::Language;
use models::model::ModelSource;
use serde::Deserialize;

/// What follows a window in which a function is to be rewritten.
const REWRITTEN: &str = "\n// The same with other names:\n";
/// Sizes that every trace keeps to, in tokens, beside the embedded model's context.
const PROMPT: std::ops::RangeInclusive<usize> = 280..=860;
const OUTPUT: std::ops::RangeInclusive<usize> = 80..=240;
/// The embedded model's.
const CONTEXT: usize = 1024;

#[derive(Deserialize)]
struct Edits {
    commit: String,
    edit: Vec<Edit>,
    copy: Vec<Edit>,
    complete: Vec<Edit>,
    prose: Vec<Edit>,
}

#[derive(Deserialize)]
struct Edit {
    file: String,
    /// First and last line of what is shown.
    window: (usize, usize),
    /// First and last line of what is written.
    lines: (usize, usize),
    #[serde(default)]
    replace: Vec<(String, String)>,
}

/// Ids, and where in the prompt the output goes on from.
struct Trace {
    prompt: Vec<u32>,
    cursor: usize,
    output: Vec<u32>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/traces");
    let edits: Edits = toml::from_str(&std::fs::read_to_string(folder.join("edits.toml"))?)?;
    let language = Language::load(&ModelSource::Builtin, FimOrder::Auto)?;
    let classes = [
        ("edit", &edits.edit),
        ("copy", &edits.copy),
        ("complete", &edits.complete),
        ("prose", &edits.prose),
    ];
    let mut misfits = 0;
    for (class, edits_of) in classes {
        let mut json = String::from("[\n");
        for (i, edit) in edits_of.iter().enumerate() {
            let trace = trace(class, edit, &edits.commit, &language)?;
            let (first, last) = edit.lines;
            let source = format!("{} {first}-{last}", edit.file);
            let (prompt, output) = (trace.prompt.len(), trace.output.len());
            eprintln!("{class:9} {source}: {prompt} + {output} tokens");
            let fits = PROMPT.contains(&prompt) && OUTPUT.contains(&output);
            misfits += usize::from(!fits || prompt + output > CONTEXT);
            let line = serde_json::json!({
                "class": class,
                "source": source,
                "prompt": trace.prompt,
                "cursor": trace.cursor,
                "output": trace.output,
            });
            let comma = if i + 1 < edits_of.len() { "," } else { "" };
            writeln!(json, "{line}{comma}")?;
        }
        std::fs::write(folder.join(format!("{class}.json")), json + "]\n")?;
    }
    if misfits > 0 {
        return Err(format!("{misfits} are not {PROMPT:?} + {OUTPUT:?} tokens").into());
    }
    Ok(())
}

fn trace(
    class: &str,
    edit: &Edit,
    commit: &str,
    language: &Language,
) -> Result<Trace, Box<dyn std::error::Error>> {
    let file = file_at(commit, &edit.file)?;
    let lines = |first: usize, last: usize| -> String {
        file.lines().skip(first - 1).take(last + 1 - first).flat_map(|l| [l, "\n"]).collect()
    };
    let ((top, bottom), (first, last)) = (edit.window, edit.lines);
    let mut output = lines(first, last);
    for (old, new) in &edit.replace {
        assert!(output.contains(old.as_str()), "{}: no {old:?} in what is written", edit.file);
        output = output.replace(old, new);
    }
    let tokenizer = &language.tokenizer;
    let prompt = match class {
        "complete" => {
            let (prefix, suffix) = (lines(top, first - 1), lines(last + 1, bottom));
            let text = FimText {
                prefix: &prefix,
                suffix: &suffix,
                path: Some(&edit.file),
                ..FimText::default()
            };
            let fim = language.fim.as_ref().expect("the embedded model fills in the middle");
            assert_eq!(fim.order(), Order::Spm, "the text before the cursor comes last");
            fim.render(&fim.tokenise(tokenizer, &text, CONTEXT)?, CONTEXT)?.ids
        }
        "prose" => tokenizer.encode_prompt(&lines(top, first - 1))?,
        "edit" => tokenizer.encode_prompt(&(lines(top, bottom) + REWRITTEN))?,
        _ => tokenizer.encode_prompt(&(lines(top, bottom) + "\n"))?,
    };
    // A FIM prompt ends with the token that asks for the middle.
    let asks = prompt.iter().rev().take_while(|&&id| tokenizer.is_special(id)).count();
    Ok(Trace { cursor: prompt.len() - asks, prompt, output: tokenizer.encode_rest(&output)? })
}

fn file_at(commit: &str, path: &str) -> Result<String, Box<dyn std::error::Error>> {
    let shown = Command::new("git")
        .args(["show", &format!("{commit}:{path}")])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    if !shown.status.success() {
        return Err(String::from_utf8_lossy(&shown.stderr).into());
    }
    Ok(String::from_utf8(shown.stdout)?)
}
