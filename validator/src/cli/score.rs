//! `validator score`: wins and weights again, from a losses table or a step record.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read as _},
    path::Path,
};

use serde::{Deserialize, Serialize};
use shared::{Exit, Failure, cli::FullPath, file, term};

use super::{flags::SubnetFlag, records::RecordFlags};
use report::{StepRecord, step_record::Rules};
use score::{Entrant, Weights, WinTable, survivors, weights::softmax};
use subnet::{BlockNumber, CompetitionId, Parameters, Real, Uid, parameters::Epsilon};

const MAX_BYTES: u64 = 256 << 20;

/// Compute wins and weights from a losses table or a step record
#[derive(Debug, clap::Args)]
pub(crate) struct ScoreArgs {
    /// A losses table or a step record (JSON), or a journal (.jsonl, .jsonl.zst) or its folder; `-` reads standard input
    #[arg(value_name = "FILE", value_parser = input)]
    input: Input,
    /// The step of a journal [default: the last]
    #[arg(long, value_name = "N")]
    step: Option<u64>,
    /// Accept a record of a journal without signature
    #[arg(long)]
    unsigned: bool,
    /// Head start of the older model, as a fraction of its loss
    #[arg(long, value_name = "FRACTION")]
    epsilon: Option<f64>,
    /// Temperature of the softmax over win rates
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// Share of the old weights kept by the moving average
    #[arg(long, value_name = "FRACTION")]
    alpha: Option<f64>,
    /// Models kept for the next step
    #[arg(long = "sample_min", value_name = "N")]
    sample_min: Option<usize>,
    #[command(flatten)]
    subnet: SubnetFlag,
}

/// Where the table or record is.
#[derive(Debug, Clone)]
enum Input {
    Stdin,
    File(FullPath),
}

fn input(text: &str) -> io::Result<Input> {
    Ok(match text {
        "-" => Input::Stdin,
        path => Input::File(FullPath::of(Path::new(path))?),
    })
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// A losses table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LossTable {
    uids: Vec<LossRow>,
    /// Running weights before the step; zeros if absent.
    #[serde(default)]
    weights: Vec<Real>,
    competition: Option<CompetitionId>,
    /// Block of the step, for a head start that decays.
    block: Option<BlockNumber>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LossRow {
    uid: Uid,
    /// Absent or "inf": younger than any.
    #[serde(default)]
    block: Option<Real>,
    losses: Vec<Real>,
}

/// A step ready to be scored.
struct Step {
    entrants: BTreeMap<Uid, Entrant>,
    before: Weights,
    block: BlockNumber,
    rules: Rules,
}

#[derive(Debug, Serialize)]
struct Scores {
    wins: BTreeMap<Uid, u32>,
    win_rate: BTreeMap<Uid, f64>,
    step_weights: BTreeMap<Uid, Real>,
    weights: Vec<Real>,
    kept: Vec<Uid>,
}

pub(super) fn run(args: &ScoreArgs) -> Result<Exit, Failure> {
    let parameters = args.subnet.parameters()?;
    let name = &args.input;
    let bad = |error: &dyn fmt::Display| {
        Failure::new(Exit::BadInput, format_args!("{name} can't be scored")).because(error)
    };
    if let Some(record) = args.record() {
        let mut step = Step::of_record(&record.entry()?.record);
        args.override_rules(&mut step.rules)?;
        term::json(&step.score());
        return Ok(Exit::Ok);
    }
    let text = read(&args.input)?;
    // The shape is told from a key, so that an error names what is wrong with that shape.
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|e| bad(&e))?;
    let mut step = if value.get("models").is_some() {
        let record: StepRecord = serde_json::from_slice(&text).map_err(|e| bad(&e))?;
        Step::of_record(&record)
    } else {
        let table = serde_json::from_slice(&text).map_err(|e| bad(&e))?;
        Step::of_table(table, &parameters).map_err(|e| bad(&e))?
    };
    args.override_rules(&mut step.rules)?;
    term::json(&step.score());
    Ok(Exit::Ok)
}

fn read(input: &Input) -> Result<Vec<u8>, Failure> {
    let Input::File(path) = input else {
        let mut bytes = Vec::new();
        return io::stdin()
            .take(MAX_BYTES)
            .read_to_end(&mut bytes)
            .map(|_| bytes)
            .map_err(|error| {
                Failure::new(Exit::BadInput, "could not read standard input").caused_by(&error)
            });
    };
    file::read_limited(path, MAX_BYTES)
        .map_err(|error| Failure::of(Exit::BadInput, &error))?
        .ok_or_else(|| {
            Failure::new(
                Exit::BadInput,
                format_args!("there is no file {}", path.display()),
            )
        })
}

impl ScoreArgs {
    /// Returns the record of a journal, if one is named.
    fn record(&self) -> Option<RecordFlags> {
        let Input::File(path) = &self.input else {
            return None;
        };
        let is_journal = path.is_dir()
            || path
                .extension()
                .is_some_and(|end| end == "jsonl" || end == "zst");
        (is_journal || self.step.is_some()).then(|| RecordFlags {
            record: path.clone(),
            step: self.step,
            unsigned: self.unsigned,
        })
    }

    fn override_rules(&self, rules: &mut Rules) -> Result<(), Failure> {
        let refuse = |flag: &str, range: &str| {
            Err(Failure::new(
                Exit::Usage,
                format_args!("--{flag} must be {range}"),
            ))
        };
        if let Some(epsilon) = self.epsilon {
            if !(0.0..1.0).contains(&epsilon) {
                return refuse("epsilon", "at least 0 and below 1");
            }
            rules.epsilon = Epsilon::fixed(epsilon);
        }
        if let Some(temperature) = self.temperature {
            if !temperature.is_finite() || temperature <= 0.0 {
                return refuse("temperature", "above 0");
            }
            rules.temperature = temperature;
        }
        if let Some(alpha) = self.alpha {
            if !(0.0..=1.0).contains(&alpha) {
                return refuse("alpha", "between 0 and 1");
            }
            rules.alpha = alpha;
        }
        rules.sample_min = self.sample_min.unwrap_or(rules.sample_min);
        Ok(())
    }
}

/// Returns the block number, `None` for infinity.
fn height(block: Real) -> Result<Option<BlockNumber>, Real> {
    match block.0 {
        f64::INFINITY => Ok(None),
        height if height >= 0.0 && height.fract() == 0.0 => Ok(Some(height as BlockNumber)),
        _ => Err(block),
    }
}

impl Step {
    fn of_record(record: &StepRecord) -> Self {
        Self {
            entrants: record.entrants(),
            before: record.weights_before.iter().copied().collect(),
            block: record.block,
            rules: record.rules.clone(),
        }
    }

    fn of_table(table: LossTable, parameters: &Parameters) -> Result<Self, String> {
        let block = table.block.unwrap_or(BlockNumber::MAX);
        let competitions = parameters.competitions_at(block);
        let competition = match &table.competition {
            Some(id) => competitions
                .iter()
                .find(|competition| competition.id == *id),
            None if competitions.len() == 1 => competitions.first(),
            None => None,
        };
        let competition = competition.ok_or_else(|| {
            let known: Vec<&str> = competitions.iter().map(|c| c.id.0.as_str()).collect();
            format!("\"competition\" must be one of {}", known.join(", "))
        })?;
        if table.uids.is_empty() {
            return Err("\"uids\" is empty: there is nothing to score".to_owned());
        }
        let mut entrants = BTreeMap::new();
        for row in table.uids {
            let entrant = Entrant {
                block: height(row.block.unwrap_or(Real(f64::INFINITY)))
                    .map_err(|wrong| format!("uid {} has no block number: {wrong}", row.uid))?,
                losses: row.losses.iter().map(|loss| loss.0).collect(),
            };
            if entrants.insert(row.uid, entrant).is_some() {
                return Err(format!("uid {} stands there twice", row.uid));
            }
        }
        let highest = entrants
            .keys()
            .next_back()
            .map_or(0, |uid| usize::from(uid.0) + 1);
        let before: Weights = table.weights.into_iter().collect();
        let n = before.values().len().max(highest);
        Ok(Self {
            entrants,
            before: before.resized(n),
            block,
            rules: Rules::of(parameters, competitions.len(), competition.reward_share),
        })
    }

    fn score(&self) -> Scores {
        let rules = &self.rules;
        let wins = WinTable::compute(&self.entrants, rules.epsilon, self.block);
        let step = softmax(&wins.win_rates(), rules.temperature);
        let n = self.before.values().len();
        let after = self.before.after(&step, n, rules.scale, rules.alpha);
        let blocks = self
            .entrants
            .iter()
            .filter_map(|(uid, entrant)| Some((*uid, entrant.block?)))
            .collect();
        Scores {
            wins: wins
                .rows()
                .iter()
                .map(|(uid, row)| (*uid, row.wins))
                .collect(),
            win_rate: wins.win_rates(),
            step_weights: step.into_iter().map(|(uid, w)| (uid, w.into())).collect(),
            weights: after.values().iter().map(|w| (*w).into()).collect(),
            kept: survivors(&wins, &blocks, rules.sample_min)
                .into_iter()
                .collect(),
        }
    }
}
