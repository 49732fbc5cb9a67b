//! Logging for both programs: constant messages, data in fields, to standard error.

use std::io::IsTerminal;

use tracing_subscriber::{
    EnvFilter,
    fmt::{MakeWriter, writer::MakeWriterExt as _},
};

use crate::log_file::{LogFile, SharedLogFile};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Starts logging at `level` (`"info"`, or a filter such as `"info,validator=debug"`). A second
/// call does nothing, so that tests may call it freely.
pub fn init(level: &str, format: Format) {
    start(level, format, std::io::stderr, color());
}

/// Starts logging to standard error and to a file.
pub fn init_with_file(level: &str, format: Format, file: LogFile) {
    let file = SharedLogFile::from(file);
    // Colours would be in the file too.
    start(
        level,
        format,
        std::io::stderr.and(move || file.clone()),
        false,
    );
}

fn start<W>(level: &str, format: Format, writer: W, color: bool)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        // It would say on standard error that standard error can't be written, and panic: a closed
        // terminal, a reader that is gone or a full disk costs log lines, never the program.
        .log_internal_errors(false)
        .with_target(false);
    let _ = match format {
        Format::Text => builder.with_ansi(color).try_init(),
        Format::Json => builder
            .json()
            .flatten_event(true)
            .with_ansi(false)
            .try_init(),
    };
}

fn color() -> bool {
    std::io::stderr().is_terminal()
        && anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never
}
