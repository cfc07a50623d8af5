//! Servers that are OpenAI-shaped, each with its own ways.

use super::recording::{KEY, Recording};
use crate::support::scale;

fn recordings() -> Vec<Recording> {
    Recording::all("shaped")
}

#[tokio::test]
async fn each_reads_and_writes_as_documented() {
    for recording in recordings() {
        let bearer = format!("Bearer {KEY}");
        let check = |seen: &crate::support::cloud::Seen| {
            assert_eq!(seen.header("authorization"), Some(&*bearer));
        };
        recording.reads_and_writes_as_documented(check).await;
    }
}

#[tokio::test]
async fn splits_do_not_matter() {
    for recording in recordings() {
        recording.splits_do_not_matter(20 / scale::count(20)).await;
    }
}

#[tokio::test]
async fn errors_have_their_meaning() {
    for recording in recordings() {
        recording.errors_have_their_meaning().await;
    }
}

#[tokio::test]
async fn broken_streams_end_honestly() {
    for recording in recordings() {
        recording.broken_streams_end_honestly().await;
    }
}
