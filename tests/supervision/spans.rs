//! What is done for an asker belongs to the asker's span, through asks of asks and over threads; a tell is on its own.

use bulkhead::supervisor::*;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::Instrument;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

const SOON: Duration = Duration::from_secs(20);

/// The names of the spans that each event of ours was in, outermost first.
#[derive(Clone, Default)]
struct Scopes(Arc<Mutex<Vec<Vec<String>>>>);
impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Scopes {
    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() == "seen" {
            let scope = context.event_scope(event).into_iter().flat_map(|scope| scope.from_root());
            self.0.lock().unwrap().push(scope.map(|span| span.name().to_string()).collect());
        }
    }
}

struct Worker {
    next: Option<Ref<Worker>>,
}
impl Actor for Worker {}

#[derive(Clone, Copy)]
struct Trace;
impl Message for Trace {
    type Reply = ();
}
struct Done;
impl Message for Done {
    type Reply = ();
}
impl Handler<Trace> for Worker {
    async fn handle(&mut self, _: Trace, cx: &Cx<Self>) -> Result<(), Exit> {
        if let Some(next) = &self.next {
            next.ask(Trace, SOON).await.map_err(|e| Exit::failed(e.drop_message()))?;
        } else {
            tokio::task::yield_now().await;
            tracing::info!(target: "seen", "in the handler");
            cx.spawn(async {
                tracing::info!(target: "seen", "in spawned work");
                Done
            });
        }
        Ok(())
    }
}
impl Handler<Done> for Worker {
    async fn handle(&mut self, _: Done, _: &Cx<Self>) -> Result<(), Exit> {
        tracing::info!(target: "seen", "told");
        Ok(())
    }
}

#[tokio::test]
async fn spans_go_with_asks() {
    let scopes = Scopes::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(scopes.clone())).unwrap();
    let (first, second) = (Ref::<Worker>::new("/first", 4), Ref::<Worker>::new("/second", 4));
    let to = second.clone();
    let root = SupervisorSpec::new("root")
        .child(ChildSpec::actor("second", &second, |_| async { Ok(Worker { next: None }) }).on(Thread::Dedicated))
        .child(ChildSpec::actor("first", &first, move |_| {
            let next = Some(to.clone());
            async move { Ok(Worker { next }) }
        }));
    let tree = Tree::start(root).unwrap();
    let seen = |n: usize| {
        let scopes = scopes.clone();
        async move {
            let wait = async {
                while scopes.0.lock().unwrap().len() < n {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(SOON, wait).await.expect("events");
            std::mem::take(&mut *scopes.0.lock().unwrap())
        }
    };
    first.ask(Trace, SOON).instrument(tracing::info_span!("deadline")).await.unwrap();
    let inside = ["deadline", "handle", "handle"].map(String::from).to_vec();
    assert_eq!(seen(3).await, [inside.clone(), inside, vec![]], "handler, spawned work, and the message it sent");

    let _entered = tracing::info_span!("teller").entered();
    second.tell(Trace).unwrap();
    assert!(seen(3).await.iter().all(Vec::is_empty), "a tell is on its own");
    drop(_entered);
    second.ask(Trace, SOON).await.unwrap();
    assert!(seen(3).await.iter().all(Vec::is_empty), "nobody's span");
    tree.shutdown().await;
}
