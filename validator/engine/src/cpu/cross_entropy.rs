//! Cross-entropy of rows of logits, a few columns at a time.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, backend::BackendStorage, bail};
use half::{bf16, f16};
use rayon::prelude::*;

use super::{Element, exp::exp, linear::Factors, max, rows_at_once, sum, vectorized};

/// Logits that exist at the same time: they stay in the cache.
const LOGITS: usize = 1 << 20;

/// What is known of a row of logits after some of its columns.
#[derive(Debug, Clone, Copy)]
struct Row {
    target: usize,
    /// That of the target, once seen.
    logit: f32,
    /// The largest logit; never less than the least number.
    max: f32,
    /// Sum of `exp(logit - max)`.
    sum: f32,
}

impl Row {
    const fn new(target: u32) -> Self {
        Self {
            target: target as usize,
            logit: f32::NAN,
            max: f32::MIN,
            sum: 0.0,
        }
    }

    /// Takes in the columns from `first` on.
    #[inline(always)]
    fn see<T: Element>(&mut self, first: usize, logits: &[T]) {
        let largest = max(logits, T::widen);
        if largest > self.max {
            self.sum *= exp(self.max - largest);
            self.max = largest;
        }
        let max = self.max;
        self.sum += sum(logits, |x| exp(x.widen() - max));
        let column = self.target.checked_sub(first);
        if let Some(logit) = column.and_then(|column| logits.get(column)) {
            self.logit = logit.widen();
        }
    }

    /// Returns `-log softmax(row)[target]`.
    fn loss(&self) -> f32 {
        if self.max <= f32::MIN {
            // All are minus infinity, and their differences not a number.
            return f32::NAN;
        }
        self.sum.ln() - (self.logit - self.max)
    }
}

/// Shows the columns from `first` on (`[rows, columns]`) to their rows.
fn show<T: Element>(rows: &mut [Row], first: usize, logits: &[T]) {
    let columns = logits.len() / rows.len().max(1);
    rows.par_iter_mut()
        .zip(logits.par_chunks_exact(columns.max(1)))
        .with_min_len(rows_at_once(columns))
        .for_each(|(row, logits)| {
            vectorized(
                #[inline(always)]
                || row.see(first, logits),
            );
        });
}

/// From hidden states (`[rows, hidden]`) and the head (`[vocabulary, hidden]`) to the
/// cross-entropy of each row's logits. The logits never exist all at once.
#[derive(Debug)]
pub(crate) struct HeadCrossEntropy<'a> {
    pub(crate) targets: &'a [u32],
    /// Logits are squashed to less than this.
    pub(crate) cap: Option<f32>,
}

impl HeadCrossEntropy<'_> {
    /// Takes the logits of a part of the head from `multiply`, some columns at a time.
    fn losses<T: Element>(
        &self,
        factors: &Factors<'_, T>,
        multiply: impl Fn(Factors<'_, T>) -> Vec<Vec<T>>,
    ) -> Vec<f32> {
        let (count, inner, _) = factors.size;
        let mut rows: Vec<_> = self.targets.iter().copied().map(Row::new).collect();
        let columns = (LOGITS / count.max(1)).max(1);
        for (i, weight) in factors.weight.chunks((columns * inner).max(1)).enumerate() {
            let part = Factors {
                size: (count, inner, weight.len() / inner),
                x: factors.x,
                weight,
            };
            let mut first = i * columns;
            for mut logits in multiply(part) {
                if let Some(cap) = self.cap {
                    squash(&mut logits, cap);
                }
                show(&mut rows, first, &logits);
                first += logits.len() / count.max(1);
            }
        }
        rows.iter().map(Row::loss).collect()
    }
}

/// Squashes numbers to less than a cap, each step rounded as in the reference.
fn squash<T: Element>(logits: &mut [T], cap: f32) {
    let squashed = |logit: T| {
        let inner = T::round(logit.widen() / cap).widen();
        T::round(T::round(inner.tanh()).widen() * cap)
    };
    let logits = logits.par_iter_mut().with_min_len(rows_at_once(1));
    logits.for_each(|logit| *logit = squashed(*logit));
}

impl CustomOp2 for HeadCrossEntropy<'_> {
    fn name(&self) -> &'static str {
        "head-cross-entropy"
    }

    fn cpu_fwd(
        &self,
        hidden: &CpuStorage,
        hidden_layout: &Layout,
        head: &CpuStorage,
        head_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (hidden, head) = ((hidden, hidden_layout), (head, head_layout));
        let losses = match hidden.0 {
            CpuStorage::F32(_) => {
                self.losses::<f32>(&Factors::new(hidden, head)?, |part| vec![part.product()])
            }
            CpuStorage::BF16(_) => {
                self.losses::<bf16>(&Factors::new(hidden, head)?, |part| part.tiles())
            }
            CpuStorage::F16(_) => {
                self.losses::<f16>(&Factors::new(hidden, head)?, |part| part.tiles())
            }
            other => bail!("no cross-entropy of {:?}", other.dtype()),
        };
        let count = losses.len();
        Ok((CpuStorage::F32(losses), count.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(logits: &[f32], target: u32, columns: usize) -> f32 {
        let mut row = [Row::new(target)];
        for (i, logits) in logits.chunks(columns).enumerate() {
            show(&mut row, i * columns, logits);
        }
        row[0].loss()
    }

    #[test]
    fn columns_may_come_in_any_number_of_parts() {
        let logits: Vec<f32> = (0..500).map(|i| (i as f32 * 0.7).sin() * 30.0).collect();
        let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        for columns in [1, 7, 64, 499, 500] {
            for target in [0, 63, 64, 499] {
                let expected = sum.ln() - f64::from(logits[target as usize]);
                let found = f64::from(loss(&logits, target, columns));
                assert!(
                    (found - expected).abs() < 2e-5,
                    "{columns}: {found}, {expected}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_number_is_as_in_the_reference() {
        const INF: f32 = f32::INFINITY;
        for columns in 1..=4 {
            let of = |logits: [f32; 4], target| loss(&logits, target, columns);
            assert!(of([1.0, f32::NAN, 2.0, 3.0], 3).is_nan());
            assert!(of([1.0, 2.0, INF, 3.0], 0).is_nan());
            assert!(of([-INF; 4], 0).is_nan());
            assert!(of([-INF, -INF, -200.0, 0.0], 0) >= INF);
            assert!((of([-INF, -INF, -200.0, -200.0], 2) - 2.0_f32.ln()).abs() < 1e-6);
        }
    }
}
