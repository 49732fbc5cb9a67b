//! `validator audit`: another validator's published steps, computed again by anyone, without a wallet.

mod show;
mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use shared::{Exit, Failure, cli::FullPath, clock, term, version::Version};

use self::{
    show::{show, write_page},
    source::{Source, Unread},
};
use super::{
    flags::{Devices, LoggingFlags},
    recompute::RecomputeFlags,
    records,
    runtime::block_on,
};
use crate::step::{
    audit,
    replay::{Finding, Findings, Ranking},
    samples,
};
use ::report::{
    StepRecord,
    audit::{AuditReport, DeviationKind, Recomputed, StepAudit, Tolerance, Verdict},
    journal,
    publication::{
        MANIFEST, MAX_MANIFEST, MAX_RECORD, MAX_SAMPLES, PublishedStep, StepManifest, samples_name,
    },
    step_record,
};
use ::samples::SampleSet;
use subnet::{Hotkey, Parameters, Real};

/// A record of a step, unpacked.
const MAX_UNPACKED: u64 = 128 << 20;

const MAX_SIGNATURE: u64 = 64 << 10;

/// Check the published steps of another validator: signatures, scores, and a sample of the losses
#[derive(Debug, clap::Args)]
pub(crate) struct AuditArgs {
    /// Where they are published: an address, or a folder
    #[arg(value_name = "URL|DIR")]
    place: String,
    /// Compute the losses of one of so many steps of each competition again; the first is chosen at random
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    every: u16,
    /// The hotkey that must have signed them
    #[arg(long, value_name = "SS58")]
    hotkey: Option<Hotkey>,
    /// Largest deviation of a loss that counts as noise, and a tenth of it of a mean loss [default: 0.1 in 16 bits,
    /// else 0.001]
    #[arg(long, value_name = "X")]
    tolerance: Option<f64>,
    /// Device to compute on
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: Devices,
    /// Write a page of what was found into this folder: audit.html, audit.json
    #[arg(long, value_name = "DIR")]
    page: Option<FullPath>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    recompute: RecomputeFlags,
    #[command(flatten)]
    log: LoggingFlags,
}

pub(super) fn run(args: &AuditArgs, version: &Version) -> Result<Exit, Failure> {
    args.log.init_quiet();
    if args.tolerance.is_some_and(|x| !x.is_finite() || x < 0.0) {
        return Err(Failure::new(Exit::Usage, "--tolerance must be 0 or more"));
    }
    let audit = Audit {
        args,
        source: Source::of(&args.place)?,
        parameters: args.recompute.parameters()?,
    };
    let report = block_on(audit.run(version))?;
    if let Some(folder) = &args.page {
        write_page(folder, &report)?;
    }
    if args.json {
        term::json(&report);
    } else {
        show(&report);
    }
    Ok(match report.verdict {
        Verdict::Holds => Exit::Ok,
        Verdict::Incomplete => Exit::Failed,
        Verdict::Deviates => Exit::Refused,
    })
}

struct Audit<'a> {
    args: &'a AuditArgs,
    source: Source,
    parameters: Parameters,
}

impl Audit<'_> {
    async fn run(&self, version: &Version) -> Result<AuditReport, Failure> {
        let manifest = self.manifest().await?;
        let sample = sample(
            &manifest.steps,
            usize::from(self.args.every),
            rand::random::<u64>() as usize,
        );
        let mut steps = Vec::new();
        for published in &manifest.steps {
            let is_sampled = sample.contains(&published.step);
            term::note(format_args!(
                "step {}{}",
                published.step,
                if is_sampled { ": losses, too" } else { "" }
            ));
            let step = self.step(&manifest, published, is_sampled).await?;
            // The oldest step may have made room for a new one.
            if step.block.is_none() && !step.deviations.is_empty() && self.is_gone(published).await
            {
                continue;
            }
            steps.push(step);
        }
        Ok(AuditReport {
            place: self.source.to_string(),
            netuid: manifest.netuid,
            hotkey: manifest.hotkey,
            audited_at: clock::now(),
            version: version.to_string(),
            every: usize::from(self.args.every),
            tolerance: self.args.tolerance,
            verdict: AuditReport::judge(&steps, |step| sample.contains(&step)),
            steps,
        })
    }

    async fn manifest(&self) -> Result<StepManifest, Failure> {
        let source = &self.source;
        let read = self.source.read(MANIFEST, MAX_MANIFEST).await;
        let bytes = read.map_err(|unread| match unread {
            Unread::Theirs(why) => Failure::new(
                Exit::BadInput,
                format_args!("{source} has no published steps"),
            )
            .because(why)
            .hint("`validator run --publish` writes them, with a file manifest.json"),
            Unread::Ours(why) => {
                Failure::new(Exit::TryLater, format_args!("{source} can't be read")).because(why)
            }
        })?;
        let manifest = StepManifest::read(&bytes).map_err(|why| {
            let heading =
                format_args!("{MANIFEST} of {source} names no published steps").to_string();
            Failure::new(Exit::BadInput, heading).because(term::printable(&why, 200))
        })?;
        if manifest.netuid != self.parameters.netuid {
            let (theirs, ours) = (manifest.netuid, self.parameters.netuid);
            let text = format!("the steps are of subnet {theirs}, the subnet file is of {ours}");
            return Err(Failure::new(Exit::Config, text)
                .hint("--subnet names the file of theirs, --netuid another number"));
        }
        match self.args.hotkey {
            Some(wanted) if wanted != manifest.hotkey => Err(Failure::new(
                Exit::Refused,
                format_args!(
                    "the steps are of hotkey {}, not of {wanted}",
                    manifest.hotkey
                ),
            )),
            _ if manifest.steps.is_empty() => Err(Failure::new(
                Exit::Failed,
                format_args!("{source} has no published steps yet"),
            )),
            _ => Ok(manifest),
        }
    }

    async fn is_gone(&self, published: &PublishedStep) -> bool {
        let read = self.source.read(MANIFEST, MAX_MANIFEST).await.ok();
        let manifest = read.and_then(|bytes| StepManifest::read(&bytes).ok());
        let first = manifest.and_then(|manifest| Some(manifest.steps.first()?.step));
        first.is_some_and(|first| published.step < first)
    }

    async fn step(
        &self,
        manifest: &StepManifest,
        published: &PublishedStep,
        is_sampled: bool,
    ) -> Result<StepAudit, Failure> {
        let mut audit = StepAudit::new(published.step, published.competition.clone());
        let Some(record) = self.record(manifest, published, &mut audit).await else {
            return Ok(audit);
        };
        let is_sound = audit::judge(&record, &self.parameters, &mut audit);
        if !is_sampled || !is_sound {
            return Ok(audit);
        }
        let Some(set) = self.samples(published, &record, &mut audit).await else {
            return Ok(audit);
        };
        let everybody = BTreeSet::new();
        let replayed = self.args.recompute.replay(
            &record,
            &self.parameters,
            &set,
            &everybody,
            &self.args.device,
        );
        match replayed.await {
            Ok(findings) => self.losses(&record, &findings, &mut audit),
            Err(failure) if is_ours(&failure) => return Err(failure),
            Err(failure) => audit.lacks(None, term::printable(&failure.to_string(), 300)),
        }
        Ok(audit)
    }

    /// Reads a record, and checks that it is the one that was signed.
    async fn record(
        &self,
        manifest: &StepManifest,
        published: &PublishedStep,
        audit: &mut StepAudit,
    ) -> Option<StepRecord> {
        let name = published.record();
        let packed = self
            .read(&name, MAX_RECORD, DeviationKind::Record, audit)
            .await?;
        let signature = published.signature();
        let kind = DeviationKind::Signature;
        let signature = self.read(&signature, MAX_SIGNATURE, kind, audit).await?;
        let mut wrong = |kind, text: String| {
            audit.deviates(kind, None, term::printable(&text, 300));
        };
        let unpacked = journal::unpack(Path::new(&name), &packed, &signature, MAX_UNPACKED);
        let mut entries = match unpacked {
            Ok(entries) => entries,
            Err(error) => {
                wrong(DeviationKind::Record, shared::causes::one_line(&error));
                return None;
            }
        };
        if entries.len() != 1 {
            wrong(
                DeviationKind::Record,
                format!("{name} has {} records", entries.len()),
            );
            return None;
        }
        let entry = entries.pop()?;
        if let Err(failure) = records::check_signature(&entry, false) {
            wrong(DeviationKind::Signature, failure.to_string());
            return None;
        }
        let record = entry.record;
        if record.format > step_record::FORMAT {
            let text = format!("format {} of a later release can't be read", record.format);
            audit.lacks(None, text);
            return None;
        }
        let said = (
            published.step,
            manifest.netuid,
            manifest.hotkey,
            &published.competition,
        );
        if said
            != (
                record.step,
                record.netuid,
                record.hotkey,
                &record.competition,
            )
        {
            let text = format!(
                "it is step {} of competition {} by {} on subnet {}, not what its place says",
                record.step, record.competition, record.hotkey, record.netuid
            );
            wrong(DeviationKind::Record, text);
            return None;
        }
        Some(record)
    }

    async fn samples(
        &self,
        published: &PublishedStep,
        record: &StepRecord,
        audit: &mut StepAudit,
    ) -> Option<SampleSet> {
        let Some(digest) = &published.samples else {
            audit.lacks(None, "its sample set was not published");
            return None;
        };
        let kind = DeviationKind::Samples;
        let name = samples_name(digest);
        let packed = self.read(&name, MAX_SAMPLES, kind, audit).await?;
        let unpacked = tokio::task::spawn_blocking(move || samples::unpack(&packed)).await;
        match unpacked {
            Ok(Ok(set)) => audit::judge_samples(record, &set, audit).then_some(set),
            Ok(Err(why)) => {
                let why = term::printable(&why, 300);
                audit.deviates(kind, None, format_args!("{name} can't be read: {why}"));
                None
            }
            Err(error) => {
                audit.lacks(None, error);
                None
            }
        }
    }

    async fn read(
        &self,
        name: &str,
        max_bytes: u64,
        kind: DeviationKind,
        audit: &mut StepAudit,
    ) -> Option<Vec<u8>> {
        match self.source.read(name, max_bytes).await {
            Ok(bytes) => Some(bytes),
            Err(Unread::Theirs(why)) => {
                audit.deviates(kind, None, term::printable(&why, 300));
                None
            }
            Err(Unread::Ours(why)) => {
                audit.lacks(None, term::printable(&why, 300));
                None
            }
        }
    }

    /// Tells noise from deviations.
    fn losses(&self, record: &StepRecord, findings: &Findings, audit: &mut StepAudit) {
        let tolerance = self
            .args
            .tolerance
            .map_or_else(|| Tolerance::of_dtype(&record.engine.dtype), Tolerance::of);
        let (mut loss, mut mean) = (0.0_f64, 0.0_f64);
        for (uid, finding) in &findings.models {
            match finding {
                Finding::Computed {
                    deviation,
                    mean_deviation,
                    same_plan,
                } => {
                    loss = loss.max(deviation.0);
                    mean = mean.max(mean_deviation.0);
                    if deviation.0 > tolerance.loss || mean_deviation.0 > tolerance.mean {
                        let plan = if *same_plan {
                            ""
                        } else {
                            "; tokenized or packed otherwise"
                        };
                        let text = format!(
                            "computed again, a loss is {:.3e} off and the mean {:.3e}; noise is up to {:.0e} and {:.0e}{plan}",
                            deviation.0, mean_deviation.0, tolerance.loss, tolerance.mean
                        );
                        audit.deviates(DeviationKind::Loss, Some(*uid), text);
                    }
                }
                Finding::Skipped(why) => audit.lacks(Some(*uid), why),
                Finding::Failed(fault) => {
                    audit.lacks(Some(*uid), term::printable(&fault.to_string(), 300));
                }
            }
        }
        audit.recomputed = Some(Recomputed {
            models: findings.computed(),
            loss: Real(loss),
            mean: Real(mean),
            weight: findings.weight_deviation,
            same_ranking: findings.ranking == Ranking::Stands,
        });
    }
}

/// Returns whether nothing can be audited on this machine, whatever is published.
fn is_ours(failure: &Failure) -> bool {
    matches!(
        failure.exit(),
        Exit::Machine | Exit::Denied | Exit::Bug | Exit::Usage
    )
}

/// Chooses one of `every` steps of each competition, beginning with a random one of its newest: whoever publishes
/// can't know which.
fn sample(steps: &[PublishedStep], every: usize, random: usize) -> BTreeSet<u64> {
    let mut of_each: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for step in steps.iter().rev() {
        of_each
            .entry(&step.competition)
            .or_default()
            .push(step.step);
    }
    let chosen = of_each.values().flat_map(|steps| {
        let first = random % every.min(steps.len());
        steps.iter().skip(first).step_by(every).copied()
    });
    chosen.collect()
}

#[cfg(test)]
mod tests {
    use subnet::CompetitionId;

    use super::*;

    #[test]
    fn every_competition_is_sampled_and_each_step_may_be() {
        let steps: Vec<PublishedStep> = (0..40)
            .map(|step| PublishedStep {
                step,
                competition: CompetitionId::from(if step % 2 == 0 { "l3" } else { "s1" }),
                samples: None,
            })
            .collect();
        let mut seen = BTreeSet::new();
        for random in 0..10 {
            let chosen = sample(&steps, 10, random);
            let even = chosen.iter().filter(|step| *step % 2 == 0).count();
            assert_eq!((chosen.len(), even), (4, 2), "{chosen:?}");
            seen.extend(chosen);
        }
        assert_eq!(seen.len(), 40);
        assert_eq!(sample(&steps, 1, 7).len(), 40);
        assert_eq!(sample(&steps[..1], 10, 7).len(), 1);
        assert!(sample(&[], 10, 7).is_empty());
    }
}
