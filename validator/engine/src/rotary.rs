//! Rotary tables: cosines and sines of each token's position, computed in f32, cast last.

use std::collections::BTreeMap;

use model::{
    Architecture, Compatibility,
    config::{DecoderSpec, Rotary, RotaryScaling, Yarn},
};

/// The length a sequence's frequencies are stretched for, under dynamic scaling.
pub(crate) type Stretch = Option<usize>;

/// Returns the stretch of each sequence, given the lengths in the order of evaluation.
///
/// Under dynamic scaling the reference changes the frequencies for a long sequence and leaves them
/// so: what came before decides how a later, shorter sequence is rotated.
pub(crate) fn stretches(spec: &DecoderSpec, lengths: impl Iterator<Item = usize>) -> Vec<Stretch> {
    let rotary = &spec.rotary;
    if let RotaryScaling::Long(long) = &rotary.scaling {
        let is_long = |length: &usize| *length > long.original;
        return lengths
            .map(|length| Some(length).filter(is_long).and(Some(long.original + 1)))
            .collect();
    }
    if !matches!(rotary.scaling, RotaryScaling::Dynamic { .. }) {
        return lengths.map(|_| None).collect();
    }
    let trained = rotary.max_positions;
    let mut longest = trained;
    let mut stretch = None;
    lengths
        .map(|length| {
            match (spec.compatibility, spec.architecture) {
                // Recomputed for each long sequence, never undone.
                (Compatibility::V4_40, Architecture::Llama) if length > trained => {
                    stretch = Some(length);
                }
                (Compatibility::V4_40, Architecture::Llama) => {}
                // Recomputed for each record length; today undone by a short sequence.
                (compatibility, _) => {
                    let before = longest;
                    if length > longest {
                        longest = length;
                        stretch = Some(length);
                    }
                    let undo = compatibility == Compatibility::Current;
                    if undo && length < trained && before > trained {
                        longest = trained;
                        stretch = None;
                    }
                }
            }
            stretch
        })
        .collect()
}

/// Cosines and sines of consecutive positions, row by row.
#[derive(Debug, Default)]
struct Table {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// Tables of the sequences at hand.
#[derive(Debug)]
pub(crate) struct Tables<'a> {
    rotary: &'a Rotary,
    cache: BTreeMap<Stretch, Table>,
}

impl<'a> Tables<'a> {
    pub(crate) const fn new(rotary: &'a Rotary) -> Self {
        Self {
            rotary,
            cache: BTreeMap::new(),
        }
    }

    /// Returns cosines and sines (`[tokens, rotated / 2]` each) of sequences one after another,
    /// each given by its first position, its length and its stretch.
    pub(crate) fn rows(
        &mut self,
        sequences: impl Iterator<Item = (usize, usize, Stretch)>,
    ) -> (Vec<f32>, Vec<f32>) {
        let half = self.rotary.dims / 2;
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for (first, length, stretch) in sequences {
            if !self.cache.contains_key(&stretch) && self.cache.len() > 8 {
                self.cache.clear();
            }
            let table = self.cache.entry(stretch).or_default();
            table.extend(self.rotary, stretch, first + length);
            let range = first * half..(first + length) * half;
            cos.extend_from_slice(&table.cos[range.clone()]);
            sin.extend_from_slice(&table.sin[range]);
        }
        (cos, sin)
    }
}

impl Table {
    fn extend(&mut self, rotary: &Rotary, stretch: Stretch, positions: usize) {
        let half = rotary.dims / 2;
        let known = self.cos.len().checked_div(half).unwrap_or(positions);
        if known >= positions {
            return;
        }
        let frequencies = frequencies(rotary, stretch);
        let attention = rotary.scaling.attention() as f32;
        for position in known..positions {
            let position = match rotary.scaling {
                RotaryScaling::Linear { factor } => position as f32 / factor as f32,
                _ => position as f32,
            };
            for frequency in &frequencies {
                let (sin, cos) = (position * frequency).sin_cos();
                self.cos.push(cos * attention);
                self.sin.push(sin * attention);
            }
        }
    }
}

fn frequencies(rotary: &Rotary, stretch: Stretch) -> Vec<f32> {
    let dims = rotary.dims as f64;
    let base = match (&rotary.scaling, stretch) {
        (RotaryScaling::Dynamic { factor }, Some(length)) => {
            let growth = factor * length as f64 / rotary.max_positions as f64 - (factor - 1.0);
            rotary.theta * growth.powf(dims / (dims - 2.0))
        }
        _ => rotary.theta,
    } as f32;
    (0..rotary.dims / 2)
        .map(|i| 1.0 / base.powf((2 * i) as f32 / dims as f32))
        .enumerate()
        .map(|(i, frequency)| match &rotary.scaling {
            RotaryScaling::Llama3 {
                factor,
                low,
                high,
                original,
            } => slowed(
                frequency,
                [*factor, *low, *high, *original].map(|x| x as f32),
            ),
            RotaryScaling::Yarn(yarn) => ramped(frequency, i, yarn),
            RotaryScaling::Long(long) => {
                let factors = if stretch.is_some() {
                    &long.long
                } else {
                    &long.short
                };
                1.0 / (factors[i] * base.powf((2 * i) as f32 / dims as f32))
            }
            _ => frequency,
        })
        .collect()
}

/// Yarn: waves before the ramp are kept, those after it slowed, those on it blended.
fn ramped(frequency: f32, wave: usize, yarn: &Yarn) -> f32 {
    let (low, high) = yarn.ramp;
    // A ramp without a length has no slope.
    let high = if (high - low).abs() > 0.0 {
        high
    } else {
        high + 0.001
    };
    let slowed = ((wave as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
    let kept = 1.0 - slowed;
    frequency / yarn.factor as f32 * (1.0 - kept) + frequency * kept
}

/// Llama 3.1: waves longer than `original / low` are slowed by `factor`, those shorter than
/// `original / high` kept, and those between blended.
fn slowed(frequency: f32, [factor, low, high, original]: [f32; 4]) -> f32 {
    let wave = std::f32::consts::TAU / frequency;
    if wave > original / low {
        frequency / factor
    } else if wave < original / high {
        frequency
    } else {
        let smooth = (original / wave - low) / (high - low);
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(architecture: Architecture, compatibility: Compatibility) -> DecoderSpec {
        let config = br#"{"rope_scaling": {"type": "dynamic", "factor": 2.0},
            "max_position_embeddings": 10}"#;
        DecoderSpec::parse(config, architecture, compatibility).unwrap()
    }

    #[test]
    fn dynamic_scaling_remembers_what_came_before() {
        let lengths = [5, 12, 10, 30, 20, 7, 15];
        let of = |architecture, compatibility| {
            stretches(&spec(architecture, compatibility), lengths.into_iter())
        };
        let (none, some) = (None::<usize>, Some::<usize>);
        assert_eq!(
            of(Architecture::Llama, Compatibility::V4_40),
            [
                none,
                some(12),
                some(12),
                some(30),
                some(20),
                some(20),
                some(15)
            ]
        );
        assert_eq!(
            of(Architecture::StableLm, Compatibility::V4_40),
            [
                none,
                some(12),
                some(12),
                some(30),
                some(30),
                some(30),
                some(30)
            ]
        );
        assert_eq!(
            of(Architecture::Llama, Compatibility::Current),
            [none, some(12), some(12), some(30), some(30), none, some(15)]
        );
    }

    #[test]
    fn tables_grow_as_asked() {
        let spec = spec(Architecture::Llama, Compatibility::V4_40);
        let mut tables = Tables::new(&spec.rotary);
        let (short, _) = tables.rows([(0, 3, None)].into_iter());
        let (long, sin) = tables.rows([(2, 3, None), (0, 3, None)].into_iter());
        let half = spec.rotary.dims / 2;
        assert_eq!(short[2 * half..], long[..half]);
        assert_eq!(short, long[3 * half..]);
        assert_eq!(sin.len(), 6 * half);
    }
}
