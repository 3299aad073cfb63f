//! Takes notices of ends for a test, which counts them.

use bulkhead::supervisor::{Actor, ChildSpec, Cx, Down, Exit, Handler, Monitor, Ref, SupervisorSpec, Tree};
use std::time::Duration;
use tokio::sync::mpsc;

/// Far more than a loaded machine needs.
const LIMIT: Duration = Duration::from_secs(180);

struct Watcher(mpsc::UnboundedSender<Down>);
impl Actor for Watcher {}
impl Handler<Down> for Watcher {
    async fn handle(&mut self, down: Down, _: &Cx<Self>) -> Result<(), Exit> {
        let _ = self.0.send(down);
        Ok(())
    }
}

/// The notices of ends, in the order in which they come.
pub struct Downs {
    _tree: Tree,
    to: Ref<Watcher>,
    come: mpsc::UnboundedReceiver<Down>,
}

impl Downs {
    pub fn start() -> Downs {
        let (tell, come) = mpsc::unbounded_channel();
        let to = Ref::new("/watcher", 64);
        let child = ChildSpec::actor("watcher", &to, move |_| {
            let tell = tell.clone();
            async { Ok(Watcher(tell)) }
        });
        Downs { _tree: Tree::start(SupervisorSpec::new("watchers").child(child)).unwrap(), to, come }
    }

    pub fn watch<A: Actor>(&self, actor: &Ref<A>) -> Monitor {
        actor.monitor(self.to.recipient())
    }

    pub async fn next(&mut self) -> Down {
        let next = tokio::time::timeout(LIMIT, self.come.recv()).await;
        next.expect("a notice of an end").expect("a watcher")
    }

    #[track_caller]
    pub fn nothing_more(&mut self, what: &str) {
        if let Ok(down) = self.come.try_recv() {
            panic!("{what}: another notice: {down:?}");
        }
    }
}
