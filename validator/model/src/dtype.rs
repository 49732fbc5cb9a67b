//! How numbers are held and attention is computed, as the command line names it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The type a model is computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Dtype {
    /// 32 bits.
    #[serde(rename = "float32")]
    F32,
    /// 16 bits, 8 of them for the exponent.
    #[serde(rename = "bfloat16")]
    Bf16,
    /// 16 bits, 5 of them for the exponent.
    #[serde(rename = "float16")]
    F16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Attention {
    /// Flash attention where device and build have it.
    #[serde(rename = "flash_attention_2")]
    Flash,
    #[serde(rename = "sdpa")]
    Sdpa,
    #[serde(rename = "eager")]
    Eager,
}

/// A name is not one of those accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected one of {0}")]
pub struct UnknownName(&'static str);

impl FromStr for Dtype {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match name {
            "f32" | "float32" => Ok(Self::F32),
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            "f16" | "float16" => Ok(Self::F16),
            _ => Err(UnknownName("float32, bfloat16, float16")),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        })
    }
}

impl FromStr for Attention {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match name {
            "flash_attention_2" => Ok(Self::Flash),
            "sdpa" => Ok(Self::Sdpa),
            "eager" => Ok(Self::Eager),
            _ => Err(UnknownName("flash_attention_2, sdpa, eager")),
        }
    }
}

impl fmt::Display for Attention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flash => "flash_attention_2",
            Self::Sdpa => "sdpa",
            Self::Eager => "eager",
        })
    }
}
