//! Rotary position embedding: its width, base and scaling, in both layouts of `config.json`.

use super::{Architecture, Compatibility, ConfigError, fields::Fields};

/// Rotary position embedding of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotary {
    /// How many dimensions of each head are rotated; even, the rest pass through.
    pub dims: usize,
    /// Base of the wave lengths.
    pub theta: f64,
    /// Positions the model was trained for; only dynamic scaling looks at it.
    pub max_positions: usize,
    /// How longer contexts are squeezed in.
    pub scaling: RotaryScaling,
}

/// How positions past the trained length are squeezed in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RotaryScaling {
    /// Not at all.
    None,
    /// Positions are divided by the factor.
    Linear { factor: f64 },
    /// The base grows with the length of the sequence once it exceeds `max_positions`.
    Dynamic { factor: f64 },
    /// Llama 3.1: long waves are slowed by the factor, short ones kept, those between blended.
    Llama3 {
        /// How much long waves are slowed.
        factor: f64,
        /// Waves longer than `original / low` positions are slowed fully.
        low: f64,
        /// Waves shorter than `original / high` positions are kept.
        high: f64,
        /// Positions of the original training.
        original: f64,
    },
}

impl Rotary {
    pub(super) fn parse(
        fields: &Fields,
        architecture: Architecture,
        compatibility: Compatibility,
        head_dim: usize,
        max_positions: usize,
    ) -> Result<Self, ConfigError> {
        let current = compatibility == Compatibility::Current;
        let reads_scaling =
            current || matches!(architecture, Architecture::Llama | Architecture::StableLm);
        let parameters = if current {
            fields.object("rope_parameters")?
        } else {
            None
        };
        let legacy = if reads_scaling && parameters.is_none() {
            fields.object("rope_scaling")?
        } else {
            None
        };
        let theta_of = |object: &Fields| positive(object, "rope_theta", 10_000.0);
        let theta = match &parameters {
            Some(parameters) if !parameters.is_null("rope_theta") => theta_of(parameters)?,
            _ => theta_of(fields)?,
        };
        let scaling = match (&parameters, &legacy) {
            (Some(scaling), _) | (None, Some(scaling)) if current => {
                current_scaling(scaling, max_positions)?
            }
            (None, Some(scaling)) => scaling_of_4_40(scaling)?,
            _ => RotaryScaling::None,
        };
        let factor = match &parameters {
            _ if architecture != Architecture::StableLm => 1.0,
            Some(parameters) if !parameters.is_null("partial_rotary_factor") => {
                parameters.number("partial_rotary_factor", 0.25)?
            }
            _ => fields.number("partial_rotary_factor", 0.25)?,
        };
        let dims = (factor * head_dim as f64).trunc();
        if !(0.0..=head_dim as f64).contains(&dims) || dims as usize % 2 == 1 {
            return Err(ConfigError::Unsupported(format!(
                "{factor} of {head_dim} dimensions of a head can't be rotated in pairs"
            )));
        }
        let dims = dims as usize;
        if dims == 2 && matches!(scaling, RotaryScaling::Dynamic { .. }) {
            return Err(ConfigError::Unsupported(
                "dynamic rotary scaling needs more than two rotated dimensions".into(),
            ));
        }
        Ok(Self {
            dims,
            theta,
            max_positions,
            scaling,
        })
    }
}

fn positive(fields: &Fields, field: &'static str, default: f64) -> Result<f64, ConfigError> {
    let number = fields.number(field, default)?;
    if number > 0.0 {
        Ok(number)
    } else {
        Err(fields.wrong(field, "a positive number"))
    }
}

/// transformers 4.40 takes exactly `{"type": "linear" | "dynamic", "factor": float > 1}`.
fn scaling_of_4_40(scaling: &Fields) -> Result<RotaryScaling, ConfigError> {
    let kind = scaling.string("type", "")?;
    if kind.is_empty() || scaling.len() != 2 {
        let named = scaling.string("rope_type", &kind)?;
        return Err(ConfigError::Unsupported(format!(
            "rope_scaling must be exactly {{type, factor}}, found {} fields of type {named:?}",
            scaling.len()
        )));
    }
    let factor = scaling
        .float("factor")
        .filter(|&factor| factor > 1.0)
        .ok_or_else(|| scaling.wrong("factor", "a float greater than 1"))?;
    match kind.as_str() {
        "linear" => Ok(RotaryScaling::Linear { factor }),
        "dynamic" => Ok(RotaryScaling::Dynamic { factor }),
        _ => Err(unknown(&kind)),
    }
}

fn current_scaling(scaling: &Fields, max_positions: usize) -> Result<RotaryScaling, ConfigError> {
    let legacy = scaling.string("type", "default")?;
    let kind = scaling.string("rope_type", &legacy)?;
    let required = |field| {
        if scaling.is_null(field) {
            return Err(scaling.wrong(field, "a positive number"));
        }
        positive(scaling, field, 1.0)
    };
    match kind.as_str() {
        "default" => Ok(RotaryScaling::None),
        "linear" => Ok(RotaryScaling::Linear {
            factor: required("factor")?,
        }),
        "dynamic" => Ok(RotaryScaling::Dynamic {
            factor: required("factor")?,
        }),
        "llama3" => Ok(RotaryScaling::Llama3 {
            factor: required("factor")?,
            low: required("low_freq_factor")?,
            high: required("high_freq_factor")?,
            original: positive(
                scaling,
                "original_max_position_embeddings",
                max_positions as f64,
            )?,
        }),
        _ => Err(unknown(&kind)),
    }
}

fn unknown(kind: &str) -> ConfigError {
    ConfigError::Unsupported(format!("rotary scaling {kind:?} is not supported"))
}
