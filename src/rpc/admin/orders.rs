//! Orders to one actor over HTTP: token, audit line, and an answer that says whether it is done.

use super::answer::HttpAnswer;
use super::answer::refuse;
use super::readers::Lane;
use super::state::AdminState;
use super::state::authorize;
use super::state::find;
use super::views::{AdminViews, ReloadError, TreeView};
use crate::supervisor::{ActorOrder, AdminError};
use actix_web::http::StatusCode;
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;
use std::time::Duration;

/// A longer order (an orderly stop may take an actor's whole shutdown time) goes on after the answer.
const WITHIN: Duration = Duration::from_secs(5);

async fn order(state: Data<AdminState>, request: HttpRequest, path: Path<String>, order: ActorOrder) -> HttpAnswer {
    let name = order.name();
    authorize(&state, &request, &format!("{name} {path}"))?;
    let its = path.clone();
    let begin = move |views: &AdminViews| find(views, &its).map(|_| views.tree.order(&its, order));
    let doing = state.readers.read(Lane::Orders, begin).await?;
    // On a task: an answer that nobody waits for any more does not take the order back half way.
    let done = tokio::time::timeout(WITHIN, actix_web::rt::spawn(doing)).await;
    let (outcome, answer) = match done {
        Ok(Ok(Ok(()))) => ("done".to_string(), Ok(HttpResponse::Ok().json(json!({ "order": name, "path": *path })))),
        Ok(Ok(Err(why))) => (why.to_string(), refuse(status(&why), format!("{path}: {why}"))),
        Ok(Err(why)) => (why.to_string(), refuse(StatusCode::INTERNAL_SERVER_ERROR, "see the node's log")),
        Err(_) => {
            let under_way = json!({ "order": name, "path": *path, "under_way": true });
            ("under way".to_string(), Ok(HttpResponse::Accepted().json(under_way)))
        }
    };
    tracing::info!(target: "audit", action = name, path = %*path, outcome, "admin action");
    answer
}

fn status(why: &AdminError) -> StatusCode {
    match why {
        AdminError::NotFound => StatusCode::NOT_FOUND,
        AdminError::NoSupervisor | AdminError::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CONFLICT,
    }
}

pub async fn restart(state: Data<AdminState>, request: HttpRequest, path: Path<String>) -> HttpAnswer {
    order(state, request, path, ActorOrder::Restart).await
}
pub async fn suspend(state: Data<AdminState>, request: HttpRequest, path: Path<String>) -> HttpAnswer {
    order(state, request, path, ActorOrder::Suspend).await
}
pub async fn resume(state: Data<AdminState>, request: HttpRequest, path: Path<String>) -> HttpAnswer {
    order(state, request, path, ActorOrder::Resume).await
}
pub async fn stop(state: Data<AdminState>, request: HttpRequest, path: Path<String>) -> HttpAnswer {
    order(state, request, path, ActorOrder::Stop).await
}

/// A reload that outlasts the deadline (a disk that hangs) goes on after the answer.
pub async fn reload(state: Data<AdminState>, request: HttpRequest) -> HttpAnswer {
    authorize(&state, &request, "config reload")?;
    let by = request.peer_addr().map(|from| from.to_string()).unwrap_or_default();
    let doing = state.readers.read(Lane::Orders, |views| Ok(views.tree.reload(by))).await?;
    match tokio::time::timeout(WITHIN, actix_web::rt::spawn(doing)).await {
        Ok(Ok(Ok(reloaded))) => Ok(HttpResponse::Ok().json(reloaded)),
        Ok(Ok(Err(why @ ReloadError::Faulty(_)))) => {
            refuse(StatusCode::UNPROCESSABLE_ENTITY, format!("nothing is changed: {why}"))
        }
        Ok(Ok(Err(why @ (ReloadError::UnderWay | ReloadError::NoOrigin)))) => {
            refuse(StatusCode::CONFLICT, why.to_string())
        }
        Ok(Err(_)) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "see the node's log"),
        Err(_) => Ok(HttpResponse::Accepted().json(json!({ "order": "config reload", "under_way": true }))),
    }
}

/// Drills: they show on a running node that a panic of this actor, or a hang, stays in it.
pub async fn panic(state: Data<AdminState>, request: HttpRequest, path: Path<String>) -> HttpAnswer {
    drill(state, request, path, ("panic", "panicked"), |tree, path| tree.panic(path)).await
}
pub async fn hang(state: Data<AdminState>, request: HttpRequest, path: Path<String>) -> HttpAnswer {
    drill(state, request, path, ("hang", "hung"), |tree, path| tree.hang(path)).await
}

async fn drill(
    state: Data<AdminState>,
    request: HttpRequest,
    path: Path<String>,
    (name, done): (&str, &str),
    strike: fn(&dyn TreeView, &str) -> bool,
) -> HttpAnswer {
    authorize(&state, &request, &format!("{name} {path}"))?;
    let its = path.clone();
    let hit = move |views: &AdminViews| find(views, &its).map(|_| strike(&*views.tree, &its));
    let struck = state.readers.read(Lane::Orders, hit).await?;
    tracing::warn!(target: "audit", action = name, path = %*path, struck, "admin action");
    if !struck {
        return refuse(StatusCode::CONFLICT, format!("{path} has no running incarnation that could {name}"));
    }
    Ok(HttpResponse::Ok().json(json!({ done: *path })))
}

/// Which incarnations ended, when and why.
pub async fn journal(state: Data<AdminState>) -> HttpAnswer {
    let entries = |views: &AdminViews| match views.tree.journal() {
        Some(entries) => Ok(entries),
        None => refuse(StatusCode::NOT_FOUND, "this node keeps no journal"),
    };
    state.readers.json(Lane::Reading, entries).await
}
