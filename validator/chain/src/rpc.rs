//! JSON-RPC over WebSocket that never waits for ever: deadlines, reconnection, other endpoints for
//! what one does not answer, obedience to 429 and 403; a submission is never sent twice.

use std::sync::{Arc, atomic::Ordering};

use futures::{StreamExt as _, future::BoxFuture};
use jsonrpsee::core::{
    client::{ClientT, Error as ClientError, SubscriptionClientT},
    traits::ToRpcParams,
};
use jsonrpsee::types::ErrorObjectOwned;
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
    endpoints::{Deadlines, Endpoints},
    error::RpcError,
    pool::{Attempts, EndpointPool, EndpointReport, HeaderNumber, Link, is_submission},
    verdict::{AnswerVerdict, Trouble, judge},
};
use subnet::{BlockNumber, Genesis};

/// Tries of one request on fresh connections, within the operation's deadline.
const TRIES: usize = 4;

/// What tells, without an argument, the newest block.
const HEADER: &str = "chain_getHeader";

/// The subscription whose messages tell how fresh an endpoint is.
const NEW_HEADS: &str = "chain_subscribeNewHeads";

/// The endpoints of a chain, asked one after the other until one answers. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Rpc(Arc<EndpointPool>);

impl Rpc {
    pub(super) fn new(
        endpoints: &Endpoints,
        deadlines: Deadlines,
        attempts: watch::Sender<Attempts>,
    ) -> Self {
        Self(Arc::new(EndpointPool::new(endpoints, deadlines, attempts)))
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
    pub(super) fn endpoint(&self) -> Option<String> {
        self.0.endpoint()
    }

    /// Returns what is known of each endpoint.
    pub(super) fn report(&self) -> Vec<EndpointReport> {
        self.0.report()
    }

    /// Returns the endpoints themselves.
    pub(super) const fn pool(&self) -> &Arc<EndpointPool> {
        &self.0
    }

    /// Returns what sees each change of the endpoint in use.
    pub(super) fn moves(&self) -> watch::Receiver<u64> {
        self.0.moves()
    }

    /// Connects to the first endpoint that answers; returns the chain's genesis.
    pub(super) async fn genesis(&self) -> Result<Genesis, RpcError> {
        let until = Instant::now() + self.0.deadlines.operation;
        self.0.link(until, &[], "chain_getBlockHash").await?;
        self.0.genesis().ok_or_else(|| RpcError::Unreachable {
            problems: vec!["no endpoint told its genesis".to_owned()],
            wrong_chain: false,
        })
    }

    /// Asks every endpoint for its newest block, and uses the best from now on.
    pub(super) async fn survey(&self) {
        if self.0.len() > 1 {
            self.0.survey().await;
        }
    }

    /// Leaves the endpoint in use, so that the next request goes to another one.
    pub(super) fn reconnect(&self) {
        self.0.reconnect();
    }

    /// Asks one endpoint after the other until one answers. A submission is offered to one only:
    /// a second copy may be a second weight set, so only its caller may try again.
    async fn ask<'a, T>(
        &self,
        method: &str,
        send: impl Fn(Arc<Link>) -> BoxFuture<'a, Result<T, ClientError>> + Send,
        newest: impl Fn(&T) -> Option<BlockNumber> + Send,
    ) -> Result<T, rpcs::Error> {
        let until = Instant::now() + self.0.deadlines.operation;
        let is_submission = is_submission(method);
        let mut tries = if is_submission {
            1
        } else {
            TRIES.max(self.0.len() + 1)
        };
        let (mut refused, mut refusal) = (Vec::new(), None);
        // What an endpoint answered that turned out to lag, for when no other answers.
        let mut old = None;
        loop {
            tries -= 1;
            let link = match self.0.link(until, &refused, method).await {
                Ok(link) => link,
                Err(error) => {
                    if let Some(old) = old {
                        return Ok(old);
                    }
                    let Some(refusal) = refusal else {
                        return Err(boxed(error));
                    };
                    if refused.len() == self.0.len() {
                        self.0.forgive(&refused);
                    }
                    return Err(rpcs::Error::User(refusal));
                }
            };
            self.0.requests.fetch_add(1, Ordering::Relaxed);
            let began = Instant::now();
            let wait = self
                .0
                .deadlines
                .request
                .min(until.saturating_duration_since(began));
            let asked = timeout(wait, send(Arc::clone(&link))).await;
            let problem = match asked {
                Ok(Ok(answer)) => {
                    self.0.answered(link.endpoint, began.elapsed());
                    if let Some(block) = newest(&answer)
                        && self.0.saw(link.endpoint, block)
                        && tries > 0
                    {
                        self.0.step_back(link.endpoint);
                        refused.push(link.endpoint);
                        old = old.or(Some(answer));
                        continue;
                    }
                    return Ok(answer);
                }
                Ok(Err(ClientError::Call(error))) => {
                    let error = said(&link, &error);
                    let verdict = judge(error.code, &error.message);
                    if verdict == AnswerVerdict::OurFault {
                        self.0.answered(link.endpoint, began.elapsed());
                        return Err(rpcs::Error::User(error));
                    }
                    tracing::warn!(endpoint = %link.url, method, error.code, error.message, "an endpoint refused a request");
                    self.note(&link, method, &error, verdict, began);
                    if verdict != AnswerVerdict::GoAway {
                        refused.push(link.endpoint);
                        refusal.get_or_insert(error);
                        if is_submission || self.0.len() == 1 {
                            return Err(rpcs::Error::User(refusal.expect("it was just kept")));
                        }
                        continue;
                    }
                    error.message
                }
                Ok(Err(error)) => link.url.scrub(&causes::one_line(&error)),
                Err(_) => format!("no answer within {wait:.0?}"),
            };
            tracing::warn!(endpoint = %link.url, method, problem, "chain request failed");
            self.0.failed(&format!("{}: {method}: {problem}", link.url));
            self.0.erred(link.endpoint, began.elapsed());
            self.0.abandon(&link, Trouble::Broken, &problem);
            if tries == 0 || Instant::now() >= until {
                return Err(boxed(RpcError::Unanswered {
                    endpoint: link.url.to_string(),
                    method: method.to_owned(),
                    problem,
                }));
            }
        }
    }

    /// Notes what an error answer tells of its endpoint.
    fn note(
        &self,
        link: &Arc<Link>,
        method: &str,
        error: &UserError,
        verdict: AnswerVerdict,
        began: Instant,
    ) {
        let endpoint = link.endpoint;
        match verdict {
            AnswerVerdict::OurFault => {}
            AnswerVerdict::NoSuchMethod => self.0.lacks(endpoint, method),
            // Old states are rare; who lacks those of new blocks, or wants one for a transaction, is
            // of no use.
            AnswerVerdict::NoSuchState
                if !is_submission(method) && !self.0.has_no_state(endpoint) => {}
            AnswerVerdict::GoAway => self.0.abandon(link, Trouble::ToldToGoAway, &error.message),
            AnswerVerdict::NoSuchState | AnswerVerdict::Unwell => {
                self.0.erred(endpoint, began.elapsed());
                // The only one is asked again; it may do better with another question.
                if self.0.len() > 1 {
                    let problem = format!("{method}: {} ({})", error.message, error.code);
                    self.0.pause(endpoint, &problem);
                }
            }
        }
    }

    /// Subscribes at one endpoint. The stream keeps its connection, even when others have left it.
    async fn listen(
        &self,
        link: Arc<Link>,
        method: &str,
        params: Option<Box<RawValue>>,
        unsubscribe: &str,
    ) -> Result<RawRpcSubscription, ClientError> {
        let subscription = link
            .client
            .subscribe::<Box<RawValue>, _>(method, Params(params), unsubscribe)
            .await?;
        let heads = (method == NEW_HEADS).then(|| Arc::clone(&self.0));
        let stream = subscription.map(move |item| {
            if let (Some(pool), Ok(item)) = (&heads, &item)
                && let Ok(header) = serde_json::from_str::<HeaderNumber>(item.get())
                && let Some(number) = header.read()
            {
                pool.saw(link.endpoint, number);
            }
            item.map_err(rpcs::Error::Deserialization)
        });
        Ok(RawRpcSubscription {
            stream: Box::pin(stream),
            id: None,
        })
    }
}

/// Returns what an endpoint answered, without our secrets.
fn said(link: &Link, error: &ErrorObjectOwned) -> UserError {
    let data = error.data().map(|data| link.url.scrub(data.get()));
    UserError {
        code: error.code(),
        message: link.url.scrub(error.message()),
        data: data.and_then(|data| RawValue::from_string(data).ok()),
    }
}

impl RpcClientT for Rpc {
    fn request_raw<'a>(
        &'a self,
        method: &'a str,
        params: Option<Box<RawValue>>,
    ) -> RawRpcFuture<'a, Box<RawValue>> {
        let asks_newest = method == HEADER
            && (params.as_ref()).is_none_or(|params| matches!(params.get(), "[]" | "[null]"));
        let send = move |link: Arc<Link>| -> BoxFuture<'a, _> {
            let params = params.clone();
            Box::pin(async move { link.client.request(method, Params(params)).await })
        };
        Box::pin(self.ask(method, send, move |answer: &AnswerText| {
            let header = asks_newest.then(|| serde_json::from_str::<HeaderNumber>(answer.get()));
            header?.ok()?.read()
        }))
    }

    fn subscribe_raw<'a>(
        &'a self,
        method: &'a str,
        params: Option<Box<RawValue>>,
        unsubscribe: &'a str,
    ) -> RawRpcFuture<'a, RawRpcSubscription> {
        let listen = move |link| -> BoxFuture<'a, _> {
            Box::pin(self.listen(link, method, params.clone(), unsubscribe))
        };
        Box::pin(self.ask(method, listen, |_| None))
    }
}

/// An answer as it came.
type AnswerText = Box<RawValue>;

struct Params(Option<Box<RawValue>>);

impl ToRpcParams for Params {
    fn to_rpc_params(self) -> Result<Option<Box<RawValue>>, serde_json::Error> {
        Ok(self.0)
    }
}

fn boxed(error: RpcError) -> rpcs::Error {
    rpcs::Error::Client(Box::new(error))
}
