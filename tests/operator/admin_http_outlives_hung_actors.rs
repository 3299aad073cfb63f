//! On a real tree: the admin endpoint answers while actors hang, kills over HTTP, and comes back when it is killed itself.

use arc_swap::ArcSwap;
use bulkhead::rpc::admin::{AdminConfig, AdminHttp, AdminViews, WhereIs, child, only};
use bulkhead::supervisor::{Actor, ChildSpec, Cx, Exit, Handler, Message, Ref, SupervisorSpec, Thread, Tree};
use serde_json::{Value, json};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

/// Blocks its thread until the test lets go.
struct Hangs(Arc<(Mutex<bool>, Condvar)>);

impl Actor for Hangs {}

struct Hang;
impl Message for Hang {
    type Reply = ();
}

impl Handler<Hang> for Hangs {
    async fn handle(&mut self, _: Hang, _: &Cx<Self>) -> Result<(), Exit> {
        let (let_go, woken) = &*self.0;
        let _held = woken.wait_while(let_go.lock().unwrap(), |go| !*go).unwrap();
        Ok(())
    }
}

const WITHIN: Duration = Duration::from_secs(20);

async fn http(method: &str, url: String, token: &str) -> Option<(u16, Value)> {
    let request = reqwest::Client::new().request(method.parse().unwrap(), url).bearer_auth(token).timeout(WITHIN);
    let response = request.send().await.ok()?;
    Some((response.status().as_u16(), response.json().await.ok()?))
}

/// Looks again until `want` holds.
async fn until(url: &str, want: impl Fn(&Value) -> bool) -> Value {
    let mut last: Option<Value> = None;
    let looked = async {
        loop {
            last = http("GET", url.to_string(), "").await.map(|(_, body)| body);
            if let Some(body) = last.as_ref().filter(|body| want(body)) {
                return body.clone();
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WITHIN, looked).await.unwrap_or_else(|_| panic!("{url}: not as wanted"))
}

#[tokio::test]
async fn it_answers_kills_and_comes_back() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let hangs = Ref::<Hangs>::new("/hangs", 4);
    let admin = Ref::<AdminHttp>::new("/admin", 16);
    let slot = Arc::new(OnceLock::<Tree>::new());
    let views = AdminViews {
        tree: slot.clone(),
        info: Arc::new(ArcSwap::from_pointee(json!({}))),
        critical: vec!["root/work".into()],
        stop: Arc::new(|| {}),
    };
    // A port of its own, named, so that the next incarnation has to get the same one.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = AdminConfig { listen: free, allow: only("t".into()) };
    let hanging = |id: &str, address: &Ref<Hangs>, thread| {
        let at = gate.clone();
        let child = ChildSpec::actor(id, address, move |_| {
            let at = at.clone();
            async move { Ok(Hangs(at)) }
        });
        child.on(thread)
    };
    // Every other thread of the tree: dedicated ones, and two that are shared.
    let others = ["/other", "/io", "/beside"].map(|path| Ref::<Hangs>::new(path, 4));
    let work = SupervisorSpec::new("work")
        .child(hanging("hangs", &hangs, Thread::Dedicated))
        .child(hanging("other", &others[0], Thread::Dedicated))
        .child(hanging("io", &others[1], Thread::Shared("io")))
        .child(hanging("beside", &others[2], Thread::Shared("main")));
    let root = SupervisorSpec::new("root")
        .child(ChildSpec::supervisor(work))
        .child(ChildSpec::supervisor(SupervisorSpec::new("admin").child(child(config, views, &admin))));
    let tree = Tree::start(root).unwrap();
    let addr = admin.ask(WhereIs, WITHIN).await.unwrap();
    assert_eq!(addr, free);
    let url = |path: &str| format!("http://{addr}{path}");
    assert_eq!(http("GET", url("/actors"), "").await.unwrap().1, json!([]), "before the tree is known");
    assert!(slot.set(tree.clone()).is_ok());
    assert_eq!(http("GET", url("/health/ready"), "").await.unwrap().0, 200);

    // Every message to them waits now; the endpoint does not.
    for address in [&hangs].into_iter().chain(&others) {
        while address.tell(Hang).is_ok() {}
    }
    let row = until(&url("/actors/root/work/hangs"), |row| row["mailbox_depth"].as_u64() >= Some(3)).await;
    assert_eq!((&row["state"], &row["mailbox_bound"]), (&json!("up"), &json!(4)));
    let (_, letters) = http("GET", url("/dead-letters"), "").await.unwrap();
    assert_eq!((&letters["recent"][0]["to"], &letters["recent"][0]["reason"]), (&json!("/hangs"), &json!("full")));
    for id in ["other", "io", "beside"] {
        until(&url(&format!("/actors/root/work/{id}")), |row| row["mailbox_depth"].as_u64() >= Some(3)).await;
    }
    assert_eq!(http("GET", url("/health/live"), "").await.unwrap().0, 200);
    // The middle one of many, so that other work on the machine does not decide.
    let client = reqwest::Client::new();
    let mut took = Vec::new();
    for _ in 0..50 {
        let began = std::time::Instant::now();
        let answer = client.get(url("/actors")).timeout(WITHIN).send().await.unwrap();
        let rows: Value = answer.json().await.unwrap();
        took.push(began.elapsed());
        let hung = rows.as_array().unwrap().iter().filter(|row| !row["busy_message"].is_null());
        assert_eq!(hung.count(), 4, "{rows}");
    }
    took.sort();
    assert!(took[25] < Duration::from_millis(100), "{took:?}");

    let killed = http("POST", url("/actors/root/work/hangs/kill"), "t").await.unwrap();
    assert_eq!(killed, (200, json!({"killed": "root/work/hangs"})));
    {
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
    }
    let row = until(&url("/actors/root/work/hangs"), |row| row["state"] == "up" && row["restarts"] == 1).await;
    assert_eq!((&row["last_exit"], &row["incarnation"]), (&json!("Killed"), &json!(2)));

    // Its own death, by its own hand: the answer may be lost, the next incarnation has the same address.
    let _ = http("POST", url("/actors/root/admin/admin_http/kill"), "t").await;
    let row = until(&url("/actors/root/admin/admin_http"), |row| row["restarts"] == 1).await;
    assert_eq!(row["last_exit"], "Killed");
    // Its restart, by its own hand, and that of all that is around it, leave it running again.
    for n in 3..=5 {
        let _ = http("POST", url("/actors/root/admin/admin_http/restart"), "t").await;
        until(&url("/actors/root/admin/admin_http"), |row| row["state"] == "up" && row["incarnation"] == n).await;
    }
    let _ = http("POST", url("/actors/root/admin/restart"), "t").await;
    until(&url("/actors/root/admin/admin_http"), |row| row["state"] == "up" && row["incarnation"] == 6).await;
    tree.shutdown().await;
    assert!(std::net::TcpStream::connect(addr).is_err(), "an orderly stop closes the port");
}

/// Asking one that hangs holds up nobody who reads anything else.
#[tokio::test]
async fn it_answers_everybody_else_while_a_hung_actor_is_asked_for_its_state() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let hangs = Ref::<Hangs>::new("/hangs", 4);
    let its = gate.clone();
    let actor = ChildSpec::actor("hangs", &hangs, move |_| {
        let gate = its.clone();
        async move { Ok(Hangs(gate)) }
    });
    let tree = Tree::start(SupervisorSpec::new("root").child(actor.on(Thread::Dedicated))).unwrap();
    hangs.tell(Hang).unwrap();
    let views = AdminViews {
        tree: Arc::new(tree.clone()),
        info: Arc::new(ArcSwap::from_pointee(json!({}))),
        critical: vec![],
        stop: Arc::new(|| {}),
    };
    let served = bulkhead::rpc::admin::start(
        AdminConfig { listen: "127.0.0.1:0".parse().unwrap(), allow: only("t".into()) },
        views,
    );
    let served = served.unwrap();
    let url = |path: &str| format!("http://{}{path}", served.addr());
    let mut asked = tokio::spawn(http("GET", url("/actors/root/hangs/inspect"), ""));
    let mut others = 0;
    let (status, body) = loop {
        tokio::select! {
            answer = &mut asked => break answer.unwrap().unwrap(),
            row = http("GET", url("/actors/root/hangs"), "") => {
                assert_eq!(row.unwrap().0, 200);
                others += 1;
            }
        }
    };
    assert!(status == 504 && body["error"].as_str().unwrap().contains("1s"), "{status} {body}");
    assert!(others > 1, "nobody else was answered meanwhile");
    for (path, want) in [("root", 409), ("root/nobody", 404)] {
        let (status, body) = http("GET", url(&format!("/actors/{path}/inspect")), "").await.unwrap();
        assert!(status == want && body["error"].is_string(), "{path}: {status} {body}");
    }
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    tree.shutdown().await;
}
