//! `validator show uid` and `refusals`.

use clap::Args;
use index::{RefusalSpan, VerdictRow};
use jiff::Timestamp;
use serde::Serialize;
use shared::{Exit, Failure, term};

use super::{
    super::flags::index_failure,
    ViewArgs,
    pieces::{loss, or_dash, repository, text, when},
};
use crate::service::Known;
use models::tracker::{Outcome, TrackerEntry};
use subnet::{BlockNumber, Hotkey, Uid};

#[derive(Debug, Args)]
pub(crate) struct UidArgs {
    /// A uid, or a hotkey (5...)
    #[arg(value_name = "UID|HOTKEY")]
    who: Who,
    #[command(flatten)]
    asked: ViewArgs,
}

/// Somebody, by number or by key.
#[derive(Debug, Clone)]
enum Who {
    Uid(Uid),
    Hotkey(Hotkey),
}

impl std::str::FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(uid) = text.parse() {
            return Ok(Self::Uid(Uid(uid)));
        }
        let not = |_| "neither a uid (0 to 65535) nor a hotkey in SS58 (5...)".to_owned();
        text.parse().map(Self::Hotkey).map_err(not)
    }
}

/// What is known of a uid.
#[derive(Debug, Serialize)]
struct UidView {
    uid: Uid,
    hotkey: Option<String>,
    coldkey: Option<String>,
    commitment: Option<Look>,
    verdicts: Vec<VerdictRow>,
    refusals: Vec<RefusalSpan>,
}

/// A commitment, and what came of it when it was looked at last.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Look {
    model: String,
    block: BlockNumber,
    /// `verified`, `refused` or `waiting`.
    outcome: &'static str,
    reason: Option<String>,
    /// Whose fault it is that it waits.
    fault: Option<String>,
    parameters: Option<u64>,
    content: Option<String>,
    looked_at: Timestamp,
    /// When it is looked at again; a refused one only when it changes.
    again_at: Option<Timestamp>,
    /// How often it stood in the way.
    times: Option<u32>,
}

impl Look {
    fn of(entry: &TrackerEntry) -> Self {
        let look = Self {
            model: entry.model_id.to_string(),
            block: entry.block,
            outcome: "verified",
            reason: None,
            fault: None,
            parameters: None,
            content: None,
            looked_at: entry.looked_at,
            again_at: None,
            times: None,
        };
        match &entry.outcome {
            Outcome::Verified {
                content_hash,
                parameters,
            } => Self {
                parameters: Some(*parameters),
                content: Some(content_hash.to_string()),
                ..look
            },
            Outcome::Refused { reason } => Self {
                outcome: "refused",
                reason: Some(reason.clone()),
                ..look
            },
            Outcome::Waiting { fault, at, times } => Self {
                outcome: "waiting",
                reason: Some(fault.to_string()),
                fault: Some(fault.kind.to_string()),
                again_at: Some(*at),
                times: Some(*times),
                ..look
            },
        }
    }

    /// Says in words what came of it.
    fn words(&self) -> String {
        let reason = self.reason.as_deref().map(text).unwrap_or_default();
        match (self.outcome, self.again_at) {
            ("refused", _) => {
                format!("refused: {reason}; looked at again when the miner commits anew")
            }
            ("waiting", Some(at)) => format!(
                "waiting ({} at fault, {} times): {reason}; looked at again at {}",
                self.fault.as_deref().unwrap_or("unknown"),
                self.times.unwrap_or(0),
                at.strftime("%F %T UTC")
            ),
            _ => format!("verified: {} parameters", self.parameters.unwrap_or(0)),
        }
    }
}

impl UidArgs {
    pub(super) fn run(&self) -> Result<Exit, Failure> {
        let known = Known::read(&self.asked.own.folder()?)?;
        let uid = match &self.who {
            Who::Uid(uid) => *uid,
            Who::Hotkey(hotkey) => known.uid_of(hotkey).ok_or_else(|| {
                Failure::new(Exit::BadInput, format_args!("no uid has hotkey {hotkey}"))
                    .because("neither the last snapshot of the chain nor the commitments name it")
            })?,
        };
        let index = self.asked.own.index()?;
        let fail = |error| index_failure(&error);
        let entry = known.entry(uid);
        let neuron = known.neuron(uid);
        let view = UidView {
            uid,
            hotkey: neuron
                .map(|neuron| neuron.hotkey.to_string())
                .or_else(|| entry.map(|(hotkey, _)| hotkey.to_string())),
            coldkey: neuron.map(|neuron| neuron.coldkey.to_string()),
            commitment: entry.map(|(_, entry)| Look::of(entry)),
            verdicts: index.verdicts(uid, self.asked.limit).map_err(fail)?,
            refusals: index.refusals(Some(uid), self.asked.limit).map_err(fail)?,
        };
        if view.hotkey.is_none() && view.verdicts.is_empty() && view.refusals.is_empty() {
            return Err(Failure::new(
                Exit::BadInput,
                format_args!("nothing is known of uid {uid}"),
            )
            .hint("`validator inspect metagraph` lists the uids of the subnet"));
        }
        if self.asked.json {
            term::json(&view);
        } else {
            view.show();
        }
        Ok(Exit::Ok)
    }
}

impl UidView {
    fn show(&self) {
        let mut table = term::table(["uid", &self.uid.to_string()]);
        let mut row = |what: &str, value: String| {
            table.add_row([what.to_owned(), value]);
        };
        row("hotkey", or_dash(self.hotkey.clone(), |key| key));
        row("coldkey", or_dash(self.coldkey.clone(), |key| key));
        match &self.commitment {
            None => row("commitment", "none that was looked at".to_owned()),
            Some(look) => {
                row("repository", repository(&look.model));
                row("commitment", text(&look.model));
                row("committed", format!("block {}", look.block));
                row("now", look.words());
                row("looked at", when(look.looked_at));
            }
        }
        term::line(table);
        for row in &self.refusals {
            term::line(format_args!(
                "refused since step {}, {}: {}",
                row.first_step,
                when(row.first_seen),
                text(&row.reason)
            ));
        }
        if self.verdicts.is_empty() {
            return term::line("no model of it was in a step yet");
        }
        let mut table = term::table([
            "step",
            "competition",
            "rank",
            "loss",
            "win rate",
            "weight",
            "model",
            "note",
        ]);
        for row in &self.verdicts {
            let note = match (&row.copy_of, &row.reason) {
                (Some(original), _) => format!("copy of uid {original}"),
                (None, Some(reason)) => text(reason),
                (None, None) => String::new(),
            };
            table.add_row([
                row.step.to_string(),
                text(&row.competition),
                or_dash(row.rank, |rank| rank.to_string()),
                loss(row.loss),
                format!("{:.3}", row.win_rate),
                format!("{:.4}", row.weight.0),
                repository(&row.model),
                note,
            ]);
        }
        term::line(table);
    }
}

/// A refusal, and how its commitment stands now.
#[derive(Debug, Serialize)]
pub(super) struct Refused {
    #[serde(flatten)]
    span: RefusalSpan,
    /// None if the commitment is gone from the chain, or is another one now.
    now: Option<Look>,
}

/// Joins refusals of the records with what came of the commitments lately.
pub(super) fn refused(spans: Vec<RefusalSpan>, known: &Known) -> Vec<Refused> {
    spans
        .into_iter()
        .map(|span| {
            let entry = span
                .hotkey
                .parse()
                .ok()
                .and_then(|key| known.tracker.get(&key));
            let now = entry
                .filter(|entry| entry.block == span.committed)
                .map(Look::of);
            Refused { span, now }
        })
        .collect()
}

pub(super) fn show_refused(found: &[Refused]) {
    if found.is_empty() {
        return term::line("no commitment was refused");
    }
    let mut table = term::table(["uid", "competition", "model", "since", "reason", "now"]);
    for Refused { span, now } in found {
        let now = match now {
            None => "gone, or committed anew".to_owned(),
            Some(look) => match look.again_at {
                Some(at) => format!("again at {}", at.strftime("%F %T UTC")),
                None => look.outcome.to_owned(),
            },
        };
        table.add_row([
            span.uid.to_string(),
            text(&span.competition),
            repository(&span.model),
            format!("step {}, {}", span.first_step, when(span.first_seen)),
            text(&span.reason),
            now,
        ]);
    }
    term::line(table);
}
