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

/// Converts weights of which none may be more than `limit` (of 65535) of all: what is above is cut
/// to it, as the SDK's `normalize_max_weight` does. Where so few weights can't keep the limit, all
/// are equal.
#[expect(
    clippy::float_arithmetic,
    reason = "weights are numbers until they are converted"
)]
pub fn emit_within(
    weights: impl IntoIterator<Item = (Uid, f64)>,
    limit: u16,
) -> Result<Emitted, EmitError> {
    let mut weights: Vec<(Uid, f64)> = weights.into_iter().collect();
    let whole = emit(weights.iter().copied())?;
    if limit == u16::MAX || whole.largest_share() <= limit {
        return Ok(whole);
    }
    weights.retain(|(_, weight)| *weight > 0.0);
    let allowed = f64::from(limit) / f64::from(u16::MAX);
    let mut emitted = whole;
    // Rounding to 16 bits may lift the largest a little above its share: then a little less.
    for shave in [1e-7, 1e-5, 1e-4, 1e-3, 1e-2] {
        let cutoff = cutoff(&weights, allowed * (1.0 - shave));
        let cut = weights
            .iter()
            .map(|(uid, weight)| (*uid, weight.min(cutoff)));
        emitted = emit(cut)?;
        if emitted.largest_share() <= limit {
            break;
        }
    }
    Ok(emitted)
}

/// Returns the weight above which none may be, so that none is more than `allowed` of the sum.
#[expect(
    clippy::float_arithmetic,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "there are a few hundred weights"
)]
fn cutoff(weights: &[(Uid, f64)], allowed: f64) -> f64 {
    let mut values: Vec<f64> = weights.iter().map(|(_, weight)| *weight).collect();
    values.sort_by(f64::total_cmp);
    let smallest = values.first().copied().unwrap_or(0.0);
    // With the `above` largest cut to c, c = allowed * (rest + above * c).
    let mut rest: f64 = values.iter().sum();
    for (above, value) in (1_usize..).zip(values.iter().rev()) {
        rest -= value;
        let left = 1.0 - allowed * above as f64;
        if left <= 0.0 {
            break;
        }
        let cutoff = allowed * rest / left;
        let next = values.len().checked_sub(above.saturating_add(1));
        let next = next.and_then(|next| values.get(next));
        if next.is_none_or(|next| *next <= cutoff) {
            return cutoff.max(smallest);
        }
    }
    smallest
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

    /// Returns the largest share of the sum, of 65535, rounded up: the chain compares fractions. 0 if
    /// there are none.
    pub fn largest_share(&self) -> u16 {
        let sum: u64 = self
            .values
            .iter()
            .map(|value| u64::from(*value))
            .fold(0, u64::saturating_add);
        let largest = self.values.iter().copied().max().map_or(0, u64::from);
        let share = if sum == 0 {
            0
        } else {
            largest.saturating_mul(u64::from(u16::MAX)).div_ceil(sum)
        };
        u16::try_from(share).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
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

    #[test]
    fn what_is_above_the_limit_is_cut_as_the_sdk_cuts_it() {
        let of = |weights: &[f64], share: f64| {
            let numbered = weights
                .iter()
                .enumerate()
                .map(|(uid, weight)| (Uid(uid as u16), *weight));
            let limit = (share * 65_535.0) as u16;
            emit_within(numbered, limit).unwrap().values
        };
        // normalize_max_weight([.7, .2, .05, .05], .4) = [.4, .4, .1, .1]
        assert_eq!(
            of(&[0.7, 0.2, 0.05, 0.05], 0.4),
            [65_535, 65_535, 16_384, 16_384]
        );
        // normalize_max_weight([.5, .3, .1, .1], .45) = [.45, .33, .11, .11]; the two last digits are what keeps below
        // the limit once all is rounded.
        assert_eq!(
            of(&[0.5, 0.3, 0.1, 0.1], 0.45),
            [65_535, 48_062, 16_021, 16_021]
        );
        assert_eq!(
            of(&[0.9, 0.1], 0.4),
            [65_535, 65_535],
            "two can't be below a half each"
        );
        assert_eq!(of(&[0.5, 0.5], 1.0), [65_535, 65_535]);
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
        fn no_weight_is_above_the_limit_where_that_can_be(
            weights in prop::collection::vec(0.001..1e3_f64, 2..200),
            limit in 400_u16..,
        ) {
            let numbered = || weights.iter().enumerate().map(|(uid, weight)| (Uid(uid as u16), *weight));
            let emitted = emit_within(numbered(), limit).unwrap();
            let equal = f64::from(u16::MAX) / weights.len() as f64;
            if f64::from(limit) > equal * 1.02 {
                prop_assert!(emitted.largest_share() <= limit, "{} > {limit}", emitted.largest_share());
            } else if f64::from(limit) < equal * 0.98 {
                prop_assert!(emitted.values.iter().all(|value| *value == u16::MAX));
            }
            // Whoever had more has no less.
            let value = |uid: usize| emitted.pairs().find(|(other, _)| usize::from(*other) == uid).map_or(0, |(_, value)| value);
            for uid in 1..weights.len() {
                if weights[uid] > weights[uid - 1] {
                    prop_assert!(value(uid) >= value(uid - 1));
                }
            }
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
