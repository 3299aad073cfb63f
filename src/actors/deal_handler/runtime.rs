//! A thread with a tokio runtime of its own: markets share no thread, timer or task queue with the rest of the node.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::sync::{oneshot, watch};

/// How the thread came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Stopped,
    Failed(String),
    Panicked(String),
}

/// Dropping it asks the thread to end.
pub struct Stop(Option<oneshot::Sender<()>>);

impl Stop {
    pub fn now(&mut self) {
        self.0.take();
    }
}

/// Tells how a thread ended, to as many as want to know.
#[derive(Clone)]
pub struct End(watch::Receiver<Option<Ended>>);

impl End {
    pub async fn wait(mut self) -> Ended {
        let told = self.0.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
        told.unwrap_or_else(|| Ended::Failed("the thread is gone without a word".to_string()))
    }
}

/// Runs `body` on a new thread; it should end soon after the receiver that it gets has resolved.
pub fn spawn<F, Fut, E>(name: &str, body: F) -> std::io::Result<(Stop, End)>
where
    F: FnOnce(oneshot::Receiver<()>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = oneshot::channel();
    let (tell, ended) = watch::channel(None);
    std::thread::Builder::new().name(name.to_string()).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(move || {
            let result = runtime.block_on(body(stopped));
            // Here, so that its sockets are closed before anyone hears of the end.
            drop(runtime);
            result
        }));
        let ended = match result {
            Ok(Ok(())) => Ended::Stopped,
            Ok(Err(why)) => Ended::Failed(why.to_string()),
            Err(panic) => Ended::Panicked(panic_text(panic.as_ref())),
        };
        tell.send_replace(Some(ended));
    })?;
    Ok((Stop(Some(stop)), End(ended)))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text.to_string(),
        (_, Some(text)) => text.clone(),
        _ => "a panic without a text".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_way_to_end_is_told() {
        let (_stop, ended) = spawn("t", |_| async { Err("no") }).unwrap();
        assert_eq!(ended.wait().await, Ended::Failed("no".into()));
        let (_stop, ended) = spawn("t", |_| async {
            if true {
                panic!("at {}", 7);
            }
            Ok::<(), String>(())
        })
        .unwrap();
        assert_eq!(ended.wait().await, Ended::Panicked("at 7".into()));
        let wait = |stopped: oneshot::Receiver<()>| async {
            let _ = stopped.await;
            Ok::<(), String>(())
        };
        let (mut stop, ended) = spawn("t", wait).unwrap();
        stop.now();
        assert_eq!(ended.wait().await, Ended::Stopped);
        let (stop, ended) = spawn("t", wait).unwrap();
        drop(stop);
        assert_eq!(ended.wait().await, Ended::Stopped);
    }
}
