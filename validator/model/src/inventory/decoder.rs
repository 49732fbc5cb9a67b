//! The tensors of a decoder: their names and shapes, how files hold them, and what they begin as.

use super::Place;
use crate::{
    config::{DecoderSpec, HeadNorms, Norm},
    header::TensorInfo,
    loading::{EMBEDDING, HEAD},
};

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
    pub(super) fn stored_tensors(&self) -> impl Iterator<Item = Stored> + '_ {
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
    pub(super) fn initial(&self, tensor: &Expected) -> Option<f32> {
        let plus_one = matches!(self.norm, Norm::RmsPlusOne { .. });
        let (_, kind) = tensor.name.rsplit_once('.')?;
        let is_norm = tensor.shape.len() == 1 && kind == "weight";
        if kind == "bias" || (is_norm && plus_one) {
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
pub(super) struct Stored {
    pub(super) whole: Expected,
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
    pub(super) fn split(self, place: &Place) -> impl Iterator<Item = (String, Place)> {
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

pub(super) fn expected(name: String, shape: &[u64]) -> Expected {
    Expected {
        name,
        shape: shape.to_vec(),
    }
}
