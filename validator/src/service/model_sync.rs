//! Model sync: keeps store and tracker up with the commitments, and wakes the step loop.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use shared::{Exit, Failure, file, status::Health};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{chain_view::ChainView, library::Library, severity, wakeups::Wakeups};
use crate::state::Kept;
use chain::{ChainSnapshot, RawCommitment};
use hub::OriginReport;
use models::{
    Tracker,
    sync::Event,
    tracker::{Outcome, TrackerEntry},
};
use report::{
    board::{Alarm, Board},
    status::{ModelCounts, OriginStatus},
};
use subnet::{Commitment, FaultKind};

/// Where the tracker is kept, in the folder of the state.
const TRACKER: &str = "tracker.json";
const MAX_BYTES: u64 = 64 << 20;

/// Events that may wait for the evaluation; a full queue holds downloads back.
const QUEUE: usize = 8;

/// What waits for a better time is looked at this often.
const RETRY_EVERY: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct ModelSync {
    pub(super) chain: Arc<ChainView>,
    pub(super) library: Arc<Library>,
    pub(super) state: Arc<Kept>,
    pub(super) saved: TrackerFile,
    /// Something outside keeps commitments from being looked at.
    pub(super) alarm: Alarm,
    pub(super) board: Board,
    /// Least time between looks at a uid's commitment.
    pub(super) update_delay: Duration,
    pub(super) wakeups: Arc<Wakeups>,
}

#[derive(Debug)]
pub(super) struct TrackerFile {
    path: PathBuf,
    alarm: Alarm,
}

impl ModelSync {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let mut snapshots = self.chain.snapshots();
        let (sender, mut events) = mpsc::channel(QUEUE);
        loop {
            let snapshot = self.chain.snapshot();
            snapshots.mark_unchanged();
            self.wakeups.syncing.send_replace(true);
            let round = self.round(&snapshot, &sender);
            tokio::pin!(round);
            loop {
                tokio::select! {
                    () = self.wakeups.shutdown.requested() => return self.save(),
                    () = &mut round => break,
                    Some(_) = events.recv() => self.note(),
                }
            }
            while events.try_recv().is_ok() {
                self.note();
            }
            self.publish();
            if self.wakeups.syncing.send_replace(false) {
                self.wakeups.news.notify_one();
            }
            let retry = Instant::now() + RETRY_EVERY;
            tokio::select! {
                () = self.wakeups.shutdown.requested() => return self.save(),
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        return self.save();
                    }
                }
                () = sleep_until(retry) => {}
            }
        }
    }

    /// Looks at what is due, then at what the pools need and the store lacks.
    async fn round(&self, snapshot: &ChainSnapshot, events: &mpsc::Sender<Event>) {
        let commitments = commitments(snapshot);
        let sync = &self.library.sync;
        if sync
            .round(&commitments, snapshot.block, events)
            .await
            .is_err()
        {
            return;
        }
        for commitment in self.needed(&commitments) {
            if sync.look_now(commitment, snapshot.block).await.is_some() {
                self.note();
            }
        }
    }

    /// Returns the commitments of pools whose models are not on disk: too old to be news, or
    /// removed.
    fn needed<'c>(&self, commitments: &'c [Commitment]) -> Vec<&'c Commitment> {
        let state = self.state.get();
        let tracker = self.library.sync.tracker();
        let now = shared::clock::now();
        let missing = |commitment: &&Commitment| {
            let pooled = state
                .pools
                .values()
                .any(|pool| pool.get(&commitment.uid) == Some(&commitment.hotkey));
            if !pooled {
                return false;
            }
            match tracker.get(&commitment.hotkey).map(|entry| &entry.outcome) {
                Some(Outcome::Verified { content_hash, .. }) => {
                    matches!(self.library.store.model(content_hash), Ok(None))
                }
                _ => tracker.is_due(commitment, now, self.update_delay),
            }
        };
        commitments.iter().filter(missing).collect()
    }

    /// Keeps what came of a commitment, and tells those who wait for models.
    fn note(&self) {
        tell(&self.library.sync.tracker(), &self.alarm);
        // A failure is on the board and in the log, and the round's end tries again.
        let _ = self.save();
        self.wakeups.news.notify_one();
    }

    fn publish(&self) {
        let tracker = self.library.sync.tracker();
        tell(&tracker, &self.alarm);
        if self.saved.failed() {
            let _ = self.save();
        }
        let mut models = ModelCounts::default();
        for entry in tracker.entries().values() {
            *match entry.outcome {
                Outcome::Verified { .. } => &mut models.verified,
                Outcome::Refused { .. } => &mut models.refused,
                Outcome::Waiting { .. } => &mut models.waiting,
            } += 1;
        }
        let origins = self.library.hub.origin_reports();
        let origins = origins.into_iter().map(origin_status).collect();
        self.board.note(|details| {
            details.models = models;
            details.origins = origins;
        });
    }

    fn save(&self) -> Result<(), Failure> {
        self.saved.save(&self.library.sync.tracker())
    }
}

/// Says that commitments wait for something that is not their model's fault, while any does.
fn tell(tracker: &Tracker, alarm: &Alarm) {
    let waits = |entry: &TrackerEntry| match &entry.outcome {
        Outcome::Waiting { fault, .. } if fault.kind != FaultKind::Model => Some(fault.clone()),
        _ => None,
    };
    match tracker.entries().values().find_map(waits) {
        None => alarm.end(),
        Some(fault) => {
            let health = severity(&fault, 1);
            match tracker.faults() {
                1 => alarm.raise(health, fault),
                more => alarm.raise(health, format_args!("{fault} (and {} more)", more - 1)),
            }
        }
    }
}

fn origin_status(report: OriginReport) -> OriginStatus {
    OriginStatus {
        url: report.url,
        served: report.served,
        failed: report.failed,
        problem: report.problem,
    }
}

/// Returns the commitments that name a model.
fn commitments(snapshot: &ChainSnapshot) -> Vec<Commitment> {
    snapshot
        .commitments
        .iter()
        .filter_map(RawCommitment::commitment)
        .collect()
}

impl TrackerFile {
    pub(super) fn new(folder: &Path, alarm: Alarm) -> Self {
        Self {
            path: tracker_file(folder),
            alarm,
        }
    }

    /// Reads the tracker; a damaged one is begun anew, which costs requests and no model.
    pub(super) fn load(&self) -> Result<Tracker, Failure> {
        read_tracker(&self.path)
    }

    fn save(&self, tracker: &Tracker) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(tracker).map_err(|error| Failure::of(Exit::Bug, &error))?;
        let written = file::write_atomic(&self.path, &bytes)
            .map_err(|error| Failure::of(Exit::Machine, &error));
        match &written {
            Ok(()) => self.alarm.end(),
            Err(failure) => {
                tracing::error!(%failure, "could not keep the tracker");
                self.alarm.raise(Health::Yellow, failure);
            }
        }
        written
    }

    /// Returns whether the last write failed.
    fn failed(&self) -> bool {
        self.alarm.is_raised()
    }
}

/// Returns the file of what came of the commitments.
pub(super) fn tracker_file(folder: &Path) -> PathBuf {
    folder.join(TRACKER)
}

pub(super) fn read_tracker(path: &Path) -> Result<Tracker, Failure> {
    let bytes =
        file::read_limited(path, MAX_BYTES).map_err(|error| Failure::of(Exit::Machine, &error))?;
    let Some(bytes) = bytes else {
        return Ok(Tracker::default());
    };
    Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::error!(path = %path.display(), %error, "the tracker is damaged: every commitment is looked at again");
        Tracker::default()
    }))
}

#[cfg(test)]
mod tests {
    use report::status::{Cause, Details};

    use super::*;

    fn tracker(waiting: &[&str]) -> Tracker {
        let entry = |n: u8, kind: &str| {
            serde_json::json!({
                "uid": n, "block": n,
                "model_id": format!("a:b:{}:x:l3", "0".repeat(40)),
                "looked_at": "1970-01-01T00:00:00Z", "seen_at": "1970-01-01T00:00:00Z",
                "outcome": {"waiting": {
                    "fault": {"kind": kind, "reason": format!("{kind} {n}")},
                    "at": "1970-01-01T00:00:00Z", "times": 1,
                }},
            })
        };
        let entries: std::collections::BTreeMap<String, serde_json::Value> = (1..)
            .zip(waiting)
            .map(|(n, kind)| (subnet::Hotkey([n; 32]).to_string(), entry(n, kind)))
            .collect();
        serde_json::from_value(serde_json::json!(entries)).unwrap()
    }

    #[test]
    fn what_keeps_commitments_waiting_is_told_while_it_does() {
        let (board, alarms) = Board::new(Details::default());
        let told = |waiting: &[&str]| {
            tell(&tracker(waiting), &alarms.models);
            board.status("test", RETRY_EVERY).problems.join("; ")
        };
        assert_eq!(told(&["model", "outside"]), "outside 2");
        assert!(told(&["outside", "machine"]).ends_with("(and 1 more)"));
        assert_eq!(
            told(&["model"]),
            "",
            "what miners did wrong is not a problem of ours"
        );
    }

    #[test]
    fn a_tracker_that_cannot_be_written_is_told_until_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("state");
        // A file where the folder should be: nobody, root included, can write below it.
        file::write_atomic(&folder, b"no folder").unwrap();
        let (board, alarms) = Board::new(Details::default());
        let tracker = TrackerFile::new(&folder, alarms.tracker);
        assert!(tracker.save(&Tracker::default()).is_err());
        assert!(tracker.failed());
        let told = board.status("test", RETRY_EVERY).details.alarms;
        assert_eq!(told[&Cause::Tracker].health, Health::Yellow);
        std::fs::remove_file(&folder).unwrap();
        tracker.save(&Tracker::default()).unwrap();
        assert!(!tracker.failed());
        assert_eq!(tracker.load().unwrap(), Tracker::default());
    }
}
