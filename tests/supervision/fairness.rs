//! A flooded actor gives its neighbours on the same thread their turn: counted in messages, not in time.

use bulkhead::supervisor::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

const FLOOD: u64 = 1_000_000;
const EVERY: u64 = 10_000;
/// Messages in a row before the neighbours have their turn.
const TURN: u64 = 64;

struct Flooded {
    handled: Arc<AtomicU64>,
    neighbour: Ref<Neighbour>,
}
impl Actor for Flooded {}
struct Drop1;
impl Message for Drop1 {
    type Reply = ();
}
struct Gate(oneshot::Receiver<()>);
impl Message for Gate {
    type Reply = ();
}
impl Handler<Gate> for Flooded {
    async fn handle(&mut self, Gate(open): Gate, _: &Cx<Self>) -> Result<(), Exit> {
        let _ = open.await;
        Ok(())
    }
}
impl Handler<Drop1> for Flooded {
    async fn handle(&mut self, _: Drop1, _: &Cx<Self>) -> Result<(), Exit> {
        let n = self.handled.fetch_add(1, Ordering::SeqCst) + 1;
        if n.is_multiple_of(EVERY) {
            self.neighbour.tell(Told { at: n }).map_err(Exit::failed)?;
        }
        Ok(())
    }
}

struct Neighbour {
    handled: Arc<AtomicU64>,
    lags: Vec<u64>,
}
impl Actor for Neighbour {}
struct Told {
    at: u64,
}
impl Message for Told {
    type Reply = ();
}
struct Lags;
impl Message for Lags {
    type Reply = Vec<u64>;
}
impl Handler<Told> for Neighbour {
    async fn handle(&mut self, told: Told, _: &Cx<Self>) -> Result<(), Exit> {
        self.lags.push(self.handled.load(Ordering::SeqCst) - told.at);
        Ok(())
    }
}
impl Handler<Lags> for Neighbour {
    async fn handle(&mut self, _: Lags, _: &Cx<Self>) -> Result<Vec<u64>, Exit> {
        Ok(self.lags.clone())
    }
}

#[tokio::test]
async fn one_million_tells_do_not_starve_a_neighbour() {
    let handled = Arc::new(AtomicU64::new(0));
    let neighbour = Ref::<Neighbour>::new("/neighbour", 16);
    let flooded = Ref::<Flooded>::new("/flooded", FLOOD as usize + 1);
    let (count, next) = (handled.clone(), neighbour.clone());
    let one = ChildSpec::actor("flooded", &flooded, move |_| {
        let (handled, neighbour) = (count.clone(), next.clone());
        async move { Ok(Flooded { handled, neighbour }) }
    });
    let count = handled.clone();
    let two = ChildSpec::actor("neighbour", &neighbour, move |_| {
        let handled = count.clone();
        async move { Ok(Neighbour { handled, lags: Vec::new() }) }
    });
    let tree = Tree::start(SupervisorSpec::new("root").child(one).child(two)).unwrap();
    let (open, gate) = oneshot::channel();
    flooded.tell(Gate(gate)).unwrap();
    for _ in 0..FLOOD {
        flooded.tell(Drop1).unwrap();
    }
    open.send(()).unwrap();
    let within = Duration::from_secs(60);
    while handled.load(Ordering::SeqCst) < FLOOD {
        tokio::task::yield_now().await;
    }
    let lags = neighbour.ask(Lags, within).await.unwrap();
    assert_eq!(lags.len() as u64, FLOOD / EVERY);
    let worst = lags.iter().max().unwrap();
    assert!(*worst <= TURN, "the neighbour waited for {worst} messages");
    tree.shutdown().await;
}
