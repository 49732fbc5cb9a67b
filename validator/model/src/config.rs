//! `config.json` of the Hugging Face format, read into one [`DecoderSpec`] for all architectures.
//!
//! Defaults, refusals and the fields that are *not* looked at follow transformers 4.40
//! ([`Compatibility::V4_40`]) or today's transformers ([`Compatibility::Current`]).

mod admission;
mod fields;
mod parse;
mod rope;
mod window;

use std::{fmt, str::FromStr};

use fields::Fields;
pub use rope::{LongRope, Rotary, RotaryScaling, Yarn};
use serde::{Deserialize, Serialize};

/// Largest `config.json` that is looked at, in bytes.
pub const MAX_CONFIG_BYTES: usize = 1 << 20;

/// Why a `config.json` is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not a JSON object, or too large.
    #[error("config.json can't be read: {0}")]
    Malformed(String),
    /// A field has a value of the wrong kind or out of bounds.
    #[error("config.json: {field} is {found}, expected {expected}")]
    Field {
        field: &'static str,
        /// The value as JSON, shortened.
        found: String,
        /// What would have been accepted.
        expected: String,
    },
    /// The fields are well-formed, but no model can be made of them.
    #[error("config.json: {0}")]
    Unsupported(String),
}

/// Which release of transformers decides what is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Compatibility {
    /// transformers 4.40, which the deployed Python validators run.
    #[default]
    #[serde(rename = "4.40")]
    V4_40,
    /// transformers 5: llama3 rotary scaling, `rope_parameters`, `head_dim` and `mlp_bias` of Llama.
    #[serde(rename = "current")]
    Current,
}

/// A decoder architecture; it is the competition's, whatever `config.json` calls itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Architecture {
    /// `LlamaForCausalLM`.
    #[serde(rename = "LlamaForCausalLM")]
    Llama,
    /// `MistralForCausalLM`.
    #[serde(rename = "MistralForCausalLM")]
    Mistral,
    /// `StableLmForCausalLM`.
    #[serde(rename = "StableLmForCausalLM")]
    StableLm,
    /// `GemmaForCausalLM`.
    #[serde(rename = "GemmaForCausalLM")]
    Gemma,
    /// `Qwen2ForCausalLM`.
    #[serde(rename = "Qwen2ForCausalLM")]
    Qwen2,
    /// `Qwen3ForCausalLM`: Llama with norms of heads. Unknown to 4.40, as those below.
    #[serde(rename = "Qwen3ForCausalLM")]
    Qwen3,
    /// `Gemma2ForCausalLM`: four norms a layer, capped scores and logits, every other layer with a
    /// window.
    #[serde(rename = "Gemma2ForCausalLM")]
    Gemma2,
    /// `Phi3ForCausalLM`: projections that share a tensor, long rotary scaling.
    #[serde(rename = "Phi3ForCausalLM")]
    Phi3,
}

impl Architecture {
    /// Every architecture the engine can run.
    pub const ALL: [Self; 8] = [
        Self::Llama,
        Self::Mistral,
        Self::StableLm,
        Self::Gemma,
        Self::Qwen2,
        Self::Qwen3,
        Self::Gemma2,
        Self::Phi3,
    ];

    /// Returns the class name of transformers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::StableLm => "StableLmForCausalLM",
            Self::Gemma => "GemmaForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Gemma2 => "Gemma2ForCausalLM",
            Self::Phi3 => "Phi3ForCausalLM",
        }
    }

    /// Returns whether a release has a class of this name.
    pub const fn is_known_to(self, compatibility: Compatibility) -> bool {
        match self {
            Self::Llama | Self::Mistral | Self::StableLm | Self::Gemma | Self::Qwen2 => true,
            Self::Qwen3 | Self::Gemma2 | Self::Phi3 => {
                matches!(compatibility, Compatibility::Current)
            }
        }
    }

    /// Reads the architecture `config.json` gives itself: the first known name of `architectures`.
    pub fn declared(json: &[u8]) -> Result<Self, ConfigError> {
        let fields = Fields::parse(json)?;
        let names = fields.strings("architectures")?;
        names
            .iter()
            .find_map(|name| name.parse().ok())
            .ok_or_else(|| {
                ConfigError::Unsupported(format!("no supported architecture among {names:?}"))
            })
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Architecture {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        Self::ALL
            .into_iter()
            .find(|architecture| architecture.name() == name)
            .ok_or_else(|| {
                ConfigError::Unsupported(format!("architecture {name:?} is not supported"))
            })
    }
}

/// The non-linearity of the gated feed-forward block: all that transformers 4.40 knows
/// by name, and those of today without weights of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU with the error function.
    Gelu,
    /// GELU with the error function, clipped to -10 and 10.
    GeluClipped,
    /// GELU with the tanh approximation.
    GeluTanh,
    /// `x * sigmoid(1.702 x)`.
    GeluQuick,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)` squared.
    ReluSquared,
    /// `x` clipped to 0 and 6.
    Relu6,
    /// `max(x, 0.01 x)`.
    ReluLeaky,
    /// `x * tanh(ln(1 + exp(x)))`.
    Mish,
    /// The distribution function of a normal variable of mean 0.707107 and deviation 0.282095.
    Laplace,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    Tanh,
    /// `x` itself.
    Linear,
    /// `x * min(max(x + 3, 0), 6) / 6`.
    HardSwish,
    /// `sqrt(ln(1 + exp(x)))`.
    SqrtSoftplus,
}

/// How hidden states are normalized.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Norm {
    /// Root mean square, times the weight; the product is rounded after the normalized value is.
    Rms {
        /// Added to the mean square.
        eps: f64,
    },
    /// Gemma's: root mean square, times one plus the weight, rounded once.
    RmsPlusOne {
        /// Added to the mean square.
        eps: f64,
    },
    /// Mean and variance, with weight and bias.
    Layer { eps: f64 },
}

/// Sliding-window attention: a token sees itself and at most `left` tokens before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Tokens before the current one that are seen.
    pub left: usize,
    /// Whether each layer has the window.
    pub layers: Vec<bool>,
}

/// Norms of the heads of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadNorms {
    None,
    /// StableLM: each head has its own layer norm (without bias).
    Own,
    /// Qwen3: the heads of a layer share one.
    Shared,
}

/// How queries and keys become scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionScores {
    /// AttentionScores are divided by the square root of this.
    pub scalar: f64,
    /// Gemma 2: scores are squashed to less than this.
    pub cap: Option<f64>,
}

/// All that is needed to build and run one decoder; sizes are bounded and consistent.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of config.json"
)]
pub struct DecoderSpec {
    pub architecture: Architecture,
    /// The release of transformers that was followed.
    pub compatibility: Compatibility,
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width of the feed-forward block.
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Non-linearity of the feed-forward block.
    pub activation: Activation,
    /// Kind of the norms before attention, feed-forward block and head.
    pub norm: Norm,
    pub rotary: Rotary,
    pub window: Option<Window>,
    /// Whether q, k and v projections have a bias.
    pub qkv_bias: bool,
    /// Whether the output projection of the attention has a bias.
    pub o_bias: bool,
    /// Whether gate, up and down projections have a bias.
    pub mlp_bias: bool,
    pub head_norms: HeadNorms,
    pub scores: AttentionScores,
    /// Gemma 2: what attention and feed-forward block give is normalized before it is added.
    pub output_norms: bool,
    /// Gemma 2: logits are squashed to less than this.
    pub logit_cap: Option<f64>,
    /// Phi-3: files hold q, k and v in one tensor, and gate and up in another.
    pub fused: bool,
    /// StableLM: attention and feed-forward block read the same norm and are added together.
    pub parallel_residual: bool,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Gemma: embeddings are multiplied by this, rounded to the model's dtype.
    pub embedding_scale: Option<f64>,
    /// StableLM of transformers 4.40 takes the loss in the dtype of the logits, others in f32.
    pub loss_in_logits_dtype: bool,
}

impl DecoderSpec {
    /// Returns the window of one layer: how many tokens before the current one are seen.
    pub fn window_of(&self, layer: usize) -> Option<usize> {
        self.window
            .as_ref()
            .filter(|window| window.layers.get(layer) == Some(&true))
            .map(|window| window.left)
    }
}

#[cfg(test)]
mod tests;
