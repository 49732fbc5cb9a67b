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

/// What is usual is the median of all pairs or, of more, of so many of them, evenly taken.
const MEASURED: usize = 2000;

/// Near pairs of a step that are told of a uid.
const NEAR: usize = 200;

/// The pairs of a step, the nearest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CopyReport {
    pub step: u64,
    pub competition: String,
    /// The median distance of the pairs; none if there are too few to tell.
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
            let (usual, pairs) = pairs(&with_losses, most);
            reports.push(CopyReport {
                step,
                competition: head.competition,
                usual,
                pairs,
            });
        }
        Ok(reports)
    }

    /// Returns the pairs with this uid that are near in their competition's newest step.
    pub fn near_copies_of(&self, uid: Uid) -> Result<Vec<CopyFinding>, IndexError> {
        // Pages of many uids ask in turn; the index that one has open does not change.
        let mut known = self.near.borrow_mut();
        if known.is_none() {
            let reports = self.behavioral_copies(None, NEAR)?;
            let pairs = reports.into_iter().flat_map(|report| report.pairs);
            *known = Some(pairs.filter(|pair| pair.near).collect());
        }
        let pairs = known.iter().flatten();
        Ok(pairs
            .filter(|pair| pair.first == uid || pair.second == uid)
            .cloned()
            .collect())
    }
}

/// Measures the pairs; returns the usual distance, and so many of the nearest pairs, by distance.
///
/// A full subnet has 32,640 pairs of 400 losses each. What is usual is then the median of some of them, and a pair is
/// left as soon as it can't be among the nearest.
fn pairs(models: &[(&VerdictRow, &[f64])], most: usize) -> (Option<f64>, Vec<CopyFinding>) {
    let each = || {
        let firsts = models.iter().enumerate();
        firsts.flat_map(|(at, one)| models[at + 1..].iter().map(move |other| (*one, *other)))
    };
    let stride = each().count().div_ceil(MEASURED).max(1);
    let measured = each().step_by(stride);
    let mut distances: Vec<f64> = measured
        .filter_map(|(one, other)| distance(&mut differences(one.1, other.1)))
        .collect();
    distances.sort_unstable_by(f64::total_cmp);
    let usual = (distances.len() >= MIN_PAIRS)
        .then(|| distances.get(distances.len() / 2).copied())
        .flatten();
    let Some(last) = most.checked_sub(1) else {
        return (usual, Vec::new());
    };
    let mut bound = distances.get(last).copied().unwrap_or(f64::INFINITY);
    let mut found = Vec::new();
    for (one, other) in each() {
        if is_beyond(one.1, other.1, bound) {
            continue;
        }
        let Some(mut pair) = pair(one, other).filter(|pair| pair.distance <= bound) else {
            continue;
        };
        pair.near = usual.is_some_and(|usual| pair.distance * NEARER < usual);
        found.push(pair);
        if found.len() / 2 > most {
            nearest(&mut found, most);
            bound = found.last().map_or(bound, |pair| pair.distance);
        }
    }
    nearest(&mut found, most);
    (usual, found)
}

/// Keeps so many of the nearest pairs, in order.
fn nearest(found: &mut Vec<CopyFinding>, most: usize) {
    found.sort_by(|a, b| {
        let distance = a.distance.total_cmp(&b.distance);
        distance.then_with(|| (a.first, a.second).cmp(&(b.first, b.second)))
    });
    found.truncate(most);
}

/// Returns whether more than half of the samples differ by more than the bound: then so does the median.
fn is_beyond(left: &[f64], right: &[f64], bound: f64) -> bool {
    let samples = left.len().min(right.len());
    let mut beyond = 0;
    for (left, right) in left.chunks(64).zip(right.chunks(64)) {
        let differences = left.iter().zip(right).map(|(a, b)| (a - b).abs());
        // What is not finite on either side is no sample of the pair.
        beyond += differences
            .filter(|difference| *difference > bound && *difference < f64::INFINITY)
            .count();
        if beyond >= samples.div_ceil(2) {
            return true;
        }
    }
    false
}

/// Returns how far the losses are apart on each sample on which both are finite.
fn differences(left: &[f64], right: &[f64]) -> Vec<f64> {
    let both = left
        .iter()
        .zip(right)
        .filter(|(a, b)| a.is_finite() && b.is_finite());
    both.map(|(a, b)| (a - b).abs()).collect()
}

/// Returns the distance of a pair with these differences, if they say something.
fn distance(differences: &mut [f64]) -> Option<f64> {
    let middle = differences.len() / 2;
    if differences.len() < MIN_SAMPLES {
        return None;
    }
    let (_, median, _) = differences.select_nth_unstable_by(middle, f64::total_cmp);
    Some(*median)
}

fn pair(a: (&VerdictRow, &[f64]), b: (&VerdictRow, &[f64])) -> Option<CopyFinding> {
    let ((first, left), (second, right)) = if (a.0.committed, a.0.uid) <= (b.0.committed, b.0.uid) {
        (a, b)
    } else {
        (b, a)
    };
    let mut differences = differences(left, right);
    let distance = distance(&mut differences)?;
    let samples = differences.len();
    let equal = differences
        .iter()
        .filter(|difference| **difference == 0.0)
        .count();
    Some(CopyFinding {
        first: first.uid,
        first_committed: first.committed,
        second: second.uid,
        second_committed: second.committed,
        distance,
        equal: equal as f64 / samples as f64,
        samples,
        near: false,
    })
}

#[cfg(test)]
mod tests {
    use subnet::Real;

    use super::*;

    fn row(uid: u16) -> VerdictRow {
        VerdictRow {
            step: 1,
            competition: "l3".into(),
            uid: Uid(uid),
            hotkey: String::new(),
            model: String::new(),
            committed: u64::from(uid),
            content: String::new(),
            parameters: 1,
            outcome: "evaluated".into(),
            copy_of: None,
            fault: None,
            reason: None,
            loss: Real(1.0),
            finite: 1,
            samples: 1,
            win_rate: 0.0,
            wins: 0,
            matches: 0,
            weight: Real(0.0),
            kept: true,
            rank: None,
            seconds: 0.0,
        }
    }

    #[test]
    fn of_a_full_field_the_nearest_are_those_that_measuring_all_finds() {
        let rows: Vec<VerdictRow> = (0..90).map(row).collect();
        let losses: Vec<Vec<f64>> = (0..90_u32)
            .map(|uid| {
                // Every ninth is a copy of the one before, and some losses are not numbers.
                let (of, shift) = if uid % 9 == 8 {
                    (uid - 1, 1e-6)
                } else {
                    (uid, 0.0)
                };
                (0..101_u32)
                    .map(|sample| match (of * 31 + sample * 17) % 97 {
                        0 => f64::NAN,
                        1 => f64::INFINITY,
                        noise => f64::from(noise * of % 89).sin() + shift * f64::from(sample),
                    })
                    .collect()
            })
            .collect();
        let models: Vec<(&VerdictRow, &[f64])> =
            rows.iter().zip(losses.iter().map(Vec::as_slice)).collect();
        let (usual, all) = pairs(&models, usize::MAX);
        assert!(all.len() > MEASURED, "{}", all.len());
        for most in [0, 1, 7, 30, 2500] {
            let (same, some) = pairs(&models, most);
            assert_eq!(same, usual);
            assert_eq!(some, all[..most.min(all.len())], "{most}");
        }
        // They stand out from what is usual.
        let near = all.iter().filter(|pair| pair.near).count();
        assert!(near >= 10, "{near}");
        assert!(all[..10].iter().all(|pair| pair.second.0 % 9 == 8));
    }
}
