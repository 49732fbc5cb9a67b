//! The Grafana dashboard and the alert rules that ship: they ask for what there is, in the form that Grafana takes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{PREFIX, tests::everything};

const DASHBOARD: &str = include_str!("../../../../docs/monitoring/grafana.json");
const ALERTS: &str = include_str!("../../../../docs/monitoring/alerts.yml");

/// Columns of a dashboard.
const COLUMNS: u64 = 24;

fn dashboard() -> Value {
    serde_json::from_str(DASHBOARD).unwrap()
}

/// Returns the names of our metrics in a text, as it has them.
fn names(text: &str) -> BTreeSet<&str> {
    let found = text.match_indices(PREFIX).map(|(at, _)| {
        let rest = &text[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        &rest[..end.unwrap_or(rest.len())]
    });
    found.collect()
}

#[test]
fn they_name_only_metrics_that_exist_and_labels_that_these_have() {
    let text = everything();
    let known: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    for name in [DASHBOARD, ALERTS].into_iter().flat_map(names) {
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        assert!(
            known.contains(&name) || base.is_some_and(|base| known.contains(&base)),
            "{name} is not among {known:?}"
        );
    }
    // A legend of labels that no row has is empty.
    let has_label =
        |label: &str| text.contains(&format!("{{{label}=")) || text.contains(&format!(",{label}="));
    let dashboard = dashboard();
    for target in targets(&dashboard) {
        let legend = target["legendFormat"].as_str().unwrap();
        for (at, _) in legend.match_indices("{{") {
            let label = legend[at + 2..].split("}}").next().unwrap();
            // Prometheus adds where it was scraped.
            assert!(label == "instance" || has_label(label), "{target}");
        }
    }
}

fn targets(dashboard: &Value) -> Vec<&Value> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().map(|panel| panel["targets"].as_array());
    targets.flat_map(Option::unwrap).collect()
}

/// What Grafana needs of a dashboard, by its own schema (`dashboard_kind.cue`, schema version 39).
#[test]
fn the_dashboard_has_the_form_that_grafana_takes() {
    let dashboard = dashboard();
    for field in ["uid", "title"] {
        let text = dashboard[field].as_str().unwrap();
        assert!((1..=40).contains(&text.len()), "{field}: {text}");
    }
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 36);
    // Grafana gives it one; that of another instance would hide another dashboard.
    assert!(dashboard.get("id").is_none_or(Value::is_null));
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variable = |name: &str| {
        let mut all = variables.iter();
        all.any(|variable| variable["name"] == name && variable["type"].is_string())
    };
    let is_source = |value: &Value| {
        let uid = value["uid"].as_str().unwrap();
        let name = uid.strip_prefix("${").and_then(|uid| uid.strip_suffix('}'));
        value["type"] == "prometheus" && name.is_some_and(variable)
    };
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        assert!(!panel["title"].as_str().unwrap().is_empty(), "{panel}");
        let kind = panel["type"].as_str().unwrap();
        assert!(["stat", "timeseries"].contains(&kind), "{panel}");
        assert!(is_source(&panel["datasource"]), "{panel}");
        let [x, y, w, h] =
            ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(w > 0 && h > 0 && x + w <= COLUMNS, "{panel}");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(place), "it lies on another: {panel}");
        }
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        let mut named = BTreeSet::new();
        for target in targets {
            assert!(named.insert(target["refId"].as_str().unwrap()), "{panel}");
            assert!(is_source(&target["datasource"]), "{panel}");
            let query = target["expr"].as_str().unwrap();
            assert!(
                !names(query).is_empty(),
                "it asks for nothing of ours: {query}"
            );
            let asked = query.split('$').skip(1);
            for rest in asked {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let name = &rest[..end.unwrap_or(rest.len())];
                assert!(variable(name), "there is no variable ${name}: {query}");
            }
        }
    }
}
