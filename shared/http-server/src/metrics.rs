//! Metrics in Prometheus' text form: the one way in which both programs give them.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, prometheus_text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

/// The type of an answer with metrics.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whole numbers below this are exact.
const WHOLE: f64 = 9_007_199_254_740_992.0;

/// Labels of a row: names of ours, values of anybody's, which are escaped.
pub type Labels = Vec<(&'static str, String)>;

/// A number that was read when it was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// With its unit and, of a counter, without `_total`, which is added.
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Sort,
    pub rows: Vec<(Labels, f64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    Gauge,
    /// It never falls while the program lives.
    Counter,
}

impl Reading {
    /// A gauge without labels; absent if there is nothing to tell.
    pub fn gauge(name: &'static str, help: &'static str, value: Option<f64>) -> Self {
        Self {
            name,
            help,
            kind: Sort::Gauge,
            rows: value
                .map(|value| (Labels::new(), value))
                .into_iter()
                .collect(),
        }
    }

    /// A counter without labels.
    pub fn counter(name: &'static str, help: &'static str, value: Option<f64>) -> Self {
        Self {
            kind: Sort::Counter,
            ..Self::gauge(name, help, value)
        }
    }

    /// A gauge with a row for each thing.
    pub fn of_each(
        name: &'static str,
        help: &'static str,
        rows: impl IntoIterator<Item = (Labels, f64)>,
    ) -> Self {
        Self {
            rows: rows.into_iter().collect(),
            ..Self::gauge(name, help, None)
        }
    }
}

/// Readings, as a registry takes them.
#[derive(Debug)]
pub struct Readings(pub Vec<Reading>);

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for reading in self.0.iter().filter(|reading| !reading.rows.is_empty()) {
            let kind = match reading.kind {
                Sort::Gauge => MetricType::Gauge,
                Sort::Counter => MetricType::Counter,
            };
            // As the registry does with what is registered one by one.
            let help = format!("{}.", reading.help);
            let mut metric = encoder.encode_descriptor(reading.name, &help, None, kind)?;
            for (labels, value) in &reading.rows {
                let labels: Vec<(&str, &str)> = labels
                    .iter()
                    .map(|(name, value)| (*name, value.as_str()))
                    .collect();
                let row = metric.encode_family(&labels)?;
                // A whole number is written as one: `1`, not `1.0`.
                let whole = (value.fract() == 0.0 && value.abs() < WHOLE).then_some(*value as i64);
                match (reading.kind, whole) {
                    (Sort::Gauge, Some(whole)) => ConstGauge::new(whole).encode(row)?,
                    (Sort::Gauge, None) => ConstGauge::new(*value).encode(row)?,
                    (Sort::Counter, Some(whole)) => {
                        ConstCounter::new(whole.unsigned_abs()).encode(row)?;
                    }
                    (Sort::Counter, None) => ConstCounter::new(*value).encode(row)?,
                }
            }
        }
        Ok(())
    }
}

/// Returns what a registry holds as text.
pub fn text(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = prometheus_text::encode(&mut text, registry);
    text
}

/// Returns readings as text, each name with this prefix.
pub fn render(prefix: &str, readings: Vec<Reading>) -> String {
    let mut registry = Registry::with_prefix(prefix);
    registry.register_collector(Box::new(Readings(readings)));
    text(&registry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_strangers_are_escaped_and_what_is_not_known_is_absent() {
        let text = render(
            "x",
            vec![
                Reading::gauge("known", "Known", Some(f64::NAN)),
                Reading::gauge("unknown", "Unknown", None),
                Reading::counter("bytes", "Bytes", Some(3.0)),
                Reading::of_each(
                    "of",
                    "Of each",
                    [
                        (vec![("name", "a\"}\n#<script>\\".to_owned())], 1.5),
                        (vec![("name", "b".to_owned())], f64::INFINITY),
                    ],
                ),
            ],
        );
        let expected = "# HELP x_known Known.\n# TYPE x_known gauge\nx_known NaN\n\
            # HELP x_bytes_total Bytes.\n# TYPE x_bytes_total counter\nx_bytes_total 3\n\
            # HELP x_of Of each.\n# TYPE x_of gauge\n\
            x_of{name=\"a\\\"}\\n#<script>\\\\\"} 1.5\nx_of{name=\"b\"} +Inf\n";
        assert_eq!(text, expected);
    }
}
