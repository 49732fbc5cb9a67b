//! Who is told how the validator is.

use std::net::SocketAddr;

use clap::Args;
use shared::{cli::FullPath, notify_target::NotifyTarget};

use crate::service::DashboardToken;

/// Who is told how the validator is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Watching")]
pub(crate) struct WatchFlags {
    /// Address to serve Prometheus metrics, /live and /ready at, such as 127.0.0.1:9101
    #[arg(long = "metrics-addr", value_name = "ADDR")]
    pub(crate) metrics_addr: Option<SocketAddr>,
    /// Address to serve the pages at, such as 127.0.0.1:9102; whoever reaches it may look
    #[arg(long, value_name = "ADDR")]
    pub(crate) dashboard: Option<SocketAddr>,
    /// Only who sends this bearer token may look at the dashboard
    #[arg(
        long = "dashboard-token",
        value_name = "TOKEN",
        env = "VALIDATOR_DASHBOARD_TOKEN",
        hide_env_values = true
    )]
    pub(crate) dashboard_token: Option<DashboardToken>,
    /// Write the pages into this folder after each step, for a bucket or a web server
    #[arg(long = "page-dir", value_name = "DIR")]
    pub(crate) page_dir: Option<FullPath>,
    /// Tell of problems that last: an address that takes JSON, slack:ADDRESS of an incoming webhook, or a shell
    /// command that reads JSON; may be repeated
    #[arg(long, value_name = "URL|slack:URL|CMD")]
    pub(crate) notify: Vec<NotifyTarget>,
}
