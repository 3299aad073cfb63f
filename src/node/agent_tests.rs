//! The agent's API for workers: a server that ends by itself is restarted at its port, and one that cannot start leaves
//! the disks to others.

use super::*;
use crate::rpc::server_actor::WhereIs;
use crate::supervisor::RestartBackoff;

const SOON: Duration = Duration::from_secs(60);

/// As if the server's thread had ended by itself.
struct Fall;
impl Message for Fall {
    type Reply = ();
}
impl Handler<Fall> for AgentApi {
    async fn handle(&mut self, _: Fall, _: &Cx<Self>) -> Result<(), Exit> {
        if let Some(server) = &self.server {
            server.fall().await;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_server_that_ends_by_itself_is_a_failure_and_another_serves_at_its_port() {
    let repo = tempfile::tempdir().unwrap();
    let (dir, door) = (repo.path().to_path_buf(), SharedListener::new("127.0.0.1:0".parse().unwrap(), "api.listen"));
    let auth = RepoAuth::new(&dir).open().unwrap();
    let address = Ref::<AgentApi>::new("/agent-api", 4);
    let child = ChildSpec::actor("api_server", &address, move |_| {
        let service = Service { auth: auth.clone(), node: None, extras: None, upstream: None };
        let started = start_api(&door, service, &dir);
        async move { started }
    });
    let tree = Tree::start(SupervisorSpec::new("root").backoff(RestartBackoff::NONE).child(child)).unwrap();
    let before = address.ask(WhereIs, SOON).await.unwrap();
    address.tell(Fall).unwrap();
    let successor = async {
        loop {
            match address.ask(WhereIs, SOON).await {
                Ok(at) if tree.info("root/api_server").unwrap().incarnation == 2 => return at,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let after = tokio::time::timeout(SOON, successor).await.expect("a successor");
    assert_eq!(after, before, "at the same port");
    let last = tree.info("root/api_server").unwrap().last_exit;
    assert!(matches!(&last, Some(Exit::Failed(why)) if why.contains("thread ended")), "{last:?}");
    assert_eq!(tree.shutdown().await, Exit::Shutdown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_secret_that_cannot_be_read_leaves_the_disks_to_proving() {
    let repo = tempfile::tempdir().unwrap();
    let secret = repo.path().join("jwt-secret");
    std::fs::write(&secret, "damaged").unwrap();
    let config = AgentConfig {
        name: "a".into(),
        cluster: "c".into(),
        repo: repo.path().into(),
        listen: vec![],
        announce: vec![],
        timing: Default::default(),
        api_listen: "127.0.0.1:0".parse().unwrap(),
        settings: AgentSettings::default(),
    };
    let directory = Arc::new(crate::rpc::directory::Local::new());
    let started = tokio::task::spawn_blocking(move || {
        AgentNode::start(config, Arc::new(crate::proofs::ScriptedProver::default()), directory)
    });
    let agent = started.await.unwrap().expect("the agent starts");
    let row = |path: &str| agent.tree.info(path).unwrap();
    let held = row("root/api/api_server").held.expect("the API is held down");
    assert!(held.contains("jwt-secret") && held.contains("32 bytes in hex"), "{held}");
    assert_eq!(row("root/storage/storage").state, crate::supervisor::ActorState::Up);
    std::fs::remove_file(&secret).unwrap();
    let up = async { while agent.api.ask(WhereIs, SOON).await.is_err() {} };
    tokio::time::timeout(SOON, up).await.expect("it comes up by itself");
    agent.stop().await;
}
