//! Cross-entropy of rows of logits, in one pass per row.

use candle_core::{CpuStorage, DType, Layout, Result, bail};
use half::{bf16, f16};
use rayon::prelude::*;

use super::{Element, contiguous, exp::exp, max, sum, vectorized};

/// Returns `-log softmax(row)[target]` of each row of logits (`[rows, vocabulary]`).
pub(crate) fn cross_entropy(
    storage: &CpuStorage,
    layout: &Layout,
    targets: &[u32],
) -> Result<Vec<f32>> {
    use candle_core::backend::BackendStorage;
    match storage.dtype() {
        DType::F32 => Ok(rows::<f32>(contiguous(storage, layout)?, targets)),
        DType::BF16 => Ok(rows::<bf16>(contiguous(storage, layout)?, targets)),
        DType::F16 => Ok(rows::<f16>(contiguous(storage, layout)?, targets)),
        dtype => bail!("no cross-entropy of {dtype:?}"),
    }
}

fn rows<T: Element>(logits: &[T], targets: &[u32]) -> Vec<f32> {
    let vocabulary = logits.len() / targets.len().max(1);
    let rows = logits.par_chunks_exact(vocabulary.max(1)).zip(targets);
    rows.map(|(row, &target)| {
        let (max, sum) = vectorized(
            #[inline(always)]
            || {
                let max = max(row, T::widen);
                (max, sum(row, |x| exp(x.widen() - max)))
            },
        );
        sum.ln() - (row[target as usize].widen() - max)
    })
    .collect()
}
