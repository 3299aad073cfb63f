//! `kill -9` at a numbered point: the point never returns, and the test drops everything that ran.

use std::sync::Mutex;
use tokio::sync::Notify;

#[derive(Default)]
pub struct Mortal {
    state: Mutex<State>,
    died: Notify,
}

#[derive(Default)]
struct State {
    points: u64,
    die_at: Option<u64>,
    dead: bool,
    last: String,
}

impl Mortal {
    /// Dies at the `n`th point from now on; `None` = never.
    pub fn die_at(&self, n: Option<u64>) {
        let mut s = self.state.lock().unwrap();
        *s = State { die_at: n, ..State::default() };
    }
    pub fn dead(&self) -> bool {
        self.state.lock().unwrap().dead
    }
    /// Where it died.
    pub fn place(&self) -> String {
        self.state.lock().unwrap().last.clone()
    }
    pub async fn point(&self, name: &str) {
        {
            let mut s = self.state.lock().unwrap();
            s.points += 1;
            if s.die_at != Some(s.points) && !s.dead {
                return;
            }
            s.dead = true;
            s.last = name.to_owned();
        }
        self.died.notify_one();
        std::future::pending::<()>().await;
    }
    /// Runs `work` until it ends or the process dies in it.
    pub async fn live<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            _ = self.died.notified() => None,
        }
    }
}
