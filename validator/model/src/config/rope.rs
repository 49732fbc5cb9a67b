//! Rotary position embedding: its width, base and scaling, in both layouts of `config.json`.

use std::sync::Arc;

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
#[derive(Debug, Clone, PartialEq)]
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
    /// Long waves are slowed and short ones kept, with a ramp between them.
    Yarn(Yarn),
    /// Phi-3: each wave is slowed by a factor of its own, which depends on the sequence's length.
    Long(LongRope),
}

/// Yarn, settled as far as the configuration settles it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Yarn {
    /// How much long waves are slowed.
    pub factor: f64,
    /// The wave from which on they are slowed, and the one from which on fully.
    pub ramp: (f64, f64),
    /// Cosines and sines are multiplied by this.
    pub attention: f64,
}

/// Scaling of long contexts as Phi-3 has it.
#[derive(Debug, Clone, PartialEq)]
pub struct LongRope {
    /// How much each wave is slowed in sequences of up to `original` tokens.
    pub short: Arc<[f32]>,
    /// The same for longer ones.
    pub long: Arc<[f32]>,
    pub original: usize,
    /// Cosines and sines are multiplied by this.
    pub attention: f64,
}

impl RotaryScaling {
    /// Returns what cosines and sines are multiplied by.
    pub const fn attention(&self) -> f64 {
        match self {
            Self::Yarn(yarn) => yarn.attention,
            Self::Long(long) => long.attention,
            _ => 1.0,
        }
    }
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
        let legacy = if reads_scaling {
            fields.object("rope_scaling")?
        } else {
            None
        };
        // Today the older field counts where it says anything.
        let legacy = legacy.filter(|legacy| !current || legacy.len() > 0);
        let parameters = if current && legacy.is_none() {
            fields.object("rope_parameters")?
        } else {
            None
        };
        let theta_of = |object: &Fields| positive(object, "rope_theta", 10_000.0);
        let of_today = parameters.as_ref().or(legacy.as_ref()).filter(|_| current);
        let theta = match of_today {
            Some(parameters) if !parameters.is_null("rope_theta") => theta_of(parameters)?,
            _ => theta_of(fields)?,
        };
        let partial = matches!(architecture, Architecture::StableLm | Architecture::Phi3);
        let default = if architecture == Architecture::StableLm {
            0.25
        } else {
            1.0
        };
        let factor = match of_today {
            _ if !partial => 1.0,
            Some(parameters) if !parameters.is_null("partial_rotary_factor") => {
                parameters.number("partial_rotary_factor", default)?
            }
            _ => fields.number("partial_rotary_factor", default)?,
        };
        let dims = (factor * head_dim as f64).trunc();
        if !(0.0..=head_dim as f64).contains(&dims) || dims as usize % 2 == 1 {
            return Err(ConfigError::Unsupported(format!(
                "{factor} of {head_dim} dimensions of a head can't be rotated in pairs"
            )));
        }
        let dims = dims as usize;
        let scaling = match (of_today, &legacy) {
            (Some(scaling), _) => {
                let phi3 = architecture == Architecture::Phi3;
                let original = phi3
                    .then(|| fields.size("original_max_position_embeddings", 4096, usize::MAX))
                    .transpose()?;
                CurrentScaling {
                    fields: scaling,
                    max_positions,
                    original,
                    theta,
                    dims,
                }
                .read(phi3)?
            }
            (None, Some(scaling)) => scaling_of_4_40(scaling)?,
            (None, None) => RotaryScaling::None,
        };
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

/// The rotary scaling of a configuration, as today's release reads it.
struct CurrentScaling<'a> {
    fields: &'a Fields,
    max_positions: usize,
    /// Phi-3: positions of the original training, which stand outside the scaling's fields.
    original: Option<usize>,
    theta: f64,
    dims: usize,
}

impl CurrentScaling<'_> {
    fn read(&self, phi3: bool) -> Result<RotaryScaling, ConfigError> {
        let legacy = self.fields.string("type", "default")?;
        let kind = self.fields.string("rope_type", &legacy)?;
        match kind.as_str() {
            "default" => Ok(RotaryScaling::None),
            // Its place for the original length is filled too late for this old name.
            "su" if phi3 && self.fields.is_null("original_max_position_embeddings") => {
                let field = "original_max_position_embeddings";
                Err(self.fields.wrong(field, "a positive number"))
            }
            "longrope" | "su" | "yarn" if phi3 => self.long(),
            _ if phi3 => Err(unknown(&kind)),
            "longrope" => self.long(),
            "yarn" => self.yarn(),
            "linear" => Ok(RotaryScaling::Linear {
                factor: self.required("factor")?,
            }),
            "dynamic" => Ok(RotaryScaling::Dynamic {
                factor: self.required("factor")?,
            }),
            "llama3" => Ok(RotaryScaling::Llama3 {
                factor: self.required("factor")?,
                low: self.required("low_freq_factor")?,
                high: self.required("high_freq_factor")?,
                original: self.original()?,
            }),
            _ => Err(unknown(&kind)),
        }
    }

    fn required(&self, field: &'static str) -> Result<f64, ConfigError> {
        if self.fields.is_null(field) {
            return Err(self.fields.wrong(field, "a positive number"));
        }
        positive(self.fields, field, 1.0)
    }

    fn optional(&self, field: &'static str) -> Result<Option<f64>, ConfigError> {
        if self.fields.is_null(field) {
            return Ok(None);
        }
        self.fields.number(field, 0.0).map(Some)
    }

    /// Returns the positions of the original training.
    fn original(&self) -> Result<f64, ConfigError> {
        match self.original {
            Some(original) => Ok(original as f64),
            None => positive(
                self.fields,
                "original_max_position_embeddings",
                self.max_positions as f64,
            ),
        }
    }

    /// As `_compute_yarn_parameters` does.
    fn yarn(&self) -> Result<RotaryScaling, ConfigError> {
        let original = self.original()?;
        let factor = if self.fields.is_written_null("factor") {
            self.max_positions as f64 / original
        } else {
            self.required("factor")?
        };
        let mscale = |scale: f64| {
            if factor <= 1.0 {
                1.0
            } else {
                0.1 * scale * factor.ln() + 1.0
            }
        };
        let scales = (self.optional("mscale")?, self.optional("mscale_all_dim")?);
        let attention = match (self.optional("attention_factor")?, scales) {
            (Some(factor), _) => factor,
            (None, (Some(all), Some(each))) if all != 0.0 && each != 0.0 => {
                mscale(all) / mscale(each)
            }
            _ => mscale(1.0),
        };
        let dims = self.dims as f64;
        let turns = |field, default: f64| -> Result<f64, ConfigError> {
            let turns = self.optional(field)?.filter(|turns| *turns != 0.0);
            let turns = turns.unwrap_or(default);
            let length = original / (turns * std::f64::consts::TAU);
            Ok(dims * length.ln() / (2.0 * self.theta.ln()))
        };
        let (low, high) = (turns("beta_fast", 32.0)?, turns("beta_slow", 1.0)?);
        let (low, high) = if self.fields.flag("truncate", true)? {
            (low.floor(), high.ceil())
        } else {
            (low, high)
        };
        if !(low.is_finite() && high.is_finite()) {
            let reason = "yarn: no ramp between short and long waves";
            return Err(ConfigError::Unsupported(reason.into()));
        }
        Ok(RotaryScaling::Yarn(Yarn {
            factor,
            ramp: (low.max(0.0), high.min(dims - 1.0)),
            attention,
        }))
    }

    /// As `_compute_longrope_parameters` does.
    fn long(&self) -> Result<RotaryScaling, ConfigError> {
        let original = self.original()?;
        let factors = |field: &'static str| -> Result<Arc<[f32]>, ConfigError> {
            let expected = format!("a list of {} numbers", self.dims / 2);
            let list = self.fields.value(field).and_then(|list| list.as_array());
            let factors = list.and_then(|list| {
                let factors = list.iter().map(|factor| Some(factor.as_f64()? as f32));
                factors.collect::<Option<Arc<[f32]>>>()
            });
            // One factor serves all waves, but not for Phi-3, which checks their number.
            let factors = match factors {
                Some(factors) if factors.len() == 1 && self.original.is_none() => {
                    Some(vec![factors[0]; self.dims / 2].into())
                }
                factors => factors,
            };
            factors
                .filter(|factors| factors.len() == self.dims / 2)
                .ok_or_else(|| self.fields.wrong(field, expected))
        };
        let factor = self.optional("factor")?;
        let factor = factor.unwrap_or(self.max_positions as f64 / original);
        let attention = match self.optional("attention_factor")? {
            Some(attention) => attention,
            None if factor <= 1.0 => 1.0,
            None => (1.0 + factor.ln() / original.ln()).sqrt(),
        };
        Ok(RotaryScaling::Long(LongRope {
            short: factors("short_factor")?,
            long: factors("long_factor")?,
            original: original as usize,
            attention,
        }))
    }
}

fn unknown(kind: &str) -> ConfigError {
    ConfigError::Unsupported(format!("rotary scaling {kind:?} is not supported"))
}
