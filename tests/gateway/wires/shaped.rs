//! Servers that are OpenAI-shaped, each with its own ways.

use super::recording::{KEY, Recording};

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
async fn what_is_left_of_a_quota_is_read_from_a_good_answer() {
    let first = recordings().remove(0);
    let left = first.limits_after(&[
        "x-ratelimit-remaining-requests: 59",
        "x-ratelimit-remaining-tokens: 0",
        "x-ratelimit-reset-tokens: 6m0s",
    ]);
    let left = left.await;
    assert_eq!((left.requests_left, left.tokens_left), (Some(59), Some(0)));
    let wait = left.reset_at.expect("it said when").duration_since(tokio::time::Instant::now());
    assert!((350..=360).contains(&wait.as_secs()), "{wait:?}");
}
