//! Which tensors a decoder is made of, and where the files of a model have them.

mod decoder;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
};

pub use decoder::Expected;
use serde_json::Value;

use crate::{
    config::DecoderSpec,
    header::{Header, TensorInfo},
    loading::{EMBEDDING, HEAD, LoadingRule, Tied},
    path::is_safe_path,
    python_json,
};

/// Name of the only weights file of a small model.
pub const SINGLE_FILE: &str = "model.safetensors";

/// Name of the index of a model in several files.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// Largest index that is read, in bytes.
pub const MAX_INDEX_BYTES: u64 = 16 << 20;

const MAX_SHARDS: usize = 1000;
const MAX_NAMED: usize = 8;

/// Why the files of a model do not make up the decoder its configuration describes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InventoryError {
    /// The index is not what it should be.
    #[error("{INDEX_FILE}: {0}")]
    Index(String),
    /// A file says that other software wrote it.
    #[error("{file}: the header's format is {}, only \"pt\" and \"mlx\" are accepted", .format.as_deref().map_or("missing".to_owned(), |name| format!("{name:?}")))]
    Format {
        file: String,
        format: Option<String>,
    },
    /// The names lack `model.`, and there is a head beside them.
    #[error("{HEAD} is there, but no name begins with \"model\"")]
    HeadWithoutModel,
    /// Tensors of the decoder are in no file.
    #[error("{} tensors are missing: {}", .0.total, .0)]
    Missing(Names),
    /// A tensor has another shape than the configuration says.
    #[error("tensor {name:?} has shape {found:?}, the configuration says {expected:?}")]
    Shape {
        name: String,
        /// Its shape in the file.
        found: Vec<u64>,
        /// The shape it should have.
        expected: Vec<u64>,
    },
}

/// The first few of many names, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    pub total: usize,
    pub first: Vec<String>,
}

impl Names {
    fn push(&mut self, name: &str) {
        self.total += 1;
        if self.first.len() < MAX_NAMED {
            self.first.push(name.to_owned());
        }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first.join(", "))?;
        if self.total > self.first.len() {
            f.write_str(", ..")
        } else {
            Ok(())
        }
    }
}

/// Reads which files an index names, sorted; sub-folders are allowed, paths out of the model not.
pub fn shards_of_index(json: &[u8]) -> Result<Vec<String>, InventoryError> {
    let wrong = |reason: String| InventoryError::Index(reason);
    let json = python_json::parse(json).map_err(|error| wrong(error.to_string()))?;
    // Both releases write into it.
    if !json.get("metadata").is_some_and(Value::is_object) {
        return Err(wrong("metadata is not an object".into()));
    }
    let map = json.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| wrong("weight_map is not an object".into()))?;
    let file = |(tensor, file): (&String, &Value)| {
        let file = file.as_str().map(ToOwned::to_owned);
        file.ok_or_else(|| wrong(format!("weight_map names no file for {tensor:?}")))
    };
    let mut files = map.iter().map(file).collect::<Result<Vec<_>, _>>()?;
    files.sort();
    files.dedup();
    if files.is_empty() || files.len() > MAX_SHARDS {
        let reason = format!("names {} files, expected 1 to {MAX_SHARDS}", files.len());
        return Err(InventoryError::Index(reason));
    }
    match files.iter().find(|file| !is_safe_path(file)) {
        Some(file) => Err(InventoryError::Index(format!(
            "file name {file:?} is not allowed"
        ))),
        None => Ok(files),
    }
}

/// Where a decoder's tensors are.
#[derive(Debug, Clone, PartialEq)]
pub struct Inventory {
    /// File and place of each tensor the decoder needs.
    pub tensors: BTreeMap<String, Place>,
    /// Norms and biases that no file has, and what all their elements begin as.
    pub defaulted: BTreeMap<String, f32>,
    /// Tensors that are in the files, but not part of the decoder; they are ignored.
    pub unknown: Names,
    /// Number of parameters of the decoder; a tied head is counted once.
    pub parameters: u64,
    /// Files have a head of its own for a decoder that is tied: it takes part.
    pub untied: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// File name, relative to the model's folder.
    pub file: String,
    /// The tensor's name in the file.
    pub stored: String,
    /// Dtype, shape and bytes within the data of the file.
    pub info: TensorInfo,
}

impl Inventory {
    /// Finds the tensors of `spec` in files with the given headers, as its release would.
    ///
    /// # Errors
    /// If a tensor is missing or has the wrong shape, and for what the release refuses.
    pub fn take(
        spec: &DecoderSpec,
        headers: &BTreeMap<String, Header>,
    ) -> Result<Self, InventoryError> {
        let rule = spec.compatibility.loading();
        check_formats(rule, headers)?;
        let mut shapes: BTreeMap<String, Vec<u64>> = spec
            .stored_tensors()
            .map(|stored| (stored.whole.name, stored.whole.shape))
            .collect();
        if let (true, Some(shape)) = (spec.tied, shapes.get(EMBEDDING)) {
            shapes.insert(HEAD.to_owned(), shape.clone());
        }
        let (mut present, unknown) = present(rule, &shapes, headers)?;
        let untied = spec.tied && tie(rule, &mut present);
        for (name, place) in &present {
            check_shape(name, &place.info, &shapes[name])?;
        }
        let mut tensors = BTreeMap::new();
        let mut defaulted = BTreeMap::new();
        let mut missing = Names::default();
        let head = untied.then(|| present.remove(HEAD)).flatten();
        tensors.extend(head.map(|place| (HEAD.to_owned(), place)));
        for stored in spec.stored_tensors() {
            match present.remove(&stored.whole.name) {
                Some(place) => tensors.extend(stored.split(&place)),
                None => match spec.initial(&stored.whole) {
                    Some(value) => {
                        defaulted.insert(stored.whole.name, value);
                    }
                    None => missing.push(&stored.whole.name),
                },
            }
        }
        if missing.total > 0 {
            return Err(InventoryError::Missing(missing));
        }
        Ok(Self {
            tensors,
            defaulted,
            unknown,
            parameters: spec.parameters(),
            untied,
        })
    }

    /// Returns the number of parameters, a head that was stored for a tied decoder counted unless
    /// its bytes are the embedding's, of which `digest` tells by the name in the file.
    pub fn parameters_if_untied<D: PartialEq>(&self, digest: impl Fn(&str) -> Option<D>) -> u64 {
        let (Some(head), Some(embedding)) = (self.tensors.get(HEAD), self.tensors.get(EMBEDDING))
        else {
            return self.parameters;
        };
        let equal = head.info.dtype == embedding.info.dtype
            && digest(&head.stored) == digest(&embedding.stored);
        if !self.untied || equal {
            self.parameters
        } else {
            self.parameters + head.info.elements()
        }
    }

    /// Returns the header of a file with the tensors that are loaded from it, under the decoder's
    /// names.
    pub fn header_of(&self, file: &str, header: &Header) -> Header {
        let loaded = self.tensors.iter().filter(|(_, place)| place.file == file);
        header.with_tensors(
            loaded
                .map(|(name, place)| (name.clone(), place.info.clone()))
                .collect(),
        )
    }
}

fn check_formats(
    rule: &LoadingRule,
    headers: &BTreeMap<String, Header>,
) -> Result<(), InventoryError> {
    let Some(formats) = rule.formats else {
        return Ok(());
    };
    for (file, header) in headers {
        if !header
            .format()
            .is_some_and(|format| formats.contains(&format))
        {
            return Err(InventoryError::Format {
                file: file.clone(),
                format: header.format().map(ToOwned::to_owned),
            });
        }
    }
    Ok(())
}

fn check_shape(name: &str, info: &TensorInfo, expected: &[u64]) -> Result<(), InventoryError> {
    if info.shape == expected {
        return Ok(());
    }
    Err(InventoryError::Shape {
        name: name.to_owned(),
        found: info.shape.clone(),
        expected: expected.to_vec(),
    })
}

type Present = BTreeMap<String, Place>;

/// Finds which stored tensor is loaded under each of the decoder's names, whose shapes are given,
/// and which are loaded under none.
fn present(
    rule: &LoadingRule,
    shapes: &BTreeMap<String, Vec<u64>>,
    headers: &BTreeMap<String, Header>,
) -> Result<(Present, Names), InventoryError> {
    let names = || headers.values().flat_map(|header| header.tensors().keys());
    let has_prefix = rule.has_prefix(names().map(String::as_str));
    if !has_prefix && names().any(|name| name == HEAD) {
        return Err(InventoryError::HeadWithoutModel);
    }
    let mut present = Present::new();
    let mut unknown = Names::default();
    for (file, header) in headers {
        // Old names last: they replace new ones of the same file.
        let (old, new): (Vec<_>, Vec<_>) = header
            .tensors()
            .iter()
            .partition(|(name, _)| rule.renamed(name).is_some());
        for (stored, info) in new.into_iter().chain(old) {
            let known = |name: &str| shapes.contains_key(name);
            let Some(name) = rule.decoder_name(stored, has_prefix, known) else {
                unknown.push(stored);
                continue;
            };
            if rule.checks_replaced {
                check_shape(&name, info, &shapes[&name])?;
            }
            let place = Place {
                file: file.clone(),
                stored: stored.clone(),
                info: info.clone(),
            };
            match present.entry(name) {
                Entry::Vacant(entry) => {
                    entry.insert(place);
                }
                // Of several spellings the first in order counts, of several files the last.
                Entry::Occupied(entry) if !spelled_before(rule, entry.get(), &place) => {
                    *entry.into_mut() = place;
                }
                Entry::Occupied(_) => {}
            }
        }
    }
    Ok((present, unknown))
}

fn spelled_before(rule: &LoadingRule, first: &Place, second: &Place) -> bool {
    !rule.checks_replaced && first.stored.split('.').lt(second.stored.split('.'))
}

/// Settles which tensors a tied decoder takes; returns whether it takes both.
fn tie(rule: &LoadingRule, present: &mut Present) -> bool {
    let Some(head) = present.get(HEAD) else {
        return false;
    };
    let both = present.get(EMBEDDING);
    if both.is_some() && rule.tied == Tied::Both {
        return true;
    }
    let head_wins = both.is_none_or(|embedding| head.file >= embedding.file);
    if let (Some(head), true) = (present.remove(HEAD), head_wins) {
        present.insert(EMBEDDING.to_owned(), head);
    }
    false
}

#[cfg(test)]
mod tests;
