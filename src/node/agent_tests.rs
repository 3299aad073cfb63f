//! The agent's API for workers: a server that ends by itself is restarted at its port.

use super::*;
use crate::supervisor::Backoff;

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
    let auth = Arc::new(Auth::open(&dir).unwrap());
    let address = Ref::<AgentApi>::new("/agent-api", 4);
    let child = ChildSpec::actor("api_server", &address, move |_| {
        let service = Service { auth: auth.clone(), node: None, extras: None };
        let started = AgentApi::start(&door, service, &dir);
        async move { started }
    });
    let tree = Tree::start(SupervisorSpec::new("root").backoff(Backoff::NONE).child(child)).unwrap();
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
