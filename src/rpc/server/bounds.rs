//! Bounds on a caller's input: less without a token than with one. A body is read under its bounds, never before the
//! token.

use actix_web::web::{Bytes, BytesMut, Payload};
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bounds of one caller.
#[derive(Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of a request's body.
    pub body: usize,
    /// From the request's head to the last byte of its body.
    pub body_within: Duration,
    /// Bytes of a WebSocket message.
    pub message: usize,
    /// Brackets, braces, commas and colons of a request: what its JSON takes in memory is a multiple of these.
    pub marks: usize,
    /// Requests in one POST.
    pub batch: usize,
    /// Calls and channels at once on one WebSocket.
    pub calls: usize,
}

/// Without a token.
pub static STRANGER: Bounds = Bounds {
    body: SMALL,
    body_within: Duration::from_secs(5),
    message: 64 << 10,
    marks: 8 << 10,
    batch: 32,
    calls: 16,
};

/// With a valid token of any permission. A batch of sector infos or a block may be that large.
pub static KNOWN: Bounds = Bounds {
    body: 16 << 20,
    body_within: Duration::from_secs(30),
    message: 1 << 20,
    marks: 256 << 10,
    batch: 256,
    calls: 256,
};

/// Bytes of large bodies in memory at once, all callers of one server together.
pub const LARGE_BODIES: usize = 32 << 20;
/// A body up to this size needs no room of [`LARGE_BODIES`].
const SMALL: usize = 64 << 10;
/// The unit of that room.
const BLOCK: usize = 64 << 10;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the body did not arrive within {0:?}")]
    TooSlow(Duration),
    #[error("too many large requests at once; try again")]
    NoRoom,
    #[error("the body broke off: {0}")]
    BrokeOff(String),
}

impl BodyError {
    pub fn http_status(&self) -> u16 {
        match self {
            BodyError::TooLarge(_) => 413,
            BodyError::TooSlow(_) => 408,
            BodyError::NoRoom => 503,
            BodyError::BrokeOff(_) => 400,
        }
    }
}

/// The room that all large bodies of a server share.
#[derive(Clone)]
pub struct BodyRoom(Arc<Semaphore>);

impl BodyRoom {
    pub fn new(bytes: usize) -> BodyRoom {
        BodyRoom(Arc::new(Semaphore::new(bytes / BLOCK)))
    }
}

/// A body, and the room that it takes until it is dropped.
#[derive(Debug)]
pub struct Body {
    pub bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// Reads a body to its end. `declared`: its `Content-Length`.
pub async fn read(
    payload: Payload,
    declared: Option<usize>,
    bounds: &Bounds,
    room: &BodyRoom,
) -> Result<Body, BodyError> {
    if declared.is_some_and(|length| length > bounds.body) {
        return Err(BodyError::TooLarge(bounds.body));
    }
    let reading = tokio::time::timeout(bounds.body_within, collect(payload, bounds.body, room));
    reading.await.unwrap_or(Err(BodyError::TooSlow(bounds.body_within)))
}

async fn collect(mut payload: Payload, most: usize, room: &BodyRoom) -> Result<Body, BodyError> {
    let mut bytes = BytesMut::new();
    let mut taken: Option<OwnedSemaphorePermit> = None;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|e| BodyError::BrokeOff(e.to_string()))?;
        let length = bytes.len() + chunk.len();
        if length > most {
            return Err(BodyError::TooLarge(most));
        }
        let blocks = if length > SMALL { length.div_ceil(BLOCK) } else { 0 };
        let missing = blocks.saturating_sub(taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if missing > 0 {
            let missing = u32::try_from(missing).map_err(|_| BodyError::NoRoom)?;
            let more = room.0.clone().try_acquire_many_owned(missing).map_err(|_| BodyError::NoRoom)?;
            match &mut taken {
                Some(taken) => taken.merge(more),
                None => taken = Some(more),
            }
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Body { bytes: bytes.freeze(), _room: taken })
}

/// Whether JSON has more brackets, braces, commas and colons than `most`; those in strings count too.
pub fn has_more_marks(json: &[u8], most: usize) -> bool {
    json.iter().filter(|byte| matches!(byte, b'[' | b'{' | b',' | b':')).nth(most).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::error::PayloadError;
    use futures::stream;

    fn payload(chunks: Vec<Bytes>, ends: bool) -> Payload {
        let chunks = stream::iter(chunks.into_iter().map(Ok::<_, PayloadError>));
        let rest = if ends { stream::empty().boxed_local() } else { stream::pending().boxed_local() };
        let all: actix_web::dev::Payload =
            actix_web::dev::Payload::Stream { payload: chunks.chain(rest).boxed_local() };
        let request = actix_web::test::TestRequest::default().to_http_request();
        let mut all = all;
        let extracted = <Payload as actix_web::FromRequest>::from_request(&request, &mut all);
        futures::FutureExt::now_or_never(extracted).expect("at once").expect("a payload")
    }

    fn of(length: usize) -> Vec<Bytes> {
        let mut left = length;
        let mut chunks = Vec::new();
        while left > 0 {
            let size = left.min(10_000);
            chunks.push(Bytes::from(vec![b' '; size]));
            left -= size;
        }
        chunks
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_bound_and_within_its_time() {
        let room = BodyRoom::new(LARGE_BODIES);
        let slow = Bounds { body_within: Duration::from_millis(50), ..KNOWN };
        for (length, declared, ends, bounds, want) in [
            (0, None, true, &STRANGER, Ok(0)),
            (STRANGER.body - 1, None, true, &STRANGER, Ok(STRANGER.body - 1)),
            (STRANGER.body, None, true, &STRANGER, Ok(STRANGER.body)),
            (STRANGER.body + 1, None, true, &STRANGER, Err(BodyError::TooLarge(STRANGER.body))),
            (1, Some(STRANGER.body), true, &STRANGER, Ok(1)),
            (1, Some(STRANGER.body + 1), true, &STRANGER, Err(BodyError::TooLarge(STRANGER.body))),
            (STRANGER.body + 1, None, true, &KNOWN, Ok(STRANGER.body + 1)),
            (KNOWN.body, None, true, &KNOWN, Ok(KNOWN.body)),
            (KNOWN.body + 1, None, true, &KNOWN, Err(BodyError::TooLarge(KNOWN.body))),
            (1, Some(2), false, &slow, Err(BodyError::TooSlow(slow.body_within))),
        ] {
            let read = read(payload(of(length), ends), declared, bounds, &room).await;
            assert_eq!(read.map(|body| body.bytes.len()), want, "{length} {declared:?}");
        }
        assert_eq!(room.0.available_permits(), LARGE_BODIES / BLOCK, "all room is free again");
    }

    #[tokio::test]
    async fn large_bodies_share_their_room_and_small_ones_need_none() {
        let room = BodyRoom::new(2 * BLOCK);
        let first = read(payload(of(2 * BLOCK), true), None, &KNOWN, &room).await.expect("all of the room");
        let second = read(payload(of(SMALL + 1), true), None, &KNOWN, &room).await;
        assert_eq!(second.map(|body| body.bytes.len()), Err(BodyError::NoRoom));
        assert!(read(payload(of(SMALL), true), None, &KNOWN, &room).await.is_ok());
        drop(first);
        assert!(read(payload(of(SMALL + 1), true), None, &KNOWN, &room).await.is_ok());
    }

    #[test]
    fn marks_are_counted() {
        for (json, most, more) in [
            ("", 0, false),
            ("7", 0, false),
            ("[]", 0, true),
            ("[]", 1, false),
            (r#"{"a":[1,2]}"#, 3, true),
            (r#"{"a":[1,2]}"#, 4, false),
        ] {
            assert_eq!(has_more_marks(json.as_bytes(), most), more, "{json} {most}");
        }
    }
}
