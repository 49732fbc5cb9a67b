//! The step loop: competitions in turn, one step after the other, idle when there is no news.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use model::ContentHash;
use shared::{Exit, Failure, back_off::BackOff, clock, notify, shutdown::Stop};
use tokio::{sync::broadcast, time::sleep};

use super::{
    chain_view::ChainView, library::Library, losses::Losses, patience::Patience,
    postponed::Postponed, samples::Draws, severity, tokenizers::TokenizerWatch, wakeups::Wakeups,
};
use crate::{
    state::{OpenStep, State},
    step::{self, Context, Field, StepStart, join},
};
use models::store::Pin;
use report::{
    StepRecord,
    board::Alarm,
    status::{Activity, LastStep, ModelSummary},
    step_record::ModelRow,
};
use subnet::{BlockNumber, Competition, CompetitionId, Fault, FaultKind, Hotkey, Real};

/// The pause after a fault.
const PAUSE: BackOff = BackOff {
    first: Duration::from_secs(2),
    longest: Duration::from_mins(5),
};

/// How long an idle loop waits before it looks again and says that it is alive.
const IDLE: Duration = Duration::from_secs(10);

/// How long a step waits for models that are just being fetched, so that they run together.
const SETTLE: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub(super) struct StepLoop {
    pub(super) context: Context,
    pub(super) chain: Arc<ChainView>,
    pub(super) library: Arc<Library>,
    pub(super) draws: Arc<Draws>,
    pub(super) alarm: Alarm,
    pub(super) losses: Losses,
    pub(super) tokenizers: TokenizerWatch,
    /// Stop after this many steps.
    pub(super) max_steps: Option<u64>,
    /// Who listens gets every record.
    pub(super) records: broadcast::Sender<Arc<StepRecord>>,
    pub(super) wakeups: Arc<Wakeups>,
    pub(super) memory: Memory,
}

/// What the loop remembers between turns.
#[derive(Debug)]
pub(super) struct Memory {
    began: Instant,
    patience: Patience,
    postponed: Postponed,
    /// Refusals already reported, by commitment.
    reported: BTreeMap<Hotkey, BlockNumber>,
    /// Faults in a row that no competition's step met.
    faults: u32,
    /// Steps completed in this run.
    done: u64,
}

/// A step that can begin, with its models held on disk.
struct Ready {
    start: StepStart,
    field: Field,
    _pins: Vec<Pin>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            patience: Patience::default(),
            postponed: Postponed::new(PAUSE),
            reported: BTreeMap::new(),
            faults: 0,
            done: 0,
        }
    }
}

impl StepLoop {
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        let wakeups = Arc::clone(&self.wakeups);
        loop {
            let turn = tokio::select! {
                () = wakeups.shutdown.requested() => return Ok(()),
                turn = self.turn() => turn,
            };
            notify::watchdog();
            match turn {
                Ok(Some(record)) => {
                    self.completed(record);
                    self.no_fault();
                }
                Ok(None) => {
                    self.no_fault();
                    let postponed = self.memory.postponed.next();
                    self.context.board.activity(if postponed.is_some() {
                        Activity::WaitingAfterFault
                    } else {
                        Activity::WaitingForNews
                    });
                    let mut heads = self.chain.heads();
                    let pause = postponed.map_or(IDLE, |at| {
                        at.saturating_duration_since(Instant::now()).min(IDLE)
                    });
                    tokio::select! {
                        () = wakeups.shutdown.requested() => return Ok(()),
                        () = wakeups.news.notified() => {}
                        _ = heads.changed() => {}
                        () = sleep(pause) => {}
                    }
                }
                Err(fault) if fault.kind == FaultKind::Config => {
                    return Err(Failure::from(fault));
                }
                Err(fault) => {
                    let pause = self.troubled(&fault);
                    tokio::select! {
                        () = wakeups.shutdown.requested() => return Ok(()),
                        () = sleep(pause) => {}
                    }
                }
            }
        }
    }

    async fn turn(&mut self) -> Result<Option<StepRecord>, Fault> {
        let Some(mut ready) = self.next().await? else {
            return Ok(None);
        };
        // A step is due: it works on the chain as it is now, not as it was some blocks ago.
        if self.chain.client().is_some() && ready.start.block < self.chain.head() {
            self.chain.refresh().await?;
            let Some(fresh) = self.next().await? else {
                return Ok(None);
            };
            ready = fresh;
        }
        let open = &ready.start.open;
        self.context.board.note(|details| {
            details.step = Some(open.step);
            details.competition = Some(open.competition.clone());
        });
        match step::run(&self.context, &ready.start, &ready.field).await {
            Ok(record) => Ok(Some(record)),
            Err(fault) if fault.kind == FaultKind::Config => Err(fault),
            Err(fault) => {
                self.postpone(&ready.start.competition.id, &fault);
                Ok(None)
            }
        }
    }

    /// Chooses the next step: the one begun before a restart, else the next competition in turn
    /// that has something new to say.
    async fn next(&mut self) -> Result<Option<Ready>, Fault> {
        // The watcher of the chain says why.
        if self.chain.hindrance().is_some() {
            return Ok(None);
        }
        let block = self.chain.snapshot().block;
        let parameters = &self.context.settings.parameters;
        let competitions = parameters.competitions_at(block).to_vec();
        if competitions.is_empty() {
            return Err(Fault::config(format_args!(
                "the subnet file has no competition at block {block}"
            )));
        }
        let ids = competitions.iter().map(|competition| &competition.id);
        self.losses.keep(ids.clone());
        self.memory.postponed.keep(ids);
        if *self.wakeups.syncing.borrow() && self.memory.began.elapsed() < SETTLE {
            return Ok(None);
        }
        let state = self.context.state.get();
        let head = self.chain.head();
        let count = competitions.len() as u64;
        if let Some(open) = state.open.as_ref().filter(|open| !open.samples.is_empty())
            && let Some(competition) = competitions.iter().find(|c| c.id == open.competition)
            && self
                .memory
                .postponed
                .is_due(&competition.id, Instant::now())
            && let Some((field, pins)) = self.field(competition, &state)?
        {
            let open = open.clone();
            return self.ready(competition, open, field, pins, &state).await;
        }
        for offset in 0..count {
            let number = state.step + offset;
            let competition = &competitions[usize::try_from(number % count).unwrap_or(0)];
            if !self
                .memory
                .postponed
                .is_due(&competition.id, Instant::now())
            {
                continue;
            }
            let Some((field, pins)) = self.field(competition, &state)? else {
                self.memory.postponed.end(&competition.id);
                continue;
            };
            let turn = self.draws.turn_at(head);
            let fresh = state.turns.get(&competition.id) != Some(&turn);
            if !fresh && !field.has_news(&state) {
                self.memory.postponed.end(&competition.id);
                continue;
            }
            let order = self.draws.order(number, turn).await?;
            let open = OpenStep {
                step: number,
                competition: competition.id.clone(),
                started_at: clock::now(),
                seed: order.seed,
                seed_block: order.block,
                turn,
                samples: String::new(),
            };
            return self.ready(competition, open, field, pins, &state).await;
        }
        Ok(None)
    }

    async fn ready(
        &mut self,
        competition: &Competition,
        open: OpenStep,
        field: Field,
        pins: Vec<Pin>,
        state: &State,
    ) -> Result<Option<Ready>, Fault> {
        let snapshot = self.chain.snapshot();
        let tokenizer = match &competition.tokenizer {
            Some(wanted) => Some(self.tokenizers.find(&self.library, wanted, state).await?),
            None => None,
        };
        let tracker = self.library.sync.tracker();
        let start = StepStart {
            open,
            competition: competition.clone(),
            block: snapshot.block,
            block_hash: snapshot.block_hash.clone(),
            tokenizer,
            refused: join::refusals(&tracker, &competition.id, &self.memory.reported),
        };
        Ok(Some(Ready {
            start,
            field,
            _pins: pins,
        }))
    }

    /// Returns the models of a competition's next step, held on disk; `None` if there is none, or
    /// if members of the pool are still on their way.
    fn field(
        &mut self,
        competition: &Competition,
        state: &State,
    ) -> Result<Option<(Field, Vec<Pin>)>, Fault> {
        let (snapshot, tracker) = (self.chain.snapshot(), self.library.sync.tracker());
        let mut pins: BTreeMap<ContentHash, Pin> = BTreeMap::new();
        for content in join::contents(&snapshot.commitments, &tracker, &competition.id) {
            let pin = self
                .library
                .store
                .pin(&content)
                .map_err(|error| Fault::machine(Failure::of(Exit::Machine, &error)))?;
            pins.extend(pin.map(|pin| (content, pin)));
        }
        let stored = pins
            .iter()
            .map(|(content, pin)| (*content, pin.model().dir.clone()))
            .collect();
        let commitments = &snapshot.commitments;
        let joined = join::join(commitments, &tracker, &stored, &competition.id, state);
        let patience = &mut self.memory.patience;
        if patience.waits(&competition.id, &joined.awaited, Instant::now()) {
            return Ok(None);
        }
        let field = joined.field;
        if field.candidates.is_empty() {
            self.losses.forget(&competition.id);
            return Ok(None);
        }
        let used = field.contents();
        pins.retain(|content, _| used.contains(content));
        Ok(Some((field, pins.into_values().collect())))
    }

    fn completed(&mut self, record: StepRecord) {
        self.memory.done += 1;
        self.memory.postponed.end(&record.competition);
        for refusal in &record.refused {
            self.memory.reported.insert(refusal.hotkey, refusal.block);
        }
        let (done, last) = (self.memory.done, last_step(&record));
        self.context.board.note(|details| {
            details.steps_done = done;
            details
                .last_steps
                .insert(last.competition.clone(), last.clone());
            details.last_step = Some(last);
        });
        let mut losses = record.models.values().map(ModelRow::mean_loss);
        let finite = losses.any(f64::is_finite);
        self.losses.note(&record.competition, finite);
        self.wakeups.completed.notify_one();
        // Nobody may be listening.
        let _ = self.records.send(Arc::new(record));
        if self.max_steps.is_some_and(|max| done >= max) {
            self.wakeups.shutdown.request(Stop::Drain);
        }
    }

    /// Tells of a fault that holds all competitions up; returns how long to pause.
    fn troubled(&mut self, fault: &Fault) -> Duration {
        self.memory.faults += 1;
        let times = self.memory.faults;
        tracing::warn!(%fault, times, "no step can begin");
        self.alarm.raise(severity(fault, times), fault);
        self.context.board.activity(Activity::WaitingAfterFault);
        PAUSE.after(times)
    }

    /// Tells of a fault of a competition's step, which is tried again after a pause; the other
    /// competitions have their turns meanwhile.
    fn postpone(&mut self, competition: &CompetitionId, fault: &Fault) {
        let times = self.memory.postponed.add(competition, Instant::now());
        tracing::warn!(%fault, times, %competition, "the step is postponed");
        self.alarm.raise(severity(fault, times), fault);
        // Another competition may be due now.
        self.wakeups.news.notify_one();
    }

    /// Steps are made, or no longer due: nothing is postponed but what is known to be.
    fn no_fault(&mut self) {
        self.memory.faults = 0;
        if self.memory.postponed.next().is_none() {
            self.alarm.end();
        }
    }
}

fn last_step(record: &StepRecord) -> LastStep {
    LastStep {
        step: record.step,
        competition: record.competition.clone(),
        block: record.block,
        samples: record.samples.digest.clone(),
        seconds: record.seconds(),
        finished_at: record.finished_at,
        models: record
            .models
            .iter()
            .map(|(uid, row)| {
                let model = ModelSummary {
                    loss: Real(row.mean_loss()),
                    win_rate: Real::from(row.score.win_rate),
                    weight: row.weight,
                };
                (*uid, model)
            })
            .collect(),
    }
}
