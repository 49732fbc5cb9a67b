//! Which files of a repository make up the model: those the Python validator's libraries would
//! fetch, no more and no fewer, for they and only they are hashed.

use std::collections::BTreeMap;

use model::{
    Compatibility,
    inventory::{INDEX_FILE, MAX_INDEX_BYTES, SINGLE_FILE, shards_of_index},
    tokenizer_class::{TokenizerClass, newest_accepted},
};
use serde_json::Value;

use super::hub::{Entry, Listing, address::is_safe_path};

/// Name of the configuration.
pub const CONFIG: &str = "config.json";
/// Name of the tokenizer's configuration.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION_CONFIG: &str = "generation_config.json";

/// Largest configuration that is read, in bytes.
const MAX_CONFIG: u64 = model::config::MAX_CONFIG_BYTES as u64;
/// Largest configuration of a tokenizer that is read, in bytes; chat templates and added tokens
/// are in it.
const MAX_TOKENIZER_CONFIG: u64 = 8 << 20;

/// Contents of files by path, as far as they were fetched.
pub type Contents = BTreeMap<String, bytes::Bytes>;

/// The files of a model.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Every file, by path.
    pub files: BTreeMap<String, Entry>,
    /// The weights among them.
    pub weights: Vec<String>,
    /// The configuration in force: `config.json`, or a versioned one that takes its place.
    pub config: String,
    /// The tokenizer's class.
    pub tokenizer: TokenizerClass,
}

/// What stands between a listing and its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// The content of this file is needed to know the rest.
    Content(String),
    /// The repository is no model: the reason.
    Never(String),
}

impl Manifest {
    /// Finds the files of a model, reading the contents it needs from `contents`.
    ///
    /// # Errors
    /// [`Missing::Content`] names a file to fetch before asking again.
    pub fn of(
        listing: &Listing,
        contents: &Contents,
        compatibility: Compatibility,
    ) -> Result<Self, Missing> {
        let mut selection = Selection {
            listing,
            contents,
            files: BTreeMap::new(),
        };
        let config = selection.config()?;
        let config_json = selection.json(&config, MAX_CONFIG)?;
        let weights = selection.weights()?;
        selection.optional(GENERATION_CONFIG)?;
        let tokenizer_config = if selection.optional(TOKENIZER_CONFIG)? {
            Some(selection.json(TOKENIZER_CONFIG, MAX_TOKENIZER_CONFIG)?)
        } else {
            None
        };
        let tokenizer =
            TokenizerClass::resolve(tokenizer_config.as_ref(), &config_json, compatibility)
                .map_err(|error| Missing::Never(error.to_string()))?;
        for file in tokenizer.files() {
            selection.optional(file)?;
        }
        let files = selection.files;
        Ok(Self {
            files,
            weights,
            config,
            tokenizer,
        })
    }

    /// Returns the bytes of all files of the model.
    pub fn bytes(&self) -> u64 {
        self.files.values().filter_map(|entry| entry.size).sum()
    }
}

struct Selection<'a> {
    listing: &'a Listing,
    contents: &'a Contents,
    files: BTreeMap<String, Entry>,
}

impl Selection<'_> {
    /// Takes a file if the repository has it; returns whether it does.
    fn optional(&mut self, path: &str) -> Result<bool, Missing> {
        let Some(entry) = self.listing.files.get(path) else {
            return Ok(false);
        };
        if !is_safe_path(path) {
            return Err(Missing::Never(format!("file name {path:?} is not allowed")));
        }
        self.files.insert(path.to_owned(), entry.clone());
        Ok(true)
    }

    fn required(&mut self, path: &str) -> Result<(), Missing> {
        if self.optional(path)? {
            Ok(())
        } else {
            Err(Missing::Never(format!("the repository has no {path:?}")))
        }
    }

    fn content(&self, path: &str, limit: u64) -> Result<&[u8], Missing> {
        let size = self
            .files
            .get(path)
            .and_then(|entry| entry.size)
            .unwrap_or_default();
        if size > limit {
            return Err(Missing::Never(format!(
                "{path} has {size} bytes, more than {limit}"
            )));
        }
        let content = self
            .contents
            .get(path)
            .ok_or_else(|| Missing::Content(path.to_owned()))?;
        Ok(content)
    }

    fn json(&self, path: &str, limit: u64) -> Result<Value, Missing> {
        let value: Result<Value, _> = serde_json::from_slice(self.content(path, limit)?);
        match value {
            Ok(value) if value.is_object() => Ok(value),
            Ok(_) => Err(Missing::Never(format!("{path} is no JSON object"))),
            Err(error) => Err(Missing::Never(format!("{path} is not JSON: {error}"))),
        }
    }

    /// Takes `config.json` and the versioned one that may take its place; returns the latter's
    /// name, or the former's.
    fn config(&mut self) -> Result<String, Missing> {
        self.required(CONFIG)?;
        let config = self.json(CONFIG, MAX_CONFIG)?;
        let names: Vec<&str> = match &config["configuration_files"] {
            Value::Null => return Ok(CONFIG.to_owned()),
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            _ => {
                return Err(Missing::Never(format!(
                    "{CONFIG}: configuration_files is no list"
                )));
            }
        };
        let newest = newest_accepted("config", names.iter().copied())
            .map_err(|error| Missing::Never(format!("{CONFIG}: {error}")))?;
        let newest = newest.unwrap_or(CONFIG).to_owned();
        self.required(&newest)?;
        Ok(newest)
    }

    fn weights(&mut self) -> Result<Vec<String>, Missing> {
        if self.optional(SINGLE_FILE)? {
            return Ok(vec![SINGLE_FILE.to_owned()]);
        }
        if !self.optional(INDEX_FILE)? {
            let reason = format!("the repository has neither {SINGLE_FILE} nor {INDEX_FILE}");
            return Err(Missing::Never(reason));
        }
        let shards = shards_of_index(self.content(INDEX_FILE, MAX_INDEX_BYTES)?)
            .map_err(|error| Missing::Never(error.to_string()))?;
        for shard in &shards {
            if !is_safe_path(shard) {
                return Err(Missing::Never(format!(
                    "file name {shard:?} is not allowed"
                )));
            }
            self.required(shard)?;
        }
        Ok(shards)
    }
}
