//! One evaluation cycle, in order: field, samples, tokens, losses, wins, weights, record.

pub mod attribution;
pub mod audit;
mod evaluation;
mod field;
mod generation;
pub mod join;
pub mod replay;
pub mod samples;
pub mod scoring;
mod tokens;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use model::{Architecture, Attention, Dtype};
use shared::term;
use tokio::sync::watch;

use self::{attribution::Halt, evaluation::Round, scoring::RecordParts};
pub use self::{
    field::{Candidate, Field},
    tokens::Tokenizer,
};
use crate::state::{Kept, OpenStep};
use ::samples::{SampleSet, Seed, Supply};
use chain::ChainSnapshot;
use eval::Evaluator;
use models::Store;
use report::{Board, Journal, StepRecord, board::Alarm, step_record, table};
use subnet::{BlockNumber, Competition, Fault, Hotkey, Parameters};

#[derive(Debug, Clone)]
pub struct Settings {
    /// The subnet file, with what the flags changed.
    pub parameters: Parameters,
    /// The type models are computed in.
    pub dtype: Dtype,
    pub attention: Attention,
    /// Tokens in one forward pass at most.
    pub pack_tokens: usize,
    /// How the seed of the draw is chosen.
    pub seed: Seed,
    /// Blocks over which the block seed stays the same.
    pub sync_blocks: u64,
    /// Whether each model also answers a prompt, for people to read.
    pub do_sample: bool,
    /// How long one attempt at a step may take.
    pub limit: Duration,
}

/// Signs with the validator's hotkey.
pub type Sign = Arc<dyn Fn(&[u8]) -> [u8; 64] + Send + Sync>;

/// What every step works with.
pub struct Context {
    pub settings: Settings,
    /// Our version, with its commit.
    pub version: String,
    pub hotkey: Hotkey,
    pub sign: Sign,
    /// The devices, as the workers found them.
    pub device: String,
    pub evaluator: Arc<Evaluator>,
    /// Where models lie: it judges its copy before a model is said to be at fault.
    pub store: Store,
    pub supply: Arc<Supply>,
    /// Where the sample sets of steps are kept.
    pub sample_folder: PathBuf,
    pub state: Arc<Kept>,
    pub journal: Journal,
    /// What we say of ourselves.
    pub board: Board,
    pub sources_alarm: Alarm,
    pub snapshots: watch::Receiver<Arc<ChainSnapshot>>,
}

/// A step about to run.
#[derive(Debug, Clone)]
pub struct StepStart {
    /// Its number, competition and seed.
    pub open: OpenStep,
    pub competition: Competition,
    /// Block of the chain snapshot it works on.
    pub block: BlockNumber,
    /// Hash of that block.
    pub block_hash: String,
    /// The fixed tokenizer, if the competition has one.
    pub tokenizer: Option<Tokenizer>,
    /// Models of the competition that were refused.
    pub refused: Vec<step_record::Refusal>,
}

/// Runs a step to its end: the record is in the journal and its outcome in the state. A fault
/// postpones the step; the losses computed so far are kept.
pub async fn run(context: &Context, start: &StepStart, field: &Field) -> Result<StepRecord, Fault> {
    let mut timer = Timer::default();
    let set = samples::of_step(context, &start.open).await?;
    timer.lap("samples");
    match on_samples(context, start, field, &set, timer).await {
        Ok(record) => Ok(record),
        Err(Halt::Postponed(fault)) => Err(fault),
        Err(Halt::Unusable(fault)) => {
            samples::drop_set(context, &set.digest)?;
            Err(Fault::outside(format_args!(
                "the sample set {} can't be used, others are drawn: {fault}",
                set.digest
            )))
        }
    }
}

async fn on_samples(
    context: &Context,
    start: &StepStart,
    field: &Field,
    set: &SampleSet,
    mut timer: Timer,
) -> Result<StepRecord, Halt> {
    let tokens = tokens::of_field(
        context,
        &start.competition,
        start.tokenizer.as_ref(),
        field,
        set,
    )
    .await?;
    timer.lap("tokens");
    let round = Round {
        step: start.open.step,
        competition: &start.competition,
        architecture: architecture(&start.competition)?,
        samples: &set.digest,
        deadline: tokio::time::Instant::now() + context.settings.limit,
        tokens,
    };
    let verdicts = round.run(context, field).await?;
    timer.lap("losses");
    let mut generated = BTreeMap::new();
    if context.settings.do_sample {
        generated = generation::of_field(context, start, &round, field, set, &verdicts).await;
        timer.lap("answers");
    }
    let field = &field.clone().still_owned(&context.snapshots.borrow());
    let record = scoring::record(
        context,
        RecordParts {
            start,
            field,
            set,
            verdicts: &verdicts,
            generated,
            timings: timer.seconds,
        },
    );
    context.commit(&record, start.open.turn)?;
    // Machines have the journal.
    if !term::is_for_machines() {
        term::line(table::step(&record));
    }
    Ok(record)
}

fn architecture(competition: &Competition) -> Result<Architecture, Fault> {
    competition
        .architecture
        .parse()
        .map_err(|error| Fault::config(format_args!("competition {}: {error}", competition.id)))
}

impl Context {
    /// Returns what computes the losses, as records name it. Losses of another engine are not
    /// taken for ours.
    pub fn engine(&self) -> step_record::Engine {
        step_record::Engine {
            version: self.version.clone(),
            device: self.device.clone(),
            dtype: self.settings.dtype.to_string(),
            attention: self.settings.attention.to_string(),
            pack_tokens: self.settings.pack_tokens,
        }
    }

    /// Writes the record, then takes over what it decided.
    fn commit(&self, record: &StepRecord, turn: BlockNumber) -> Result<(), Fault> {
        let sign = |bytes: &[u8]| (self.sign)(bytes);
        self.journal
            .append(record, sign)
            .map_err(|error| Fault::machine(shared::Failure::of(shared::Exit::Machine, &error)))?;
        Ok(self.state.update(|state| state.absorb(record, turn))?)
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("settings", &self.settings)
            .field("hotkey", &self.hotkey)
            .finish_non_exhaustive()
    }
}

/// Seconds by phase.
struct Timer {
    last: Instant,
    seconds: BTreeMap<String, f64>,
}

impl Default for Timer {
    fn default() -> Self {
        Self {
            last: Instant::now(),
            seconds: BTreeMap::new(),
        }
    }
}

impl Timer {
    fn lap(&mut self, phase: &str) {
        let now = Instant::now();
        self.seconds
            .insert(phase.to_owned(), (now - self.last).as_secs_f64());
        self.last = now;
    }
}
