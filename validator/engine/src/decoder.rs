//! One packed decoder for all architectures: a flat batch of tokens, no batch dimension.

use candle_core::{DType, Device, Result, Tensor};
use model::{
    Attention, Dtype,
    config::{DecoderSpec, HeadNorms, Norm as NormSpec},
};

#[cfg(feature = "cuda")]
use crate::cuda::kernels::Gate;
use crate::{
    activation::activate,
    attention::{KeysAndValues, Reach, Way, attend, attend_cached, capped, split},
    batch::{Batch, take_rows},
    cpu::gated::Gated,
    device::moved,
    heads::Heads,
    linear::{Linear, product},
    norm::Norm,
    residual::Residual,
};

/// Returns the tensor library's name of a dtype.
pub const fn tensor_dtype(dtype: Dtype) -> DType {
    match dtype {
        Dtype::F32 => DType::F32,
        Dtype::Bf16 => DType::BF16,
        Dtype::F16 => DType::F16,
    }
}

/// A tensor of the decoder: the tensors of the checkpoint it is made of, one after another.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Shape; the first dimension is the sum of the parts'.
    pub shape: Vec<usize>,
    pub parts: Vec<String>,
}

#[derive(Debug)]
struct Layer {
    input_norm: Norm,
    qkv: Linear,
    /// Norms of each query and key head.
    head_norms: Option<(Norm, Norm)>,
    output: Linear,
    /// Of what attention gives, before it is added.
    attention_norm: Option<Norm>,
    /// Absent if the feed-forward block reads what attention reads.
    post_norm: Option<Norm>,
    gate_up: Linear,
    down: Linear,
    /// Of what the feed-forward block gives, before it is added.
    feed_norm: Option<Norm>,
    window: Option<usize>,
}

/// A decoder, ready to run.
#[derive(Debug)]
pub struct Model {
    spec: DecoderSpec,
    dtype: DType,
    device: Device,
    way: Way,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Norm,
    /// `[vocabulary, hidden]`.
    head: Tensor,
}

/// Keys and values of all layers.
#[derive(Debug)]
pub(crate) struct Cache(Vec<KeysAndValues>);

/// How a model is built.
#[derive(Debug, Clone, Copy)]
pub struct Build<'a> {
    pub spec: &'a DecoderSpec,
    /// The type to compute in.
    pub dtype: Dtype,
    pub attention: Attention,
    pub device: &'a Device,
}

/// Names a part of a layer, as the checkpoint does.
fn in_layer(layer: usize, name: &str) -> String {
    format!("model.layers.{layer}.{name}")
}

impl Build<'_> {
    /// Builds the model from its parameters, which `get` provides in the order they are asked for.
    pub fn build(&self, mut get: impl FnMut(&Parameter) -> Result<Tensor>) -> Result<Model> {
        let spec = self.spec;
        let dtype = tensor_dtype(self.dtype);
        let (way, _) = Way::choose(
            self.attention,
            dtype,
            (spec.head_dim, spec.scores),
            self.device,
        );
        let (vocabulary, hidden) = (spec.vocab_size, spec.hidden_size);
        let mut whole = |name: &str, shape: &[usize]| {
            get(&Parameter {
                shape: shape.to_vec(),
                parts: vec![name.to_owned()],
            })
        };
        let embedding = whole("model.embed_tokens.weight", &[vocabulary, hidden])?;
        let head = if spec.tied {
            embedding.clone()
        } else {
            whole("lm_head.weight", &[vocabulary, hidden])?
        };
        let norm = self.norm(&mut get, "model.norm")?;
        let layers = (0..spec.layers).map(|layer| self.layer(&mut get, layer));
        Ok(Model {
            spec: spec.clone(),
            dtype,
            device: self.device.clone(),
            way,
            embedding,
            layers: layers.collect::<Result<_>>()?,
            norm,
            head,
        })
    }

    fn layer(
        &self,
        get: &mut impl FnMut(&Parameter) -> Result<Tensor>,
        layer: usize,
    ) -> Result<Layer> {
        let spec = self.spec;
        let (hidden, inner) = (spec.hidden_size, spec.intermediate_size);
        let (queries, keys) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        let mut linear = |names: &[&str], rows: usize, columns: usize, bias: bool| {
            let parts = |suffix: &str| {
                names
                    .iter()
                    .map(|name| in_layer(layer, &format!("{name}.{suffix}")))
                    .collect()
            };
            let weight = get(&Parameter {
                shape: vec![rows, columns],
                parts: parts("weight"),
            })?;
            let bias = bias
                .then(|| {
                    get(&Parameter {
                        shape: vec![rows],
                        parts: parts("bias"),
                    })
                })
                .transpose()?;
            Ok::<_, candle_core::Error>(Linear { weight, bias })
        };
        let attention = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
        let qkv = linear(&attention, queries + 2 * keys, hidden, spec.qkv_bias)?;
        let output = linear(&["self_attn.o_proj"], hidden, queries, spec.o_bias)?;
        let gates = ["mlp.gate_proj", "mlp.up_proj"];
        let gate_up = linear(&gates, 2 * inner, hidden, spec.mlp_bias)?;
        let down = linear(&["mlp.down_proj"], hidden, inner, spec.mlp_bias)?;
        let head_norms = match spec.head_norms {
            HeadNorms::None => None,
            _ => Some((
                self.head_norm(get, layer, "q", spec.heads)?,
                self.head_norm(get, layer, "k", spec.kv_heads)?,
            )),
        };
        let mut norm = |name: &str| self.norm(get, &in_layer(layer, name));
        let input_norm = norm("input_layernorm")?;
        let after_attention = (!spec.parallel_residual)
            .then(|| norm("post_attention_layernorm"))
            .transpose()?;
        let (attention_norm, post_norm, feed_norm) = if spec.output_norms {
            let before_feed = norm("pre_feedforward_layernorm")?;
            let feed_norm = norm("post_feedforward_layernorm")?;
            (after_attention, Some(before_feed), Some(feed_norm))
        } else {
            (None, after_attention, None)
        };
        let window = spec.window_of(layer);
        Ok(Layer {
            input_norm,
            qkv,
            head_norms,
            output,
            attention_norm,
            post_norm,
            gate_up,
            down,
            feed_norm,
            window,
        })
    }

    fn norm(&self, get: &mut impl FnMut(&Parameter) -> Result<Tensor>, name: &str) -> Result<Norm> {
        let mut part = |suffix: &str| {
            let parts = vec![format!("{name}.{suffix}")];
            get(&Parameter {
                shape: vec![self.spec.hidden_size],
                parts,
            })
        };
        let weight = part("weight")?;
        let has_bias = matches!(self.spec.norm, NormSpec::Layer { .. });
        let bias = has_bias.then(|| part("bias")).transpose()?;
        Norm::new(&self.spec.norm, &weight, bias.as_ref())
    }

    fn head_norm(
        &self,
        get: &mut impl FnMut(&Parameter) -> Result<Tensor>,
        layer: usize,
        kind: &str,
        heads: usize,
    ) -> Result<Norm> {
        let dim = self.spec.head_dim;
        if self.spec.head_norms == HeadNorms::Shared {
            let weight = get(&Parameter {
                shape: vec![dim],
                parts: vec![in_layer(layer, &format!("self_attn.{kind}_norm.weight"))],
            })?;
            return Norm::new(&self.spec.norm, &weight, None);
        }
        let name = |head| format!("self_attn.{kind}_layernorm.norms.{head}.weight");
        let parts = (0..heads)
            .map(|head| in_layer(layer, &name(head)))
            .collect();
        let weight = get(&Parameter {
            shape: vec![heads * dim],
            parts,
        })?;
        Norm::new(&self.spec.norm, &weight.reshape((heads, dim))?, None)
    }
}

impl Model {
    /// Returns what the model was built from.
    pub const fn spec(&self) -> &DecoderSpec {
        &self.spec
    }

    /// Returns where the model is.
    pub const fn device(&self) -> &Device {
        &self.device
    }

    /// Returns the type the model is computed in.
    pub const fn dtype(&self) -> DType {
        self.dtype
    }

    /// Returns the head, `[vocabulary, hidden]`.
    pub(crate) const fn head(&self) -> &Tensor {
        &self.head
    }

    /// Computes the logits of final hidden states.
    pub(crate) fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let logits = product(hidden, &self.head)?;
        match self.spec.logit_cap {
            Some(cap) => capped(&logits, cap),
            None => Ok(logits),
        }
    }

    pub(crate) fn new_cache(&self) -> Cache {
        Cache(self.layers.iter().map(|_| None).collect())
    }

    /// Computes the final hidden states (`[rows, hidden]`) of the rows of a batch that are wanted.
    ///
    /// With a cache, the batch continues one sequence.
    pub(crate) fn forward(&self, batch: &Batch, mut cache: Option<&mut Cache>) -> Result<Tensor> {
        let mut embedded = take_rows(&self.embedding, &batch.ids)?;
        if let Some(scale) = self.spec.embedding_scale {
            let scale = Tensor::new(scale as f32, &self.device)?.to_dtype(self.dtype)?;
            embedded = embedded.broadcast_mul(&scale)?;
        }
        let mut hidden = Residual::new(embedded);
        // Where layers lie on several devices, all goes along from one to the next.
        let mut here;
        let (mut device, mut batch) = (&self.device, batch);
        for (index, layer) in self.layers.iter().enumerate() {
            let next = layer.qkv.weight.device();
            if !next.same_device(device) {
                hidden = hidden.to_device(next)?;
                here = batch.to_device(next)?;
                (device, batch) = (next, &here);
            }
            let seen = cache.as_deref_mut().map(|cache| &mut cache.0[index]);
            let last = index + 1 == self.layers.len();
            // What follows the last attention is needed only for the rows that are wanted.
            hidden = self.layer(layer, hidden, batch, seen, last.then_some(&batch.rows))?;
        }
        moved(&hidden.normed(&self.norm)?.1, self.head.device())
    }

    fn layer(
        &self,
        layer: &Layer,
        hidden: Residual,
        batch: &Batch,
        seen: Option<&mut KeysAndValues>,
        rows: Option<&Tensor>,
    ) -> Result<Residual> {
        let heads = Heads {
            queries: self.spec.heads,
            keys: self.spec.kv_heads,
            dim: self.spec.head_dim,
        };
        let wanted = |x: Tensor| match rows {
            Some(rows) => take_rows(&x, rows),
            None => Ok(x),
        };
        let (hidden, normed) = hidden.normed(&layer.input_norm)?;
        let mut qkv = layer.qkv.forward(&normed)?;
        if let Some(norms) = &layer.head_norms {
            qkv = normed_heads(&qkv, norms, heads)?;
        }
        let rotation = &batch.rotation;
        let reach = Reach {
            window: layer.window,
            scores: self.spec.scores,
        };
        let attended = if let Some(seen) = seen {
            attend_cached(&qkv, rotation, &batch.sequences, seen, heads, reach)?
        } else {
            attend(self.way, &qkv, rotation, &batch.sequences, heads, reach)?
        };
        drop(qkv);
        let attended = wanted(attended)?;
        let hidden = hidden.rows(rows)?;
        let hidden = hidden.add(&layer.output, layer.attention_norm.as_ref(), &attended)?;
        let (hidden, feed) = match &layer.post_norm {
            Some(norm) => hidden.normed(norm)?,
            None => (hidden, wanted(normed)?),
        };
        let gated = self.gated(&layer.gate_up.forward(&feed)?)?;
        hidden.add(&layer.down, layer.feed_norm.as_ref(), &gated)
    }

    fn gated(&self, gate_up: &Tensor) -> Result<Tensor> {
        if self.device.is_cpu() {
            return gate_up.apply_op1_no_bwd(&Gated(self.spec.activation));
        }
        #[cfg(feature = "cuda")]
        if let Some(gate) = Gate::of(self.spec.activation) {
            return gate_up.apply_op1_no_bwd(&gate);
        }
        let width = self.spec.intermediate_size;
        let gate = gate_up.narrow(1, 0, width)?;
        let gate = activate(self.spec.activation, &gate)?;
        gate * gate_up.narrow(1, width, width)?
    }
}

fn normed_heads(qkv: &Tensor, (queries, keys): &(Norm, Norm), heads: Heads) -> Result<Tensor> {
    let (q, k, v) = split(qkv, heads)?;
    let parts = [queries.forward(&q)?, keys.forward(&k)?, v];
    let flat = parts
        .iter()
        .map(|part| part.flatten_from(1))
        .collect::<Result<Vec<_>>>()?;
    Tensor::cat(&flat, 1)
}
