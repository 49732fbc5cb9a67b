//! Logging for both programs: constant messages, data in fields, to standard error.

use std::io::IsTerminal;

use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt::{MakeWriter, writer::MakeWriterExt as _},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::{
    log_file::{LogFile, SharedLogFile},
    output::{Output, SharedOutput, plain_note},
    term,
};

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
    match standard_error(format) {
        Some(output) => start(level, format, move || output.clone(), color()),
        None => start(level, format, std::io::sink, false),
    }
}

/// Starts logging to standard error and to a file.
pub fn init_with_file(level: &str, format: Format, file: LogFile) {
    let file = SharedLogFile::from(file);
    let file = move || file.clone();
    // Colors would be in the file too.
    match standard_error(format) {
        Some(output) => start(level, format, (move || output.clone()).and(file), false),
        None => start(level, format, file, false),
    }
}

/// Whoever reads it slowly, or not at all, must not stop us.
fn standard_error(format: Format) -> Option<SharedOutput> {
    let note = match format {
        Format::Text => plain_note,
        Format::Json => |lost| {
            let message = "lines were lost: nobody read them in time";
            format!("{{\"level\":\"WARN\",\"message\":\"{message}\",\"lines\":{lost}}}\n")
        },
    };
    Output::stderr(note).ok().map(SharedOutput::from)
}

fn start<W>(level: &str, format: Format, writer: W, color: bool)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    if format == Format::Json {
        term::for_machines();
    }
    let filter = filter(level);
    let builder = tracing_subscriber::fmt()
        // The filter decides.
        .with_max_level(LevelFilter::TRACE)
        .with_writer(writer)
        // It would say on standard error that standard error can't be written, and panic: a closed
        // terminal, a reader that is gone or a full disk costs log lines, never the program.
        .log_internal_errors(false)
        .with_target(false);
    let _ = match format {
        Format::Text => builder.with_ansi(color).finish().with(filter).try_init(),
        Format::Json => builder
            .json()
            .flatten_event(true)
            .with_ansi(false)
            .finish()
            .with(filter)
            .try_init(),
    };
}

/// Returns what is logged. `EnvFilter` would know fields of spans too, for a fifth of a megabyte of regular
/// expressions in each program.
fn filter(level: &str) -> Targets {
    let parts = level.split(',').map(str::trim);
    let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    let filter: Targets = match parts.join(",").parse() {
        Ok(filter) if !parts.is_empty() => filter,
        _ => Targets::new().with_default(LevelFilter::INFO),
    };
    // Below this level it tells addresses, headers and answers whole, with the keys in them. The name
    // stands for all that begin with it.
    filter.with_target("jsonrpsee", LevelFilter::INFO)
}

fn color() -> bool {
    std::io::stderr().is_terminal()
        && anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_level_or_a_filter_says_what_is_logged_and_nothing_lets_keys_through() {
        let logs = |filter_text: &str, target: &str, level: Level| {
            filter(filter_text).would_enable(target, &level)
        };
        for usual in ["info", "INFO", "", " , ", "a=b=c"] {
            assert!(logs(usual, "chain::pool", Level::INFO), "{usual:?}");
            assert!(!logs(usual, "chain::pool", Level::DEBUG), "{usual:?}");
        }
        let some = "warn, chain=trace,";
        assert!(logs(some, "chain::pool", Level::TRACE));
        assert!(!logs(some, "hub", Level::INFO));
        for loud in ["trace", "trace,jsonrpsee=trace"] {
            assert!(logs(loud, "hub", Level::TRACE));
            assert!(
                !logs(loud, "jsonrpsee_core::client", Level::DEBUG),
                "{loud:?}"
            );
        }
    }
}
