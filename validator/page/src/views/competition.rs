//! A competition: losses and win rates over steps, and every pair head to head.

use std::collections::BTreeMap;

use index::{IndexError, SeriesPoint, StepHead};
use maud::{Markup, html};
use serde::Serialize;

use crate::{
    Site,
    layout::{loss, step_link, table, uid_link},
    plot::{self, Series},
};
use subnet::Uid;

/// Steps that the plots go back.
const STEPS: usize = 60;

/// Models of the head-to-head matrix.
const PAIRED: usize = 24;

#[derive(Debug, Serialize)]
pub(crate) struct CompetitionPage {
    last: StepHead,
    /// As of the last step, the best first.
    ranking: Vec<Uid>,
    points: Vec<SeriesPoint>,
    /// Share of the samples of the last step on which the first has the smaller loss.
    head_to_head: Vec<(Uid, Uid, f64)>,
}

impl CompetitionPage {
    pub(crate) fn read(site: &Site<'_>, number: usize) -> Result<Option<Self>, IndexError> {
        let Some(leaders) = site.index.leaders()?.into_iter().nth(number) else {
            return Ok(None);
        };
        let points = site.index.series(&leaders.last.competition, STEPS)?;
        let losses = site.index.losses(leaders.last.step)?;
        let ranked = leaders
            .standings
            .iter()
            .filter(|row| losses.contains_key(&row.uid));
        let uids: Vec<Uid> = ranked.map(|row| row.uid).take(PAIRED).collect();
        let pairs = uids.iter().flat_map(|a| uids.iter().map(move |b| (*a, *b)));
        let head_to_head = pairs
            .filter(|(a, b)| a != b)
            .filter_map(|(a, b)| Some((a, b, smaller(&losses[&a], &losses[&b])?)))
            .collect();
        Ok(Some(Self {
            last: leaders.last,
            ranking: leaders.standings.iter().map(|row| row.uid).collect(),
            points,
            head_to_head,
        }))
    }

    pub(crate) fn title(&self) -> String {
        format!("Competition {}", self.last.competition)
    }

    pub(crate) fn html(&self) -> Markup {
        let series = |value: fn(&SeriesPoint) -> f64| -> Vec<Series> {
            let mut lines: BTreeMap<Uid, Vec<(f64, f64)>> = BTreeMap::new();
            for point in &self.points {
                lines
                    .entry(point.uid)
                    .or_default()
                    .push((point.step as f64, value(point)));
            }
            let place = |uid: Uid| self.ranking.iter().position(|ranked| *ranked == uid);
            let mut lines: Vec<_> = lines.into_iter().collect();
            lines.sort_by_key(|(uid, _)| place(*uid).unwrap_or(usize::MAX));
            lines
                .into_iter()
                .map(|(uid, points)| Series {
                    name: format!("uid {uid}"),
                    points,
                })
                .collect()
        };
        let mut names: Vec<Uid> = Vec::new();
        for (uid, ..) in &self.head_to_head {
            if !names.contains(uid) {
                names.push(*uid);
            }
        }
        let pairs: BTreeMap<(Uid, Uid), f64> = self
            .head_to_head
            .iter()
            .map(|(a, b, share)| ((*a, *b), *share))
            .collect();
        let labels: Vec<String> = names.iter().map(ToString::to_string).collect();
        let share = |row: usize, column: usize| pairs.get(&(names[row], names[column])).copied();
        html! {
            p { "The last step is " (step_link(self.last.step)) " at block " (self.last.block) "." }
            h2 { "Mean loss" }
            (plot::lines("Mean loss of each model over the steps", "step", &series(|point| point.loss.0)))
            h2 { "Win rate" }
            (plot::lines("Win rate of each model over the steps", "step", &series(|point| point.win_rate)))
            h2 { "Head to head" }
            @if names.is_empty() { p class="quiet" { "There are no losses to compare." } } @else {
                p { "The percentage of the last step's samples on which the model of the row has a smaller loss than that of the column, before any head start." }
                (plot::heat("Percentage of samples on which one model beats the other", &labels, share))
            }
            details id="numbers" {
                summary { "The numbers behind the plots" }
                (table("Losses and win rates by step", &["step#", "uid#", "loss#", "win rate#", "weight#"],
                    self.points.iter().rev().take(600).map(|point| vec![
                        step_link(point.step),
                        uid_link(point.uid),
                        html! { (loss(point.loss)) },
                        html! { (format!("{:.3}", point.win_rate)) },
                        html! { (format!("{:.4}", point.weight.0)) },
                    ])))
            }
        }
    }
}

/// Returns the share of samples on which the first is smaller; none without a sample that both have.
fn smaller(a: &[f64], b: &[f64]) -> Option<f64> {
    let both = a.iter().zip(b).filter(|(a, b)| !a.is_nan() && !b.is_nan());
    let (count, wins) = both.fold((0_u32, 0_u32), |(count, wins), (a, b)| {
        (count + 1, wins + u32::from(a < b))
    });
    (count > 0).then(|| f64::from(wins) / f64::from(count))
}
