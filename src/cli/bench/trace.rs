//! Recorded edits: what was shown and what was written (benches/traces).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::Failure;

/// Far above any recording.
const BYTES_MAX: u64 = 16 << 20;

/// One edit, in ids of the embedded model's tokenizer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trace {
    /// What kind of edit it is; results are per class.
    pub(super) class: String,
    /// Where it comes from, for people.
    #[serde(rename = "source")]
    pub(super) _source: String,
    pub(super) prompt: Vec<u32>,
    /// The output goes on from `prompt[..cursor]`.
    pub(super) cursor: usize,
    pub(super) output: Vec<u32>,
}

/// Reads a file of traces. Every id is below `vocab`, every trace within `context` tokens.
pub(super) fn read(path: &Path, vocab: usize, context: usize) -> Result<Vec<Trace>, Failure> {
    let wrong = |what: String| Failure::Other(format!("{}: {what}", path.display()));
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| wrong(error.to_string()))?;
    let traces: Vec<Trace> =
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    for trace in &traces {
        let mut ids = trace.prompt.iter().chain(&trace.output);
        if let Some(id) = ids.find(|&&id| id as usize >= vocab) {
            return Err(wrong(format!("token {id} is beyond the vocabulary of {vocab}")));
        }
        if trace.prompt.is_empty() || trace.output.len() < 2 || trace.cursor > trace.prompt.len() {
            return Err(wrong("a trace has a prompt, a cursor in it and an output".into()));
        }
        if trace.prompt.len() + trace.output.len() > context {
            return Err(wrong(format!("a trace is longer than the model's {context} tokens")));
        }
    }
    if traces.is_empty() {
        return Err(wrong("no traces in it".into()));
    }
    Ok(traces)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCAB: usize = 100;
    const CONTEXT: usize = 8;

    fn read_text(text: &str) -> Result<Vec<Trace>, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("traces.json");
        std::fs::write(&file, text).unwrap();
        read(&file, VOCAB, CONTEXT).map_err(|error| error.to_string())
    }

    fn one(prompt: &[u32], cursor: usize, output: &[u32]) -> String {
        let class = "edit";
        let source = "made up";
        serde_json::json!([{
            "class": class, "source": source, "prompt": prompt, "cursor": cursor, "output": output,
        }])
        .to_string()
    }

    #[test]
    fn what_the_model_could_not_run_is_refused() {
        let good = read_text(&one(&[1, 2, 3], 2, &[4, 99])).unwrap();
        assert_eq!((good[0].prompt.len(), good[0].cursor, good[0].output[1]), (3, 2, 99));
        for (text, why) in [
            (one(&[1, 100], 2, &[4, 5]), "beyond the vocabulary"),
            (one(&[1, 2], 3, &[4, 5]), "a cursor in it"),
            (one(&[1, 2], 2, &[4]), "and an output"),
            (one(&[], 0, &[4, 5]), "has a prompt"),
            (one(&[1; 7], 2, &[4, 5]), "longer than the model's 8 tokens"),
            ("[]".to_owned(), "no traces"),
            ("{}".to_owned(), "traces.json"),
        ] {
            let said = read_text(&text).unwrap_err();
            assert!(said.contains(why), "{said} instead of {why}");
        }
    }

    #[test]
    fn the_traces_of_the_repository_fit_the_embedded_model() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/traces");
        for class in ["edit", "copy", "complete", "prose"] {
            let traces = read(&folder.join(format!("{class}.json")), 8192, 1024).unwrap();
            assert!(traces.len() >= 4 && traces.iter().all(|trace| trace.class == class));
        }
    }
}
