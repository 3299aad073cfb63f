//! Frames between the node and a prover child: `u32 length | bincode`, on pipes of their own.

use super::{Output, Task};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::path::PathBuf;

/// The child's end of the pipes.
pub const CHILD_IN: i32 = 3;
pub const CHILD_OUT: i32 = 4;

/// The largest frame: C1 of a 32 GiB sector, with room. More is refused before it is read.
pub const MAX_FRAME: usize = 256 << 20;

/// To the child.
#[derive(Serialize, Deserialize, Debug, PartialEq)]
pub enum ToChild {
    Run { task: Task, job_dir: Option<PathBuf> },
}

/// From the child.
#[derive(Serialize, Deserialize, Debug, PartialEq)]
pub enum FromChild {
    /// The process is up and reads its pipe.
    Ready,
    /// It has the task.
    Started,
    /// It lives.
    Heartbeat,
    Progress(String),
    /// Durable in the job's folder, if there is one.
    Output(Output),
    /// `spent`: the library may be left in a broken state, the process ends.
    Failed {
        why: String,
        spent: bool,
    },
    /// As `Output`; a thread of the process hangs on a disk: it takes no other task.
    Last(Output),
}

#[derive(Debug, thiserror::Error)]
pub enum PipeError {
    /// The other side is gone, between frames.
    #[error("the pipe was closed")]
    Closed,
    #[error("a frame of {0} bytes is over the limit of {MAX_FRAME}")]
    TooLarge(usize),
    #[error("a frame that is no message: {0}")]
    Garbage(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_FRAME>()
}

/// The body of a frame.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, PipeError> {
    let body = bincode::serde::encode_to_vec(message, config()).map_err(|e| PipeError::Garbage(e.to_string()))?;
    if body.len() > MAX_FRAME {
        return Err(PipeError::TooLarge(body.len()));
    }
    Ok(body)
}

pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, PipeError> {
    match bincode::serde::decode_from_slice(body, config()) {
        Ok((message, used)) if used == body.len() => Ok(message),
        Ok((_, used)) => Err(PipeError::Garbage(format!("{} bytes left over", body.len() - used))),
        Err(e) => Err(PipeError::Garbage(e.to_string())),
    }
}

pub fn send<T: Serialize>(out: &mut impl Write, message: &T) -> Result<(), PipeError> {
    let body = encode(message)?;
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    frame.extend_from_slice(&body);
    out.write_all(&frame)?;
    out.flush()?;
    Ok(())
}

pub fn receive<T: DeserializeOwned>(from: &mut impl Read) -> Result<T, PipeError> {
    let mut header = [0; 4];
    let mut got = 0;
    while got < header.len() {
        match from.read(&mut header[got..]) {
            Ok(0) if got == 0 => return Err(PipeError::Closed),
            Ok(0) => return Err(PipeError::Garbage("cut off in a frame's length".into())),
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    let len = u32::from_le_bytes(header) as usize;
    if len > MAX_FRAME {
        return Err(PipeError::TooLarge(len));
    }
    // Grows with what arrives: a length alone allocates nothing.
    let mut body = Vec::new();
    from.take(len as u64).read_to_end(&mut body)?;
    if body.len() < len {
        return Err(PipeError::Garbage(format!("cut off after {} of {len} bytes", body.len())));
    }
    decode(&body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn frame(len: u32, body: &[u8]) -> Cursor<Vec<u8>> {
        let mut f = len.to_le_bytes().to_vec();
        f.extend_from_slice(body);
        Cursor::new(f)
    }

    #[test]
    fn a_message_round_trips() {
        let message = FromChild::Failed { why: "disk full".into(), spent: true };
        let mut pipe = Vec::new();
        send(&mut pipe, &message).unwrap();
        assert_eq!(receive::<FromChild>(&mut Cursor::new(pipe)).unwrap(), message);
    }

    #[test]
    fn the_limit_is_refused_before_it_is_read() {
        let at = receive::<FromChild>(&mut frame(MAX_FRAME as u32, b""));
        assert!(matches!(at, Err(PipeError::Garbage(_))), "{at:?}");
        let over = receive::<FromChild>(&mut frame(MAX_FRAME as u32 + 1, b""));
        assert!(matches!(over, Err(PipeError::TooLarge(n)) if n == MAX_FRAME + 1), "{over:?}");
    }

    #[test]
    fn ends_in_every_place() {
        let mut whole = Vec::new();
        send(&mut whole, &FromChild::Progress("half".into())).unwrap();
        for n in 0..whole.len() {
            let r = receive::<FromChild>(&mut Cursor::new(&whole[..n]));
            match n {
                0 => assert!(matches!(r, Err(PipeError::Closed))),
                _ => assert!(matches!(r, Err(PipeError::Garbage(_))), "{n}: {r:?}"),
            }
        }
    }

    #[test]
    fn garbage_and_left_over_bytes_are_refused() {
        assert!(matches!(receive::<FromChild>(&mut frame(3, &[250, 250, 250])), Err(PipeError::Garbage(_))));
        let mut body = encode(&FromChild::Ready).unwrap();
        body.push(0);
        assert!(matches!(receive::<FromChild>(&mut frame(body.len() as u32, &body)), Err(PipeError::Garbage(_))));
    }
}
