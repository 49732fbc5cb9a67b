//! Which tensors a decoder is made of, and where the files of a model have them.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
};

use serde::Deserialize;

use crate::{
    config::{DecoderSpec, Norm},
    header::{Dtype, Header, TensorInfo},
    path::is_safe_path,
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
    /// A tensor is in two files.
    #[error("tensor {name:?} is in {first:?} and in {second:?}")]
    Duplicate {
        name: String,
        first: String,
        second: String,
    },
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
    /// A tensor has elements that are no ordinary floating-point numbers.
    #[error("tensor {name:?} is of dtype {dtype}, not F64, F32, F16 or BF16")]
    Dtype { name: String, dtype: Dtype },
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
        let mut tensors = vec![expected(
            "model.embed_tokens.weight".into(),
            &[vocabulary, hidden],
        )];
        self.push_norm(&mut tensors, "model.norm");
        if !self.tied {
            tensors.push(expected("lm_head.weight".into(), &[vocabulary, hidden]));
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
        if self.qk_layernorm {
            for (kind, heads) in [("q", self.heads), ("k", self.kv_heads)] {
                for head in 0..heads {
                    let name = format!("{prefix}.self_attn.{kind}_layernorm.norms.{head}.weight");
                    tensors.push(expected(name, &[self.head_dim as u64]));
                }
            }
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
    let Index { weight_map } =
        serde_json::from_slice(json).map_err(|error| InventoryError::Index(error.to_string()))?;
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// File and place of each tensor the decoder needs.
    pub tensors: BTreeMap<String, Place>,
    /// Tensors that are in the files, but not part of the decoder; they are ignored.
    pub unknown: Names,
    /// Number of parameters of the decoder; a tied head is counted once.
    pub parameters: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// File name, relative to the model's folder.
    pub file: String,
    /// Dtype, shape and bytes within the data of the file.
    pub info: TensorInfo,
}

impl Inventory {
    /// Finds the tensors of `spec` in files with the given headers.
    ///
    /// # Errors
    /// If a tensor is missing, is there twice, or has the wrong shape or dtype.
    pub fn take(
        spec: &DecoderSpec,
        headers: &BTreeMap<String, Header>,
    ) -> Result<Self, InventoryError> {
        let mut present: BTreeMap<&str, (&str, &TensorInfo)> = BTreeMap::new();
        for (file, header) in headers {
            for (name, info) in header.tensors() {
                match present.entry(name) {
                    Entry::Vacant(entry) => entry.insert((file, info)),
                    Entry::Occupied(entry) => {
                        return Err(InventoryError::Duplicate {
                            name: name.clone(),
                            first: entry.get().0.to_owned(),
                            second: file.clone(),
                        });
                    }
                };
            }
        }
        let mut tensors = BTreeMap::new();
        let mut missing = Names::default();
        for Expected { name, shape } in spec.tensors() {
            let Some((file, info)) = present.remove(name.as_str()) else {
                missing.push(&name);
                continue;
            };
            if info.shape != shape {
                let found = info.shape.clone();
                return Err(InventoryError::Shape {
                    name,
                    found,
                    expected: shape,
                });
            }
            if !matches!(
                info.dtype,
                Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16
            ) {
                return Err(InventoryError::Dtype {
                    name,
                    dtype: info.dtype,
                });
            }
            tensors.insert(
                name,
                Place {
                    file: file.to_owned(),
                    info: info.clone(),
                },
            );
        }
        if missing.total > 0 {
            return Err(InventoryError::Missing(missing));
        }
        let mut unknown = Names::default();
        for name in present.keys() {
            unknown.push(name);
        }
        Ok(Self {
            tensors,
            unknown,
            parameters: spec.parameters(),
        })
    }
}

#[cfg(test)]
mod tests;
