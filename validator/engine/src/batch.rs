//! What goes through the decoder together, brought to its device in two uploads.

use candle_core::{DType, Device, Result, Tensor};

#[cfg(feature = "cuda")]
use crate::cuda::kernels::Gather;
use crate::{
    attention::{Rotation, Sequences},
    device::moved,
};

/// Tokens of several sequences, one after another.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    pub(crate) ids: Vec<u32>,
    /// Tokens whose final hidden states are wanted.
    pub(crate) rows: Vec<u32>,
    /// What follows each of these, if losses are wanted.
    pub(crate) targets: Vec<u32>,
    /// Tokens of each sequence.
    pub(crate) lengths: Vec<usize>,
    /// Tokens of each that came before.
    pub(crate) seen: usize,
}

/// The same on the device, all u32.
#[derive(Debug)]
pub(crate) struct Batch {
    /// `[tokens]`
    pub(crate) ids: Tensor,
    pub(crate) rotation: Rotation,
    pub(crate) sequences: Sequences,
    /// `[rows]`
    pub(crate) rows: Tensor,
    /// `[rows]`, or empty.
    pub(crate) targets: Tensor,
}

impl Batch {
    /// Brings tokens and the cosines and sines of their positions (`[tokens, rotated / 2]`) to the device.
    pub(crate) fn new(
        tokens: Tokens,
        tables: (Vec<f32>, Vec<f32>),
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let count = tokens.ids.len();
        let (mut sequences, work) = Sequences::new(&tokens.lengths, tokens.seen, device);
        let parts = [tokens.ids, tokens.rows, tokens.targets, work];
        // A GPU waits for each upload, so there is one for all.
        let all = Tensor::new(parts.concat(), device)?;
        let mut first = 0;
        let mut part = |number: usize| {
            let part = all.narrow(0, first, parts[number].len());
            first += parts[number].len();
            part
        };
        let (ids, rows, targets) = (part(0)?, part(1)?, part(2)?);
        sequences.work = Some(part(3)?);
        Ok(Self {
            ids,
            rotation: Rotation::new(tables, count, dtype, device)?,
            sequences,
            rows,
            targets,
        })
    }

    pub(crate) fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(Self {
            ids: moved(&self.ids, device)?,
            rotation: self.rotation.to_device(device)?,
            sequences: self.sequences.to_device(device)?,
            rows: moved(&self.rows, device)?,
            targets: moved(&self.targets, device)?,
        })
    }
}

/// Returns rows of a matrix, by their numbers, all of which it has.
pub(crate) fn take_rows(x: &Tensor, rows: &Tensor) -> Result<Tensor> {
    // The library's own uploads the shape each time.
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return x.apply_op2_no_bwd(rows, &Gather);
    }
    x.index_select(rows, 0)
}
