//! Which tensors a decoder is made of, and where the files of a model have them.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    config::{DecoderSpec, HeadNorms, Norm},
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

/// A tensor the decoder needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub name: String,
    pub shape: Vec<u64>,
}

impl DecoderSpec {
    /// Returns the tensors outside the layers: embedding, final norm, head unless tied.
    fn outer_tensors(&self) -> Vec<Expected> {
        let (vocabulary, hidden) = (self.vocab_size as u64, self.hidden_size as u64);
        let mut tensors = vec![expected(EMBEDDING.into(), &[vocabulary, hidden])];
        self.push_norm(&mut tensors, "model.norm");
        if !self.tied {
            tensors.push(expected(HEAD.into(), &[vocabulary, hidden]));
        }
        tensors
    }

    /// Returns the tensors of one layer.
    fn layer_tensors(&self, layer: usize) -> Vec<Expected> {
        let hidden = self.hidden_size as u64;
        let queries = (self.heads * self.head_dim) as u64;
        let keys = (self.kv_heads * self.head_dim) as u64;
        let inner = self.intermediate_size as u64;
        let prefix = format!("model.layers.{layer}");
        let projections = [
            ("self_attn.q_proj", queries, hidden, self.qkv_bias),
            ("self_attn.k_proj", keys, hidden, self.qkv_bias),
            ("self_attn.v_proj", keys, hidden, self.qkv_bias),
            ("self_attn.o_proj", hidden, queries, self.o_bias),
            ("mlp.gate_proj", inner, hidden, self.mlp_bias),
            ("mlp.up_proj", inner, hidden, self.mlp_bias),
            ("mlp.down_proj", hidden, inner, self.mlp_bias),
        ];
        // Side by side, so that the weights (and biases) of projections that are computed together
        // are neighbors when the tensors are laid out in this order.
        let weights = projections.iter().map(|&(name, rows, columns, _)| {
            expected(format!("{prefix}.{name}.weight"), &[rows, columns])
        });
        let biases = projections
            .iter()
            .filter(|&&(.., bias)| bias)
            .map(|&(name, rows, ..)| expected(format!("{prefix}.{name}.bias"), &[rows]));
        let mut tensors: Vec<_> = weights.chain(biases).collect();
        self.push_norm(&mut tensors, &format!("{prefix}.input_layernorm"));
        if !self.parallel_residual {
            self.push_norm(&mut tensors, &format!("{prefix}.post_attention_layernorm"));
        }
        if self.output_norms {
            for name in ["pre_feedforward_layernorm", "post_feedforward_layernorm"] {
                self.push_norm(&mut tensors, &format!("{prefix}.{name}"));
            }
        }
        let width = [self.head_dim as u64];
        for (kind, heads) in [("q", self.heads), ("k", self.kv_heads)] {
            let name = match self.head_norms {
                HeadNorms::None => continue,
                HeadNorms::Shared => format!("{prefix}.self_attn.{kind}_norm.weight"),
                HeadNorms::Own => {
                    for head in 0..heads {
                        let name =
                            format!("{prefix}.self_attn.{kind}_layernorm.norms.{head}.weight");
                        tensors.push(expected(name, &width));
                    }
                    continue;
                }
            };
            tensors.push(expected(name, &width));
        }
        tensors
    }

    fn push_norm(&self, tensors: &mut Vec<Expected>, prefix: &str) {
        let shape = [self.hidden_size as u64];
        tensors.push(expected(format!("{prefix}.weight"), &shape));
        if matches!(self.norm, Norm::Layer { .. }) {
            tensors.push(expected(format!("{prefix}.bias"), &shape));
        }
    }

    /// Returns every tensor the decoder needs, one layer at a time.
    pub fn tensors(&self) -> impl Iterator<Item = Expected> + '_ {
        let layers = (0..self.layers).flat_map(|layer| self.layer_tensors(layer));
        self.outer_tensors().into_iter().chain(layers)
    }

    /// Returns every tensor that files have to hold, one layer at a time.
    fn stored_tensors(&self) -> impl Iterator<Item = Stored> + '_ {
        let mut tensors = self.tensors().peekable();
        std::iter::from_fn(move || {
            let mut stored = Stored::single(tensors.next()?);
            if self.fused {
                while let Some(next) = tensors.next_if(|next| stored.takes(next)) {
                    stored.whole.shape[0] += next.shape[0];
                    stored.parts.push(next);
                }
                stored.rename();
            }
            Some(stored)
        })
    }

    /// Returns what the elements of a tensor are before a checkpoint is loaded, unless they are
    /// random: those of vectors, which are biases and norms.
    fn initial(&self, tensor: &Expected) -> Option<f32> {
        let plus_one = matches!(self.norm, Norm::RmsPlusOne { .. });
        let is_norm = tensor.shape.len() == 1 && tensor.name.ends_with(".weight");
        if tensor.name.ends_with(".bias") || (is_norm && plus_one) {
            Some(0.0)
        } else {
            is_norm.then_some(1.0)
        }
    }

    /// Returns the number of parameters; a tied head is counted once.
    pub fn parameters(&self) -> u64 {
        let sum = |tensors: Vec<Expected>| -> u64 {
            tensors
                .iter()
                .map(|tensor| tensor.shape.iter().product::<u64>())
                .sum()
        };
        sum(self.outer_tensors()) + self.layers as u64 * sum(self.layer_tensors(0))
    }
}

/// A tensor of a file, and the tensors of the decoder it is made of, one below the other.
struct Stored {
    whole: Expected,
    parts: Vec<Expected>,
}

impl Stored {
    fn single(tensor: Expected) -> Self {
        Self {
            whole: tensor.clone(),
            parts: vec![tensor],
        }
    }

    /// Returns whether the next tensor is stored in one with this.
    fn takes(&self, next: &Expected) -> bool {
        let follows = |[first, second]: [&str; 2]| {
            let last = &self.parts[self.parts.len() - 1].name;
            last.strip_suffix(first)
                .is_some_and(|stem| next.name.strip_suffix(second) == Some(stem))
        };
        [
            ["q_proj.weight", "k_proj.weight"],
            ["k_proj.weight", "v_proj.weight"],
            ["gate_proj.weight", "up_proj.weight"],
        ]
        .into_iter()
        .any(follows)
    }

    /// Gives several tensors that are one in the file its name.
    fn rename(&mut self) {
        let name = &self.whole.name;
        for (first, all) in [("q_proj", "qkv_proj"), ("gate_proj", "gate_up_proj")] {
            if let Some(stem) = name.strip_suffix(&format!("{first}.weight")) {
                self.whole.name = format!("{stem}{all}.weight");
                return;
            }
        }
    }

    /// Returns the places of the parts.
    fn split(self, place: &Place) -> impl Iterator<Item = (String, Place)> {
        let element = place.info.dtype.bytes();
        let mut start = place.info.bytes.start;
        self.parts.into_iter().map(move |part| {
            let end = start + element * part.shape.iter().product::<u64>();
            let info = TensorInfo {
                dtype: place.info.dtype,
                shape: part.shape,
                bytes: start..end,
            };
            start = end;
            (
                part.name,
                Place {
                    info,
                    ..place.clone()
                },
            )
        })
    }
}

fn expected(name: String, shape: &[u64]) -> Expected {
    Expected {
        name,
        shape: shape.to_vec(),
    }
}

/// Reads which files an index names, sorted; sub-folders are allowed, paths out of the model not.
pub fn shards_of_index(json: &[u8]) -> Result<Vec<String>, InventoryError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let wrong = |error: serde_json::Error| InventoryError::Index(error.to_string());
    let json = python_json::parse(json).map_err(wrong)?;
    // Both releases write into it.
    if !json.get("metadata").is_some_and(Value::is_object) {
        return Err(InventoryError::Index("metadata is not an object".into()));
    }
    let Index { weight_map } = serde_json::from_value(json).map_err(wrong)?;
    let mut files: Vec<_> = weight_map.into_values().collect();
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
