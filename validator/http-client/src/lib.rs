//! The one door to HTTP: deadlines, size limits, bounded retries that honor `Retry-After`.

use std::time::Duration;

use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER},
    redirect::Policy,
};

use serde::Serialize;
use shared::term;

use subnet::{Fault, FaultKind};

const CONNECT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 5;
const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Returns a client with deadlines on connecting and on silence. It follows redirects to https
/// or loopback only; the library drops credentials when the host changes.
pub fn client() -> Result<Client, Fault> {
    Client::builder()
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .user_agent(concat!("finetune-vali/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::custom(|attempt| {
            if attempt.previous().len() > MAX_REDIRECTS {
                attempt.error("too many redirects")
            } else if is_safe(attempt.url()) {
                attempt.follow()
            } else {
                attempt.error("redirect to a host without https")
            }
        }))
        .build()
        .map_err(|error| Fault::machine(format!("could not set up the HTTP client: {error}")))
}

/// Returns whether secrets may travel there: https anywhere, plain http on this machine only.
pub fn is_safe(url: &Url) -> bool {
    url.scheme() == "https"
        || match url.host() {
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            Some(url::Host::Domain(domain)) => domain == "localhost",
            None => false,
        }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No answer, or none within the deadline.
    #[error("{url}: {reason}")]
    NoAnswer {
        /// What was asked.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// An answer that is no success.
    #[error("{url} answered {status}{}", if body.is_empty() { String::new() } else { format!(": {body}") })]
    Status {
        /// What was asked.
        url: String,
        /// The status.
        status: StatusCode,
        /// The beginning of the body.
        body: String,
    },
    /// The body is larger than it may be.
    #[error("{url} sent more than the {max} bytes allowed")]
    TooLarge {
        /// What was asked.
        url: String,
        /// The limit.
        max: u64,
    },
    /// The body is not what was expected.
    #[error("{url} sent something else than {expected}: {reason}")]
    Malformed {
        /// What was asked.
        url: String,
        /// What was expected.
        expected: &'static str,
        /// Where it differs.
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
}

impl From<HttpError> for Fault {
    fn from(error: HttpError) -> Self {
        Self::new(FaultKind::Outside, error)
    }
}

/// What takes the body of an answer, chunk by chunk.
pub trait Body {
    /// Takes the next chunk.
    fn take(&mut self, chunk: &[u8]);
}

impl Body for Vec<u8> {
    fn take(&mut self, chunk: &[u8]) {
        self.extend_from_slice(chunk);
    }
}

/// One request, described so that it can be repeated.
#[derive(Debug, Clone)]
pub struct Request {
    method: Method,
    url: Url,
    headers: HeaderMap,
    bearer: Option<String>,
    basic: Option<(String, String)>,
    json: Option<bytes::Bytes>,
    max_bytes: u64,
    deadline: Duration,
}

impl Request {
    /// A GET with limits on the size of the body and on the time for all attempts.
    pub fn get(url: Url, max_bytes: u64, deadline: Duration) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            bearer: None,
            basic: None,
            json: None,
            max_bytes,
            deadline,
        }
    }

    /// A POST of JSON: a value of our own, which always has a JSON form. Only for requests that
    /// may be repeated.
    pub fn post(url: Url, json: &impl Serialize, max_bytes: u64, deadline: Duration) -> Self {
        Self {
            method: Method::POST,
            json: Some(serde_json::to_vec(json).unwrap_or_default().into()),
            ..Self::get(url, max_bytes, deadline)
        }
    }

    /// Adds a bearer token.
    #[must_use]
    pub fn bearer(mut self, token: Option<&str>) -> Self {
        self.bearer = token.map(ToOwned::to_owned);
        self
    }

    /// Adds user and password.
    #[must_use]
    pub fn basic(mut self, user: &str, password: Option<&str>) -> Self {
        self.basic = password.map(|password| (user.to_owned(), password.to_owned()));
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(
        mut self,
        name: reqwest::header::HeaderName,
        value: reqwest::header::HeaderValue,
    ) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sends it, up to three times, and returns the body of a success.
    pub async fn send(&self, client: &Client) -> Result<Vec<u8>, HttpError> {
        self.receive(client, Vec::new).await
    }

    /// Sends it, up to three times; each attempt begins a body anew, that of a success is returned.
    pub async fn receive<B: Body>(
        &self,
        client: &Client,
        begin: impl Fn() -> B,
    ) -> Result<B, HttpError> {
        match tokio::time::timeout(self.deadline, self.attempts(client, begin)).await {
            Ok(result) => result,
            Err(_) => Err(HttpError::NoAnswer {
                url: self.shown(),
                reason: format!("no complete answer within {} s", self.deadline.as_secs()),
            }),
        }
    }

    /// Sends it and parses the body as JSON.
    pub async fn json<T: serde::de::DeserializeOwned>(
        &self,
        client: &Client,
    ) -> Result<T, HttpError> {
        let body = self.send(client).await?;
        serde_json::from_slice(&body).map_err(|error| HttpError::Malformed {
            url: self.shown(),
            expected: "the JSON expected",
            reason: error.to_string(),
        })
    }

    async fn attempts<B: Body>(
        &self,
        client: &Client,
        begin: impl Fn() -> B,
    ) -> Result<B, HttpError> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let (error, wait) = match self.attempt(client, begin()).await {
                Ok(body) => return Ok(body),
                Err(failed) => failed,
            };
            let Some(wait) = wait.filter(|_| attempt < ATTEMPTS) else {
                return Err(error);
            };
            tracing::debug!(%error, attempt, "request failed, trying again");
            tokio::time::sleep(wait.unwrap_or(pause).min(MAX_PAUSE)).await;
            pause *= 2;
        }
        unreachable!("the last attempt returns")
    }

    /// The error comes with when to try again: `None` never, `Some(None)` after the usual pause.
    async fn attempt<B: Body>(
        &self,
        client: &Client,
        mut body: B,
    ) -> Result<B, (HttpError, Option<Option<Duration>>)> {
        let no_answer = |error: reqwest::Error| HttpError::NoAnswer {
            url: self.shown(),
            reason: root_cause(&error),
        };
        let response = self.build(client).send().await.map_err(|error| {
            let again = (!error.is_redirect() && !error.is_builder()).then_some(None);
            (no_answer(error), again)
        })?;
        let status = response.status();
        if !status.is_success() {
            let again = is_transient(status).then(|| retry_after(response.headers()));
            let mut said = Vec::new();
            // Whatever comes of it will do.
            let _ = read_limited(response, 512, &mut said).await;
            let body = term::printable(String::from_utf8_lossy(&said).trim(), 200);
            return Err((
                HttpError::Status {
                    url: self.shown(),
                    status,
                    body,
                },
                again,
            ));
        }
        match read_limited(response, self.max_bytes, &mut body).await {
            Ok(()) => Ok(body),
            Err(None) => Err((
                HttpError::TooLarge {
                    url: self.shown(),
                    max: self.max_bytes,
                },
                None,
            )),
            Err(Some(error)) => Err((no_answer(error), Some(None))),
        }
    }

    fn build(&self, client: &Client) -> RequestBuilder {
        let mut builder = client
            .request(self.method.clone(), self.url.clone())
            .headers(self.headers.clone());
        if let Some(token) = &self.bearer {
            builder = builder.bearer_auth(token);
        }
        if let Some((user, password)) = &self.basic {
            builder = builder.basic_auth(user, Some(password));
        }
        match &self.json {
            Some(json) => builder
                .header(CONTENT_TYPE, "application/json")
                .body(json.clone()),
            None => builder,
        }
    }

    /// The address without what may be secret: user, password, query.
    fn shown(&self) -> String {
        shown(&self.url)
    }
}

/// Returns an address without what may be secret: user, password, query.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

fn is_transient(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
        )
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// `Err(None)` means too large.
async fn read_limited(
    mut response: Response,
    max: u64,
    body: &mut impl Body,
) -> Result<(), Option<reqwest::Error>> {
    let mut left = max;
    while let Some(chunk) = response.chunk().await.map_err(Some)? {
        left = left.checked_sub(chunk.len() as u64).ok_or(None)?;
        body.take(&chunk);
    }
    Ok(())
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
