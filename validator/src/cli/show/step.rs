//! `validator show step`, `changes` and `copies`.

use clap::Args;
use index::{Changes, CopyReport, Presence, RefusalSpan, StepHead, VerdictRow};
use serde::Serialize;
use shared::{Exit, Failure, term};

use super::{
    super::flags::index_failure,
    ViewArgs,
    pieces::{loss, moved, or_dash, repository, text, when},
};

/// One step.
#[derive(Debug, Args)]
pub(crate) struct OneStep {
    /// The step [default: the newest]
    #[arg(value_name = "N")]
    step: Option<u64>,
    #[command(flatten)]
    asked: ViewArgs,
}

/// Two steps.
#[derive(Debug, Args)]
pub(crate) struct TwoSteps {
    /// The earlier step [default: each competition's last but one]
    #[arg(value_name = "A", requires = "to")]
    from: Option<u64>,
    /// The later step
    #[arg(value_name = "B")]
    to: Option<u64>,
    #[command(flatten)]
    asked: ViewArgs,
}

/// A step as it is shown.
#[derive(Debug, Serialize)]
struct StepView {
    #[serde(flatten)]
    head: StepHead,
    verdicts: Vec<VerdictRow>,
    refusals: Vec<RefusalSpan>,
}

fn missing(step: u64) -> Failure {
    Failure::new(Exit::BadInput, format_args!("there is no step {step}"))
        .hint("`validator show leaders` names the newest steps; old ones leave the index")
}

impl OneStep {
    pub(super) fn run(&self) -> Result<Exit, Failure> {
        let index = self.asked.own.index()?;
        let fail = |error| index_failure(&error);
        let Some((head, verdicts)) = index.step(self.step).map_err(fail)? else {
            return match self.step {
                Some(step) => Err(missing(step)),
                None => Err(Failure::new(Exit::Failed, "no step was completed yet")),
            };
        };
        let mut refusals = index.refusals(None, usize::MAX >> 1).map_err(fail)?;
        refusals.retain(|row| {
            row.first_step <= head.step
                && row.last_step >= head.step
                && row.competition == head.competition
        });
        let view = StepView {
            head,
            verdicts,
            refusals,
        };
        if self.asked.json {
            term::json(&view);
        } else {
            view.show();
        }
        Ok(Exit::Ok)
    }

    pub(super) fn copies(&self) -> Result<Exit, Failure> {
        if let Some(step) = self.step {
            let known = self.asked.own.index()?.step(Some(step));
            known
                .map_err(|error| index_failure(&error))?
                .ok_or_else(|| missing(step))?;
        }
        self.asked.show(
            |index| index.behavioral_copies(self.step, self.asked.limit),
            |found| show_copies(found),
        )
    }
}

impl StepView {
    fn show(&self) {
        let head = &self.head;
        let cached = head
            .cached_age
            .map(|age| format!(", {} min old, from the cache", age / 60));
        let timings: Vec<String> = head
            .timings
            .iter()
            .map(|(phase, seconds)| format!("{phase} {seconds:.1} s"))
            .collect();
        let mut table = term::table(["step", &head.step.to_string()]);
        let sources: Vec<String> = head.sources.iter().map(|source| text(source)).collect();
        for (what, value) in [
            ("competition", text(&head.competition)),
            ("block", head.block.to_string()),
            ("finished", when(head.finished)),
            (
                "took",
                format!("{:.1} s: {}", head.seconds, timings.join(", ")),
            ),
            (
                "samples",
                format!(
                    "{} {}{}",
                    head.samples,
                    head.digest,
                    cached.unwrap_or_default()
                ),
            ),
            ("sources", sources.join(", ")),
            (
                "seed block",
                or_dash(head.seed_block, |block| block.to_string()),
            ),
            (
                "engine",
                format!("{} {}", text(&head.device), text(&head.dtype)),
            ),
            ("version", text(&head.version)),
        ] {
            table.add_row([what.to_owned(), value]);
        }
        term::line(table);
        let mut table = term::table([
            "rank", "uid", "model", "loss", "win rate", "wins", "weight", "note",
        ]);
        for row in &self.verdicts {
            table.add_row([
                or_dash(row.rank, |rank| rank.to_string()),
                row.uid.to_string(),
                repository(&row.model),
                loss(row.loss),
                format!("{:.3}", row.win_rate),
                format!("{}/{}", row.wins, row.matches),
                format!("{:.4}", row.weight.0),
                note(row),
            ]);
        }
        term::line(table);
        for row in &self.refusals {
            term::line(format_args!(
                "refused: uid {} {}: {}",
                row.uid,
                repository(&row.model),
                text(&row.reason)
            ));
        }
    }
}

fn note(row: &VerdictRow) -> String {
    match (&row.copy_of, &row.reason) {
        (Some(original), _) => format!("copy of uid {original}"),
        (None, Some(reason)) => {
            let fault = row.fault.as_deref().unwrap_or("unknown");
            format!("{fault} at fault: {}", text(reason))
        }
        (None, None) if row.finite < row.samples => {
            format!(
                "{} of {} losses are not finite",
                row.samples - row.finite,
                row.samples
            )
        }
        (None, None) if row.kept => String::new(),
        (None, None) => "leaves the pool".to_owned(),
    }
}

impl TwoSteps {
    pub(super) fn run(&self) -> Result<Exit, Failure> {
        let index = self.asked.own.index()?;
        let fail = |error| index_failure(&error);
        let found = match (self.from, self.to) {
            (Some(from), Some(to)) => {
                for step in [from, to] {
                    index
                        .step(Some(step))
                        .map_err(fail)?
                        .ok_or_else(|| missing(step))?;
                }
                let changes = index.changes(from, to).map_err(fail)?;
                let changes: Vec<Changes> = changes.into_iter().collect();
                if let [one] = changes.as_slice()
                    && one.from.competition != one.to.competition
                {
                    let text = format!(
                        "step {from} is of competition {}, step {to} of {}",
                        one.from.competition, one.to.competition
                    );
                    return Err(Failure::new(Exit::BadInput, text)
                        .hint("two steps of one competition can be compared"));
                }
                changes
            }
            _ => index.newest_changes().map_err(fail)?,
        };
        if self.asked.json {
            term::json(&found);
        } else {
            show_changes(&found);
        }
        Ok(Exit::Ok)
    }
}

fn show_changes(found: &[Changes]) {
    if found.is_empty() {
        term::note("no competition has two steps yet");
    }
    for changes in found {
        term::line(format_args!(
            "competition {}: step {} at block {} -> step {} at block {}, on {} samples",
            text(&changes.to.competition),
            changes.from.step,
            changes.from.block,
            changes.to.step,
            changes.to.block,
            if changes.same_samples {
                "the same"
            } else {
                "other"
            },
        ));
        let mut table = term::table(["uid", "model", "", "rank", "loss", "win rate", "weight"]);
        for row in &changes.rows {
            let presence = match row.presence {
                Presence::Entered => "entered",
                Presence::Left => "left",
                Presence::Replaced => "replaced",
                Presence::Stayed => "",
            };
            let [before, after] = row.rank.map(|rank| rank.map(|rank| rank.to_string()));
            let [loss_before, loss_after] = row.loss.map(|value| value.map(loss));
            let [rate_before, rate_after] = row
                .win_rate
                .map(|rate| rate.map(|rate| format!("{rate:.3}")));
            let [weight_before, weight_after] = row
                .weight
                .map(|weight| weight.map(|weight| format!("{:.4}", weight.0)));
            table.add_row([
                row.uid.to_string(),
                repository(&row.model),
                presence.to_owned(),
                moved(before, after),
                moved(loss_before, loss_after),
                moved(rate_before, rate_after),
                moved(weight_before, weight_after),
            ]);
        }
        term::line(table);
    }
}

fn show_copies(found: &[CopyReport]) {
    if found.is_empty() {
        term::note("no step was completed yet");
    }
    for report in found {
        let usual = match report.usual {
            Some(usual) => format!("two models usually differ by {usual:.2e} a sample"),
            None => "too few models with losses to say what is usual".to_owned(),
        };
        term::line(format_args!(
            "competition {}, step {}: {usual}",
            text(&report.competition),
            report.step
        ));
        let mut table = term::table(["earlier", "later", "difference", "equal", "samples", ""]);
        for pair in &report.pairs {
            table.add_row([
                format!("uid {} at block {}", pair.first, pair.first_committed),
                format!("uid {} at block {}", pair.second, pair.second_committed),
                format!("{:.2e}", pair.distance),
                format!("{:.0} %", pair.equal * 100.0),
                pair.samples.to_string(),
                if pair.near { "near" } else { "" }.to_owned(),
            ]);
        }
        term::line(table);
    }
    term::note("a report, not a verdict: the bytes are compared by `validator inspect store`");
}
