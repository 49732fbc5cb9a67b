//! JSON-RPC over WebSocket that never waits for ever: deadlines, reconnection, rotation of
//! endpoints, obedience to 429 and 403; a submission is never sent twice.

use std::sync::{Arc, atomic::Ordering};

use futures::StreamExt as _;
use jsonrpsee::core::{
    client::{ClientT, Error as ClientError, SubscriptionClientT},
    traits::ToRpcParams,
};
use shared::causes;
use subxt::rpcs::{
    self, UserError,
    client::{RawRpcFuture, RawRpcSubscription, RawValue, RpcClientT},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    connection::{Attempts, Connections, Trouble, is_policy},
    endpoints::{Deadlines, Endpoints},
    error::RpcError,
};

/// Tries of one request on fresh connections, within the operation's deadline.
const TRIES: usize = 4;

/// A connection that mends itself. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Rpc(Arc<Connections>);

impl Rpc {
    pub(super) fn new(
        endpoints: &Endpoints,
        deadlines: Deadlines,
        attempts: watch::Sender<Attempts>,
    ) -> Self {
        Self(Arc::new(Connections::new(endpoints, deadlines, attempts)))
    }

    /// Returns how many requests were sent so far.
    pub(super) fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    /// Returns how many connections were made so far.
    pub(super) fn connections(&self) -> u64 {
        self.0.made.load(Ordering::Relaxed)
    }

    pub(super) fn deadlines(&self) -> Deadlines {
        self.0.deadlines
    }

    /// Returns the endpoint in use.
    pub(super) async fn endpoint(&self) -> Option<String> {
        self.0.endpoint().await
    }

    /// Drops the connection, so that the next request makes a new one, to the next endpoint.
    pub(super) async fn reconnect(&self) {
        self.0.reconnect().await;
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
            let link = self.0.link(until).await.map_err(boxed)?;
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
                Ok(Err(error)) => (Trouble::Broken, causes::one_line(&error)),
                Err(_) => (Trouble::Broken, format!("no answer within {wait:.0?}")),
            };
            tracing::warn!(endpoint = link.url, method, problem, "chain request failed");
            self.0.failed(&format!("{}: {method}: {problem}", link.url));
            self.0.abandon(&link, &trouble).await;
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
        let link = self.0.link(until).await.map_err(boxed)?;
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
                    item.map_err(rpcs::Error::Deserialization)
                });
                return Ok(RawRpcSubscription {
                    stream: Box::pin(stream),
                    id: None,
                });
            }
            Ok(Err(ClientError::Call(error))) => {
                if is_policy(error.code()) {
                    self.0.abandon(&link, &Trouble::ToldToGoAway).await;
                }
                return Err(rpcs::Error::User(UserError {
                    code: error.code(),
                    message: error.message().to_owned(),
                    data: error.data().map(ToOwned::to_owned),
                }));
            }
            Ok(Err(error)) => causes::one_line(&error),
            Err(_) => format!("no answer within {:.0?}", self.0.deadlines.request),
        };
        self.0.abandon(&link, &Trouble::Broken).await;
        let (endpoint, method) = (link.url.clone(), method.to_owned());
        Err(boxed(RpcError::Unanswered {
            endpoint,
            method,
            problem,
        }))
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
