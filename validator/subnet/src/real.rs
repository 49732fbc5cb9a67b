//! A number that survives JSON: NaN and the infinities are written as strings.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A floating-point number; in JSON non-finite ones are `"nan"`, `"inf"` and `"-inf"`.
///
/// Two NaNs are equal here, because two records of the same step are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Real(pub f64);

impl PartialEq for Real {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
            || self.0 == other.0
            || (self.0.is_nan() && other.0.is_nan())
    }
}

impl From<f64> for Real {
    fn from(value: f64) -> Self {
        Self(value)
    }
}

impl From<f32> for Real {
    fn from(value: f32) -> Self {
        Self(f64::from(value))
    }
}

impl fmt::Display for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            value if value.is_nan() => f.pad("nan"),
            f64::INFINITY => f.pad("inf"),
            f64::NEG_INFINITY => f.pad("-inf"),
            value => value.fmt(f),
        }
    }
}

impl Serialize for Real {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() {
            serializer.serialize_f64(self.0)
        } else {
            serializer.collect_str(self)
        }
    }
}

impl<'de> Deserialize<'de> for Real {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Through `Value`, which knows how serde_json hands over numbers of any precision.
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Number(number) => number.as_f64(),
            serde_json::Value::String(text) => match text.as_str() {
                "nan" => Some(f64::NAN),
                "inf" => Some(f64::INFINITY),
                "-inf" => Some(f64::NEG_INFINITY),
                _ => None,
            },
            _ => None,
        }
        .map(Self)
        .ok_or_else(|| D::Error::custom("expected a number, \"nan\", \"inf\" or \"-inf\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_what_is_not_finite() {
        let json = r#"[1.5,2,-3,"nan","inf","-inf"]"#;
        let values: Vec<Real> = serde_json::from_str(json).unwrap();
        assert_eq!(
            values,
            [1.5, 2.0, -3.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(Real)
        );
        assert_eq!(
            serde_json::to_string(&values).unwrap(),
            r#"[1.5,2.0,-3.0,"nan","inf","-inf"]"#
        );
        assert!(serde_json::from_str::<Real>("\"NaN\"").is_err());
    }
}
