//! The state at hand for every route, and who may change something.

use super::answer::{HttpRefusal, caught, refuse};
use super::readers::Readers;
use super::views::{AdminViews, TreeRow};
use crate::rpc::http_surface;
use crate::rpc::refusal_log::{RefusalLog, shortened};
use crate::supervisor::ActorInfo;
use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::http::header::AUTHORIZATION;
use std::sync::Arc;

/// Says whether a bearer token may administer this node.
pub type AdminCheck = Arc<dyn Fn(&str) -> bool + Send + Sync>;

pub(super) struct AdminState {
    pub views: AdminViews,
    pub readers: Readers,
    pub allow: AdminCheck,
    pub refusals: RefusalLog,
}

/// The rows of this node's own tree.
pub(super) fn with_holders(views: &AdminViews, rows: Vec<ActorInfo>) -> Vec<TreeRow> {
    let (node, holders) = match views.tree.cluster() {
        Some(cluster) => {
            let node = cluster.node();
            (node.clone(), cluster.holders(&node))
        }
        None => Default::default(),
    };
    rows.into_iter().map(|row| TreeRow::of(row, &node, &holders)).collect()
}

pub(super) fn find(views: &AdminViews, path: &str) -> Result<ActorInfo, HttpRefusal> {
    if path.is_empty() || path.contains('\0') || path.starts_with('/') || path.ends_with('/') {
        let why =
            format!("{:?} is no actor path; they look like root/proving/window_post, see GET /actors", shortened(path));
        return refuse(StatusCode::BAD_REQUEST, why);
    }
    match views.tree.snapshot().into_iter().find(|row| row.path == path) {
        Some(row) => Ok(row),
        None => refuse(StatusCode::NOT_FOUND, format!("no actor is at {}; GET /actors lists them", shortened(path))),
    }
}

pub(super) fn bearer(request: &HttpRequest) -> Option<&str> {
    let header = request.headers().get(AUTHORIZATION).and_then(|v| v.to_str().ok());
    header.and_then(|v| v.strip_prefix("Bearer ")).map(str::trim)
}

/// Checks that the caller may change something; logs every attempt, and of those without a token a few of many.
pub(super) fn authorize(state: &AdminState, request: &HttpRequest, action: &str) -> Result<(), HttpRefusal> {
    let token = bearer(request);
    let allowed = match token {
        Some(token) => caught(|| (state.allow)(token))?,
        None => false,
    };
    // Without room among the known it is served as a stranger's.
    let _ = allowed && http_surface::identify(request);
    let from = request.peer_addr().map(|a| a.to_string()).unwrap_or_default();
    if let Some(left_out) = if allowed { Some(0) } else { state.refusals.take() } {
        tracing::info!(target: "audit", action = shortened(action), from, allowed, left_out, "admin request");
    }
    match (allowed, token) {
        (true, _) => Ok(()),
        (false, Some(_)) => refuse(StatusCode::UNAUTHORIZED, "that token may not administer this node"),
        (false, None) => refuse(
            StatusCode::UNAUTHORIZED,
            "this needs the admin token: send `Authorization: Bearer <token>` with what `token` in the node's repo holds",
        ),
    }
}
