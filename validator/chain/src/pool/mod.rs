//! The endpoints as a pool: the freshest healthy one is asked, the preferred one is returned to,
//! one that serves another chain is never asked.

mod health;
mod link;
mod survey;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex as AsyncMutex, watch},
    task::JoinSet,
    time::{Instant, timeout_at},
};

pub use self::health::EndpointReport;
pub(crate) use self::link::{HeaderNumber, Link, newest};
use self::{
    health::EndpointSlot,
    link::{ConnectFailure, Greeting},
};
use super::{
    endpoints::{Deadlines, Endpoints},
    error::RpcError,
    node_url::NodeUrl,
    verdict::Trouble,
};
use subnet::{BlockNumber, Genesis};

/// What went wrong with the chain so far, for those who wait for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attempts {
    /// Connections and requests that failed.
    pub failed: u32,
    /// What the last of them said.
    pub last_error: Option<String>,
}

/// The endpoints, their connections, and what is known of each.
#[derive(Debug)]
pub(crate) struct EndpointPool {
    urls: Vec<NodeUrl>,
    /// Known beforehand, or that of the first endpoint which answered.
    genesis: OnceLock<Genesis>,
    pub(crate) deadlines: Deadlines,
    pub(crate) requests: AtomicU64,
    pub(crate) made: AtomicU64,
    attempts: watch::Sender<Attempts>,
    state: Mutex<PoolState>,
    /// Held while an endpoint is connected: one connection to each is enough.
    dialling: Vec<AsyncMutex<()>>,
    surveying: AsyncMutex<()>,
    /// Counts how often another endpoint was taken.
    moves: watch::Sender<u64>,
}

#[derive(Debug)]
struct PoolState {
    slots: Vec<EndpointSlot>,
    current: Option<usize>,
    /// Newest block of the freshest endpoint.
    best: Option<BlockNumber>,
    surveyed: Instant,
    surveys: JoinSet<()>,
}

/// An endpoint that may be asked: by the connection it has, or once it is connected.
enum Reachable {
    Open(Arc<Link>),
    Closed(usize),
}

impl EndpointPool {
    pub(crate) fn new(
        endpoints: &Endpoints,
        deadlines: Deadlines,
        attempts: watch::Sender<Attempts>,
    ) -> Self {
        let count = endpoints.urls.len();
        Self {
            urls: endpoints.urls.clone(),
            genesis: endpoints.genesis.map_or_else(OnceLock::new, OnceLock::from),
            deadlines,
            requests: AtomicU64::new(0),
            made: AtomicU64::new(0),
            attempts,
            state: Mutex::new(PoolState {
                slots: (0..count).map(|_| EndpointSlot::default()).collect(),
                current: None,
                best: None,
                surveyed: Instant::now(),
                surveys: JoinSet::new(),
            }),
            dialling: (0..count).map(|_| AsyncMutex::new(())).collect(),
            surveying: AsyncMutex::new(()),
            moves: watch::Sender::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_alone(&self) -> bool {
        self.urls.len() == 1
    }

    /// Returns how many endpoints there are.
    pub(crate) fn len(&self) -> usize {
        self.urls.len()
    }

    /// Returns the chain's genesis, once an endpoint was asked for it or if it is known.
    pub(crate) fn genesis(&self) -> Option<Genesis> {
        self.genesis.get().copied()
    }

    /// Returns the address of the endpoint in use, without what may be secret.
    pub(crate) fn endpoint(&self) -> Option<String> {
        self.state()
            .current
            .map(|current| self.urls[current].to_string())
    }

    /// Returns what sees each change of the endpoint in use.
    pub(crate) fn moves(&self) -> watch::Receiver<u64> {
        self.moves.subscribe()
    }

    /// Returns what is known of each endpoint.
    pub(crate) fn report(&self) -> Vec<EndpointReport> {
        let state = self.state();
        let slots = state.slots.iter().enumerate();
        slots
            .map(|(index, slot)| {
                slot.report(self.urls[index].to_string(), state.current == Some(index))
            })
            .collect()
    }

    /// Leaves the endpoint in use; the next request goes to another, if there is one.
    pub(crate) fn reconnect(&self) {
        let mut state = self.state();
        if let Some(current) = state.current {
            self.leave(&mut state, current, Trouble::Broken, "it fell silent");
        }
    }

    /// Leaves a connection that made trouble, unless another has taken its place.
    pub(crate) fn abandon(&self, link: &Arc<Link>, trouble: Trouble, problem: &str) {
        let mut state = self.state();
        let slot = &state.slots[link.endpoint];
        if (slot.link.as_ref()).is_some_and(|current| Arc::ptr_eq(current, link)) {
            self.leave(&mut state, link.endpoint, trouble, problem);
        }
    }

    fn leave(&self, state: &mut PoolState, endpoint: usize, trouble: Trouble, problem: &str) {
        let slot = &mut state.slots[endpoint];
        slot.link = None;
        slot.punish(trouble, problem, &self.deadlines, self.is_alone());
        if state.current == Some(endpoint) {
            state.current = None;
        }
    }

    /// Gives an endpoint that is unwell a pause; its connection stays.
    pub(crate) fn pause(&self, endpoint: usize, problem: &str) {
        let mut state = self.state();
        state.slots[endpoint].punish(Trouble::Broken, problem, &self.deadlines, false);
        if state.current == Some(endpoint) {
            state.current = None;
        }
    }

    /// Takes the pauses back that endpoints got for what all of them answered alike.
    pub(crate) fn forgive(&self, endpoints: &[usize]) {
        let mut state = self.state();
        for endpoint in endpoints {
            state.slots[*endpoint].not_before = None;
        }
    }

    /// Tells those who wait for the chain that it failed once more.
    pub(crate) fn failed(&self, problem: &str) {
        self.attempts.send_modify(|attempts| {
            attempts.failed = attempts.failed.saturating_add(1);
            attempts.last_error = Some(problem.to_owned());
        });
    }

    /// Notes an answer.
    pub(crate) fn answered(&self, endpoint: usize, took: Duration) {
        self.state().slots[endpoint].answered(took);
    }

    /// Notes a request that failed.
    pub(crate) fn erred(&self, endpoint: usize, took: Duration) {
        self.state().slots[endpoint].measured(took, true);
    }

    pub(crate) fn lacks(&self, endpoint: usize, method: &str) {
        self.state().slots[endpoint].lacks_method(method);
    }

    /// Notes that an endpoint has no state of a block; returns whether it seems to have none at all.
    pub(crate) fn has_no_state(&self, endpoint: usize) -> bool {
        self.state().slots[endpoint].has_no_state()
    }

    /// Notes the newest block of an endpoint, and asks the others for theirs when that is due;
    /// returns whether the endpoint lags.
    pub(crate) fn saw(self: &Arc<Self>, endpoint: usize, block: BlockNumber) -> bool {
        let mut state = self.state();
        let best = state.best.max(Some(block));
        state.best = best;
        let slot = &mut state.slots[endpoint];
        slot.head = Some(block);
        slot.lag = best.map(|best| best.saturating_sub(block));
        let lags = slot.is_lagging();
        drop(state);
        self.survey_if_due();
        lags
    }

    /// Makes place for a fresher endpoint than the one in use.
    pub(crate) fn step_back(&self, endpoint: usize) {
        let mut state = self.state();
        if state.current == Some(endpoint) {
            state.current = None;
        }
    }

    /// Returns a connection to the best endpoint but those to avoid, or makes one, but not later
    /// than `until`.
    pub(crate) async fn link(
        self: &Arc<Self>,
        until: Instant,
        avoid: &[usize],
        method: &str,
    ) -> Result<Arc<Link>, RpcError> {
        self.survey_if_due();
        // There is another way to submit; there is none to read.
        if is_submission(method) && self.state().slots.iter().all(|slot| slot.lacks(method)) {
            return Err(RpcError::NoSuchMethod(method.to_owned()));
        }
        let mut problems = Vec::new();
        if let Ok(result) = timeout_at(until, self.found(until, avoid, method, &mut problems)).await
        {
            return result;
        }
        problems.push("the deadline passed".to_owned());
        Err(RpcError::Unreachable {
            problems,
            wrong_chain: false,
        })
    }

    async fn found(
        &self,
        until: Instant,
        avoid: &[usize],
        method: &str,
        problems: &mut Vec<String>,
    ) -> Result<Arc<Link>, RpcError> {
        loop {
            let mut lagging = None;
            for candidate in self.candidates(avoid, method) {
                let link = match candidate {
                    Reachable::Open(link) => link,
                    Reachable::Closed(endpoint) => match self.dial(endpoint).await {
                        Ok(link) => link,
                        Err(problem) => {
                            if !problems.contains(&problem) {
                                problems.push(problem);
                            }
                            continue;
                        }
                    },
                };
                if self.state().slots[link.endpoint].is_lagging() {
                    lagging.get_or_insert(link);
                    continue;
                }
                self.take(link.endpoint, avoid, method);
                return Ok(link);
            }
            if let Some(link) = lagging {
                self.take(link.endpoint, avoid, method);
                return Ok(link);
            }
            let (again, wrong_chain) = {
                let state = self.state();
                let again = state.slots.iter().filter_map(|slot| slot.not_before).min();
                (again, state.slots.iter().all(|slot| slot.wrong_chain))
            };
            match again {
                // An answer that others have refused is waited for by nobody.
                Some(time) if time < until && avoid.is_empty() && !wrong_chain => {
                    tokio::time::sleep_until(time).await;
                }
                _ => return Err(unreachable(problems, wrong_chain)),
            }
        }
    }

    /// Returns whom to ask, the best first: one that is connected, fresh and well, then those that
    /// are not connected, then those that lag.
    fn candidates(&self, avoid: &[usize], method: &str) -> Vec<Reachable> {
        let state = self.state();
        let mut ranked: Vec<_> = (state.slots.iter().enumerate())
            .filter(|(index, slot)| !avoid.contains(index) && slot.may_be_asked())
            .map(|(index, slot)| {
                let in_use = state.current == Some(index);
                let closed = slot.open().is_none();
                // Whoever lags is kept until a survey has found somebody better.
                let later = if in_use {
                    (false, false)
                } else {
                    slot.demerit()
                };
                ((slot.lacks(method), closed, later, index), slot)
            })
            .collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked
            .into_iter()
            .map(|((.., index), slot)| {
                let open = slot.open().cloned();
                open.map_or(Reachable::Closed(index), Reachable::Open)
            })
            .collect()
    }

    /// Uses an endpoint from now on, unless it only answers what the one in use could not.
    fn take(&self, endpoint: usize, avoid: &[usize], method: &str) {
        let state = self.state();
        let in_use = state.current.map(|current| &state.slots[current]);
        let once = in_use.is_some_and(|slot| !avoid.is_empty() || slot.lacks(method));
        drop(state);
        if !once {
            self.switch(endpoint);
        }
    }

    fn switch(&self, endpoint: usize) {
        if self.state().current.replace(endpoint) != Some(endpoint) {
            tracing::info!(endpoint = %self.urls[endpoint], "this endpoint of the chain is used now");
            self.moves.send_modify(|moves| *moves += 1);
        }
    }

    /// Connects an endpoint, and refuses it if it serves another chain.
    async fn dial(&self, endpoint: usize) -> Result<Arc<Link>, String> {
        let _turn = self.dialling[endpoint].lock().await;
        if let Some(link) = self.state().slots[endpoint].open() {
            return Ok(Arc::clone(link));
        }
        let url = &self.urls[endpoint];
        self.requests.fetch_add(2, Ordering::Relaxed);
        let greeted = link::connect(url, endpoint, &self.deadlines).await;
        let greeted = greeted.and_then(|greeting| {
            let expected = *self.genesis.get_or_init(|| greeting.genesis);
            if greeting.genesis == expected {
                Ok(greeting)
            } else {
                Err(ConnectFailure::other_chain(greeting.genesis, expected))
            }
        });
        match greeted {
            Ok(greeting) => Ok(self.connected(endpoint, greeting)),
            Err(failure) => {
                let problem = format!("{url}: {}", failure.problem);
                tracing::warn!(problem, "could not connect to the chain");
                self.failed(&problem);
                let mut state = self.state();
                state.slots[endpoint].wrong_chain = failure.wrong_chain;
                self.leave(&mut state, endpoint, failure.trouble, &failure.problem);
                Err(problem)
            }
        }
    }

    fn connected(&self, endpoint: usize, greeting: Greeting) -> Arc<Link> {
        self.made.fetch_add(1, Ordering::Relaxed);
        let link = Arc::new(greeting.link);
        let mut state = self.state();
        let best = state.best.max(greeting.head);
        state.best = best;
        let slot = &mut state.slots[endpoint];
        slot.link = Some(Arc::clone(&link));
        slot.wrong_chain = false;
        slot.forget_methods();
        slot.asked = false;
        slot.measured(greeting.took, false);
        slot.head = greeting.head;
        slot.lag = greeting
            .head
            .and_then(|head| Some(best?.saturating_sub(head)));
        link
    }
}

fn unreachable(problems: &mut Vec<String>, wrong_chain: bool) -> RpcError {
    if problems.is_empty() {
        problems.push("every endpoint told us to wait".to_owned());
    }
    RpcError::Unreachable {
        problems: std::mem::take(problems),
        wrong_chain,
    }
}

/// Whether a second copy of this may be a second weight set.
pub(crate) fn is_submission(method: &str) -> bool {
    method.starts_with("author_submit")
}
