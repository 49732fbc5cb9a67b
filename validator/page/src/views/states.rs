//! Weights, queue and health.

use std::cmp::Reverse;

use index::{HealthChange, IndexError, StartRow, TrustView, WeightSetRow};
use maud::{Markup, html};
use report::{
    rules::Rule,
    status::{Details, DeviceStatus, Problem},
};
use serde::Serialize;
use shared::{clock, status::Health, term::span};

use crate::{
    Queued, Site,
    layout::{repository, table, text, uid_link},
    plot::{self, Series},
};

/// Rows of a history.
const SHOWN: usize = 100;

#[derive(Debug, Serialize)]
pub(crate) struct WeightsPage {
    sets: Vec<WeightSetRow>,
    trust: TrustView,
}

impl WeightsPage {
    pub(crate) fn read(site: &Site<'_>) -> Result<Self, IndexError> {
        Ok(Self {
            sets: site.index.weight_sets(SHOWN)?,
            trust: site.index.trust(SHOWN)?,
        })
    }

    pub(crate) fn html(&self) -> Markup {
        let trust = self
            .trust
            .history
            .iter()
            .rev()
            .map(|row| (row.block as f64, row.validator_trust));
        let series = Series {
            name: "validator trust".to_owned(),
            points: trust.collect(),
        };
        let differing = self
            .trust
            .disagreements
            .iter()
            .filter(|row| row.is_visible());
        html! {
            @if let Some(newest) = self.sets.first() {
                @let mut stored = newest.stored.clone();
                @let () = stored.sort_by_key(|(uid, weight)| (Reverse(*weight), *uid));
                @let sum: u32 = stored.iter().map(|(_, weight)| u32::from(*weight)).sum();
                h2 { "As set, and as read back at block " (newest.block) }
                (table("Weights on the chain", &["uid#", "weight of 65535#", "share#"],
                    stored.iter().map(|(uid, weight)| vec![
                        uid_link(*uid),
                        html! { (weight) },
                        html! { (format!("{:.2}\u{a0}%", 100.0 * f64::from(*weight) / f64::from(sum.max(1)))) },
                    ])))
                h2 { "Weight sets" }
                (table("Weight sets", &["block#", "when", "tries#", "uids#", "extrinsic"],
                    self.sets.iter().map(|row| vec![
                        html! { (row.block) },
                        html! { @if let Some(at) = row.at { (at.strftime("%F %T")) } },
                        html! { (row.attempts) },
                        html! { (row.stored.len()) },
                        html! { code { (text(&row.extrinsic)) } },
                    ])))
            } @else { p { "No weights were set yet." } }
            h2 { "Validator trust" }
            @if self.trust.history.is_empty() { p { "It was not read yet." } } @else {
                (plot::lines("Validator trust over blocks", "block", &[series]))
                details id="numbers" {
                    summary { "The numbers behind the plot" }
                    (table("Validator trust", &["block#", "validator trust#"],
                        self.trust.history.iter().map(|row| vec![
                            html! { (row.block) },
                            html! { (format!("{:.4}", row.validator_trust)) },
                        ])))
                }
                h3 { "Where our weights differ most from the consensus" }
                @if differing.clone().next().is_none() { p { "Nowhere: they are those of the consensus." } } @else {
                    (table("Disagreements", &["uid#", "ours#", "consensus#", "clipped#"],
                        differing.take(20).map(|row| vec![
                            uid_link(row.uid),
                            html! { (format!("{:.4}", row.ours)) },
                            html! { (format!("{:.4}", row.consensus)) },
                            html! { (format!("{:.4}", row.clipped)) },
                        ])))
                }
            }
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct QueuePage {
    doing: Option<String>,
    commitments: Vec<Queued>,
}

impl QueuePage {
    pub(crate) fn read(site: &Site<'_>) -> Self {
        Self {
            doing: site.status.as_ref().map(|status| status.phase.clone()),
            commitments: site.queue.clone(),
        }
    }

    pub(crate) fn html(&self) -> Markup {
        let stages = ["waiting", "refused", "verified"].map(|stage| {
            let count = self
                .commitments
                .iter()
                .filter(|queued| queued.stage == stage)
                .count();
            format!("{count} {stage}")
        });
        html! {
            @if let Some(doing) = &self.doing { p { "Now: " (text(doing)) } }
            @if self.commitments.is_empty() { p { "No commitment was looked at yet." } } @else {
                p { (self.commitments.len()) " commitments: " (stages.join(", ")) "." }
                (table("Commitments", &["uid#", "model", "stage", "reason", "looked at again"],
                    self.commitments.iter().map(|queued| vec![
                        uid_link(subnet::Uid(queued.uid)),
                        html! { (repository(&queued.model)) },
                        html! { (text(&queued.stage)) },
                        html! { @if let Some(reason) = &queued.reason { (text(reason)) } },
                        html! { @if let Some(at) = queued.again_at { (at.strftime("%F %T")) } },
                    ])))
            }
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct HealthPage {
    details: Option<Details>,
    changes: Vec<HealthChange>,
    starts: Vec<StartRow>,
}

impl HealthPage {
    pub(crate) fn read(site: &Site<'_>) -> Result<Self, IndexError> {
        Ok(Self {
            details: site.status.as_ref().map(|status| status.details.clone()),
            changes: site.index.health(SHOWN)?,
            starts: site.index.starts(SHOWN)?,
        })
    }

    pub(crate) fn html(&self, site: &Site<'_>) -> Markup {
        let alarms = self.details.as_ref().map(|details| &details.alarms);
        let is_stale = site
            .status
            .as_ref()
            .is_some_and(|status| status.is_stale(clock::unix_seconds()));
        html! {
            @if is_stale {
                p { "The status should have been written anew long ago: the validator has ended or hangs, or its disk is full. What follows is how it was." }
            }
            @for (cause, problem) in alarms.into_iter().flatten() {
                (problem_of(&cause.to_string(), problem, Rule::of(*cause).map(|rule| rule.remedy)))
            }
            @match alarms {
                None => p { "There is no status, so nothing is known: `validator status` says more." },
                Some(alarms) => @if alarms.is_empty() && !is_stale { p { "Nothing is known to be wrong." } }
            }
            @if let Some(status) = &site.status {
                dl {
                    dt { "Version" } dd { (text(&status.version)) }
                    @if let Some(hotkey) = status.details.hotkey { dt { "Hotkey" } dd { code { (hotkey) } } }
                    @if let Some(device) = &status.details.device { dt { "Device" } dd { (text(device)) } }
                    @if let Some(block) = status.details.block { dt { "Block" } dd { (block) } }
                    @if let Some(sources) = &status.details.sources { dt { "Sources" } dd { (text(&sources.used.join(", "))) } }
                }
            }
            @if let Some(details) = self.details.as_ref().filter(|details| !details.devices.is_empty()) {
                h2 { "Devices" }
                (table("Devices", &["device", "memory#", "taken#", "computes", "busy#", "workers replaced"],
                    details.devices.iter().map(|(name, device)| device_row(name, device))))
            }
            h2 { "What came and went" }
            (table("Problems", &["when", "cause", "became", "what"],
                self.changes.iter().map(|row| vec![
                    html! { (row.at.strftime("%F %T")) },
                    html! { (text(&row.cause)) },
                    html! { (row.health.as_deref().unwrap_or("over")) },
                    html! { (text(&row.text)) },
                ])))
            h2 { "Starts and updates" }
            (table("Starts", &["when", "version"],
                self.starts.iter().map(|row| vec![
                    html! { (row.at.strftime("%F %T")) },
                    html! { (text(&row.version)) },
                ])))
        }
    }
}

fn device_row(name: &str, device: &DeviceStatus) -> Vec<Markup> {
    let now = clock::now();
    let share = |share: Option<f64>| html! { @if let Some(share) = share { (format!("{:.0}\u{a0}%", share * 100.0)) } };
    vec![
        html! { (text(name)) },
        html! { @if let Some((used, total)) = device.memory_used.zip(device.memory_total) {
            (gigabytes(used)) " of " (gigabytes(total)) "\u{a0}GB"
        } },
        share(device.memory_share()),
        html! { @match device.busy_for(now) {
            Some(busy) => { "for " (span(busy as u64)) }
            None => "idle",
        } },
        share(device.busy_share(now)),
        html! { (device.replaced) @if let Some(why) = &device.why_replaced { ", last: " (text(why)) } },
    ]
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / 1e9)
}

fn problem_of(cause: &str, problem: &Problem, remedy: Option<&str>) -> Markup {
    let class = if problem.health == Health::Red {
        "problem red"
    } else {
        "problem yellow"
    };
    html! {
        div class=(class) {
            strong { (cause) } ": " (text(&problem.text))
            span class="quiet" { " (since " (problem.since.strftime("%F %T")) ")" }
            @if let Some(remedy) = remedy { p { "What to do: " (remedy) } }
        }
    }
}
