//! One ask exchange on a libp2p stream: a bare CBOR item each way, bounded before it is read.

use super::ask::{AskRequest, AskResponse};
use super::frame::item_len;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response;
use serde::{Serialize, de::DeserializeOwned};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A request is a map with one address: a few dozen bytes.
pub const MAX_REQUEST: usize = 1024;
/// A signed ask takes a few hundred.
pub const MAX_RESPONSE: usize = 8 * 1024;

#[derive(Clone, Default)]
pub struct AskCodec {
    /// Streams on which no request came: garbage, too much, or not in time. libp2p tells nobody of them.
    pub bad_requests: Arc<AtomicU64>,
}

impl request_response::Codec for AskCodec {
    type Protocol = StreamProtocol;
    type Request = AskRequest;
    type Response = AskResponse;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<AskRequest> {
        let mut unless_read = CountBad(Some(&self.bad_requests));
        let request = read_item(io, MAX_REQUEST).await;
        if request.is_ok() {
            unless_read.0 = None;
        }
        request
    }
    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<AskResponse> {
        read_item(io, MAX_RESPONSE).await
    }
    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: AskRequest,
    ) -> io::Result<()> {
        write_item(io, &request).await
    }
    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: AskResponse,
    ) -> io::Result<()> {
        write_item(io, &response).await
    }
}

/// Counts on drop, so that a read which its deadline cut off counts too.
struct CountBad<'a>(Option<&'a AtomicU64>);

impl Drop for CountBad<'_> {
    fn drop(&mut self) {
        if let Some(counter) = self.0 {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Reads until one item is whole: the sender may keep its half of the stream open while it waits for the answer.
async fn read_item<V: DeserializeOwned>(io: &mut (impl AsyncRead + Unpin), limit: usize) -> io::Result<V> {
    let mut buf = Vec::new();
    let mut chunk = [0u8; 512];
    loop {
        let n = io.read(&mut chunk).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buf.extend_from_slice(&chunk[..n]);
        if let Some(len) = item_len(&buf, limit).map_err(invalid)? {
            return fvm_ipld_encoding::from_slice(&buf[..len]).map_err(invalid);
        }
    }
}

async fn write_item(io: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> io::Result<()> {
    let bytes = fvm_ipld_encoding::to_vec(value).map_err(invalid)?;
    io.write_all(&bytes).await
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::io::Cursor;
    use fvm_shared::address::Address;

    async fn read(bytes: &[u8]) -> io::Result<AskRequest> {
        read_item(&mut Cursor::new(bytes), MAX_REQUEST).await
    }

    #[tokio::test]
    async fn a_request_is_read_without_waiting_for_the_end_of_the_stream() {
        let request = AskRequest { miner: Address::new_id(1000) };
        let bytes = fvm_ipld_encoding::to_vec(&request).unwrap();
        // A stream that stays open after the item: reading again would wait for ever.
        let open =
            Cursor::new(bytes.clone()).chain(futures::stream::pending::<io::Result<Vec<u8>>>().into_async_read());
        let got: AskRequest = read_item(&mut Box::pin(open), MAX_REQUEST).await.unwrap();
        assert_eq!(got, request);
        use futures::TryStreamExt;
        let bytewise = futures::stream::iter(bytes.into_iter().map(|b| io::Result::Ok(vec![b]))).into_async_read();
        assert_eq!(read_item::<AskRequest>(&mut Box::pin(bytewise), MAX_REQUEST).await.unwrap(), request);
    }

    #[tokio::test]
    async fn what_is_no_request_is_an_error() {
        let nested = vec![0x81; MAX_REQUEST];
        let cases: &[(&[u8], io::ErrorKind)] = &[
            (b"", io::ErrorKind::UnexpectedEof),
            (b"\xa1\x65Miner", io::ErrorKind::UnexpectedEof),
            (b"\xa1\x65Miner\x41\x09", io::ErrorKind::InvalidData), // no such address protocol
            (b"\xa1\x65Miner\x40", io::ErrorKind::InvalidData),
            (b"\xa1\x65Other\x01", io::ErrorKind::InvalidData),
            (b"\xa0", io::ErrorKind::InvalidData),
            (b"GET / HTTP/1.1\r\n\r\n", io::ErrorKind::InvalidData),
            (b"\x5a\x00\x01\x00\x00", io::ErrorKind::InvalidData), // 64 KiB to come
            (&nested, io::ErrorKind::InvalidData),
        ];
        for (bytes, kind) in cases {
            assert_eq!(read(bytes).await.unwrap_err().kind(), *kind, "{:?}", String::from_utf8_lossy(bytes));
        }
        // A field that we do not know is passed over, as in Go.
        let extra = b"\xa2\x65Miner\x43\x00\xe8\x07\x65Other\x81\x01";
        assert_eq!(read(extra).await.unwrap().miner, Address::new_id(1000));
    }
}
