//! The floor: `u32 length | u64 correlation | payload` over any byte stream, with no actor, no deadline, no fence.

use super::load::{Caller, Lost};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};

/// A payload that nobody answers.
const TELL: u64 = 0;
/// Asks how many tells came.
const SEEN: u64 = u64::MAX;
/// Never answered.
const HANG: u64 = u64::MAX - 1;
/// Tells wait while so much is unsent.
const FULL: usize = 1 << 20;

#[derive(Clone)]
pub struct Mux(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    next: AtomicU64,
    work: Notify,
    room: Notify,
}

#[derive(Default)]
struct State {
    out: Vec<u8>,
    asked: HashMap<u64, oneshot::Sender<Bytes>>,
    gone: bool,
}

impl Mux {
    pub fn over(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Mux {
        let shared =
            Shared { state: Mutex::default(), next: AtomicU64::new(1), work: Notify::new(), room: Notify::new() };
        let mux = Mux(Arc::new(shared));
        let (reader, writer) = tokio::io::split(stream);
        tokio::spawn(mux.clone().write(writer));
        tokio::spawn(mux.clone().read(reader));
        mux
    }

    fn push(&self, id: u64, payload: &[u8], reply: Option<oneshot::Sender<Bytes>>) -> Result<(), Lost> {
        let mut state = self.0.state.lock().expect("no panic under this lock");
        if state.gone {
            return Err(Lost("the connection is closed".into()));
        }
        let idle = state.out.is_empty();
        frame(&mut state.out, id, payload);
        if let Some(reply) = reply {
            state.asked.insert(id, reply);
        }
        drop(state);
        if idle {
            self.0.work.notify_one();
        }
        Ok(())
    }

    async fn call(&self, id: u64, payload: &[u8]) -> Result<Bytes, Lost> {
        let (tx, rx) = oneshot::channel();
        self.push(id, payload, Some(tx))?;
        rx.await.map_err(|_| Lost("the connection was lost".into()))
    }

    async fn write(self, mut to: impl AsyncWrite + Unpin) {
        let mut batch = Vec::new();
        loop {
            {
                let mut state = self.0.state.lock().expect("no panic under this lock");
                if state.gone {
                    return;
                }
                std::mem::swap(&mut batch, &mut state.out);
            }
            if batch.is_empty() {
                self.0.work.notified().await;
                tokio::task::yield_now().await; // whoever else has something to send: one write for all
                continue;
            }
            self.0.room.notify_waiters();
            if to.write_all(&batch).await.is_err() || to.flush().await.is_err() {
                return self.close();
            }
            batch.clear();
        }
    }

    async fn read(self, mut from: impl AsyncRead + Unpin) {
        let mut came = BytesMut::with_capacity(256 << 10);
        loop {
            came.reserve(64 << 10);
            match from.read_buf(&mut came).await {
                Ok(n) if n > 0 => {}
                _ => return self.close(),
            }
            while let Some((id, payload)) = next(&mut came) {
                let asked = self.0.state.lock().expect("no panic under this lock").asked.remove(&id);
                if let Some(asked) = asked {
                    let _ = asked.send(payload);
                }
            }
        }
    }

    fn close(&self) {
        let mut state = self.0.state.lock().expect("no panic under this lock");
        state.gone = true;
        state.asked.clear();
        drop(state);
        self.0.work.notify_one();
        self.0.room.notify_waiters();
    }
}

impl Caller for Mux {
    async fn ask(&self, payload: Bytes) -> Result<usize, Lost> {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        Ok(self.call(id, &payload).await?.len())
    }
    async fn tell(&self, payload: Bytes) -> Result<u64, Lost> {
        let mut waited = 0;
        loop {
            let room = self.0.room.notified();
            if self.0.state.lock().expect("no panic under this lock").out.len() < FULL {
                return self.push(TELL, &payload, None).map(|()| waited);
            }
            waited += 1;
            room.await;
        }
    }
    async fn seen(&self) -> Result<u64, Lost> {
        Ok(self.call(SEEN, &[]).await?.get_u64())
    }
    async fn hang(&self) -> Lost {
        match self.call(HANG, &[]).await {
            Err(lost) => lost,
            Ok(_) => Lost("answered".into()),
        }
    }
}

fn frame(out: &mut Vec<u8>, id: u64, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32 + 8).to_be_bytes());
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(payload);
}

fn next(came: &mut BytesMut) -> Option<(u64, Bytes)> {
    let length = came.first_chunk::<4>().map(|l| u32::from_be_bytes(*l) as usize)?;
    if came.len() < 4 + length || length < 8 {
        return None;
    }
    came.advance(4);
    let mut frame = came.split_to(length);
    let id = frame.get_u64();
    Some((id, frame.freeze()))
}

/// The other side: echoes, counts.
pub async fn echo(stream: impl AsyncRead + AsyncWrite + Send) {
    let (mut from, mut to) = tokio::io::split(stream);
    let (mut came, mut out) = (BytesMut::with_capacity(256 << 10), Vec::new());
    let mut seen = 0u64;
    loop {
        came.reserve(64 << 10);
        match from.read_buf(&mut came).await {
            Ok(n) if n > 0 => {}
            _ => return,
        }
        while let Some((id, payload)) = next(&mut came) {
            match id {
                TELL => seen += 1,
                SEEN => frame(&mut out, SEEN, &seen.to_be_bytes()),
                HANG => {}
                id => frame(&mut out, id, &payload),
            }
        }
        if !out.is_empty() && (to.write_all(&out).await.is_err() || to.flush().await.is_err()) {
            return;
        }
        out.clear();
    }
}
