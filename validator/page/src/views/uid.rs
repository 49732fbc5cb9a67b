//! A uid: its model, its history, and why it was refused.

use index::{CopyFinding, IndexError, RefusalSpan, VerdictRow};
use maud::{Markup, html};
use serde::Serialize;

use crate::{
    Queued, Site,
    layout::{hub_link, loss_of, near_copy, repository, step_link, table, text, uid_link},
    plot::{self, Series},
};
use subnet::Uid;

/// Steps that are shown.
const STEPS: usize = 100;

#[derive(Debug, Serialize)]
pub(crate) struct UidPage {
    uid: Uid,
    commitment: Option<Queued>,
    verdicts: Vec<VerdictRow>,
    refusals: Vec<RefusalSpan>,
    /// Models that behave as its model does.
    near: Vec<CopyFinding>,
}

impl UidPage {
    pub(crate) fn read(site: &Site<'_>, uid: Uid) -> Result<Option<Self>, IndexError> {
        let page = Self {
            uid,
            commitment: site
                .queue
                .iter()
                .find(|queued| queued.uid == uid.0)
                .cloned(),
            verdicts: site.index.verdicts(uid, STEPS)?,
            refusals: site.index.refusals(Some(uid), STEPS)?,
            near: site.index.near_copies_of(uid)?,
        };
        let is_known =
            page.commitment.is_some() || !page.verdicts.is_empty() || !page.refusals.is_empty();
        Ok(is_known.then_some(page))
    }

    pub(crate) fn title(&self) -> String {
        format!("Uid {}", self.uid)
    }

    pub(crate) fn html(&self) -> Markup {
        let model = self.commitment.as_ref().map(|queued| &queued.model);
        let model = model.or_else(|| Some(&self.verdicts.first()?.model));
        let points = self
            .verdicts
            .iter()
            .rev()
            .map(|row| (row.step as f64, row.loss.0));
        let series = Series {
            name: format!("uid {}", self.uid),
            points: points.collect(),
        };
        // What stays the same is said once.
        let is_new = |number: usize, part: fn(&VerdictRow) -> &str| {
            number == 0 || part(&self.verdicts[number - 1]) != part(&self.verdicts[number])
        };
        html! {
            @if let Some(model) = model {
                p {
                    (repository(model))
                    @if let Some(link) = hub_link(model) { " \u{2013} " a rel="noopener noreferrer" href=(link) { "on the hub" } }
                }
                p class="quiet" { code { (text(model)) } }
            }
            @if let Some(row) = self.verdicts.first() { p { "Hotkey " code { (row.hotkey) } } }
            @if let Some(queued) = &self.commitment {
                p { "Its commitment is " strong { (text(&queued.stage)) }
                    @if let Some(reason) = &queued.reason { ": " (text(reason)) }
                    @if let Some(at) = queued.again_at { "; looked at again at " (at.strftime("%F %T")) }
                    "." }
            }
            @if !self.refusals.is_empty() {
                h2 { "Refused" }
                ul {
                    @for row in &self.refusals {
                        li { "since step " (step_link(row.first_step)) ", " (row.first_seen.strftime("%F %T")) ": " (text(&row.reason)) }
                    }
                }
            }
            @if !self.near.is_empty() {
                h2 { "Models that behave alike" }
                p { "A report and no verdict: in the newest step, their losses are much closer than those of other pairs." }
                ul { @for pair in &self.near { li { (near_copy(pair)) } } }
            }
            @if !self.verdicts.is_empty() {
                h2 { "History" }
                (plot::lines("Mean loss over the steps", "step", &[series]))
                (table("Steps of this uid", &["step#", "competition", "rank#", "loss#", "win rate#", "weight#", "model", "note"],
                    self.verdicts.iter().enumerate().map(|(number, row)| vec![
                        step_link(row.step),
                        html! { @if is_new(number, |row| &row.competition) { (text(&row.competition)) } },
                        html! { @if let Some(rank) = row.rank { (rank) } },
                        html! { (loss_of(row.loss, row.matches)) },
                        html! { (format!("{:.3}", row.win_rate)) },
                        html! { (format!("{:.4}", row.weight.0)) },
                        html! { @if is_new(number, |row| &row.model) { (repository(&row.model)) } },
                        html! {
                            @if let Some(original) = row.copy_of { "copy of uid " (uid_link(original)) }
                            @else if let Some(reason) = &row.reason { (text(reason)) }
                        },
                    ])))
            }
        }
    }
}
