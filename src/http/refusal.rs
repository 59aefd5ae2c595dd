//! Every answer that is not what was asked for: a status and one sentence, as `{"error": "…"}`. What
//! went wrong inside is logged and counted here, and not told.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::db;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The sentence names the parameter.
    #[error("{0}")]
    Parameter(String),
    #[error("{0}")]
    NotAuthenticated(&'static str),
    #[error("{0}")]
    NotAllowed(String),
    #[error("{0}")]
    NotFound(String),
    /// Try again later.
    #[error("{0}")]
    Unavailable(&'static str),
}

impl Refusal {
    const fn status(&self) -> StatusCode {
        match self {
            Self::Parameter(_) => StatusCode::BAD_REQUEST,
            Self::NotAuthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::NotAllowed(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<db::Error> for Refusal {
    fn from(error: db::Error) -> Self {
        tracing::warn!(%error, "a request could not be answered");
        Self::Unavailable("the database does not answer; try again")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Json(json!({"error": self.to_string()}))).into_response();
        // RFC 9110, 11.6.1 and 10.2.3.
        match self {
            Self::NotAuthenticated(_) => {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Unavailable(_) => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
            }
            _ => {}
        }
        response
    }
}
