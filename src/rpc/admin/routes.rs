//! The HTTP shell: paths, statuses, JSON errors, the token on what changes something.

use super::answer::HttpAnswer;
use super::answer::HttpRefusal;
use super::answer::caught;
use super::answer::refuse;
use super::readers::Lane;
use super::state::AdminState;
use super::state::authorize;
use super::state::bearer;
use super::state::find;
use super::state::with_holders;
use super::views::{AdminViews, Readiness, alive, readiness};
use super::{cluster_metrics, metrics, nodes, orders, provider_metrics};
use crate::rpc::cross_site;
use crate::rpc::refusal_log::shortened;
use crate::supervisor::InspectError;
use crate::util::time::unix_secs;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::Next;
use actix_web::web::{self, Data, Path};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use serde_json::json;

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
