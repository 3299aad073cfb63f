//! The HTTP side: who calls, one request or a batch in a POST, the upgrade to a WebSocket.

use super::bounds::{self, Body, BodyRoom, Bounds, KNOWN, STRANGER};
use super::dispatch::Dispatch;
use super::envelope::{Request, RpcError, answer_text, read_request};
use super::json::read_json;
use super::service::Service;
use super::strangers::{AnswerBody, Room, Strangers};
use super::{channel, frames};
use crate::rpc::auth::Perm;
use crate::rpc::connection_limits::ConnectionLimiter;
use crate::rpc::refusal_log::{RefusalLog, shortened};
use crate::rpc::{cross_site, http_surface};
use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::watch;

/// The state that all connections share.
pub struct ServerState {
    dispatch: Arc<Dispatch>,
    sockets: ConnectionLimiter,
    bodies: BodyRoom,
    strangers: Strangers,
    refusals: RefusalLog,
    stop: watch::Receiver<bool>,
}

impl ServerState {
    pub fn new(service: Service, sockets: ConnectionLimiter, stop: watch::Receiver<bool>) -> ServerState {
        ServerState {
            dispatch: Arc::new(Dispatch::new(service)),
            sockets,
            bodies: BodyRoom::new(bounds::LARGE_BODIES),
            strangers: Strangers::new(),
            refusals: RefusalLog::default(),
            stop,
        }
    }

    /// Version 2 of the API is the upstream servers' alone.
    fn serves(&self, version: &str) -> bool {
        version != "v2" || self.dispatch.service.upstream.is_some()
    }

    /// An answer to a request that is not looked at any further: its body stays unread.
    fn refuse(&self, request: &HttpRequest, (status, why): (StatusCode, String)) -> HttpResponse {
        if let Some(left_out) = self.refusals.take() {
            tracing::warn!(peer = ?request.peer_addr(), why = shortened(&why), left_out, "API call refused");
        }
        HttpResponse::build(status).force_close().body(why)
    }
}

/// The sender of a request.
struct Caller {
    perms: Vec<Perm>,
    /// It showed a valid token.
    known: bool,
}

impl Caller {
    fn bounds(&self) -> &'static Bounds {
        if self.known { &KNOWN } else { &STRANGER }
    }
}

/// A token in the header or, as go-jsonrpc takes it too, in the query; a wrong one is refused, none gives the default.
/// Decided by the request's head alone.
fn caller(shared: &ServerState, request: &HttpRequest) -> Result<Caller, (StatusCode, String)> {
    #[derive(Deserialize)]
    struct Query {
        token: Option<String>,
    }
    let auth = &shared.dispatch.service.auth;
    let unauthorized = |why: String| (StatusCode::UNAUTHORIZED, why);
    let token = match request.headers().get(AUTHORIZATION).map(|h| h.to_str()) {
        Some(Ok(header)) => match header.strip_prefix("Bearer ") {
            Some(token) => Some(token.to_string()),
            None => return Err(unauthorized("missing Bearer prefix in auth header".into())),
        },
        Some(Err(_)) => return Err(unauthorized("the auth header is not text".into())),
        None => web::Query::<Query>::from_query(request.query_string()).ok().and_then(|q| q.into_inner().token),
    };
    let Some(token) = token.filter(|t| !t.is_empty()) else {
        cross_site::check(request).map_err(|why| (StatusCode::FORBIDDEN, why.to_string()))?;
        return Ok(Caller { perms: auth.without_token().to_vec(), known: false });
    };
    let perms = auth.verify(&token).map_err(|e| unauthorized(e.to_string()))?;
    if !http_surface::identify(request) {
        return Err((StatusCode::SERVICE_UNAVAILABLE, "too many connections with a token at once; try again".into()));
    }
    Ok(Caller { perms, known: true })
}

/// Whether the body is said to be JSON, as jsonrpsee (Forest) demands it; go-jsonrpc (Lotus) does not look.
fn is_json(request: &HttpRequest) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = content_type.split(';').map(str::trim);
    let json = parts.next().is_some_and(|kind| {
        ["application/json", "application/json-rpc"].iter().any(|name| kind.eq_ignore_ascii_case(name))
    });
    json && parts.all(|parameter| parameter.eq_ignore_ascii_case("charset=utf-8"))
}

/// `POST /rpc/v1`. A full node wants to be told that the body is JSON; a storage provider's own API does not look.
pub async fn post(
    request: HttpRequest,
    version: web::Path<String>,
    payload: web::Payload,
    shared: web::Data<ServerState>,
) -> HttpResponse {
    if !shared.serves(&version) {
        return HttpResponse::NotFound().finish();
    }
    let caller = match caller(&shared, &request) {
        Ok(caller) => caller,
        Err(why) => return shared.refuse(&request, why),
    };
    if shared.dispatch.service.node.is_some() && !is_json(&request) {
        let why = "Supplied content type is not allowed. Content-Type: application/json is required".to_string();
        return shared.refuse(&request, (StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let body = match bounds::read(payload, length, caller.bounds(), &shared.bodies).await {
        Ok(body) => body,
        Err(why) => {
            let status = StatusCode::from_u16(why.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
            return shared.refuse(&request, (status, why.to_string()));
        }
    };
    let refuse = |e: RpcError| {
        let text = answer_text(&Value::Null, Err(e.clone()));
        respond(e.http_status(), Some(text), Room::default())
    };
    // The room of a large body is kept until its call is answered.
    let Body { bytes, .. } = &body;
    match read_json(bytes, caller.bounds()) {
        Err(why) => refuse(why),
        Ok(Value::Array(list)) if list.is_empty() || list.len() > caller.bounds().batch => {
            refuse(RpcError::invalid_request("Invalid request"))
        }
        Ok(Value::Array(list)) => {
            let mut answers: Vec<String> = Vec::new();
            let mut size = AnswerSize::default();
            for one in list {
                match respond_to(&shared, &caller, &version, one, &mut size).await {
                    Ok((_, answer)) => answers.extend(answer),
                    Err(full) => return refuse(full),
                }
            }
            respond(200, Some(format!("[{}]", answers.join(","))), size.room)
        }
        Ok(one) => {
            let mut size = AnswerSize::default();
            match respond_to(&shared, &caller, &version, one, &mut size).await {
                Ok((status, answer)) => respond(status, answer, size.room),
                Err(full) => refuse(full),
            }
        }
    }
}

/// The bytes of a POST's answers so far, and their room.
#[derive(Default)]
struct AnswerSize {
    bytes: usize,
    room: Room,
}

/// The answer to one request and the HTTP status that goes with it; a notification has none. An error: there is no room
/// for the answers of this POST.
async fn respond_to(
    shared: &ServerState,
    caller: &Caller,
    version: &str,
    one: Value,
    size: &mut AnswerSize,
) -> Result<(u16, Option<String>), RpcError> {
    // The turn is kept until the answer has its room.
    let (id, outcome, _turn) = match read_request(one) {
        Err((id, error)) => (Some(id), Err(error), None),
        Ok(Request { id, method, params }) => match shared.strangers.turn(caller.known, &method).await {
            Err(busy) => (id, Err(busy), None),
            Ok(turn) => (id, shared.dispatch.call(&caller.perms, version, &method, params).await, Some(turn)),
        },
    };
    let status = outcome.as_ref().err().map_or(200, RpcError::http_status);
    let answer = id.map(|id| answer_text(&id, outcome));
    size.bytes += answer.as_ref().map_or(0, |answer| answer.len() + 1);
    shared.strangers.grow(caller.known, &mut size.room, size.bytes)?;
    Ok((status, answer))
}

fn respond(status: u16, body: Option<String>, room: Room) -> HttpResponse {
    let mut response = HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    match body {
        Some(body) => response.content_type("application/json").body(AnswerBody::new(body, room)),
        None => response.finish(),
    }
}

/// `GET /rpc/v1` with `Upgrade: websocket`.
pub async fn upgrade(
    request: HttpRequest,
    version: web::Path<String>,
    body: web::Payload,
    shared: web::Data<ServerState>,
) -> Result<HttpResponse, actix_web::Error> {
    if !shared.serves(&version) {
        return Ok(HttpResponse::NotFound().finish());
    }
    let caller = match caller(&shared, &request) {
        Ok(caller) => caller,
        Err(why) => return Ok(shared.refuse(&request, why)),
    };
    let full = || {
        let why = "too many WebSockets at once; close some, or try again with a token".to_string();
        Ok(shared.refuse(&request, (StatusCode::SERVICE_UNAVAILABLE, why)))
    };
    let Some(permit) = shared.sockets.admit(request.peer_addr().map(|peer| peer.ip())) else { return full() };
    if caller.known && !permit.connection().identify() {
        return full();
    }
    let bounds = caller.bounds();
    let most = bounds.message;
    let body = frames::limited(&request, body, most)?;
    let (response, session, stream) = actix_ws::handle(&request, body)?;
    let stream = stream.max_frame_size(most).aggregate_continuations().max_continuation_size(most);
    let caller = channel::Caller {
        perms: caller.perms,
        version: version.into_inner(),
        dispatch: shared.dispatch.clone(),
        bounds,
        known: caller.known,
        strangers: shared.strangers.clone(),
    };
    let stop = shared.stop.clone();
    actix_web::rt::spawn(async move {
        channel::run(session, stream, caller, stop).await;
        drop(permit);
    });
    Ok(response)
}
