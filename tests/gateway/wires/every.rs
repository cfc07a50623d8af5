//! What holds of every recorded wire alike.

use super::recording::Recording;
use crate::support::scale;

fn recordings() -> Vec<Recording> {
    let folders = [
        Some("shaped"),
        cfg!(feature = "aws").then_some("aws"),
        cfg!(feature = "oci").then_some("oci"),
    ];
    folders.into_iter().flatten().flat_map(Recording::all).collect()
}

#[tokio::test]
async fn splits_do_not_matter() {
    for recording in recordings() {
        recording.splits_do_not_matter(40 / scale::count(40)).await;
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
