//! Weights: softmax over win rates, scaled by the reward share, into a moving average. All in f32.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use subnet::{Real, Uid};

/// Softmax over the win rates of one step; adds up to 1.
pub type StepWeights = BTreeMap<Uid, f32>;

/// The running weights: one number per uid of the metagraph, all of them finite.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<f32>", into = "Vec<f32>")]
pub struct Weights(Vec<f32>);

impl From<Vec<f32>> for Weights {
    fn from(values: Vec<f32>) -> Self {
        Self(values.into_iter().map(finite).collect())
    }
}

impl FromIterator<Real> for Weights {
    fn from_iter<I: IntoIterator<Item = Real>>(values: I) -> Self {
        let values = values.into_iter().map(|value| finite(to_f32(value.0)));
        Self(values.collect())
    }
}

impl From<Weights> for Vec<f32> {
    fn from(weights: Weights) -> Self {
        weights.0
    }
}

impl Weights {
    /// Returns zero weights for `n` uids.
    pub fn zero(n: usize) -> Self {
        Self(vec![0.0; n])
    }

    /// Returns the weights, indexed by uid.
    pub fn values(&self) -> &[f32] {
        &self.0
    }

    /// Returns whether there is nothing to set: no weight is above 0.
    pub fn is_zero(&self) -> bool {
        !self.0.iter().any(|weight| *weight > 0.0)
    }

    /// Returns the weight of a uid, 0 if it is beyond the metagraph.
    pub fn get(&self, uid: Uid) -> f32 {
        self.0.get(usize::from(uid.0)).copied().unwrap_or(0.0)
    }

    /// Returns the weights with one uid's set to zero, for a uid whose hotkey changed hands.
    #[must_use]
    pub fn without(mut self, uid: Uid) -> Self {
        if let Some(weight) = self.0.get_mut(usize::from(uid.0)) {
            *weight = 0.0;
        }
        self
    }

    /// Returns the weights cut or padded with zeros to a metagraph of `n` uids.
    #[must_use]
    pub fn resized(mut self, n: usize) -> Self {
        self.0.resize(n, 0.0);
        self
    }

    /// Returns the moving average after a step, for a metagraph of `n` uids. `scale` is what the
    /// step's weights add up to: the number of competitions times the reward share.
    ///
    /// A step that weighs nobody changes nothing.
    #[must_use]
    pub fn after(&self, step: &StepWeights, n: usize, scale: f64, alpha: f64) -> Self {
        let mut new = Self::zero(n);
        for (uid, weight) in step {
            if let Some(slot) = new.0.get_mut(usize::from(uid.0)) {
                *slot = *weight;
            }
        }
        let old = self.clone().resized(n);
        let sum: f32 = new.0.iter().sum();
        if sum.is_nan() || sum <= 0.0 {
            return old;
        }
        let factor = to_f32(scale) / sum;
        let (keep, take) = (to_f32(alpha), to_f32(1.0 - alpha));
        let blend = |(old, new): (&f32, &f32)| finite(keep * old + take * (new * factor));
        Self(old.0.iter().zip(&new.0).map(blend).collect())
    }
}

/// Returns the softmax of win rate / temperature.
pub fn softmax(win_rates: &BTreeMap<Uid, f64>, temperature: f64) -> StepWeights {
    let scaled: BTreeMap<Uid, f32> = win_rates
        .iter()
        .map(|(uid, rate)| (*uid, to_f32(*rate) / to_f32(temperature)))
        .collect();
    let largest = scaled.values().copied().fold(f32::NEG_INFINITY, f32::max);
    // Through f64, because the f32 `exp` of two systems may differ in the last bit.
    let powers: StepWeights = scaled
        .into_iter()
        .map(|(uid, value)| (uid, to_f32(f64::from(value - largest).exp())))
        .collect();
    let sum: f32 = powers.values().sum();
    powers
        .into_iter()
        .map(|(uid, power)| (uid, finite(power / sum)))
        .collect()
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is what the rules ask for"
)]
fn to_f32(value: f64) -> f32 {
    value as f32
}

/// NaN becomes 0 and an infinity the largest number, as torch's `nan_to_num` has it.
fn finite(value: f32) -> f32 {
    if value.is_nan() {
        0.0
    } else {
        value.clamp(f32::MIN, f32::MAX)
    }
}
