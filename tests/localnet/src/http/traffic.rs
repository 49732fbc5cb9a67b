//! What a server was asked and how many body bytes it sent, for assertions on bytes per refusal.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request as HttpRequest, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::Response,
};
use futures::TryStreamExt as _;
use serde::{Deserialize, Serialize};

/// Requests remembered; older ones are forgotten first.
const CAPACITY: usize = 20_000;

/// One request as the server saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub method: String,
    pub target: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// The `User-Agent` header.
    pub user_agent: Option<String>,
    /// Whether it carried an `Authorization` header.
    pub authorized: bool,
    pub status: u16,
    /// Body bytes handed to the connection so far.
    pub bytes: u64,
}

#[derive(Debug)]
struct Entry {
    request: Request,
    sent: Arc<AtomicU64>,
}

/// The log of one server. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    entries: Arc<Mutex<VecDeque<Entry>>>,
}

impl Traffic {
    /// Returns all requests, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .iter()
            .map(|entry| Request {
                bytes: entry.sent.load(Ordering::Relaxed),
                ..entry.request.clone()
            })
            .collect()
    }

    /// Returns the body bytes sent in all requests whose target contains `part`.
    pub fn bytes(&self, part: &str) -> u64 {
        self.requests()
            .iter()
            .filter(|r| r.target.contains(part))
            .map(|r| r.bytes)
            .sum()
    }

    pub fn clear(&self) {
        self.entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn push(&self, entry: Entry) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() == CAPACITY {
            entries.pop_front();
        }
        entries.push_back(entry);
    }
}

/// The middleware: notes the request and counts the body's bytes as they leave.
pub async fn record(State(traffic): State<Traffic>, request: HttpRequest, next: Next) -> Response {
    let mut noted = Request {
        method: request.method().to_string(),
        target: request.uri().to_string(),
        range: text(request.headers(), header::RANGE),
        user_agent: text(request.headers(), header::USER_AGENT),
        authorized: request.headers().contains_key(header::AUTHORIZATION),
        status: 0,
        bytes: 0,
    };
    let response = next.run(request).await;
    noted.status = response.status().as_u16();
    let sent = Arc::new(AtomicU64::new(0));
    traffic.push(Entry {
        request: noted,
        sent: Arc::clone(&sent),
    });
    counted(response, sent)
}

/// Counts the bytes of a body as they leave. A stream has no length of its own, so that the
/// header is set where the length is known.
fn counted(response: Response, sent: Arc<AtomicU64>) -> Response {
    let (mut parts, body) = response.into_parts();
    match body.size_hint().exact() {
        Some(0) => return Response::from_parts(parts, body),
        Some(length) => {
            parts
                .headers
                .entry(header::CONTENT_LENGTH)
                .or_insert_with(|| length.into());
        }
        None => {}
    }
    let stream = body.into_data_stream().inspect_ok(move |data: &Bytes| {
        sent.fetch_add(data.len() as u64, Ordering::Relaxed);
    });
    Response::from_parts(parts, Body::from_stream(stream))
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    headers
        .get(name)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}
