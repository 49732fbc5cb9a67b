//! Weights as the chain takes them: fractions of the largest, rounded to 16 bits.
#![warn(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::float_arithmetic,
    clippy::indexing_slicing
)]

use serde::{Deserialize, Serialize};

use subnet::Uid;

/// Weights ready for the chain: nothing is zero, the largest is 65535.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Emitted {
    pub uids: Vec<u16>,
    /// Their weights, in the same order.
    pub values: Vec<u16>,
}

/// Why weights can't be set.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EmitError {
    #[error("there are no weights")]
    Empty,
    #[error("the weight of uid {uid} is {weight}")]
    BadWeight {
        uid: Uid,
        /// What it was to get.
        weight: f64,
    },
}

/// Converts weights as the Python SDK does: divides by the largest, rounds half to even, drops
/// zeros, keeps the order. All zero gives none at all.
#[expect(
    clippy::float_arithmetic,
    reason = "the one place where weights become integers"
)]
pub fn emit(weights: impl IntoIterator<Item = (Uid, f64)>) -> Result<Emitted, EmitError> {
    let weights: Vec<(Uid, f64)> = weights.into_iter().collect();
    if weights.is_empty() {
        return Err(EmitError::Empty);
    }
    if let Some(&(uid, weight)) = weights
        .iter()
        .find(|(_, weight)| !(0.0..f64::INFINITY).contains(weight))
    {
        return Err(EmitError::BadWeight { uid, weight });
    }
    let largest = weights
        .iter()
        .map(|(_, weight)| *weight)
        .fold(0.0, f64::max);
    let mut emitted = Emitted::default();
    if largest == 0.0 {
        return Ok(emitted);
    }
    for (uid, weight) in weights {
        let value = to_u16((weight / largest * f64::from(u16::MAX)).round_ties_even());
        if value > 0 {
            emitted.uids.push(uid.0);
            emitted.values.push(value);
        }
    }
    Ok(emitted)
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a whole number from 0 to 65535: at most the largest weight divided by itself"
)]
fn to_u16(whole: f64) -> u16 {
    whole as u16
}

impl Emitted {
    /// Returns uid and weight, in order.
    pub fn pairs(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        self.uids.iter().copied().zip(self.values.iter().copied())
    }

    /// Returns the number of weights.
    pub fn len(&self) -> usize {
        self.uids.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty()
    }

    /// Returns whether all weight is on one neuron, and on this one.
    pub fn is_self_weight(&self, uid: Uid) -> bool {
        self.uids == [uid.0]
    }

    /// Returns the largest share of the sum, of 65535, rounded as the chain compares it; 0 if
    /// there are none.
    pub fn largest_share(&self) -> u16 {
        let sum: u64 = self
            .values
            .iter()
            .map(|value| u64::from(*value))
            .fold(0, u64::saturating_add);
        let largest = self.values.iter().copied().max().map_or(0, u64::from);
        let share = largest
            .saturating_mul(u64::from(u16::MAX))
            .checked_div(sum)
            .unwrap_or(0);
        u16::try_from(share).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::float_arithmetic,
    clippy::indexing_slicing,
    reason = "a test's numbers are small"
)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const GOLDEN: &str = include_str!("../../tests/fixtures/emit_weights.json");

    #[test]
    fn the_python_sdk_emits_the_same() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        let cases = golden["cases"].as_array().unwrap();
        assert!(cases.len() > 20);
        for case in cases {
            let weights = case["weights"].as_array().unwrap();
            let number = |weight: &Value| match weight.as_str() {
                Some(text) => text.parse().unwrap(),
                None => weight.as_f64().unwrap(),
            };
            let uid = |index: usize| {
                case["in_uids"]
                    .get(index)
                    .map_or(index as u64, |uid| uid.as_u64().unwrap())
            };
            let pairs = weights
                .iter()
                .enumerate()
                .map(|(index, weight)| (Uid(uid(index) as u16), number(weight)));
            let emitted = emit(pairs);
            if case.get("raises").is_some() {
                assert!(emitted.is_err(), "{case}");
                continue;
            }
            let expected = Emitted {
                uids: serde_json::from_value(case["uids"].clone()).unwrap(),
                values: serde_json::from_value(case["vals"].clone()).unwrap(),
            };
            assert_eq!(emitted.unwrap(), expected, "{case}");
        }
    }

    proptest! {
        #[test]
        fn the_largest_is_full_and_order_is_kept(weights in prop::collection::vec(0.0..1e9_f64, 1..300)) {
            let numbered = weights.iter().enumerate().map(|(uid, weight)| (Uid(uid as u16), *weight));
            let emitted = emit(numbered).unwrap();
            prop_assert!(emitted.uids.is_sorted());
            prop_assert!(emitted.values.iter().all(|value| *value > 0));
            let any = weights.iter().any(|weight| *weight > 0.0);
            prop_assert_eq!(emitted.values.iter().max().copied(), any.then_some(u16::MAX));
        }

        #[test]
        fn scaling_by_a_power_of_two_changes_nothing(weights in prop::collection::vec(0.0..1.0_f64, 1..50)) {
            let scaled = |factor: f64| {
                emit(weights.iter().enumerate().map(|(uid, weight)| (Uid(uid as u16), weight * factor)))
            };
            prop_assert_eq!(scaled(1.0).unwrap(), scaled(0.25).unwrap());
        }
    }
}
