//! Metrics in Prometheus' text form, for node_exporter's textfile collector: no port is opened.

use std::fmt::Write as _;

use shared::status::Health;

use crate::status::{Cause, EndpointStatus, LastStep, ModelSummary, Status, WeightsClock};

/// Every metric's name begins with this.
const PREFIX: &str = "finetune_vali";

/// Takes a number out of what has it.
type Number<T> = fn(&T) -> Option<f64>;

/// Numbers of the whole validator: name, what it is, where it stands.
const GAUGES: [(&str, &str, Number<Status>); 17] = [
    ("health", "0 green, 1 yellow, 2 red.", |status| {
        Some(match status.health {
            Health::Green => 0.0,
            Health::Yellow => 1.0,
            Health::Red => 2.0,
        })
    }),
    (
        "restart_safe",
        "1 if a restart now loses nothing.",
        |status| Some(f64::from(u8::from(status.restart.safe))),
    ),
    (
        "written_timestamp_seconds",
        "When this was written, in seconds since 1970.",
        |status| Some(status.written_at as f64),
    ),
    ("ready", "1 once the start is complete.", |status| {
        let ready = status.details.start.ready_at.is_some();
        Some(f64::from(u8::from(ready)))
    }),
    (
        "start_attempt",
        "Starts in a row since one became ready.",
        |status| Some(f64::from(status.details.start.attempt)),
    ),
    ("block", "Newest block seen.", |status| {
        status.details.block.map(|block| block as f64)
    }),
    ("step", "Number of the newest step.", |status| {
        status.details.step.map(|step| step as f64)
    }),
    ("steps_done", "Steps completed since the start.", |status| {
        Some(status.details.steps_done as f64)
    }),
    ("step_seconds", "Duration of the last step.", |status| {
        last_step(status).map(|step| step.seconds)
    }),
    (
        "weights_age_blocks",
        "Age of our weights on the chain.",
        |status| weights(status).map(|clock| clock.age_blocks as f64),
    ),
    (
        "weights_late_blocks",
        "Blocks since weights were due.",
        |status| weights(status).map(|clock| clock.late_blocks as f64),
    ),
    (
        "weights_failed_tries",
        "Tries to set weights that failed in a row.",
        |status| weights(status).map(|clock| f64::from(clock.failed_tries)),
    ),
    (
        "weights_last_block",
        "Block of our last weight set.",
        |status| weights(status).map(|clock| clock.last_block as f64),
    ),
    (
        "models_verified",
        "Commitments whose model is verified.",
        |status| Some(status.details.models.verified as f64),
    ),
    ("models_refused", "Commitments refused.", |status| {
        Some(status.details.models.refused as f64)
    }),
    (
        "models_waiting",
        "Commitments to be looked at again.",
        |status| Some(status.details.models.waiting as f64),
    ),
    (
        "sources_failing",
        "Sources of samples that failed for the newest step.",
        |status| {
            let sources = status.details.sources.as_ref();
            sources.map(|sources| sources.failing.len() as f64)
        },
    ),
];

/// Numbers of each model of the last step.
const PER_MODEL: [(&str, &str, Number<ModelSummary>); 3] = [
    (
        "loss",
        "Mean loss of the model in the last step.",
        |model| Some(model.loss.0),
    ),
    (
        "win_rate",
        "Win rate of the model in the last step.",
        |model| Some(model.win_rate.0),
    ),
    (
        "weight",
        "Running weight of the model after the last step.",
        |model| Some(model.weight.0),
    ),
];

/// Numbers of each endpoint of the chain.
const PER_ENDPOINT: [(&str, &str, Number<EndpointStatus>); 5] = [
    (
        "endpoint_in_use",
        "1 for the endpoint that is asked.",
        |endpoint| Some(f64::from(u8::from(endpoint.in_use))),
    ),
    (
        "endpoint_block",
        "Newest block of the endpoint.",
        |endpoint| endpoint.block.map(|block| block as f64),
    ),
    (
        "endpoint_lag_blocks",
        "Blocks behind the freshest endpoint.",
        |endpoint| endpoint.lag.map(|lag| lag as f64),
    ),
    (
        "endpoint_latency_seconds",
        "Moving mean of the endpoint's answers.",
        |endpoint| endpoint.latency_millis.map(|millis| millis as f64 / 1e3),
    ),
    (
        "endpoint_error_rate",
        "Moving share of requests that failed.",
        |endpoint| Some(endpoint.error_rate),
    ),
];

/// Returns the metrics of a status.
pub fn render(status: &Status) -> String {
    let mut text = String::new();
    for (name, help, number) in GAUGES {
        let rows: Vec<_> = number(status)
            .map(|value| (String::new(), value))
            .into_iter()
            .collect();
        gauge(&mut text, name, help, &rows);
    }
    let problems = Cause::ALL.map(|cause| {
        let value = match status
            .details
            .alarms
            .get(&cause)
            .map(|problem| problem.health)
        {
            None => 0.0,
            Some(Health::Green | Health::Yellow) => 1.0,
            Some(Health::Red) => 2.0,
        };
        (format!("{{cause=\"{cause}\"}}"), value)
    });
    let help = "0 not there, 1 yellow, 2 red.";
    gauge(&mut text, "problem", help, &problems);
    for (name, help, number) in PER_ENDPOINT {
        let endpoints = status.details.endpoints.iter().enumerate();
        let rows: Vec<_> = endpoints
            .filter_map(|(index, endpoint)| {
                let labels = format!("{{endpoint=\"{index}\",url=\"{}\"}}", endpoint.url);
                Some((labels, number(endpoint)?))
            })
            .collect();
        gauge(&mut text, name, help, &rows);
    }
    for (name, help, number) in PER_MODEL {
        let models = last_step(status).into_iter().flat_map(|step| &step.models);
        let rows: Vec<_> = models
            .filter_map(|(uid, model)| Some((format!("{{uid=\"{uid}\"}}"), number(model)?)))
            .collect();
        gauge(&mut text, name, help, &rows);
    }
    text
}

fn last_step(status: &Status) -> Option<&LastStep> {
    status.details.last_step.as_ref()
}

fn weights(status: &Status) -> Option<WeightsClock> {
    status.details.weights
}

fn gauge(text: &mut String, name: &str, help: &str, rows: &[(String, f64)]) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "# HELP {PREFIX}_{name} {help}\n# TYPE {PREFIX}_{name} gauge"
    );
    for (labels, value) in rows {
        let value = match value {
            value if value.is_nan() => "NaN".to_owned(),
            value if value.is_infinite() => format!("{}Inf", if *value > 0.0 { "+" } else { "-" }),
            value => value.to_string(),
        };
        let _ = writeln!(text, "{PREFIX}_{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use subnet::{CompetitionId, Real, Uid};

    use super::*;
    use crate::{
        board::{Board, Hold},
        status::{Details, ModelCounts, Sources},
    };

    #[test]
    fn the_status_is_what_prometheus_sees() {
        let model = ModelSummary {
            loss: Real(f64::NAN),
            win_rate: Real(0.5),
            weight: Real(0.25),
        };
        let (board, alarms) = Board::new(Details {
            block: Some(17),
            endpoints: vec![EndpointStatus {
                url: "ws://node.example/***".into(),
                in_use: true,
                block: Some(16),
                lag: Some(1),
                latency_millis: Some(250),
                ..EndpointStatus::default()
            }],
            weights: Some(WeightsClock {
                last_block: 14,
                age_blocks: 3,
                ..WeightsClock::default()
            }),
            models: ModelCounts {
                verified: 2,
                refused: 1,
                waiting: 0,
            },
            sources: Some(Sources {
                failing: vec!["away".into()],
                ..Sources::default()
            }),
            last_step: Some(LastStep {
                step: 8,
                competition: CompetitionId::from("l3"),
                block: 16,
                samples: "digest".into(),
                seconds: 1.5,
                finished_at: Timestamp::UNIX_EPOCH,
                models: [(Uid(4), model)].into(),
            }),
            ..Details::default()
        });
        board.hold(Hold::SettingWeights, "weights are being set", None);
        alarms.twin.raise(Health::Red, "a twin");
        let text = render(&board.status("test", Duration::from_secs(15)));
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.ends_with("\"} 0"))
            .filter(|line| !line.starts_with("finetune_vali_written"))
            .collect();
        assert_eq!(
            lines,
            [
                "finetune_vali_health 2",
                "finetune_vali_restart_safe 0",
                "finetune_vali_ready 0",
                "finetune_vali_start_attempt 0",
                "finetune_vali_block 17",
                "finetune_vali_steps_done 0",
                "finetune_vali_step_seconds 1.5",
                "finetune_vali_weights_age_blocks 3",
                "finetune_vali_weights_late_blocks 0",
                "finetune_vali_weights_failed_tries 0",
                "finetune_vali_weights_last_block 14",
                "finetune_vali_models_verified 2",
                "finetune_vali_models_refused 1",
                "finetune_vali_models_waiting 0",
                "finetune_vali_sources_failing 1",
                "finetune_vali_problem{cause=\"twin\"} 2",
                "finetune_vali_endpoint_in_use{endpoint=\"0\",url=\"ws://node.example/***\"} 1",
                "finetune_vali_endpoint_block{endpoint=\"0\",url=\"ws://node.example/***\"} 16",
                "finetune_vali_endpoint_lag_blocks{endpoint=\"0\",url=\"ws://node.example/***\"} 1",
                "finetune_vali_endpoint_latency_seconds{endpoint=\"0\",url=\"ws://node.example/***\"} 0.25",
                "finetune_vali_loss{uid=\"4\"} NaN",
                "finetune_vali_win_rate{uid=\"4\"} 0.5",
                "finetune_vali_weight{uid=\"4\"} 0.25",
            ]
        );
    }
}
