//! What a client can tell, with a canary in each part of it.

use serde_json::{Map, Value, json};

use super::{Canaries, Kind};

/// The headers that clients, proxies and people send.
pub(super) const HEADERS: [&str; 24] = [
    "cookie",
    "user-agent",
    "x-forwarded-for",
    "x-forwarded-host",
    "forwarded",
    "x-real-ip",
    "via",
    "referer",
    "from",
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "x-weir-session",
    "openai-organization",
    "openai-project",
    "x-stainless-os",
    "anthropic-beta",
    "accept-language",
    "proxy-authorization",
    "x-session-id",
    "idempotency-key",
    "x-client-name",
    "x-amzn-trace-id",
];

/// What dialects have beside what a model reads, each with a canary in it.
fn metadata(canaries: &mut Canaries) -> Map<String, Value> {
    let mut fields = Map::new();
    for name in [
        "user",
        "git_url",
        "safety_identifier",
        "prompt_cache_key",
        "session_id",
        "machine_id",
        "conversation_id",
        "editor_version",
        "service_tier",
        "organization",
    ] {
        fields.insert(name.into(), json!(canaries.private(name)));
    }
    fields.insert("metadata".into(), json!({"user_id": canaries.private("metadata.user_id")}));
    fields.insert("extra".into(), json!({"next_indent": [canaries.private("extra.next_indent")]}));
    let telemetry = json!([{"event": canaries.private("telemetry_events")}]);
    fields.insert("telemetry_events".into(), telemetry);
    fields.insert(canaries.private("a field's name"), json!(true));
    fields
}

/// A cursor of which every part has a canary that may leave and one that may not.
pub(super) fn cursor(canaries: &mut Canaries) -> Value {
    let mut both = |of: &str| {
        let (said, key) = (canaries.put(Kind::Text, of), canaries.secret(of));
        format!("// {said}\nlet k = \"{key}\";\n")
    };
    let (prompt, suffix, extra) = (both("prompt"), both("suffix"), both("extra_files.text"));
    let noted = format!("// path: /home/{}/a.rs\n", canaries.private("a path comment"));
    let mut body = json!({
        "prompt": noted.clone() + &prompt,
        "suffix": suffix,
        "path": format!("/home/{}/only/a.rs", canaries.private("path")),
        "repository": format!(
            "https://{}:{}@{}.example/{}/proj.git",
            canaries.private("a repository's user"),
            canaries.private("a repository's password"),
            canaries.private("a repository's host"),
            canaries.private("a repository's owner"),
        ),
        "stop": [canaries.put(Kind::Text, "stop"), canaries.secret("stop")],
        "max_tokens": 8,
    });
    body.as_object_mut().expect("an object").extend(metadata(canaries));
    let path = format!("C:\\Users\\{}\\b.rs", canaries.private("extra_files.path"));
    body["extra_files"] = json!([{"path": path, "text": noted + &extra}]);
    body
}

/// Bodies that are refused, or that another route reads.
pub(super) fn odd_bodies(canaries: &mut Canaries) -> Vec<Vec<u8>> {
    let mut word = |of: &str| canaries.private(of);
    let messages = json!([{"role": "user", "name": word("messages.name"), "content": word("messages.content"),
        "tool_call_id": word("messages.tool_call_id")}]);
    let typed = [
        json!({"messages": messages, "user": word("chat's user")}),
        json!({"segments": {"prefix": "x", "filepath": word("segments.filepath"),
            "git_url": format!("https://{}@host/a.git", word("segments.git_url"))}}),
        json!({"type": "view", "completion_id": word("completion_id"), "view_id": word("view_id")}),
        json!({"messages": [{"role": word("a role"), "content": "x"}]}),
        json!({"prompt": "x", "model": word("model")}),
        json!({"prompt": {"a": word("a prompt of another type")}}),
        json!({"prompt": "x", "max_tokens": word("max_tokens")}),
        json!({"prompt": "x", "logit_bias": {word("logit_bias"): 1}}),
        json!({"prompt": "x", "stop": [[word("a stop of another type")]]}),
        json!({"name": word("show's name"), "model": word("show's model")}),
        json!({"prompt": "x", "keep_alive": [word("keep_alive")]}),
        json!({"prompt": "x", "options": {"num_predict": word("num_predict")}}),
        json!({"prompt": "x", "options": word("options")}),
        json!({"inputs": {"a": word("inputs of another type")}}),
        json!({"inputs": "x", "parameters": {"stop": [[word("a parameter")]]}}),
        json!({"prompt": "x".to_owned() + &word("a long prompt").repeat(40_000)}),
    ];
    let mut bodies: Vec<Vec<u8>> = typed.iter().map(|body| body.to_string().into_bytes()).collect();
    bodies.push(format!("{{\"prompt\": \"{}", word("cut JSON")).into_bytes());
    bodies.push(format!("{} = 1", word("no JSON")).into_bytes());
    bodies.push([b"{\"prompt\": \"\xff".to_vec(), word("no UTF-8").into_bytes()].concat());
    bodies.push(json!([word("a list")]).to_string().into_bytes());
    bodies
}
