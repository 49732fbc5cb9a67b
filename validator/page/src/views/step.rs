//! A step: samples, models and losses.

use std::collections::BTreeMap;

use index::{Answers, CopyReport, IndexError, StepHead, VerdictRow};
use maud::{Markup, html};
use serde::Serialize;

use crate::{
    Site,
    layout::{lines, loss, loss_of, near_copy, repository, step_link, table, text, uid_link},
    plot,
};
use subnet::{Real, Uid};

#[derive(Debug, Serialize)]
pub(crate) struct StepPage {
    #[serde(flatten)]
    head: StepHead,
    verdicts: Vec<VerdictRow>,
    losses: BTreeMap<Uid, Vec<Real>>,
    copies: Vec<CopyReport>,
    /// What the models answered to a prompt, if they were asked.
    answers: Option<Answers>,
    /// The steps beside it, of any competition.
    before: Option<u64>,
    after: Option<u64>,
}

impl StepPage {
    pub(crate) fn read(site: &Site<'_>, step: u64) -> Result<Option<Self>, IndexError> {
        let Some((head, verdicts)) = site.index.step(Some(step))? else {
            return Ok(None);
        };
        let losses = site.index.losses(step)?;
        let beside = |step: Option<u64>| -> Result<Option<u64>, IndexError> {
            let Some(step) = step else { return Ok(None) };
            Ok(site.index.step(Some(step))?.map(|(head, _)| head.step))
        };
        Ok(Some(Self {
            head,
            verdicts,
            losses: losses
                .into_iter()
                .map(|(uid, losses)| (uid, losses.into_iter().map(Real).collect()))
                .collect(),
            copies: site.index.behavioral_copies(Some(step), 10)?,
            answers: site.index.answers(step)?,
            before: beside(step.checked_sub(1))?,
            after: beside(step.checked_add(1))?,
        }))
    }

    pub(crate) fn title(&self) -> String {
        format!(
            "Step {} of competition {}",
            self.head.step, self.head.competition
        )
    }

    pub(crate) fn html(&self) -> Markup {
        let head = &self.head;
        let near = self
            .copies
            .iter()
            .flat_map(|report| &report.pairs)
            .filter(|pair| pair.near);
        let near: Vec<_> = near.collect();
        let rows: Vec<(String, Vec<f64>)> = self
            .verdicts
            .iter()
            .filter_map(|row| {
                let losses = self
                    .losses
                    .get(&row.uid)?
                    .iter()
                    .map(|loss| loss.0)
                    .collect();
                Some((row.uid.to_string(), losses))
            })
            .take(40)
            .collect();
        let spread = rows.iter().filter_map(|(uid, losses)| {
            let numbers = plot::quartiles(losses)?.map(|value| html! { (loss(Real(value))) });
            Some([html! { (uid) }].into_iter().chain(numbers).collect())
        });
        html! {
            p {
                @if let Some(before) = self.before { "Before it: step " (step_link(before)) ". " }
                @if let Some(after) = self.after { "After it: step " (step_link(after)) "." }
            }
            dl {
                dt { "Block" } dd { (head.block) }
                dt { "Finished" } dd { (head.finished.strftime("%F %T")) }
                dt { "Took" } dd { (format!("{:.1} s", head.seconds)) }
                dt { "Samples" } dd {
                    (head.samples) " from " (text(&head.sources.join(", ")))
                    @if let Some(age) = head.cached_age { ", " (age / 60) " minutes old, from the cache" }
                    br; code { (text(&head.digest)) }
                }
                dt { "Engine" } dd { (text(&head.device)) " " (text(&head.dtype)) ", version " (text(&head.version)) }
            }
            h2 { "Models" }
            (table("Models of the step", &["rank#", "uid#", "model", "loss#", "win rate#", "wins#", "weight#", "note"],
                self.verdicts.iter().map(|row| vec![
                    html! { @if let Some(rank) = row.rank { (rank) } },
                    uid_link(row.uid),
                    html! { (repository(&row.model)) },
                    html! { (loss_of(row.loss, row.matches)) },
                    html! { (format!("{:.3}", row.win_rate)) },
                    html! { (row.wins) "/" (row.matches) },
                    html! { (format!("{:.4}", row.weight.0)) },
                    note(row),
                ])))
            h2 { "Losses by sample" }
            p { "A dot is a sample; the line is the median. A smaller loss is better." }
            (plot::strip("Loss of each model on each sample, by uid", &rows))
            @if !self.losses.is_empty() {
                details id="numbers" {
                    summary { "The numbers behind the plot" }
                    (table("Losses by sample", &["uid#", "least#", "lower quartile#", "median#", "upper quartile#", "largest#"], spread))
                }
            }
            @if let Some(answers) = &self.answers {
                h2 { "Answers" }
                p { "Every model that raced was asked the same." }
                dl {
                    dt { "Prompt" } dd { (lines(&answers.prompt)) }
                    dt { "The sample's answer" } dd { (lines(&answers.truth)) }
                }
                (table("Answers", &["uid#", "answer"],
                    answers.answers.iter().map(|(uid, answer)| vec![uid_link(*uid), lines(answer)])))
            }
            @if !near.is_empty() {
                h2 { "Models that behave alike" }
                p { "A report and no verdict: their losses are much closer than those of other pairs." }
                ul {
                    @for pair in near {
                        li { (near_copy(pair)) }
                    }
                }
            }
        }
    }
}

fn note(row: &VerdictRow) -> Markup {
    html! {
        @if let Some(original) = row.copy_of { "copy of uid " (uid_link(original)) }
        @else if let Some(reason) = &row.reason { (text(row.fault.as_deref().unwrap_or(""))) " at fault: " (text(reason)) }
        @else if row.finite < row.samples { (row.samples - row.finite) " of " (row.samples) " losses are not finite" }
        @else if !row.kept { "leaves the pool" }
    }
}
