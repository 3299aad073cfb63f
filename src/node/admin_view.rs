//! The trees of this process as the admin HTTP shows them.

use super::exit_log::ExitLog;
use super::reload::Reloader;
use crate::rpc::admin;
use crate::rpc::admin::provider::ProviderReport;
use crate::supervisor::{
    ActorInfo, ActorOrder, AdminError, GroupRow, Groups, InspectError, Inspection, Tree, WeakTree,
};
use arc_swap::ArcSwap;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;
use std::sync::{Arc, OnceLock};

/// The trees that the admin HTTP shows: the node's, and another one of this process.
pub(super) struct ProcessTrees {
    pub node: Arc<OnceLock<WeakTree>>,
    pub beside: Option<Tree>,
    pub journal: Arc<ExitLog>,
    pub reloader: Arc<Reloader>,
    pub groups: Groups,
    pub provider: Arc<ArcSwap<ProviderReport>>,
    /// In a cluster.
    pub cluster: Option<Arc<dyn admin::ClusterView>>,
}

impl ProcessTrees {
    fn node(&self) -> Option<Tree> {
        self.node.get().and_then(WeakTree::upgrade)
    }
    fn trees(&self) -> impl Iterator<Item = Tree> {
        self.node().into_iter().chain(self.beside.clone())
    }
}

impl admin::TreeView for ProcessTrees {
    fn snapshot(&self) -> Vec<ActorInfo> {
        self.trees().flat_map(|tree| tree.snapshot()).collect()
    }
    fn kill(&self, path: &str) -> bool {
        self.trees().any(|tree| tree.kill(path))
    }
    fn panic(&self, path: &str) -> bool {
        self.trees().any(|tree| tree.panic(path))
    }
    fn hang(&self, path: &str) -> bool {
        self.trees().any(|tree| tree.hang(path))
    }
    fn inspect(&self, path: &str) -> BoxFuture<'static, Result<Inspection, InspectError>> {
        match self.trees().find(|tree| tree.info(path).is_some()) {
            Some(tree) => admin::TreeView::inspect(&tree, path),
            None => std::future::ready(Err(InspectError::NotFound)).boxed(),
        }
    }
    fn dead_letters(&self) -> Option<admin::DeadLettersView> {
        self.node().as_ref().and_then(admin::TreeView::dead_letters)
    }
    fn order(&self, path: &str, order: ActorOrder) -> BoxFuture<'static, Result<(), AdminError>> {
        match self.trees().find(|tree| tree.info(path).is_some()) {
            Some(tree) => admin::TreeView::order(&tree, path, order),
            None => std::future::ready(Err(AdminError::NotFound)).boxed(),
        }
    }
    fn reload(&self, by: String) -> BoxFuture<'static, Result<Value, admin::ReloadError>> {
        let reloader = self.reloader.clone();
        let reload = async move {
            let done = reloader.reload(&by).await?;
            serde_json::to_value(done).map_err(|e| admin::ReloadError::Faulty(e.to_string()))
        };
        reload.boxed()
    }
    fn groups(&self) -> Vec<GroupRow> {
        self.groups.rows()
    }
    fn vitals(&self) -> Option<admin::Vitals> {
        self.node().as_ref().and_then(admin::TreeView::vitals)
    }
    fn cluster(&self) -> Option<Arc<dyn admin::ClusterView>> {
        self.cluster.clone()
    }
    fn provider(&self) -> Option<Arc<ProviderReport>> {
        Some(self.provider.load_full())
    }
    fn journal(&self) -> Option<Vec<admin::Ended>> {
        Some(self.journal.entries())
    }
}
