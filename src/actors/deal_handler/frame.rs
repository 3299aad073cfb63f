//! Decides where one CBOR item ends in a growing buffer: Filecoin's market streams carry bare items, with no length before
//! them, and the asking side keeps its half of the stream open.

/// Why bytes cannot become one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a message of more than {limit} bytes")]
    TooLarge { limit: usize },
    /// DAG-CBOR has neither lengths that are left open nor the reserved ones.
    #[error("not DAG-CBOR: byte {byte:#04x} at {at} starts no item")]
    NotDagCbor { byte: u8, at: usize },
}

/// `Some(n)`: the first `n` bytes are one whole item. `None`: more bytes are needed. Never looks past `limit`.
pub fn item_len(buf: &[u8], limit: usize) -> Result<Option<usize>, FrameError> {
    let too_large = FrameError::TooLarge { limit };
    let mut at = 0usize;
    // Items still to come: an array of n adds n, a map 2n, a tag 1. Each takes at least a byte, which bounds the count.
    let mut pending = 1usize;
    while pending > 0 {
        if at.checked_add(pending).is_none_or(|least| least > limit) {
            return Err(too_large);
        }
        let Some(&head) = buf.get(at) else { return Ok(None) };
        let (major, info) = (head >> 5, head & 0x1f);
        let extra = match info {
            0..=23 => 0,
            24..=27 => 1usize << (info - 24),
            _ => return Err(FrameError::NotDagCbor { byte: head, at }),
        };
        let Some(argument) = buf.get(at + 1..at + 1 + extra) else {
            return if at + 1 + extra > limit { Err(too_large) } else { Ok(None) };
        };
        let argument = match extra {
            0 => info as u64,
            _ => argument.iter().fold(0u64, |n, b| n << 8 | *b as u64),
        };
        at += 1 + extra;
        pending -= 1;
        let argument = usize::try_from(argument).unwrap_or(usize::MAX);
        match major {
            0 | 1 | 7 => {}
            2 | 3 => at = at.checked_add(argument).ok_or(too_large)?,
            4 => pending = pending.checked_add(argument).ok_or(too_large)?,
            5 => pending = argument.checked_mul(2).and_then(|n| pending.checked_add(n)).ok_or(too_large)?,
            _ => pending += 1,
        }
        if at > limit {
            return Err(too_large);
        }
    }
    Ok((at <= buf.len()).then_some(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_ends_where_its_head_says() {
        type Case<'a> = (&'a [u8], Result<Option<usize>, FrameError>);
        let cases: &[Case] = &[
            (&[], Ok(None)),
            (&[0x00], Ok(Some(1))),
            (&[0x18], Ok(None)),
            (&[0x18, 0xff], Ok(Some(2))),
            (&[0x00, 0x00], Ok(Some(1))),                   // what follows is not ours
            (&[0x42, 1], Ok(None)),                         // bytes, one short
            (&[0x42, 1, 2], Ok(Some(3))),                   // bytes, exact
            (&[0x42, 1, 2, 3], Ok(Some(3))),                // bytes, one more
            (&[0xa1, 0x61, b'a', 0x82, 1], Ok(None)),       // {"a": [1, ...
            (&[0xa1, 0x61, b'a', 0x82, 1, 2], Ok(Some(6))), // {"a": [1, 2]}
            (&[0xa0], Ok(Some(1))),
            (&[0xd8, 0x2a, 0x41, 0], Ok(Some(4))), // a tag takes its item along
            (&[0xd8, 0x2a], Ok(None)),
            (&[0xf6], Ok(Some(1))),
            (&[0x9f], Err(FrameError::NotDagCbor { byte: 0x9f, at: 0 })), // open-ended array
            (&[0x81, 0x1c], Err(FrameError::NotDagCbor { byte: 0x1c, at: 1 })),
        ];
        for (bytes, want) in cases {
            assert_eq!(item_len(bytes, 64), *want, "{bytes:02x?}");
        }
    }

    #[test]
    fn the_limit_is_on_the_whole_item() {
        let item = [0x43, 1, 2, 3];
        for (limit, want) in [(3, Err(FrameError::TooLarge { limit: 3 })), (4, Ok(Some(4))), (5, Ok(Some(4)))] {
            assert_eq!(item_len(&item, limit), want);
        }
    }

    #[test]
    fn a_length_that_lies_is_refused_from_the_head_alone() {
        let huge: &[&[u8]] = &[
            &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], // 2^64-1 bytes
            &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0xbb, 0x80, 0, 0, 0, 0, 0, 0, 0],
            &[0x9a, 0, 1, 0, 0],
            &[0x59, 0x04, 0x00],
        ];
        for bytes in huge {
            assert_eq!(item_len(bytes, 1024), Err(FrameError::TooLarge { limit: 1024 }), "{bytes:02x?}");
        }
    }
}
