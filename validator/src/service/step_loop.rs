//! The step loop: competitions in turn, one step after the other, idle when there is no news.

use std::{
    collections::{BTreeMap, btree_map},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use model::ContentHash;
use shared::{Exit, Failure, clock, notify, shutdown::Stop, status::Health};
use tokio::{sync::broadcast, time::sleep};

use super::{Parts, samples};
use crate::{
    state::{OpenStep, State},
    step::{self, Candidate, Field, Start, Tokenizer},
};
use models::{store::Pin, tracker::Outcome};
use report::{StepRecord, step_record::Refusal};
use subnet::{BlockNumber, Competition, Fault, FaultKind, Hotkey, Uid};

/// First pause after a fault; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// How long an idle loop waits before it looks again and says that it is alive.
const IDLE: Duration = Duration::from_secs(10);

/// How long a step waits for models that are just being fetched, so that they run together.
const SETTLE: Duration = Duration::from_secs(120);

/// How long a step waits for members of its pool that are not on disk yet.
const POOL_PATIENCE: Duration = Duration::from_secs(1800);

/// What the loop remembers between turns.
#[derive(Default)]
struct Memory {
    /// Refusals already reported, by commitment.
    reported: BTreeMap<Hotkey, BlockNumber>,
    /// Faults in a row.
    faults: u32,
    /// Steps completed in this run.
    done: u64,
}

/// A step that can begin, with its models held on disk.
struct Ready {
    start: Start,
    field: Field,
    _pins: Vec<Pin>,
}

pub(super) async fn run(
    parts: Arc<Parts>,
    records: broadcast::Sender<Arc<StepRecord>>,
) -> Result<(), Failure> {
    let mut memory = Memory::default();
    let began = Instant::now();
    loop {
        let turn = tokio::select! {
            () = parts.shutdown.requested() => return Ok(()),
            turn = turn(&parts, &memory, began) => turn,
        };
        notify::watchdog();
        match turn {
            Ok(Some(record)) => {
                memory.faults = 0;
                parts.context.board.well("step");
                completed(&parts, &mut memory, &record);
                // Nobody may be listening.
                let _ = records.send(Arc::new(record));
                if parts
                    .settings
                    .max_steps
                    .is_some_and(|max| memory.done >= max)
                {
                    parts.shutdown.request(Stop::Drain);
                }
            }
            Ok(None) => {
                parts.context.board.phase("waiting for news");
                let mut head = parts.head.subscribe();
                tokio::select! {
                    () = parts.shutdown.requested() => return Ok(()),
                    () = parts.news.notified() => {}
                    _ = head.changed() => {}
                    () = sleep(IDLE) => {}
                }
            }
            Err(fault) if fault.kind == FaultKind::Config => {
                return Err(Failure::from(fault));
            }
            Err(fault) => {
                memory.faults += 1;
                tracing::warn!(%fault, times = memory.faults, "the step is postponed");
                parts.fault("step", &fault, memory.faults);
                parts.context.board.phase("waiting after a fault");
                let doublings = memory.faults.saturating_sub(1).min(10);
                let pause = (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE);
                tokio::select! {
                    () = parts.shutdown.requested() => return Ok(()),
                    () = sleep(pause) => {}
                }
            }
        }
    }
}

async fn turn(parts: &Parts, memory: &Memory, began: Instant) -> Result<Option<StepRecord>, Fault> {
    let Some(mut ready) = next(parts, memory, began).await? else {
        return Ok(None);
    };
    // A step is due: it works on the chain as it is now, not as it was some blocks ago.
    if parts.client.is_some() && ready.start.block < *parts.head.borrow() {
        super::chain_watcher::snapshot(parts).await?;
        let Some(fresh) = next(parts, memory, began).await? else {
            return Ok(None);
        };
        ready = fresh;
    }
    let board = &parts.context.board;
    board.fact("step", ready.start.open.step);
    board.fact("competition", ready.start.competition.id.0.clone());
    step::run(&parts.context, &ready.start, &ready.field)
        .await
        .map(Some)
}

/// Chooses the next step: the one begun before a restart, else the next competition in turn that
/// has something new to say.
async fn next(parts: &Parts, memory: &Memory, began: Instant) -> Result<Option<Ready>, Fault> {
    let snapshot = parts.snapshot();
    let parameters = &parts.context.settings.parameters;
    let competitions = parameters.competitions_at(snapshot.block);
    if competitions.is_empty() {
        return Err(Fault::config(format_args!(
            "the subnet file has no competition at block {}",
            snapshot.block
        )));
    }
    if *parts.syncing.borrow() && began.elapsed() < SETTLE {
        return Ok(None);
    }
    let state = parts.context.state.get();
    let head = *parts.head.borrow();
    let count = competitions.len() as u64;
    if let Some(open) = state.open.as_ref().filter(|open| !open.samples.is_empty())
        && let Some(competition) = competitions.iter().find(|c| c.id == open.competition)
        && let Some((field, pins)) = field(parts, competition, &state, began)?
    {
        return ready(parts, memory, competition, open.clone(), field, pins).await;
    }
    for offset in 0..count {
        let number = state.step + offset;
        let competition = &competitions[usize::try_from(number % count).unwrap_or(0)];
        let Some((field, pins)) = field(parts, competition, &state, began)? else {
            continue;
        };
        let turn = samples::turn_at(parts, head);
        let fresh = state.turns.get(&competition.id) != Some(&turn);
        if !fresh && !field.has_news(&state) {
            continue;
        }
        let order = samples::order(parts, number, turn).await?;
        let open = OpenStep {
            step: number,
            competition: competition.id.clone(),
            started_at: clock::now(),
            seed: order.seed,
            seed_block: order.block,
            turn,
            samples: String::new(),
        };
        return ready(parts, memory, competition, open, field, pins).await;
    }
    Ok(None)
}

async fn ready(
    parts: &Parts,
    memory: &Memory,
    competition: &Competition,
    open: OpenStep,
    field: Field,
    pins: Vec<Pin>,
) -> Result<Option<Ready>, Fault> {
    let snapshot = parts.snapshot();
    let tokenizer = match &competition.tokenizer {
        Some(repository) => Some(tokenizer(parts, repository).await?),
        None => None,
    };
    let start = Start {
        open,
        competition: competition.clone(),
        block: snapshot.block,
        block_hash: snapshot.block_hash.clone(),
        tokenizer,
        refused: refused(parts, memory, competition),
    };
    Ok(Some(Ready {
        start,
        field,
        _pins: pins,
    }))
}

/// Returns the models of a competition's next step, held on disk; `None` if there is none, or if
/// members of the pool are still on their way.
fn field(
    parts: &Parts,
    competition: &Competition,
    state: &State,
    began: Instant,
) -> Result<Option<(Field, Vec<Pin>)>, Fault> {
    let snapshot = parts.snapshot();
    let tracker = parts.sync.tracker();
    let mut verified: BTreeMap<Uid, Candidate> = BTreeMap::new();
    let mut pins: BTreeMap<ContentHash, Pin> = BTreeMap::new();
    for commitment in &snapshot.commitments {
        let Some(entry) = tracker.get(&commitment.hotkey) else {
            continue;
        };
        let Outcome::Verified {
            content_hash,
            parameters,
        } = entry.outcome
        else {
            continue;
        };
        if entry.model_id.competition_or_old() != competition.id {
            continue;
        }
        let pin = match pins.entry(content_hash) {
            btree_map::Entry::Occupied(held) => held.into_mut(),
            btree_map::Entry::Vacant(place) => match parts.store.pin(&content_hash) {
                Ok(Some(pin)) => place.insert(pin),
                Ok(None) => continue,
                Err(error) => return Err(Fault::machine(Failure::of(Exit::Machine, &error))),
            },
        };
        let candidate = Candidate {
            hotkey: commitment.hotkey,
            block: entry.block,
            model: entry.model_id.clone(),
            content: content_hash,
            directory: pin.model().dir.clone(),
            parameters,
        };
        verified.insert(commitment.uid, candidate);
    }
    let awaited = state
        .pools
        .get(&competition.id)
        .into_iter()
        .flatten()
        .any(|(uid, hotkey)| {
            let commits = snapshot
                .commitments
                .iter()
                .any(|c| c.uid == *uid && c.hotkey == *hotkey);
            let settled = verified.contains_key(uid)
                || tracker
                    .get(hotkey)
                    .is_some_and(|entry| match &entry.outcome {
                        Outcome::Verified { .. } => false,
                        Outcome::Refused { .. } => true,
                        Outcome::Waiting { fault, .. } => fault.kind == FaultKind::Model,
                    });
            commits && !settled
        });
    if awaited && began.elapsed() < POOL_PATIENCE {
        return Ok(None);
    }
    let field = Field::of(verified, &competition.id, state);
    if field.candidates.is_empty() {
        return Ok(None);
    }
    let used = field.contents();
    let pins = pins
        .into_iter()
        .filter(|(content, _)| used.contains(content));
    Ok(Some((field, pins.map(|(_, pin)| pin).collect())))
}

async fn tokenizer(parts: &Parts, repository: &str) -> Result<Tokenizer, Fault> {
    let compatibility = parts.context.settings.parameters.compatibility;
    let directory = models::tokenizer(&parts.hub, &parts.store, repository, compatibility).await?;
    let folder = directory.clone();
    let hash = tokio::task::spawn_blocking(move || ContentHash::of_directory(&folder))
        .await
        .map_err(Fault::machine)?
        .map_err(Fault::machine)?;
    Ok(Tokenizer {
        name: repository.to_owned(),
        hash: hash.to_string(),
        directory,
    })
}

/// Returns the refusals of a competition that no step has reported yet.
fn refused(parts: &Parts, memory: &Memory, competition: &Competition) -> Vec<Refusal> {
    let tracker = parts.sync.tracker();
    let entries = tracker.entries().iter().filter_map(|(hotkey, entry)| {
        let reason = match &entry.outcome {
            Outcome::Refused { reason } => reason.clone(),
            Outcome::Waiting { fault, .. } if fault.kind == FaultKind::Model => fault.to_string(),
            _ => return None,
        };
        let news = memory.reported.get(hotkey) != Some(&entry.block);
        let ours = entry.model_id.competition_or_old() == competition.id;
        (news && ours).then(|| Refusal {
            uid: entry.uid,
            hotkey: *hotkey,
            block: entry.block,
            model: entry.model_id.to_string(),
            reason,
        })
    });
    entries.collect()
}

fn completed(parts: &Parts, memory: &mut Memory, record: &StepRecord) {
    memory.done += 1;
    for refusal in &record.refused {
        memory.reported.insert(refusal.hotkey, refusal.block);
    }
    let board = &parts.context.board;
    board.fact("steps_done", memory.done);
    board.fact("last_step", last_step(record, clock::now()));
    let ailing = record
        .models
        .values()
        .all(|row| row.mean_loss().is_nan() || row.mean_loss().is_infinite());
    if ailing {
        let text = format!(
            "no model of competition {} has a finite loss",
            record.competition
        );
        board.problem("losses", Health::Yellow, text);
    } else {
        board.well("losses");
    }
    parts.completed.notify_one();
}

fn last_step(record: &StepRecord, now: Timestamp) -> serde_json::Value {
    serde_json::json!({
        "step": record.step,
        "competition": record.competition,
        "block": record.block,
        "samples": record.samples.digest,
        "seconds": record.seconds(),
        "finished_at": now,
        "models": record.models.iter().map(|(uid, row)| (uid.to_string(), serde_json::json!({
            "loss": subnet::Real(row.mean_loss()),
            "win_rate": row.score.win_rate,
            "weight": row.weight,
        }))).collect::<BTreeMap<_, _>>(),
    })
}
