use futures_util::StreamExt as _;
use futures_util::stream;

use super::*;
use crate::completion::{Chunk, Event, FimInput, SamplingParams};

fn key(name: &str) -> SessionKey {
    SessionKey { tenant: 0, who: Who::Named(name.into()) }
}

fn at(prefix: &str, suffix: &str) -> CompletionRequest {
    let (prefix, suffix) = (prefix.to_owned(), suffix.to_owned());
    CompletionRequest::greedy(
        "r",
        Input::Fim(FimInput { prefix, suffix, ..FimInput::default() }),
        16,
    )
}

fn runs(entry: Entry) -> Arc<Ticket> {
    let Entry::Runs(ticket) = entry else { panic!("it runs") };
    Arc::new(ticket)
}

fn chunk(text: &str) -> Event {
    Event::Chunk(Chunk { text: text.as_bytes().into(), ..Chunk::default() })
}

fn answer(text: &str) -> Vec<Event> {
    let usage = Usage { prompt_tokens: 9, cached_tokens: 1, completion_tokens: 3 };
    let end = Event::Finished { choice: 0, reason: FinishReason::Stop };
    vec![chunk(text), end, Event::Usage(usage)]
}

/// Runs a request to its end.
async fn suggests(sessions: &Sessions, prefix: &str, suffix: &str, text: &str) {
    let ticket = runs(sessions.enter(key("a"), &at(prefix, suffix), false));
    let all: Vec<Event> = ticket.watch(Box::pin(stream::iter(answer(text)))).collect().await;
    assert_eq!(all.len(), 3);
}

fn known(sessions: &Sessions, prefix: &str, suffix: &str) -> Option<String> {
    match sessions.enter(key("a"), &at(prefix, suffix), false) {
        Entry::Known(known) => Some(known.text),
        _ => None,
    }
}

#[tokio::test]
async fn what_is_typed_along_is_known() {
    let sessions = Sessions::default();
    suggests(&sessions, "fn main() {\n    pri", "\n}\n", "ntln!(\"\u{e9}\");\n    exit();").await;
    let at = |typed: &str| format!("fn main() {{\n    pri{typed}");
    let rest = known(&sessions, &at("nt"), "\n}\n");
    assert_eq!(rest.as_deref(), Some("ln!(\"\u{e9}\");\n    exit();"));
    let over_the_line = known(&sessions, &at("ntln!(\"\u{e9}\");\n    e"), "\n}\n");
    assert_eq!(over_the_line.as_deref(), Some("xit();"));
    for (prefix, suffix) in [
        (at(""), "\n}\n"),
        (at("ntln!(\"\u{e9}\");\n    exit();"), "\n}\n"),
        (at("nx"), "\n}\n"),
        (at("nt"), "\n}\n\n"),
        ("    prin".to_owned(), "\n}\n"),
    ] {
        assert_eq!(known(&sessions, &prefix, suffix), None, "{prefix:?} {suffix:?}");
    }
}

#[tokio::test]
async fn another_way_to_ask_and_another_session_know_nothing() {
    let sessions = Sessions::default();
    suggests(&sessions, "a", "b", "xyz").await;
    let sampling = SamplingParams { temperature: 0.3, ..at("ax", "b").sampling };
    let other = CompletionRequest { sampling, ..at("ax", "b") };
    assert!(matches!(sessions.enter(key("a"), &other, false), Entry::Runs(_)));
    assert!(matches!(sessions.enter(key("b"), &at("ax", "b"), false), Entry::Runs(_)));
    let tenant = SessionKey { tenant: 1, ..key("a") };
    assert!(matches!(sessions.enter(tenant, &at("ax", "b"), false), Entry::Runs(_)));
    assert_eq!(known(&sessions, "ax", "b").as_deref(), Some("yz"));
}

#[tokio::test]
async fn a_window_that_slides_is_the_same_place() {
    let long = "let a = 1;\n".repeat(1000) + "    foo";
    let sessions = Sessions::default();
    suggests(&sessions, &long, "", "bar\nbaz").await;
    let slid = long[11..].to_owned() + "bar\nb";
    assert_eq!(known(&sessions, &slid, "").as_deref(), Some("az"));
}

/// Whether a request at the second place supersedes one that runs at the first.
fn superseded(first: (&str, &str), second: (&str, &str)) -> bool {
    let sessions = Sessions::default();
    let older = runs(sessions.enter(key("a"), &at(first.0, first.1), false));
    let _newer = runs(sessions.enter(key("a"), &at(second.0, second.1), false));
    older.is_superseded()
}

#[test]
fn a_newer_request_supersedes_on_its_own_line_only() {
    let older = ("x\n  le", "\nend\n");
    for (prefix, is) in [
        ("x\n  let", true),
        ("x\n  l", true),
        ("x\n", true),
        ("x\n  le", false),
        ("x\n  lat", false),
        ("x\n  le\n", false),
        ("y\n  let", false),
        ("let", false),
    ] {
        assert_eq!(superseded(older, (prefix, older.1)), is, "{prefix:?}");
    }
    assert!(!superseded(older, ("x\n  let", "\nother\n")));
}

#[test]
fn several_choices_chats_and_warm_ups_have_no_part() {
    let sessions = Sessions::default();
    let older = runs(sessions.enter(key("a"), &at("x", ""), false));
    let next = || at("xy", "");
    for other in [
        CompletionRequest { n: 3, ..next() },
        CompletionRequest { max_tokens: Some(0), ..next() },
        CompletionRequest { priority: Priority::Chat, ..next() },
        CompletionRequest { priority: Priority::Batch, ..next() },
        CompletionRequest { logprobs: Some(1), ..next() },
        CompletionRequest { input: Input::Chat(Vec::new()), ..next() },
        CompletionRequest { input: Input::Tokens(vec![1]), ..next() },
    ] {
        assert!(matches!(sessions.enter(key("a"), &other, false), Entry::Alone));
    }
    let address = SessionKey { tenant: 0, who: Who::Address([127, 0, 0, 1].into()) };
    let text = CompletionRequest { input: Input::Text("xy".into()), ..next() };
    assert!(matches!(sessions.enter(address, &text, false), Entry::Alone));
    let _ahead = runs(sessions.enter(key("a"), &next(), true));
    assert!(!older.is_superseded());
}

#[tokio::test]
async fn what_follows_a_suggestion_supersedes_nobody() {
    let sessions = Sessions::default();
    let older = runs(sessions.enter(key("a"), &at("x", ""), false));
    let mut events = older.clone().watch(Box::pin(stream::iter(answer("yz"))));
    assert!(matches!(events.next().await, Some(Event::Chunk(_))));
    let ahead = runs(sessions.enter(key("a"), &at("xyz", ""), false));
    assert!(!older.is_superseded());
    let _typed = runs(sessions.enter(key("a"), &at("xq", ""), false));
    assert!(older.is_superseded() && !ahead.is_superseded());
}

#[tokio::test]
async fn the_superseded_end_with_what_they_have() {
    let sessions = Sessions::default();
    let older = runs(sessions.enter(key("a"), &at("x", ""), false));
    let endless = stream::iter([chunk("ab")]).chain(stream::pending());
    let mut events = older.clone().watch(Box::pin(endless));
    assert!(matches!(events.next().await, Some(Event::Chunk(_))));
    let _newer = runs(sessions.enter(key("a"), &at("xq", ""), false));
    assert!(matches!(events.next().await, Some(Event::Finished { choice: 0, .. })));
    assert!(matches!(events.next().await, Some(Event::Usage(_))));
    assert!(events.next().await.is_none());
    drop((events, older));
    assert_eq!(known(&sessions, "xa", ""), None, "half an answer is nobody's suggestion");
}

#[test]
fn what_is_remembered_is_bounded() {
    let sessions = Sessions::default();
    for session in 0..2 * SESSIONS_MAX {
        for run in 0..2 * RUNS_MAX {
            let text = format!("{run}\n");
            let _ticket = sessions.enter(key(&session.to_string()), &at(&text, ""), false);
        }
    }
    let table = sessions.table.lock().expect("not poisoned");
    assert_eq!(table.sessions.len(), SESSIONS_MAX);
    assert!(table.sessions.values().all(|session| session.runs.len() <= RUNS_MAX));
}
