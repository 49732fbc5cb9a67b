//! How the hub says no.

use axum::{
    http::{HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};

/// Refusals, as the hub words them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HubRefusal {
    Repo { logged_in: bool },
    Revision,
    Entry,
    Gated { logged_in: bool },
}

impl IntoResponse for HubRefusal {
    fn into_response(self) -> Response {
        let (status, code, message) = match self {
            // To strangers the hub does not tell a missing repository from a private one.
            Self::Repo { logged_in: false } => (
                StatusCode::UNAUTHORIZED,
                "RepoNotFound",
                "Invalid username or password.",
            ),
            Self::Repo { logged_in: true } => (
                StatusCode::NOT_FOUND,
                "RepoNotFound",
                "Repository not found",
            ),
            Self::Revision => (StatusCode::NOT_FOUND, "RevisionNotFound", "Invalid rev id"),
            Self::Entry => (StatusCode::NOT_FOUND, "EntryNotFound", "Entry not found"),
            Self::Gated { logged_in } => {
                let status = if logged_in {
                    StatusCode::FORBIDDEN
                } else {
                    StatusCode::UNAUTHORIZED
                };
                (
                    status,
                    "GatedRepo",
                    "Access to this repository is restricted",
                )
            }
        };
        let mut response = crate::http::error(status, message);
        let headers = response.headers_mut();
        headers.insert("x-error-code", HeaderValue::from_static(code));
        headers.insert("x-error-message", HeaderValue::from_static(message));
        response
    }
}
