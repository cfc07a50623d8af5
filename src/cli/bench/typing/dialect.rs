//! How servers are asked at a cursor, and what their answers say.

use serde_json::{Value, json};

use super::http::Wrong;

/// Longest line of an answer.
const LINE_BYTES_MAX: usize = 4 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Dialect {
    /// llama.cpp's `/infill`
    Infill,
    /// OpenAI's `/v1/completions`, with `suffix`
    Openai,
    /// Ollama's `/api/generate`, with `suffix`
    Ollama,
}

/// What is asked at a cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) prefix: String,
    pub(super) suffix: String,
    /// The file that the cursor is in.
    pub(super) path: String,
    /// Pieces of other places, as path and text, the oldest first.
    pub(super) chunks: Vec<(String, String)>,
    /// 0: the prompt is only read.
    pub(super) max_tokens: u32,
    pub(super) predict_ms: Option<u32>,
    pub(super) single_line: bool,
    pub(super) stream: bool,
    /// Always the likeliest token, as many as were asked for.
    pub(super) exact: bool,
}

impl Dialect {
    pub(super) const fn path(self) -> &'static str {
        match self {
            Dialect::Infill => "/infill",
            Dialect::Openai => "/v1/completions",
            Dialect::Ollama => "/api/generate",
        }
    }

    /// The model's name matters to Ollama alone.
    pub(super) fn body(self, ask: &Ask, model: &str) -> Vec<u8> {
        let mut body = match self {
            Dialect::Infill => infill(ask),
            Dialect::Openai => openai(ask, model),
            Dialect::Ollama => ollama(ask, model),
        };
        if let Value::Object(fields) = &mut body {
            fields.retain(|_, value| !value.is_null());
        }
        serde_json::to_vec(&body).expect("strings and numbers serialise")
    }

    fn absorb(self, value: &Value, reply: &mut Reply) -> Result<(), Wrong> {
        if let Some(error) = value.get("error").filter(|error| !error.is_null()) {
            return Err(Wrong::Said(error.to_string()));
        }
        let text = match self {
            Dialect::Infill => &value["content"],
            Dialect::Openai => &value["choices"][0]["text"],
            Dialect::Ollama => &value["response"],
        };
        // The last of a stream repeats nothing.
        if let Some(text) = text.as_str().filter(|text| !text.is_empty()) {
            reply.text.push_str(text);
            reply.pieces += 1;
        }
        reply.told.merge(match self {
            Dialect::Infill => told_infill(value),
            Dialect::Openai => told_openai(value),
            Dialect::Ollama => Told {
                prompt: value["prompt_eval_count"].as_u64(),
                generated: value["eval_count"].as_u64(),
                ..Told::default()
            },
        });
        Ok(())
    }
}

/// As llama.vim sends it: the cursor's line apart from those before it.
fn infill(ask: &Ask) -> Value {
    let line = ask.prefix.rfind('\n').map_or(0, |newline| newline + 1);
    let chunk = |(path, text): &(String, String)| json!({"filename": path, "text": text});
    let timing = ["cache_n", "prompt_n", "prompt_ms", "predicted_n", "predicted_ms"];
    let fields: Vec<String> = timing.iter().map(|name| format!("timings/{name}")).collect();
    json!({
        "input_prefix": &ask.prefix[..line],
        "prompt": &ask.prefix[line..],
        "input_suffix": ask.suffix,
        "input_extra": ask.chunks.iter().map(chunk).collect::<Vec<_>>(),
        "n_predict": ask.max_tokens,
        "t_max_predict_ms": ask.predict_ms,
        "stop": ask.single_line.then(|| json!(["\n"])),
        "cache_prompt": true,
        // The likeliest of one is the least that a sampler can have to do.
        "samplers": if ask.exact { json!(["top_k"]) } else { json!(["top_k", "top_p", "infill"]) },
        "top_k": if ask.exact { 1 } else { 40 },
        "temperature": ask.exact.then_some(0.0),
        "ignore_eos": ask.exact.then_some(true),
        "stream": ask.stream,
        "response_fields": (!ask.stream)
            .then(|| [&["content".to_owned()], &fields[..]].concat()),
    })
}

fn openai(ask: &Ask, model: &str) -> Value {
    json!({
        "model": model,
        "prompt": ask.prefix,
        "suffix": ask.suffix,
        "max_tokens": ask.max_tokens,
        "temperature": 0,
        "stop": ask.single_line.then(|| json!(["\n"])),
        "ignore_eos": ask.exact.then_some(true),
        "stream": ask.stream,
        "stream_options": ask.stream.then(|| json!({"include_usage": true})),
    })
}

fn ollama(ask: &Ask, model: &str) -> Value {
    let mut options = json!({"num_predict": ask.max_tokens, "temperature": 0});
    if ask.single_line {
        options["stop"] = json!(["\n"]);
    }
    json!({
        "model": model,
        "prompt": ask.prefix,
        "suffix": ask.suffix,
        "stream": ask.stream,
        "options": options,
    })
}

/// Timings come as an object or, where they were asked for by name, flat.
fn told_infill(value: &Value) -> Told {
    let timing =
        |name: &str| value["timings"].get(name).or_else(|| value.get(format!("timings/{name}")));
    let count = |name| timing(name).and_then(Value::as_u64);
    let ms = |name| timing(name).and_then(Value::as_f64);
    let (read, cached) = (count("prompt_n"), count("cache_n"));
    Told {
        // Without a count of what was cached, what was read is not the whole prompt.
        prompt: read.zip(cached).map(|(read, cached)| read + cached),
        cached,
        generated: count("predicted_n"),
        prefill_ms: ms("prompt_ms"),
        decode_ms: ms("predicted_ms"),
    }
}

fn told_openai(value: &Value) -> Told {
    let usage = &value["usage"];
    Told {
        prompt: usage["prompt_tokens"].as_u64(),
        cached: usage["prompt_tokens_details"]["cached_tokens"].as_u64(),
        generated: usage["completion_tokens"].as_u64(),
        ..Told::default()
    }
}

/// What a server says of its own work.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Told {
    pub(super) prompt: Option<u64>,
    /// Of the prompt.
    pub(super) cached: Option<u64>,
    pub(super) generated: Option<u64>,
    pub(super) prefill_ms: Option<f64>,
    pub(super) decode_ms: Option<f64>,
}

impl Told {
    /// What is said later holds.
    fn merge(&mut self, later: Told) {
        self.prompt = later.prompt.or(self.prompt);
        self.cached = later.cached.or(self.cached);
        self.generated = later.generated.or(self.generated);
        self.prefill_ms = later.prefill_ms.or(self.prefill_ms);
        self.decode_ms = later.decode_ms.or(self.decode_ms);
    }
}

/// An answer as far as it has come: events (`data: {..}`), lines of JSON, or one object.
pub(super) struct Reply {
    dialect: Dialect,
    /// What is no whole line yet.
    line: Vec<u8>,
    pub(super) text: String,
    /// How many came with text in them: about as many tokens.
    pub(super) pieces: u64,
    pub(super) told: Told,
}

impl Reply {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, line: Vec::new(), text: String::new(), pieces: 0, told: Told::default() }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Wrong> {
        self.line.extend_from_slice(bytes);
        while let Some(end) = self.line.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            self.absorb(&line)?;
        }
        if self.line.len() > LINE_BYTES_MAX { Err(Wrong::TooLong) } else { Ok(()) }
    }

    /// Nothing more comes.
    pub(super) fn end(&mut self) -> Result<(), Wrong> {
        let line = std::mem::take(&mut self.line);
        self.absorb(&line)
    }

    fn absorb(&mut self, line: &[u8]) -> Result<(), Wrong> {
        let line = line.trim_ascii();
        let data = line.strip_prefix(b"data:").map_or(line, <[u8]>::trim_ascii_start);
        // Comments, names of events and the end of OpenAI's streams hold no answer.
        if !data.starts_with(b"{") {
            return Ok(());
        }
        let value: Value = serde_json::from_slice(data).map_err(|_| Wrong::Malformed)?;
        self.dialect.absorb(&value, self)
    }

    /// The text that a client could show when it wants whole lines; None: there is none yet. A
    /// line that is empty is none.
    pub(super) fn has_line(&self) -> bool {
        self.text.trim_start().contains('\n')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dialect: Dialect, answer: &str) -> Reply {
        let whole = {
            let mut reply = Reply::new(dialect);
            reply.push(answer.as_bytes()).unwrap();
            reply.end().unwrap();
            reply
        };
        for cut in 0..answer.len() {
            let mut reply = Reply::new(dialect);
            let (before, after) = answer.as_bytes().split_at(cut);
            reply.push(before).unwrap();
            reply.push(after).unwrap();
            reply.end().unwrap();
            assert_eq!((&reply.text, reply.told), (&whole.text, whole.told), "cut at {cut}");
        }
        whole
    }

    #[test]
    fn streams_and_whole_answers_of_every_dialect_are_read() {
        let infill = "data: {\"content\":\"a\\n\",\"stop\":false}\n\ndata: {\"content\":\"b\",\"stop\":false}\n\n\
            data: {\"content\":\"\",\"stop\":true,\"timings\":{\"cache_n\":7,\"prompt_n\":2,\
            \"prompt_ms\":1.5,\"predicted_n\":3,\"predicted_ms\":2.5}}\n\n";
        let reply = read(Dialect::Infill, infill);
        assert_eq!((&*reply.text, reply.pieces, reply.has_line()), ("a\nb", 2, true));
        let told = Told {
            prompt: Some(9),
            cached: Some(7),
            generated: Some(3),
            prefill_ms: Some(1.5),
            decode_ms: Some(2.5),
        };
        assert_eq!(reply.told, told);
        let flat = "{\"content\":\"a\",\"timings/cache_n\":7,\"timings/prompt_n\":2,\
            \"timings/prompt_ms\":1.5,\"timings/predicted_n\":3,\"timings/predicted_ms\":2.5}";
        assert_eq!(read(Dialect::Infill, flat).told, told);
        let openai = "data: {\"choices\":[{\"text\":\"\\n  x\"}],\"usage\":null}\n\n\
            data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3,\
            \"prompt_tokens_details\":{\"cached_tokens\":7}}}\n\ndata: [DONE]\n\n";
        let reply = read(Dialect::Openai, openai);
        assert_eq!((&*reply.text, reply.has_line()), ("\n  x", false));
        assert_eq!(
            (reply.told.prompt, reply.told.cached, reply.told.generated),
            (Some(9), Some(7), Some(3))
        );
        let ollama = "{\"response\":\"a\",\"done\":false}\n{\"response\":\"\",\"done\":true,\
            \"prompt_eval_count\":9,\"eval_count\":1}\n";
        let reply = read(Dialect::Ollama, ollama);
        assert_eq!((&*reply.text, reply.told.generated), ("a", Some(1)));
    }

    #[test]
    fn an_error_in_an_answer_is_one() {
        let mut reply = Reply::new(Dialect::Openai);
        let error = reply.push(b"data: {\"error\":{\"message\":\"full\"}}\n\n").unwrap_err();
        assert!(error.to_string().contains("full"), "{error}");
    }

    #[test]
    fn a_cursor_is_asked_at_as_each_dialect_has_it() {
        let ask = Ask {
            prefix: "one\ntwo".into(),
            suffix: "three".into(),
            max_tokens: 4,
            single_line: true,
            stream: true,
            ..Ask::default()
        };
        let of = |dialect: Dialect| -> Value {
            serde_json::from_slice(&dialect.body(&ask, "m")).unwrap()
        };
        let infill = of(Dialect::Infill);
        assert_eq!(
            (&infill["input_prefix"], &infill["prompt"], &infill["input_suffix"]),
            (&json!("one\n"), &json!("two"), &json!("three"))
        );
        assert!(infill.get("t_max_predict_ms").is_none(), "nobody is sent a null");
        let openai = of(Dialect::Openai);
        assert_eq!((&openai["prompt"], &openai["stop"]), (&json!("one\ntwo"), &json!(["\n"])));
        let ollama = of(Dialect::Ollama);
        assert_eq!(ollama["options"]["stop"], json!(["\n"]));
        assert_eq!(ollama["model"], "m");
    }
}
