//! Why a request failed, and whether the same request may succeed a moment later.

use std::{error::Error as _, time::Duration};

use reqwest::{Response, StatusCode, Url, header::HeaderName};
use serde::Deserialize;
use shared::term;
use subnet::{Fault, FaultKind};

use crate::headers::{requested_pause, text};

/// How much of a refusal's body is read.
const MAX_REFUSAL_BYTES: usize = 2048;
/// How much of it is shown.
const MAX_REFUSAL_CHARS: usize = 200;
/// How long the body of a refusal may take.
const REFUSAL_LIMIT: Duration = Duration::from_secs(5);

/// Why a request failed. Addresses are shown without what may be secret.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No answer, or one that stalled, broke off or came too late.
    #[error("{url}: {reason}")]
    NoAnswer {
        /// The address asked, without what may be secret.
        url: String,
        /// How the connection ended, with its causes.
        reason: String,
    },
    /// An answer other than success.
    #[error("{url} answered {status}{}", if body.is_empty() { String::new() } else { format!(": {body}") })]
    Status {
        /// The address asked, without what may be secret.
        url: String,
        /// The status of the answer.
        status: StatusCode,
        /// The beginning of its body.
        body: String,
        /// Whether the server asked answered itself, and not one that it redirected to.
        at_origin: bool,
        /// How long the server asks us to wait.
        retry_after: Option<Duration>,
    },
    /// The body is larger than the request allows.
    #[error("{url} sent more than the {max} bytes allowed")]
    TooLarge {
        /// The address asked, without what may be secret.
        url: String,
        /// Bytes that the request allows.
        max: u64,
    },
    /// A redirect leads where we don't go.
    #[error("{url}: {reason}")]
    Redirect {
        /// The address asked, without what may be secret.
        url: String,
        /// Why it is not followed.
        reason: String,
    },
    /// The body is not what was expected.
    #[error("{url} sent something else than {expected}: {reason}")]
    Malformed {
        /// The address asked, without what may be secret.
        url: String,
        /// What the body should have been.
        expected: &'static str,
        /// Where the body differs from that.
        reason: String,
    },
    /// The answer contradicts itself, or what was known of the file before.
    #[error("{url}: {reason}")]
    Contradiction {
        /// The address asked, without what may be secret.
        url: String,
        /// What contradicts what, with the values.
        reason: String,
    },
}

impl HttpError {
    /// Returns the status of the answer, if there was one.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Returns how long the server asks us to wait, if it says so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Returns whether the server says that this is not there for us: missing, private, gated,
    /// disabled. Another server that it redirected to can't say that: there, it means that a
    /// signed link has expired.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::Status {
                status: StatusCode::UNAUTHORIZED
                    | StatusCode::FORBIDDEN
                    | StatusCode::NOT_FOUND
                    | StatusCode::GONE
                    | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS,
                at_origin: true,
                ..
            }
        )
    }

    /// Returns whether the same request may succeed a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::NoAnswer { .. } => true,
            Self::Status {
                status, at_origin, ..
            } => {
                !at_origin
                    || status.is_server_error()
                    || matches!(
                        *status,
                        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
                    )
            }
            _ => false,
        }
    }

    /// Describes the end of a connection. `url` is the address asked: that of a redirect may hold
    /// a signature, which the library's own message would show.
    pub(crate) fn connection(url: &Url, error: &reqwest::Error) -> Self {
        let mut reason = if error.is_timeout() {
            "no bytes for too long".to_owned()
        } else if error.is_connect() {
            "no connection".to_owned()
        } else {
            "the connection broke".to_owned()
        };
        let mut source = error.source();
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        Self::no_answer(url, reason)
    }

    pub(crate) fn no_answer(url: &Url, reason: impl Into<String>) -> Self {
        Self::NoAnswer {
            url: shown(url),
            reason: reason.into(),
        }
    }

    pub(crate) fn contradiction(url: &Url, reason: impl Into<String>) -> Self {
        Self::Contradiction {
            url: shown(url),
            reason: reason.into(),
        }
    }

    pub(crate) fn redirect(url: &Url, reason: impl Into<String>) -> Self {
        Self::Redirect {
            url: shown(url),
            reason: reason.into(),
        }
    }

    /// Reads what a server says with a refusal.
    pub(crate) async fn refusal(url: &Url, response: Response, at_origin: bool) -> Self {
        let status = response.status();
        let retry_after = requested_pause(response.headers());
        let code = text(
            response.headers(),
            &HeaderName::from_static("x-error-message"),
        );
        let body = match code {
            Some(message) => message,
            // Whatever comes of it in time will do.
            None => tokio::time::timeout(REFUSAL_LIMIT, beginning(response))
                .await
                .unwrap_or_default(),
        };
        Self::Status {
            url: shown(url),
            status,
            body: term::printable(body.trim(), MAX_REFUSAL_CHARS),
            at_origin,
            retry_after,
        }
    }
}

impl From<HttpError> for Fault {
    fn from(error: HttpError) -> Self {
        Self::new(FaultKind::Outside, error)
    }
}

/// Returns the beginning of a refusal's body; of JSON that says `{"error": ..}`, just that.
async fn beginning(mut response: Response) -> String {
    #[derive(Deserialize)]
    struct RefusalBody {
        error: String,
    }
    let mut body = Vec::new();
    while body.len() < MAX_REFUSAL_BYTES
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk[..chunk.len().min(MAX_REFUSAL_BYTES - body.len())]);
    }
    match serde_json::from_slice(&body) {
        Ok(RefusalBody { error }) => error,
        Err(_) => String::from_utf8_lossy(&body).into_owned(),
    }
}

/// Returns an address without user and password, which travel in a header.
pub fn without_user(url: &Url) -> Url {
    let mut url = url.clone();
    // An address that can't have these has none.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

/// Returns an address without what may be secret: user, password, query.
pub fn shown(url: &Url) -> String {
    let mut url = without_user(url);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}
