//! The client: its connections and time limits, and how one request is sent and redirected.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{
        ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue,
        LOCATION, RANGE,
    },
    redirect::Policy,
};
use subnet::{Fault, FaultKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    credentials::Credentials,
    error::{HttpError, without_user},
    headers::text,
    observer::HttpObserver,
    pace::{ByteCounter, Pace},
    redirect::{self, MAX_REDIRECTS},
    retry::RetryPolicy,
};

/// How long a connection nobody uses is kept.
const IDLE: Duration = Duration::from_secs(30);

/// How long to wait for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    /// For the next bytes of an answer.
    pub stall: Duration,
    /// The time in which a range must bring 16 KiB.
    pub trickle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            trickle: Duration::from_secs(60),
        }
    }
}

/// How much of the network to take, how long to wait, and how often to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpOptions {
    /// How long to wait for a server.
    pub timeouts: Timeouts,
    /// How often to try again.
    pub retry: RetryPolicy,
    /// Most connections at once, over all clones.
    pub connections: usize,
    /// Most bytes per second, over all connections.
    pub bandwidth: Option<u64>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
            connections: 16,
            bandwidth: None,
        }
    }
}

/// The TLS library could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("could not set up the HTTP client")]
pub struct SetupError(#[from] reqwest::Error);

impl From<SetupError> for Fault {
    fn from(error: SetupError) -> Self {
        Self::new(FaultKind::Machine, error)
    }
}

/// A client. Clones share connections and limits.
#[derive(Debug, Clone)]
pub struct HttpClient {
    shared: Arc<ClientState>,
    received: Arc<ByteCounter>,
    observer: Option<Arc<dyn HttpObserver>>,
}

#[derive(Debug)]
struct ClientState {
    options: HttpOptions,
    library: reqwest::Client,
    connections: Arc<Semaphore>,
    pace: Pace,
}

/// What is sent, to the first address and to those it redirects to.
pub(crate) struct Outgoing<'a> {
    pub(crate) method: Method,
    /// The address asked: errors name it, and credentials are meant for its origin.
    pub(crate) url: &'a Url,
    /// Where to begin, if redirects led from `url` to there before.
    pub(crate) start: Option<&'a Url>,
    pub(crate) credentials: Option<&'a Credentials>,
    pub(crate) sent: Option<&'a SentBody>,
    pub(crate) encoding: Encoding<'a>,
}

/// What goes out with a request.
#[derive(Debug, Clone)]
pub(crate) struct SentBody {
    /// The content type.
    pub(crate) kind: &'static str,
    pub(crate) bytes: Bytes,
}

/// In what form a body is wanted.
#[derive(Clone, Copy)]
pub(crate) enum Encoding<'a> {
    /// As a whole, compressed or not.
    Any,
    /// The file's own bytes; of them, a range.
    Identity(Option<&'a str>),
}

/// A success, and what the redirects to it said.
pub(crate) struct Exchange {
    pub(crate) response: Response,
    pub(crate) redirects: HeaderMap,
}

impl HttpClient {
    /// Makes a client; nothing is sent yet.
    pub fn new(options: HttpOptions) -> Result<Self, SetupError> {
        let library = reqwest::Client::builder()
            .user_agent(concat!("finetune-vali/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .connect_timeout(options.timeouts.connect)
            .read_timeout(options.timeouts.stall)
            .pool_idle_timeout(IDLE)
            // Parallel ranges over one HTTP/2 connection would share its one flow-control window.
            .http1_only()
            .build()?;
        let shared = ClientState {
            options,
            library,
            connections: Arc::new(Semaphore::new(options.connections.max(1))),
            pace: Pace::new(options.bandwidth),
        };
        Ok(Self {
            shared: Arc::new(shared),
            received: Arc::default(),
            observer: None,
        })
    }

    /// Returns a client whose observer, and that of its clones, is this one.
    #[must_use]
    pub fn observed(self, observer: Arc<dyn HttpObserver>) -> Self {
        Self {
            observer: Some(observer),
            ..self
        }
    }

    /// Returns a client that counts its bytes from zero.
    #[must_use]
    pub fn counted(&self) -> Self {
        Self {
            received: Arc::default(),
            ..self.clone()
        }
    }

    /// Returns the bytes of bodies received by this client and its clones.
    pub fn bytes_received(&self) -> u64 {
        self.received.get()
    }

    /// Returns the options that it was made with.
    pub fn options(&self) -> &HttpOptions {
        &self.shared.options
    }

    /// Returns the client below, for a library that speaks a protocol of its own. It follows no
    /// redirects.
    pub fn library(&self) -> &reqwest::Client {
        &self.shared.library
    }

    /// Waits for one of the connections we may have. Whoever reads a range holds it as long as
    /// the bytes are in memory.
    pub async fn connection(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.shared.connections)
            .acquire_owned()
            .await
            .ok()
    }

    /// Counts bytes that have come in, and waits until they are within the bandwidth.
    pub async fn count(&self, bytes: u64) {
        self.received.add(bytes);
        if let Some(observer) = &self.observer {
            observer.received(bytes);
        }
        self.shared.pace.pass(bytes).await;
    }

    /// Sends one request and follows its redirects to a success.
    pub(crate) async fn exchange(&self, outgoing: &Outgoing<'_>) -> Result<Exchange, HttpError> {
        let asked = outgoing.url;
        // The library's log tells addresses whole.
        let mut url = without_user(outgoing.start.unwrap_or(asked));
        let mut redirects = HeaderMap::new();
        for _ in 0..=MAX_REDIRECTS {
            let asking = Asking::new(self.observer.as_deref());
            let response = self.shared.library.execute(outgoing.to(&url)).await;
            asking.ended(response.as_ref().ok().map(Response::status));
            let response = response.map_err(|error| HttpError::connection(asked, &error))?;
            if !response.status().is_redirection() {
                // A link remembered from before may have expired, whoever gave it.
                let at_origin = outgoing.start.is_none() && redirect::same_origin(asked, &url);
                let response = outgoing.success(response, at_origin).await?;
                return Ok(Exchange {
                    response,
                    redirects,
                });
            }
            url = outgoing.redirected(&url, &response)?;
            redirects.extend(
                response
                    .headers()
                    .iter()
                    .map(|(name, value)| (name.clone(), value.clone())),
            );
        }
        let reason = format!("more than {MAX_REDIRECTS} redirects");
        Err(HttpError::redirect(asked, reason))
    }
}

/// A request under way, of which an observer is told how it ends: also when it is given up, as at a deadline.
struct Asking<'a> {
    observer: Option<&'a dyn HttpObserver>,
    since: Instant,
}

impl<'a> Asking<'a> {
    fn new(observer: Option<&'a dyn HttpObserver>) -> Self {
        Self {
            observer,
            since: Instant::now(),
        }
    }

    fn ended(mut self, status: Option<StatusCode>) {
        if let Some(observer) = self.observer.take() {
            observer.answered(status, self.since.elapsed());
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some(observer) = self.observer.take() {
            observer.answered(None, self.since.elapsed());
        }
    }
}

impl Outgoing<'_> {
    fn to(&self, url: &Url) -> reqwest::Request {
        let mut request = reqwest::Request::new(self.method.clone(), url.clone());
        let headers = request.headers_mut();
        let credentials = self.credentials.cloned();
        if let Some(Credentials(value)) = credentials.or_else(|| Credentials::within(self.url))
            && redirect::may_authenticate(self.url, url)
        {
            headers.insert(AUTHORIZATION, value);
        }
        if let Encoding::Identity(range) = self.encoding {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            if let Some(range) = range.and_then(|range| HeaderValue::from_str(range).ok()) {
                headers.insert(RANGE, range);
            }
        }
        if let Some(sent) = self.sent {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(sent.kind));
            *request.body_mut() = Some(sent.bytes.clone().into());
        }
        request
    }

    fn redirected(&self, from: &Url, response: &Response) -> Result<Url, HttpError> {
        let refuse = |reason: String| HttpError::redirect(self.url, reason);
        let keeps_method = matches!(
            response.status(),
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
        );
        let changes = self.method != Method::GET;
        if changes && !keeps_method {
            return Err(refuse("a redirect that drops what was sent".into()));
        }
        let location = text(response.headers(), &LOCATION);
        let location = location.ok_or_else(|| refuse("a redirect to nowhere".into()))?;
        let target = redirect::follow(self.url, from, &location).map_err(refuse)?;
        if changes && !redirect::same_origin(self.url, &target) {
            return Err(refuse("a redirect of what was sent to another host".into()));
        }
        Ok(target)
    }

    async fn success(&self, response: Response, at_origin: bool) -> Result<Response, HttpError> {
        let status = response.status();
        let asked_for_range = matches!(self.encoding, Encoding::Identity(Some(_)));
        if !status.is_success() {
            return Err(HttpError::refusal(self.url, response, at_origin).await);
        }
        if status == StatusCode::PARTIAL_CONTENT && !asked_for_range {
            let reason = "a part of the answer, where the whole was asked for";
            return Err(HttpError::contradiction(self.url, reason));
        }
        // The library has decoded what it can, and removed the header.
        match text(response.headers(), &CONTENT_ENCODING) {
            Some(encoding) if encoding != "identity" => {
                let shown: String = encoding.chars().take(40).collect();
                let reason = format!("encoded as {shown:?}, which was not asked for");
                Err(HttpError::contradiction(self.url, reason))
            }
            _ => Ok(response),
        }
    }
}
