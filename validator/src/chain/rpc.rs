//! JSON-RPC over WebSocket that never waits for ever: deadlines, reconnection, rotation of
//! endpoints, obedience to 429 and 403; a submission is never sent twice.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures::StreamExt as _;
use jsonrpsee::{
    client_transport::ws::WsHandshakeError,
    core::{
        client::{ClientT, Error as ClientError, SubscriptionClientT},
        traits::ToRpcParams,
    },
    ws_client::{PingConfig, WsClient, WsClientBuilder},
};
use subxt::rpcs::{
    self, UserError,
    client::{RawRpcFuture, RawRpcSubscription, RawValue, RpcClientT},
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout, timeout_at},
};
use url::Url;

use super::{
    endpoints::{Deadlines, Endpoints},
    error::with_causes,
};

/// Largest message accepted: some thirty times finney's metadata.
const MAX_MESSAGE: u32 = 24 << 20;

/// Messages of one subscription that may wait for us before the connection gives it up.
const SUBSCRIPTION_BUFFER: usize = 256;

/// Tries of one request on fresh connections, within the operation's deadline.
const TRIES: usize = 4;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// No endpoint could be connected in time.
    #[error("could not connect to the chain: {}", problems.join("; "))]
    Unreachable {
        /// One line per endpoint tried.
        problems: Vec<String>,
        /// Whether every endpoint serves another chain.
        wrong_chain: bool,
    },
    /// The connection broke or the answer did not come in time.
    #[error("{endpoint} did not answer {method}: {problem}")]
    Unanswered {
        /// The endpoint.
        endpoint: String,
        /// JSON-RPC method.
        method: String,
        /// What happened.
        problem: String,
    },
}

impl RpcError {
    /// Returns whether the operator's configuration is to blame.
    pub const fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Unreachable {
                wrong_chain: true,
                ..
            }
        )
    }
}

/// A connection that mends itself. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Rpc(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    endpoints: Vec<Url>,
    genesis: Option<[u8; 32]>,
    deadlines: Deadlines,
    requests: AtomicU64,
    connections: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    link: Option<Arc<Link>>,
    /// Where the next connection is tried first.
    next: usize,
    health: Vec<Health>,
}

#[derive(Debug)]
struct Link {
    client: WsClient,
    endpoint: usize,
    url: String,
}

/// How an endpoint behaved of late.
#[derive(Debug, Clone, Default)]
struct Health {
    failures: u32,
    refusals: u32,
    not_before: Option<Instant>,
}

/// Why an endpoint is left.
enum Trouble {
    Broken,
    ToldToGoAway,
}

impl Rpc {
    pub(super) fn new(endpoints: &Endpoints, deadlines: Deadlines) -> Self {
        let health = vec![Health::default(); endpoints.urls.len()];
        Self(Arc::new(Inner {
            endpoints: endpoints.urls.clone(),
            genesis: endpoints.genesis,
            deadlines,
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            state: Mutex::new(State {
                link: None,
                next: 0,
                health,
            }),
        }))
    }

    /// Returns how many requests were sent so far.
    pub(super) fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    /// Returns how many connections were made so far.
    pub(super) fn connections(&self) -> u64 {
        self.0.connections.load(Ordering::Relaxed)
    }

    pub(super) fn deadlines(&self) -> Deadlines {
        self.0.deadlines
    }

    /// Returns the endpoint in use.
    pub(super) async fn endpoint(&self) -> Option<String> {
        self.0
            .state
            .lock()
            .await
            .link
            .as_ref()
            .map(|link| link.url.clone())
    }

    /// Drops the connection, so that the next request makes a new one, to the next endpoint.
    pub(super) async fn reconnect(&self) {
        let mut state = self.0.state.lock().await;
        if let Some(link) = state.link.clone() {
            self.0.leave(&mut state, link.endpoint, &Trouble::Broken);
        }
    }

    async fn link(&self, until: Instant) -> Result<Arc<Link>, RpcError> {
        let mut problems = Vec::new();
        match timeout_at(until, self.0.connected(until, &mut problems)).await {
            Ok(result) => result,
            Err(_) => {
                problems.push("the deadline passed".to_owned());
                Err(RpcError::Unreachable {
                    problems,
                    wrong_chain: false,
                })
            }
        }
    }

    async fn abandon(&self, link: &Arc<Link>, trouble: &Trouble) {
        let mut state = self.0.state.lock().await;
        if state
            .link
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, link))
        {
            self.0.leave(&mut state, link.endpoint, trouble);
        }
    }

    async fn request(
        &self,
        method: &str,
        params: Option<Box<RawValue>>,
    ) -> Result<Box<RawValue>, rpcs::Error> {
        let until = Instant::now() + self.0.deadlines.operation;
        let mut tries = if is_submission(method) { 1 } else { TRIES };
        loop {
            tries -= 1;
            let link = self.link(until).await.map_err(boxed)?;
            self.0.requests.fetch_add(1, Ordering::Relaxed);
            let wait = self
                .0
                .deadlines
                .request
                .min(until.saturating_duration_since(Instant::now()));
            let answer = timeout(wait, link.client.request(method, Params(params.clone()))).await;
            let (trouble, problem) = match answer {
                Ok(Ok(answer)) => {
                    self.0.answered(link.endpoint).await;
                    return Ok(answer);
                }
                Ok(Err(ClientError::Call(error))) if is_policy(error.code()) => {
                    (Trouble::ToldToGoAway, error.message().to_owned())
                }
                Ok(Err(ClientError::Call(error))) => {
                    return Err(rpcs::Error::User(UserError {
                        code: error.code(),
                        message: error.message().to_owned(),
                        data: error.data().map(ToOwned::to_owned),
                    }));
                }
                Ok(Err(error)) => (Trouble::Broken, with_causes(&error)),
                Err(_) => (Trouble::Broken, format!("no answer within {wait:.0?}")),
            };
            tracing::warn!(endpoint = link.url, method, problem, "chain request failed");
            self.abandon(&link, &trouble).await;
            if tries == 0 || Instant::now() >= until {
                return Err(boxed(RpcError::Unanswered {
                    endpoint: link.url.clone(),
                    method: method.to_owned(),
                    problem,
                }));
            }
        }
    }

    async fn subscribe(
        &self,
        method: &str,
        params: Option<Box<RawValue>>,
        unsubscribe: &str,
    ) -> Result<RawRpcSubscription, rpcs::Error> {
        let until = Instant::now() + self.0.deadlines.operation;
        let link = self.link(until).await.map_err(boxed)?;
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        let subscribing =
            link.client
                .subscribe::<Box<RawValue>, _>(method, Params(params), unsubscribe);
        let problem = match timeout(self.0.deadlines.request, subscribing).await {
            Ok(Ok(subscription)) => {
                self.0.answered(link.endpoint).await;
                // The stream keeps its connection, even when others have left it.
                let keep = Arc::clone(&link);
                let stream = subscription.map(move |item| {
                    let _ = &keep;
                    item.map_err(|error| rpcs::Error::Deserialization(error))
                });
                return Ok(RawRpcSubscription {
                    stream: Box::pin(stream),
                    id: None,
                });
            }
            Ok(Err(ClientError::Call(error))) => {
                if is_policy(error.code()) {
                    self.abandon(&link, &Trouble::ToldToGoAway).await;
                }
                return Err(rpcs::Error::User(UserError {
                    code: error.code(),
                    message: error.message().to_owned(),
                    data: error.data().map(ToOwned::to_owned),
                }));
            }
            Ok(Err(error)) => with_causes(&error),
            Err(_) => format!("no answer within {:.0?}", self.0.deadlines.request),
        };
        self.abandon(&link, &Trouble::Broken).await;
        let (endpoint, method) = (link.url.clone(), method.to_owned());
        Err(boxed(RpcError::Unanswered {
            endpoint,
            method,
            problem,
        }))
    }
}

impl Inner {
    /// Returns the connection, or makes one to the first endpoint that answers.
    async fn connected(
        &self,
        until: Instant,
        problems: &mut Vec<String>,
    ) -> Result<Arc<Link>, RpcError> {
        let mut state = self.state.lock().await;
        if let Some(link) = &state.link {
            if link.client.is_connected() {
                return Ok(Arc::clone(link));
            }
            let endpoint = link.endpoint;
            self.leave(&mut state, endpoint, &Trouble::Broken);
        }
        loop {
            let (mut tried, mut wrong_chain) = (0, 0);
            for step in 0..self.endpoints.len() {
                let endpoint = (state.next + step) % self.endpoints.len();
                if state.health[endpoint]
                    .not_before
                    .is_some_and(|time| time > Instant::now())
                {
                    continue;
                }
                tried += 1;
                match self.connect(endpoint).await {
                    Ok(link) => {
                        self.connections.fetch_add(1, Ordering::Relaxed);
                        tracing::info!(endpoint = link.url, "connected to the chain");
                        state.next = endpoint;
                        let link = Arc::new(link);
                        state.link = Some(Arc::clone(&link));
                        return Ok(link);
                    }
                    Err(failure) => {
                        wrong_chain += usize::from(failure.wrong_chain);
                        let problem = format!("{}: {}", self.endpoints[endpoint], failure.problem);
                        tracing::warn!(problem, "could not connect to the chain");
                        if !problems.contains(&problem) {
                            problems.push(problem);
                        }
                        self.punish(&mut state, endpoint, &failure.trouble);
                    }
                }
            }
            let again = state
                .health
                .iter()
                .filter_map(|health| health.not_before)
                .min();
            let wrong_chain = tried > 0 && wrong_chain == self.endpoints.len();
            match again {
                Some(time) if time < until && !wrong_chain => tokio::time::sleep_until(time).await,
                _ => {
                    if problems.is_empty() {
                        problems.push("every endpoint told us to wait".to_owned());
                    }
                    return Err(RpcError::Unreachable {
                        problems: std::mem::take(problems),
                        wrong_chain,
                    });
                }
            }
        }
    }

    async fn connect(&self, endpoint: usize) -> Result<Link, ConnectFailure> {
        let url = &self.endpoints[endpoint];
        let ping = PingConfig::new()
            .ping_interval(self.deadlines.silence / 2)
            .inactive_limit(self.deadlines.silence)
            .max_failures(1);
        let building = WsClientBuilder::default()
            .connection_timeout(self.deadlines.handshake)
            .request_timeout(self.deadlines.operation)
            .max_response_size(MAX_MESSAGE)
            .max_buffer_capacity_per_subscription(SUBSCRIPTION_BUFFER)
            .enable_ws_ping(ping)
            .build(url.as_str());
        let client = match timeout(self.deadlines.handshake, building).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(ConnectFailure::of(&error)),
            Err(_) => {
                let problem = format!("no handshake within {:.0?}", self.deadlines.handshake);
                return Err(ConnectFailure::broken(problem));
            }
        };
        let link = Link {
            client,
            endpoint,
            url: url.to_string(),
        };
        if let Some(expected) = self.genesis {
            self.requests.fetch_add(1, Ordering::Relaxed);
            let asking = link
                .client
                .request::<String, _>("chain_getBlockHash", jsonrpsee::rpc_params![0]);
            let found = match timeout(self.deadlines.request, asking).await {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => return Err(ConnectFailure::of(&error)),
                Err(_) => return Err(ConnectFailure::broken("no answer about its genesis".into())),
            };
            let expected = format!("0x{}", hex::encode(expected));
            if !found.eq_ignore_ascii_case(&expected) {
                return Err(ConnectFailure {
                    problem: format!(
                        "it serves another chain: genesis {found:.66}, expected {expected}"
                    ),
                    trouble: Trouble::ToldToGoAway,
                    wrong_chain: true,
                });
            }
        }
        Ok(link)
    }

    fn leave(&self, state: &mut State, endpoint: usize, trouble: &Trouble) {
        state.link = None;
        state.next = (endpoint + 1) % self.endpoints.len();
        self.punish(state, endpoint, trouble);
    }

    fn punish(&self, state: &mut State, endpoint: usize, trouble: &Trouble) {
        let health = &mut state.health[endpoint];
        let pause = match trouble {
            Trouble::Broken => {
                health.failures += 1;
                self.deadlines.backoff * 2_u32.pow((health.failures - 1).min(5))
            }
            Trouble::ToldToGoAway => {
                health.refusals += 1;
                self.deadlines.penalty * 2_u32.pow((health.refusals - 1).min(4))
            }
        };
        health.not_before = Some(Instant::now() + pause);
    }

    async fn answered(&self, endpoint: usize) {
        let mut state = self.state.lock().await;
        state.health[endpoint] = Health::default();
    }
}

struct ConnectFailure {
    problem: String,
    trouble: Trouble,
    wrong_chain: bool,
}

impl ConnectFailure {
    fn broken(problem: String) -> Self {
        Self {
            problem,
            trouble: Trouble::Broken,
            wrong_chain: false,
        }
    }

    fn of(error: &ClientError) -> Self {
        let policy =
            match error {
                ClientError::Transport(error) => error
                    .downcast_ref::<WsHandshakeError>()
                    .is_some_and(|error| {
                        matches!(
                            error,
                            WsHandshakeError::Rejected {
                                status_code: 403 | 429
                            }
                        )
                    }),
                ClientError::Call(error) => is_policy(error.code()),
                _ => false,
            };
        let trouble = if policy {
            Trouble::ToldToGoAway
        } else {
            Trouble::Broken
        };
        Self {
            problem: with_causes(error),
            trouble,
            wrong_chain: false,
        }
    }
}

impl RpcClientT for Rpc {
    fn request_raw<'a>(
        &'a self,
        method: &'a str,
        params: Option<Box<RawValue>>,
    ) -> RawRpcFuture<'a, Box<RawValue>> {
        Box::pin(self.request(method, params))
    }

    fn subscribe_raw<'a>(
        &'a self,
        method: &'a str,
        params: Option<Box<RawValue>>,
        unsubscribe: &'a str,
    ) -> RawRpcFuture<'a, RawRpcSubscription> {
        Box::pin(self.subscribe(method, params, unsubscribe))
    }
}

struct Params(Option<Box<RawValue>>);

impl ToRpcParams for Params {
    fn to_rpc_params(self) -> Result<Option<Box<RawValue>>, serde_json::Error> {
        Ok(self.0)
    }
}

fn boxed(error: RpcError) -> rpcs::Error {
    rpcs::Error::Client(Box::new(error))
}

/// A second copy of a submission may be a second weight set: only its caller may try again.
fn is_submission(method: &str) -> bool {
    method.starts_with("author_submit")
}

/// "Too many requests" and its kin: limits of the node or of the proxy before it.
const fn is_policy(code: i32) -> bool {
    matches!(code, -32004 | -32005 | -32029 | 403 | 429 | -32999)
}
