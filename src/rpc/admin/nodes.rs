//! The cluster over HTTP: nodes, leases, peers, another node's tree, and an operator's orders.

use super::cluster::{ClusterReport, ClusterView, RemoteTreeError};
use super::routes::{AdminState, HttpAnswer, HttpRefusal, authorize, look, refuse, with_holders};
use super::views::TreeRow;
use crate::rpc::directory::{DirectoryError, PlacementOrder};
use actix_web::http::StatusCode;
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// The directory has a deadline of its own; this one is for a directory that forgot it.
const WITHIN: Duration = Duration::from_secs(15);

fn cluster(state: &AdminState) -> Result<Arc<dyn ClusterView>, HttpRefusal> {
    match look(|| state.views.tree.cluster())? {
        Some(cluster) => Ok(cluster),
        None => {
            refuse(StatusCode::NOT_FOUND, "this node runs alone: set cluster.etcd or [[cluster.peer]] to change that")
        }
    }
}

pub async fn report(state: Data<AdminState>) -> HttpAnswer {
    let cluster = cluster(&state)?;
    Ok(HttpResponse::Ok().json(look(|| cluster.report())?))
}

pub async fn nodes(state: Data<AdminState>) -> HttpAnswer {
    let cluster = cluster(&state)?;
    Ok(HttpResponse::Ok().json(look(|| cluster.report())?.nodes))
}

pub async fn peers(state: Data<AdminState>) -> HttpAnswer {
    let cluster = cluster(&state)?;
    Ok(HttpResponse::Ok().json(look(|| cluster.peers())?))
}

/// The node's name, by that or its PeerId, and whether it is this one.
fn named(report: &ClusterReport, node: &str) -> Result<(String, bool), HttpRefusal> {
    match report.nodes.iter().find(|row| row.name == node || row.peer_id == node) {
        Some(row) => Ok((row.name.clone(), row.name == report.node)),
        None => refuse(StatusCode::NOT_FOUND, RemoteTreeError::Unknown { node: node.to_string() }.to_string()),
    }
}

fn far(answer: Result<impl Serialize, RemoteTreeError>) -> HttpAnswer {
    match answer {
        Ok(answer) => Ok(HttpResponse::Ok().json(answer)),
        Err(why @ RemoteTreeError::Unknown { .. }) => refuse(StatusCode::NOT_FOUND, why.to_string()),
        Err(why @ RemoteTreeError::NoAnswer { .. }) => refuse(StatusCode::GATEWAY_TIMEOUT, why.to_string()),
    }
}

/// A node that does not answer costs one answer, and its deadline.
pub async fn actors(state: Data<AdminState>, node: Path<String>) -> HttpAnswer {
    let cluster = cluster(&state)?;
    let (name, here) = named(&look(|| cluster.report())?, &node)?;
    if here {
        let rows = look(|| state.views.tree.snapshot())?;
        return Ok(HttpResponse::Ok().json(with_holders(&state, rows)?));
    }
    let rows = look(|| cluster.actors_of(&name))?.await;
    let holders = look(|| cluster.holders(&name))?;
    far(rows.map(|rows| rows.into_iter().map(|row| TreeRow::of(row, &name, &holders)).collect::<Vec<_>>()))
}

pub async fn full_nodes(state: Data<AdminState>, node: Path<String>) -> HttpAnswer {
    let cluster = cluster(&state)?;
    let (name, _) = named(&look(|| cluster.report())?, &node)?;
    far(look(|| cluster.full_nodes_of(&name))?.await)
}

pub async fn move_to(state: Data<AdminState>, request: HttpRequest, path: Path<(String, String)>) -> HttpAnswer {
    let (node, concern) = path.into_inner();
    authorize(&state, &request, &format!("move {concern} to {node}"))?;
    let report = look(|| cluster(&state).map(|cluster| cluster.report()))??;
    let concern = report.concern(&concern).or_else(|why| refuse(StatusCode::NOT_FOUND, why))?;
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
    let doing = look(|| cluster(state).map(|cluster| cluster.order(order.clone())))??;
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
