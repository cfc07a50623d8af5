//! Every wire, as an honest upstream speaks it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::frames;
use super::table::Phase;
use super::{COMPLETION_TOKENS, PROMPT_TOKENS, TEXTS};

/// Whose JSON an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Completion,
    Chat,
    Generate,
    Generic,
    Cohere,
    Converse,
    Llama,
    Mistral,
    Tgi,
}

/// What the JSON comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Envelope {
    /// Server-sent events.
    Events,
    /// The same without blank lines.
    Lines,
    /// AWS's frames: of the API's own events,
    Frames,
    /// with the message in base64,
    Wrapped,
    /// or with parts of server-sent events.
    Parts,
}

/// Whose errors an upstream tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    OpenAi,
    Azure,
    Mistral,
    OpenRouter,
    Aws,
    Google,
    Oracle,
}

/// One wire, and a row that uses it.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) envelope: Envelope,
    pub(crate) family: Family,
    /// What is asked is a conversation, and no cursor.
    pub(crate) chats: bool,
    /// Several choices may be asked for.
    pub(crate) choices: bool,
    /// What was used is told with the end of the text, not after it.
    pub(crate) counts_at_finish: bool,
    pub(crate) base_path: &'static str,
    /// The row without name and address; `KEY_FILE` is a file with its family's key.
    row: &'static str,
    /// A table of its own, which comes last: what its family has in common, and more.
    table: [&'static str; 2],
}

const BEDROCK: &str = "[cloud.aws]\nregion = \"us-east-1\"\ncredentials = \"imds\"\n";
const ORACLE: &str = "[cloud.oci]\ncompartment = \"ocid1.compartment.oc1..c\"\n\
    tenancy = \"ocid1.tenancy.oc1..t\"\nuser = \"ocid1.user.oc1..u\"\n\
    fingerprint = \"20:3b:97:13:55:1c:de:0d:d3:37:d8:50:4e:c5:3a:34\"\nkey_file = \"KEY_FILE\"\n";

/// An OpenAI-shaped server, from which the others differ.
const OPENAI: Wire = Wire {
    name: "openai-completions",
    shape: Shape::Completion,
    envelope: Envelope::Events,
    family: Family::OpenAi,
    chats: false,
    choices: true,
    counts_at_finish: false,
    base_path: "/v1",
    row: "model = \"coder\"\nfim = \"suffix\"\napi_key_file = \"KEY_FILE\"\n",
    table: ["", ""],
};

const CHAT: Wire = Wire {
    name: "openai-chat",
    shape: Shape::Chat,
    chats: true,
    row: "model = \"coder\"\nfim = \"chat\"\napi_key_file = \"KEY_FILE\"\n",
    ..OPENAI
};

const FRAMES: Wire = Wire {
    shape: Shape::Converse,
    envelope: Envelope::Frames,
    family: Family::Aws,
    choices: false,
    base_path: "",
    table: [BEDROCK, ""],
    ..CHAT
};

const VERTEX: Wire = Wire {
    family: Family::Google,
    choices: false,
    counts_at_finish: true,
    base_path: "/v1/projects/p/locations/us-central1/publishers/google",
    ..CHAT
};

pub(crate) const WIRES: [Wire; 17] = [
    OPENAI,
    CHAT,
    Wire {
        name: "mistral-fim",
        shape: Shape::Chat,
        family: Family::Mistral,
        choices: false,
        counts_at_finish: true,
        row: "provider = \"mistral\"\nmodel = \"codestral-latest\"\napi_key_file = \"KEY_FILE\"\n",
        ..OPENAI
    },
    Wire {
        name: "deepseek-fim",
        choices: false,
        base_path: "/beta",
        row: "provider = \"deepseek\"\nmodel = \"deepseek-chat\"\napi_key_file = \"KEY_FILE\"\n",
        ..OPENAI
    },
    Wire {
        name: "openrouter",
        family: Family::OpenRouter,
        choices: false,
        base_path: "/api/v1",
        row: "provider = \"openrouter\"\nmodel = \"qwen/qwen3-coder\"\n\
              openrouter = { only = [\"deepinfra\"], zdr = true }\napi_key_file = \"KEY_FILE\"\n",
        ..CHAT
    },
    Wire {
        name: "azure",
        family: Family::Azure,
        base_path: "/openai/v1",
        row: "provider = \"azure\"\nmodel = \"my-deployment\"\napi_key_file = \"KEY_FILE\"\n",
        ..CHAT
    },
    Wire {
        name: "weir-peer",
        row: "provider = \"weir\"\nmodel = \"default\"\napi_key_file = \"KEY_FILE\"\n",
        ..OPENAI
    },
    Wire {
        name: "bedrock-converse",
        row: "provider = \"bedrock\"\nmodel = \"anthropic.claude-3-haiku-20240307-v1:0\"\n",
        ..FRAMES
    },
    Wire {
        name: "bedrock-invoke-llama",
        shape: Shape::Llama,
        envelope: Envelope::Wrapped,
        chats: false,
        counts_at_finish: true,
        row: "provider = \"bedrock\"\nfim_family = \"codellama\"\n\
              model = \"arn:aws:bedrock:us-east-1:123456789012:imported-model/abc123\"\n",
        table: [BEDROCK, "api = \"invoke\"\nshape = \"llama\"\n"],
        ..FRAMES
    },
    Wire {
        name: "bedrock-invoke-mistral",
        shape: Shape::Mistral,
        envelope: Envelope::Wrapped,
        chats: false,
        counts_at_finish: true,
        row: "provider = \"bedrock\"\nfim_family = \"codestral\"\n\
              model = \"mistral.mistral-large-2402-v1:0\"\n",
        table: [BEDROCK, "api = \"invoke\"\n"],
        ..FRAMES
    },
    Wire {
        name: "sagemaker-openai",
        shape: Shape::Completion,
        envelope: Envelope::Parts,
        chats: false,
        row: "provider = \"sagemaker\"\nmodel = \"coder\"\nfim_family = \"qwen\"\n",
        table: [BEDROCK, "endpoint = \"coder\"\n"],
        ..FRAMES
    },
    Wire {
        name: "sagemaker-tgi",
        shape: Shape::Tgi,
        envelope: Envelope::Parts,
        chats: false,
        counts_at_finish: true,
        row: "provider = \"sagemaker\"\nmodel = \"coder\"\nfim_family = \"qwen\"\n",
        table: [BEDROCK, "endpoint = \"coder\"\ncontainer = \"tgi\"\n"],
        ..FRAMES
    },
    Wire {
        name: "vertex-generate-content",
        shape: Shape::Generate,
        row: "provider = \"vertex\"\nmodel = \"gemini-2.5-flash\"\n\
              vertex.credentials_file = \"KEY_FILE\"\n",
        ..VERTEX
    },
    Wire {
        name: "vertex-raw-predict",
        chats: false,
        base_path: "/v1/projects/p/locations/us-central1/publishers/mistralai",
        row: "provider = \"vertex\"\nmodel = \"codestral-2\"\n\
              vertex.credentials_file = \"KEY_FILE\"\nvertex.api = \"raw-predict\"\n",
        ..VERTEX
    },
    Wire {
        name: "oci-generic",
        shape: Shape::Generic,
        envelope: Envelope::Lines,
        family: Family::Oracle,
        choices: false,
        base_path: "/20231130",
        row: "provider = \"oci\"\nmodel = \"meta.llama-3.3-70b-instruct\"\n",
        table: [ORACLE, ""],
        ..CHAT
    },
    Wire {
        name: "oci-cohere",
        shape: Shape::Cohere,
        envelope: Envelope::Lines,
        family: Family::Oracle,
        choices: false,
        counts_at_finish: true,
        base_path: "/20231130",
        row: "provider = \"oci\"\nmodel = \"cohere.command-a-03-2025\"\n",
        table: [ORACLE, "format = \"cohere\"\n"],
        ..CHAT
    },
    Wire {
        name: "nim",
        choices: false,
        row: "provider = \"nim\"\nmodel = \"bigcode/starcoder2-7b\"\n\
              api_key_file = \"KEY_FILE\"\n",
        ..OPENAI
    },
];

impl Wire {
    /// The `[[cloud]]` row, in TOML, where `key_file` holds its key.
    pub(crate) fn toml(&self, base_url: &str, key_file: &str) -> String {
        let [table, more] = self.table;
        let own = format!("{}{table}{more}", self.row).replace("KEY_FILE", key_file);
        format!("[[cloud]]\nname = \"hostile\"\nbase_url = \"{base_url}\"\n{own}")
    }

    /// What its key file holds.
    pub(crate) fn key(&self) -> &'static str {
        match self.family {
            Family::Google => {
                include_str!("../../../../tests/fixtures/wires/google/service-account.json")
            }
            Family::Oracle => include_str!("../../../../tests/fixtures/wires/oci/pkcs8.pem"),
            _ => "key-of-the-test",
        }
    }

    /// Whether this build can speak it.
    pub(crate) fn is_built(&self) -> bool {
        match self.family {
            Family::Aws => cfg!(feature = "aws"),
            Family::Azure => cfg!(feature = "azure"),
            Family::Google => cfg!(feature = "google"),
            Family::Oracle => cfg!(feature = "oci"),
            Family::OpenAi | Family::Mistral | Family::OpenRouter => true,
        }
    }

    pub(crate) fn is_peer(&self) -> bool {
        self.name == "weir-peer"
    }

    /// What it calls a stream.
    pub(crate) fn content_type(&self) -> &'static str {
        match self.envelope {
            Envelope::Events | Envelope::Lines => "text/event-stream",
            _ => "application/vnd.amazon.eventstream",
        }
    }

    pub(crate) fn is_text(&self) -> bool {
        matches!(self.envelope, Envelope::Events | Envelope::Lines)
    }

    /// Whether its stream says that it is over.
    pub(crate) fn says_done(&self) -> bool {
        matches!(self.shape, Shape::Completion | Shape::Chat | Shape::Generic)
    }

    /// The head of an answer, with these header lines.
    pub(crate) fn head(&self, status: &str, lines: &str) -> Vec<u8> {
        let acknowledged = match self.is_peer() {
            true => "x-weir-acknowledged: overflow=never\r\n",
            false => "",
        };
        format!("HTTP/1.1 {status}\r\n{acknowledged}{lines}\r\n").into_bytes()
    }

    /// The head of an honest one, whose body comes in chunks.
    pub(crate) fn good_head(&self) -> Vec<u8> {
        let kind = self.content_type();
        self.head("200 OK", &format!("content-type: {kind}\r\ntransfer-encoding: chunked\r\n"))
    }

    /// An honest answer in parts, each with the first phase that has it behind itself.
    pub(crate) fn answer(&self, texts: &[&str]) -> Vec<(Phase, Vec<u8>)> {
        let head = (Phase::BeforeContent, self.good_head());
        let body = self.parts(texts).into_iter().map(|(from, bytes)| (from, chunk(&bytes)));
        [head].into_iter().chain(body).chain([(Phase::Over, LAST.to_vec())]).collect()
    }

    /// The body of the honest answer, as nothing carries it yet.
    pub(crate) fn body(&self) -> Vec<u8> {
        self.body_before(Phase::AfterEnd)
    }

    /// What of it a fault has behind itself.
    pub(crate) fn body_before(&self, phase: Phase) -> Vec<u8> {
        let parts = self.parts(&TEXTS).into_iter().filter(|(from, _)| *from <= phase);
        parts.flat_map(|(_, bytes)| bytes).collect()
    }

    fn parts(&self, texts: &[&str]) -> Vec<(Phase, Vec<u8>)> {
        let mut parts = vec![(Phase::BeforeContent, self.opening())];
        for (at, text) in texts.iter().enumerate() {
            let from = if at < texts.len() / 2 { Phase::MidContent } else { Phase::BeforeFinish };
            parts.push((from, self.text(0, text)));
        }
        parts.push((Phase::Tail, self.finish(0)));
        parts.push((Phase::AfterEnd, self.count(PROMPT_TOKENS, COMPLETION_TOKENS)));
        parts.push((Phase::AfterEnd, self.done()));
        parts.retain(|(_, bytes)| !bytes.is_empty());
        parts
    }

    /// What comes before the first text.
    fn opening(&self) -> Vec<u8> {
        match self.shape {
            Shape::Chat => self.message(
                &json!({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}),
            ),
            Shape::Converse => self.named("messageStart", &json!({"role": "assistant"})),
            _ => Vec::new(),
        }
    }

    /// A delta.
    pub(crate) fn text(&self, choice: u32, text: &str) -> Vec<u8> {
        self.message(&self.text_of(choice, &json!(text)))
    }

    /// The same with anything in the place of its text.
    pub(crate) fn text_of(&self, choice: u32, text: &Value) -> Value {
        match self.shape {
            Shape::Completion => {
                json!({"choices": [{"index": choice, "text": text, "finish_reason": null}]})
            }
            Shape::Chat => json!({"choices": [{"index": choice, "delta": {"content": text}}]}),
            Shape::Generate => {
                let content = json!({"role": "model", "parts": [{"text": text}]});
                json!({"candidates": [{"index": choice, "content": content}]})
            }
            Shape::Generic => {
                let content = json!([{"type": "TEXT", "text": text}]);
                json!({"index": choice, "message": {"role": "ASSISTANT", "content": content}})
            }
            Shape::Cohere => json!({"apiFormat": "COHERE", "text": text}),
            Shape::Converse => json!({"contentBlockIndex": choice, "delta": {"text": text}}),
            Shape::Llama => json!({"generation": text, "stop_reason": null}),
            Shape::Mistral => json!({"outputs": [{"text": text, "stop_reason": null}]}),
            Shape::Tgi => json!({"token": {"id": 1, "text": text, "special": false}}),
        }
    }

    /// The end of a choice.
    pub(crate) fn finish(&self, choice: u32) -> Vec<u8> {
        self.finished(choice, self.good_end())
    }

    /// The end of choice 0, with this word for why.
    pub(crate) fn ended(&self, why: &str) -> Vec<u8> {
        self.finished(0, why)
    }

    fn finished(&self, choice: u32, why: &str) -> Vec<u8> {
        let mut end = self.finish_of(choice, why);
        if self.counts_at_finish {
            let counted = self.count_of(&json!(PROMPT_TOKENS), &json!(COMPLETION_TOKENS));
            merge(&mut end, &counted);
        }
        match self.shape {
            Shape::Converse => self.named("messageStop", &end),
            _ => self.message(&end),
        }
    }

    /// Its word for a good end.
    fn good_end(&self) -> &'static str {
        match self.shape {
            Shape::Generate => "STOP",
            Shape::Cohere => "COMPLETE",
            Shape::Converse => "end_turn",
            Shape::Tgi => "eos_token",
            _ => "stop",
        }
    }

    fn finish_of(&self, choice: u32, why: &str) -> Value {
        match self.shape {
            Shape::Completion => {
                json!({"choices": [{"index": choice, "text": "", "finish_reason": why}]})
            }
            Shape::Chat => {
                json!({"choices": [{"index": choice, "delta": {}, "finish_reason": why}]})
            }
            Shape::Generate => json!({"candidates": [{"index": choice, "finishReason": why}]}),
            Shape::Generic => json!({"index": choice, "finishReason": why}),
            // It repeats all of the text.
            Shape::Cohere => json!({"text": TEXTS.concat(), "finishReason": why}),
            Shape::Converse => json!({"stopReason": why}),
            Shape::Llama => json!({"generation": "", "stop_reason": why}),
            Shape::Mistral => json!({"outputs": [{"text": "", "stop_reason": why}]}),
            Shape::Tgi => json!({"token": {"id": 2, "text": "</s>", "special": true},
                "details": {"finish_reason": why}}),
        }
    }

    /// What was used, where that is told by itself.
    pub(crate) fn count(&self, prompt: u64, completion: u64) -> Vec<u8> {
        match self.counts_at_finish {
            true => Vec::new(),
            false => self.counted(&json!(prompt), &json!(completion)),
        }
    }

    /// The same with anything in the place of the counts.
    pub(crate) fn counted(&self, prompt: &Value, completion: &Value) -> Vec<u8> {
        let counted = self.count_of(prompt, completion);
        match self.shape {
            Shape::Converse => self.named("metadata", &counted),
            _ => self.message(&counted),
        }
    }

    pub(crate) fn count_of(&self, prompt: &Value, completion: &Value) -> Value {
        let shaped = json!({"prompt_tokens": prompt, "completion_tokens": completion});
        let oracle = json!({"promptTokens": prompt, "completionTokens": completion});
        match self.shape {
            Shape::Completion | Shape::Chat if self.counts_at_finish => json!({ "usage": shaped }),
            Shape::Completion | Shape::Chat => json!({"choices": [], "usage": shaped}),
            Shape::Generate => json!({"usageMetadata":
                {"promptTokenCount": prompt, "candidatesTokenCount": completion}}),
            Shape::Generic | Shape::Cohere => json!({ "usage": oracle }),
            Shape::Converse => {
                json!({"usage": {"inputTokens": prompt, "outputTokens": completion}})
            }
            Shape::Llama | Shape::Mistral => json!({"amazon-bedrock-invocationMetrics":
                {"inputTokenCount": prompt, "outputTokenCount": completion}}),
            Shape::Tgi => json!({"details":
                {"generated_tokens": completion, "input_length": prompt}}),
        }
    }

    /// The word that nothing follows, where it has one.
    pub(crate) fn done(&self) -> Vec<u8> {
        match self.says_done() {
            true => self.raw(b"[DONE]"),
            false => Vec::new(),
        }
    }

    pub(crate) fn message(&self, body: &Value) -> Vec<u8> {
        self.raw(body.to_string().as_bytes())
    }

    /// Any bytes in the place of a message with text.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let event = || [b"data: ", bytes, b"\n\n"].concat();
        match self.envelope {
            Envelope::Events => event(),
            Envelope::Lines => [b"data: ", bytes, b"\n"].concat(),
            Envelope::Frames => frames::event("contentBlockDelta", bytes),
            Envelope::Wrapped => {
                let wrapped = json!({"bytes": STANDARD.encode(bytes), "p": "ab"});
                frames::event("chunk", wrapped.to_string().as_bytes())
            }
            Envelope::Parts => frames::event("PayloadPart", &event()),
        }
    }

    /// An event of Converse's.
    fn named(&self, event: &str, body: &Value) -> Vec<u8> {
        frames::event(event, body.to_string().as_bytes())
    }
}

/// Adds the fields of an object, also within one that both have.
fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().expect("an object") {
        match into.get_mut(key) {
            Some(there) if there.is_object() => merge(there, value),
            _ => into[key] = value.clone(),
        }
    }
}

/// What another weir says of itself, and then closes.
pub(crate) fn status() -> Vec<u8> {
    let body = json!({
        "instance": "another-weir",
        "acknowledges": ["x-weir-require", "x-weir-overflow", "x-weir-hops"],
        "ready": true,
        "work_ahead_ms": 0.0,
        "prefill_tokens_per_second": 1000.0,
    });
    let body = body.to_string();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// `bytes` as a chunk of a body; nothing, where there are none.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    if bytes.is_empty() {
        return Vec::new();
    }
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// The end of a body in chunks.
pub(crate) const LAST: &[u8] = b"0\r\n\r\n";
