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

#[test]
fn what_is_owed_to_a_peer_has_a_bound_in_bytes_and_in_frames() {
    let cases = [("bytes", 1000, 100, 10), ("frames", usize::MAX, 0, MAX_OWED)];
    for (name, answers, size, fit) in cases {
        let link = Link::still(Bounds { answers, ..Bounds::default() });
        let notice = |lane| {
            let body = |into: &mut Vec<u8>| {
                into.resize(into.len() + size, 0);
                Ok(())
            };
            link.notice(lane, &Head::Reply { corr: 1 }, &body)
        };
        let queued = (0..fit).take_while(|_| notice(WireLane::Message).is_ok()).count() as u64;
        // Each has a header besides.
        assert!(queued == fit || name == "bytes" && queued > fit / 2 && queued < fit, "{name}: {queued}");
        let last = notice(WireLane::Message);
        assert!(matches!(last, Err(Unsent::Unread | Unsent::Closed)), "{name}: {last:?}");
        assert!(link.is_closing() && link.is_unread(), "{name}");
        assert!(matches!(notice(WireLane::Control), Err(Unsent::Closed)), "{name}: the other lane ends too");
    }
}

#[test]
fn tells_and_asks_that_wait_are_not_owed() {
    let link = Link::still(Bounds { answers: 1000, ..Bounds::default() });
    let path: Arc<str> = "/a".into();
    let head = |corr, to| Head::Tell(frame::Call { corr, to, message: 1, schema: 1, epoch: 0, trace: None });
    for _ in 0..100 {
        let body = |into: &mut Vec<u8>| {
            into.extend([0; 100]);
            Ok(())
        };
        link.call(WireLane::Control, &path, false, head, body).unwrap();
    }
    link.notice(WireLane::Control, &Head::Heartbeat { stamp: 1, echo: false }, &|_| Ok(())).unwrap();
    assert!(!link.is_closing());
}

#[test]
fn only_what_the_thread_that_writes_wakes_itself_means_nothing() {
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let wake = Arc::new(DriverWake { driver: AtomicWaker::new(), filling: AtomicUsize::new(here()) });
    let woken = |by: &dyn Fn()| {
        wake.driver.register(&Waker::from(count.clone()));
        by();
        count.0.swap(0, Ordering::Relaxed)
    };
    assert_eq!(woken(&|| wake.wake_by_ref()), 0, "this thread");
    assert_eq!(woken(&|| std::thread::scope(|s| drop(s.spawn(|| wake.wake_by_ref())))), 1, "another one");
    wake.filling.store(0, Ordering::Relaxed);
    assert_eq!(woken(&|| wake.wake_by_ref()), 1, "nobody writes");
}
