//! Reading a request body: bounded in bytes, in time, and over all connections.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, ORIGIN};
use bytes::BytesMut;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, timeout};

use super::error::ApiError;
use crate::completion::{Reason, Refusal};

/// A body's bytes: a repository's worth of context files fits, a mistaken upload does not.
pub(super) const BYTES_MAX: usize = 8 << 20;

/// What is read and thrown away of a body that is too large. A client that is still sending when
/// the connection closes may lose the reply that says why.
const DISCARD_BYTES_MAX: usize = 4 * BYTES_MAX;

/// Taken on trust from Content-Length before the bytes arrive.
const RESERVE_BYTES_MAX: usize = 64 << 10;

/// A body, and the room it takes until it is dropped.
pub(super) struct Whole {
    pub bytes: BytesMut,
    _room: Option<OwnedSemaphorePermit>,
}

/// Reads the whole body of a request that should carry JSON.
pub(super) async fn read(
    request: Request,
    room: &Arc<Semaphore>,
    limit: Duration,
) -> Result<(HeaderMap, Whole), ApiError> {
    let (parts, body) = request.into_parts();
    is_json(&parts.headers)?;
    let length = content_length(&parts.headers);
    if length.is_some_and(|length| length > BYTES_MAX) && parts.headers.contains_key(EXPECT) {
        return Err(too_large());
    }
    let whole = timeout(limit, collect(body, length.unwrap_or(0), room))
        .await
        .map_err(|_| ApiError::slow_body())??;
    Ok((parts.headers, whole))
}

async fn collect(mut body: Body, length: usize, room: &Arc<Semaphore>) -> Result<Whole, ApiError> {
    let mut bytes = BytesMut::with_capacity(length.min(RESERVE_BYTES_MAX));
    let mut taken: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::invalid(None, "the request body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > BYTES_MAX {
            drop((bytes, taken));
            discard(body).await;
            return Err(too_large());
        }
        let size = u32::try_from(data.len()).map_err(|_| too_large())?;
        let more = room.clone().try_acquire_many_owned(size).map_err(|_| no_room())?;
        match &mut taken {
            Some(taken) => taken.merge(more),
            None => taken = Some(more),
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Whole { bytes, _room: taken })
}

async fn discard(mut body: Body) {
    let mut discarded = 0;
    while let Some(Ok(frame)) = body.frame().await {
        discarded += frame.data_ref().map_or(0, |data| data.len());
        if discarded > DISCARD_BYTES_MAX {
            return;
        }
    }
}

/// A page's simple request cannot say application/json without a preflight, so from a page
/// nothing else is read. Others (curl without -H says form data) are taken at their bytes.
fn is_json(headers: &HeaderMap) -> Result<(), ApiError> {
    if !headers.contains_key(ORIGIN) && !headers.contains_key("sec-fetch-site") {
        return Ok(());
    }
    let essence = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map_or("", str::trim);
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::media_type())
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large() -> ApiError {
    ApiError::too_large(format!("the body may have at most {BYTES_MAX} bytes"))
}

fn no_room() -> ApiError {
    let message = "too many large requests are arriving at once";
    ApiError::from(&Refusal::new(Reason::QueueFull, message))
}
