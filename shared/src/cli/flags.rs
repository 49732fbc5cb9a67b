//! Values and flags that both programs take.

use std::{
    env,
    ffi::OsString,
    io,
    ops::Deref,
    path::{Path, PathBuf},
};

use clap::{
    Args,
    builder::{OsStringValueParser, TryMapValueParser, TypedValueParser as _, ValueParserFactory},
};

use crate::{
    log::{self, Format},
    log_file::LogFile,
};

/// A path from a command line, its environment or its file: `~` is the home folder, and what is
/// relative starts where the program was started. Every path becomes absolute here and nowhere
/// else, so that none means another place to a worker with a folder of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullPath(PathBuf);

impl FullPath {
    /// Makes a path absolute.
    pub fn of(path: &Path) -> io::Result<Self> {
        let path = match (path.strip_prefix("~"), env::home_dir()) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path.to_owned(),
        };
        std::path::absolute(path).map(Self)
    }
}

impl Deref for FullPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl From<FullPath> for PathBuf {
    fn from(path: FullPath) -> Self {
        path.0
    }
}

impl ValueParserFactory for FullPath {
    type Parser = TryMapValueParser<OsStringValueParser, fn(OsString) -> io::Result<Self>>;

    fn value_parser() -> Self::Parser {
        OsStringValueParser::new().try_map(|path| Self::of(Path::new(&path)))
    }
}

/// How much is logged, and in which form.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Log")]
pub struct LogFlags {
    /// Log error, warn, info, debug or trace, or a filter such as `info,chain=debug` [default: info]
    #[arg(long, alias = "log-level", value_name = "FILTER")]
    log: Option<String>,
    /// Log one JSON object a line
    #[arg(long)]
    log_json: bool,
}

impl LogFlags {
    /// Starts logging; `usual` is the filter where none is given.
    pub fn init(&self, usual: &str) {
        log::init(self.filter(usual), self.format());
    }

    /// Starts logging, into a file too.
    pub fn init_with_file(&self, usual: &str, file: LogFile) {
        log::init_with_file(self.filter(usual), self.format(), file);
    }

    fn filter<'a>(&'a self, usual: &'a str) -> &'a str {
        self.log.as_deref().unwrap_or(usual)
    }

    const fn format(&self) -> Format {
        if self.log_json {
            Format::Json
        } else {
            Format::Text
        }
    }
}
