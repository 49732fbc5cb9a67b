//! The publisher: puts each step's record and samples where anyone can read and check them.
//!
//! It reads the journal, never the step: what could not be published is published later, also after a restart, as long
//! as it is among the newest [`MAX_STEPS`]. A ledger in the state's folder says what a place holds. A step is noted
//! there before its first file is written, so that whatever a crash leaves is found and replaced or removed.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shared::{Failure, back_off::BackOff, file, shutdown::Shutdown, status::Health};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::sleep,
};

use crate::step::samples;
use report::{
    StepRecord,
    board::Alarm,
    journal::{self, Entry},
    publication::{
        FORMAT, MANIFEST, MAX_RECORD, MAX_SAMPLES, MAX_STEPS, PublishPlace, PublishedStep,
        StepManifest, is_digest, samples_name,
    },
};

/// The ledger, in the state's folder.
const LEDGER: &str = "published.json";
const MAX_LEDGER: u64 = 1 << 20;

/// The pause after a failure.
const PAUSE: BackOff = BackOff {
    first: Duration::from_secs(5),
    longest: Duration::from_mins(10),
};

/// How long the last step may take to be published when the validator stops.
const FINISH: Duration = Duration::from_secs(10);

/// Steps that a place would not have removed; beyond that they are left there.
const MAX_LEAVING: usize = MAX_STEPS;

const ZSTD_LEVEL: i32 = 9;

#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) place: PublishPlace,
    /// The folder of the state.
    pub(super) folder: PathBuf,
    /// Says that there is something new; it is read from the journal.
    pub(super) records: broadcast::Receiver<Arc<StepRecord>>,
    pub(super) alarm: Alarm,
    pub(super) shutdown: Shutdown,
}

/// What a place holds, and what it may hold.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Ledger {
    /// The place, as it is shown.
    place: String,
    /// Oldest first.
    steps: Vec<LedgerStep>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct LedgerStep {
    /// Whether all its files are there.
    whole: bool,
    #[serde(flatten)]
    step: PublishedStep,
}

impl Publisher {
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        if let Err(error) = self.place.clean().await {
            tracing::warn!(%error, "could not tidy where records are published");
        }
        let mut ledger = self.ledger();
        let mut failures = 0;
        loop {
            let stopping = self.shutdown.clone();
            let stopped = async {
                stopping.requested().await;
                sleep(FINISH).await;
            };
            let published = tokio::select! {
                published = self.catch_up(&mut ledger) => published,
                () = stopped => return Ok(()),
            };
            match published {
                Ok(()) => {
                    failures = 0;
                    self.alarm.end();
                    match self.records.recv().await {
                        // It may have missed some: the journal has all.
                        Ok(_) | Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => return Ok(()),
                    }
                }
                Err(why) => {
                    failures += 1;
                    let place = &self.place;
                    tracing::warn!(%place, why, failures, "could not publish");
                    let text = format!("{place} does not take our records: {why}");
                    self.alarm.raise(Health::Yellow, text);
                    tokio::select! {
                        () = self.shutdown.requested() => return Ok(()),
                        () = sleep(PAUSE.after(failures)) => {}
                    }
                }
            }
        }
    }

    /// Publishes every step that is not, then removes those that are too old.
    async fn catch_up(&self, ledger: &mut Ledger) -> Result<(), String> {
        let after = ledger.steps.iter().filter(|step| step.whole);
        let after = after.map(|step| step.step.step).max();
        let folder = self.folder.join("records");
        let read = tokio::task::spawn_blocking(move || journal::newest(&folder, after, MAX_STEPS));
        let entries = read
            .await
            .map_err(text)?
            .map_err(|error| one_line(&error))?;
        for entry in entries {
            let step = entry.record.step;
            if let Err(why) = self.publish(ledger, entry).await {
                return Err(format!("step {step}: {why}"));
            }
        }
        self.forget(ledger).await;
        Ok(())
    }

    async fn publish(&self, ledger: &mut Ledger, entry: Entry) -> Result<(), String> {
        let Some(signature) = &entry.signature else {
            tracing::warn!(step = entry.record.step, "no signature: not published");
            return Ok(());
        };
        let signature = serde_json::json!(signature).to_string() + "\n";
        let (netuid, hotkey) = (entry.record.netuid, entry.record.hotkey);
        let version = entry.record.version.clone();
        let samples = self.samples(&entry.record).await?;
        let published = PublishedStep {
            step: entry.record.step,
            competition: entry.record.competition.clone(),
            samples: samples.as_ref().map(|(digest, _)| digest.clone()),
        };
        let record = packed(entry.line).await?;
        if record.len() as u64 > MAX_RECORD {
            tracing::error!(
                step = published.step,
                "a record of more than {MAX_RECORD} bytes is not published"
            );
            return Ok(());
        }
        ledger.begin(published.clone());
        self.keep(ledger)?;
        if let Some((digest, set)) = samples
            && !ledger.holds(&digest)
        {
            self.put(&samples_name(&digest), set).await?;
        }
        // The signature goes first: a record that is there is a signed one.
        let signature = Bytes::from(signature);
        self.put(&published.signature(), signature).await?;
        self.put(&published.record(), record).await?;
        let manifest = StepManifest {
            format: FORMAT,
            netuid,
            hotkey,
            version,
            steps: ledger.newest(&published),
        };
        let manifest = serde_json::json!(manifest).to_string();
        self.put(MANIFEST, Bytes::from(manifest)).await?;
        ledger.end(&published);
        self.keep(ledger)
    }

    /// Returns the packed sample set of a step with its digest, if it is still there.
    async fn samples(&self, record: &StepRecord) -> Result<Option<(String, Bytes)>, String> {
        let digest = record.samples.digest.clone();
        if !is_digest(&digest) {
            return Ok(None);
        }
        let path = samples::path_of(&self.folder.join("samples"), &digest);
        let read = tokio::task::spawn_blocking(move || file::read_limited(&path, MAX_SAMPLES));
        let read = read.await.map_err(text)?;
        match read {
            Ok(set) => Ok(set.map(|set| (digest, set.into()))),
            Err(error) => {
                let error = one_line(&error);
                tracing::warn!(error, "a sample set is not published");
                Ok(None)
            }
        }
    }

    async fn put(&self, name: &str, content: Bytes) -> Result<(), String> {
        let put = self.place.put(name, content).await;
        put.map_err(|error| one_line(&error))
    }

    /// Removes what is too old. A place that does not let us keeps it: what is published is whole all the same.
    async fn forget(&self, ledger: &mut Ledger) {
        let leaving = ledger.steps.len().saturating_sub(MAX_STEPS);
        let mut gone = 0;
        for index in 0..leaving {
            let old = &ledger.steps[index].step;
            let stays = |digest: &str| {
                let rest = &ledger.steps[index + 1..];
                rest.iter()
                    .any(|step| step.step.samples.as_deref() == Some(digest))
            };
            let mut names = vec![old.record(), old.signature()];
            names.extend(
                old.samples
                    .as_deref()
                    .filter(|digest| !stays(digest))
                    .map(samples_name),
            );
            let mut removed = Ok(());
            for name in names {
                removed = self.place.remove(&name).await;
                if removed.is_err() {
                    break;
                }
            }
            if let Err(error) = removed {
                let error = one_line(&error);
                tracing::warn!(error, step = old.step, "an old step stays published");
                break;
            }
            gone = index + 1;
        }
        ledger
            .steps
            .drain(..gone.max(leaving.saturating_sub(MAX_LEAVING)));
        if leaving > 0
            && let Err(why) = self.keep(ledger)
        {
            tracing::warn!(why, "what is published is not noted");
        }
    }

    /// Reads the ledger; that of another place says nothing of this one.
    fn ledger(&self) -> Ledger {
        let place = self.place.to_string();
        let read = file::read_limited(&self.ledger_path(), MAX_LEDGER);
        let read = read.ok().flatten().and_then(|bytes| {
            serde_json::from_slice::<Ledger>(&bytes)
                .inspect_err(|error| tracing::warn!(%error, "{LEDGER} is damaged: publishing anew"))
                .ok()
        });
        let ledger = read.filter(|ledger| ledger.place == place);
        ledger.unwrap_or_else(|| Ledger {
            place,
            steps: Vec::new(),
        })
    }

    fn keep(&self, ledger: &Ledger) -> Result<(), String> {
        let text = serde_json::json!(ledger).to_string();
        let kept = file::write_atomic(&self.ledger_path(), text.as_bytes());
        kept.map_err(|error| one_line(&error))
    }

    fn ledger_path(&self) -> PathBuf {
        let folder: &Path = &self.folder;
        folder.join(LEDGER)
    }
}

impl Ledger {
    /// Notes that files of a step are about to be written.
    fn begin(&mut self, step: PublishedStep) {
        self.steps.retain(|known| known.step.step != step.step);
        self.steps.push(LedgerStep { whole: false, step });
        self.steps.sort_by_key(|known| known.step.step);
    }

    fn end(&mut self, step: &PublishedStep) {
        for known in &mut self.steps {
            known.whole |= known.step.step == step.step;
        }
    }

    /// Returns whether a sample set is there for sure.
    fn holds(&self, digest: &str) -> bool {
        let whole = self.steps.iter().filter(|step| step.whole);
        let mut digests = whole.filter_map(|step| step.step.samples.as_deref());
        digests.any(|known| known == digest)
    }

    /// Returns the newest steps that are there whole, and this one.
    fn newest(&self, last: &PublishedStep) -> Vec<PublishedStep> {
        let there = |known: &&LedgerStep| known.whole || known.step == *last;
        let steps: BTreeSet<u64> = self.steps.iter().map(|known| known.step.step).collect();
        let oldest = steps.iter().rev().nth(MAX_STEPS - 1).copied();
        self.steps
            .iter()
            .filter(there)
            .map(|known| known.step.clone())
            .filter(|step| oldest.is_none_or(|oldest| step.step >= oldest))
            .collect()
    }
}

/// Compresses a record's line, as the journal does.
async fn packed(mut line: Vec<u8>) -> Result<Bytes, String> {
    let pack = move || {
        line.push(b'\n');
        zstd::encode_all(line.as_slice(), ZSTD_LEVEL)
    };
    let packed = tokio::task::spawn_blocking(pack).await.map_err(text)?;
    packed.map(Bytes::from).map_err(text)
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    shared::causes::one_line(error)
}

#[cfg(test)]
mod tests;
