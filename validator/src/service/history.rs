//! The history task: keeps what happens beside the steps, and the index up to date.
//!
//! Everything here is for people. It waits for nobody and nobody waits for it: what it reads is on the board, what it
//! writes is a line of events and, on a thread of its own, the index.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use shared::{Failure, clock, shutdown::Shutdown};
use tokio::{
    sync::{
        broadcast::{self, error::TryRecvError},
        watch,
    },
    time::{Instant, sleep, timeout},
};

use super::{disk::DiskWatch, pages::write_site};
use chain::{ChainSnapshot, Client};
use index::{Index, Leaders};
use report::{
    StepRecord,
    board::Board,
    events::{Event, EventLog, Happening, TrustReading},
    meters::Meters,
    status::{Cause, Details, HotkeyStanding, LastStep, ModelSummary, Problem, TrustNow},
    step_record::Receipt,
};
use subnet::{BlockNumber, CompetitionId, Hotkey};

/// Changes that come close together are told once.
const CALM: Duration = Duration::from_secs(1);

/// Without any change, it looks this often.
const EVERY: Duration = Duration::from_secs(60);

/// The disk is measured this often.
const MEASURE: Duration = Duration::from_secs(60);

/// Readings of the trust that the newest is compared with: about a day of epochs.
const WINDOW: usize = 20;

/// The chain counts stake in billionths of its coin.
const RAO: f64 = 1e9;

#[derive(Debug)]
pub(super) struct History {
    pub(super) board: Board,
    pub(super) version: String,
    pub(super) hotkey: Hotkey,
    /// The folder of the state.
    pub(super) folder: PathBuf,
    /// `None` without a chain.
    pub(super) client: Option<Client>,
    pub(super) snapshots: watch::Receiver<Arc<ChainSnapshot>>,
    pub(super) records: broadcast::Receiver<Arc<StepRecord>>,
    pub(super) meters: Meters,
    pub(super) disk: DiskWatch,
    /// Where the pages are written after each step.
    pub(super) site: Option<PathBuf>,
    pub(super) shutdown: Shutdown,
}

/// What was told already.
#[derive(Debug, Default)]
struct Reported {
    problems: BTreeMap<Cause, Problem>,
    receipt: Option<Receipt>,
    /// Newest last.
    trust: Vec<TrustReading>,
    snapshot: BlockNumber,
}

impl History {
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        let log = EventLog::open(&self.folder.join("records"));
        let log = log
            .inspect_err(|error| tracing::warn!(%error, "events are not kept"))
            .ok();
        let mut changes = self.board.subscribe();
        let mut told = Reported::default();
        let version = self.version.clone();
        keep(log.as_ref(), [Happening::Started { version }]);
        self.index().await;
        self.restore().await;
        let mut measured = None;
        loop {
            let mut events = news(&self.board.details(), &mut told);
            events.extend(self.trust(&mut told).await);
            let completed = self.completed();
            let happened = !events.is_empty();
            let sets = events
                .iter()
                .filter(|what| matches!(what, Happening::WeightsSet(_)));
            sets.for_each(|_| self.meters.weights_set());
            keep(log.as_ref(), events);
            if measured.is_none_or(|at: Instant| at.elapsed() >= MEASURE) {
                measured = Some(Instant::now());
                if let Some(disk) = self.disk.look().await {
                    self.board.note(|details| details.disk = Some(disk));
                }
            }
            if happened || completed {
                self.index().await;
            }
            if completed {
                self.write_site().await;
            }
            tokio::select! {
                () = self.shutdown.requested() => break,
                () = sleep(CALM) => {}
            }
            tokio::select! {
                () = self.shutdown.requested() => break,
                _ = timeout(EVERY, changes.changed()) => {}
            }
        }
        // Whoever asks next brings the index up to date.
        keep(log.as_ref(), news(&self.board.details(), &mut told));
        Ok(())
    }

    /// Counts the steps that were completed; returns whether there were any.
    fn completed(&mut self) -> bool {
        let mut any = false;
        loop {
            match self.records.try_recv() {
                Ok(record) => self.meters.step(&record),
                Err(TryRecvError::Lagged(steps)) => {
                    tracing::warn!(steps, "steps are missing in the metrics");
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => return any,
            }
            any = true;
        }
    }

    /// Puts the last step of each competition on the board, so that what is shown of them outlives a restart.
    async fn restore(&self) {
        let folder = self.folder.clone();
        let read = tokio::task::spawn_blocking(move || Index::open(&folder)?.leaders());
        let Ok(Ok(leaders)) = read.await else { return };
        self.board.note(|details| {
            for step in leaders.into_iter().map(last_step) {
                details
                    .last_steps
                    .entry(step.competition.clone())
                    .or_insert(step);
            }
        });
    }

    /// Reads what the chain makes of our weights, with each snapshot; returns what is new.
    async fn trust(&mut self, told: &mut Reported) -> Option<Happening> {
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        let client = self.client.as_ref()?;
        if told.snapshot == snapshot.block {
            return None;
        }
        told.snapshot = snapshot.block;
        let neuron = snapshot.neuron(&self.hotkey)?;
        let uid = neuron.uid;
        let standing = HotkeyStanding {
            permit: neuron.validator_permit,
            stake: neuron.stake as f64 / RAO,
        };
        self.board.note(|details| details.standing = Some(standing));
        let trust = client
            .trust(snapshot.netuid, uid)
            .await
            .inspect_err(|error| tracing::debug!(%error, "could not read our trust"))
            .ok()?;
        let reading = TrustReading {
            block: trust.block,
            validator_trust: trust.validator_trust,
            consensus: trust.consensus,
            ours: trust.weights,
        };
        let same = |last: &TrustReading| {
            (last.validator_trust, &last.consensus) == (reading.validator_trust, &reading.consensus)
        };
        if told.trust.last().is_some_and(same) {
            return None;
        }
        told.trust.push(reading.clone());
        let surplus = told.trust.len().saturating_sub(WINDOW);
        told.trust.drain(..surplus);
        let now = now(&told.trust, &reading);
        self.board.note(|details| details.trust = Some(now));
        Some(Happening::Trust(reading))
    }

    async fn write_site(&self) {
        let Some(site) = self.site.clone() else {
            return;
        };
        let (folder, version) = (self.folder.clone(), self.version.clone());
        let written =
            tokio::task::spawn_blocking(move || write_site(&folder, &site, Some(&version)));
        match written.await {
            Ok(Ok(_)) => {}
            Ok(Err(failure)) => tracing::warn!(%failure, "the pages are not written"),
            Err(panic) => tracing::error!(%panic, "writing the pages failed"),
        }
    }

    async fn index(&self) {
        let folder = self.folder.clone();
        let refreshed = tokio::task::spawn_blocking(move || {
            Index::open(&folder).map(|index| index.rebuilt().map(ToOwned::to_owned))
        });
        match refreshed.await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(why))) => tracing::info!(why, "the index was made anew"),
            Ok(Err(error)) => {
                let error = shared::causes::one_line(&error);
                tracing::warn!(error, "the index is not up to date; it is tried again");
            }
            Err(panic) => tracing::error!(%panic, "keeping the index failed"),
        }
    }
}

fn last_step(leaders: Leaders) -> LastStep {
    let models = leaders.standings.into_iter().map(|row| {
        let model = ModelSummary {
            loss: row.loss,
            win_rate: row.win_rate.into(),
            weight: row.weight,
        };
        (row.uid, model)
    });
    LastStep {
        step: leaders.last.step,
        competition: CompetitionId(leaders.last.competition),
        block: leaders.last.block,
        samples: leaders.last.digest,
        seconds: leaders.last.seconds,
        finished_at: leaders.last.finished,
        models: models.collect(),
    }
}

fn keep(log: Option<&EventLog>, happened: impl IntoIterator<Item = Happening>) {
    let Some(log) = log else { return };
    for what in happened {
        let at = clock::now();
        if let Err(error) = log.append(&Event { at, what }) {
            tracing::warn!(%error, "an event is not kept");
        }
    }
}

/// Returns what is on the board and was not told yet.
fn news(details: &Details, told: &mut Reported) -> Vec<Happening> {
    let mut events = Vec::new();
    for (cause, problem) in &details.alarms {
        let known = told.problems.get(cause);
        // Another wording, such as a count that rises, is not news.
        if known.is_none_or(|known| known.health != problem.health) {
            events.push(Happening::Problem {
                cause: *cause,
                health: problem.health,
                text: problem.text.clone(),
            });
        }
    }
    let ended = told.problems.keys().copied();
    events.extend(
        ended
            .filter(|cause| !details.alarms.contains_key(cause))
            .map(|cause| Happening::Ended { cause }),
    );
    told.problems.clone_from(&details.alarms);
    if let Some(receipt) = &details.receipt
        && told.receipt.as_ref() != Some(receipt)
    {
        events.push(Happening::WeightsSet(receipt.clone()));
        told.receipt = Some(receipt.clone());
    }
    events
}

/// Compares the newest reading with the best of the window.
fn now(window: &[TrustReading], newest: &TrustReading) -> TrustNow {
    let share = |reading: &TrustReading| f64::from(reading.validator_trust) / f64::from(u16::MAX);
    let best = window.iter().map(share).fold(0.0, f64::max);
    TrustNow {
        block: newest.block,
        validator_trust: share(newest),
        best,
    }
}

#[cfg(test)]
mod tests {
    use report::board::Board;
    use shared::status::Health;

    use super::*;

    #[test]
    fn a_problem_is_told_when_it_begins_changes_its_health_and_ends() {
        let (board, alarms) = Board::new(Details::default());
        let mut told = Reported::default();
        let mut next = || news(&board.details(), &mut told);
        assert_eq!(next(), []);
        alarms.chain.raise(Health::Yellow, "away");
        let begun = |health, text: &str| Happening::Problem {
            cause: Cause::Chain,
            health,
            text: text.into(),
        };
        assert_eq!(next(), [begun(Health::Yellow, "away")]);
        alarms.chain.raise(Health::Yellow, "away for 2 minutes");
        assert_eq!(next(), []);
        alarms.chain.raise(Health::Red, "gone");
        assert_eq!(next(), [begun(Health::Red, "gone")]);
        alarms.chain.end();
        let ended = Happening::Ended {
            cause: Cause::Chain,
        };
        assert_eq!(next(), [ended]);
        assert_eq!(next(), []);
    }

    #[test]
    fn the_trust_is_compared_with_the_best_of_the_window() {
        let reading = |validator_trust| TrustReading {
            block: 1,
            validator_trust,
            consensus: vec![],
            ours: vec![],
        };
        let window = [reading(32_768), reading(65_535), reading(13_107)];
        let now = now(&window, &window[2]);
        assert!((now.best - 1.0).abs() < 1e-9 && (now.validator_trust - 0.2).abs() < 1e-4);
    }
}
