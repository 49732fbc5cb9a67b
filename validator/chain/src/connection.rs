//! The connection to one of several endpoints: made, checked, left, punished for its failures.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use jsonrpsee::{
    client_transport::ws::WsHandshakeError,
    core::client::{ClientT, Error as ClientError},
    ws_client::{PingConfig, WsClient, WsClientBuilder},
};
use shared::{back_off::BackOff, causes};
use subnet::Genesis;
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, timeout, timeout_at},
};
use url::Url;

use super::{
    endpoints::{Deadlines, Endpoints},
    error::RpcError,
};

/// Largest message accepted: some thirty times finney's metadata.
const MAX_MESSAGE: u32 = 24 << 20;

/// Messages of one subscription that may wait for us before the connection gives it up.
const SUBSCRIPTION_BUFFER: usize = 256;

/// The connection in use, and what is known of each endpoint.
#[derive(Debug)]
pub(super) struct Connections {
    endpoints: Vec<Url>,
    genesis: Option<Genesis>,
    pub(super) deadlines: Deadlines,
    pub(super) requests: AtomicU64,
    pub(super) made: AtomicU64,
    attempts: watch::Sender<Attempts>,
    state: Mutex<InUse>,
}

/// What went wrong with the chain so far, for those who wait for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attempts {
    /// Connections and requests that failed.
    pub failed: u32,
    /// What the last of them said.
    pub last_error: Option<String>,
}

#[derive(Debug)]
struct InUse {
    link: Option<Arc<Link>>,
    /// Where the next connection is tried first.
    next: usize,
    health: Vec<EndpointHealth>,
}

/// A connection to one endpoint.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) client: WsClient,
    pub(super) endpoint: usize,
    pub(super) url: String,
}

/// How an endpoint behaved of late.
#[derive(Debug, Clone, Default)]
struct EndpointHealth {
    failures: u32,
    refusals: u32,
    not_before: Option<Instant>,
}

/// Why an endpoint is left.
pub(super) enum Trouble {
    Broken,
    ToldToGoAway,
}

impl Connections {
    pub(super) fn new(
        endpoints: &Endpoints,
        deadlines: Deadlines,
        attempts: watch::Sender<Attempts>,
    ) -> Self {
        let health = vec![EndpointHealth::default(); endpoints.urls.len()];
        Self {
            endpoints: endpoints.urls.clone(),
            genesis: endpoints.genesis,
            deadlines,
            requests: AtomicU64::new(0),
            made: AtomicU64::new(0),
            attempts,
            state: Mutex::new(InUse {
                link: None,
                next: 0,
                health,
            }),
        }
    }

    /// Returns the endpoint in use.
    pub(super) async fn endpoint(&self) -> Option<String> {
        let state = self.state.lock().await;
        state.link.as_ref().map(|link| link.url.clone())
    }

    /// Drops the connection; the next one is tried with the next endpoint first.
    pub(super) async fn reconnect(&self) {
        let mut state = self.state.lock().await;
        if let Some(link) = state.link.clone() {
            self.leave(&mut state, link.endpoint, &Trouble::Broken);
        }
    }

    /// Returns the connection, or makes one, but not later than `until`.
    pub(super) async fn link(&self, until: Instant) -> Result<Arc<Link>, RpcError> {
        let mut problems = Vec::new();
        if let Ok(result) = timeout_at(until, self.connected(until, &mut problems)).await {
            return result;
        }
        problems.push("the deadline passed".to_owned());
        Err(RpcError::Unreachable {
            problems,
            wrong_chain: false,
        })
    }

    /// Leaves a connection that made trouble, unless another has taken its place.
    pub(super) async fn abandon(&self, link: &Arc<Link>, trouble: &Trouble) {
        let mut state = self.state.lock().await;
        let current = state.link.as_ref();
        if current.is_some_and(|current| Arc::ptr_eq(current, link)) {
            self.leave(&mut state, link.endpoint, trouble);
        }
    }

    /// Tells those who wait for the chain that it failed once more.
    pub(super) fn failed(&self, problem: &str) {
        self.attempts.send_modify(|attempts| {
            attempts.failed = attempts.failed.saturating_add(1);
            attempts.last_error = Some(problem.to_owned());
        });
    }

    /// Forgets the past failures of an endpoint.
    pub(super) async fn answered(&self, endpoint: usize) {
        let mut state = self.state.lock().await;
        state.health[endpoint] = EndpointHealth::default();
    }

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
                        self.made.fetch_add(1, Ordering::Relaxed);
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
                        self.failed(&problem);
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
            if found.parse() != Ok(expected) {
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

    fn leave(&self, state: &mut InUse, endpoint: usize, trouble: &Trouble) {
        state.link = None;
        state.next = (endpoint + 1) % self.endpoints.len();
        self.punish(state, endpoint, trouble);
    }

    fn punish(&self, state: &mut InUse, endpoint: usize, trouble: &Trouble) {
        let health = &mut state.health[endpoint];
        let pause = match trouble {
            Trouble::Broken => {
                health.failures += 1;
                let first = self.deadlines.backoff;
                let longest = first * 32;
                BackOff { first, longest }.after(health.failures)
            }
            Trouble::ToldToGoAway => {
                health.refusals += 1;
                let first = if self.endpoints.len() > 1 {
                    self.deadlines.penalty
                } else {
                    // Nobody else is there to ask, and weights may be due.
                    self.deadlines.penalty / 16
                };
                let longest = first * 16;
                BackOff { first, longest }.after(health.refusals)
            }
        };
        health.not_before = Some(Instant::now() + pause);
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
            problem: causes::one_line(error),
            trouble,
            wrong_chain: false,
        }
    }
}

/// "Too many requests" and its kin: limits of the node or of the proxy before it.
pub(super) const fn is_policy(code: i32) -> bool {
    matches!(code, -32004 | -32005 | -32029 | 403 | 429 | -32999)
}
