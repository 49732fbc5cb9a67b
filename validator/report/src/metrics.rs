//! The state of the validator as metrics in Prometheus' text form: for a scrape, and for node_exporter's textfile
//! collector, which needs no port.

use http_server::metrics::{self, Labels, Reading};
use shared::status::Health;

use crate::{
    meters::{Meters, PREFIX},
    status::{
        Cause, Details, DiskUse, EndpointStatus, LastStep, ModelSummary, OriginStatus, Status,
        WeightsClock,
    },
};

/// Returns the metrics of a status, and what was counted.
pub fn render(status: &Status, meters: &Meters) -> String {
    let mut readings = program(status);
    readings.extend(progress(&status.details));
    readings.extend(weights(&status.details));
    readings.extend(resources(&status.details));
    readings.extend(per_endpoint(&status.details));
    readings.extend(per_origin(&status.details));
    readings.extend(per_model(&status.details));
    metrics::render(PREFIX, readings) + &meters.text()
}

fn level(health: Health) -> f64 {
    match health {
        Health::Green => 0.0,
        Health::Yellow => 1.0,
        Health::Red => 2.0,
    }
}

fn flag(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

fn program(status: &Status) -> Vec<Reading> {
    let start = &status.details.start;
    let device = status.details.device.clone().unwrap_or_default();
    let build = vec![("version", status.version.clone()), ("device", device)];
    let problems = Cause::ALL.map(|cause| {
        // An alarm that is green is listed all the same.
        let problem = status.details.alarms.get(&cause);
        let value = problem.map_or(0.0, |problem| level(problem.health).max(1.0));
        (vec![("cause", cause.to_string())], value)
    });
    vec![
        Reading::of_each("build_info", "Version and device", [(build, 1.0)]),
        Reading::gauge(
            "health",
            "0 green, 1 yellow, 2 red",
            Some(level(status.health)),
        ),
        Reading::gauge(
            "restart_safe",
            "1 if a restart now loses nothing",
            Some(flag(status.restart.safe)),
        ),
        Reading::gauge(
            "written_timestamp_seconds",
            "When this was written, in seconds since 1970",
            Some(status.written_at as f64),
        ),
        Reading::gauge(
            "ready",
            "1 once the start is complete",
            Some(flag(start.ready_at.is_some())),
        ),
        Reading::gauge(
            "ready_timestamp_seconds",
            "When the start was complete, in seconds since 1970",
            start.ready_at.map(|at| at.as_second() as f64),
        ),
        Reading::gauge(
            "start_attempt",
            "Starts in a row since one became ready",
            Some(f64::from(start.attempt)),
        ),
        Reading::of_each("problem", "0 not there, 1 yellow, 2 red", problems),
    ]
}

fn progress(details: &Details) -> Vec<Reading> {
    let last = details.last_step.as_ref();
    let finished = details.last_steps.iter().map(|(competition, step)| {
        (
            of_competition(&competition.0),
            step.finished_at.as_second() as f64,
        )
    });
    vec![
        Reading::gauge(
            "block",
            "Newest block seen",
            details.block.map(|block| block as f64),
        ),
        Reading::gauge(
            "block_timestamp_seconds",
            "When the newest block was seen, in seconds since 1970",
            details.block_at.map(|at| at.as_second() as f64),
        ),
        Reading::gauge(
            "step",
            "Number of the newest step",
            details.step.map(|step| step as f64),
        ),
        Reading::gauge(
            "steps_done",
            "Steps completed since the start",
            Some(details.steps_done as f64),
        ),
        Reading::gauge(
            "step_seconds",
            "Duration of the last step",
            last.map(|step| step.seconds),
        ),
        Reading::of_each(
            "step_finished_timestamp_seconds",
            "When the last step of the competition was completed, in seconds since 1970",
            finished,
        ),
        Reading::gauge(
            "step_models_done",
            "Models done of the step under way",
            details.round.map(|round| round.done as f64),
        ),
        Reading::gauge(
            "step_models",
            "Models of the step under way",
            details.round.map(|round| round.of as f64),
        ),
    ]
}

fn weights(details: &Details) -> Vec<Reading> {
    let clock = |number: fn(&WeightsClock) -> f64| details.weights.as_ref().map(number);
    let trust = details.trust;
    vec![
        Reading::gauge(
            "weights_age_blocks",
            "Age of our weights on the chain",
            clock(|clock| clock.age_blocks as f64),
        ),
        Reading::gauge(
            "weights_late_blocks",
            "Blocks since weights were due",
            clock(|clock| clock.late_blocks as f64),
        ),
        Reading::gauge(
            "weights_due_block",
            "Block at which the next weights are due",
            clock(|clock| clock.due_block as f64),
        ),
        Reading::gauge(
            "weights_failed_tries",
            "Tries to set weights that failed in a row",
            clock(|clock| f64::from(clock.failed_tries)),
        ),
        Reading::gauge(
            "weights_last_block",
            "Block of our last weight set",
            clock(|clock| clock.last_block as f64),
        ),
        Reading::gauge(
            "validator_trust_ratio",
            "Our validator trust",
            trust.map(|trust| trust.validator_trust),
        ),
        Reading::gauge(
            "validator_trust_best_ratio",
            "The best of our trust in the last epochs",
            trust.map(|trust| trust.best),
        ),
        Reading::gauge(
            "validator_permit",
            "1 if the chain gives us a permit",
            details.standing.map(|standing| flag(standing.permit)),
        ),
        Reading::gauge(
            "stake",
            "Stake of our hotkey that counts",
            details.standing.map(|standing| standing.stake),
        ),
    ]
}

fn resources(details: &Details) -> Vec<Reading> {
    let models = details.models;
    let sources = details.sources.as_ref();
    let disk = |number: fn(&DiskUse) -> Option<u64>| {
        details
            .disk
            .as_ref()
            .and_then(number)
            .map(|bytes| bytes as f64)
    };
    vec![
        Reading::gauge(
            "models_verified",
            "Commitments whose model is verified",
            Some(models.verified as f64),
        ),
        Reading::gauge(
            "models_refused",
            "Commitments refused",
            Some(models.refused as f64),
        ),
        Reading::gauge(
            "models_waiting",
            "Commitments to be looked at again",
            Some(models.waiting as f64),
        ),
        Reading::gauge(
            "sources_failing",
            "Sources of samples that failed for the newest step",
            sources.map(|sources| sources.failing.len() as f64),
        ),
        Reading::gauge(
            "samples_age_seconds",
            "Age of the samples when they were taken: 0 from the source, more from the cache",
            sources.map(|sources| sources.cached_age.unwrap_or(0) as f64),
        ),
        Reading::gauge(
            "store_bytes",
            "Disk that the models take",
            disk(|disk| Some(disk.models)),
        ),
        Reading::gauge(
            "store_unfinished_bytes",
            "Disk that unfinished downloads take",
            disk(|disk| Some(disk.unfinished)),
        ),
        Reading::gauge(
            "store_limit_bytes",
            "The most that models may take",
            disk(|disk| disk.limit),
        ),
        Reading::gauge(
            "store_free_bytes",
            "Free on the disk of the models",
            disk(|disk| Some(disk.free)),
        ),
        Reading::gauge(
            "store_keep_free_bytes",
            "What is to stay free there",
            disk(|disk| Some(disk.keep_free)),
        ),
    ]
}

/// Numbers of each endpoint of the chain.
fn per_endpoint(details: &Details) -> Vec<Reading> {
    let rows = |number: fn(&EndpointStatus) -> Option<f64>| {
        let endpoints = details.endpoints.iter().enumerate();
        let rows = endpoints.filter_map(move |(index, endpoint)| {
            let labels = vec![
                ("endpoint", index.to_string()),
                ("url", endpoint.url.clone()),
            ];
            Some((labels, number(endpoint)?))
        });
        rows.collect::<Vec<_>>()
    };
    vec![
        Reading::of_each(
            "endpoint_in_use",
            "1 for the endpoint that is asked",
            rows(|endpoint| Some(flag(endpoint.in_use))),
        ),
        Reading::of_each(
            "endpoint_block",
            "Newest block of the endpoint",
            rows(|endpoint| endpoint.block.map(|block| block as f64)),
        ),
        Reading::of_each(
            "endpoint_lag_blocks",
            "Blocks behind the freshest endpoint",
            rows(|endpoint| endpoint.lag.map(|lag| lag as f64)),
        ),
        Reading::of_each(
            "endpoint_latency_seconds",
            "Moving mean of the endpoint's answers",
            rows(|endpoint| endpoint.latency_millis.map(|millis| millis as f64 / 1e3)),
        ),
        Reading::of_each(
            "endpoint_error_rate",
            "Moving share of requests that failed",
            rows(|endpoint| Some(endpoint.error_rate)),
        ),
        Reading::of_each(
            "endpoint_watches_transactions",
            "1 if the endpoint tells what becomes of a transaction",
            rows(|endpoint| endpoint.watches.map(flag)),
        ),
        Reading::of_each(
            "endpoint_state_depth_blocks",
            "The endpoint has the state of a block so many blocks ago",
            rows(|endpoint| endpoint.state_depth.map(|blocks| blocks as f64)),
        ),
    ]
}

/// Numbers of the hub and of each of its mirrors.
fn per_origin(details: &Details) -> Vec<Reading> {
    let rows = |number: fn(&OriginStatus) -> u64| {
        let origins = details.origins.iter().enumerate();
        let rows = origins.map(move |(index, origin)| {
            let labels = vec![("origin", index.to_string()), ("url", origin.url.clone())];
            (labels, number(origin) as f64)
        });
        rows.collect::<Vec<_>>()
    };
    vec![
        Reading::of_each(
            "hub_origin_served",
            "Listings and files that the hub (origin 0) or a mirror of it served in this run",
            rows(|origin| origin.served),
        ),
        Reading::of_each(
            "hub_origin_failed",
            "How often it did not",
            rows(|origin| origin.failed),
        ),
    ]
}

fn of_competition(competition: &str) -> Labels {
    vec![("competition", competition.to_owned())]
}

fn per_model(details: &Details) -> Vec<Reading> {
    let rows = |number: fn(&ModelSummary) -> f64| {
        let of_step = move |step: &LastStep| -> Vec<(Labels, f64)> {
            let labels = |uid: subnet::Uid| {
                let mut labels = of_competition(&step.competition.0);
                labels.push(("uid", uid.to_string()));
                labels
            };
            step.models
                .iter()
                .map(|(uid, model)| (labels(*uid), number(model)))
                .collect()
        };
        details
            .last_steps
            .values()
            .flat_map(of_step)
            .collect::<Vec<_>>()
    };
    vec![
        Reading::of_each(
            "loss",
            "Mean loss of the model in its competition's last step",
            rows(|model| model.loss.0),
        ),
        Reading::of_each(
            "win_rate",
            "Win rate of the model in its competition's last step",
            rows(|model| model.win_rate.0),
        ),
        Reading::of_each(
            "weight",
            "Running weight of the model after its competition's last step",
            rows(|model| model.weight.0),
        ),
    ]
}

#[cfg(test)]
mod dashboard;
#[cfg(test)]
mod tests;
