//! The sample feed: conversations over HTTP, as JSON lines and as one JSON array.

use std::sync::{Arc, PoisonError, RwLock};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use sha2::{Digest as _, Sha256};
use shared::Failure;

use crate::{
    http::{Bound, Faults, Server},
    samples::{Conversation, to_jsonl},
};

#[derive(Debug, Default)]
struct Shown {
    conversations: Vec<Conversation>,
    token: Option<String>,
}

/// A running feed. Dropping it closes its port.
#[derive(Debug)]
pub struct Feed {
    pub server: Server,
    shown: Arc<RwLock<Shown>>,
}

impl Feed {
    /// Starts a feed of these conversations.
    pub async fn start(port: u16, conversations: Vec<Conversation>) -> Result<Self, Failure> {
        let bound = Bound::take(port, "the sample feed").await?;
        let shown = Arc::new(RwLock::new(Shown {
            conversations,
            token: None,
        }));
        let router = Router::new()
            .route("/samples.jsonl", get(json_lines))
            .route("/samples.json", get(json_array))
            .with_state(Arc::clone(&shown));
        Ok(Self {
            server: bound.serve("feed", router, Faults::default()),
            shown,
        })
    }

    /// Returns the URL of the JSON lines.
    pub fn url(&self) -> String {
        format!("{}/samples.jsonl", self.server.url())
    }

    /// Shows other conversations from now on.
    pub fn show(&self, conversations: Vec<Conversation>) {
        self.shown
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .conversations = conversations;
    }

    /// Demands this bearer token from now on; `None` demands nothing.
    pub fn demand_token(&self, token: Option<String>) {
        self.shown
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .token = token;
    }
}

type Shared = State<Arc<RwLock<Shown>>>;

async fn json_lines(State(shown): Shared, headers: HeaderMap) -> Response {
    let shown = shown.read().unwrap_or_else(PoisonError::into_inner);
    send(
        &shown,
        &headers,
        "application/jsonl",
        to_jsonl(&shown.conversations),
    )
}

async fn json_array(State(shown): Shared, headers: HeaderMap) -> Response {
    let shown = shown.read().unwrap_or_else(PoisonError::into_inner);
    let body = serde_json::to_string(&shown.conversations).unwrap_or_default();
    send(&shown, &headers, "application/json", body)
}

fn send(shown: &Shown, asked: &HeaderMap, kind: &'static str, body: String) -> Response {
    if let Some(token) = &shown.token
        && asked
            .get(header::AUTHORIZATION)
            .is_none_or(|value| *value != format!("Bearer {token}"))
    {
        return crate::http::error(StatusCode::UNAUTHORIZED, "a token is needed");
    }
    let etag = format!("\"{}\"", hex::encode(&Sha256::digest(&body)[..16]));
    let Ok(etag) = HeaderValue::from_str(&etag) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::ETAG, etag.clone()),
    ];
    if asked.get(header::IF_NONE_MATCH) == Some(&etag) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, body).into_response()
}
