//! The cluster over HTTP: nodes, leases, peers, another node's tree, and an operator's orders.

use super::answer::HttpAnswer;
use super::answer::HttpRefusal;
use super::answer::refuse;
use super::cluster::{ClusterReport, ClusterView, RemoteTreeError};
use super::readers::Lane;
use super::state::AdminState;
use super::state::authorize;
use super::state::with_holders;
use super::views::{AdminViews, TreeRow};
use crate::rpc::directory::{DirectoryError, PlacementOrder};
use crate::supervisor::ActorInfo;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use futures::future::BoxFuture;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// The directory has a deadline of its own; this one is for a directory that forgot it.
const WITHIN: Duration = Duration::from_secs(15);

fn cluster(views: &AdminViews) -> Result<Arc<dyn ClusterView>, HttpRefusal> {
    match views.tree.cluster() {
        Some(cluster) => Ok(cluster),
        None => {
            refuse(StatusCode::NOT_FOUND, "this node runs alone: set cluster.etcd or [[cluster.peer]] to change that")
        }
    }
}

pub async fn report(state: Data<AdminState>) -> HttpAnswer {
    state.readers.json(Lane::Reading, |views| Ok(cluster(views)?.report())).await
}

pub async fn nodes(state: Data<AdminState>) -> HttpAnswer {
    state.readers.json(Lane::Reading, |views| Ok(cluster(views)?.report().nodes)).await
}

pub async fn peers(state: Data<AdminState>) -> HttpAnswer {
    state.readers.json(Lane::Reading, |views| Ok(cluster(views)?.peers())).await
}

/// The node's name, by that or its PeerId, and whether it is this one.
fn named(report: &ClusterReport, node: &str) -> Result<(String, bool), HttpRefusal> {
    match report.nodes.iter().find(|row| row.name == node || row.peer_id == node) {
        Some(row) => Ok((row.name.clone(), row.name == report.node)),
        None => refuse(StatusCode::NOT_FOUND, RemoteTreeError::Unknown { node: node.to_string() }.to_string()),
    }
}

fn no_answer(why: &RemoteTreeError) -> HttpAnswer {
    match why {
        RemoteTreeError::Unknown { .. } => refuse(StatusCode::NOT_FOUND, why.to_string()),
        RemoteTreeError::NoAnswer { .. } => refuse(StatusCode::GATEWAY_TIMEOUT, why.to_string()),
    }
}

/// A node that does not answer costs one answer, and its deadline.
pub async fn actors(state: Data<AdminState>, node: Path<String>) -> HttpAnswer {
    let asked = move |views: &AdminViews| {
        let cluster = cluster(views)?;
        let (name, here) = named(&cluster.report(), &node)?;
        Ok(match here {
            true => Asked::Here(with_holders(views, views.tree.snapshot())),
            false => Asked::Remote(cluster.actors_of(&name), name),
        })
    };
    let (rows, name) = match state.readers.read(Lane::Reading, asked).await? {
        Asked::Here(rows) => return Ok(HttpResponse::Ok().json(rows)),
        Asked::Remote(rows, name) => (rows.await, name),
    };
    let rows = match rows {
        Ok(rows) => rows,
        Err(why) => return no_answer(&why),
    };
    let held = move |views: &AdminViews| {
        let holders = cluster(views)?.holders(&name);
        Ok(rows.into_iter().map(|row| TreeRow::of(row, &name, &holders)).collect::<Vec<_>>())
    };
    state.readers.json(Lane::Reading, held).await
}

enum Asked {
    Here(Vec<TreeRow>),
    Remote(BoxFuture<'static, Result<Vec<ActorInfo>, RemoteTreeError>>, String),
}

pub async fn full_nodes(state: Data<AdminState>, node: Path<String>) -> HttpAnswer {
    let asked = move |views: &AdminViews| {
        let cluster = cluster(views)?;
        Ok(cluster.full_nodes_of(&named(&cluster.report(), &node)?.0))
    };
    match state.readers.read(Lane::Reading, asked).await?.await {
        Ok(answer) => Ok(HttpResponse::Ok().json(answer)),
        Err(why) => no_answer(&why),
    }
}

pub async fn move_to(state: Data<AdminState>, request: HttpRequest, path: Path<(String, String)>) -> HttpAnswer {
    let (node, concern) = path.into_inner();
    authorize(&state, &request, &format!("move {concern} to {node}"))?;
    let named = move |views: &AdminViews| {
        cluster(views)?.report().concern(&concern).or_else(|why| refuse(StatusCode::NOT_FOUND, why))
    };
    let concern = state.readers.read(Lane::Orders, named).await?;
    order(&state, PlacementOrder::Move { concern: concern.clone(), node: node.clone() }).await?;
    Ok(HttpResponse::Accepted().json(json!({ "order": "move", "concern": concern, "node": node })))
}

pub async fn drain(state: Data<AdminState>, request: HttpRequest, node: Path<String>) -> HttpAnswer {
    authorize(&state, &request, &format!("drain {node}"))?;
    order(&state, PlacementOrder::Drain { node: node.to_string() }).await?;
    Ok(HttpResponse::Accepted().json(json!({ "order": "drain", "node": *node })))
}

pub async fn undrain(state: Data<AdminState>, request: HttpRequest, node: Path<String>) -> HttpAnswer {
    authorize(&state, &request, &format!("undrain {node}"))?;
    order(&state, PlacementOrder::Undrain { node: node.to_string() }).await?;
    Ok(HttpResponse::Accepted().json(json!({ "order": "undrain", "node": *node })))
}

async fn order(state: &AdminState, order: PlacementOrder) -> Result<(), HttpRefusal> {
    let given = order.clone();
    let doing = state.readers.read(Lane::Orders, move |views| Ok(cluster(views)?.order(given))).await?;
    let done = tokio::time::timeout(WITHIN, doing).await;
    let outcome = match &done {
        Ok(Ok(())) => "given".to_string(),
        Ok(Err(why)) => why.to_string(),
        Err(_) => "no answer".to_string(),
    };
    tracing::info!(target: "audit", ?order, outcome, "cluster order");
    match done {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => refuse(status(&why), why.to_string()),
        Err(_) => {
            refuse(StatusCode::GATEWAY_TIMEOUT, "the directory does not answer; `cluster status` says since when")
        }
    }
}

fn status(why: &DirectoryError) -> StatusCode {
    match why {
        DirectoryError::UnknownNode { .. } => StatusCode::NOT_FOUND,
        DirectoryError::BadConcern { .. } | DirectoryError::BadName { .. } => StatusCode::BAD_REQUEST,
        DirectoryError::Unreachable { .. } | DirectoryError::Closed => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CONFLICT,
    }
}
