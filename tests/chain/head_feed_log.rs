//! What the log says of the head feed: that it is up, that it broke, that it is back.
//!
//! A file of its own: a log line is turned off for a whole process when another thread without a subscriber meets it first.

use super::head_feed_follow::{at, node, started};
use std::sync::{Arc, Mutex};

/// Bytes of the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_feed_that_is_up_and_back_says_so() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let said = |what: &str| String::from_utf8(log.0.lock().unwrap().clone()).unwrap().matches(what).count();
    let node = node();
    *node.head.lock().unwrap() = Some(at(10));
    let channel = node.channel();
    let mut feed = started(&node, None);
    while feed.status.lock().unwrap().subscriptions < 1 {
        feed.changed.recv().await.expect("the feed runs");
    }
    tokio::task::yield_now().await;
    assert_eq!((said("the head feed is up"), said("the head feed is back")), (1, 0));
    let channel_2 = node.channel();
    drop(channel);
    while feed.status.lock().unwrap().subscriptions < 2 {
        feed.changed.recv().await.expect("the feed runs");
    }
    tokio::task::yield_now().await;
    assert_eq!((said("the head feed broke"), said("the head feed is back")), (1, 1));
    assert_eq!((said("height=10"), said("away=")), (2, 1));
    drop(channel_2);
    feed.task.abort();
}
