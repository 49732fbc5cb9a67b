//! A decoder small enough to train on a CPU in seconds: Llama and StableLM, forward only;
//! candle derives the backward pass.

use std::collections::BTreeMap;

use candle_core::{D, DType, Device, Result, Tensor, Var};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::family::{Family, Shape};

const NORM_EPSILON: f64 = 1e-5;

/// Weights under their names on the hub, in f32, ready to be trained.
#[derive(Debug)]
pub struct Network {
    pub family: Family,
    pub shape: Shape,
    pub weights: BTreeMap<String, Var>,
}

impl Network {
    /// Makes a network of small random weights, always the same for a seed.
    pub fn random(family: Family, shape: Shape, seed: u64) -> Result<Self> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut weights = BTreeMap::new();
        for (name, dimensions) in family.tensors(&shape) {
            let count = dimensions.iter().product();
            let values: Vec<f32> = if name.ends_with("bias") {
                vec![0.0; count]
            } else if name.contains("norm") {
                vec![1.0; count]
            } else {
                let bound = 1.7 / (shape.hidden as f32).sqrt();
                (0..count)
                    .map(|_| random.random_range(-bound..bound))
                    .collect()
            };
            weights.insert(name, Var::from_vec(values, dimensions, &Device::Cpu)?);
        }
        Ok(Self {
            family,
            shape,
            weights,
        })
    }

    /// Returns the logits of chosen positions. `ids` is `[batch, length]`; `rows` are indices into
    /// the flattened `batch * length` positions; the answer is `[rows, vocabulary]`.
    pub fn logits(&self, ids: &Tensor, rows: &Tensor) -> Result<Tensor> {
        let (batch, length) = ids.dims2()?;
        // The stream stays two-dimensional, `[batch * length, hidden]`: one product per matrix.
        let embeddings = self.weight("model.embed_tokens.weight")?;
        let mut stream = embeddings.index_select(&ids.flatten_all()?, 0)?;
        let positions = Positions::new(self.family, &self.shape, length)?;
        for layer in 0..self.shape.layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            let normed = self.norm(&stream, &name("input_layernorm"))?;
            let attended = self.attention(&normed, batch, &name("self_attn"), &positions)?;
            stream = (stream + attended)?;
            let normed = self.norm(&stream, &name("post_attention_layernorm"))?;
            let gate = self.linear(&normed, &name("mlp.gate_proj"))?.silu()?;
            let up = self.linear(&normed, &name("mlp.up_proj"))?;
            stream = (stream + self.linear(&(gate * up)?, &name("mlp.down_proj"))?)?;
        }
        let stream = stream.index_select(rows, 0)?;
        self.linear(&self.norm(&stream, "model.norm")?, "lm_head")
    }

    fn weight(&self, name: &str) -> Result<&Tensor> {
        let found = self.weights.get(name).map(Var::as_tensor);
        found.ok_or_else(|| candle_core::Error::Msg(format!("no tensor is called {name}")))
    }

    fn linear(&self, input: &Tensor, name: &str) -> Result<Tensor> {
        let weight = self.weight(&format!("{name}.weight"))?;
        let output = input.matmul(&weight.t()?)?;
        match self.weights.get(&format!("{name}.bias")) {
            Some(bias) => output.broadcast_add(bias),
            None => Ok(output),
        }
    }

    fn norm(&self, input: &Tensor, name: &str) -> Result<Tensor> {
        let weight = self.weight(&format!("{name}.weight"))?;
        let bias = self.weights.get(&format!("{name}.bias"));
        let centered = match bias {
            Some(_) => input.broadcast_sub(&input.mean_keepdim(D::Minus1)?)?,
            None => input.clone(),
        };
        let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
        let scaled = centered.broadcast_div(&(variance + NORM_EPSILON)?.sqrt()?)?;
        let scaled = scaled.broadcast_mul(weight)?;
        match bias {
            Some(bias) => scaled.broadcast_add(bias),
            None => Ok(scaled),
        }
    }

    fn attention(
        &self,
        input: &Tensor,
        batch: usize,
        name: &str,
        positions: &Positions,
    ) -> Result<Tensor> {
        let length = input.dim(0)? / batch;
        let Shape {
            heads, kv_heads, ..
        } = self.shape;
        let width = self.shape.head_width();
        let project = |part: &str, heads: usize| {
            self.linear(input, &format!("{name}.{part}"))?
                .reshape((batch, length, heads, width))?
                .transpose(1, 2)?
                .contiguous()
        };
        let query = positions.rotate(&project("q_proj", heads)?)?;
        let key = repeat(
            &positions.rotate(&project("k_proj", kv_heads)?)?,
            heads / kv_heads,
        )?;
        let value = repeat(&project("v_proj", kv_heads)?, heads / kv_heads)?;
        let scores = (query.matmul(&key.t()?)? / (width as f64).sqrt())?;
        let scores = scores.broadcast_add(&positions.mask)?;
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
        let output = weights.matmul(&value)?.transpose(1, 2)?;
        self.linear(
            &output.reshape((batch * length, heads * width))?,
            &format!("{name}.o_proj"),
        )
    }
}

/// What depends on positions only: cosines and sines of the rotation, `[length, rotated width]`,
/// and the causal mask, `[length, length]`.
struct Positions {
    cos: Tensor,
    sin: Tensor,
    mask: Tensor,
    width: usize,
}

impl Positions {
    fn new(family: Family, shape: &Shape, length: usize) -> Result<Self> {
        let width = family.rotary_width(shape.head_width());
        let angles: Vec<f32> = (0..length)
            .flat_map(|position| {
                // The second half of the rotated dimensions repeats the angles of the first.
                (0..width).map(move |at| {
                    let exponent = (at % (width / 2)) as f64 * 2.0 / width as f64;
                    (position as f64 / family.rope_theta().powf(exponent)) as f32
                })
            })
            .collect();
        let angles = Tensor::from_vec(angles, (length, width), &Device::Cpu)?;
        Ok(Self {
            cos: angles.cos()?,
            sin: angles.sin()?,
            mask: causal_mask(length)?,
            width,
        })
    }

    /// Rotates `[batch, heads, length, head width]`; dimensions beyond the rotated pass unchanged.
    fn rotate(&self, input: &Tensor) -> Result<Tensor> {
        let all = input.dim(D::Minus1)?;
        let (half, width) = (self.width / 2, self.width);
        let rotated = input.narrow(D::Minus1, 0, width)?;
        let turned = Tensor::cat(
            &[
                rotated.narrow(D::Minus1, half, half)?.neg()?,
                rotated.narrow(D::Minus1, 0, half)?,
            ],
            D::Minus1,
        )?;
        let rotated = (rotated.broadcast_mul(&self.cos)? + turned.broadcast_mul(&self.sin)?)?;
        if width == all {
            return Ok(rotated);
        }
        Tensor::cat(
            &[rotated, input.narrow(D::Minus1, width, all - width)?],
            D::Minus1,
        )
    }
}

/// Repeats each head of `[batch, heads, length, width]` `times` times in place.
fn repeat(input: &Tensor, times: usize) -> Result<Tensor> {
    if times == 1 {
        return Ok(input.clone());
    }
    let (batch, heads, length, width) = input.dims4()?;
    input
        .unsqueeze(2)?
        .broadcast_as((batch, heads, times, length, width))?
        .reshape((batch, heads * times, length, width))
}

fn causal_mask(length: usize) -> Result<Tensor> {
    let values: Vec<f32> = (0..length)
        .flat_map(|row| {
            (0..length).map(move |column| if column > row { f32::NEG_INFINITY } else { 0.0 })
        })
        .collect();
    Tensor::from_vec(values, (length, length), &Device::Cpu)?.to_dtype(DType::F32)
}
