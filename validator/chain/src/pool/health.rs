//! What is known of one endpoint, and which of several is the best to ask.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use shared::back_off::BackOff;
use tokio::time::Instant;

use super::link::Link;
use crate::{abilities::Abilities, endpoints::Deadlines, verdict::Trouble};
use subnet::BlockNumber;

/// An endpoint this far behind the others lags; what is less may be the time between two looks.
const FRESH: u64 = 5;

/// So often in a row an endpoint may have no state of a block before it is left.
const BARREN: u32 = 3;

/// What an endpoint lacked so long ago it may have by now.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// Weight of the newest answer in the moving means of latency and errors.
const NEWEST: f64 = 0.125;

/// From this share of errors on, another endpoint is preferred.
const FAILING: f64 = 0.5;

/// One endpoint: its connection, if there is one, and how it behaved.
#[derive(Debug, Default)]
pub(super) struct EndpointSlot {
    pub(super) link: Option<Arc<Link>>,
    /// Its newest block, when we last heard of it.
    pub(super) head: Option<BlockNumber>,
    /// How far that was behind the freshest endpoint.
    pub(super) lag: Option<u64>,
    latency: Option<Duration>,
    errors: f64,
    failures: u32,
    refusals: u32,
    pub(super) not_before: Option<Instant>,
    pub(super) wrong_chain: bool,
    /// Methods that it answered it does not have, and when.
    missing: BTreeMap<String, Instant>,
    /// How often it had no state of the block asked for, in all and since it last answered.
    discarded: u64,
    barren: u32,
    problem: Option<String>,
    /// What it can do, as it last said.
    pub(super) abilities: Option<Abilities>,
    /// Whether it was asked for that over this connection.
    pub(super) asked: bool,
}

/// What is known of an endpoint, for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointReport {
    /// Its address without what may be secret.
    pub url: String,
    /// Whether requests go to it now.
    pub in_use: bool,
    pub head: Option<BlockNumber>,
    /// Blocks by which it was behind the freshest endpoint.
    pub lag: Option<u64>,
    /// Moving mean of its answers, in milliseconds.
    pub latency_millis: Option<u64>,
    /// Moving share of requests that failed.
    pub error_rate: f64,
    /// Whether it serves another chain, and is not used for that.
    pub other_chain: bool,
    /// Methods it does not have.
    pub missing_methods: Vec<String>,
    /// How often it had no state of the block asked for: it keeps less than others.
    pub discarded_states: u64,
    /// Why it was last left.
    pub problem: Option<String>,
    /// What it can do, if it was asked.
    pub abilities: Option<Abilities>,
}

impl EndpointSlot {
    /// Returns the connection, if it still stands.
    pub(super) fn open(&self) -> Option<&Arc<Link>> {
        self.link.as_ref().filter(|link| link.client.is_connected())
    }

    pub(super) fn is_lagging(&self) -> bool {
        self.lag.is_some_and(|lag| lag > FRESH)
    }

    pub(super) fn may_be_asked(&self) -> bool {
        self.not_before.is_none_or(|time| time <= Instant::now())
    }

    pub(super) fn lacks(&self, method: &str) -> bool {
        self.missing
            .get(method)
            .is_some_and(|since| since.elapsed() < FORGOTTEN)
    }

    /// Returns what makes it worse than another; the order of the command line decides the rest.
    pub(super) fn demerit(&self) -> (bool, bool) {
        (self.is_lagging(), self.errors > FAILING)
    }

    /// Notes an answer to a request of ours: past failures are over.
    pub(super) fn answered(&mut self, took: Duration) {
        self.measured(took, false);
        (self.failures, self.refusals, self.barren, self.not_before) = (0, 0, 0, None);
        self.problem = None;
    }

    pub(super) fn measured(&mut self, took: Duration, failed: bool) {
        let newest = if failed { 1.0 } else { 0.0 };
        self.errors += NEWEST * (newest - self.errors);
        let before = self.latency.unwrap_or(took).as_secs_f64();
        let mean = before + NEWEST * (took.as_secs_f64() - before);
        self.latency = Some(Duration::from_secs_f64(mean));
    }

    pub(super) fn lacks_method(&mut self, method: &str) {
        self.missing.insert(method.to_owned(), Instant::now());
    }

    /// A new connection may lead to a newer node.
    pub(super) fn forget_methods(&mut self) {
        self.missing.clear();
    }

    /// Notes that it has no state of a block; returns whether it seems to have none at all.
    pub(super) fn has_no_state(&mut self) -> bool {
        self.discarded += 1;
        self.barren += 1;
        self.barren > BARREN
    }

    /// Gives it a pause; `alone`: nobody else is there to ask.
    pub(super) fn punish(
        &mut self,
        trouble: Trouble,
        problem: &str,
        deadlines: &Deadlines,
        alone: bool,
    ) {
        let pause = match trouble {
            Trouble::Broken => {
                self.failures += 1;
                let first = deadlines.backoff;
                let longest = first * 32;
                BackOff { first, longest }.after(self.failures)
            }
            Trouble::ToldToGoAway => {
                self.refusals += 1;
                // Weights may be due.
                let first = deadlines.penalty / if alone { 16 } else { 1 };
                let longest = first * 16;
                BackOff { first, longest }.after(self.refusals)
            }
        };
        self.not_before = Some(Instant::now() + pause);
        self.problem = Some(problem.to_owned());
    }

    pub(super) fn report(&self, url: String, in_use: bool) -> EndpointReport {
        EndpointReport {
            url,
            in_use,
            head: self.head,
            lag: self.lag,
            latency_millis: self
                .latency
                .map(|latency| u64::try_from(latency.as_millis()).unwrap_or(u64::MAX)),
            error_rate: self.errors,
            other_chain: self.wrong_chain,
            missing_methods: self.missing.keys().cloned().collect(),
            discarded_states: self.discarded,
            problem: self.problem.clone(),
            abilities: self.abilities,
        }
    }
}
