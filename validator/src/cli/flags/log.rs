//! How much is logged.

use clap::Args;
use shared::log_file::LogFile;

/// Our crates that log; `debug` of all that we are built of would drown them.
const OURS: [&str; 9] = [
    "validator",
    "chain",
    "eval",
    "http_client",
    "hub",
    "models",
    "report",
    "samples",
    "shared",
];

/// How much is logged: what both programs take, and what the Python validator took.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Log")]
pub(crate) struct LoggingFlags {
    /// Log more
    #[arg(long = "logging.debug")]
    debug: bool,
    /// Log everything
    #[arg(long = "logging.trace")]
    trace: bool,
    #[command(flatten)]
    shared: shared::cli::LogFlags,
}

impl LoggingFlags {
    /// Starts logging for the validator at work.
    pub(crate) fn init(&self) {
        self.shared.init(&self.filter("info"));
    }

    /// Starts logging, into a file too.
    pub(crate) fn init_with_file(&self, file: LogFile) {
        self.shared.init_with_file(&self.filter("info"), file);
    }

    /// Starts logging for a command whose answer is what matters.
    pub(crate) fn init_quiet(&self) {
        self.shared.init(&self.filter("error"));
    }

    /// Returns the filter where none is given.
    fn filter(&self, usual: &str) -> String {
        let level = match (self.trace, self.debug) {
            (true, _) => "trace",
            (false, true) => "debug",
            (false, false) => return usual.to_owned(),
        };
        OURS.iter().fold("info".to_owned(), |filter, name| {
            format!("{filter},{name}={level}")
        })
    }
}
