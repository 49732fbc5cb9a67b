//! Which configuration and which weights of a model's folder count: one rule, for the files that
//! the hub lists and for those on disk.
//!
//! As in transformers 4.40: the configuration is `config.json` or the versioned file that it names
//! for this version (`configuration_utils.get_configuration_file`), and `model.safetensors` comes
//! before an index (`modeling_utils.PreTrainedModel.from_pretrained`).

use std::{borrow::Cow, fmt};

use serde_json::Value;

use crate::{
    config::MAX_CONFIG_BYTES,
    inventory::{INDEX_FILE, MAX_INDEX_BYTES, SINGLE_FILE, shards_of_index},
    path::is_safe_path,
    python_json,
    tokenizer_class::newest_accepted,
};

/// Name of the configuration.
pub const CONFIG_FILE: &str = "config.json";

/// The files of a model, wherever they are.
pub trait ModelFiles {
    /// Why a file could not be read.
    type Error;

    /// Returns whether there is a file at `path`, relative to the model's folder.
    fn contains(&self, path: &str) -> bool;

    /// Reads a file that is there, of at most `max_bytes`.
    fn read(&self, path: &str, max_bytes: u64) -> Result<Cow<'_, [u8]>, Self::Error>;
}

/// Which configuration and which weights count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The configuration in force: [`CONFIG_FILE`], or a versioned one that takes its place.
    pub config: String,
    /// The files of the weights.
    pub weights: WeightFiles,
}

/// The files of the weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WeightFiles {
    /// [`SINGLE_FILE`].
    Single,
    /// Those that [`INDEX_FILE`] names, sorted.
    Sharded(Vec<String>),
}

/// Why there is no layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayoutError<E> {
    /// A file could not be read.
    Read(E),
    /// No configuration is in force.
    Config(LayoutDefect),
    /// The weights are not complete.
    Weights(LayoutDefect),
}

/// What is wrong with the files of a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutDefect {
    /// A file is not there.
    #[error("{0} is missing")]
    Missing(String),
    /// There are no weights at all.
    #[error("neither {SINGLE_FILE} nor {INDEX_FILE} is there")]
    NoWeights,
    /// A file has a name that could lead out of the folder, or is not a name at all.
    #[error("file name {0:?} is not allowed")]
    Name(String),
    /// A file says nothing that makes sense.
    #[error("{0}")]
    Content(String),
}

impl Layout {
    /// Finds the configuration and the weights.
    pub fn of<F: ModelFiles>(files: &F) -> Result<Self, LayoutError<F::Error>> {
        Ok(Self {
            config: Self::config_of(files)?,
            weights: WeightFiles::of(files)?,
        })
    }

    /// Finds the configuration in force.
    pub fn config_of<F: ModelFiles>(files: &F) -> Result<String, LayoutError<F::Error>> {
        let wrong = |error: &dyn fmt::Display| {
            LayoutError::Config(LayoutDefect::Content(format!("{CONFIG_FILE}{error}")))
        };
        require(files, CONFIG_FILE).map_err(LayoutError::Config)?;
        let json = files
            .read(CONFIG_FILE, MAX_CONFIG_BYTES as u64)
            .map_err(LayoutError::Read)?;
        let config = python_json::parse(&json)
            .map_err(|error| wrong(&format_args!(" is not JSON: {error}")))?;
        if !config.is_object() {
            return Err(wrong(&" is not a JSON object"));
        }
        let names = match &config["configuration_files"] {
            Value::Null => return Ok(CONFIG_FILE.to_owned()),
            Value::Array(names) => names.iter().filter_map(Value::as_str),
            _ => return Err(wrong(&": configuration_files is not a list")),
        };
        let newest = newest_accepted("config", names)
            .map_err(|error| wrong(&format_args!(": {error}")))?
            .unwrap_or(CONFIG_FILE);
        require(files, newest).map_err(LayoutError::Config)?;
        Ok(newest.to_owned())
    }

    /// Returns every file that the layout rests on.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let index = matches!(self.weights, WeightFiles::Sharded(_)).then_some(INDEX_FILE);
        let config = [CONFIG_FILE, &self.config].into_iter();
        config.chain(index).chain(self.weights.names())
    }
}

impl WeightFiles {
    /// Finds the files of the weights.
    pub fn of<F: ModelFiles>(files: &F) -> Result<Self, LayoutError<F::Error>> {
        if files.contains(SINGLE_FILE) {
            return Ok(Self::Single);
        }
        if !files.contains(INDEX_FILE) {
            return Err(LayoutError::Weights(LayoutDefect::NoWeights));
        }
        let json = files
            .read(INDEX_FILE, MAX_INDEX_BYTES)
            .map_err(LayoutError::Read)?;
        let shards = shards_of_index(&json)
            .map_err(|error| LayoutError::Weights(LayoutDefect::Content(error.to_string())))?;
        for shard in &shards {
            require(files, shard).map_err(LayoutError::Weights)?;
        }
        Ok(Self::Sharded(shards))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        let (single, shards) = match self {
            Self::Single => (Some(SINGLE_FILE), &[][..]),
            Self::Sharded(shards) => (None, shards.as_slice()),
        };
        single.into_iter().chain(shards.iter().map(String::as_str))
    }
}

fn require(files: &impl ModelFiles, path: &str) -> Result<(), LayoutDefect> {
    if !is_safe_path(path) {
        Err(LayoutDefect::Name(path.to_owned()))
    } else if files.contains(path) {
        Ok(())
    } else {
        Err(LayoutDefect::Missing(path.to_owned()))
    }
}
