//! Bedrock and SageMaker. The server checks every signature.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::recording::{Recording, aws_keys};
use super::sigv4::{SKEW, Scope, verify};
use crate::support::cloud::{Cloud, Seen, Step, chunk, status};
use crate::support::http;
use crate::support::process::Process;
use crate::support::weir::{PATIENCE, drive};

fn recordings() -> Vec<Recording> {
    Recording::all("aws")
}

fn scope(recording: &Recording) -> Scope {
    let keys = aws_keys();
    Scope {
        key: keys.id.to_string(),
        secret: keys.secret.expose().to_owned(),
        token: keys.token.map(|token| token.expose().to_owned()),
        region: recording.text("region").to_owned(),
        service: recording.text("service").to_owned(),
    }
}

#[tokio::test]
async fn each_reads_and_writes_as_documented_and_signs() {
    for recording in recordings() {
        let scope = scope(&recording);
        let check = |seen: &Seen| assert_eq!(verify(seen, &scope, SystemTime::now()), Ok(()));
        recording.reads_and_writes_as_documented(check).await;
    }
}

#[tokio::test]
async fn a_key_of_bedrock_is_shown_and_nothing_signed() {
    for recording in recordings().iter().filter(|of| !of.name.starts_with("sagemaker")) {
        let answer = [recording.head(), chunk(&recording.streamed()), chunk(b"")].concat();
        recording.shows_its_key(&Cloud::always(vec![Step::Send(answer)]).await).await;
    }
}

/// What `recording` answers to a request that is signed for `there`, and to any other.
fn checking(
    recording: &Recording,
    there: SystemTime,
    asked: &Arc<AtomicUsize>,
) -> impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static {
    let answer = [recording.head(), chunk(&recording.streamed()), chunk(b"")].concat();
    let (scope, asked) = (scope(recording), asked.clone());
    move |seen| {
        asked.fetch_add(1, Ordering::SeqCst);
        let Err(wrong) = verify(seen, &scope, there) else {
            return vec![Step::Send(answer.clone())];
        };
        let date = format!("date: {}", httpdate::fmt_http_date(there));
        let name = "x-amzn-errortype: InvalidSignatureException";
        let body = json!({ "message": wrong }).to_string();
        vec![Step::Send(status(403, &["content-type: application/json", &date, name], &body))]
    }
}

/// A box whose clock is an hour behind, or ahead, signs again by AWS's, once.
#[tokio::test]
async fn a_clock_that_is_wrong_is_set_by_theirs() {
    let hour = Duration::from_secs(3600);
    for there in [SystemTime::now() + hour, SystemTime::now() - hour] {
        for recording in recordings() {
            let asked = Arc::new(AtomicUsize::new(0));
            let cloud = Cloud::start(checking(&recording, there, &asked)).await;
            recording.is_answered_by(&cloud).await;
            assert_eq!(asked.load(Ordering::SeqCst), 2, "refused, and signed anew");
        }
    }
}

/// The verifier itself: what is changed on the way is refused.
#[tokio::test]
async fn a_changed_request_is_not_accepted() {
    let all = recordings();
    let recording = all.iter().find(|recording| recording.name == "sagemaker-openai").unwrap();
    let (scope, now) = (scope(recording), SystemTime::now());
    let cloud = Cloud::start(checking(recording, now, &Arc::default())).await;
    recording.is_answered_by(&cloud).await;
    let seen = cloud.seen().remove(0);
    let changed = |change: &dyn Fn(&mut Seen)| {
        let mut seen = seen.clone();
        change(&mut seen);
        verify(&seen, &scope, now)
    };
    assert_eq!(changed(&|_| {}), Ok(()));
    assert!(changed(&|seen| seen.raw.push(b' ')).is_err());
    for (from, to) in [
        ("/endpoints/coder", "/endpoints/codes"),
        ("POST ", "PUT "),
        ("host: 127.0.0.1", "host: 127.0.0.2"),
        ("content-type: application/json", "content-type: text/plain"),
        ("component: small", "component: large"),
        ("us-gov-west-1/sagemaker", "us-gov-west-1/bedrock"),
        ("x-amz-security-token: the", "x-amz-security-token: a"),
        (";x-amz-security-token", ""),
        ("x-amz-date: ", "x-amz-date: 1"),
    ] {
        let change = |seen: &mut Seen| {
            let head = seen.head.replacen(from, to, 1);
            assert_ne!(head, seen.head, "{from} is in {head}");
            seen.head = head;
        };
        assert!(changed(&change).is_err(), "{from}");
    }
    assert!(verify(&seen, &scope, now + SKEW * 2).is_err());
    assert!(verify(&seen, &Scope { secret: "x".into(), ..scope.clone() }, now).is_err());
    assert!(verify(&seen, &Scope { token: None, ..scope.clone() }, now).is_err());
}

/// The binary, with its credentials from a container's endpoint: it gets keys there, signs with
/// them, and a client reads what Bedrock said.
#[test]
fn a_container_of_its_own_completes_at_bedrock() {
    const TOKEN: &str = "Basic of-the-container";
    let all = recordings();
    let recording = all.iter().find(|recording| recording.name == "converse").unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    drive(async {
        let cloud = Cloud::start(checking(recording, SystemTime::now(), &asked)).await;
        let keys = Cloud::start(|seen| {
            let keys = aws_keys();
            let good = seen.path() == "/v2/keys" && seen.header("authorization") == Some(TOKEN);
            let end = SystemTime::now() + Duration::from_secs(3600);
            let document = json!({
                "AccessKeyId": &*keys.id,
                "SecretAccessKey": keys.secret.expose(),
                "Token": keys.token.as_ref().map(weir::config::Secret::expose),
                "Expiration": iso(end),
            });
            let code = if good { 200 } else { 403 };
            let kind = ["content-type: application/json"];
            vec![Step::Send(status(code, &kind, &document.to_string()))]
        })
        .await;
        let weir = tokio::task::spawn_blocking({
            let toml = config(recording, &cloud);
            let uri = format!("http://{}/v2/keys", keys.address);
            move || {
                Process::launch(&toml, |path| {
                    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
                    command.arg("serve").arg("--config").arg(path);
                    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri);
                    command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN", TOKEN);
                    command
                })
            }
        })
        .await
        .unwrap();
        let body = json!({
            "prompt": "def odd(n):\n    return ",
            "suffix": "\n",
            "path": "only/odd.py",
            "max_tokens": 64,
            "temperature": 0,
        });
        // A row is refused for as long as its keys are on their way.
        let reply = loop {
            let reply = http::post(weir.address, "/v1/completions", &body).await;
            if reply.status == 200 || weir.started.elapsed() > PATIENCE {
                break reply;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert_eq!(reply.status, 200, "{}", reply.text());
        let answer = reply.json();
        assert_eq!(answer["choices"][0]["text"], recording.answer());
        assert_eq!(answer["usage"]["prompt_tokens"], 75);
        assert_eq!(keys.seen().len(), 1, "one flight");
        assert_eq!(asked.load(Ordering::SeqCst), cloud.seen().len());
        drop(tokio::task::spawn_blocking(move || drop(weir)).await);
    });
}

fn config(recording: &Recording, cloud: &Cloud) -> String {
    let row = recording.text("row").replace("imds", "container");
    format!(
        "[overflow]\nanonymous_cloud = true\n\
         [[path]]\npattern = \"only/**\"\npolicy = \"cloud-only\"\n\
         [[cloud]]\nname = \"aws\"\nbase_url = \"http://{}\"\n{row}\n",
        cloud.address
    )
}

/// As AWS writes a time: `2026-11-21T18:00:00Z`.
fn iso(time: SystemTime) -> String {
    let text = httpdate::fmt_http_date(time);
    let words: Vec<&str> = text.split(' ').collect();
    let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = months.find(words[2]).expect("a month") / 3 + 1;
    format!("{}-{month:02}-{}T{}Z", words[3], words[1], words[4])
}
