//! The HTTP shell: paths, statuses, JSON errors, the token on what changes something.

use super::readers::{Lane, Readers};
use super::views::{AdminViews, Readiness, TreeRow, alive, readiness};
use super::{AdminCheck, cluster_metrics, metrics, nodes, orders, provider_metrics};
use crate::rpc::refusal_log::{RefusalLog, shortened};
use crate::rpc::{cross_site, http_surface};
use crate::supervisor::{ActorInfo, InspectError};
use crate::util::time::unix_secs;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use actix_web::middleware::Next;
use actix_web::web::{self, Data, Path};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use serde_json::json;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub(super) struct AdminState {
    pub views: AdminViews,
    pub readers: Readers,
    pub allow: AdminCheck,
    pub refusals: RefusalLog,
}

pub(super) fn configure(config: &mut web::ServiceConfig) {
    let get = |path: &str| web::resource(path.to_string()).default_service(web::to(wrong_method));
    config
        .service(get("/").route(web::get().to(index)))
        .service(get("/health/live").route(web::get().to(live)))
        .service(get("/health/ready").route(web::get().to(ready)))
        .service(get("/info").route(web::get().to(info)))
        .service(get("/metrics").route(web::get().to(prometheus)))
        .service(get("/dead-letters").route(web::get().to(dead_letters)))
        .service(get("/stop").route(web::post().to(stop)))
        .service(get("/config/reload").route(web::post().to(orders::reload)))
        .service(get("/actors").route(web::get().to(actors)))
        .service(get("/actors/{path:.+}/kill").route(web::post().to(kill)))
        .service(get("/groups").route(web::get().to(groups)))
        .service(get("/journal").route(web::get().to(orders::journal)))
        .service(get("/actors/{path:.+}/restart").route(web::post().to(orders::restart)))
        .service(get("/actors/{path:.+}/suspend").route(web::post().to(orders::suspend)))
        .service(get("/actors/{path:.+}/resume").route(web::post().to(orders::resume)))
        .service(get("/actors/{path:.+}/stop").route(web::post().to(orders::stop)))
        .service(get("/actors/{path:.+}/panic").route(web::post().to(orders::panic)))
        .service(get("/actors/{path:.+}/hang").route(web::post().to(orders::hang)))
        .service(get("/actors/{path:.+}/inspect").route(web::get().to(inspect)))
        .service(get("/actors/{path:.*}").route(web::get().to(actor)))
        .service(get("/cluster").route(web::get().to(nodes::report)))
        .service(get("/nodes").route(web::get().to(nodes::nodes)))
        .service(get("/nodes/{node}/actors").route(web::get().to(nodes::actors)))
        .service(get("/nodes/{node}/full-nodes").route(web::get().to(nodes::full_nodes)))
        .service(get("/peers").route(web::get().to(nodes::peers)))
        .service(get("/cluster/move/{node}/{concern:.+}").route(web::post().to(nodes::move_to)))
        .service(get("/cluster/drain/{node}").route(web::post().to(nodes::drain)))
        .service(get("/cluster/undrain/{node}").route(web::post().to(nodes::undrain)))
        .default_service(web::to(nothing_here));
}

/// An answer that is an error: `{"error": why}`.
#[derive(Debug)]
pub(super) struct HttpRefusal {
    pub(super) status: StatusCode,
    pub(super) why: String,
}

pub(super) fn refuse<T>(status: StatusCode, why: impl Into<String>) -> Result<T, HttpRefusal> {
    Err(HttpRefusal { status, why: why.into() })
}

impl std::fmt::Display for HttpRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

impl ResponseError for HttpRefusal {
    fn status_code(&self) -> StatusCode {
        self.status
    }
    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        response.json(json!({ "error": self.why }))
    }
}

pub(super) type HttpAnswer = Result<HttpResponse, HttpRefusal>;

/// For what returns at once, on the thread that speaks HTTP; the rest is read through [`Readers`]. A panic costs one
/// answer, never the endpoint.
fn caught<T>(at: impl FnOnce() -> T) -> Result<T, HttpRefusal> {
    catch_unwind(AssertUnwindSafe(at)).or_else(|_| {
        refuse(StatusCode::INTERNAL_SERVER_ERROR, "what was asked for could not be looked up; see the node's log")
    })
}

async fn nothing_here(request: HttpRequest) -> HttpAnswer {
    refuse(StatusCode::NOT_FOUND, format!("nothing is at {}; GET / lists what there is", shortened(request.path())))
}

async fn wrong_method(request: HttpRequest) -> HttpAnswer {
    refuse(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {}", shortened(request.path()), request.method()))
}

async fn index() -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "node": concat!("bulkhead/", env!("CARGO_PKG_VERSION")),
        "get": ["/health/live", "/health/ready", "/info", "/actors", "/actors/{path}", "/actors/{path}/inspect", "/groups",
            "/dead-letters", "/journal", "/metrics", "/cluster", "/nodes", "/nodes/{node}/actors", "/nodes/{node}/full-nodes", "/peers"],
        "post_with_admin_token": ["/actors/{path}/{restart|suspend|resume|stop|kill}", "/actors/{path}/{panic|hang}", "/stop", "/config/reload",
            "/cluster/move/{node}/{concern}", "/cluster/{drain|undrain}/{node}"],
    }))
}

/// Reads three counters, so that nothing in the node can keep the answer.
async fn live(state: Data<AdminState>) -> HttpAnswer {
    let vitals = caught(|| state.views.tree.vitals())?;
    Ok(match alive(vitals) {
        true => HttpResponse::Ok().json(json!({ "live": true })),
        false => HttpResponse::ServiceUnavailable().json(json!({
            "live": false,
            "error": "the watchdog makes no rounds any more, so nothing finds a hung actor: restart the node",
        })),
    })
}

async fn ready(state: Data<AdminState>) -> HttpAnswer {
    let read = state.readers.read(Lane::Health, |views| {
        let troubles = views.tree.cluster().map(|cluster| cluster.report().troubles).unwrap_or_default();
        let provider = views.tree.provider();
        let next = provider.and_then(|provider| Some(provider.network.as_ref()?.next_upgrade.as_ref()?.line()));
        Ok(readiness(&views.tree.snapshot(), &views.critical).with(troubles).before(next))
    });
    let answer = match read.await {
        Err(HttpRefusal { status: StatusCode::SERVICE_UNAVAILABLE, why }) => Readiness::default().with(vec![why]),
        read => read?,
    };
    let status = if answer.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(HttpResponse::build(status).json(answer))
}

async fn info(state: Data<AdminState>) -> HttpResponse {
    HttpResponse::Ok().json(&**state.views.info.load())
}

async fn prometheus(state: Data<AdminState>) -> HttpAnswer {
    let text = state.readers.read(Lane::Reading, |views| {
        let (dead, vitals) = (views.tree.dead_letters(), views.tree.vitals());
        let mut text = metrics::render(&views.tree.snapshot(), dead.as_ref(), metrics::resident_bytes());
        text.push_str(&metrics::render_vitals(vitals.as_ref()));
        if let Some(provider) = views.tree.provider() {
            text.push_str(&provider_metrics::render(&provider, unix_secs()));
        }
        if let Some(cluster) = views.tree.cluster() {
            text.push_str(&cluster_metrics::render(&cluster.report(), &cluster.peers()));
        }
        Ok(text)
    });
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text.await?))
}

async fn dead_letters(state: Data<AdminState>) -> HttpAnswer {
    let letters = |views: &AdminViews| match views.tree.dead_letters() {
        Some(letters) => Ok(letters),
        None => refuse(StatusCode::NOT_FOUND, "this node keeps no dead letters"),
    };
    state.readers.json(Lane::Reading, letters).await
}

async fn actors(state: Data<AdminState>) -> HttpAnswer {
    state.readers.json(Lane::Reading, |views| Ok(with_holders(views, views.tree.snapshot()))).await
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

async fn groups(state: Data<AdminState>) -> HttpAnswer {
    state.readers.json(Lane::Reading, |views| Ok(views.tree.groups())).await
}

async fn actor(state: Data<AdminState>, path: Path<String>) -> HttpAnswer {
    let row = move |views: &AdminViews| Ok(with_holders(views, vec![find(views, &path)?]).pop());
    state.readers.json(Lane::Reading, row).await
}

/// The one reading that waits for an actor: that one alone, for a second at most.
async fn inspect(state: Data<AdminState>, path: Path<String>) -> HttpAnswer {
    let its = path.clone();
    let asked = move |views: &AdminViews| find(views, &its).map(|_| views.tree.inspect(&its));
    match state.readers.read(Lane::Reading, asked).await?.await {
        Ok(inspection) => Ok(HttpResponse::Ok().json(inspection)),
        Err(why) => refuse(inspect_status(&why), format!("{path}: {why}")),
    }
}

fn inspect_status(why: &InspectError) -> StatusCode {
    match why {
        InspectError::NotFound => StatusCode::NOT_FOUND,
        InspectError::NotAWorker | InspectError::ShowsNothing => StatusCode::CONFLICT,
        InspectError::NotRunning => StatusCode::SERVICE_UNAVAILABLE,
        InspectError::Silent(_) => StatusCode::GATEWAY_TIMEOUT,
    }
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

fn bearer(request: &HttpRequest) -> Option<&str> {
    let header = request.headers().get(AUTHORIZATION).and_then(|v| v.to_str().ok());
    header.and_then(|v| v.strip_prefix("Bearer ")).map(str::trim)
}

/// Health is open to every prober, by whatever name it calls this host; all else is no web page's to ask for.
pub(super) async fn refuse_cross_site<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    if let Err(why) = cross_site::check(request.request())
        && !request.path().starts_with("/health/")
    {
        let state = request.app_data::<Data<AdminState>>().cloned();
        let token = bearer(request.request()).map(str::to_string);
        let allowed = state.zip(token).is_some_and(|(state, token)| caught(|| (state.allow)(&token)).unwrap_or(false));
        if !allowed {
            let refusal = HttpRefusal { status: StatusCode::FORBIDDEN, why: why.to_string() };
            return Ok(request.into_response(refusal.error_response()).map_into_right_body());
        }
    }
    Ok(next.call(request).await?.map_into_left_body())
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

async fn kill(state: Data<AdminState>, request: HttpRequest, path: Path<String>) -> HttpAnswer {
    authorize(&state, &request, &format!("kill {path}"))?;
    let its = path.clone();
    let kill = move |views: &AdminViews| find(views, &its).map(|_| views.tree.kill(&its));
    let killed = state.readers.read(Lane::Orders, kill).await?;
    tracing::info!(target: "audit", action = "kill", path = %*path, killed, "admin action");
    if !killed {
        return refuse(StatusCode::CONFLICT, format!("{path} has no running incarnation that could be killed"));
    }
    Ok(HttpResponse::Ok().json(json!({ "killed": *path })))
}

async fn stop(state: Data<AdminState>, request: HttpRequest) -> HttpAnswer {
    authorize(&state, &request, "stop")?;
    caught(|| (state.views.stop)())?;
    Ok(HttpResponse::Accepted().json(json!({ "stopping": true })))
}
