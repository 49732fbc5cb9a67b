//! What an audit found, for people: tables on the terminal, and a page.

use std::path::Path;

use ::report::audit::AuditReport;
use page::{Form, STYLE};
use shared::{Exit, Failure, file, term};
use subnet::Uid;

pub(super) fn write_page(folder: &Path, report: &AuditReport) -> Result<(), Failure> {
    for (name, text) in [
        ("style.css", STYLE.to_owned()),
        ("audit.html", page::audit(report, Form::Html)),
        ("audit.json", page::audit(report, Form::Json)),
    ] {
        let written = file::write_atomic(&folder.join(name), text.as_bytes());
        written.map_err(|error| Failure::of(Exit::Machine, &error))?;
    }
    Ok(())
}

pub(super) fn show(report: &AuditReport) {
    let mut table = term::table([
        "step",
        "competition",
        "models",
        "computed again",
        "loss off",
        "mean off",
        "finding",
    ]);
    for step in &report.steps {
        let (computed, loss, mean) = step.recomputed.map_or_else(
            || ("-".to_owned(), "-".to_owned(), "-".to_owned()),
            |found| {
                (
                    found.models.to_string(),
                    format!("{:.1e}", found.loss.0),
                    format!("{:.1e}", found.mean.0),
                )
            },
        );
        let finding = match (step.deviations.len() + step.more, step.gaps.len()) {
            (0, 0) => "holds".to_owned(),
            (0, gaps) => format!("holds; {gaps} not looked at"),
            (deviations, _) => format!("{deviations} deviations"),
        };
        table.add_row([
            step.step.to_string(),
            term::printable(&step.competition.0, 40),
            step.models.to_string(),
            computed,
            loss,
            mean,
            finding,
        ]);
    }
    term::line(format_args!(
        "{} · hotkey {} · subnet {}\n{table}",
        report.place, report.hotkey, report.netuid
    ));
    for step in &report.steps {
        let of = |uid: Option<Uid>| uid.map_or_else(String::new, |uid| format!(", uid {uid}"));
        for found in &step.deviations {
            term::line(format_args!(
                "step {}{}: {} DEVIATES: {}",
                step.step,
                of(found.uid),
                found.kind,
                found.text
            ));
        }
        if step.more > 0 {
            term::line(format_args!("step {}: {} more", step.step, step.more));
        }
        for gap in &step.gaps {
            term::line(format_args!(
                "step {}{}: not looked at: {}",
                step.step,
                of(gap.uid),
                gap.reason
            ));
        }
    }
    let sampled = report.steps.iter().filter(|step| step.recomputed.is_some());
    term::line(format_args!(
        "verdict: {}; signatures and scores of {} steps, losses of {}",
        report.verdict,
        report.steps.len(),
        sampled.count()
    ));
}
