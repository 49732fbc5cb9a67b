//! A server whose answers a test decides, and what it was asked.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Body, extract::State, http::Request, response::Response};
use http_client::{HttpClient, HttpOptions, RetryPolicy};
use shared::task::TaskSet;
use url::Url;

/// One request: method, path, and the headers that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) range: Option<String>,
    pub(crate) authorized: bool,
}

type Answer = Arc<dyn Fn(&Asked, usize) -> Response + Send + Sync>;

pub(crate) struct Server {
    pub(crate) url: Url,
    asked: Arc<Mutex<Vec<Asked>>>,
    _tasks: TaskSet,
}

impl Server {
    /// Answers each request by `answer`, which is told how many came before.
    pub(crate) async fn start(
        answer: impl Fn(&Asked, usize) -> Response + Send + Sync + 'static,
    ) -> Self {
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let state = (Arc::new(answer) as Answer, Arc::clone(&asked));
        let router = Router::new().fallback(serve).with_state(state);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let mut tasks = TaskSet::new();
        tasks.spawn("server", async move {
            axum::serve(listener, router).await.unwrap();
            Ok(())
        });
        Self {
            url: url.parse().unwrap(),
            asked,
            _tasks: tasks,
        }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    State((answer, all)): State<(Answer, Arc<Mutex<Vec<Asked>>>)>,
    request: Request<Body>,
) -> Response {
    let header = |name: &str| {
        let value = request.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    let asked = Asked {
        line: format!("{} {}", request.method(), request.uri()),
        range: header("range"),
        authorized: header("authorization").is_some(),
    };
    let before = {
        let mut all = all.lock().unwrap();
        all.push(asked.clone());
        all.len() - 1
    };
    answer(&asked, before)
}

/// A client that does not wait long.
pub(crate) fn client() -> HttpClient {
    let retry = RetryPolicy {
        attempts: 3,
        first_pause: std::time::Duration::from_millis(1),
        ..RetryPolicy::default()
    };
    let options = HttpOptions {
        retry,
        ..HttpOptions::default()
    };
    HttpClient::new(options).unwrap()
}
