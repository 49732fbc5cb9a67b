//! The command line of both programs: its layers, its flags for the log, its paths, its end.

mod flags;
mod layers;
mod pages;
mod settings_file;

use std::ffi::OsString;

use clap::{Command, FromArgMatches};

pub use flags::{FullPath, LogFlags};
pub use layers::{Parsed, parse};
pub use pages::{CompletionsArgs, ManArgs};

use crate::{Exit, Failure, term};

/// Returns what may help against an error of the command line, besides what clap says.
pub type Hint = fn(&clap::Error, &[OsString]) -> Option<String>;

/// The one shape of `main`: parses the command line, does what it says, prints what failed.
pub fn main<T: FromArgMatches>(
    command: Command,
    line: &[OsString],
    hint: Hint,
    run: impl FnOnce(T) -> Result<Exit, Failure>,
) -> Exit {
    let ended = parse(command, line, hint).and_then(|parsed| match parsed {
        Parsed::Command(command) => run(command),
        Parsed::Text(text) => {
            term::line(text.trim_end());
            Ok(Exit::Ok)
        }
    });
    ended.unwrap_or_else(|failure| failure.print())
}
