//! A costly read that many callers ask for at once: one runs at a time, and its result is that of all who asked before it ended.

use std::time::Instant;
use tokio::sync::Mutex;

pub struct SharedRead<T> {
    /// The last result, and when its read ended.
    last: Mutex<Option<(Instant, T)>>,
}

impl<T> Default for SharedRead<T> {
    fn default() -> Self {
        SharedRead { last: Mutex::new(None) }
    }
}

impl<T: Clone> SharedRead<T> {
    /// Begun by this call, or under way when it came. A reader that is given up leaves the turn to the next.
    pub async fn get(&self, read: impl Future<Output = T>) -> T {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        if let Some((_, result)) = last.as_ref().filter(|(ended, _)| *ended >= asked) {
            return result.clone();
        }
        let result = read.await;
        *last = Some((Instant::now(), result.clone()));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Semaphore;

    #[tokio::test]
    async fn those_who_ask_while_one_reads_share_what_it_reads_and_later_ones_do_not() {
        let (shared, reads, gate) = (SharedRead::default(), AtomicU32::new(0), Semaphore::new(0));
        let read = async || {
            let number = reads.fetch_add(1, Ordering::Relaxed);
            gate.acquire().await.expect("it stays open").forget();
            number
        };
        let asked = futures::future::join_all((0..20).map(|_| shared.get(read())));
        let opened = async { gate.add_permits(1) };
        assert_eq!(tokio::join!(asked, opened).0, [0; 20]);
        gate.add_permits(1);
        assert_eq!(shared.get(read()).await, 1, "asked later");
        // One that is given up keeps nobody waiting.
        let _ = futures::FutureExt::now_or_never(shared.get(read()));
        gate.add_permits(1);
        assert_eq!(shared.get(read()).await, 3);
    }
}
