//! The session: messages in order, documents as the editor has them, at most one suggestion in the
//! making for each.

use std::collections::HashMap;
use std::sync::Arc;

use lsp_server::{ErrorCode, Message, Notification, Request, RequestId, Response};
use lsp_types::notification::{self as note, Notification as _};
use lsp_types::request::{self as call, Request as _};
use lsp_types::{
    CancelParams, InitializeResult, InlineCompletionItem, InlineCompletionParams,
    InlineCompletionTriggerKind, NumberOrString, OneOf, Range, ServerCapabilities, ServerInfo,
    TextDocumentSyncCapability, TextDocumentSyncKind, TextDocumentSyncOptions, Uri,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::{self, JoinError, JoinSet};

use super::LspError;
use super::completion::{Asker, Failure, Wish};
use super::documents::Documents;
use super::prompt::{Hole, Prompt};
use super::shape::Shape;
use super::stdio::Inbox;
use super::text::{Encoding, Text};
use super::workspace::Workspace;

/// Suggestions in the making; each is of another document.
const RUNNING_MAX: usize = 64;
/// Bytes of the cursor's line that its indentation is looked for in.
const INDENT_BYTES_MAX: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Before `initialize`.
    New,
    Serving,
    /// After `shutdown`.
    Down,
}

/// A suggestion in the making.
struct Running {
    id: RequestId,
    uri: Uri,
    task: task::AbortHandle,
    /// What the suggestion stands in for, and what it begins with.
    range: Range,
    begun: String,
    /// What stands there now, where the suggestion does not begin with it: editors show only what
    /// goes on from there, in one word or the other.
    filter: Option<String>,
    asked: bool,
}

type Outcome = Result<Option<String>, Failure>;

pub(super) struct Server {
    asker: Arc<Asker>,
    outbox: mpsc::Sender<Message>,
    phase: Phase,
    encoding: Encoding,
    workspace: Workspace,
    documents: Documents,
    running: HashMap<task::Id, Running>,
    tasks: JoinSet<Outcome>,
}

impl Server {
    pub(super) fn new(asker: Asker, outbox: mpsc::Sender<Message>) -> Self {
        Self {
            asker: Arc::new(asker),
            outbox,
            phase: Phase::New,
            encoding: Encoding::default(),
            workspace: Workspace::default(),
            documents: Documents::default(),
            running: HashMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Until the editor says `exit`, or goes without.
    pub(super) async fn serve(mut self, mut inbox: Inbox) -> Result<(), LspError> {
        loop {
            tokio::select! {
                // What was cancelled is not answered, though it may be there by now.
                biased;
                message = inbox.recv() => match message {
                    None => return Err(LspError::Gone),
                    Some(Err(error)) => return Err(LspError::Lost(error)),
                    Some(Ok(Message::Notification(note))) if note.method == note::Exit::METHOD => {
                        let is_good = self.phase == Phase::Down;
                        return if is_good { Ok(()) } else { Err(LspError::Gone) };
                    }
                    Some(Ok(Message::Notification(note))) => self.notified(note).await,
                    Some(Ok(Message::Request(request))) => self.asked(request).await,
                    // Nothing is ever asked of the editor.
                    Some(Ok(Message::Response(_))) => {}
                },
                Some(done) = self.tasks.join_next_with_id() => self.done(done).await,
            }
        }
    }

    async fn asked(&mut self, Request { id, method, params }: Request) {
        let answer = match (self.phase, method.as_str()) {
            (Phase::New, call::Initialize::METHOD) => Ok(self.initialize(&params)),
            (Phase::New, _) => Err((ErrorCode::ServerNotInitialized, "`initialize` comes first")),
            (Phase::Down, _) => Err((ErrorCode::InvalidRequest, "`shutdown` was the last request")),
            (Phase::Serving, call::Initialize::METHOD) => {
                Err((ErrorCode::InvalidRequest, "`initialize` comes once"))
            }
            (Phase::Serving, call::Shutdown::METHOD) => {
                self.shutdown().await;
                Ok(Value::Null)
            }
            (Phase::Serving, call::InlineCompletionRequest::METHOD) => {
                match parse(&method, params) {
                    Some(params) => return self.suggest(id, params).await,
                    None => Err((ErrorCode::InvalidParams, "the parameters cannot be read")),
                }
            }
            (Phase::Serving, _) => Err((ErrorCode::MethodNotFound, "weir has no such method")),
        };
        match answer {
            Ok(result) => self.send(Response::new_ok(id, result)).await,
            Err((code, message)) => self.refuse(id, code, message).await,
        }
    }

    async fn notified(&mut self, Notification { method, params }: Notification) {
        if self.phase != Phase::Serving {
            return;
        }
        match method.as_str() {
            note::Initialized::METHOD => self.asker.wake(),
            note::DidOpenTextDocument::METHOD => {
                if let Some(opened) = parse::<lsp_types::DidOpenTextDocumentParams>(&method, params)
                {
                    self.documents.open(opened.text_document.uri, &opened.text_document.text);
                }
            }
            note::DidChangeTextDocument::METHOD => {
                if let Some(changed) =
                    parse::<lsp_types::DidChangeTextDocumentParams>(&method, params)
                {
                    let uri = &changed.text_document.uri;
                    self.documents.change(uri, &changed.content_changes, self.encoding);
                }
            }
            note::DidCloseTextDocument::METHOD => {
                if let Some(closed) =
                    parse::<lsp_types::DidCloseTextDocumentParams>(&method, params)
                {
                    self.supersede(&closed.text_document.uri).await;
                    self.documents.close(&closed.text_document.uri);
                }
            }
            note::Cancel::METHOD => {
                if let Some(cancelled) = parse::<CancelParams>(&method, params) {
                    self.cancel(cancelled.id).await;
                }
            }
            _ => {}
        }
    }

    fn initialize(&mut self, params: &Value) -> Value {
        let offered = params.pointer("/capabilities/general/positionEncodings");
        let offered = offered.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        self.encoding = Encoding::best(offered.iter().filter_map(Value::as_str));
        self.workspace = Workspace::new(params);
        self.phase = Phase::Serving;
        let sync = TextDocumentSyncOptions {
            open_close: Some(true),
            change: Some(TextDocumentSyncKind::INCREMENTAL),
            ..TextDocumentSyncOptions::default()
        };
        let result = InitializeResult {
            capabilities: ServerCapabilities {
                position_encoding: Some(self.encoding.name()),
                text_document_sync: Some(TextDocumentSyncCapability::Options(sync)),
                inline_completion_provider: Some(OneOf::Left(true)),
                ..ServerCapabilities::default()
            },
            server_info: Some(ServerInfo {
                name: "weir".into(),
                version: Some(env!("CARGO_PKG_VERSION").into()),
            }),
            // What clangd said before the protocol had a word for it.
            offset_encoding: None,
        };
        json!(result)
    }

    /// What still runs ends now; its editor waits for an answer all the same.
    async fn shutdown(&mut self) {
        self.phase = Phase::Down;
        for (_, running) in std::mem::take(&mut self.running) {
            running.task.abort();
            self.refuse(running.id, ErrorCode::RequestCanceled, "weir goes down").await;
        }
    }

    async fn suggest(&mut self, id: RequestId, params: InlineCompletionParams) {
        let (uri, position) = {
            let place = params.text_document_position;
            (place.text_document.uri, place.position)
        };
        self.documents.touch(&uri);
        self.supersede(&uri).await;
        let Some(document) = self.documents.get(&uri) else {
            return self.send(Response::new_ok(id, json!([]))).await;
        };
        if self.running.len() == RUNNING_MAX {
            let message = "too many suggestions are in the making";
            return self.refuse(id, ErrorCode::RequestFailed, message).await;
        }
        let text = &document.text;
        let cursor = text.byte_at(position, self.encoding);
        let position = text.position(cursor, self.encoding);
        let (range, begun) = match params.context.selected_completion_info {
            // Only what goes on from the selected one, in its place, is shown.
            Some(selected) => (selected.range, selected.text),
            None => (Range::new(position, position), String::new()),
        };
        let start = text.byte_at(range.start, self.encoding);
        let end = text.byte_at(range.end, self.encoding).max(start);
        let shape = shape(text, start, end, params.context.trigger_kind);
        let replaced = String::from(text.slice(start..end));
        let filter = (!begun.starts_with(&replaced)).then_some(replaced);
        let hole = Hole { start, end, begun: &begun };
        let prompt = Prompt::new(&self.documents, &self.workspace, (&uri, text), &hole);
        let asked = params.context.trigger_kind == InlineCompletionTriggerKind::Invoked;
        let (asker, wish) = (self.asker.clone(), Wish { uri: uri.clone(), prompt, shape });
        let task = self.tasks.spawn(async move { asker.complete(&wish).await });
        self.running.insert(task.id(), Running { id, uri, task, range, begun, filter, asked });
    }

    async fn done(&mut self, done: Result<(task::Id, Outcome), JoinError>) {
        let (task, outcome) = match done {
            Ok((task, outcome)) => (task, Some(outcome)),
            Err(error) => (error.id(), None),
        };
        // What was cancelled has its answer.
        let Some(Running { id, range, begun, filter, asked, .. }) = self.running.remove(&task)
        else {
            return;
        };
        match outcome {
            Some(Ok(text)) => {
                let items: Vec<_> =
                    text.map(|text| item(begun + &text, filter, range)).into_iter().collect();
                self.send(Response::new_ok(id, items)).await;
            }
            Some(Err(failure)) => {
                tracing::warn!("{failure}");
                if asked {
                    self.refuse(id, ErrorCode::RequestFailed, &failure.to_string()).await;
                } else {
                    // Somebody who types is not told with each key.
                    self.send(Response::new_ok(id, json!([]))).await;
                }
            }
            None => self.refuse(id, ErrorCode::InternalError, "weir failed").await,
        }
    }

    async fn cancel(&mut self, id: NumberOrString) {
        let id = match id {
            NumberOrString::Number(number) => RequestId::from(number),
            NumberOrString::String(text) => RequestId::from(text),
        };
        self.end(|running| running.id == id, ErrorCode::RequestCanceled, "cancelled").await;
    }

    /// The document is another one by now, or the cursor is elsewhere.
    async fn supersede(&mut self, uri: &Uri) {
        let is_its = |running: &Running| running.uri.as_str() == uri.as_str();
        self.end(is_its, ErrorCode::ContentModified, "the document has gone on").await;
    }

    async fn end(&mut self, which: impl Fn(&Running) -> bool, code: ErrorCode, why: &str) {
        let found = self.running.iter().find(|(_, running)| which(running)).map(|(&task, _)| task);
        if let Some(running) = found.and_then(|task| self.running.remove(&task)) {
            running.task.abort();
            self.refuse(running.id, code, why).await;
        }
    }

    async fn refuse(&self, id: RequestId, code: ErrorCode, message: &str) {
        self.send(Response::new_err(id, code as i32, message.to_owned())).await;
    }

    /// An editor that has gone is noticed where messages are read.
    async fn send(&self, response: Response) {
        let _ = self.outbox.send(Message::Response(response)).await;
    }
}

/// None: they are not what the method takes. They may hold a document, so nothing of them is told.
fn parse<T: DeserializeOwned>(method: &str, params: Value) -> Option<T> {
    let parsed = serde_json::from_value(params).ok();
    if parsed.is_none() {
        tracing::warn!(method, "the parameters cannot be read");
    }
    parsed
}

fn shape(text: &Text, start: usize, end: usize, kind: InlineCompletionTriggerKind) -> Shape {
    let line = text.line_start_before(start);
    let before = String::from(text.slice(line..start.min(line + INDENT_BYTES_MAX)));
    let is_end = text.rest_of_line(end).chars().all(char::is_whitespace);
    Shape::new(kind, &before, is_end)
}

fn item(insert_text: String, filter_text: Option<String>, range: Range) -> InlineCompletionItem {
    InlineCompletionItem {
        insert_text,
        filter_text,
        range: Some(range),
        command: None,
        insert_text_format: None,
    }
}
