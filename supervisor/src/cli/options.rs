//! The options of `run`; each is an environment variable and a key of the file too.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use shared::{cli::FullPath, notify_target::NotifyTarget};

use crate::config::{BuildSandbox, Window, bytes, duration};

#[derive(Debug, Clone, Args)]
pub(super) struct RunOptions {
    #[command(flatten)]
    pub(super) child: ChildOptions,
    #[command(flatten)]
    pub(super) update: UpdateOptions,
    #[command(flatten)]
    pub(super) build: BuildOptions,
    #[command(flatten)]
    pub(super) log: LogOptions,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Child")]
pub(super) struct ChildOptions {
    /// Name of the child: of its log, its lock, and for the other commands
    #[arg(long, aliases = ["child_name", "pm2_name", "pm2-name"], value_name = "NAME")]
    pub(super) child_name: Option<String>,
    /// File with any of these options (TOML)
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<FullPath>,
    /// Longest time from SIGTERM to SIGKILL
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = duration)]
    pub(super) stop_timeout: Duration,
    /// Longest silence of a child that says WATCHDOG=1; 0 for no watchdog
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = duration)]
    pub(super) watchdog: Duration,
    /// Niceness of the child above the supervisor's own, 0 to 19
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=19))]
    pub(super) nice: u8,
    /// Most memory the child may use
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(super) memory_max: Option<u64>,
    /// Folder of all state [default: $XDG_STATE_HOME/supervisor]
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
    /// Arguments of the child
    #[arg(last = true, value_name = "CHILD ARGS")]
    pub(super) args: Vec<OsString>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Updates")]
pub(super) struct UpdateOptions {
    /// Git checkout to run from
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(super) repo: PathBuf,
    /// Name or address of the remote [default: of the checked-out branch]
    #[arg(long, value_name = "REMOTE")]
    pub(super) remote: Option<String>,
    /// Branch to follow [default: upstream of the checked-out branch]
    #[arg(long, value_name = "BRANCH")]
    pub(super) branch: Option<String>,
    /// SSH key to log in with, if the agent has none [default: the usual ones in ~/.ssh]
    #[arg(long, value_name = "FILE")]
    pub(super) ssh_key: Option<PathBuf>,

    /// Time between polls
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration)]
    pub(super) interval: Duration,
    /// Most that is added to the interval [default: a tenth of it]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) jitter: Option<Duration>,
    /// Span over which nodes spread the switch to a new commit [default: the interval]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) hold_off: Option<Duration>,
    /// Where updates come from
    #[arg(long, value_enum, default_value_t = Channel::Git)]
    pub(super) channel: Channel,
    /// With --channel release: the GitHub repository whose releases to take
    #[arg(long, value_name = "OWNER/NAME")]
    pub(super) release_repo: Option<String>,
    /// With --channel release: another API than GitHub's, for mirrors
    #[arg(long, value_name = "URL")]
    pub(super) release_api: Option<String>,
    /// With --channel release: public keys that the list of releases is signed with
    #[arg(long, value_name = "FILES", value_delimiter = ',')]
    pub(super) release_key: Vec<PathBuf>,
    /// With --channel release: how many of these must have signed [default: more than half]
    #[arg(long, value_name = "NUMBER")]
    pub(super) release_threshold: Option<usize>,
    /// With --channel release: go to versions that semver calls incompatible, too
    #[arg(long)]
    pub(super) allow_incompatible: bool,
    /// Take only commits signed by a key in this allowed-signers file
    #[arg(long, value_name = "FILE")]
    pub(super) require_signed: Option<PathBuf>,
    /// With --require-signed: every new commit must be signed, not only the newest
    #[arg(long)]
    pub(super) require_signed_all: bool,
    /// What to do when the branch was rewritten [default: accept; refuse with --require-signed]
    #[arg(long, value_enum)]
    pub(super) on_rewrite: Option<OnRewrite>,
    /// Longest time from start to READY=1
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub(super) ready_timeout: Duration,
    /// Time a new version must stay well before it is accepted
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub(super) probation: Duration,
    /// Longest wait for a moment at which a restart does not hurt
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = duration)]
    pub(super) max_wait: Duration,
    /// Daily span of local time in which the child may be replaced, such as 02:00-05:00
    #[arg(long, value_name = "FROM-TO")]
    pub(super) window: Option<Window>,
    /// Never look for updates
    #[arg(long)]
    pub(super) no_update: bool,
    /// Stay at this commit or tag
    #[arg(long, value_name = "REV")]
    pub(super) pin: Option<String>,
    /// Number of releases to keep
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(super) keep_releases: usize,
    /// Command run before a switch; if it fails, the switch is off (exit code 75: not now)
    #[arg(long, value_name = "CMD")]
    pub(super) pre_update: Option<String>,
    /// Command run after an update was accepted
    #[arg(long, value_name = "CMD")]
    pub(super) post_update: Option<String>,
    /// Command run after an update was refused, failed or was rolled back
    #[arg(long, value_name = "CMD")]
    pub(super) on_failure: Option<String>,
    /// Address to post to, slack:ADDRESS, or command to run, with JSON about each update and what is wrong
    #[arg(long, value_name = "URL|CMD", value_parser = notify_target)]
    pub(super) notify: Vec<String>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Builds")]
pub(super) struct BuildOptions {
    /// Programs a build yields; the first is the child, `supervisor` is itself
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "validator,eval-worker,supervisor"
    )]
    pub(super) bins: Vec<String>,
    /// Cargo features, such as cuda
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) features: Vec<String>,
    /// Cargo profile
    #[arg(long, value_name = "NAME", default_value = "release")]
    pub(super) profile: String,
    /// Where cargo builds [default: under the state directory]
    #[arg(long, value_name = "DIR")]
    pub(super) target_dir: Option<PathBuf>,
    /// Arguments that make the child check its configuration and exit; empty for no check [default:
    /// `check --config-only`, where the program names its version]
    #[arg(long, value_name = "ARGS")]
    pub(super) check: Option<String>,
    /// What is kept from the code that a build runs
    #[arg(long, value_enum, default_value_t = BuildSandbox::Full)]
    pub(super) build_sandbox: BuildSandbox,
    /// Variables that builds and smoke tests get besides the usual ones
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) build_env: Vec<String>,
    /// Files and folders that builds may read and write besides the usual ones
    #[arg(long, value_name = "PATHS", value_delimiter = ',')]
    pub(super) build_path: Vec<FullPath>,
    /// Longest fetch
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub(super) fetch_timeout: Duration,
    /// Longest build
    #[arg(long, value_name = "TIME", default_value = "2h", value_parser = duration)]
    pub(super) build_timeout: Duration,
    /// Free disk space a build needs
    #[arg(long, value_name = "SIZE", default_value = "3G", value_parser = bytes)]
    pub(super) min_disk: u64,
    /// Free memory a build needs
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = bytes)]
    pub(super) min_memory: u64,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logs and metrics")]
pub(super) struct LogOptions {
    /// Folder of the child's log [default: under the state directory]
    #[arg(long, value_name = "DIR")]
    pub(super) log_dir: Option<PathBuf>,
    /// Size at which the child's log is rotated
    #[arg(long, value_name = "SIZE", default_value = "20M", value_parser = bytes)]
    pub(super) log_max_size: u64,
    /// Number of rotated logs to keep
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(super) log_keep: u32,
    /// Whether to pass the child's output through to standard output
    #[arg(long, value_enum, default_value_t = Echo::Auto)]
    pub(super) echo: Echo,
    /// Level of our own messages: error, warn, info, debug, or a filter
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(super) log_level: String,
    /// Write our own messages as JSON
    #[arg(long)]
    pub(super) log_json: bool,
    /// Address to serve Prometheus metrics at, such as 127.0.0.1:9100
    #[arg(long, value_name = "ADDR")]
    pub(super) metrics_addr: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Channel {
    /// Commits of a branch, built here
    Git,
    /// Signed releases, downloaded
    Release,
}

/// What to do with a branch that was rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OnRewrite {
    /// Stay at the running version
    Refuse,
    /// Follow it
    Accept,
}

/// Whether to pass the child's output through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Echo {
    /// When standard output is a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Kept as it was given: what carries it out reads it again.
fn notify_target(text: &str) -> Result<String, String> {
    let target: Result<NotifyTarget, String> = text.parse();
    target.map(|_| text.to_owned())
}
