//! Looks at the heads of WebSocket frames as their bytes come, so that one that is too long is refused before it is kept:
//! the WebSocket library itself judges a frame's length only once it has all of it.

use actix_web::error::PayloadError;
use actix_web::web::{Bytes, Payload};
use actix_web::{FromRequest, HttpRequest, dev};
use futures::StreamExt;
use futures::future::{FutureExt, ready};

/// The position of the next byte in the stream of frames. Pure.
struct FrameLengths {
    /// The longest payload of a frame.
    most: u64,
    head: Vec<u8>,
    /// Bytes of the present frame's payload that are still to come.
    left: u64,
}

impl FrameLengths {
    fn new(most: usize) -> FrameLengths {
        FrameLengths { most: most as u64, head: Vec::new(), left: 0 }
    }

    /// `false`: a frame begins in `bytes` that is too long.
    fn pass(&mut self, mut bytes: &[u8]) -> bool {
        loop {
            let skipped = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= skipped as u64;
            bytes = &bytes[skipped..];
            let Some((first, rest)) = bytes.split_first() else { return true };
            bytes = rest;
            self.head.push(*first);
            if let Some(length) = payload_length(&self.head) {
                if length > self.most {
                    return false;
                }
                self.left = length;
                self.head.clear();
            }
        }
    }
}

/// The payload length in a complete head of a frame (RFC 6455, 5.2); `None`: it is not complete.
fn payload_length(head: &[u8]) -> Option<u64> {
    let second = *head.get(1)?;
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let (length, bytes) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(head.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(head.get(2..10)?.try_into().ok()?), 10),
        short => (u64::from(short), 2),
    };
    (head.len() >= bytes + mask).then_some(length)
}

/// The payload of `request` with frames of at most `most` bytes; it fails at the first that is longer.
pub fn limited(request: &HttpRequest, payload: Payload, most: usize) -> Result<Payload, actix_web::Error> {
    let mut lengths = FrameLengths::new(most);
    let checked = payload.map(move |bytes| -> Result<Bytes, PayloadError> {
        let bytes = bytes?;
        if lengths.pass(&bytes) { Ok(bytes) } else { Err(PayloadError::Overflow) }
    });
    // What follows the one that is too long is not read.
    let mut failed = false;
    let until_failure = checked.take_while(move |bytes| {
        let goes_on = !failed;
        failed |= bytes.is_err();
        ready(goes_on)
    });
    let mut payload = dev::Payload::Stream { payload: until_failure.boxed_local() };
    match Payload::from_request(request, &mut payload).now_or_never() {
        Some(payload) => payload,
        None => Err(PayloadError::Incomplete(None).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with a payload of that length, masked as clients must.
    fn frame(length: u64) -> Vec<u8> {
        let mut bytes = vec![0x81];
        match length {
            0..126 => bytes.push(0x80 | length as u8),
            126..0x1_0000 => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend_from_slice(&length.to_be_bytes());
            }
        }
        bytes.extend_from_slice(&[1, 2, 3, 4]);
        bytes.extend(std::iter::repeat_n(0xff, length as usize));
        bytes
    }

    #[test]
    fn a_frame_is_refused_by_its_head() {
        const MOST: usize = 70_000;
        for (lengths, fine) in [
            (&[0u64, 1, 125, 126, 127, 65_535, 65_536, 69_999, 70_000][..], true),
            (&[70_001], false),
            (&[3, 70_001], false),
            (&[70_000, 125, 70_001, 0], false),
        ] {
            let all: Vec<u8> = lengths.iter().flat_map(|length| frame(*length)).collect();
            for size in [1, 2, 7, 1000, all.len()] {
                let mut guard = FrameLengths::new(MOST);
                assert_eq!(all.chunks(size).all(|part| guard.pass(part)), fine, "{lengths:?} by {size}");
                assert!(guard.head.len() <= 14, "a head has 14 bytes at most");
            }
        }
        let mut guard = FrameLengths::new(MOST);
        assert!(guard.pass(&[0x82, 0xff]) && guard.pass(&[0xff; 8]), "the mask is part of the head");
        assert!(!guard.pass(&[0; 4]));
        let mut unmasked = FrameLengths::new(MOST);
        assert!(unmasked.pass(&[0x82, 3, 1, 2, 3, 0x82, 0]) && unmasked.head.is_empty() && unmasked.left == 0);
    }
}
