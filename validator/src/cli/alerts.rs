//! `validator alerts`: the health rules as alert rules for Prometheus.

use shared::{Exit, term};

/// Print the alert rules for Prometheus
#[derive(Debug, clap::Args)]
pub(crate) struct AlertsArgs {}

pub(super) fn run() -> Exit {
    term::line(report::rules::prometheus().trim_end());
    Exit::Ok
}
