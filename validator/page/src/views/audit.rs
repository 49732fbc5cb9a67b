//! The page of an audit: what was found in the published steps of a validator.

use maud::{Markup, html};
use report::audit::{AuditReport, StepAudit, Verdict};
use subnet::Uid;

use crate::layout::{table, text};

pub(crate) const TITLE: &str = "Audit";

pub(crate) fn html(report: &AuditReport) -> Markup {
    let (class, word, meaning) = match report.verdict {
        Verdict::Holds => ("green", "holds", "Nothing deviates."),
        Verdict::Incomplete => (
            "yellow",
            "incomplete",
            "Nothing deviates, but of some steps no loss could be computed again.",
        ),
        Verdict::Deviates => ("red", "deviates", "Something is not as it was published."),
    };
    let found = report.steps.iter().flat_map(deviations);
    let gaps = report.steps.iter().flat_map(gaps);
    html! {
        p { span class=(format!("light {class}")) { (word) } " " (meaning) }
        dl {
            dt { "Published at" } dd { (text(&report.place)) }
            dt { "Hotkey" } dd { code { (report.hotkey) } }
            dt { "Subnet" } dd { (report.netuid) }
            dt { "Looked at" } dd { (report.audited_at.strftime("%F %T")) " by version " (text(&report.version)) }
            dt { "Checked" } dd {
                "signatures, rules, copies, wins and weights of " (report.steps.len())
                " steps; losses of one in " (report.every) " of each competition"
            }
        }
        h2 { "Deviations" }
        (table("Deviations", &["step#", "uid#", "of", "what"], found))
        h2 { "Steps" }
        (table("Published steps",
            &["step#", "competition", "block#", "models#", "computed again#", "loss off#", "mean off#", "ranking"],
            report.steps.iter().map(step)))
        h2 { "What could not be looked at" }
        (table("What could not be looked at", &["step#", "uid#", "why"], gaps))
    }
}

fn uid(uid: Option<Uid>) -> Markup {
    html! { @if let Some(uid) = uid { (uid) } }
}

fn deviations(step: &StepAudit) -> Vec<Vec<Markup>> {
    let mut rows: Vec<Vec<Markup>> = step
        .deviations
        .iter()
        .map(|found| {
            vec![
                html! { (step.step) },
                uid(found.uid),
                html! { (found.kind) },
                html! { (text(&found.text)) },
            ]
        })
        .collect();
    if step.more > 0 {
        rows.push(vec![
            html! { (step.step) },
            html! {},
            html! {},
            html! { (step.more) " more" },
        ]);
    }
    rows
}

fn gaps(step: &StepAudit) -> Vec<Vec<Markup>> {
    let rows = step.gaps.iter().map(|gap| {
        vec![
            html! { (step.step) },
            uid(gap.uid),
            html! { (text(&gap.reason)) },
        ]
    });
    rows.collect()
}

fn step(step: &StepAudit) -> Vec<Markup> {
    let found = step.recomputed;
    let number =
        |value: Option<f64>| html! { @if let Some(value) = value { (format!("{value:.1e}")) } };
    vec![
        html! { (step.step) },
        html! { (text(&step.competition.0)) },
        html! { @if let Some(block) = step.block { (block) } },
        html! { (step.models) },
        html! { @if let Some(found) = found { (found.models) } },
        number(found.map(|found| found.loss.0)),
        number(found.map(|found| found.mean.0)),
        html! {
            @if let Some(found) = found { @if found.same_ranking { "the same" } @else { "another" } }
        },
    ]
}
