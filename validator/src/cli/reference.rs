//! `validator evaluate --reference`: losses beside those of an independent implementation.

use std::fmt;

use serde_json::{Value, json};
use subnet::Real;

/// What the independent implementation says of the losses.
pub(super) enum Reference {
    Compared {
        losses: Vec<f64>,
        /// The largest difference between losses of a sample.
        worst: f64,
        /// The difference between the means.
        mean: f64,
    },
    /// It leaves out something of this model.
    LeftOut(String),
}

impl Reference {
    pub(super) fn of(compared: Result<Vec<f64>, String>, losses: &[f64]) -> Self {
        let reference = match compared {
            Ok(reference) => reference,
            Err(what) => return Self::LeftOut(what),
        };
        // What is not a number, or not finite, has to be so in both.
        let apart = |(ours, theirs): (&f64, &f64)| {
            if ours.total_cmp(theirs).is_eq() || (ours.is_nan() && theirs.is_nan()) {
                0.0
            } else if ours.is_finite() && theirs.is_finite() {
                (ours - theirs).abs()
            } else {
                f64::INFINITY
            }
        };
        Self::Compared {
            worst: losses.iter().zip(&reference).map(apart).fold(0.0, f64::max),
            mean: mean(losses) - mean(&reference),
            losses: reference,
        }
    }

    pub(super) fn json(&self) -> Value {
        match self {
            Self::Compared {
                losses,
                worst,
                mean,
            } => json!({
                "losses": losses.iter().copied().map(Real).collect::<Vec<_>>(),
                "worst_difference": Real(*worst),
                "difference_of_means": Real(*mean),
            }),
            Self::LeftOut(what) => json!({ "left_out": what }),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compared { worst, mean, .. } => write!(
                f,
                "mean loss {mean:+.1e} from candle-transformers in float32, a sample at most {worst:.1e}"
            ),
            Self::LeftOut(what) => write!(f, "not comparable: {what}"),
        }
    }
}

/// The mean over the samples that have a label at all.
pub(super) fn mean(losses: &[f64]) -> f64 {
    let scored: Vec<f64> = losses
        .iter()
        .copied()
        .filter(|loss| !loss.is_nan())
        .collect();
    scored.iter().sum::<f64>() / scored.len() as f64
}
