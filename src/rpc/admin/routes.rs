//! The HTTP shell: paths, statuses, JSON errors, the token on what changes something.

use super::views::{AdminViews, readiness};
use super::{AdminCheck, metrics};
use crate::supervisor::ActorInfo;
use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use actix_web::web::{self, Data, Path};
use actix_web::{HttpRequest, HttpResponse, Responder};
use serde_json::json;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub struct State {
    pub views: AdminViews,
    pub allow: AdminCheck,
}

pub fn configure(config: &mut web::ServiceConfig) {
    let get = |path: &str| web::resource(path.to_string()).default_service(web::to(wrong_method));
    config
        .service(get("/").route(web::get().to(index)))
        .service(get("/health/live").route(web::get().to(live)))
        .service(get("/health/ready").route(web::get().to(ready)))
        .service(get("/info").route(web::get().to(info)))
        .service(get("/metrics").route(web::get().to(prometheus)))
        .service(get("/dead-letters").route(web::get().to(dead_letters)))
        .service(get("/stop").route(web::post().to(stop)))
        .service(get("/actors").route(web::get().to(actors)))
        .service(get("/actors/{path:.+}/kill").route(web::post().to(kill)))
        .service(get("/actors/{path:.*}").route(web::get().to(actor)))
        .default_service(web::to(nothing_here));
}

fn error(status: StatusCode, why: impl std::fmt::Display) -> HttpResponse {
    HttpResponse::build(status).json(json!({ "error": why.to_string() }))
}

/// A view that panics costs one answer, never the endpoint.
fn look<T>(at: impl FnOnce() -> T) -> Result<T, HttpResponse> {
    catch_unwind(AssertUnwindSafe(at))
        .map_err(|_| error(StatusCode::INTERNAL_SERVER_ERROR, "the snapshot could not be taken; see the log"))
}

fn rows(state: &State) -> Result<Vec<ActorInfo>, HttpResponse> {
    look(|| state.views.tree.snapshot())
}

async fn nothing_here(request: HttpRequest) -> impl Responder {
    error(StatusCode::NOT_FOUND, format!("nothing is at {}; GET / lists what there is", request.path()))
}

async fn wrong_method(request: HttpRequest) -> impl Responder {
    error(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {}", request.path(), request.method()))
}

async fn index() -> impl Responder {
    HttpResponse::Ok().json(json!({
        "node": concat!("bulkhead/", env!("CARGO_PKG_VERSION")),
        "get": ["/health/live", "/health/ready", "/info", "/actors", "/actors/{path}", "/dead-letters", "/metrics"],
        "post_with_admin_token": ["/actors/{path}/kill", "/stop"],
    }))
}

async fn live() -> impl Responder {
    HttpResponse::Ok().json(json!({ "live": true }))
}

async fn ready(state: Data<State>) -> HttpResponse {
    match rows(&state) {
        Err(response) => response,
        Ok(rows) => {
            let answer = readiness(&rows, &state.views.critical);
            let status = if answer.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            HttpResponse::build(status).json(answer)
        }
    }
}

async fn info(state: Data<State>) -> impl Responder {
    HttpResponse::Ok().json(&**state.views.info.load())
}

async fn prometheus(state: Data<State>) -> HttpResponse {
    match rows(&state) {
        Err(response) => response,
        Ok(rows) => HttpResponse::Ok()
            .content_type("text/plain; version=0.0.4; charset=utf-8")
            .body(metrics::render(&rows, metrics::resident_bytes())),
    }
}

async fn dead_letters(state: Data<State>) -> HttpResponse {
    match look(|| state.views.tree.dead_letters()) {
        Err(response) => response,
        Ok(Some(letters)) => HttpResponse::Ok().json(letters),
        Ok(None) => error(StatusCode::NOT_FOUND, "this node keeps no dead letters"),
    }
}

async fn actors(state: Data<State>) -> HttpResponse {
    rows(&state).map_or_else(|response| response, |rows| HttpResponse::Ok().json(rows))
}

async fn actor(state: Data<State>, path: Path<String>) -> HttpResponse {
    match find(&state, &path) {
        Err(response) => response,
        Ok(row) => HttpResponse::Ok().json(row),
    }
}

fn find(state: &State, path: &str) -> Result<ActorInfo, HttpResponse> {
    if path.is_empty() || path.contains('\0') || path.starts_with('/') || path.ends_with('/') {
        let why = format!("{path:?} is no actor path; they look like root/proving/window_post, see GET /actors");
        return Err(error(StatusCode::BAD_REQUEST, why));
    }
    let row = rows(state)?.into_iter().find(|row| row.path == path);
    row.ok_or_else(|| error(StatusCode::NOT_FOUND, format!("no actor is at {path}; GET /actors lists them")))
}

/// Who may change something; every attempt is on record.
fn authorize(state: &State, request: &HttpRequest, action: &str) -> Result<(), HttpResponse> {
    let token =
        request.headers().get(AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    let allowed = match token {
        Some(token) => look(|| (state.allow)(token.trim()))?,
        None => false,
    };
    let from = request.peer_addr().map(|a| a.to_string()).unwrap_or_default();
    tracing::info!(target: "audit", action, from, allowed, "admin request");
    if allowed {
        return Ok(());
    }
    let why = match token {
        None => {
            "this needs the admin token: send `Authorization: Bearer <token>` with what `token` in the node's repo holds"
        }
        Some(_) => "that token may not administer this node",
    };
    Err(HttpResponse::Unauthorized().insert_header((WWW_AUTHENTICATE, "Bearer")).json(json!({ "error": why })))
}

async fn kill(state: Data<State>, request: HttpRequest, path: Path<String>) -> HttpResponse {
    let done = authorize(&state, &request, &format!("kill {path}"))
        .and_then(|()| find(&state, &path))
        .and_then(|_| look(|| state.views.tree.kill(&path)));
    tracing::info!(target: "audit", action = "kill", path = %*path, killed = matches!(done, Ok(true)), "admin action");
    match done {
        Err(response) => response,
        Ok(true) => HttpResponse::Ok().json(json!({ "killed": *path })),
        Ok(false) => error(StatusCode::CONFLICT, format!("{path} has no running incarnation that could be killed")),
    }
}

async fn stop(state: Data<State>, request: HttpRequest) -> HttpResponse {
    match authorize(&state, &request, "stop").and_then(|()| look(|| (state.views.stop)())) {
        Err(response) => response,
        Ok(()) => HttpResponse::Accepted().json(json!({ "stopping": true })),
    }
}
