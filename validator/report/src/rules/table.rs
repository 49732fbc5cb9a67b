//! The table: every rule, and the conditions that are not alarms.

use jiff::{SignedDuration, Timestamp};
use shared::status::Health;

use super::{Condition, Rule};
use crate::{problem::Cause, status::Details};

const GIB: u64 = 1 << 30;

/// Every rule, in the order of [`Cause::ALL`].
pub const RULES: [Rule; 27] = [
    alarm(
        Cause::Chain,
        "the chain does not answer",
        "with the next block",
        "see that the endpoints of --subtensor.chain_endpoint answer; name several",
        Health::Yellow,
        15,
    ),
    alarm(
        Cause::ChainLag,
        "the endpoint in use is more than 5 blocks behind another one, or the chain's clock more than 5 minutes (red: 15) behind this machine's",
        "when a fresh endpoint is used",
        "name further endpoints: --subtensor.chain_endpoint; see that this machine's clock is right",
        Health::Red,
        10,
    ),
    alarm(
        Cause::Subnet,
        "the netuid belongs to another subnet than the one that is meant: nothing is evaluated, no weights are set",
        "when it is again the one that is meant",
        "see who owns the netuid now; --netuid or the subnet file names another",
        Health::Red,
        0,
    ),
    alarm(
        Cause::Registration,
        "the hotkey has no place on the subnet any more: nothing is evaluated, no weights are set",
        "when it is registered",
        "`btcli subnet register` the hotkey again",
        Health::Red,
        0,
    ),
    alarm(
        Cause::Commitments,
        "no neuron committed a model of a competition in force",
        "with the first commitment to a model",
        "`validator inspect commitments` shows what there is; see that --netuid is the right one",
        Health::Yellow,
        60,
    ),
    alarm(
        Cause::OldChainData,
        "`--offline`, and no chain: the snapshot on disk stands in",
        "with a start that reaches the chain",
        "start without --offline when the chain is back",
        Health::Yellow,
        60,
    ),
    alarm(
        Cause::State,
        "the state can't be written",
        "with the next write",
        "free the disk of the state's folder, or mend its permissions",
        Health::Red,
        2,
    ),
    alarm(
        Cause::Tracker,
        "what came of the commitments can't be written",
        "with the next write",
        "free the disk of the state's folder, or mend its permissions",
        Health::Yellow,
        10,
    ),
    alarm(
        Cause::Models,
        "commitments could not be looked at",
        "when none waits for something outside",
        "see whether the hub answers; a token (HF_TOKEN) has higher limits",
        Health::Yellow,
        60,
    ),
    alarm(
        Cause::Store,
        "the store could not be cleaned up",
        "with the next cleaning, within ten minutes",
        "see the log; mend the permissions of --model_dir",
        Health::Yellow,
        30,
    ),
    alarm(
        Cause::Samples,
        "sources of samples fail",
        "with the next step whose sources all answer",
        "`validator samples` shows each source; --samples names others",
        Health::Yellow,
        120,
    ),
    alarm(
        Cause::Step,
        "the step is postponed",
        "when it is made or no longer due",
        "`validator check` looks at device, disk, hub and chain",
        Health::Red,
        15,
    ),
    alarm(
        Cause::Tokenizer,
        "a fixed tokenizer is not the one that the subnet file or its repository now names; the one that worked stays in use",
        "with the next step on the one that is wanted",
        "see what its repository did; name revision and content in the subnet file",
        Health::Yellow,
        60,
    ),
    alarm(
        Cause::Losses,
        "no model of a competition has a finite loss",
        "with the competition's next finite loss",
        "`validator replay` the step; more likely a fault of this machine than of all miners",
        Health::Yellow,
        60,
    ),
    alarm(
        Cause::Weights,
        "weights could not be set",
        "when newer weights of ours are on the chain",
        "the text says the chain's reason; `validator check` looks at permit, stake and age",
        Health::Yellow,
        30,
    ),
    alarm(
        Cause::WeightsAge,
        "weights are overdue: yellow when half an epoch late, red when two epochs late or close to the chain's activity cutoff",
        "when they are no longer overdue",
        "see `weights` and `step` above; `validator set-weights` sets them by hand",
        Health::Red,
        1,
    ),
    alarm(
        Cause::Reveal,
        "committed weights were not revealed",
        "when newer weights of ours are visible",
        "see whether the chain is well; the next set comes by itself",
        Health::Red,
        1,
    ),
    alarm(
        Cause::Twin,
        "somebody else sets weights with our hotkey",
        "after two epochs without foreign weights",
        "stop the other validator: two of them overwrite each other",
        Health::Red,
        0,
    ),
    alarm(
        Cause::Wandb,
        "rows for W&B take too much of the disk",
        "when they are sent or deleted",
        "`wandb sync` the folders that the log names, or delete them",
        Health::Yellow,
        60,
    ),
    alarm(
        Cause::Publish,
        "records can't be published",
        "when all that are kept are published",
        "the text says why; see that --publish names a place that takes them",
        Health::Yellow,
        60,
    ),
    alarm(
        Cause::Failure,
        "the validator ended with a failure",
        "with the next start",
        "the text says why and its hint what to do; `validator check` looks at all parts",
        Health::Red,
        2,
    ),
    condition(
        Cause::Disk,
        "the disk of the models is almost full",
        "when there is room again",
        "free the disk, or let models take less: --max-disk",
        Health::Red,
        5,
        disk,
    ),
    condition(
        Cause::Trust,
        "our validator trust fell",
        "when it is back, or after a day at the new level",
        "`validator show trust` says over which uids we disagree; compare the samples by `validator diff`",
        Health::Yellow,
        0,
        trust,
    ),
    condition(
        Cause::Steps,
        "no step was completed for a day",
        "with the next step",
        "`validator status` says what it waits for; the log says why",
        Health::Yellow,
        0,
        steps,
    ),
    condition(
        Cause::CrashLoop,
        "start after start fails",
        "with a start that becomes ready",
        "`validator status` says what last went wrong; `validator check` looks at all parts",
        Health::Red,
        0,
        crash_loop,
    ),
    condition(
        Cause::OldSamples,
        "the samples are more than a day old",
        "with the next fresh sample set",
        "`validator samples` shows each source; --samples names others",
        Health::Yellow,
        0,
        old_samples,
    ),
    condition(
        Cause::Permit,
        "the chain gives us no validator permit",
        "with the epoch that gives one",
        "more stake on the hotkey; `validator inspect metagraph` shows who has a permit",
        Health::Yellow,
        60,
        permit,
    ),
];

const fn alarm(
    cause: Cause,
    what: &'static str,
    ends: &'static str,
    remedy: &'static str,
    worst: Health,
    call_minutes: i64,
) -> Rule {
    Rule {
        cause,
        what,
        ends,
        remedy,
        worst,
        call_minutes,
        condition: Condition::Alarm,
    }
}

const fn condition(
    cause: Cause,
    what: &'static str,
    ends: &'static str,
    remedy: &'static str,
    worst: Health,
    call_minutes: i64,
    holds: fn(&Details, Timestamp) -> Option<(Health, String)>,
) -> Rule {
    Rule {
        condition: Condition::Of(holds),
        ..alarm(cause, what, ends, remedy, worst, call_minutes)
    }
}

fn disk(details: &Details, _: Timestamp) -> Option<(Health, String)> {
    let disk = details.disk.as_ref()?;
    let gib = |bytes: u64| bytes as f64 / GIB as f64;
    let health = match disk.free {
        free if free <= disk.keep_free / 2 || free < GIB => Health::Red,
        free if free <= disk.keep_free => Health::Yellow,
        _ => return None,
    };
    let text = format!(
        "{:.1} GiB are free in {}, {:.1} GiB are to stay free; models take {:.1} GiB",
        gib(disk.free),
        disk.folder,
        gib(disk.keep_free),
        gib(disk.models)
    );
    Some((health, text))
}

/// By how much our trust may fall before it is told.
const TRUST_FALL: f64 = 0.05;

fn trust(details: &Details, _: Timestamp) -> Option<(Health, String)> {
    let trust = details.trust?;
    (trust.best - trust.validator_trust > TRUST_FALL).then(|| {
        let text = format!(
            "our validator trust fell from {:.4} to {:.4} (block {})",
            trust.best, trust.validator_trust, trust.block
        );
        (Health::Yellow, text)
    })
}

fn longer_than(since: Timestamp, hours: i64, now: Timestamp) -> bool {
    now.duration_since(since) > SignedDuration::from_hours(hours)
}

fn steps(details: &Details, now: Timestamp) -> Option<(Health, String)> {
    let ready = details.start.ready_at?;
    let last = details.last_step.as_ref().map(|step| step.finished_at);
    let since = last.map_or(ready, |last| last.max(ready));
    longer_than(since, 24, now).then(|| {
        let text = format!(
            "no step was completed since {}",
            since.strftime("%F %T UTC")
        );
        (Health::Yellow, text)
    })
}

fn crash_loop(details: &Details, _: Timestamp) -> Option<(Health, String)> {
    let start = &details.start;
    if start.ready_at.is_some() {
        return None;
    }
    let health = match start.attempt {
        0..3 => return None,
        3..6 => Health::Yellow,
        _ => Health::Red,
    };
    let error = start.last_error.as_deref().unwrap_or("unknown");
    let text = format!(
        "start {} in a row is under way; the last error: {error}",
        start.attempt
    );
    Some((health, text))
}

fn old_samples(details: &Details, _: Timestamp) -> Option<(Health, String)> {
    let age = details.sources.as_ref()?.cached_age?;
    (age > 24 * 3600).then(|| {
        let text = format!("the samples are {} hours old, from the cache", age / 3600);
        (Health::Yellow, text)
    })
}

fn permit(details: &Details, _: Timestamp) -> Option<(Health, String)> {
    let standing = details.standing.as_ref()?;
    (!standing.permit).then(|| {
        let text = format!(
            "hotkey has no validator permit with a stake of {:.1}: its weights count for nothing",
            standing.stake
        );
        (Health::Yellow, text)
    })
}
