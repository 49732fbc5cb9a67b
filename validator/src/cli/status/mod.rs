//! `validator status`: how the validator is, from its status file.

mod watch;

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use indicatif::HumanBytes;
use nix::{errno::Errno, sys::signal, unistd::Pid};
use shared::{
    Exit, Failure,
    cli::FullPath,
    clock,
    status::{self, Health},
    term,
};

use super::flags::{OWN_FLAGS, OwnFlags};
use crate::service;
use report::{
    rules::Rule,
    status::{
        self as own, Details, DiskUse, EndpointStatus, HotkeyStanding, LastStep, OriginStatus,
        Sources, Status, TrustNow, WeightsClock,
    },
    step_record::Receipt,
};

/// The longest text shown in full; the file has all of it.
const MAX_SHOWN: usize = 600;

/// The chain's pace: `pallet-aura`'s slot on finney. Localnets are faster.
const BLOCK_SECONDS: u64 = 12;

/// How times are shown.
const TIME: &str = "%F %T UTC";

/// Show how the running validator is
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    own: OwnFlags,
    /// The status file [default: the one in the folder of the state]
    #[arg(long = "status-file", value_name = "FILE", env = status::ENV)]
    status_file: Option<FullPath>,
    /// Print the status file as it is
    #[arg(long)]
    json: bool,
    /// Show it live, until q is pressed
    #[arg(long, conflicts_with = "json")]
    watch: bool,
}

pub(super) fn run(args: &StatusArgs) -> Result<Exit, Failure> {
    let path = if let Some(path) = &args.status_file {
        path.to_path_buf()
    } else {
        args.own.folder()?.join(service::STATUS)
    };
    if args.watch {
        return watch::run(&path);
    }
    let status = own::read(&path)
        .map_err(|error| Failure::of(Exit::BadInput, &error))?
        .ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                format_args!("there is no status file {}", path.display()),
            )
            .because("no validator has run with this wallet, subnet and state folder")
            .hint(OWN_FLAGS)
        })?;
    let found = StatusView::at(status, clock::unix_seconds());
    if args.json {
        term::json(&found.status);
    } else {
        found.show();
    }
    let well = found.alive && !found.stale && found.status.health != Health::Red;
    Ok(if well { Exit::Ok } else { Exit::Failed })
}

fn alive(pid: u32) -> bool {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
    !matches!(signal::kill(pid, None), Err(Errno::ESRCH))
}

/// A status, and whether it still holds.
struct StatusView {
    status: Status,
    /// The process lives.
    alive: bool,
    /// The file should have been renewed long ago.
    stale: bool,
    /// Age of the file, in seconds.
    age: u64,
}

impl StatusView {
    fn at(status: Status, now: u64) -> Self {
        Self {
            alive: alive(status.pid),
            stale: status.is_stale(now),
            age: status.age(now),
            status: status.as_of(now),
        }
    }

    /// Returns the traffic light.
    const fn light(&self) -> (AnsiColor, &'static str) {
        match (self.alive, self.stale, self.status.health) {
            (false, ..) => (AnsiColor::Red, "not running"),
            (true, true, _) => (AnsiColor::Red, "stale"),
            (true, false, Health::Green) => (AnsiColor::Green, "green"),
            (true, false, Health::Yellow) => (AnsiColor::Yellow, "yellow"),
            (true, false, Health::Red) => (AnsiColor::Red, "red"),
        }
    }

    fn show(&self) {
        let Self { status, age, .. } = self;
        let (color, word) = self.light();
        let style: Style = color.on_default().bold();
        term::line(format_args!(
            "{style}●{style:#} {word}: {} ({age} s ago)",
            shown(&status.phase)
        ));
        for (cause, problem) in &status.details.alarms {
            term::line(format_args!(
                "  {} ({cause}, since {}; ends {})",
                shown(&problem.text),
                problem.since.strftime(TIME),
                Rule::of(*cause).map_or("as a later release knows", |rule| rule.ends)
            ));
            if let Some(rule) = Rule::of(*cause) {
                term::line(format_args!("    what to do: {}", rule.remedy));
            }
        }
        // Of the others, only the file itself knows.
        for problem in status.problems.iter().skip(status.details.alarms.len()) {
            term::line(format_args!("  {}", shown(problem)));
        }
        let mut table = term::table(["what", "value"]);
        for (what, value) in rows(status) {
            table.add_row([what.to_owned(), shown(&value)]);
        }
        term::line(table);
    }
}

/// Much of it is what nodes, hubs and miners say.
fn shown(text: &str) -> String {
    term::printable(text, MAX_SHOWN)
}

/// Returns what is known, each with its name.
fn rows(status: &Status) -> Vec<(&'static str, String)> {
    let details = &status.details;
    let models = details.models;
    let step = details.step.zip(details.competition.as_ref());
    let rows = [
        ("version", Some(status.version.clone())),
        ("pid", Some(status.pid.to_string())),
        ("restart now", Some(restart(status))),
        ("netuid", Some(details.netuid.to_string())),
        ("hotkey", details.hotkey.map(|hotkey| hotkey.to_string())),
        ("uid", details.uid.map(|uid| uid.to_string())),
        ("device", details.device.clone()),
        ("sandbox", details.sandbox.clone()),
        ("start", start(details)),
        ("block", details.block.map(|block| block.to_string())),
        ("endpoints", endpoints(&details.endpoints)),
        ("step", step.map(|(step, id)| format!("{step} of {id}"))),
        ("steps done", Some(details.steps_done.to_string())),
        ("progress", details.round.map(|round| round.to_string())),
        ("last step", details.last_step.as_ref().map(last_step)),
        ("weights", details.weights.map(weights)),
        ("trust", details.trust.map(trust)),
        ("stake", details.standing.map(standing)),
        ("receipt", details.receipt.as_ref().map(receipt)),
        (
            "models",
            Some(format!(
                "{} verified, {} refused, {} waiting",
                models.verified, models.refused, models.waiting
            )),
        ),
        ("hub", origins(&details.origins)),
        ("sources", details.sources.as_ref().map(sources)),
        ("disk", details.disk.as_ref().map(disk)),
    ];
    rows.into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

fn endpoints(endpoints: &[EndpointStatus]) -> Option<String> {
    let line = |endpoint: &EndpointStatus| {
        let mut line = endpoint.url.clone();
        if endpoint.in_use {
            line += ", in use";
        }
        if let Some(block) = endpoint.block {
            let _ = write!(line, ", block {block}");
        }
        if let Some(lag) = endpoint.lag.filter(|lag| *lag > 0) {
            let _ = write!(line, ", {lag} behind");
        }
        if let Some(millis) = endpoint.latency_millis {
            let _ = write!(line, ", {millis} ms");
        }
        if endpoint.error_rate > 0.01 {
            let _ = write!(line, ", {:.0} % errors", endpoint.error_rate * 100.0);
        }
        if endpoint.watches == Some(false) {
            line += ", watches no transactions";
        }
        if let Some(depth) = endpoint.state_depth {
            let _ = write!(line, ", states of {depth} blocks");
        }
        if let Some(problem) = &endpoint.problem {
            let _ = write!(line, ": {problem}");
        }
        line
    };
    let lines: Vec<String> = endpoints.iter().map(line).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// Says who served models: the hub, and its mirrors if there are any.
fn origins(origins: &[OriginStatus]) -> Option<String> {
    let line = |origin: &OriginStatus| {
        let mut line = format!("{}, served {}", origin.url, origin.served);
        if origin.failed > 0 {
            let _ = write!(line, ", failed {}", origin.failed);
        }
        if let Some(problem) = &origin.problem {
            let _ = write!(line, ": {problem}");
        }
        line
    };
    let lines: Vec<String> = origins.iter().map(line).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

fn last_step(last: &LastStep) -> String {
    format!(
        "{} of {} at block {}, {} models in {:.1} s, done {}",
        last.step,
        last.competition,
        last.block,
        last.models.len(),
        last.seconds,
        last.finished_at.strftime(TIME)
    )
}

fn weights(clock: WeightsClock) -> String {
    format!(
        "set at block {}, {} old; due at block {}, {}; {} failed tries",
        clock.last_block,
        blocks(clock.age_blocks),
        clock.due_block,
        match clock.late_blocks {
            0 => format!(
                "in {}",
                blocks(
                    clock
                        .due_block
                        .saturating_sub(clock.last_block + clock.age_blocks)
                )
            ),
            late => format!("{} late", blocks(late)),
        },
        clock.failed_tries
    )
}

/// A number of blocks and the time that they take: one block is twelve seconds on this chain.
fn blocks(blocks: u64) -> String {
    match blocks * BLOCK_SECONDS {
        seconds @ 0..120 => format!("{blocks} blocks ({seconds} s)"),
        seconds @ 120..7200 => format!("{blocks} blocks ({} min)", seconds / 60),
        seconds => format!("{blocks} blocks ({} h)", seconds / 3600),
    }
}

fn trust(trust: TrustNow) -> String {
    format!(
        "{:.4} at block {}, the best of the last epochs is {:.4}",
        trust.validator_trust, trust.block, trust.best
    )
}

fn standing(standing: HotkeyStanding) -> String {
    let permit = if standing.permit { "with" } else { "WITHOUT" };
    format!("{:.1}, {permit} a validator permit", standing.stake)
}

fn disk(disk: &DiskUse) -> String {
    let limit = disk.limit.map_or_else(
        || "no limit".to_owned(),
        |limit| format!("limit {}", HumanBytes(limit)),
    );
    let first = disk.goes_first.as_deref().map_or_else(
        || "nothing could go".to_owned(),
        |first| format!("{first} would go first"),
    );
    format!(
        "models take {}, {limit}, {} free of which {} stay free; {first}",
        HumanBytes(disk.models + disk.unfinished),
        HumanBytes(disk.free),
        HumanBytes(disk.keep_free)
    )
}

fn receipt(receipt: &Receipt) -> String {
    format!(
        "block {}, {} weights, extrinsic {}",
        receipt.block,
        receipt.stored.len(),
        receipt.extrinsic
    )
}

fn sources(sources: &Sources) -> String {
    let cached = sources
        .cached_age
        .map(|age| format!(", samples of {} min ago", age / 60));
    format!(
        "{}; {} failing{}{}",
        sources.used.join(", "),
        sources.failing.len(),
        cached.unwrap_or_else(|| ", fresh".to_owned()),
        sources
            .dropped
            .zip(sources.usable)
            .map_or_else(String::new, |(dropped, usable)| {
                format!(", {usable} records usable, {dropped} dropped")
            })
    )
}

/// Says how a start is going that is not complete.
fn start(details: &Details) -> Option<String> {
    let start = &details.start;
    if start.ready_at.is_some() {
        return None;
    }
    let error = start.last_error.as_deref().unwrap_or("nothing");
    Some(format!(
        "attempt {}, {} failed connections, last went wrong: {error}",
        start.attempt, start.failed_connections
    ))
}

fn restart(status: &Status) -> String {
    if status.restart.safe {
        "safe".to_owned()
    } else {
        format!("would hurt: {}", status.restart.reason)
    }
}
