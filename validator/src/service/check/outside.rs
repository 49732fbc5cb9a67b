//! What lies outside: chain, registration, clock, hub, samples, W&B.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use shared::clock;
use tokio::time::{Instant, timeout};

use super::{Level, Line, Settings, hotkey, text};
use chain::{ChainSnapshot, Client, Deadlines, Endpoints};
use http_client::{
    Credentials, HttpClient, HttpOptions, HttpRequest,
    header::{DATE, HeaderMap},
};
use hub::Hub;
use models::{self, Store};
use samples::Fetcher;
use subnet::{Fault, FaultKind};

/// A clock this far off confuses retries and reports.
const CLOCK_LIMIT: u64 = 30;

/// How long one endpoint may take.
const ENDPOINT_LIMIT: Duration = Duration::from_secs(20);

/// An operator waits: what can't be reached is said at once, not tried again.
const AT_ONCE: Deadlines = Deadlines {
    handshake: Duration::from_secs(10),
    request: ENDPOINT_LIMIT,
    operation: ENDPOINT_LIMIT,
    silence: ENDPOINT_LIMIT,
    inclusion: ENDPOINT_LIMIT,
    backoff: ENDPOINT_LIMIT,
    penalty: ENDPOINT_LIMIT,
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
            client.snapshot(netuid).await
        });
        (url, tried.await, began.elapsed())
    });
    let mut lines = Vec::new();
    let mut snapshot = None;
    for (url, tried, took) in join_all(tries).await {
        lines.push(match tried {
            Ok(Ok(found)) => {
                let millis = took.as_millis();
                let detail = format!("{url}: block {}, snapshot in {millis} ms", found.block);
                snapshot = snapshot.or(Some(found));
                Line::ok(SUBJECT, detail)
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
    if snapshot.is_some() {
        for line in &mut lines {
            if line.level == Level::Fail {
                (line.level, line.fault) = (Level::Warn, None);
            }
        }
    }
    (lines, snapshot)
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
    let cutoff = u64::from(snapshot.hyperparameters.activity_cutoff);
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

/// Asks the hub for anything at all; `None` if it does not answer.
pub(super) async fn ask_hub(settings: &Settings) -> Option<HeaderMap> {
    let client = HttpClient::new(HttpOptions::default()).ok()?;
    let request = HttpRequest::get(settings.hub.endpoint.clone(), 0, ENDPOINT_LIMIT);
    request.headers(&client).await.ok()
}

/// Compares our clock with that of the hub, as its answer tells it.
pub(super) fn clock_line(answer: Option<&HeaderMap>) -> Line {
    const SUBJECT: &str = "clock";
    let time = |answer: &HeaderMap| {
        let date = answer.get(DATE)?.to_str().ok()?;
        let date = jiff::fmt::rfc2822::parse(date).ok()?;
        u64::try_from(date.timestamp().as_second()).ok()
    };
    match answer.and_then(time) {
        None => Line::warn(
            SUBJECT,
            "the hub tells no time to compare with",
            "see that NTP runs",
        ),
        Some(theirs) => {
            let off = clock::unix_seconds().abs_diff(theirs);
            if off > CLOCK_LIMIT {
                Line::warn(SUBJECT, format_args!("{off} s off the hub's"), "start NTP")
            } else {
                Line::ok(SUBJECT, format_args!("{off} s off the hub's"))
            }
        }
    }
}

/// Fetches the fixed tokenizers, which every step needs; those on disk will do if the hub does not
/// answer.
pub(super) async fn hub(settings: &Settings, answers: bool) -> Line {
    const SUBJECT: &str = "hub";
    let parameters = &settings.step.parameters;
    let opened = Store::open(&settings.model_folder, settings.limits)
        .map_err(|error| text(&error))
        .and_then(|store| Ok((store, Hub::new(settings.hub.clone()).map_err(|e| text(&e))?)));
    let (store, hub) = match opened {
        Ok(opened) => opened,
        Err(problem) => return Line::fail(SUBJECT, FaultKind::Config, problem, "check --hub-url"),
    };
    let mut fetched = 0;
    for competition in parameters.schedules.iter().flat_map(|s| &s.competitions) {
        let Some(repository) = &competition.tokenizer else {
            continue;
        };
        let tried = if answers {
            models::tokenizer(&hub, &store, repository, parameters.compatibility).await
        } else {
            let missing = || Fault::outside("it is not on disk, and the hub can't be reached");
            store.newest_tokenizer(repository).ok_or_else(missing)
        };
        if let Err(fault) = tried {
            return Line::fail(
                SUBJECT,
                fault.kind,
                format_args!("tokenizer {repository}: {fault}"),
                "gated repositories need a token that may read them: HF_TOKEN or --hub-token",
            );
        }
        fetched += 1;
    }
    let detail = format!("{}: {fetched} tokenizers", settings.hub.endpoint);
    if !answers {
        let detail = format!("{detail}, from disk: the hub can't be reached");
        return Line::warn(
            SUBJECT,
            detail,
            "new models can't be fetched: check --hub-url",
        );
    }
    if settings.hub.token.is_some() {
        Line::ok(SUBJECT, detail)
    } else {
        Line::warn(
            SUBJECT,
            format_args!("{detail}; no token"),
            "the hub limits those without; HF_TOKEN or --hub-token",
        )
    }
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
