//! A connection that nobody reads.

use super::*;
use futures::AsyncRead;
use libp2p::core::muxing::StreamMuxerEvent;

struct Still;

impl AsyncRead for Still {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }
}
impl AsyncWrite for Still {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
impl StreamMuxer for Still {
    type Substream = Still;
    type Error = io::Error;
    fn poll_inbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<Still>> {
        Poll::Pending
    }
    fn poll_outbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<Still>> {
        Poll::Pending
    }
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        Poll::Pending
    }
}

impl Link {
    /// One on which nothing moves.
    pub fn still(bounds: Bounds) -> Arc<Link> {
        let lanes = [SubstreamBox::new(Still), SubstreamBox::new(Still)];
        Arc::new(Link::new(1, 1 << 20, bounds, StreamMuxerBox::new(Still), lanes))
    }
}
