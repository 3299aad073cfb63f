//! A thread with a tokio runtime of its own: markets share no thread, timer or task queue with the rest of the node.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::sync::oneshot;

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

/// Runs `body` on a new thread; it should end soon after the receiver that it gets has resolved.
pub fn spawn<F, Fut, E>(name: &str, body: F) -> std::io::Result<(Stop, oneshot::Receiver<Ended>)>
where
    F: FnOnce(oneshot::Receiver<()>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = oneshot::channel();
    let (tell, ended) = oneshot::channel();
    std::thread::Builder::new().name(name.to_string()).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(move || {
            let result = runtime.block_on(body(stopped));
            // Here, so that its sockets are closed before anyone hears of the end.
            drop(runtime);
            result
        }));
        let _ = tell.send(match result {
            Ok(Ok(())) => Ended::Stopped,
            Ok(Err(why)) => Ended::Failed(why.to_string()),
            Err(panic) => Ended::Panicked(panic_text(panic.as_ref())),
        });
    })?;
    Ok((Stop(Some(stop)), ended))
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
        assert_eq!(ended.await.unwrap(), Ended::Failed("no".into()));
        let (_stop, ended) = spawn("t", |_| async {
            if true {
                panic!("at {}", 7);
            }
            Ok::<(), String>(())
        })
        .unwrap();
        assert_eq!(ended.await.unwrap(), Ended::Panicked("at 7".into()));
        let wait = |stopped: oneshot::Receiver<()>| async {
            let _ = stopped.await;
            Ok::<(), String>(())
        };
        let (mut stop, ended) = spawn("t", wait).unwrap();
        stop.now();
        assert_eq!(ended.await.unwrap(), Ended::Stopped);
        let (stop, ended) = spawn("t", wait).unwrap();
        drop(stop);
        assert_eq!(ended.await.unwrap(), Ended::Stopped);
    }
}
