//! The first page: who leads in each competition.

use std::collections::BTreeMap;

use index::{IndexError, Leaders, SeriesPoint};
use maud::{Markup, html};
use serde::Serialize;

use crate::{
    Form, Route, Site,
    layout::{loss_of, repository, step_link, table, text, uid_link},
    plot,
};
use subnet::Uid;

/// Models shown of each competition; its own page has all.
const SHOWN: usize = 25;

/// Steps of a sparkline.
const STEPS: usize = 20;

#[derive(Debug, Serialize)]
pub(crate) struct OverviewPage {
    competitions: Vec<CompetitionSummary>,
}

#[derive(Debug, Serialize)]
struct CompetitionSummary {
    #[serde(flatten)]
    leaders: Leaders,
    /// Losses of the newest steps, oldest first.
    losses: BTreeMap<Uid, Vec<subnet::Real>>,
}

/// Returns the losses of each uid, oldest first.
fn losses(points: &[SeriesPoint]) -> BTreeMap<Uid, Vec<subnet::Real>> {
    let mut losses: BTreeMap<Uid, Vec<subnet::Real>> = BTreeMap::new();
    for point in points {
        losses.entry(point.uid).or_default().push(point.loss);
    }
    losses
}

impl OverviewPage {
    pub(crate) fn read(site: &Site<'_>) -> Result<Self, IndexError> {
        let mut competitions = Vec::new();
        for mut leaders in site.index.leaders()? {
            let points = site.index.series(&leaders.last.competition, STEPS)?;
            let mut losses = losses(&points);
            leaders.standings.truncate(SHOWN);
            losses.retain(|uid, _| leaders.standings.iter().any(|row| row.uid == *uid));
            competitions.push(CompetitionSummary { leaders, losses });
        }
        Ok(Self { competitions })
    }

    pub(crate) fn html(&self) -> Markup {
        html! {
            @if self.competitions.is_empty() {
                p { "No step was completed yet. The first takes as long as the models take to download and evaluate; the line above says how far it is." }
            }
            @for (number, competition) in self.competitions.iter().enumerate() {
                (competition.html(number))
            }
        }
    }
}

impl CompetitionSummary {
    fn html(&self, number: usize) -> Markup {
        let Leaders {
            last, standings, ..
        } = &self.leaders;
        let headings = [
            "rank#",
            "uid#",
            "model",
            "loss#",
            "over steps",
            "win rate#",
            "weight#",
            "why",
        ];
        let rows = standings.iter().map(|row| {
            let values: Vec<f64> = self
                .losses
                .get(&row.uid)
                .into_iter()
                .flatten()
                .map(|loss| loss.0)
                .collect();
            let before = row.rank_before.filter(|before| Some(*before) != row.rank);
            vec![
                html! {
                    @if let Some(rank) = row.rank { (rank) }
                    @if let Some(before) = before { span class="quiet" { " (was " (before) ")" } }
                },
                uid_link(row.uid),
                html! { (repository(&row.model)) },
                html! { (loss_of(row.loss, row.matches)) },
                plot::sparkline(&values),
                html! { (format!("{:.3}", row.win_rate)) },
                html! { (format!("{:.4}", row.weight.0)) },
                // A percent sign stays with its number.
                html! { (text(&row.why).replace(" %", "\u{a0}%")) },
            ]
        });
        html! {
            h2 { "Competition " (text(&last.competition)) }
            p {
                "Step " (step_link(last.step)) " at block " (last.block) ", finished "
                (last.finished.strftime("%F %T")) ", on " (last.samples) " samples. "
                a href=(Route::Competition(number).file(Form::Html)) { "Losses and win rates over steps, and head to head" }
            }
            (table(&format!("Leaders of {}", last.competition), &headings, rows))
        }
    }
}
