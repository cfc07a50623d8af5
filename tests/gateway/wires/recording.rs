//! Bytes as a provider documents them (tests/fixtures/wires), and everything that must hold for
//! them whoever the provider is.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use weir::cloud::{Limits, Provider, providers};
use weir::completion::{
    Backend, ChatMessage, CompletionRequest, CompletionStream, Event, FimInput, FinishReason,
    Input, Usage,
};
use weir::config::services::aws::{AwsBase, AwsKeys};
use weir::config::{CloudService, Config, Overrides, Secret};

use super::frames::frames;
use crate::support::cloud::{Cloud, Seen, Step, chunk, chunked_head, status};

/// What a row proves itself with, where that is a bearer key.
pub(crate) const KEY: &str = "key-of-the-recordings";

/// One provider's route.
pub(crate) struct Recording {
    pub(crate) name: String,
    value: Value,
}

/// How an answer ended, and what it said until then.
#[derive(Debug, PartialEq)]
struct End {
    text: String,
    finish: Option<FinishReason>,
    usage: Option<Usage>,
    reason: Option<String>,
}

impl Recording {
    /// Everything in a folder of tests/fixtures/wires that this binary can speak to.
    pub(crate) fn all(folder: &str) -> Vec<Self> {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wires").join(folder);
        let files = std::fs::read_dir(folder).expect("recordings").map(|file| file.unwrap().path());
        let read = |path: &Path| {
            let text = std::fs::read_to_string(path).expect("it is read");
            let value: Value = serde_json::from_str(&text).expect("JSON");
            Self { name: path.file_stem().unwrap().to_string_lossy().into_owned(), value }
        };
        let mut all: Vec<Self> = files
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .map(|path| read(&path))
            .filter(|recording| !recording.value["row"].is_null())
            .filter(Self::is_built)
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        assert!(!all.is_empty());
        all
    }

    fn is_built(&self) -> bool {
        match self.value["feature"].as_str() {
            Some("oci") => cfg!(feature = "oci"),
            Some("aws") => cfg!(feature = "aws"),
            _ => true,
        }
    }

    pub(crate) fn text(&self, key: &str) -> &str {
        self.value[key].as_str().unwrap_or_else(|| panic!("{} has no {key}", self.name))
    }

    /// The row, at `base_url`; its keys lie in `folder`.
    pub(crate) fn row(&self, host: &str, folder: &TempDir, more: &str) -> String {
        let pem = include_str!("../../fixtures/wires/oci/pkcs8.pem");
        let signed = self.text("row").contains("KEY_FILE");
        let key_file = private(folder, if signed { "key.pem" } else { "key" }, {
            if signed { pem } else { KEY }
        });
        let row = self.text("row").replace("KEY_FILE", &key_file);
        let bearer = if signed || self.value["feature"] == "aws" {
            String::new()
        } else {
            format!("api_key_file = {key_file:?}\n")
        };
        format!(
            "[[cloud]]\nname = \"{}\"\nbase_url = \"http://{host}{}\"\n{bearer}{more}\n{row}\n",
            self.name.to_lowercase(),
            self.text("base_path"),
        )
    }

    fn provider(&self, cloud: &Cloud, more: &str) -> Provider {
        let folder = tempfile::tempdir().expect("a folder");
        let toml = self.row(&cloud.address.to_string(), &folder, more);
        let file = folder.path().join("weir.toml");
        std::fs::write(&file, &toml).expect("it is written");
        let (config, _) = Config::load(Some(&file), Overrides::default())
            .unwrap_or_else(|said| panic!("{said:?}\n{toml}"));
        let mut row = config.clouds.into_iter().next().expect("a row");
        if let CloudService::Aws(aws) = &mut row.service {
            // Where its keys come from is read from the environment, which belongs to all tests.
            let credentials = &mut Arc::make_mut(aws).credentials;
            credentials.as_mut().expect("it signs").base = AwsBase::Keys(aws_keys());
        }
        providers(&[row]).expect("a client").pop().expect("a row")
    }

    fn request(&self) -> CompletionRequest {
        let of = &self.value["input"];
        let text = |key: &str| of[key].as_str().unwrap_or_default().to_owned();
        let turn = |turn: &Value| ChatMessage {
            role: turn[0].as_str().unwrap().to_owned(),
            content: turn[1].as_str().unwrap().to_owned(),
        };
        let input = match of["chat"].as_array() {
            Some(turns) => Input::Chat(turns.iter().map(turn).collect()),
            None => Input::Fim(FimInput {
                prefix: text("prefix"),
                suffix: text("suffix"),
                ..FimInput::default()
            }),
        };
        let mut request = CompletionRequest::greedy("req-1", input, 64);
        request.sampling.seed = (self.value["seedless"] != true).then_some(7);
        request.stop.strings = vec!["\n\n".into()];
        request
    }

    /// A stream's parts: text, or frames of AWS's.
    fn stream(&self, of: &Value) -> Vec<u8> {
        let part = |part: &Value| match part.as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => frames(part),
        };
        of.as_array().expect("a list").iter().flat_map(part).collect()
    }

    /// The head and the body of a streamed answer.
    fn answered(&self, bytes: &[u8]) -> Vec<u8> {
        [self.head(), chunk(bytes), chunk(b"")].concat()
    }

    pub(crate) fn head(&self) -> Vec<u8> {
        match self.value["content_type"].as_str() {
            None => chunked_head(),
            Some(kind) => String::from_utf8(chunked_head())
                .expect("ASCII")
                .replace("text/event-stream", kind)
                .into_bytes(),
        }
    }

    /// The streamed bytes, as the provider documents them.
    pub(crate) fn streamed(&self) -> Vec<u8> {
        self.stream(&self.value["stream"])
    }

    /// The text of the answer.
    #[cfg(feature = "aws")]
    pub(crate) fn answer(&self) -> &str {
        self.text("text")
    }

    /// Whether a request seen has the documented path, and its proof is there.
    pub(crate) fn path(&self) -> &str {
        self.text("path")
    }

    fn end(&self, usage: &str) -> End {
        let usage = self.value.get(usage).unwrap_or(&self.value["usage"]);
        let count = |at: usize| usage[at].as_u64().expect("a count");
        End {
            text: self.text("text").to_owned(),
            finish: Some(finish(self.text("finish"))),
            usage: Some(Usage {
                prompt_tokens: count(0),
                cached_tokens: count(1),
                completion_tokens: count(2),
            }),
            reason: None,
        }
    }

    /// The request, and the answer whole and streamed.
    pub(crate) async fn reads_and_writes_as_documented(&self, check: impl Fn(&Seen)) {
        let bytes = self.streamed();
        let cloud = Cloud::always(vec![Step::Send(self.answered(&bytes))]).await;
        let end = complete(&self.provider(&cloud, ""), self.request()).await;
        assert_eq!(end, self.end("usage"), "{}", self.name);
        let seen = &cloud.seen()[0];
        assert_eq!(
            (seen.path(), &seen.body),
            (self.path(), &self.value["request"]),
            "{}",
            self.name
        );
        let accept = self.value["content_type"].as_str().unwrap_or("text/event-stream");
        assert_eq!(seen.header("accept"), Some(accept));
        for (name, value) in self.value["sent"].as_object().into_iter().flatten() {
            assert_eq!(seen.header(name), value.as_str(), "{}", self.name);
        }
        check(seen);

        let body = self.value["whole"].to_string();
        let more = self.value["whole_headers"].as_array().into_iter().flatten();
        let json = ["content-type: application/json"].into_iter();
        let headers: Vec<&str> = json.chain(more.map(|line| line.as_str().unwrap())).collect();
        let cloud = Cloud::always(vec![Step::Send(status(200, &headers, &body))]).await;
        let end = complete(&self.provider(&cloud, "stream = false"), self.request()).await;
        assert_eq!(end, self.end("usage_whole"), "{} whole", self.name);
        let seen = &cloud.seen()[0];
        let path = self.value["path_whole"].as_str().unwrap_or(self.path());
        let asked = (seen.path(), &seen.body);
        assert_eq!(asked, (path, &self.whole_request()), "{} whole", self.name);
        check(seen);
    }

    /// A row of Bedrock's with a key shows it and signs nothing.
    #[cfg(feature = "aws")]
    pub(crate) async fn shows_its_key(&self, cloud: &Cloud) {
        let folder = tempfile::tempdir().expect("a folder");
        let key_file = private(&folder, "key", KEY);
        let row = self.text("row").replace("credentials = \"imds\"\n", "");
        let toml = format!(
            "[[cloud]]\nname = \"keyed\"\nbase_url = \"http://{}{}\"\n\
             api_key_file = {key_file:?}\n{row}",
            cloud.address,
            self.text("base_path"),
        );
        let file = folder.path().join("weir.toml");
        std::fs::write(&file, &toml).expect("it is written");
        let (config, _) = Config::load(Some(&file), Overrides::default())
            .unwrap_or_else(|said| panic!("{said:?}\n{toml}"));
        let provider = providers(&config.clouds).expect("a client").pop().expect("a row");
        let end = complete(&provider, self.request()).await;
        assert_eq!(end, self.end("usage"), "{}", self.name);
        let seen = &cloud.seen()[0];
        assert_eq!(seen.header("authorization"), Some(&*format!("Bearer {KEY}")));
        assert_eq!(seen.header("x-amz-date"), None);
    }

    /// The cloud's answer is the documented one.
    pub(crate) async fn is_answered_by(&self, cloud: &Cloud) {
        let end = complete(&self.provider(cloud, ""), self.request()).await;
        assert_eq!(end, self.end("usage"), "{}", self.name);
    }

    /// What is known of the row's quota after an answer with these headers.
    pub(crate) async fn limits_after(&self, headers: &[&str]) -> Limits {
        let headers = [&["content-type: application/json"], headers].concat();
        let body = self.value["whole"].to_string();
        let cloud = Cloud::always(vec![Step::Send(status(200, &headers, &body))]).await;
        let provider = self.provider(&cloud, "stream = false");
        assert_eq!(complete(&provider, self.request()).await, self.end("usage_whole"));
        provider.limits(tokio::time::Instant::now())
    }

    /// The same without what only a stream has.
    fn whole_request(&self) -> Value {
        if let Some(body) = self.value.get("request_whole") {
            return body.clone();
        }
        let mut body = self.value["request"].clone();
        let (fields, streams, options) = match body.get("chatRequest") {
            Some(_) => (&mut body["chatRequest"], "isStream", "streamOptions"),
            None => (&mut body, "stream", "stream_options"),
        };
        fields.as_object_mut().expect("an object").remove(options);
        fields[streams] = json!(false);
        body
    }

    /// Cut anywhere, and byte by byte, the stream says the same.
    pub(crate) async fn splits_do_not_matter(&self, every: usize) {
        let bytes = Arc::new(self.streamed());
        let cuts: Vec<usize> = (1..bytes.len()).step_by(every).collect();
        let (asked, points, all) = (AtomicUsize::new(0), cuts.clone(), bytes.clone());
        let head = self.head();
        let cloud = Cloud::start(move |_| {
            let parts: Vec<&[u8]> = match points.get(asked.fetch_add(1, Ordering::SeqCst)) {
                Some(&at) => vec![&all[..at], &all[at..]],
                None => all.chunks(1).collect(),
            };
            let parts = parts.into_iter().map(chunk).chain([chunk(b"")]);
            vec![Step::Send(head.iter().copied().chain(parts.flatten()).collect())]
        })
        .await;
        let (provider, expected) = (self.provider(&cloud, ""), self.end("usage"));
        for at in cuts.iter().map(Some).chain([None]) {
            let end = complete(&provider, self.request()).await;
            assert_eq!(end, expected, "{} cut at {at:?}", self.name);
        }
    }

    /// Every documented error means what the table of errors says.
    pub(crate) async fn errors_have_their_meaning(&self) {
        for error in self.value["errors"].as_array().expect("a list") {
            let headers: Vec<&str> =
                error["headers"].as_array().unwrap().iter().map(|h| h.as_str().unwrap()).collect();
            let headers = [&["content-type: application/json"], headers.as_slice()].concat();
            let code = u16::try_from(error["status"].as_u64().unwrap()).unwrap();
            let answer = status(code, &headers, &error["body"].to_string());
            let cloud = Cloud::always(vec![Step::Send(answer)]).await;
            let end = complete(&self.provider(&cloud, ""), self.request()).await;
            let expected = error["reason"].as_str().map(str::to_owned);
            assert_eq!(
                end,
                End { text: String::new(), finish: None, usage: None, reason: expected },
                "{}: {error}",
                self.name
            );
        }
    }

    /// A stream that goes wrong keeps what it said and says how it ended.
    pub(crate) async fn broken_streams_end_honestly(&self) {
        for broken in self.value["broken"].as_array().expect("a list") {
            let bytes = self.stream(&broken["stream"]);
            let cloud = Cloud::always(vec![Step::Send(self.answered(&bytes))]).await;
            let end = complete(&self.provider(&cloud, ""), self.request()).await;
            let told = (end.text.as_str(), end.reason.as_deref(), end.finish);
            let expected = (
                broken["text"].as_str().unwrap(),
                broken["reason"].as_str(),
                broken["finish"].as_str().map(finish),
            );
            assert_eq!(told, expected, "{}: {broken}", self.name);
        }
    }
}

/// What rows at AWS sign with here.
pub(crate) fn aws_keys() -> AwsKeys {
    AwsKeys {
        id: "AKIAOFTHERECORDINGS0".into(),
        secret: Secret::new("the/secret+of=the/recordings"),
        token: Some(Secret::new("the//token+of+the+recordings==")),
    }
}

fn finish(word: &str) -> FinishReason {
    match word {
        "stop" => FinishReason::Stop,
        "length" => FinishReason::Length,
        "content_filter" => FinishReason::ContentFilter,
        _ => panic!("{word}"),
    }
}

/// A file that only its owner may read.
pub(crate) fn private(folder: &TempDir, name: &str, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("it is written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    path.display().to_string()
}

async fn complete(provider: &Provider, request: CompletionRequest) -> End {
    match provider.complete(Arc::new(request)).await {
        Ok(stream) => drain(stream).await,
        Err(refusal) => End {
            text: String::new(),
            finish: None,
            usage: None,
            reason: Some(refusal.reason.code()),
        },
    }
}

async fn drain(mut stream: CompletionStream) -> End {
    let mut end = End { text: String::new(), finish: None, usage: None, reason: None };
    while let Some(event) = stream.events.next().await {
        assert!(end.usage.is_none() && end.reason.is_none(), "something follows the end");
        match event {
            Event::Chunk(chunk) => end.text += chunk.as_str(),
            Event::Finished { reason, .. } => assert!(end.finish.replace(reason).is_none()),
            Event::Usage(usage) => end.usage = Some(usage),
            Event::Failed(refusal) => end.reason = Some(refusal.reason.code()),
            Event::Prompt { .. } => panic!("no cloud echoes"),
        }
    }
    end
}
