//! A cloud row against real sockets: what leaves, what comes back, and every way a cloud fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::json;
use weir::cloud::{Provider, providers};
use weir::completion::compliance::Declared;
use weir::completion::{
    Backend, ChatMessage, CompletionRequest, CompletionStream, Event, Fault, FimInput,
    FinishReason, Input, Reason, Refusal, Usage,
};
use weir::config::{Budget, CloudConfig, CloudFim, CloudService, Connection, Secret};

use crate::support::cloud::{
    Cloud, Step, chunk, chunked_head, data, done, finish, head, status, text, usage,
};

/// The timeouts of a row under test: a hang costs a test this much.
const FIRST: Duration = Duration::from_millis(200);
const IDLE: Duration = Duration::from_millis(150);

fn row(cloud: &Cloud) -> CloudConfig {
    CloudConfig {
        name: "burst".into(),
        base_url: cloud.base_url().parse().unwrap(),
        api_key: Some(Secret::new("key-of-the-test")),
        service: CloudService::OpenAi,
        model: "coder".into(),
        fim: CloudFim::Suffix,
        stream: true,
        max_tokens: 64,
        max_in_flight: 2,
        requests_per_min: None,
        tokens_per_min: None,
        prefer: 0,
        connect_timeout: FIRST,
        first_token_timeout: FIRST,
        idle_timeout: IDLE,
        declared: Declared::default(),
        budget: Budget::default(),
        price: None,
        connection: Connection::default(),
    }
}

fn provider(row: &CloudConfig) -> Provider {
    providers(std::slice::from_ref(row)).unwrap().pop().unwrap()
}

fn request(input: Input) -> CompletionRequest {
    CompletionRequest::greedy("req-1", input, 16)
}

fn prompt() -> CompletionRequest {
    request(Input::Text("let x = ".into()))
}

fn cursor(prefix: &str, suffix: &str) -> CompletionRequest {
    let fim = FimInput { prefix: prefix.into(), suffix: suffix.into(), ..FimInput::default() };
    request(Input::Fim(fim))
}

/// What came of one completion.
#[derive(Debug, PartialEq)]
enum End {
    /// Before any content: another backend may be asked.
    Refused(Reason),
    /// Text of choice 0, then a break.
    Broken(String, Reason),
    /// Text and finish of choice 0.
    Finished(String, FinishReason, Usage),
}

fn broken(text: &str, reason: Reason) -> End {
    End::Broken(text.into(), reason)
}

/// Completes and reads to the end, which has to come in time whatever the cloud does.
async fn complete(provider: &Provider, request: CompletionRequest) -> End {
    let ending = async {
        match provider.complete(Arc::new(request)).await {
            Ok(stream) => drain(stream).await,
            Err(refusal) => End::Refused(refusal.reason),
        }
    };
    tokio::time::timeout(Duration::from_secs(2), ending).await.expect("every end comes in time")
}

/// Reads to the end and holds the stream to its grammar: content, then exactly one last event.
async fn drain(mut stream: CompletionStream) -> End {
    let mut said = String::new();
    let mut finished = None;
    let mut events = 0;
    while let Some(event) = stream.events.next().await {
        events += 1;
        match event {
            Event::Chunk(chunk) => {
                assert!(finished.is_none(), "text after the end");
                said += chunk.as_str();
            }
            Event::Finished { reason, .. } => assert!(finished.replace(reason).is_none()),
            Event::Prompt { .. } => panic!("no cloud echoes"),
            Event::Usage(usage) => {
                assert!(stream.events.next().await.is_none(), "usage is last");
                return End::Finished(said, finished.expect("finished before usage"), usage);
            }
            Event::Failed(refusal) => {
                assert!(stream.events.next().await.is_none(), "a failure is last");
                return match events {
                    1 => End::Refused(refusal.reason),
                    _ => End::Broken(said, refusal.reason),
                };
            }
        }
    }
    panic!("a stream must not end without saying how");
}

async fn against(steps: Vec<Step>) -> End {
    let cloud = Cloud::always(steps).await;
    complete(&provider(&row(&cloud)), prompt()).await
}

fn send(parts: &[Vec<u8>]) -> Step {
    Step::Send(parts.concat())
}

#[tokio::test]
async fn a_healthy_stream_arrives_whole_and_asks_for_what_was_asked() {
    let cloud = Cloud::healthy(&["4", "2", ";\n"], Duration::ZERO).await;
    let mut request = prompt();
    assert_eq!(&*request.id, "req-1");
    request.max_tokens = Some(1000);
    request.sampling.seed = Some(u64::MAX);
    request.sampling.top_p = 0.5;
    request.stop.strings = vec!["\n\n".into()];
    let end = complete(&provider(&row(&cloud)), request).await;
    let usage = Usage { prompt_tokens: 7, cached_tokens: 0, completion_tokens: 3 };
    assert_eq!(end, End::Finished("42;\n".into(), FinishReason::Stop, usage));
    let seen = &cloud.seen()[0];
    assert_eq!(seen.path(), "/v1/completions");
    assert_eq!(seen.header("authorization"), Some("Bearer key-of-the-test"));
    assert_eq!(seen.header("x-request-id"), None, "a client chose it");
    assert_eq!(seen.header("accept-encoding"), Some("identity"));
    assert_eq!(
        seen.body,
        json!({
            "model": "coder", "prompt": "let x = ", "max_tokens": 64, "temperature": 0.0,
            "top_p": 0.5, "seed": i64::MAX, "stop": ["\n\n"], "stream": true,
            "stream_options": {"include_usage": true},
        })
    );
}

#[tokio::test]
async fn an_id_of_weirs_own_leaves_with_the_request() {
    let cloud = Cloud::healthy(&["4"], Duration::ZERO).await;
    let id = "req_0123456789abcdef0123456789abcdef";
    complete(&provider(&row(&cloud)), CompletionRequest { id: id.into(), ..prompt() }).await;
    assert_eq!(cloud.seen()[0].header("x-request-id"), Some(id));
}

#[tokio::test]
async fn fim_in_its_modes_and_chat() {
    let cloud = Cloud::healthy(&["a + b"], Duration::ZERO).await;
    let mut row = row(&cloud);
    complete(&provider(&row), cursor("return ", "\n")).await;
    row.fim = CloudFim::Chat;
    complete(&provider(&row), cursor("return ", "\n")).await;
    complete(&provider(&row), prompt()).await;
    let message = ChatMessage { role: "user".into(), content: "hello".into() };
    complete(&provider(&row), request(Input::Chat(vec![message]))).await;
    let seen = cloud.seen();
    assert_eq!(seen[0].path(), "/v1/completions");
    assert_eq!(seen[0].body["prompt"], "return ");
    assert_eq!(seen[0].body["suffix"], "\n");
    for emulated in &seen[1..3] {
        assert_eq!(emulated.path(), "/v1/chat/completions");
        assert_eq!(emulated.body["messages"][0]["role"], "system");
        assert!(emulated.body.get("prompt").is_none());
    }
    let question = seen[1].body["messages"][1]["content"].as_str().unwrap();
    assert_eq!(question, "<prefix>return </prefix>\n<suffix>\n</suffix>\n");
    assert_eq!(seen[3].body["messages"], json!([{"role": "user", "content": "hello"}]));
}

#[tokio::test]
async fn a_family_template_is_a_raw_prompt_with_the_familys_own_ends() {
    let cloud = Cloud::healthy(&["a + b<|fim", "_pad|>junk"], Duration::ZERO).await;
    let family = models::fim::Family::by_name("qwen").unwrap();
    let template = provider(&CloudConfig { fim: CloudFim::Template(family), ..row(&cloud) });
    match complete(&template, cursor("return ", "\n")).await {
        End::Finished(text, FinishReason::Stop, _) => assert_eq!(text, "a + b"),
        other => panic!("{other:?}"),
    }
    let body = &cloud.seen()[0].body;
    assert_eq!(body["prompt"], "<|fim_prefix|>return <|fim_suffix|>\n<|fim_middle|>");
    assert!(body.get("suffix").is_none());
    assert!(body["stop"].as_array().is_some_and(|stops| stops.len() == 4));
    let injected = complete(&template, cursor("<|fim_middle|>", "")).await;
    assert_eq!(injected, End::Refused(Reason::CloudCannot("prompt")));
    assert_eq!(cloud.seen().len(), 1);
}

#[tokio::test]
async fn another_weir_is_told_what_is_around_the_cursor() {
    let cloud = Cloud::healthy(&["a + b"], Duration::ZERO).await;
    let peer = CloudConfig::of_peer(&cloud.base_url().parse().unwrap()).unwrap();
    let peer = provider(&CloudConfig { max_in_flight: 2, ..peer });
    let extra = weir::completion::ExtraFile { path: "b.rs".into(), text: "fn b() {}".into() };
    let fim = FimInput {
        prefix: "return ".into(),
        suffix: "\n".into(),
        path: Some("a.rs".into()),
        repository: Some("weir".into()),
        extra: vec![extra],
    };
    complete(&peer, request(Input::Fim(fim))).await;
    complete(&peer, cursor("return ", "\n")).await;
    let seen = cloud.seen();
    let told = &seen[0].body;
    assert_eq!((&told["prompt"], &told["suffix"]), (&json!("return "), &json!("\n")));
    assert_eq!((&told["path"], &told["repository"]), (&json!("a.rs"), &json!("weir")));
    assert_eq!(told["extra_files"], json!([{"path": "b.rs", "text": "fn b() {}"}]));
    for absent in ["path", "repository", "extra_files"] {
        assert!(seen[1].body.get(absent).is_none(), "{absent}");
    }
}

#[tokio::test]
async fn a_chat_answer_is_cleaned_while_it_streams() {
    let said = ["```", "py", "\nreturn", " a + ", "b)\n", "``", "`\nThis adds."];
    let cloud = Cloud::healthy(&said, Duration::ZERO).await;
    let mut row = row(&cloud);
    row.fim = CloudFim::Chat;
    match complete(&provider(&row), cursor("f(\nreturn ", ")\n")).await {
        End::Finished(text, FinishReason::Stop, _) => assert_eq!(text, "a + b"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_choice_has_its_own_text_and_end() {
    let cloud = Cloud::healthy(&["a", "b"], Duration::ZERO).await;
    let mut request = prompt();
    request.n = 3;
    let mut stream = provider(&row(&cloud)).complete(Arc::new(request)).await.unwrap();
    let mut texts = [const { String::new() }; 3];
    let mut finished = 0;
    while let Some(event) = stream.events.next().await {
        match event {
            Event::Chunk(chunk) => texts[chunk.choice as usize] += chunk.as_str(),
            Event::Finished { .. } => finished += 1,
            Event::Usage(usage) => assert_eq!(usage.completion_tokens, 6),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((texts.join(","), finished), ("ab,ab,ab".into(), 3));
    assert_eq!(cloud.seen()[0].body["n"], 3);
}

#[tokio::test]
async fn stop_strings_hold_even_where_the_cloud_ignores_them() {
    let stops: Vec<String> = ["1", "2", "3", "4", "END"].map(String::from).to_vec();
    let endless = Step::Repeat(text("more "), Duration::from_millis(5));
    let cloud =
        Cloud::always(vec![send(&[head(), text("keep E"), text("ND drop")]), endless]).await;
    let mut request = prompt();
    request.stop.strings = stops;
    match complete(&provider(&row(&cloud)), request).await {
        End::Finished(text, FinishReason::Stop, _) => assert_eq!(text, "keep "),
        other => panic!("{other:?}"),
    }
    assert_eq!(cloud.seen()[0].body["stop"], json!(["1", "2", "3", "4"]));
    gone(&cloud).await;
}

#[tokio::test]
async fn text_held_back_commits_to_nothing_and_is_left_to_whoever_goes_on() {
    for (sent, expected) in [
        (vec![text("EN")], End::Refused(Reason::CloudUnreachable)),
        (vec![text("a"), text("EN")], broken("a", Reason::CloudUnreachable)),
    ] {
        let cloud = Cloud::always(vec![send(&[head(), sent.concat()]), Step::Close]).await;
        let mut request = prompt();
        request.stop.strings = vec!["END".into()];
        assert_eq!(complete(&provider(&row(&cloud)), request).await, expected);
    }
}

#[tokio::test]
async fn log_probabilities_stay_with_their_text() {
    let part = |texts: &[&str]| {
        data(&json!({"choices": [{"index": 0, "text": texts.concat(), "logprobs": {
            "tokens": texts, "token_logprobs": texts.iter().map(|_| -0.5).collect::<Vec<_>>(),
            "top_logprobs": texts.iter().map(|t| json!({*t: -0.5, "z": -0.1})).collect::<Vec<_>>(),
            "text_offset": texts.iter().map(|_| 0).collect::<Vec<_>>(),
        }}]}))
    };
    let steps = vec![send(&[head(), part(&["a", "b"]), part(&["c", "ST"]), part(&["OP"]), done()])];
    let cloud = Cloud::always(steps).await;
    let mut request = prompt();
    request.logprobs = Some(2);
    request.stop.strings = vec!["STOP".into()];
    let mut stream = provider(&row(&cloud)).complete(Arc::new(request)).await.unwrap();
    let mut tokens = Vec::new();
    let mut said = String::new();
    while let Some(event) = stream.events.next().await {
        if let Event::Chunk(chunk) = event {
            said += chunk.as_str();
            tokens.extend(chunk.tokens);
        }
    }
    assert_eq!(said, "abc");
    let bytes: Vec<&[u8]> = tokens.iter().map(|t| t.bytes.as_slice()).collect();
    assert_eq!(bytes, [b"a", b"b", b"c"]);
    assert_eq!(tokens[0].top, [(b"z".to_vec(), -0.1), (b"a".to_vec(), -0.5)]);
    assert_eq!(cloud.seen()[0].body["logprobs"], 2);
}

#[tokio::test]
async fn what_a_row_cannot_honour_is_not_sent() {
    let cloud = Cloud::healthy(&["x"], Duration::ZERO).await;
    let suffix = provider(&row(&cloud));
    let chat = provider(&CloudConfig { fim: CloudFim::Chat, ..row(&cloud) });
    type Change = fn(&mut CompletionRequest);
    let cases: [(&'static str, Change); 12] = [
        ("prompt", |r| r.input = Input::Tokens(vec![1])),
        ("max_tokens", |r| r.max_tokens = Some(0)),
        ("echo", |r| r.echo = true),
        ("logprobs", |r| r.logprobs = Some(6)),
        ("logit_bias", |r| r.sampling.logit_bias = vec![(1, 1.0)]),
        ("top_k", |r| r.sampling.top_k = 40),
        ("min_p", |r| r.sampling.min_p = 0.1),
        ("repetition_penalty", |r| r.sampling.repetition_penalty = 1.1),
        ("ignore_eos", |r| r.stop.ignore_eos = true),
        ("min_tokens", |r| r.stop.min_tokens = 1),
        ("stop_token_ids", |r| r.stop.token_ids = vec![2]),
        ("extra_files", |r| {
            let extra = weir::completion::ExtraFile { path: "a".into(), text: "b".into() };
            r.input = Input::Fim(FimInput { extra: vec![extra], ..FimInput::default() });
        }),
    ];
    for (field, change) in cases {
        let mut request = prompt();
        change(&mut request);
        let end = complete(&suffix, request).await;
        assert_eq!(end, End::Refused(Reason::CloudCannot(field)));
    }
    let mut request = prompt();
    request.logprobs = Some(1);
    assert_eq!(complete(&chat, request).await, End::Refused(Reason::CloudCannot("logprobs")));
    assert_eq!(cloud.connections(), 0);
}

#[tokio::test]
async fn a_row_without_a_field_for_names_gets_the_cursor_alone() {
    let cloud = Cloud::healthy(&["x"], Duration::ZERO).await;
    let mut request = prompt();
    request.input = Input::Fim(FimInput {
        prefix: "fn a(".into(),
        suffix: ") {}".into(),
        path: Some("src/a.rs".into()),
        repository: Some("weir".into()),
        ..FimInput::default()
    });
    let end = complete(&provider(&row(&cloud)), request).await;
    assert!(matches!(end, End::Finished(ref text, ..) if text == "x"), "{end:?}");
    let body = &cloud.seen()[0].body;
    assert_eq!((&body["prompt"], &body["suffix"]), (&json!("fn a("), &json!(") {}")));
    assert!(body.get("path").is_none() && body.get("repository").is_none(), "{body}");
}

/// Faults by the time they strike: before content they are refusals, after it an honest break.
#[tokio::test]
async fn every_fault_has_its_outcome_in_every_phase() {
    use Reason::{CloudGarbage, CloudTimeout, CloudUnreachable};
    let error = data(&json!({"error": {"message": "overloaded", "code": 503}}));
    let named = b"event: error\ndata: {\"message\": \"no\"}\n\n".to_vec();
    let comments = Step::Repeat(b": keep-alive\n\n".to_vec(), Duration::from_millis(20));
    let empty = Step::Repeat(text(""), Duration::from_millis(20));
    let drip = Step::Drip(vec![b'x'; 4096], Duration::from_millis(20));
    let line = vec![b'x'; 300 * 1024];
    let wrong_type = data(&json!({"choices": [{"index": 0, "text": 7}]}));
    let stranger = data(&json!({"choices": [{"index": 1, "text": "b"}]}));
    let refused_text =
        data(&json!({"choices": [{"index": 0, "text": "", "finish_reason": "error"}]}));
    let faults: Vec<(&str, Step, Reason)> = vec![
        ("hang", Step::Hang, CloudTimeout),
        ("reset", Step::Reset, CloudUnreachable),
        ("close", Step::Close, CloudUnreachable),
        ("drip", drip, CloudTimeout),
        ("keep-alive comments only", comments, CloudTimeout),
        ("empty deltas only", empty, CloudTimeout),
        ("error object", Step::Send(error), Reason::Cloud(Fault::Failed)),
        ("error event", Step::Send(named), CloudGarbage),
        ("huge line", Step::Send(line), CloudGarbage),
        ("invalid UTF-8", Step::Send(b"data: {\"\xff\xfe\"}\n\n".to_vec()), CloudGarbage),
        ("invalid JSON", Step::Send(b"data: {\"choices\": [\n\n".to_vec()), CloudGarbage),
        ("wrong type", Step::Send(wrong_type), CloudGarbage),
        ("unknown choice", Step::Send(stranger), CloudGarbage),
        ("given up", Step::Send(refused_text), CloudGarbage),
        ("no finish_reason", Step::Send(done()), CloudGarbage),
    ];
    for (name, fault, reason) in faults {
        let before = against(vec![Step::Send(head()), fault.clone(), Step::Close]).await;
        assert_eq!(before, End::Refused(reason.clone()), "{name} before content");
        let mid = send(&[head(), text("a"), text("b")]);
        let after = against(vec![mid, fault.clone(), Step::Close]).await;
        assert_eq!(after, broken("ab", reason), "{name} after content");
        let ended = send(&[head(), text("a"), finish("length")]);
        match against(vec![ended, fault, Step::Close]).await {
            End::Finished(text, FinishReason::Length, _) => assert_eq!(text, "a", "{name}"),
            other => panic!("{name} after the end: {other:?}"),
        }
    }
}

#[tokio::test]
async fn faults_before_the_head_are_refusals() {
    let cases: Vec<(&str, Step, Reason)> = vec![
        ("hang", Step::Hang, Reason::CloudTimeout),
        ("reset", Step::Reset, Reason::CloudUnreachable),
        ("close", Step::Close, Reason::CloudUnreachable),
        ("garbage", Step::Send(vec![0x16; 512]), Reason::CloudUnreachable),
        ("drip", Step::Drip(head(), Duration::from_millis(20)), Reason::CloudTimeout),
    ];
    for (name, step, reason) in cases {
        let end = against(vec![step, Step::Close]).await;
        assert_eq!(end, End::Refused(reason), "{name}");
    }
    let gone = Cloud::always(vec![]).await;
    let row = row(&gone);
    drop(gone);
    tokio::task::yield_now().await;
    let end = complete(&provider(&row), prompt()).await;
    assert_eq!(end, End::Refused(Reason::CloudUnreachable), "nobody listens");
}

#[tokio::test]
async fn every_status_is_a_refusal_of_its_own() {
    let cases: [(Reason, &[u16]); 7] = [
        (Reason::CloudGarbage, &[201, 204, 301, 302, 307]),
        (Reason::Cloud(Fault::Request), &[400, 413, 422]),
        (Reason::Cloud(Fault::Credentials), &[401, 403]),
        (Reason::Cloud(Fault::Quota), &[402]),
        (Reason::Cloud(Fault::NotFound), &[404]),
        (Reason::Cloud(Fault::Throttled), &[429, 529]),
        (Reason::Cloud(Fault::Failed), &[408, 500, 502, 503]),
    ];
    for (reason, codes) in cases {
        for &code in codes {
            let answer = status(code, &["location: http://169.254.169.254/"], "");
            let end = against(vec![Step::Send(answer)]).await;
            assert_eq!(end, End::Refused(reason.clone()), "{code}");
        }
    }
    let waits = [("2", Some(2)), ("86400", Some(60)), ("soon", None)];
    for (value, expected) in waits {
        let answer = status(429, &[&format!("retry-after: {value}")], "");
        let cloud = Cloud::always(vec![Step::Send(answer)]).await;
        let refusal = provider(&row(&cloud)).complete(Arc::new(prompt())).await.err().unwrap();
        assert_eq!(refusal.retry_after, expected.map(Duration::from_secs), "{value}");
    }
}

#[tokio::test]
async fn answers_that_are_no_event_stream_are_garbage() {
    let html = status(200, &["content-type: text/html"], "<html>login</html>");
    let object = status(200, &["content-type: application/json"], "{\"choices\": []}");
    let zipped = status(200, &["content-encoding: gzip"], "\x1f\u{8b}");
    for answer in [html, object, zipped] {
        let end = against(vec![Step::Send(answer)]).await;
        assert_eq!(end, End::Refused(Reason::CloudGarbage));
    }
}

#[tokio::test]
async fn a_cut_inside_a_chunk_is_a_break_and_no_end() {
    let whole = chunk(&text("b"));
    let cut = whole[..whole.len() / 2].to_vec();
    let end = against(vec![send(&[chunked_head(), chunk(&text("a")), cut]), Step::Close]).await;
    assert_eq!(end, broken("a", Reason::CloudUnreachable));
}

#[tokio::test]
async fn a_finish_reason_is_an_end_without_done_or_usage() {
    let end = against(vec![send(&[head(), text("a"), finish("length")]), Step::Close]).await;
    let counted = Usage { completion_tokens: 1, ..Usage::default() };
    assert_eq!(end, End::Finished("a".into(), FinishReason::Length, counted));
    let twice =
        send(&[head(), text("a"), finish("stop"), finish("length"), text("b"), usage(3, 1)]);
    let end = against(vec![twice, Step::Hang]).await;
    let told = Usage { prompt_tokens: 3, cached_tokens: 0, completion_tokens: 1 };
    assert_eq!(end, End::Finished("a".into(), FinishReason::Stop, told));
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let comment = [b":".as_slice(), &[b' '; 240 * 1024], b"\n"].concat();
    let flood = Step::Repeat(comment, Duration::from_micros(1));
    let end = against(vec![send(&[head(), text("a")]), flood]).await;
    assert_eq!(end, broken("a", Reason::CloudGarbage));
}

#[tokio::test]
async fn the_deadline_ends_a_wait_and_a_stream() {
    let cloud = Cloud::always(vec![Step::Hang]).await;
    let soon = || Some(tokio::time::Instant::now() + Duration::from_millis(50));
    let mut request = prompt();
    request.deadline = soon();
    assert_eq!(complete(&provider(&row(&cloud)), request).await, End::Refused(Reason::Deadline));
    let endless = Step::Repeat(text("a"), Duration::from_millis(10));
    let cloud = Cloud::always(vec![Step::Send(head()), endless]).await;
    let mut request = prompt();
    request.deadline = soon();
    match complete(&provider(&row(&cloud)), request).await {
        End::Broken(text, Reason::Deadline) => assert!(text.starts_with('a')),
        other => panic!("{other:?}"),
    }
}

/// Waits until the cloud has no exchange left.
async fn gone(cloud: &Cloud) {
    let started = Instant::now();
    while cloud.running() > 0 {
        assert!(started.elapsed() < Duration::from_secs(1), "the exchange goes on upstream");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn leaving_aborts_the_exchange_upstream_at_any_moment() {
    let endless = Step::Repeat(text("a"), Duration::from_millis(5));
    for steps in
        [vec![Step::Hang], vec![Step::Send(head()), Step::Hang], vec![Step::Send(head()), endless]]
    {
        let cloud = Cloud::always(steps).await;
        let provider = provider(&row(&cloud));
        let watching = async {
            let mut stream = provider.complete(Arc::new(prompt())).await.unwrap();
            while stream.events.next().await.is_some() {}
        };
        let left = tokio::time::timeout(Duration::from_millis(60), watching).await;
        assert!(left.is_err(), "left while it ran");
        gone(&cloud).await;
        assert_eq!(cloud.aborted(), 1);
    }
}

#[tokio::test]
async fn the_permit_lives_as_long_as_the_stream() {
    let cloud = Cloud::always(vec![send(&[head(), text("a")]), Step::Hang]).await;
    let provider = provider(&row(&cloud));
    let start = || provider.complete(Arc::new(prompt()));
    let (first, second) = (start().await.unwrap(), start().await.unwrap());
    let busy: Refusal = start().await.err().unwrap();
    assert_eq!(busy.reason, Reason::CloudBusy);
    drop(first);
    let third = start().await.unwrap();
    assert!(start().await.is_err());
    drop((second, third));
    assert!(start().await.is_ok());
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let cloud = Cloud::healthy(&["a"], Duration::ZERO).await;
    let provider = provider(&row(&cloud));
    for _ in 0..5 {
        assert!(matches!(complete(&provider, prompt()).await, End::Finished(..)));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((cloud.seen().len(), cloud.connections()), (5, 1));
}
