//! What a status tells, as rows of a table.

use std::fmt::Write as _;

use indicatif::HumanBytes;
use shared::{clock, term::span};

use super::{StatusView, TIME};
use report::{
    status::{
        Details, DeviceStatus, DiskUse, EndpointStatus, HotkeyStanding, LastStep, OriginStatus,
        Sources, Status, TrustNow, WeightsClock,
    },
    step_record::Receipt,
    table::blocks,
};

/// What is known, each with its name, in the order of `validator status`.
pub(super) fn facts(view: &StatusView) -> Vec<(&'static str, String)> {
    let status = &view.status;
    let details = &status.details;
    let models = details.models;
    let step = details.step.zip(details.competition.as_ref());
    let before = [
        ("version", Some(status.version.clone())),
        ("pid", Some(status.pid.to_string())),
        ("restart now", Some(restart(status))),
        ("netuid", Some(details.netuid.to_string())),
        ("hotkey", details.hotkey.map(|hotkey| hotkey.to_string())),
        ("uid", details.uid.map(|uid| uid.to_string())),
        ("device", details.device.clone()),
    ];
    let devices = details.devices.iter();
    let devices = devices.map(|(name, device)| ("worker", Some(device_line(name, device, view))));
    let after = [
        ("sandbox", details.sandbox.clone()),
        ("supervisor", view.supervision.clone()),
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
    before
        .into_iter()
        .chain(devices)
        .chain(after)
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// Says how full a device is, and how much its worker does.
pub(super) fn device_line(name: &str, device: &DeviceStatus, view: &StatusView) -> String {
    let mut line = name.to_owned();
    if let Some((used, total)) = device.memory_used.zip(device.memory_total) {
        let _ = write!(line, ": {} of {}", HumanBytes(used), HumanBytes(total));
    }
    let now = clock::now();
    if view.alive {
        let _ = match device.busy_for(now) {
            Some(busy) => write!(line, ", computing for {}", span(busy as u64)),
            None => write!(line, ", idle"),
        };
        if let Some(share) = device.busy_share(now) {
            let _ = write!(line, ", busy {:.0} % of the time", share * 100.0);
        }
    }
    if device.replaced > 0 {
        let why = device.why_replaced.as_deref().unwrap_or("unknown");
        let count = match device.replaced {
            1 => "1 worker".to_owned(),
            more => format!("{more} workers"),
        };
        let _ = write!(line, ", {count} replaced, last: {why}");
    }
    line
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
    let failed = match clock.failed_tries {
        0 => String::new(),
        tries => format!("; {tries} failed tries"),
    };
    format!(
        "set at block {}, {} old; due at block {}, {}{failed}",
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
        }
    )
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
