//! Asking every endpoint for its newest block, so that one that lags is left and the preferred one
//! is returned to.

use std::sync::{Arc, atomic::Ordering};

use futures::future::join_all;
use tokio::time::{Instant, timeout};

use super::{
    EndpointPool, PoolState,
    health::EndpointSlot,
    link::{ConnectFailure, Link, newest},
};
use crate::{abilities::Abilities, verdict::Trouble};
use subnet::BlockNumber;

impl EndpointPool {
    /// Starts a survey in the background if one is due.
    pub(super) fn survey_if_due(self: &Arc<Self>) {
        if self.is_alone() || self.surveying.try_lock().is_err() {
            return;
        }
        let mut state = self.state();
        // None in use yet: whoever looks for one is about to connect them.
        let Some(current) = state.current else { return };
        let pause = if state.slots[current].is_lagging() {
            self.deadlines.survey / 30
        } else if current == 0 {
            self.deadlines.survey
        } else {
            self.deadlines.survey / 5
        };
        if state.surveyed.elapsed() < pause {
            return;
        }
        state.surveyed = Instant::now();
        while state.surveys.try_join_next().is_some() {}
        let pool = Arc::clone(self);
        state.surveys.spawn(async move { pool.survey().await });
    }

    /// Asks every endpoint for its newest block, connecting those that are not connected, and uses
    /// the most preferred of the fresh and healthy ones from now on.
    pub(crate) async fn survey(&self) {
        let Ok(_turn) = self.surveying.try_lock() else {
            return;
        };
        let heads = join_all((0..self.len()).map(|endpoint| self.head_of(endpoint))).await;
        let mut state = self.state();
        state.surveyed = Instant::now();
        let best = heads.iter().flatten().max().copied();
        if best.is_none() {
            return;
        }
        // What an endpoint that is gone said of its newest block holds for nobody else.
        state.best = best;
        for (slot, head) in state.slots.iter_mut().zip(heads) {
            slot.head = head.or(slot.head);
            slot.lag = head
                .zip(best)
                .map(|(head, best)| best.saturating_sub(head))
                .or(slot.lag);
        }
        let Some(chosen) = chosen(&state) else { return };
        let left = state.current.filter(|current| *current != chosen);
        let lag = left.and_then(|left| state.slots[left].lag);
        drop(state);
        if let Some(left) = left {
            let endpoint = &self.urls[left];
            tracing::info!(%endpoint, blocks_behind = lag, "another endpoint is fresher or preferred");
        }
        self.switch(chosen);
    }

    /// Asks the connected endpoints what they can do that were not asked over this connection.
    pub(crate) async fn learn_abilities(&self) {
        let links: Vec<Arc<Link>> = {
            let mut state = self.state();
            let slots = state.slots.iter_mut();
            let unasked = slots.filter(|slot| !slot.asked);
            unasked
                .filter_map(|slot| {
                    let link = slot.open().cloned()?;
                    slot.asked = true;
                    Some(link)
                })
                .collect()
        };
        join_all(links.iter().map(|link| async {
            self.requests
                .fetch_add(Abilities::REQUESTS, Ordering::Relaxed);
            let asked = timeout(self.deadlines.request, Abilities::of(link)).await;
            if let Ok(abilities) = asked {
                self.state().slots[link.endpoint].abilities = Some(abilities);
            }
        }))
        .await;
    }

    /// The same in the background: nothing waits for it.
    pub(crate) fn learn_abilities_soon(self: &Arc<Self>) {
        let mut state = self.state();
        let unasked = |slot: &EndpointSlot| !slot.asked && slot.open().is_some();
        if state.slots.iter().any(unasked) {
            while state.surveys.try_join_next().is_some() {}
            let pool = Arc::clone(self);
            state
                .surveys
                .spawn(async move { pool.learn_abilities().await });
        }
    }

    async fn head_of(&self, endpoint: usize) -> Option<BlockNumber> {
        let open = {
            let state = self.state();
            let slot = &state.slots[endpoint];
            if !slot.may_be_asked() {
                return None;
            }
            slot.open().cloned()
        };
        let Some(link) = open else {
            self.dial(endpoint).await.ok()?;
            return self.state().slots[endpoint].head;
        };
        self.requests.fetch_add(1, Ordering::Relaxed);
        let began = Instant::now();
        let (trouble, problem) = match timeout(self.deadlines.request, newest(&link)).await {
            Ok(Ok(head)) => {
                self.state().slots[endpoint].measured(began.elapsed(), false);
                return head;
            }
            Ok(Err(error)) => {
                let failure = ConnectFailure::of(&link.url, &error);
                (failure.trouble, failure.problem)
            }
            Err(_) => (Trouble::Broken, "it does not tell its newest block".into()),
        };
        self.erred(endpoint, began.elapsed());
        self.abandon(&link, trouble, &problem);
        None
    }
}

/// Returns the best of the endpoints that are connected.
fn chosen(state: &PoolState) -> Option<usize> {
    (state.slots.iter().enumerate())
        .filter(|(_, slot)| slot.open().is_some() && slot.may_be_asked())
        .min_by_key(|(index, slot)| (slot.demerit(), *index))
        .map(|(index, _)| index)
}
