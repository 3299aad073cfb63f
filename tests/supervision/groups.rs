//! Process groups: who has joined is a member until it leaves, ends or is given up.

use bulkhead::supervisor::*;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

struct Worker {
    group: Group<Do>,
}
impl Actor for Worker {}

#[derive(Clone)]
enum Do {
    Join,
    Leave,
    Panic,
    /// Keeps the thread until the incarnation is given up, then tries to join.
    HangThenJoin,
    Say,
}
impl Message for Do {
    type Reply = u64;
}
impl Handler<Do> for Worker {
    async fn handle(&mut self, what: Do, cx: &Cx<Self>) -> Result<u64, Exit> {
        match what {
            Do::Join => cx.join(&self.group),
            Do::Leave => cx.leave(&self.group),
            Do::Panic => panic!("as told"),
            Do::HangThenJoin => {
                while cx.pass().check().is_ok() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                cx.join(&self.group);
            }
            Do::Say => {}
        }
        Ok(cx.incarnation())
    }
}

struct Fixture {
    tree: Tree,
    groups: Groups,
    group: Group<Do>,
    workers: Vec<Ref<Worker>>,
}

fn fixture() -> Fixture {
    let groups = Groups::default();
    let group = groups.group("workers");
    let workers: Vec<Ref<Worker>> = ["/a", "/b"].into_iter().map(|path| Ref::new(path, 16)).collect();
    let mut root = SupervisorSpec::new("root").backoff(RestartBackoff::NONE).intensity(10, SOON);
    for address in &workers {
        let its = group.clone();
        let spec = ChildSpec::actor(&address.path()[1..], address, move |_| {
            let group = its.clone();
            async move { Ok(Worker { group }) }
        });
        root = root.child(spec.on(Thread::Dedicated));
    }
    let options = TreeOptions { hang_after: Some(Duration::from_millis(500)), ..TreeOptions::default() };
    let tree = Tree::start_with(root, options).unwrap();
    Fixture { tree, groups, group, workers }
}

impl Fixture {
    /// As `GET /groups` has them.
    fn members(&self) -> Vec<(String, u64)> {
        let rows = self.groups.rows();
        assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["workers"]);
        rows[0].members.iter().map(|member| (member.path.clone(), member.epoch)).collect()
    }
    async fn tell(&self, n: usize, what: Do) -> u64 {
        self.workers[n].ask_when_up(what, SOON).await.unwrap()
    }
}

fn named(members: &[(&str, u64)]) -> Vec<(String, u64)> {
    members.iter().map(|(path, epoch)| (path.to_string(), *epoch)).collect()
}

#[tokio::test]
async fn members_come_and_go_with_their_incarnations() {
    let f = fixture();
    assert_eq!(f.members(), named(&[]));
    f.tell(1, Do::Join).await;
    f.tell(0, Do::Join).await;
    f.tell(0, Do::Join).await;
    assert_eq!(f.members(), named(&[("/b", 1), ("/a", 1), ("/a", 1)]), "joined twice is in it twice");
    for member in f.group.members() {
        assert_eq!(member.ask(Do::Say, SOON).await.unwrap(), 1);
    }
    f.tell(0, Do::Leave).await;
    assert_eq!(f.members(), named(&[("/b", 1), ("/a", 1)]));
    f.tell(0, Do::Leave).await;
    f.tell(0, Do::Leave).await;
    assert_eq!(f.members(), named(&[("/b", 1)]), "one that is in no group leaves none");
    f.tell(0, Do::Join).await;

    assert!(matches!(f.workers[1].ask(Do::Panic, SOON).await, Err(CallError::Panicked)));
    assert_eq!(f.tell(1, Do::Say).await, 2);
    assert_eq!(f.members(), named(&[("/a", 1)]), "its successor has joined nothing");
    f.tell(1, Do::Join).await;
    f.tree.order("root/a", Order::Stop).await.unwrap();
    assert_eq!(f.members(), named(&[("/b", 2)]));
    f.tree.shutdown().await;
    assert_eq!(f.members(), named(&[]));
    drop((f.group, f.workers));
    f.tree.wait().await;
}

#[tokio::test]
async fn one_that_was_given_up_is_in_no_group_and_joins_none() {
    let f = fixture();
    f.tell(0, Do::Join).await;
    f.workers[0].tell(Do::HangThenJoin).unwrap();
    let given_up = async {
        while f.workers[0].ask_when_up(Do::Say, SOON).await.ok() != Some(2) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, given_up).await.expect("a successor");
    assert_eq!(f.members(), named(&[]));
    let back = async {
        while f.tree.zombies() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, back).await.expect("the thread comes back and ends");
    assert_eq!(f.members(), named(&[]), "what woke up is no member");
    f.tell(0, Do::Join).await;
    assert_eq!(f.members(), named(&[("/a", 2)]));
    f.tree.shutdown().await;
}
