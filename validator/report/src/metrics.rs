//! Metrics in Prometheus' text form, for node_exporter's textfile collector: no port is opened.

use std::fmt::Write as _;

use serde_json::Value;
use shared::status::{Health, Status};

/// Every metric's name begins with this.
const PREFIX: &str = "finetune_vali";

/// Numbers of the status that are metrics: name, what it is, where it stands in the details.
const GAUGES: [(&str, &str, &[&str]); 11] = [
    ("block", "Newest block seen.", &["block"]),
    ("step", "Number of the newest step.", &["step"]),
    (
        "steps_done",
        "Steps completed since the start.",
        &["steps_done"],
    ),
    (
        "step_seconds",
        "Duration of the last step.",
        &["last_step", "seconds"],
    ),
    (
        "weights_age_blocks",
        "Age of our weights on the chain.",
        &["weights", "age_blocks"],
    ),
    (
        "weights_late_blocks",
        "Blocks since weights were due.",
        &["weights", "late_blocks"],
    ),
    (
        "weights_failed_tries",
        "Tries to set weights that failed in a row.",
        &["weights", "failed_tries"],
    ),
    (
        "weights_last_block",
        "Block of our last weight set.",
        &["weights", "last_block"],
    ),
    (
        "models_verified",
        "Commitments whose model is verified.",
        &["models", "verified"],
    ),
    (
        "models_refused",
        "Commitments refused.",
        &["models", "refused"],
    ),
    (
        "models_waiting",
        "Commitments to be looked at again.",
        &["models", "waiting"],
    ),
];

/// Numbers of each model of the last step.
const PER_MODEL: [(&str, &str); 3] = [
    ("loss", "Mean loss of the model in the last step."),
    ("win_rate", "Win rate of the model in the last step."),
    ("weight", "Running weight of the model after the last step."),
];

/// Returns the metrics of a status.
pub fn render(status: &Status) -> String {
    let mut text = String::new();
    let health = match status.health {
        Health::Green => 0.0,
        Health::Yellow => 1.0,
        Health::Red => 2.0,
    };
    gauge(
        &mut text,
        "health",
        "0 green, 1 yellow, 2 red.",
        &[(String::new(), health)],
    );
    let safe = f64::from(u8::from(status.restart.safe));
    gauge(
        &mut text,
        "restart_safe",
        "1 if a restart now loses nothing.",
        &[(String::new(), safe)],
    );
    for (name, help, path) in GAUGES {
        let value = path
            .iter()
            .try_fold(&status.details, |value, key| value.get(key));
        if let Some(value) = value.and_then(number) {
            gauge(&mut text, name, help, &[(String::new(), value)]);
        }
    }
    if let Some(Value::Object(models)) = status.details.pointer("/last_step/models") {
        for (name, help) in PER_MODEL {
            let rows: Vec<(String, f64)> = models
                .iter()
                .filter_map(|(uid, row)| {
                    Some((format!("{{uid=\"{uid}\"}}"), number(row.get(name)?)?))
                })
                .collect();
            gauge(&mut text, name, help, &rows);
        }
    }
    text
}

/// Numbers that are not finite stand there as text; Prometheus reads them too.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn gauge(text: &mut String, name: &str, help: &str, rows: &[(String, f64)]) {
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
    use crate::Board;

    #[test]
    fn the_status_is_what_prometheus_sees() {
        let board = Board::default();
        board.fact("block", 17);
        board.fact(
            "weights",
            serde_json::json!({"age_blocks": 3, "late_blocks": 0}),
        );
        board.fact(
            "last_step",
            serde_json::json!({"models": {"4": {"loss": "nan", "weight": 0.25}}}),
        );
        board.hold("weights", "weights are being set", None);
        let text = super::render(&board.status("test"));
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "finetune_vali_health 0",
                "finetune_vali_restart_safe 0",
                "finetune_vali_block 17",
                "finetune_vali_weights_age_blocks 3",
                "finetune_vali_weights_late_blocks 0",
                "finetune_vali_loss{uid=\"4\"} NaN",
                "finetune_vali_weight{uid=\"4\"} 0.25",
            ]
        );
    }
}
