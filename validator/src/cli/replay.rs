//! `validator replay`: compute the losses of a recorded step again.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use shared::{Exit, Failure, cli::FullPath, term};

use super::{
    flags::{Devices, LoggingFlags},
    recompute::RecomputeFlags,
    records::RecordFlags,
    runtime::block_on,
};
use crate::step::{
    replay::{Finding, Findings, Ranking},
    samples,
};
use ::samples::SampleSet;
use report::{StepRecord, step_record::ModelRow};
use subnet::Uid;

/// Compute the losses of a recorded step again and compare
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    record: RecordFlags,
    /// Only these uids
    #[arg(long, value_name = "UID,..", value_delimiter = ',')]
    uids: Vec<u16>,
    /// Device [default: the record's]
    #[arg(long, value_name = "DEVICE")]
    device: Option<Devices>,
    /// The sample set [default: the one the validator kept beside its records]
    #[arg(long = "sample-set", value_name = "FILE")]
    sample_set: Option<FullPath>,
    /// Largest deviation of a loss that counts as equal
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    tolerance: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    recompute: RecomputeFlags,
    #[command(flatten)]
    log: LoggingFlags,
}

pub(super) fn run(args: &ReplayArgs) -> Result<Exit, Failure> {
    args.log.init_quiet();
    let entry = args.record.entry()?;
    let record = &entry.record;
    let parameters = args.recompute.parameters()?;
    let set = args.samples(record)?;
    let uids: BTreeSet<Uid> = args.uids.iter().copied().map(Uid).collect();
    let devices = args.devices(record)?;
    let findings = args
        .recompute
        .replay(record, &parameters, &set, &uids, &devices);
    let findings = block_on(findings)?;
    if args.json {
        term::json(&findings);
    } else {
        show(record, &findings);
    }
    Ok(args.verdict(&findings))
}

impl ReplayArgs {
    fn samples(&self, record: &StepRecord) -> Result<SampleSet, Failure> {
        let path = self.sample_set.clone().map_or_else(
            || {
                // .../vali-state/records/steps.jsonl beside .../vali-state/samples/
                let folder = self.record.record.parent().and_then(Path::parent);
                let beside = folder.unwrap_or(Path::new("/")).join("samples");
                samples::path_of(&beside, &record.samples.digest)
            },
            PathBuf::from,
        );
        let set = samples::read(&path).map_err(|reason| {
            Failure::new(Exit::BadInput, "the samples of the step can't be read")
                .because(reason)
                .hint("--sample-set names the file; a validator keeps its last 200 sets")
        })?;
        if set.digest != record.samples.digest {
            return Err(Failure::new(
                Exit::Refused,
                format_args!("{} is another sample set than the record's", path.display()),
            ));
        }
        Ok(set)
    }

    fn devices(&self, record: &StepRecord) -> Result<Devices, Failure> {
        let recorded = || record.engine.device.parse();
        let devices = self.device.clone().map_or_else(recorded, Ok);
        devices.map_err(|error| {
            Failure::of(Exit::BadInput, &error).hint("--device names another than the record's")
        })
    }

    fn verdict(&self, findings: &Findings) -> Exit {
        let equal = findings.models.values().all(|finding| match finding {
            Finding::Computed { deviation, .. } => deviation.0 <= self.tolerance,
            Finding::Skipped(_) => true,
            Finding::Failed(_) => false,
        });
        if equal && findings.ranking == Ranking::Stands {
            Exit::Ok
        } else {
            Exit::Failed
        }
    }
}

fn show(record: &StepRecord, findings: &Findings) {
    let mut table = term::table(["uid", "recorded loss", "deviation", "note"]);
    for (uid, finding) in &findings.models {
        let loss = record.models.get(uid).map_or(f64::NAN, ModelRow::mean_loss);
        let (deviation, note) = match finding {
            Finding::Computed {
                deviation,
                same_plan,
                ..
            } => {
                let note = if *same_plan {
                    ""
                } else {
                    "tokenized or packed otherwise"
                };
                (format!("{:e}", deviation.0), note.to_owned())
            }
            Finding::Skipped(why) => ("-".to_owned(), why.clone()),
            Finding::Failed(fault) => ("-".to_owned(), fault.to_string()),
        };
        table.add_row([uid.to_string(), format!("{loss:.6}"), deviation, note]);
    }
    let computed = findings.computed();
    let of = findings.models.len();
    let ranking = match findings.ranking {
        Ranking::Stands if computed == of => "the ranking stands".to_owned(),
        Ranking::Stands => format!("the ranking stands as far as {computed} of {of} losses go"),
        Ranking::Changed => "the ranking does NOT stand".to_owned(),
        Ranking::Unknown => "no loss was computed: nothing is said of the ranking".to_owned(),
    };
    term::line(format_args!(
        "step {} · competition {}\n{table}\n{ranking}; largest deviation of a weight {:e}",
        findings.step, record.competition, findings.weight_deviation.0
    ));
}
