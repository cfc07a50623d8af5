//! Every provider end to end: a client's request, through a saturated weir, to a server that
//! speaks the wire, and its text back.

use std::time::Duration;

use serde_json::{Value, json};

use super::recording::{KEY, Recording};
use crate::support::cloud::{Cloud, Seen, Step, chunk, chunked_head};
use crate::support::http::{Reply, send};
use crate::support::weir::{PATIENCE, Weir, clients, comes_true};

fn recordings() -> Vec<Recording> {
    let mut all = Recording::all("shaped");
    if cfg!(feature = "oci") {
        all.extend(Recording::all("oci"));
    }
    all
}

/// A weir with a row for each, told apart by its realm.
async fn rows(recordings: &[Recording], folder: &tempfile::TempDir) -> (Vec<Cloud>, String) {
    let (mut clouds, mut toml) = (Vec::new(), String::new());
    for recording in recordings {
        let bytes = recording.streamed();
        let answer = [chunked_head(), chunk(&bytes), chunk(b"")].concat();
        let cloud = Cloud::always(vec![Step::Send(answer)]).await;
        let realm = format!("realm = \"{}\"", recording.name);
        toml += &recording.row(&cloud.address.to_string(), folder, &realm);
        clouds.push(cloud);
    }
    (clouds, toml)
}

fn is_proven(seen: &Seen) {
    if seen.header("authorization") == Some(&*format!("Bearer {KEY}")) {
        return;
    }
    #[cfg(feature = "oci")]
    assert_eq!(super::oci::verify(seen, std::time::SystemTime::now()), Ok(()));
    #[cfg(not(feature = "oci"))]
    panic!("no proof");
}

/// The text of a streamed reply.
fn streamed(reply: &Reply) -> String {
    let part = |event: &str| {
        let event: Value = serde_json::from_str(event).ok()?;
        Some(event["choices"][0]["text"].as_str()?.to_owned())
    };
    reply.events().into_iter().filter_map(part).collect()
}

#[test]
fn every_provider_answers_through_the_door() {
    let (clients, folder) = (clients(), tempfile::tempdir().expect("a folder"));
    let recordings = recordings();
    let (clouds, rows) = clients.block_on(rows(&recordings, &folder));
    let weir = Weir::start(&format!(
        "model.slots = 1\noverflow.anonymous_cloud = true\noverflow.ttft_objective_ms = 1\n\
         overflow.enter = 0.001\noverflow.leave = 0.001\n{rows}"
    ));
    let post = async |body: Value, headers: &[(&str, &str)]| {
        let body = body.to_string();
        send(weir.address, "POST", "/v1/completions", headers, body.as_bytes()).await
    };
    let story = async {
        let busy = comes_true(PATIENCE, || weir.saturation().work_ahead_ms() > 20.0).await;
        assert!(busy, "the box is busy");
        for (recording, cloud) in recordings.iter().zip(&clouds) {
            let realm = format!("realm={}", recording.name);
            for stream in [false, true] {
                let body = json!({"prompt": "def odd(n):\n    return ", "suffix": "\n",
                    "max_tokens": 64, "stream": stream});
                let reply = post(body, &[("x-weir-require", &realm)]).await;
                let route = format!("cloud:{}", recording.name);
                assert_eq!(reply.header("x-weir-route"), Some(&*route), "{}", reply.text());
                let text = match stream {
                    true => streamed(&reply),
                    false => reply.json()["choices"][0]["text"].as_str().unwrap().to_owned(),
                };
                assert_eq!(text, recording.answer(), "{route}");
            }
            for seen in cloud.seen() {
                assert_eq!(seen.path(), recording.path());
                is_proven(&seen);
            }
            assert_eq!(cloud.seen().len(), 2, "{} got only its own", recording.name);
        }
    };
    let keep_busy = async {
        let body = json!({"prompt": "fn main() {", "max_tokens": 600, "ignore_eos": true});
        let one = || async {
            loop {
                post(body.clone(), &[("x-weir-overflow", "never")]).await;
                tokio::time::sleep(Duration::ZERO).await;
            }
        };
        tokio::join!(one(), one(), one(), one());
    };
    clients.block_on(async {
        tokio::select! {
            () = story => {}
            () = keep_busy => unreachable!("it keeps on"),
        }
    });
}
