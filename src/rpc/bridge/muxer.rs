//! yamux in frames as long as one noise message takes: libp2p's own setting splits a lane's bytes at 16 KiB, and each piece
//! is encrypted, copied and written to the socket by itself.

use futures::future::{Ready, ready};
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use yamux::{Config, Connection, ConnectionError, Mode, Stream};

/// A noise message carries 64511 bytes, yamux' header included.
const FRAME: usize = 62 * 1024;

/// The upgrade; on the wire what libp2p's is.
#[derive(Clone)]
pub struct Yamux;

pub struct Muxer<C> {
    connection: Connection<C>,
    /// Opened by the other side while nobody asked for one.
    opened: VecDeque<Stream>,
}

/// A connection has two lanes; who opens more than can be one gets them reset.
const OPENED: usize = 2;

fn over<C: AsyncRead + AsyncWrite + Unpin>(io: C, mode: Mode) -> Ready<Result<Muxer<C>, io::Error>> {
    let mut config = Config::default();
    config.set_split_send_size(FRAME);
    ready(Ok(Muxer { connection: Connection::new(io, config, mode), opened: VecDeque::new() }))
}

impl UpgradeInfo for Yamux {
    type Info = &'static str;
    type InfoIter = std::iter::Once<&'static str>;
    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> InboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<Result<Muxer<C>, io::Error>>;
    fn upgrade_inbound(self, io: C, _: Self::Info) -> Self::Future {
        over(io, Mode::Server)
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> OutboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<Result<Muxer<C>, io::Error>>;
    fn upgrade_outbound(self, io: C, _: Self::Info) -> Self::Future {
        over(io, Mode::Client)
    }
}

fn io_error(error: ConnectionError) -> io::Error {
    match error {
        ConnectionError::Io(error) => error,
        other => io::Error::other(other),
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn next(&mut self, task: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        self.connection.poll_next_inbound(task).map(|next| match next {
            Some(stream) => stream.map_err(io_error),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        })
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Stream;
    type Error = io::Error;

    /// To be polled by the task that also polls the connection.
    fn poll_inbound(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        match self.opened.pop_front() {
            Some(stream) => Poll::Ready(Ok(stream)),
            None => self.next(task),
        }
    }

    fn poll_outbound(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        self.connection.poll_new_outbound(task).map_err(io_error)
    }

    fn poll_close(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.poll_close(task).map_err(io_error)
    }

    /// Lets the connection write and read.
    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        match self.next(task) {
            Poll::Ready(Ok(stream)) => {
                if self.opened.len() < OPENED {
                    self.opened.push_back(stream);
                }
                task.waker().wake_by_ref(); // there may be more, after the others' turn
                Poll::Pending
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    /// A socket that takes all and brings nothing.
    struct Sink;
    impl AsyncRead for Sink {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }
    impl AsyncWrite for Sink {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_frame_fills_a_noise_message_and_no_second_one() {
        const NOISE: usize = 64511;
        const HEADER: usize = 12;
        let task = &mut Context::from_waker(Waker::noop());
        let Ok(mut muxer) = over(Sink, Mode::Client).into_inner() else { panic!("it is ready") };
        let Poll::Ready(Ok(mut lane)) = Pin::new(&mut muxer).poll_outbound(task) else { panic!("a stream") };
        let Poll::Ready(Ok(taken)) = Pin::new(&mut lane).poll_write(task, &[7; 1 << 17]) else { panic!("its window") };
        assert!((NOISE - 2048..=NOISE - HEADER).contains(&taken), "{taken}");
    }
}
