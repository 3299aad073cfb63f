//! A socket under a [`ConnectionPermit`]: it fails when the surface closes it, or when the other side leaves an answer
//! unread for too long.

use super::connection_limits::ConnectionPermit;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::ReadBuf;
use tokio::time::{Sleep, sleep};

/// A write that makes no progress for this long ends the connection, so that unread answers do not pile up.
const WRITE_STALL: Duration = Duration::from_secs(20);

/// `S` is a socket of tokio or of futures-io; the stream is of the same kind.
pub struct LimitedStream<S> {
    socket: S,
    permit: ConnectionPermit,
    /// The longest time that a write may make no progress.
    write_within: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> LimitedStream<S> {
    pub fn new(socket: S, permit: ConnectionPermit) -> LimitedStream<S> {
        LimitedStream { socket, permit, write_within: WRITE_STALL, stalled: None }
    }

    pub fn permit(&self) -> &ConnectionPermit {
        &self.permit
    }

    fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        match self.permit.connection().is_closing(cx) {
            true => Err(io::Error::new(io::ErrorKind::ConnectionReset, "closed to make room for another connection")),
            false => Ok(()),
        }
    }

    /// Passes a write's result on, or fails one that has waited for too long.
    fn judge<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let write_within = self.write_within;
        let waiting = self.stalled.get_or_insert_with(|| Box::pin(sleep(write_within)));
        match waiting.as_mut().poll(cx) {
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other side does not read its answers")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: tokio::io::AsyncRead + Unpin> tokio::io::AsyncRead for LimitedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.permit.connection().heard();
        }
        read
    }
}

impl<S: tokio::io::AsyncWrite + Unpin> tokio::io::AsyncWrite for LimitedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.judge(cx, written)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        self.judge(cx, flushed)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, parts);
        self.judge(cx, written)
    }
    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

impl<S: futures::AsyncRead + Unpin> futures::AsyncRead for LimitedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if matches!(read, Poll::Ready(Ok(n)) if n > 0) {
            self.permit.connection().heard();
        }
        read
    }
}

impl<S: futures::AsyncWrite + Unpin> futures::AsyncWrite for LimitedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.judge(cx, written)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        self.judge(cx, flushed)
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::connection_limits::{ConnectionLimiter, ConnectionLimits, WhenFull};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    fn limiter() -> ConnectionLimiter {
        ConnectionLimiter::new(ConnectionLimits {
            total: 4,
            strangers: 2,
            strangers_per_host: 1,
            known_per_host: 1,
            when_full: WhenFull::CloseQuietest,
        })
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_ends_the_connection() {
        let limiter = limiter();
        let (ours, mut theirs) = duplex(16);
        let mut stream = LimitedStream::new(ours, limiter.admit(None).expect("room"));
        let reading = async {
            theirs.read_exact(&mut [0; 16]).await.expect("bytes");
        };
        let (written, ()) = tokio::join!(stream.write_all(&[7; 32]), reading);
        written.expect("somebody reads");
        assert!(stream.stalled.is_none());
        stream.write_within = Duration::from_millis(50);
        let why = stream.write_all(&[7; 1]).await.expect_err("nobody reads");
        assert_eq!(why.kind(), io::ErrorKind::TimedOut);
        drop(stream);
        assert_eq!(limiter.open(), 0);
    }

    #[tokio::test]
    async fn a_connection_that_makes_room_ends_at_once() {
        let limiter = limiter();
        let (ours, _theirs) = duplex(16);
        let mut stream = LimitedStream::new(ours, limiter.admit(None).expect("room"));
        let reader = tokio::spawn(async move { stream.read_u8().await.expect_err("closed").kind() });
        tokio::task::yield_now().await;
        let _newcomer = limiter.admit(None).expect("room");
        assert_eq!(reader.await.expect("it ends"), io::ErrorKind::ConnectionReset);
    }
}
