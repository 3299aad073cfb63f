//! The threads that read the views for the handlers: a view that blocks, or costs much, holds up neither the thread that
//! speaks HTTP nor the answers of another [`Lane`].

use super::answer::HttpRefusal;
use super::answer::refuse;
use super::views::AdminViews;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde::Serialize;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

/// A kind of question that has threads of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// `/health/*`, for a prober that restarts what does not answer.
    Health,
    /// Everybody may read, so everybody can keep these busy.
    Reading,
    /// Callers with the admin token.
    Orders,
}

impl Lane {
    fn threads(self) -> usize {
        match self {
            Lane::Health | Lane::Orders => 1,
            Lane::Reading => 2,
        }
    }

    /// A prober waits a second or two.
    fn within(self) -> Duration {
        match self {
            Lane::Health => Duration::from_millis(800),
            Lane::Reading | Lane::Orders => Duration::from_secs(5),
        }
    }
}

type Task = Box<dyn FnOnce(&AdminViews) + Send>;

/// They end when this is dropped; one that a view keeps ends when the view lets go.
pub(super) struct Readers {
    lanes: [SyncSender<Task>; 3],
}

impl Readers {
    /// `waiting`: tasks of one lane that may wait, at least as many as there can be connections.
    pub fn start(views: &AdminViews, waiting: usize) -> io::Result<Readers> {
        let lane = |lane: Lane| {
            let (tasks, taken) = sync_channel::<Task>(waiting);
            let taken = Arc::new(Mutex::new(taken));
            for _ in 0..lane.threads() {
                let (taken, views) = (taken.clone(), views.clone());
                let name = format!("admin-{lane:?}").to_lowercase();
                std::thread::Builder::new().name(name).spawn(move || run(&taken, &views))?;
            }
            io::Result::Ok(tasks)
        };
        Ok(Readers { lanes: [lane(Lane::Health)?, lane(Lane::Reading)?, lane(Lane::Orders)?] })
    }

    /// Reads on a thread of that lane. A view that panics costs this answer, one that does not return this answer and a
    /// thread of its lane.
    pub async fn read<T: Send + 'static>(
        &self,
        lane: Lane,
        reading: impl FnOnce(&AdminViews) -> Result<T, HttpRefusal> + Send + 'static,
    ) -> Result<T, HttpRefusal> {
        let (done, result) = oneshot::channel();
        let task = move |views: &AdminViews| {
            // Nobody waits any more for one that stood in the queue for too long.
            if !done.is_closed() {
                let _ = done.send(catch_unwind(AssertUnwindSafe(|| reading(views))));
            }
        };
        if self.lanes[lane as usize].try_send(Box::new(task)).is_err() {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many questions wait for the node's views; ask again");
        }
        match tokio::time::timeout(lane.within(), result).await {
            Ok(Ok(Ok(read))) => read,
            Ok(Ok(Err(_)) | Err(_)) => refuse(
                StatusCode::INTERNAL_SERVER_ERROR,
                "what was asked for could not be looked up; see the node's log",
            ),
            Err(_) => refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "what was asked for could not be looked up within {:?}: something in the node blocks",
                    lane.within()
                ),
            ),
        }
    }

    /// Reads, and writes the JSON on the same thread.
    pub async fn json<T: Serialize>(
        &self,
        lane: Lane,
        reading: impl FnOnce(&AdminViews) -> Result<T, HttpRefusal> + Send + 'static,
    ) -> Result<HttpResponse, HttpRefusal> {
        let written = move |views: &AdminViews| {
            serde_json::to_vec(&reading(views)?).or_else(|e| refuse(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
        };
        let json = self.read(lane, written).await?;
        Ok(HttpResponse::Ok().content_type("application/json").body(json))
    }
}

fn run(tasks: &Mutex<Receiver<Task>>, views: &AdminViews) {
    loop {
        // One thread waits with the lock, the others for the lock.
        let next = crate::util::lock(tasks).recv();
        match next {
            Ok(task) => task(views),
            Err(_) => return,
        }
    }
}
