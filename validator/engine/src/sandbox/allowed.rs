//! What the worker may use.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};

/// Parses a directory of a search path, which may be empty: the usual
/// `LD_LIBRARY_PATH=/usr/local/cuda/lib64:$LD_LIBRARY_PATH` ends in a colon where nothing was set before. An
/// empty one can't be opened, so that it allows nothing.
pub fn search_path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

#[derive(Debug, Clone, Default)]
pub struct Allowed {
    /// Directories and files to read.
    pub readable: Vec<PathBuf>,
    /// Directories of libraries beyond the usual ones.
    pub libraries: Vec<PathBuf>,
    /// Where the driver keeps the kernels it compiled.
    pub compute_cache: Option<PathBuf>,
    /// Memory in bytes; nine tenths of the machine's if not given.
    pub memory: Option<u64>,
    /// Whether models run even where a wall that they should not be without can't be had.
    pub no_sandbox: bool,
    /// Names of walls that are not raised, to learn what the others hold.
    pub without: Vec<String>,
}
