//! Reading `config.json`: defaults of each class, and what each release does with each field.

use super::{
    Activation, Architecture, Compatibility, ConfigError, DecoderSpec, Norm, Rotary, Window,
    fields::Fields,
};

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
        if !fields.is_null("quantization_config") {
            return Err(ConfigError::Unsupported(
                "quantized checkpoints are refused".into(),
            ));
        }
        let current = compatibility == Compatibility::Current;
        let defaults = Defaults::of(architecture);
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
        let llama_like = matches!(architecture, Architecture::Llama | Architecture::Gemma);
        let stablelm = architecture == Architecture::StableLm;
        let attention_bias = llama_like && fields.flag("attention_bias", false)?;
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
            vocab_size: fields.size("vocab_size", defaults.vocab_size, MAX_VOCABULARY)?,
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
            qk_layernorm: stablelm && fields.flag("qk_layernorm", false)?,
            parallel_residual: stablelm && fields.flag("use_parallel_residual", false)?,
            tied: fields.flag("tie_word_embeddings", defaults.tied)?,
            embedding_scale: (architecture == Architecture::Gemma)
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
    let nullable = !matches!(architecture, Architecture::StableLm | Architecture::Gemma);
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
        Architecture::Gemma => true,
        Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 => current,
        Architecture::StableLm => false,
    };
    let indivisible = !hidden_size.is_multiple_of(heads);
    if indivisible && !(own && current && architecture != Architecture::Llama) {
        return Err(ConfigError::Unsupported(format!(
            "hidden_size {hidden_size} is not divisible by {heads} attention heads"
        )));
    }
    let default = if architecture == Architecture::Gemma {
        256
    } else {
        hidden_size / heads
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
    let field = if gemma && compatibility == Compatibility::V4_40 {
        if fields.is_null("hidden_activation") {
            return Ok(Activation::GeluTanh);
        }
        "hidden_activation"
    } else {
        "hidden_act"
    };
    let default = if gemma { "gelu_pytorch_tanh" } else { "silu" };
    let name = fields.string(field, default)?;
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
        _ => Err(ConfigError::Field {
            field,
            found: format!("{name:?}"),
            expected: "an activation of transformers, such as silu or gelu".into(),
        }),
    }
}

fn norm(fields: &Fields, architecture: Architecture) -> Result<Norm, ConfigError> {
    let eps = |field, default| {
        let eps = fields.number(field, default)?;
        if eps >= 0.0 {
            Ok(eps)
        } else {
            Err(fields.wrong(field, "a number that is not negative"))
        }
    };
    Ok(match architecture {
        Architecture::StableLm => Norm::Layer {
            eps: eps("layer_norm_eps", 1e-5)?,
        },
        Architecture::Gemma => Norm::RmsPlusOne {
            eps: eps("rms_norm_eps", 1e-6)?,
        },
        _ => Norm::Rms {
            eps: eps("rms_norm_eps", 1e-6)?,
        },
    })
}

fn window(
    fields: &Fields,
    architecture: Architecture,
    compatibility: Compatibility,
    layers: usize,
) -> Result<Option<Window>, ConfigError> {
    let current = compatibility == Compatibility::Current;
    let qwen2 = architecture == Architecture::Qwen2;
    // transformers 4.40 masks all layers of Qwen2 by `sliding_window`, even when
    // `use_sliding_window` is off; today the switch counts, for the layers past `max_window_layers`.
    let first_layer = if qwen2 && current {
        if !fields.flag("use_sliding_window", false)? {
            return Ok(None);
        }
        first_sliding(fields, layers)?
    } else {
        0
    };
    if !(qwen2 || architecture == Architecture::Mistral) {
        return Ok(None);
    }
    if fields.is_written_null("sliding_window") {
        return Ok(None);
    }
    let size = fields.size("sliding_window", 4096, usize::MAX)?;
    // In 4.40 a token sees `size` tokens before itself; today it sees `size` with itself.
    Ok(Some(Window {
        left: if current { size - 1 } else { size },
        first_layer,
    }))
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

/// Returns the first of the layers with a window, which must be the last ones.
fn first_sliding(fields: &Fields, layers: usize) -> Result<usize, ConfigError> {
    let kinds = fields.strings("layer_types")?;
    if kinds.is_empty() {
        return Ok(fields
            .size_or_zero("max_window_layers", 28, usize::MAX)?
            .min(layers));
    }
    let first = kinds
        .iter()
        .take_while(|&kind| kind == "full_attention")
        .count();
    let sorted = kinds[first..]
        .iter()
        .all(|kind| kind == "sliding_attention");
    if sorted && kinds.len() == layers {
        Ok(first)
    } else {
        Err(fields.wrong(
            "layer_types",
            "full_attention first, then sliding_attention",
        ))
    }
}
