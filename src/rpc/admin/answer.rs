//! Answers of the HTTP shell, and errors as JSON.

use actix_web::http::StatusCode;
use actix_web::http::header::WWW_AUTHENTICATE;
use actix_web::{HttpResponse, ResponseError};
use serde_json::json;
use std::panic::{AssertUnwindSafe, catch_unwind};

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

/// For what returns at once, on the thread that speaks HTTP; the rest is read through [`super::readers`]. A panic costs one
/// answer, never the endpoint.
pub(super) fn caught<T>(at: impl FnOnce() -> T) -> Result<T, HttpRefusal> {
    catch_unwind(AssertUnwindSafe(at)).or_else(|_| {
        refuse(StatusCode::INTERNAL_SERVER_ERROR, "what was asked for could not be looked up; see the node's log")
    })
}
