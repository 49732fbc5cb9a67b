//! The hub and its mirrors, and the clock that the hub tells.

use futures::future::join_all;
use shared::clock;

use super::{Line, Settings, outside::ENDPOINT_LIMIT, text};
use crate::state;
use ::hub::Hub;
use http_client::{
    HttpClient, HttpOptions, HttpRequest,
    header::{DATE, HeaderMap},
};
use models::{Store, Tokenizers};
use subnet::FaultKind;

/// A clock this far off confuses retries and reports.
const CLOCK_LIMIT: u64 = 30;

/// Asks the hub for anything at all; `None` if it does not answer.
pub(super) async fn ask_hub(settings: &Settings) -> Option<HeaderMap> {
    let client = HttpClient::new(HttpOptions::default()).ok()?;
    let request = HttpRequest::get(settings.hub.endpoint.clone(), 0, ENDPOINT_LIMIT);
    request.headers(&client).await.ok()
}

/// Asks each mirror for anything at all.
pub(super) async fn mirrors(settings: &Settings) -> Vec<Line> {
    const SUBJECT: &str = "hub mirror";
    let mirrors = settings.hub.mirrors.iter();
    let lines = mirrors.map(|mirror| async move {
        let asked = async {
            let client = HttpClient::new(HttpOptions::default()).map_err(|e| text(&e))?;
            let request = HttpRequest::get(mirror.url().clone(), 0, ENDPOINT_LIMIT);
            request.headers(&client).await.map_err(|e| text(&e))
        };
        match asked.await {
            Ok(_) => Line::ok(SUBJECT, format_args!("{mirror} answers")),
            Err(problem) => {
                let remedy = "it is passed over while it is away: check --hub-mirror";
                Line::warn(SUBJECT, problem, remedy)
            }
        }
    });
    join_all(lines).await
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
    // What is wrong with the state is another line's.
    let state = state::peek(&settings.folder).ok().flatten();
    let trusted = state.map(|state| state.tokenizers).unwrap_or_default();
    let reachable = answers || !settings.hub.mirrors.is_empty();
    let mut fetched = 0;
    for competition in parameters.schedules.iter().flat_map(|s| &s.competitions) {
        let Some(wanted) = &competition.tokenizer else {
            continue;
        };
        let tokenizers = Tokenizers {
            hub: reachable.then_some(&hub),
            store: &store,
            compatibility: parameters.compatibility,
        };
        let found = tokenizers
            .find(wanted, trusted.get(&wanted.repository))
            .await;
        if let Err(fault) = found {
            return Line::fail(
                SUBJECT,
                fault.kind,
                format_args!("{fault}"),
                "gated repositories need a token that may read them: HF_TOKEN or --hub-token",
            );
        }
        fetched += 1;
    }
    let endpoint = http_client::shown(&settings.hub.endpoint);
    let served = if hub.is_mirrored() {
        format!(", served by {}", hub.served_by().join(", "))
    } else {
        String::new()
    };
    let detail = format!("{endpoint}: {fetched} tokenizers{served}");
    if !answers {
        let from = if hub.is_mirrored() { "" } else { ", from disk" };
        let detail = format!("{detail}{from}: the hub can't be reached");
        return Line::warn(
            SUBJECT,
            detail,
            if reachable {
                "models come from its mirrors meanwhile: check --hub-url"
            } else {
                "new models can't be fetched: check --hub-url"
            },
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
