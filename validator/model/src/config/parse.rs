//! Reading `config.json`: defaults of each class, and what each release does with each field.

use super::{
    Activation, Architecture, AttentionScores, Compatibility, ConfigError, DecoderSpec, HeadNorms,
    Norm, Rotary, admission, fields::Fields, window::window,
};
use crate::generation;

/// Upper bounds of the sizes in `config.json`; far above any model that is let in, and low enough
/// to count its parameters in 64 bits and to name its tensors, a few for each head and layer.
/// Columns of hidden states and of what is computed of them. Kernels of the tensor library count elements in 32
/// bits: so many columns of the longest pack, and of sequences up to 32,767 tokens, are fewer.
const MAX_SIZE: usize = 1 << 17;
const MAX_VOCABULARY: usize = 1 << 22;
const MAX_LAYERS: usize = 1 << 10;
const MAX_HEADS: usize = 1 << 10;

/// What an architecture takes when `config.json` is silent.
struct Defaults {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    layers: usize,
    heads: usize,
    kv_heads: Option<usize>,
    max_positions: usize,
    tied: bool,
}

impl Defaults {
    const fn of(architecture: Architecture) -> Self {
        let llama = Self {
            vocab_size: 32_000,
            hidden_size: 4096,
            intermediate_size: 11_008,
            layers: 32,
            heads: 32,
            kv_heads: None,
            max_positions: 2048,
            tied: false,
        };
        match architecture {
            Architecture::Llama => llama,
            Architecture::Mistral => Self {
                intermediate_size: 14_336,
                kv_heads: Some(8),
                max_positions: 131_072,
                ..llama
            },
            Architecture::StableLm => Self {
                vocab_size: 50_304,
                hidden_size: 2560,
                intermediate_size: 6912,
                kv_heads: Some(32),
                max_positions: 4096,
                ..llama
            },
            Architecture::Gemma => Self {
                vocab_size: 256_000,
                hidden_size: 3072,
                intermediate_size: 24_576,
                layers: 28,
                heads: 16,
                kv_heads: Some(16),
                max_positions: 8192,
                tied: true,
            },
            Architecture::Qwen2 => Self {
                vocab_size: 151_936,
                intermediate_size: 22_016,
                kv_heads: Some(32),
                max_positions: 32_768,
                ..llama
            },
            Architecture::Qwen3 => Self::of(Architecture::Qwen2),
            Architecture::Gemma2 => Self {
                hidden_size: 2304,
                intermediate_size: 9216,
                layers: 26,
                heads: 8,
                kv_heads: Some(4),
                ..Self::of(Architecture::Gemma)
            },
            Architecture::Phi3 => Self {
                vocab_size: 32_064,
                hidden_size: 3072,
                intermediate_size: 8192,
                max_positions: 4096,
                ..llama
            },
        }
    }
}

impl DecoderSpec {
    /// Reads `config.json` as `architecture` would, whatever architecture it names itself.
    ///
    /// # Errors
    /// What the chosen release of transformers refuses, and what it accepts without being able to
    /// run it, with the field that is at fault.
    pub fn parse(
        json: &[u8],
        architecture: Architecture,
        compatibility: Compatibility,
    ) -> Result<Self, ConfigError> {
        let fields = Fields::parse(json)?;
        if !architecture.is_known_to(compatibility) {
            let reason = format!("{architecture} is unknown to transformers 4.40");
            return Err(ConfigError::Unsupported(reason));
        }
        let current = compatibility == Compatibility::Current;
        let defaults = Defaults::of(architecture);
        let vocab_size = fields.size("vocab_size", defaults.vocab_size, MAX_VOCABULARY)?;
        admission::admit(&fields, architecture, compatibility, vocab_size)?;
        generation::judge_within_config(fields.all(), compatibility)?;
        let hidden_size = fields.size("hidden_size", defaults.hidden_size, MAX_SIZE)?;
        let layers = fields.size("num_hidden_layers", defaults.layers, MAX_LAYERS)?;
        let (heads, kv_heads) = heads(&fields, architecture, &defaults)?;
        let head_dim = head_dim(&fields, architecture, compatibility, hidden_size, heads)?;
        if heads * head_dim > MAX_SIZE {
            return Err(ConfigError::Unsupported(format!(
                "{heads} attention heads of {head_dim} are wider than {MAX_SIZE}"
            )));
        }
        if architecture == Architecture::Llama && !current {
            check_slices(&fields, hidden_size, heads, kv_heads)?;
        }
        let biased = matches!(
            architecture,
            Architecture::Llama | Architecture::Gemma | Architecture::Gemma2 | Architecture::Qwen3
        );
        let stablelm = architecture == Architecture::StableLm;
        let gemma2 = architecture == Architecture::Gemma2;
        let attention_bias = biased && fields.flag("attention_bias", false)?;
        if current && fields.flag("use_bidirectional_attention", false)? {
            let reason = "bidirectional attention is not supported";
            return Err(ConfigError::Unsupported(reason.into()));
        }
        let max_positions = fields.size(
            "max_position_embeddings",
            defaults.max_positions,
            usize::MAX,
        )?;
        Ok(Self {
            architecture,
            compatibility,
            vocab_size,
            hidden_size,
            intermediate_size: fields.size(
                "intermediate_size",
                defaults.intermediate_size,
                MAX_SIZE,
            )?,
            layers,
            heads,
            kv_heads,
            head_dim,
            activation: activation(&fields, architecture, compatibility)?,
            norm: norm(&fields, architecture)?,
            rotary: Rotary::parse(
                &fields,
                architecture,
                compatibility,
                head_dim,
                max_positions,
            )?,
            window: window(&fields, architecture, compatibility, layers)?,
            qkv_bias: match architecture {
                Architecture::StableLm => fields.flag("use_qkv_bias", false)?,
                Architecture::Qwen2 => true,
                _ => attention_bias,
            },
            o_bias: attention_bias,
            mlp_bias: current
                && architecture == Architecture::Llama
                && fields.flag("mlp_bias", false)?,
            head_norms: match architecture {
                Architecture::StableLm if fields.flag("qk_layernorm", false)? => HeadNorms::Own,
                Architecture::Qwen3 => HeadNorms::Shared,
                _ => HeadNorms::None,
            },
            scores: scores(&fields, gemma2, head_dim)?,
            output_norms: gemma2,
            logit_cap: cap(&fields, gemma2, "final_logit_softcapping", 30.0)?,
            fused: architecture == Architecture::Phi3,
            parallel_residual: stablelm && fields.flag("use_parallel_residual", false)?,
            tied: fields.flag("tie_word_embeddings", defaults.tied)?,
            embedding_scale: matches!(architecture, Architecture::Gemma | Architecture::Gemma2)
                .then(|| (hidden_size as f64).sqrt()),
            loss_in_logits_dtype: stablelm && !current,
        })
    }
}

fn heads(
    fields: &Fields,
    architecture: Architecture,
    defaults: &Defaults,
) -> Result<(usize, usize), ConfigError> {
    let heads = fields.size("num_attention_heads", defaults.heads, MAX_HEADS)?;
    let nullable = !matches!(
        architecture,
        Architecture::StableLm | Architecture::Gemma | Architecture::Gemma2
    );
    // A written null means "as many as heads"; silence means that only for Llama.
    let kv_heads = if nullable && fields.is_written_null("num_key_value_heads") {
        heads
    } else {
        fields.size(
            "num_key_value_heads",
            defaults.kv_heads.unwrap_or(heads),
            MAX_HEADS,
        )?
    };
    if !heads.is_multiple_of(kv_heads) {
        return Err(ConfigError::Unsupported(format!(
            "{heads} attention heads can't share {kv_heads} key-value heads"
        )));
    }
    Ok((heads, kv_heads))
}

fn head_dim(
    fields: &Fields,
    architecture: Architecture,
    compatibility: Compatibility,
    hidden_size: usize,
    heads: usize,
) -> Result<usize, ConfigError> {
    let current = compatibility == Compatibility::Current;
    let own = match architecture {
        Architecture::Gemma | Architecture::Gemma2 | Architecture::Qwen3 => true,
        Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 | Architecture::Phi3 => {
            current
        }
        Architecture::StableLm => false,
    };
    let indivisible = !hidden_size.is_multiple_of(heads);
    let must_divide = matches!(architecture, Architecture::Llama | Architecture::Gemma2);
    if indivisible && !(own && current && !must_divide) {
        return Err(ConfigError::Unsupported(format!(
            "hidden_size {hidden_size} is not divisible by {heads} attention heads"
        )));
    }
    let default = match architecture {
        Architecture::Gemma | Architecture::Gemma2 => 256,
        Architecture::Qwen3 => 128,
        _ => hidden_size / heads,
    };
    let default_by_null = current && fields.is_written_null("head_dim");
    if own && !default_by_null {
        fields.size("head_dim", default, 1 << 12)
    } else {
        Ok(default)
    }
}

fn activation(
    fields: &Fields,
    architecture: Architecture,
    compatibility: Compatibility,
) -> Result<Activation, ConfigError> {
    let gemma = architecture == Architecture::Gemma;
    let field = if architecture == Architecture::Gemma2 {
        "hidden_activation"
    } else if gemma && compatibility == Compatibility::V4_40 {
        if fields.is_null("hidden_activation") {
            return Ok(Activation::GeluTanh);
        }
        "hidden_activation"
    } else {
        "hidden_act"
    };
    let default = if gemma || field == "hidden_activation" {
        "gelu_pytorch_tanh"
    } else {
        "silu"
    };
    let name = fields.string(field, default)?;
    let current = compatibility == Compatibility::Current;
    match name.as_str() {
        "silu" | "swish" => Ok(Activation::Silu),
        // Gemma's first configurations said so and meant the approximation.
        "gelu" if field == "hidden_act" && gemma => Ok(Activation::GeluTanh),
        "gelu" | "gelu_python" => Ok(Activation::Gelu),
        "gelu_10" => Ok(Activation::GeluClipped),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_accurate" => {
            Ok(Activation::GeluTanh)
        }
        "quick_gelu" => Ok(Activation::GeluQuick),
        "relu" => Ok(Activation::Relu),
        "relu2" => Ok(Activation::ReluSquared),
        "relu6" => Ok(Activation::Relu6),
        "leaky_relu" => Ok(Activation::ReluLeaky),
        "mish" => Ok(Activation::Mish),
        "laplace" => Ok(Activation::Laplace),
        "sigmoid" => Ok(Activation::Sigmoid),
        "tanh" => Ok(Activation::Tanh),
        "linear" => Ok(Activation::Linear),
        "gelu_python_tanh" if current => Ok(Activation::GeluTanh),
        "hardswish" if current => Ok(Activation::HardSwish),
        "sqrtsoftplus" if current => Ok(Activation::SqrtSoftplus),
        _ => Err(ConfigError::Field {
            field,
            found: format!("{name:?}"),
            expected: "an activation of transformers, such as silu or gelu".into(),
        }),
    }
}

fn norm(fields: &Fields, architecture: Architecture) -> Result<Norm, ConfigError> {
    // One below zero may make a NaN of every loss, as in the reference.
    let eps = |field, default| fields.number(field, default);
    Ok(match architecture {
        Architecture::StableLm => Norm::Layer {
            eps: eps("layer_norm_eps", 1e-5)?,
        },
        Architecture::Gemma | Architecture::Gemma2 => Norm::RmsPlusOne {
            eps: eps("rms_norm_eps", 1e-6)?,
        },
        Architecture::Phi3 => Norm::Rms {
            eps: eps("rms_norm_eps", 1e-5)?,
        },
        _ => Norm::Rms {
            eps: eps("rms_norm_eps", 1e-6)?,
        },
    })
}

/// Reads how queries and keys become scores.
fn scores(fields: &Fields, gemma2: bool, head_dim: usize) -> Result<AttentionScores, ConfigError> {
    let scalar = if gemma2 {
        fields.size("query_pre_attn_scalar", 256, MAX_SIZE)?
    } else {
        head_dim
    };
    Ok(AttentionScores {
        scalar: scalar as f64,
        cap: cap(fields, gemma2, "attn_logit_softcapping", 50.0)?,
    })
}

/// Reads what Gemma 2 squashes scores or logits to.
fn cap(
    fields: &Fields,
    there: bool,
    field: &'static str,
    default: f64,
) -> Result<Option<f64>, ConfigError> {
    if !there || fields.is_written_null(field) {
        return Ok(None);
    }
    let cap = fields.number(field, default)?;
    if cap == 0.0 {
        return Err(fields.wrong(field, "a number other than 0"));
    }
    Ok(Some(cap))
}

/// `pretraining_tp` cuts Llama's matrices into slices that are multiplied one by one: the same
/// numbers, unless a matrix can't be cut evenly, which fails in the first forward pass.
fn check_slices(
    fields: &Fields,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
) -> Result<(), ConfigError> {
    let slices = fields.size_or_zero("pretraining_tp", 1, MAX_SIZE)?.max(1);
    let defaults = Defaults::of(Architecture::Llama);
    let inner = fields.size("intermediate_size", defaults.intermediate_size, MAX_SIZE)?;
    let vocabulary = fields.size("vocab_size", defaults.vocab_size, MAX_VOCABULARY)?;
    let keys = hidden / heads * kv_heads;
    if [hidden, keys, inner, vocabulary]
        .iter()
        .all(|size| size.is_multiple_of(slices))
    {
        Ok(())
    } else {
        Err(fields.wrong("pretraining_tp", "a divisor of all sizes"))
    }
}
