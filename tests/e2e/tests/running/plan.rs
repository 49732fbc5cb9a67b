//! What a soak does and when: everything follows from a seed, so that a soak can be had again.

use std::{str::FromStr, time::Duration};

use localnet::{
    demo::{Service, Trouble},
    http::Fault,
};
use rand::{Rng as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;

/// The longest time between a record and what is done to the validator after it.
pub(crate) const LONGEST_DELAY: u64 = 900;

/// How much of everything. `scripts/soak` sets the environment; without it, it is a short one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Complete steps, in each of the two runs.
    pub(crate) steps: usize,
    /// How often the validator is killed.
    pub(crate) kills: usize,
    /// How often something else goes wrong.
    pub(crate) faults: usize,
    /// Decides what happens when.
    pub(crate) seed: u64,
    /// Wall clock between two blocks.
    pub(crate) block_time: Duration,
    /// How long the CPU time of an idle validator is measured; not at all if zero.
    pub(crate) idle: Duration,
}

/// What is done to the validator or to the world around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// SIGKILL to the validator, which is started again at once.
    Kill,
    /// SIGKILL to the validator, and a model is gone from the disk when it is started again.
    LoseModel,
    /// SIGTERM, as the supervisor does it.
    Drain,
    /// SIGKILL to the worker.
    KillWorker,
    /// Trouble with hub, samples or chain.
    Outside(Trouble),
}

/// An event, and when it happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planned {
    /// After so many complete steps...
    pub(crate) step: usize,
    /// ... and a little later.
    pub(crate) delay: Duration,
    pub(crate) event: Event,
}

impl Plan {
    /// Reads the environment.
    pub(crate) fn from_environment() -> Self {
        let steps = number("SOAK_STEPS", 20_usize);
        Self {
            steps,
            kills: number("SOAK_KILLS", (steps / 20).max(6)),
            faults: number("SOAK_FAULTS", steps / 8),
            seed: number("SOAK_SEED", 7),
            block_time: Duration::from_millis(number("SOAK_BLOCK_MILLIS", 250)),
            idle: Duration::from_secs(number("SOAK_IDLE_SECONDS", 0)),
        }
    }

    /// Returns all events in order.
    pub(crate) fn events(&self) -> Vec<Planned> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let others = others();
        let mut events = Vec::new();
        for index in 0..self.kills + self.faults {
            let event = if index < self.kills {
                Event::Kill
            } else {
                *others.choose(&mut random).unwrap()
            };
            events.push(Planned {
                // Faults find all models verified, and end before the last step.
                step: random.random_range(2..self.steps - 1),
                delay: Duration::from_millis(random.random_range(0..LONGEST_DELAY)),
                event,
            });
        }
        events.sort_by_key(|planned| planned.step);
        events
    }
}

pub(crate) fn others() -> Vec<Event> {
    let http = [
        (
            Service::Hub,
            &[
                Fault::ServerError,
                Fault::Unavailable,
                Fault::TooManyRequests,
                Fault::Cut,
                Fault::Html,
            ][..],
        ),
        (
            Service::Feed,
            &[
                Fault::ServerError,
                Fault::Unavailable,
                Fault::TooManyRequests,
                Fault::Cut,
                Fault::Html,
            ][..],
        ),
    ];
    let http = http.into_iter().flat_map(|(service, faults)| {
        faults
            .iter()
            .map(move |fault| Trouble::Service(service, *fault))
    });
    let chain = [
        Trouble::ChainStall,
        Trouble::ChainCut,
        Trouble::ChainBusy,
        Trouble::ChainBusy,
    ];
    let outside = http.chain(chain).map(Event::Outside);
    let inside = [Event::KillWorker, Event::LoseModel, Event::Drain];
    // As often as all outside together.
    let inside = inside.into_iter().cycle().take(14);
    outside.chain(inside).collect()
}

/// Returns a number from the environment, which is all the command line that tests have.
#[expect(
    clippy::disallowed_methods,
    reason = "the soak has no command line but the environment"
)]
pub(crate) fn number<T: FromStr>(name: &str, usual: T) -> T {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => usual,
    }
}
