//! What a release refuses of `config.json` before it builds a model: kinds and values of fields
//! that the decoder itself may not even look at, as data.
//!
//! 4.40: `PretrainedConfig.__init__` and `nn.Embedding`. 5: the strict dataclasses of the
//! configurations, which take no number for a switch and no whole number for a float.

use serde_json::Value;

use super::{Architecture, Compatibility, ConfigError, fields::Fields};

/// What a value has to be; null besides where a row says so.
#[derive(Clone, Copy, PartialEq)]
enum FieldKind {
    Int,
    /// Written with a point or an exponent.
    Float,
    Number,
    Switch,
    Text,
    Object,
    /// A whole number or a list of these.
    Ids,
}

impl FieldKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Int => "a whole number",
            Self::Float => "a number with a decimal point",
            Self::Number => "a number",
            Self::Switch => "true or false",
            Self::Text => "a text",
            Self::Object => "an object",
            Self::Ids => "a whole number or a list of these",
        }
    }

    fn fits(self, value: &Value) -> bool {
        let is_int = |value: &Value| value.is_number() && !value.is_f64();
        match self {
            Self::Int => is_int(value),
            Self::Float => value.is_f64(),
            Self::Number => value.is_number(),
            Self::Switch => value.is_boolean(),
            Self::Text => value.is_string(),
            Self::Object => value.is_object(),
            Self::Ids => {
                is_int(value) || value.as_array().is_some_and(|ids| ids.iter().all(is_int))
            }
        }
    }
}

/// Which architectures a row is about.
#[derive(Clone, Copy)]
enum Of {
    All,
    Only(&'static [Architecture]),
    AllBut(&'static [Architecture]),
}

impl Of {
    fn includes(self, architecture: Architecture) -> bool {
        match self {
            Self::All => true,
            Self::Only(list) => list.contains(&architecture),
            Self::AllBut(list) => !list.contains(&architecture),
        }
    }
}

struct FieldRow {
    of: Of,
    fields: &'static [&'static str],
    kind: FieldKind,
    nullable: bool,
}

const fn row(of: Of, fields: &'static [&'static str], kind: FieldKind, nullable: bool) -> FieldRow {
    FieldRow {
        of,
        fields,
        kind,
        nullable,
    }
}

use Architecture::{Gemma, Gemma2, Llama, Mistral, Phi3, Qwen2, Qwen3, StableLm};

/// The kinds of fields in 5.
static CURRENT: &[FieldRow] = &[
    row(
        Of::All,
        &[
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "max_position_embeddings",
        ],
        FieldKind::Int,
        false,
    ),
    row(
        Of::Only(&[Mistral, StableLm, Gemma, Gemma2]),
        &["num_key_value_heads"],
        FieldKind::Int,
        false,
    ),
    row(
        Of::Only(&[Llama, Qwen2, Qwen3, Phi3]),
        &["num_key_value_heads"],
        FieldKind::Int,
        true,
    ),
    row(
        Of::Only(&[Gemma, Gemma2, Qwen3]),
        &["head_dim"],
        FieldKind::Int,
        false,
    ),
    row(
        Of::Only(&[Llama, Mistral]),
        &["head_dim"],
        FieldKind::Int,
        true,
    ),
    row(Of::All, &["initializer_range"], FieldKind::Float, false),
    row(
        Of::AllBut(&[StableLm]),
        &["rms_norm_eps"],
        FieldKind::Float,
        false,
    ),
    row(
        Of::Only(&[StableLm]),
        &["layer_norm_eps"],
        FieldKind::Float,
        false,
    ),
    row(
        Of::All,
        &["use_cache", "tie_word_embeddings"],
        FieldKind::Switch,
        false,
    ),
    row(
        Of::Only(&[Llama, Gemma, Gemma2, Qwen3]),
        &["attention_bias"],
        FieldKind::Switch,
        false,
    ),
    row(Of::Only(&[Llama]), &["mlp_bias"], FieldKind::Switch, false),
    row(
        Of::Only(&[StableLm]),
        &["use_qkv_bias", "qk_layernorm", "use_parallel_residual"],
        FieldKind::Switch,
        false,
    ),
    row(
        Of::Only(&[Qwen2, Qwen3]),
        &["use_sliding_window"],
        FieldKind::Switch,
        false,
    ),
    row(
        Of::Only(&[Gemma, Gemma2]),
        &["use_bidirectional_attention"],
        FieldKind::Switch,
        true,
    ),
    row(
        Of::All,
        &["pad_token_id", "bos_token_id"],
        FieldKind::Int,
        true,
    ),
    row(Of::All, &["eos_token_id"], FieldKind::Ids, true),
    row(
        Of::Only(&[Llama]),
        &["pretraining_tp"],
        FieldKind::Int,
        true,
    ),
    row(
        Of::Only(&[Mistral, Qwen2, Qwen3, Gemma2, Phi3]),
        &["sliding_window"],
        FieldKind::Int,
        true,
    ),
    row(
        Of::Only(&[Qwen2, Qwen3]),
        &["max_window_layers"],
        FieldKind::Int,
        false,
    ),
    row(
        Of::AllBut(&[Gemma2]),
        &["hidden_act"],
        FieldKind::Text,
        false,
    ),
    row(
        Of::Only(&[Gemma2]),
        &["hidden_activation"],
        FieldKind::Text,
        false,
    ),
    row(
        Of::Only(&[Llama, Gemma2]),
        &["attention_dropout"],
        FieldKind::Number,
        true,
    ),
    row(
        Of::AllBut(&[Llama, Gemma2]),
        &["attention_dropout"],
        FieldKind::Number,
        false,
    ),
    row(
        Of::Only(&[StableLm]),
        &["hidden_dropout"],
        FieldKind::Number,
        false,
    ),
    row(
        Of::Only(&[Phi3]),
        &["resid_pdrop", "embd_pdrop"],
        FieldKind::Number,
        false,
    ),
    row(
        Of::Only(&[Phi3]),
        &["original_max_position_embeddings"],
        FieldKind::Int,
        false,
    ),
    row(
        Of::Only(&[Gemma2]),
        &["query_pre_attn_scalar"],
        FieldKind::Int,
        false,
    ),
    row(
        Of::Only(&[Gemma2]),
        &["final_logit_softcapping", "attn_logit_softcapping"],
        FieldKind::Float,
        true,
    ),
    row(
        Of::All,
        &["rope_parameters", "rope_scaling", "id2label"],
        FieldKind::Object,
        true,
    ),
];

/// The kinds of fields in 4.40 that are looked at before the model is built.
static V4_40: &[FieldRow] = &[
    row(Of::All, &["id2label", "label2id"], FieldKind::Object, true),
    row(Of::All, &["attention_dropout"], FieldKind::Number, false),
];

/// What `torch` has of these names, which is what `torch_dtype` is looked up in.
const DTYPES: [&str; 26] = [
    "float32",
    "float",
    "float64",
    "double",
    "float16",
    "half",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
    "complex64",
    "complex128",
    "cfloat",
    "cdouble",
    "uint8",
    "int8",
    "int16",
    "short",
    "int32",
    "int",
    "int64",
    "long",
    "bool",
    "uint16",
    "uint32",
];

/// What a classifier may be for.
const PROBLEMS: [&str; 3] = [
    "regression",
    "single_label_classification",
    "multi_label_classification",
];

/// Refuses what the release refuses; `vocabulary` is the number of embeddings.
pub(super) fn admit(
    fields: &Fields,
    architecture: Architecture,
    compatibility: Compatibility,
    vocabulary: usize,
) -> Result<(), ConfigError> {
    let current = compatibility == Compatibility::Current;
    let quantized = if current {
        !fields.is_null("quantization_config")
    } else {
        // Even null is taken for a configuration.
        fields.is_written("quantization_config")
    };
    if quantized {
        return Err(ConfigError::Unsupported(
            "quantized checkpoints are refused".into(),
        ));
    }
    check_kinds(if current { CURRENT } else { V4_40 }, fields, architecture)?;
    if fields.is_written("use_return_dict") {
        let reason = "use_return_dict can't be set";
        return Err(ConfigError::Unsupported(reason.into()));
    }
    if current && architecture == Llama {
        let range = fields.number("initializer_range", 0.02)?;
        if !(0.0..=1.0).contains(&range) {
            return Err(fields.wrong("initializer_range", "a number from 0 to 1"));
        }
    }
    if let Some(labels) = fields.object("id2label")?
        && !labels.names().all(is_python_int)
    {
        return Err(fields.wrong("id2label", "an object with numbers for names"));
    }
    if !current
        && let Some(kind) = fields.value("problem_type")
        && !kind.as_str().is_some_and(|kind| PROBLEMS.contains(&kind))
    {
        return Err(fields.wrong("problem_type", PROBLEMS.join(" or ")));
    }
    let dtypes: &[&'static str] = if current {
        &["dtype", "torch_dtype"]
    } else {
        &["torch_dtype"]
    };
    for &field in dtypes {
        if let Some(Value::String(name)) = fields.value(field)
            && !DTYPES.contains(&name.as_str())
        {
            return Err(fields.wrong(field, "a dtype of torch, such as float32 or bfloat16"));
        }
    }
    check_padding(fields, architecture, vocabulary)
}

fn check_kinds(
    rows: &[FieldRow],
    fields: &Fields,
    architecture: Architecture,
) -> Result<(), ConfigError> {
    for row in rows.iter().filter(|row| row.of.includes(architecture)) {
        for &field in row.fields {
            let fits = match fields.written(field) {
                None => true,
                Some(Value::Null) => row.nullable,
                Some(value) => row.kind.fits(value),
            };
            if !fits {
                return Err(fields.wrong(field, row.kind.name()));
            }
        }
    }
    Ok(())
}

/// The embedding of the padding token must be one of the vocabulary's, counted from either end.
fn check_padding(
    fields: &Fields,
    architecture: Architecture,
    vocabulary: usize,
) -> Result<(), ConfigError> {
    let default = match architecture {
        Gemma | Gemma2 => Some(0),
        Phi3 => Some(32_000),
        Llama | Mistral | StableLm | Qwen2 | Qwen3 => None,
    };
    let padding = match fields.written("pad_token_id") {
        None => default,
        Some(Value::Null) => None,
        Some(value) => Some(
            value
                .as_i64()
                .ok_or_else(|| fields.wrong("pad_token_id", "a whole number"))?,
        ),
    };
    let vocabulary = vocabulary as i64;
    match padding {
        Some(padding) if !(-vocabulary..vocabulary).contains(&padding) => {
            let bounds = format!("a token of the {vocabulary} in the vocabulary");
            Err(fields.wrong("pad_token_id", bounds))
        }
        _ => Ok(()),
    }
}

/// Returns whether Python's `int()` reads a text.
fn is_python_int(text: &str) -> bool {
    let text = text.trim();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    digits
        .split('_')
        .all(|group| !group.is_empty() && group.bytes().all(|b| b.is_ascii_digit()))
}
