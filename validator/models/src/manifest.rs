//! Which files of a repository make up the model: those the Python validator's libraries would
//! fetch, no more and no fewer, for they and only they are hashed.

use std::{borrow::Cow, collections::BTreeMap};

use hub::{ListedFile, Listing};
use model::{
    Compatibility, Layout,
    generation::{GENERATION_FILE, MAX_GENERATION_BYTES},
    inventory::{INDEX_FILE, SINGLE_FILE},
    layout::{CONFIG_FILE, LayoutDefect, LayoutError, ModelFiles},
    path::is_safe_path,
    python_json,
    tokenizer_class::{MAX_VOCABULARY_BYTES, TokenizerClass},
};
use serde_json::Value;

/// Name of the tokenizer's configuration.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

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
    /// The files that are hashed, by path.
    pub files: BTreeMap<String, ListedFile>,
    /// The weights among them, and the configuration in force.
    pub layout: Layout,
    /// The class that loads its tokenizer, which decides on its files.
    pub tokenizer: TokenizerClass,
}

/// What stands between a listing and its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// The content of this file is needed to know the rest.
    Content(String),
    /// The repository is not a model: the reason.
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
        let layout = layout_of(listing, contents)?;
        let repository = Repository { listing, contents };
        let config = repository.json(&layout.config, MAX_CONFIG)?;
        let tokenizer_config = if repository.contains(TOKENIZER_CONFIG) {
            Some(repository.json(TOKENIZER_CONFIG, MAX_TOKENIZER_CONFIG)?)
        } else {
            None
        };
        if repository.contains(GENERATION_FILE) {
            repository.read(GENERATION_FILE, MAX_GENERATION_BYTES)?;
        }
        let tokenizer = TokenizerClass::resolve(tokenizer_config.as_ref(), &config, compatibility)
            .map_err(|error| Missing::Never(error.to_string()))?;
        for path in tokenizer.files() {
            repository.admit(path, MAX_VOCABULARY_BYTES)?;
        }
        let mut files = BTreeMap::new();
        let optional = [GENERATION_FILE, TOKENIZER_CONFIG].into_iter();
        let templates = listing.files.keys().map(String::as_str);
        let templates = templates.filter(|path| tokenizer.reads_template(path));
        let optional = optional.chain(tokenizer.files()).chain(templates);
        for path in layout.files().chain(optional) {
            let Some(listed) = listing.files.get(path) else {
                continue;
            };
            if !is_safe_path(path) {
                return Err(Missing::Never(format!("file name {path:?} is not allowed")));
            }
            files.insert(path.to_owned(), listed.clone());
        }
        Ok(Self {
            files,
            layout,
            tokenizer,
        })
    }

    /// Returns whether a file holds weights.
    pub fn is_weights(&self, path: &str) -> bool {
        self.layout.weights.names().any(|name| name == path)
    }

    /// Returns the bytes of all files of the model.
    pub fn bytes(&self) -> u64 {
        self.files.values().filter_map(|file| file.size).sum()
    }
}

/// Finds the layout of a model in the hub's listing.
///
/// # Errors
/// [`Missing::Content`] names a file to fetch before asking again.
pub fn layout_of(listing: &Listing, contents: &Contents) -> Result<Layout, LayoutError<Missing>> {
    Layout::of(&Repository { listing, contents })
}

/// Finds the configuration in force, if there is one.
///
/// # Errors
/// [`Missing::Content`] names a file to fetch before asking again.
pub(super) fn config_of(listing: &Listing, contents: &Contents) -> Result<Option<String>, Missing> {
    let repository = Repository { listing, contents };
    if !repository.contains(CONFIG_FILE) {
        return Ok(None);
    }
    Ok(Some(Layout::config_of(&repository)?))
}

/// A repository whose files are fetched when they are asked for.
struct Repository<'a> {
    listing: &'a Listing,
    contents: &'a Contents,
}

impl ModelFiles for Repository<'_> {
    type Error = Missing;

    fn contains(&self, path: &str) -> bool {
        self.listing.files.contains_key(path)
    }

    fn read(&self, path: &str, max_bytes: u64) -> Result<Cow<'_, [u8]>, Missing> {
        self.admit(path, max_bytes)?;
        let content = self.contents.get(path);
        let content = content.ok_or_else(|| Missing::Content(path.to_owned()))?;
        Ok(Cow::Borrowed(content))
    }
}

impl Repository<'_> {
    /// Refuses a file that is listed with more bytes than these.
    fn admit(&self, path: &str, max_bytes: u64) -> Result<(), Missing> {
        let listed = self.listing.files.get(path);
        let size = listed.and_then(|file| file.size).unwrap_or_default();
        if size > max_bytes {
            return Err(Missing::Never(format!(
                "{path} has {size} bytes, more than {max_bytes}"
            )));
        }
        Ok(())
    }

    fn json(&self, path: &str, max_bytes: u64) -> Result<Value, Missing> {
        let value = python_json::parse(&self.read(path, max_bytes)?);
        match value {
            Ok(value) if value.is_object() => Ok(value),
            Ok(_) => Err(Missing::Never(format!("{path} is not a JSON object"))),
            Err(error) => Err(Missing::Never(format!("{path} is not JSON: {error}"))),
        }
    }
}

impl From<LayoutError<Missing>> for Missing {
    fn from(error: LayoutError<Missing>) -> Self {
        match error {
            LayoutError::Read(missing) => missing,
            LayoutError::Config(defect) | LayoutError::Weights(defect) => {
                Self::Never(match defect {
                    LayoutDefect::Missing(path) => format!("the repository has no {path:?}"),
                    LayoutDefect::NoWeights => {
                        format!("the repository has neither {SINGLE_FILE} nor {INDEX_FILE}")
                    }
                    defect => defect.to_string(),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(paths: &[&str]) -> Listing {
        let unknown = ListedFile {
            size: None,
            blob_id: None,
            sha256: None,
        };
        let file = |path: &&str| ((*path).to_owned(), unknown.clone());
        Listing {
            commit: "0".repeat(40),
            files: paths.iter().map(file).collect(),
        }
    }

    #[test]
    fn the_configuration_in_force_is_the_one_named_for_the_version() {
        let versions = br#"{"configuration_files":["config.json","config.4.30.0.json"]}"#;
        let contents = |config: &'static [u8]| {
            let config = bytes::Bytes::from_static(config);
            Contents::from([(CONFIG_FILE.to_owned(), config)])
        };
        let without = listing(&["tokenizer.json"]);
        assert_eq!(config_of(&without, &contents(b"{}")), Ok(None));
        let both = listing(&[CONFIG_FILE, "config.4.30.0.json"]);
        let asked = Missing::Content(CONFIG_FILE.to_owned());
        assert_eq!(config_of(&both, &Contents::new()), Err(asked));
        let found = |config| config_of(&both, &contents(config)).unwrap().unwrap();
        assert_eq!(found(b"{}"), CONFIG_FILE);
        assert_eq!(found(versions), "config.4.30.0.json");
    }
}
