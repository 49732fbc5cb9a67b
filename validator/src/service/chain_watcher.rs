//! The chain watcher: every new block, a fresh snapshot when one is due, and what is wrong with
//! what they say.

use std::{sync::Arc, time::Duration};

use shared::{Failure, causes, clock, shutdown::Shutdown, status::Health};
use tokio::time::{Instant, sleep};

use super::{chain_view::ChainView, gate::Hindrance};
use crate::state::Kept;
use chain::{ChainError, ChainSnapshot, Client, EndpointReport};
use report::{
    board::{Alarm, Board},
    status::EndpointStatus,
};
use subnet::{BlockNumber, ModelId, Parameters};

/// A snapshot is taken at least every so many blocks.
const SNAPSHOT_BLOCKS: u64 = 25;

/// First pause after a failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// An endpoint so many blocks behind another lags.
const LAG_BLOCKS: u64 = 5;

/// A chain whose clock is so many seconds behind ours is old; beyond the second number, so old
/// that transactions signed on it expire before they arrive.
const OLD_SECONDS: u64 = 300;
const TOO_OLD_SECONDS: u64 = 900;

/// What the watcher may find wrong.
#[derive(Debug)]
pub(super) struct WatchAlarms {
    /// The chain does not answer.
    pub(super) chain: Alarm,
    /// What it answers is old.
    pub(super) lag: Alarm,
    pub(super) subnet: Alarm,
    pub(super) registration: Alarm,
    /// Nobody committed a model of ours.
    pub(super) commitments: Alarm,
}

#[derive(Debug)]
pub(super) struct ChainWatcher {
    pub(super) client: Client,
    pub(super) chain: Arc<ChainView>,
    pub(super) state: Arc<Kept>,
    pub(super) board: Board,
    pub(super) alarms: WatchAlarms,
    pub(super) parameters: Parameters,
    /// A snapshot is taken at least this often.
    pub(super) update_delay: Duration,
    pub(super) shutdown: Shutdown,
}

impl ChainWatcher {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let mut blocks = self.client.blocks();
        let mut pause = FIRST_PAUSE;
        let mut taken = Instant::now();
        self.look(&self.chain.snapshot());
        loop {
            let seen = tokio::select! {
                () = self.shutdown.requested() => return Ok(()),
                seen = blocks.next() => seen,
            };
            let outcome = match seen {
                Ok(block) => self.follow(block, &mut taken).await,
                Err(error) => Err(error),
            };
            self.client.learn_abilities();
            self.tell_endpoints();
            if let Err(error) = outcome {
                let error = causes::one_line(&error);
                tracing::warn!(error, "the chain is away");
                self.alarms
                    .chain
                    .raise(Health::Yellow, format_args!("chain: {error}"));
                tokio::select! {
                    () = self.shutdown.requested() => return Ok(()),
                    () = sleep(pause) => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            } else {
                self.alarms.chain.end();
                pause = FIRST_PAUSE;
            }
        }
    }

    async fn follow(&self, block: BlockNumber, taken: &mut Instant) -> Result<(), ChainError> {
        self.chain.saw(block);
        self.stay_alive(block);
        self.board.note(|details| {
            details.block = Some(block);
            details.block_at = Some(clock::now());
        });
        let behind = block.saturating_sub(self.chain.snapshot().block);
        let due = behind >= SNAPSHOT_BLOCKS || taken.elapsed() >= self.update_delay;
        if !due || behind == 0 {
            return Ok(());
        }
        *taken = Instant::now();
        self.chain.refresh().await?;
        self.look(&self.chain.snapshot());
        Ok(())
    }

    /// Looks at a snapshot for what stands in the way of evaluation and weights.
    fn look(&self, snapshot: &ChainSnapshot) {
        let uid = self.chain.uid();
        self.board.note(|details| details.uid = uid);
        let hindrance = self.chain.hindrance();
        let (mut other_subnet, mut not_registered) = (None, None);
        match hindrance {
            Some(Hindrance::OtherSubnet(text)) => other_subnet = Some(text),
            Some(Hindrance::NotRegistered(text)) => not_registered = Some(text),
            None => {}
        }
        tell(&self.alarms.subnet, Health::Red, other_subnet);
        tell(&self.alarms.registration, Health::Red, not_registered);
        let nothing = nothing_committed(snapshot, &self.parameters);
        tell(&self.alarms.commitments, Health::Yellow, nothing);
    }

    /// Says on the board how the endpoints are, and how old the chain is that they have.
    fn tell_endpoints(&self) {
        let endpoints = self.client.endpoints();
        let time = self.chain.snapshot().hyperparameters.time;
        let old = clock::unix_seconds().saturating_sub(time.unwrap_or(u64::MAX));
        let in_use = endpoints.iter().find(|endpoint| endpoint.in_use);
        let lag = in_use.and_then(|endpoint| endpoint.lag).unwrap_or(0);
        if lag > LAG_BLOCKS {
            let text = format!("the chain's only endpoint that can be used is {lag} blocks behind");
            tell(&self.alarms.lag, Health::Yellow, Some(text));
        } else if old > OLD_SECONDS {
            let health = if old > TOO_OLD_SECONDS {
                Health::Red
            } else {
                Health::Yellow
            };
            let text = format!(
                "the chain's clock is {} minutes behind this machine's: its endpoints lag, or the \
                 clock here is wrong",
                old / 60
            );
            tell(&self.alarms.lag, health, Some(text));
        } else {
            self.alarms.lag.end();
        }
        let endpoints = endpoints.into_iter().map(status_of).collect();
        self.board.note(|details| details.endpoints = endpoints);
    }

    /// Notes that we are alive, four times a tempo: a restart within it goes on from the state.
    fn stay_alive(&self, block: BlockNumber) {
        let quarter = u64::from(self.chain.snapshot().hyperparameters.tempo) / 4;
        if block >= self.state.look(|state| state.alive_at) + quarter.max(1)
            && let Err(error) = self.state.update(|state| state.alive_at = block)
        {
            tracing::warn!(
                error = causes::one_line(&error),
                "could not write the state"
            );
        }
    }
}

/// Raises an alarm, and logs what is new; or ends it.
fn tell(alarm: &Alarm, health: Health, text: Option<String>) {
    let Some(text) = text else {
        return alarm.end();
    };
    if !alarm.is_raised() {
        tracing::warn!(text, "something stands in the way");
    }
    alarm.raise(health, text);
}

/// Says that nobody committed a model of the competitions in force, if so.
pub(super) fn nothing_committed(
    snapshot: &ChainSnapshot,
    parameters: &Parameters,
) -> Option<String> {
    let competitions = parameters.competitions_at(snapshot.block);
    let ids: Vec<&str> = competitions.iter().map(|one| one.id.0.as_str()).collect();
    let models = snapshot
        .commitments
        .iter()
        .filter_map(|commitment| commitment.model.as_ref().ok());
    let mut named = models.map(ModelId::competition_or_old);
    (!named.any(|named| ids.contains(&named.0.as_str()))).then(|| {
        format!(
            "no neuron of subnet {} committed a model of {}",
            snapshot.netuid,
            ids.join(", ")
        )
    })
}

fn status_of(report: EndpointReport) -> EndpointStatus {
    EndpointStatus {
        url: report.url,
        in_use: report.in_use,
        block: report.head,
        lag: report.lag,
        latency_millis: report.latency_millis,
        error_rate: report.error_rate,
        watches: report.abilities.and_then(|abilities| abilities.watches),
        state_depth: report.abilities.and_then(|abilities| abilities.depth),
        problem: report.problem,
    }
}
