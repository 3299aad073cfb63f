//! A record that cannot be read takes no other along.

use crate::support::fake_chain::{fil, miner};
use crate::support::world::Outside;
use bulkhead::actors::message_sender::messages::{Enqueue, EnqueueAnswer, MessageStatus};
use bulkhead::actors::seal_scheduler::Phase;
use bulkhead::store::{Record, Token};
use serde::{Deserialize, Serialize};

macro_rules! junk {
    ($name:ident, $table:literal) => {
        #[derive(Serialize, Deserialize)]
        struct $name(u8);
        impl Record for $name {
            const TABLE: &'static str = $table;
        }
    };
}
junk!(NoSector, "sectors");
junk!(NoPledge, "pledges");
junk!(NoMessage, "messages");
junk!(NoOutcome, "messages_done");

fn message(key: &str) -> Enqueue {
    let (params, value, max_fee) = (vec![0x80], fil(0), fil(0));
    Enqueue { key: key.into(), to: miner(), method: 16, params, value, max_fee, from: None, closes: None }
}

#[tokio::test]
async fn sectors_and_messages_go_on_beside_records_that_cannot_be_read() {
    let mut o = Outside::new();
    let w = o.boot();
    let token = |path: &str| Token { path: path.into(), epoch: 1 };
    let (sealing, sending) = (token("/t01000/seal-scheduler"), token("/t01000/message-sender"));
    let store = w.engine.store.clone();
    store.put(&sealing, "t01000/00000000000000000009", &NoSector(1)).unwrap();
    store.put(&sealing, "t01000/odd", &NoPledge(1)).unwrap();
    store.put(&sending, "t01000/lost", &NoMessage(1)).unwrap();
    store.put(&sending, "t01000/ended", &NoOutcome(1)).unwrap();
    drop((w, store));
    let mut w = o.boot();
    let trouble = w.driver.trouble().expect("an operator is told");
    assert!(trouble.starts_with("2 records cannot be read, the first is t01000/00000000000000000009"), "{trouble}");
    w.driver.pledge("first", o.now).unwrap();
    w.run(&mut o, 80, |w| w.phase(1) == Some(Phase::Proving)).await;

    // Nothing is sent twice for them.
    let alerts = w.engine.summary().unwrap().alerts.join("; ");
    assert!(alerts.contains("t01000/lost is neither sent nor watched"), "{alerts}");
    assert!(matches!(w.engine.status("lost").unwrap(), MessageStatus::Queued { .. }));
    assert!(w.engine.enqueue(&message("lost")).is_err());
    assert!(matches!(w.engine.status("ended").unwrap(), MessageStatus::Failed { exit_code: -1, .. }));
    assert!(matches!(w.engine.enqueue(&message("ended")).unwrap(), EnqueueAnswer::Known(_)));
    assert_eq!(w.engine.enqueue(&message("another")).unwrap(), EnqueueAnswer::Accepted);
    w.engine.round(&o.chain.head()).await.unwrap();
    assert_eq!(o.chain.executed(16).len(), 0);
    o.chain.mine();
    assert_eq!(o.chain.executed(16).len(), 1);
}
