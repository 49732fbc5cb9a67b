//! Behavioral copies: models of a step whose losses on the same samples are closer than chance explains.
//!
//! All models of a step see the same samples. The distance of two is the median over the samples of the difference of
//! their losses, which noise in a few samples does not move. What is close depends on the subnet: fine-tunes of one
//! base are near by nature. So a pair is measured against the other pairs of its step: subnets that publish
//! measurements found copies 58 times nearer than the nearest independent pair; a pair 20 times nearer than the median
//! pair is called near here.
//!
//! Limits: it is a report and never a verdict. Losses are means over a sample's tokens, so two models that are good
//! in the same way come close; and with few models there is nothing to measure a pair against.

use serde::Serialize;

use crate::{Index, IndexError, rows::VerdictRow};
use subnet::{BlockNumber, Uid};

/// A pair is near when it is so many times nearer than the median pair.
const NEARER: f64 = 20.0;

/// Fewer pairs say nothing of what is usual: those of four models.
const MIN_PAIRS: usize = 6;

/// Fewer common samples say nothing of a pair.
const MIN_SAMPLES: usize = 8;

/// The pairs of a step, the nearest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CopyReport {
    pub step: u64,
    pub competition: String,
    /// The median distance of all pairs; none if there are too few to tell.
    pub usual: Option<f64>,
    pub pairs: Vec<CopyFinding>,
}

/// Two models, the one committed earlier first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CopyFinding {
    pub first: Uid,
    pub first_committed: BlockNumber,
    pub second: Uid,
    pub second_committed: BlockNumber,
    /// Median difference of their losses on a sample.
    pub distance: f64,
    /// Share of the samples on which their losses are equal to the last bit.
    pub equal: f64,
    pub samples: usize,
    /// Whether they are nearer than chance explains.
    pub near: bool,
}

impl Index {
    /// Compares the models of a step by how they behave; without a number, those of each competition's newest step.
    pub fn behavioral_copies(
        &self,
        step: Option<u64>,
        most: usize,
    ) -> Result<Vec<CopyReport>, IndexError> {
        let steps = match step {
            Some(step) => vec![step],
            None => self
                .newest_pairs()?
                .into_iter()
                .map(|(step, _)| step)
                .collect(),
        };
        let mut reports = Vec::new();
        for step in steps {
            let Some((head, rows)) = self.step(Some(step))? else {
                continue;
            };
            let losses = self.losses(step)?;
            let with_losses: Vec<(&VerdictRow, &[f64])> = rows
                .iter()
                .filter_map(|row| Some((row, losses.get(&row.uid)?.as_slice())))
                .collect();
            let (usual, mut pairs) = pairs(&with_losses);
            pairs.truncate(most);
            reports.push(CopyReport {
                step,
                competition: head.competition,
                usual,
                pairs,
            });
        }
        Ok(reports)
    }
}

/// Measures every pair; returns the usual distance, and the pairs by distance.
fn pairs(models: &[(&VerdictRow, &[f64])]) -> (Option<f64>, Vec<CopyFinding>) {
    let mut found = Vec::new();
    for (at, one) in models.iter().enumerate() {
        for other in &models[at + 1..] {
            found.extend(pair(*one, *other));
        }
    }
    let mut distances: Vec<f64> = found.iter().map(|pair| pair.distance).collect();
    let usual = (found.len() >= MIN_PAIRS)
        .then(|| median(&mut distances))
        .flatten();
    for pair in &mut found {
        pair.near = usual.is_some_and(|usual| pair.distance * NEARER < usual);
    }
    found.sort_by(|a, b| {
        let distance = a.distance.total_cmp(&b.distance);
        distance.then_with(|| (a.first, a.second).cmp(&(b.first, b.second)))
    });
    (usual, found)
}

fn pair(a: (&VerdictRow, &[f64]), b: (&VerdictRow, &[f64])) -> Option<CopyFinding> {
    let ((first, left), (second, right)) = if (a.0.committed, a.0.uid) <= (b.0.committed, b.0.uid) {
        (a, b)
    } else {
        (b, a)
    };
    let both = left
        .iter()
        .zip(right)
        .filter(|(a, b)| a.is_finite() && b.is_finite());
    let mut differences: Vec<f64> = both.map(|(a, b)| (a - b).abs()).collect();
    let samples = differences.len();
    if samples < MIN_SAMPLES {
        return None;
    }
    let equal = differences
        .iter()
        .filter(|difference| **difference == 0.0)
        .count();
    Some(CopyFinding {
        first: first.uid,
        first_committed: first.committed,
        second: second.uid,
        second_committed: second.committed,
        distance: median(&mut differences)?,
        equal: equal as f64 / samples as f64,
        samples,
        near: false,
    })
}

fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    let (_, median, _) =
        (middle < values.len()).then(|| values.select_nth_unstable_by(middle, f64::total_cmp))?;
    Some(*median)
}
