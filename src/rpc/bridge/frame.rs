//! Frames on a lane: `u32 length | version | kind | flags | fields of the kind | body`, integers as LEB128. Pure.
//!
//! Nothing here allocates: a frame borrows from the buffer it was read into, and a length over the limit is refused
//! while the frame is still four bytes long.

use std::ops::RangeInclusive;

/// The versions of this protocol that this build speaks. Two neighbouring releases share at least one.
pub const VERSIONS: RangeInclusive<u8> = 1..=1;
/// A `Hello` is always written in this version, so that any two versions can read each other's.
pub const HELLO_VERSION: u8 = 1;

/// Paths longer than this are nobody's.
pub const MAX_PATH: usize = 512;
/// A path with this number is not kept by the receiver.
pub const UNKEPT: u32 = u32::MAX;
/// How many paths one lane keeps.
pub const MAX_PATHS: usize = 1 << 16;

const LENGTH: usize = 4;
const FIXED: usize = 3;
const DEFINES_PATH: u8 = 1;
const HAS_TRACE: u8 = 2;
const IS_ECHO: u8 = 4;
const FLAGS: u8 = DEFINES_PATH | HAS_TRACE | IS_ECHO;

/// A request's origin in a trace: W3C trace context's `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    pub trace: u128,
    pub span: u64,
}

impl std::fmt::Display for TraceParent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "00-{:032x}-{:016x}-01", self.trace, self.span)
    }
}

/// The logical path a frame is for: by number, and in full the first time on its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct To<'a> {
    pub number: u32,
    pub defines: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// Grows from call to call on a lane; a call that does not is a replay.
    pub corr: u64,
    pub to: To<'a>,
    pub message: u32,
    pub schema: u16,
    /// The epoch of the lease under which the sender believes the actor to run; 0: without a lease.
    pub epoch: u64,
    pub trace: Option<TraceParent>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head<'a> {
    Hello,
    Tell(Call<'a>),
    Ask {
        call: Call<'a>,
        /// How long the asker still waits.
        left_ms: u32,
    },
    Reply {
        corr: u64,
    },
    Fault {
        corr: u64,
    },
    Heartbeat {
        stamp: u64,
        echo: bool,
    },
    Watch {
        corr: u64,
        to: To<'a>,
        epoch: u64,
    },
    Unwatch {
        corr: u64,
    },
    Down {
        corr: u64,
    },
    Goodbye,
}

impl Head<'_> {
    fn kind(&self) -> u8 {
        match self {
            Head::Hello => 1,
            Head::Tell(_) => 2,
            Head::Ask { .. } => 3,
            Head::Reply { .. } => 4,
            Head::Fault { .. } => 5,
            Head::Heartbeat { .. } => 6,
            Head::Watch { .. } => 7,
            Head::Unwatch { .. } => 8,
            Head::Down { .. } => 9,
            Head::Goodbye => 10,
        }
    }

    fn flags(&self) -> u8 {
        let path = |to: &To| if to.defines.is_some() { DEFINES_PATH } else { 0 };
        let call = |call: &Call| path(&call.to) | if call.trace.is_some() { HAS_TRACE } else { 0 };
        match self {
            Head::Tell(it) | Head::Ask { call: it, .. } => call(it),
            Head::Watch { to, .. } => path(to),
            Head::Heartbeat { echo: true, .. } => IS_ECHO,
            Head::Heartbeat { echo: false, .. } | Head::Hello | Head::Goodbye => 0,
            Head::Reply { .. } | Head::Fault { .. } | Head::Unwatch { .. } | Head::Down { .. } => 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub version: u8,
    pub head: Head<'a>,
    pub body: &'a [u8],
}

/// Bytes that are no frame; the lane cannot be read any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {length} bytes: at most {limit} are taken")]
    TooLong { length: u32, limit: u32 },
    #[error("a frame of version {0}")]
    Version(u8),
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    #[error("unknown flags {0:#04x}")]
    Flags(u8),
    #[error("a frame that ends within its header")]
    Truncated,
    #[error("a number over its range")]
    Number,
    #[error("a path that is none")]
    Path,
}

/// Begins a frame at the end of `into`; the body is appended next, then [`finish`] is called with what this returns.
pub fn begin(into: &mut Vec<u8>, version: u8, head: &Head) -> usize {
    let start = into.len();
    into.extend_from_slice(&[0, 0, 0, 0, version, head.kind(), head.flags()]);
    match head {
        Head::Hello | Head::Goodbye => {}
        Head::Tell(call) => put_call(into, call),
        Head::Ask { call, left_ms } => {
            put_call(into, call);
            put(into, u64::from(*left_ms));
        }
        Head::Reply { corr } | Head::Fault { corr } | Head::Unwatch { corr } | Head::Down { corr } => put(into, *corr),
        Head::Heartbeat { stamp, .. } => put(into, *stamp),
        Head::Watch { corr, to, epoch } => {
            put(into, *corr);
            put_path(into, to);
            put(into, *epoch);
        }
    }
    start
}

/// Writes the length of the frame that began at `start`; `Err`: it is over the limit, and was taken back.
pub fn finish(into: &mut Vec<u8>, start: usize, limit: u32) -> Result<(), FrameError> {
    let length = into.len() - start - LENGTH;
    match u32::try_from(length).ok().filter(|length| *length <= limit) {
        Some(length) => {
            into[start..start + LENGTH].copy_from_slice(&length.to_le_bytes());
            Ok(())
        }
        None => {
            into.truncate(start);
            Err(FrameError::TooLong { length: u32::try_from(length).unwrap_or(u32::MAX), limit })
        }
    }
}

/// The first frame in `from` and how many bytes it takes; `None`: it is not complete yet.
pub fn parse(from: &[u8], limit: u32) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let Some((length, rest)) = from.split_first_chunk::<LENGTH>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length);
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    let Some(frame) = rest.get(..length as usize) else { return Ok(None) };
    Ok(Some((parse_whole(frame)?, LENGTH + length as usize)))
}

/// How many more bytes the first frame in `from` wants, as far as they tell.
pub fn missing(from: &[u8]) -> usize {
    match from.split_first_chunk::<LENGTH>() {
        Some((length, rest)) => (u32::from_le_bytes(*length) as usize).saturating_sub(rest.len()),
        None => LENGTH - from.len(),
    }
}

fn parse_whole(frame: &[u8]) -> Result<Frame<'_>, FrameError> {
    let Some((&[version, kind, flags], mut rest)) = frame.split_first_chunk::<FIXED>() else {
        return Err(FrameError::Truncated);
    };
    if kind != 1 && !VERSIONS.contains(&version) {
        return Err(FrameError::Version(version));
    }
    let from = &mut rest;
    let head = match kind {
        1 => Head::Hello,
        2 => Head::Tell(take_call(from, flags)?),
        3 => Head::Ask { call: take_call(from, flags)?, left_ms: take_u32(from)? },
        4 => Head::Reply { corr: take(from)? },
        5 => Head::Fault { corr: take(from)? },
        6 => Head::Heartbeat { stamp: take(from)?, echo: flags & IS_ECHO != 0 },
        7 => Head::Watch { corr: take(from)?, to: take_path(from, flags)?, epoch: take(from)? },
        8 => Head::Unwatch { corr: take(from)? },
        9 => Head::Down { corr: take(from)? },
        10 => Head::Goodbye,
        other => return Err(FrameError::Kind(other)),
    };
    if flags & !FLAGS != 0 || flags != head.flags() {
        return Err(FrameError::Flags(flags));
    }
    Ok(Frame { version, head, body: rest })
}

fn put(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

fn put_path(into: &mut Vec<u8>, to: &To) {
    put(into, u64::from(to.number));
    if let Some(path) = to.defines {
        put(into, path.len() as u64);
        into.extend_from_slice(path.as_bytes());
    }
}

fn put_call(into: &mut Vec<u8>, call: &Call) {
    put(into, call.corr);
    put_path(into, &call.to);
    put(into, u64::from(call.message));
    put(into, u64::from(call.schema));
    put(into, call.epoch);
    if let Some(trace) = call.trace {
        into.extend_from_slice(&trace.trace.to_be_bytes());
        into.extend_from_slice(&trace.span.to_be_bytes());
    }
}

fn take(from: &mut &[u8]) -> Result<u64, FrameError> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first().ok_or(FrameError::Truncated)?;
        *from = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(FrameError::Number);
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(FrameError::Number)
}

fn take_u32(from: &mut &[u8]) -> Result<u32, FrameError> {
    u32::try_from(take(from)?).map_err(|_| FrameError::Number)
}

fn take_path<'a>(from: &mut &'a [u8], flags: u8) -> Result<To<'a>, FrameError> {
    let number = take_u32(from)?;
    if flags & DEFINES_PATH == 0 {
        return Ok(To { number, defines: None });
    }
    let length = usize::try_from(take(from)?).map_err(|_| FrameError::Path)?;
    if length == 0 || length > MAX_PATH {
        return Err(FrameError::Path);
    }
    let (path, rest) = from.split_at_checked(length).ok_or(FrameError::Truncated)?;
    *from = rest;
    Ok(To { number, defines: Some(std::str::from_utf8(path).map_err(|_| FrameError::Path)?) })
}

fn take_call<'a>(from: &mut &'a [u8], flags: u8) -> Result<Call<'a>, FrameError> {
    let corr = take(from)?;
    let to = take_path(from, flags)?;
    let message = take_u32(from)?;
    let schema = u16::try_from(take(from)?).map_err(|_| FrameError::Number)?;
    let epoch = take(from)?;
    let trace = match flags & HAS_TRACE {
        0 => None,
        _ => {
            let (trace, rest) = from.split_first_chunk::<16>().ok_or(FrameError::Truncated)?;
            let (span, rest) = rest.split_first_chunk::<8>().ok_or(FrameError::Truncated)?;
            *from = rest;
            Some(TraceParent { trace: u128::from_be_bytes(*trace), span: u64::from_be_bytes(*span) })
        }
    };
    Ok(Call { corr, to, message, schema, epoch, trace })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(head: &Head, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let start = begin(&mut bytes, 1, head);
        bytes.extend_from_slice(body);
        finish(&mut bytes, start, 1 << 20).unwrap();
        bytes
    }

    fn call(defines: Option<&str>) -> Call<'_> {
        Call {
            corr: 0x1234,
            to: To { number: 7, defines },
            message: 300,
            schema: 2,
            epoch: 1 << 40,
            trace: defines.map(|_| TraceParent { trace: 0xabc, span: 0xdef }),
        }
    }

    fn every_kind() -> Vec<(&'static str, Head<'static>)> {
        let to = To { number: 7, defines: Some("/t01000/window-post") };
        vec![
            ("hello", Head::Hello),
            ("tell", Head::Tell(call(None))),
            ("tell, path and trace", Head::Tell(call(Some("/t01000/window-post")))),
            ("ask", Head::Ask { call: call(None), left_ms: 5000 }),
            ("reply", Head::Reply { corr: u64::MAX }),
            ("fault", Head::Fault { corr: 0 }),
            ("heartbeat", Head::Heartbeat { stamp: 129, echo: false }),
            ("heartbeat, echo", Head::Heartbeat { stamp: 129, echo: true }),
            ("watch", Head::Watch { corr: 1, to, epoch: 9 }),
            ("unwatch", Head::Unwatch { corr: 1 }),
            ("down", Head::Down { corr: 1 }),
            ("goodbye", Head::Goodbye),
        ]
    }

    #[test]
    fn what_was_written_is_read() {
        for (name, head) in every_kind() {
            for body in [&b""[..], b"body"] {
                let bytes = encoded(&head, body);
                let (frame, used) = parse(&bytes, 1 << 20).unwrap().unwrap();
                assert_eq!((frame, used), (Frame { version: 1, head, body }, bytes.len()), "{name}");
            }
        }
    }

    #[test]
    fn a_part_of_a_frame_is_not_a_frame_yet() {
        for (name, head) in every_kind() {
            let bytes = encoded(&head, b"body");
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end], 1 << 20), Ok(None), "{name} cut at {end}");
                assert!(missing(&bytes[..end]) > 0, "{name} cut at {end}");
            }
        }
    }

    #[test]
    fn a_frame_cut_within_its_header_is_refused() {
        for (name, head) in every_kind() {
            let bytes = encoded(&head, b"");
            for end in LENGTH..bytes.len() {
                let mut cut = bytes[..end].to_vec();
                let length = (end - LENGTH) as u32;
                cut[..LENGTH].copy_from_slice(&length.to_le_bytes());
                assert_eq!(parse(&cut, 1 << 20), Err(FrameError::Truncated), "{name} cut at {end}");
            }
        }
    }

    #[test]
    fn bytes_that_are_no_frame_are_named() {
        let frame = |rest: &[u8]| {
            let mut bytes = (rest.len() as u32).to_le_bytes().to_vec();
            bytes.extend_from_slice(rest);
            bytes
        };
        let nines = [&[1u8, 4, 0][..], &[0xff; 9], &[2]].concat();
        let cases: [(&str, Vec<u8>, FrameError); 9] = [
            ("4 GiB", vec![0xff; 4], FrameError::TooLong { length: u32::MAX, limit: 64 }),
            ("one over the limit", frame(&[0; 65]), FrameError::TooLong { length: 65, limit: 64 }),
            ("nothing", frame(&[]), FrameError::Truncated),
            ("a later version", frame(&[2, 4, 0, 1]), FrameError::Version(2)),
            ("kind 0", frame(&[1, 0, 0]), FrameError::Kind(0)),
            ("kind 11", frame(&[1, 11, 0]), FrameError::Kind(11)),
            ("a flag of another kind", frame(&[1, 4, 1, 0]), FrameError::Flags(1)),
            ("an unknown flag", frame(&[1, 10, 0x80]), FrameError::Flags(0x80)),
            ("a number of 65 bits", frame(&nines), FrameError::Number),
        ];
        for (name, bytes, error) in cases {
            assert_eq!(parse(&bytes, 64), Err(error), "{name}");
        }
        let path = |length: u8, text: &[u8]| frame(&[&[1u8, 7, 1, 1, 1, length][..], text, &[0]].concat());
        for bytes in [path(0, b""), path(2, &[0xc3, 0x28])] {
            assert_eq!(parse(&bytes, 64), Err(FrameError::Path));
        }
    }

    #[test]
    fn a_frame_over_the_limit_is_taken_back() {
        let mut bytes = b"before".to_vec();
        let start = begin(&mut bytes, 1, &Head::Goodbye);
        bytes.extend_from_slice(&[0; 100]);
        assert_eq!(finish(&mut bytes, start, 64), Err(FrameError::TooLong { length: 103, limit: 64 }));
        assert_eq!(bytes, b"before");
    }
}
