//! The HTTP side: who calls, one request or a batch in a POST, the upgrade to a WebSocket.

use super::dispatch::Dispatch;
use super::envelope::{Request, RpcError, answer, as_v1, read_request};
use super::{MAX_BODY, Service, channel};
use crate::rpc::auth::Perm;
use actix_web::http::StatusCode;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::watch;

const MAX_BATCH: usize = 256;

/// What all connections share.
pub struct Shared {
    dispatch: Arc<Dispatch>,
    stop: watch::Receiver<bool>,
}

impl Shared {
    pub fn new(service: Service, stop: watch::Receiver<bool>) -> Shared {
        Shared { dispatch: Arc::new(Dispatch::new(service)), stop }
    }
}

/// A token in the header or, as go-jsonrpc takes it too, in the query; a wrong one is refused, none gives the default.
fn permissions(shared: &Shared, request: &HttpRequest) -> Result<Vec<Perm>, String> {
    #[derive(Deserialize)]
    struct Query {
        token: Option<String>,
    }
    let auth = &shared.dispatch.service.auth;
    let token = match request.headers().get(AUTHORIZATION).map(|h| h.to_str()) {
        Some(Ok(header)) => match header.strip_prefix("Bearer ") {
            Some(token) => Some(token.to_string()),
            None => return Err("missing Bearer prefix in auth header".into()),
        },
        Some(Err(_)) => return Err("the auth header is not text".into()),
        None => web::Query::<Query>::from_query(request.query_string()).ok().and_then(|q| q.into_inner().token),
    };
    match token.filter(|t| !t.is_empty()) {
        None => Ok(auth.without_token().to_vec()),
        Some(token) => auth.verify(&token).map_err(|e| e.to_string()),
    }
}

fn unauthorized(request: &HttpRequest, why: String) -> HttpResponse {
    tracing::warn!(peer = ?request.peer_addr(), why, "API call refused");
    HttpResponse::Unauthorized().body(why)
}

/// `POST /rpc/v1`; the content type does not matter.
pub async fn post(
    request: HttpRequest,
    version: web::Path<String>,
    body: web::Bytes,
    shared: web::Data<Shared>,
) -> HttpResponse {
    let perms = match permissions(&shared, &request) {
        Ok(perms) => perms,
        Err(why) => return unauthorized(&request, why),
    };
    let refuse = |e: RpcError| respond(e.http_status(), Some(answer(&Value::Null, &Err(e))));
    match serde_json::from_slice(&body) {
        Err(_) => refuse(RpcError::parse("Parse error")),
        Ok(Value::Array(list)) if list.is_empty() || list.len() > MAX_BATCH => {
            refuse(RpcError::invalid_request("Invalid request"))
        }
        Ok(Value::Array(list)) => {
            let mut answers = Vec::new();
            for one in list {
                answers.extend(respond_to(&shared.dispatch, &perms, &version, one).await.1);
            }
            respond(200, Some(Value::Array(answers)))
        }
        Ok(one) => {
            let (status, answer) = respond_to(&shared.dispatch, &perms, &version, one).await;
            respond(status, answer)
        }
    }
}

/// The answer to one request and the HTTP status that goes with it; a notification has none.
async fn respond_to(dispatch: &Dispatch, perms: &[Perm], version: &str, one: Value) -> (u16, Option<Value>) {
    let (id, outcome) = match read_request(one) {
        Err((id, error)) => (Some(id), Err(error)),
        Ok(Request { id, method, params }) => {
            let params = as_v1(version, &method, params);
            (id, dispatch.call(perms, &method, params).await)
        }
    };
    let status = outcome.as_ref().err().map_or(200, RpcError::http_status);
    (status, id.map(|id| answer(&id, &outcome)))
}

fn respond(status: u16, body: Option<Value>) -> HttpResponse {
    let mut response = HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    match body {
        Some(body) => response.content_type("application/json").body(body.to_string()),
        None => response.finish(),
    }
}

/// `GET /rpc/v1` with `Upgrade: websocket`.
pub async fn upgrade(
    request: HttpRequest,
    version: web::Path<String>,
    body: web::Payload,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, actix_web::Error> {
    let perms = match permissions(&shared, &request) {
        Ok(perms) => perms,
        Err(why) => return Ok(unauthorized(&request, why)),
    };
    let (response, session, stream) = actix_ws::handle(&request, body)?;
    let stream = stream.max_frame_size(MAX_BODY).aggregate_continuations().max_continuation_size(MAX_BODY);
    let caller = channel::Caller { perms, version: version.into_inner(), dispatch: shared.dispatch.clone() };
    actix_web::rt::spawn(channel::run(session, stream, caller, shared.stop.clone()));
    Ok(response)
}
