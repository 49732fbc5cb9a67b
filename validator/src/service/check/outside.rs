//! What lies outside: chain, registration, samples, W&B.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use shared::clock;
use tokio::time::{Instant, timeout};

use super::{
    super::{chain_watcher, gate},
    Level, Line, Settings, hotkey, text,
};
use chain::{ChainError, ChainSnapshot, Client, Deadlines, Endpoints, Neuron};
use http_client::{Credentials, HttpClient, HttpOptions, HttpRequest};
use samples::Fetcher;
use subnet::FaultKind;

/// An endpoint further behind the freshest is used only while no other answers.
const LAG_LIMIT: u64 = 5;

/// A chain whose clock is so many seconds behind ours is old.
const CHAIN_CLOCK_LIMIT: u64 = 300;

/// How long one endpoint may take.
pub(super) const ENDPOINT_LIMIT: Duration = Duration::from_secs(20);

/// An operator waits: what can't be reached is said at once, not tried again.
pub(super) const AT_ONCE: Deadlines = Deadlines {
    handshake: Duration::from_secs(10),
    request: ENDPOINT_LIMIT,
    operation: ENDPOINT_LIMIT,
    silence: ENDPOINT_LIMIT,
    inclusion: ENDPOINT_LIMIT,
    backoff: ENDPOINT_LIMIT,
    penalty: ENDPOINT_LIMIT,
    survey: ENDPOINT_LIMIT,
};

/// The longest answer of W&B read.
const MAX_ANSWER_BYTES: u64 = 1 << 16;

const SAMPLES: usize = 20;

/// Tries every endpoint; returns the snapshot of the first that gave one.
pub(super) async fn chain(settings: &Settings) -> (Vec<Line>, Option<ChainSnapshot>) {
    const SUBJECT: &str = "chain";
    const REMEDY: &str =
        "check --subtensor.network and --subtensor.chain_endpoint, and the network";
    let netuid = settings.step.parameters.netuid;
    let tries = settings.endpoints.urls.iter().map(|url| async move {
        let endpoints = Endpoints {
            urls: vec![url.clone()],
            ..settings.endpoints.clone()
        };
        let began = Instant::now();
        let tried = timeout(ENDPOINT_LIMIT, async {
            let client = Client::connect(&endpoints, AT_ONCE).await?;
            let snapshot = client
                .snapshot_by(netuid, &settings.step.parameters.commitment)
                .await?;
            Ok::<_, ChainError>((snapshot, client.abilities().await))
        });
        (url, tried.await, began.elapsed())
    });
    let tried = join_all(tries).await;
    let found = || {
        tried
            .iter()
            .filter_map(|(_, tried, _)| tried.as_ref().ok()?.as_ref().ok())
    };
    // The chain is that of the most preferred endpoint; who serves another one is not asked.
    let genesis = found().next().map(|(first, _)| first.genesis_hash);
    let same = |snapshot: &&ChainSnapshot| Some(snapshot.genesis_hash) == genesis;
    let freshest = found().map(|(snapshot, _)| snapshot).filter(same);
    let snapshot = freshest.max_by_key(|snapshot| snapshot.block).cloned();
    let best = snapshot.as_ref().map_or(0, |snapshot| snapshot.block);
    let mut lines = Vec::new();
    for (url, tried, took) in tried {
        lines.push(match tried {
            Ok(Ok((found, abilities))) => {
                let millis = took.as_millis();
                let block = found.block;
                let detail = format!("{url}: block {block}, snapshot in {millis} ms, {abilities}");
                let behind = best.saturating_sub(block);
                if !same(&&found) {
                    let detail = format!("{url}: another chain, genesis {}", found.genesis_hash);
                    Line::fail(SUBJECT, FaultKind::Config, detail, "leave it out")
                } else if behind > LAG_LIMIT {
                    let detail = format!("{detail}; {behind} blocks behind");
                    Line::warn(SUBJECT, detail, "it is used only while no other answers")
                } else {
                    Line::ok(SUBJECT, detail)
                }
            }
            Ok(Err(error)) => Line::fail(
                SUBJECT,
                error.kind(),
                format_args!("{url}: {}", text(&error)),
                REMEDY,
            ),
            Err(_) => {
                let seconds = ENDPOINT_LIMIT.as_secs();
                let detail = format!("{url}: no answer within {seconds} s");
                Line::fail(SUBJECT, FaultKind::Outside, detail, REMEDY)
            }
        });
    }
    if let Some(snapshot) = &snapshot {
        lines.push(chain_clock(snapshot));
        for line in &mut lines {
            if line.level == Level::Fail {
                (line.level, line.fault) = (Level::Warn, None);
            }
        }
    }
    (lines, snapshot)
}

/// Compares the chain's clock with ours.
fn chain_clock(snapshot: &ChainSnapshot) -> Line {
    const SUBJECT: &str = "chain clock";
    let Some(time) = snapshot.hyperparameters.time else {
        return Line::warn(SUBJECT, "the chain tells no time", "see that NTP runs");
    };
    let behind = clock::unix_seconds().saturating_sub(time);
    if behind > CHAIN_CLOCK_LIMIT {
        let detail = format!("{} minutes behind this machine's", behind / 60);
        let remedy = "the endpoints lag: name others with --subtensor.chain_endpoint; or start NTP";
        return Line::warn(SUBJECT, detail, remedy);
    }
    Line::ok(SUBJECT, format_args!("{behind} s behind this machine's"))
}

/// Looks whether the subnet is the one that is meant, and whether there is work.
pub(super) fn subnet(settings: &Settings, snapshot: &ChainSnapshot) -> Vec<Line> {
    const SUBJECT: &str = "subnet";
    let parameters = &settings.step.parameters;
    let found = gate::found(snapshot);
    let meant = gate::meant(&settings.folder, &parameters.identity).and_then(|meant| {
        meant
            .iter()
            .try_for_each(|identity| identity.check(&found))
            .map_err(|error| text(&*error))
    });
    let mut lines = vec![match meant {
        Ok(()) => Line::ok(SUBJECT, format_args!("netuid {}: {found}", snapshot.netuid)),
        Err(problem) => Line::fail(SUBJECT, FaultKind::Config, problem, gate::REMEDY),
    }];
    let rules = &snapshot.hyperparameters;
    if let Some(nothing) = chain_watcher::nothing_committed(snapshot, parameters) {
        lines.push(Line::warn(
            "commitments",
            nothing,
            "there is nothing to evaluate yet",
        ));
    }
    if rules.null_consensus {
        let detail = "null consensus: only the weights of the validator with the most stake count";
        lines.push(Line::warn("consensus", detail, "ask the subnet's owner"));
    }
    let is_owners = |neuron: &&Neuron| {
        Some(neuron.hotkey) == rules.owner_hotkey || Some(neuron.coldkey) == rules.owner
    };
    let burnt: u64 = (snapshot.neurons.iter().filter(is_owners))
        .map(|neuron| u64::from(neuron.incentive))
        .sum();
    let all: u64 = snapshot
        .neurons
        .iter()
        .map(|neuron| u64::from(neuron.incentive))
        .sum();
    if all > 0 && burnt * 2 > all {
        let percent = burnt * 100 / all;
        let detail = format!("{percent} % of the incentive goes to neurons of the owner");
        let remedy = "so the miners' emission is burnt or recycled; ask the subnet's owner";
        lines.push(Line::warn("consensus", detail, remedy));
    }
    lines
}

pub(super) fn neuron(settings: &Settings, snapshot: &ChainSnapshot) -> Vec<Line> {
    let Some(hotkey) = hotkey(settings) else {
        return Vec::new();
    };
    let Some(neuron) = snapshot.neuron(&hotkey) else {
        let remedy = format!("btcli subnet register --netuid {}", snapshot.netuid);
        let detail = format!("{hotkey} has no uid on subnet {}", snapshot.netuid);
        return vec![Line::fail(
            "registration",
            FaultKind::Config,
            detail,
            &remedy,
        )];
    };
    let mut lines = vec![Line::ok("registration", format_args!("uid {}", neuron.uid))];
    lines.push(if neuron.validator_permit {
        Line::ok("permit", "it may set weights")
    } else {
        Line::fail(
            "permit",
            FaultKind::Config,
            "no validator permit: the chain refuses weights",
            "more stake; permits are given anew at each epoch",
        )
    });
    let threshold = snapshot.hyperparameters.stake_threshold;
    let tao = |rao: u64| rao as f64 / 1e9;
    lines.push(if neuron.stake >= threshold {
        Line::ok("stake", format_args!("{:.3}", tao(neuron.stake)))
    } else {
        let detail = format!(
            "{:.3}, the chain asks for {:.3}",
            tao(neuron.stake),
            tao(threshold)
        );
        Line::fail(
            "stake",
            FaultKind::Config,
            detail,
            "more stake on the hotkey",
        )
    });
    let age = snapshot.block.saturating_sub(neuron.last_update);
    let cutoff = snapshot.hyperparameters.activity_cutoff;
    lines.push(if age < cutoff {
        Line::ok("weights", format_args!("{age} blocks old"))
    } else {
        let detail = format!("{age} blocks old: inactive beyond {cutoff}");
        Line::warn(
            "weights",
            detail,
            "they are set once the validator has run a step",
        )
    });
    lines
}

pub(super) async fn samples(settings: &Settings) -> Line {
    const SUBJECT: &str = "samples";
    const REMEDY: &str = "--samples names other sources; `validator samples` shows what each gives";
    // What they give now, and nothing that a running validator relies on is touched.
    let trial = samples::FetcherSettings {
        cache: None,
        ..settings.samples.clone()
    };
    let fetcher = match Fetcher::new(trial) {
        Ok(fetcher) => fetcher,
        Err(fault) => return Line::fail(SUBJECT, fault.kind, fault, REMEDY),
    };
    let pool = fetcher.fetch(SAMPLES, 0).await;
    let notes: Vec<String> = pool
        .reports
        .iter()
        .flat_map(|report| report.notes.clone())
        .collect();
    let usable: usize = pool.reports.iter().map(|report| report.usable).sum();
    match pool.draw(SAMPLES, 0) {
        Err(fault) => Line::fail(SUBJECT, fault.kind, fault, REMEDY),
        Ok(_) if !notes.is_empty() => Line::warn(
            SUBJECT,
            format_args!("{usable} usable; {}", notes.join("; ")),
            REMEDY,
        ),
        Ok(_) => Line::ok(SUBJECT, format_args!("{usable} usable")),
    }
}

/// Asks W&B whose the key is. Rows stay on disk whatever it says: nothing here is a failure.
pub(super) async fn wandb(settings: &Settings) -> Line {
    const SUBJECT: &str = "W&B";
    const KEY: &str = "WANDB_API_KEY or ~/.netrc";
    let Some(wandb) = &settings.wandb else {
        return Line::ok(SUBJECT, "off");
    };
    let project = format!("project {}", wandb.project);
    let Some(key) = wandb.key.as_deref() else {
        let detail = format!("{project}: no key, rows stay on disk");
        return Line::warn(SUBJECT, detail, KEY);
    };
    let mut url = wandb.base_url.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().push("graphql");
    }
    let question =
        json!({"operationName": "Viewer", "query": "query Viewer { viewer { username } }"});
    let request = HttpRequest::post(url, &question, MAX_ANSWER_BYTES, ENDPOINT_LIMIT);
    let refused = |why: String| {
        let detail = format!("{project}: the key is refused{why}, rows stay on disk");
        Line::warn(SUBJECT, detail, KEY)
    };
    let credentials = match Credentials::basic("api", key) {
        Ok(credentials) => credentials,
        Err(error) => return refused(format!(" ({error})")),
    };
    let answer = match HttpClient::new(HttpOptions::default()) {
        Ok(client) => {
            let request = request.credentials(Some(credentials));
            request.json::<Value>(&client).await
        }
        Err(error) => return Line::fail(SUBJECT, FaultKind::Machine, error, "see the log"),
    };
    match answer {
        Ok(answer) => match answer["data"]["viewer"]["username"].as_str() {
            Some(name) => Line::ok(SUBJECT, format_args!("{project}, as {name}")),
            None => refused(String::new()),
        },
        Err(error)
            if error
                .status()
                .is_some_and(|s| matches!(s.as_u16(), 401 | 403)) =>
        {
            refused(format!(" ({error})"))
        }
        Err(error) => Line::warn(
            SUBJECT,
            format_args!("{project}: {error}; rows wait on disk"),
            "check --wandb-url; rows are sent when it is back",
        ),
    }
}
