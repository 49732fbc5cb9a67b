//! Attention of all sequences of a pack in one launch.

use std::{cmp::Reverse, ops::Range};

use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp2, DType, Layout, Result, Shape,
    backend::BackendStorage,
    bail,
    cuda_backend::{
        WrapErr,
        cudarc::driver::{
            CudaView, LaunchConfig, PushKernelArg,
            sys::{CUdevice_attribute, CUfunction_attribute},
        },
    },
};

use super::{ATTENTION, ATTENTION_F32, Number, THREADS, elements, function, output};
use crate::{dtype::by_type, heads::Heads};

/// Widths of heads the attention is compiled for; narrower heads are filled up with zeros.
const WIDTHS: [usize; 5] = [64, 80, 96, 128, 256];

/// Threads of a block of the attention in 16 bits.
const THREADS_IN_16_BITS: u32 = 128;

/// Queries of an entry of the work list: [`QueryBlock::Wide`].
const ENTRY: usize = 128;

/// Returns whether attention of such heads in such a type is one launch.
pub fn can_attend(dtype: DType, head_dim: usize) -> bool {
    let known = width_of(head_dim).is_some();
    known && (dtype == DType::F32 || head_dim.is_multiple_of(8))
}

fn width_of(head_dim: usize) -> Option<usize> {
    WIDTHS.into_iter().find(|&width| head_dim <= width)
}

/// Returns the work list of the attention: first token, length and first query of each [`ENTRY`] queries, the
/// longest work first.
pub fn attention_work(spans: &[Range<usize>]) -> Vec<u32> {
    let mut entries: Vec<[u32; 3]> = spans
        .iter()
        .flat_map(|span| {
            let starts = (0..span.len()).step_by(ENTRY);
            starts.map(|first| [span.start as u32, span.len() as u32, first as u32])
        })
        .collect();
    entries.sort_by_key(|&[_, _, first]| Reverse(first));
    entries.concat()
}

/// How many queries a block of threads attends for. The bits of what comes out are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QueryBlock {
    /// 64.
    Narrow,
    /// 128: half as many reads of shared memory a product, but more of that memory, and more work for nothing at the
    /// end of each sequence.
    Wide,
}

impl QueryBlock {
    /// Tokens of the longest sequence from which on wide blocks are worth it: at 2 048 tokens they have the same work
    /// as narrow ones, 528 products of 64 queries and keys; at 550 it is 53 instead of 45.
    const LONG: usize = 1024;

    /// Returns the faster one in 16 bits, for a GPU with so many bytes of shared memory in each multiprocessor.
    const fn of(width: usize, longest: usize, memory: u32) -> Self {
        // Two blocks at once, for each of which the driver takes a KiB: on chips for data centers.
        let fits = memory >= 2 * (Self::Wide.shared_bytes(width) + 1024);
        if width <= 128 && longest >= Self::LONG && fits {
            Self::Wide
        } else {
            Self::Narrow
        }
    }

    const fn queries(self) -> usize {
        match self {
            Self::Narrow => 64,
            Self::Wide => ENTRY,
        }
    }

    /// Bytes of a tile of keys, of one of values, and of the queries of a wide block; see `attention.cu`.
    const fn shared_bytes(self, width: usize) -> u32 {
        let keys = if width > 128 { 32 } else { 64 };
        let queries = match self {
            Self::Narrow => 0,
            Self::Wide => ENTRY,
        };
        ((2 * keys + queries) * (width + 8) * size_of::<u16>()) as u32
    }
}

/// Attention over packed sequences: from rotated `[tokens, queries | keys | values]` and the work
/// list (`[entries * 3]`) to `[tokens, queries * dim]`.
#[derive(Debug, Clone, Copy)]
pub struct Attend {
    /// The heads of a token.
    pub heads: Heads,
    /// How many tokens before the current one are seen, if not all.
    pub window: Option<usize>,
    /// Tokens of the longest sequence, by which the faster kernel is chosen.
    pub longest: usize,
}

impl Attend {
    fn run<T: Number>(
        self,
        device: &CudaDevice,
        qkv: &CudaView<'_, T>,
        work: &CudaView<'_, u32>,
        tokens: usize,
    ) -> Result<CudaStorage> {
        let Heads { queries, keys, dim } = self.heads;
        let Some(width) = width_of(dim) else {
            bail!("no attention for heads of {dim}")
        };
        let mut out = output::<T>(device, tokens * queries * dim)?;
        let (function, block, threads, shared) = if T::DTYPE == DType::F32 {
            let function = function(device, &ATTENTION_F32, "attention_f32")?;
            (function, QueryBlock::Narrow, THREADS, 0)
        } else {
            let block = QueryBlock::of(width, self.longest, shared_memory(device)?);
            let wide = match block {
                QueryBlock::Narrow => "",
                QueryBlock::Wide => "_wide",
            };
            let name = format!("attention_{}_{width}{wide}", T::DTYPE.as_str());
            let function = function(device, &ATTENTION, &name)?;
            let shared = block.shared_bytes(width);
            // More than 48 KiB are had by asking only.
            let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(most, shared as i32).w()?;
            (function, block, THREADS_IN_16_BITS, shared)
        };
        let parts = work.len() / 3 * (ENTRY / block.queries());
        let grid = (parts as u32, queries as u32, 1);
        let (heads, kv_heads, dim) = (queries as i32, keys as i32, dim as i32);
        let window = self.window.map_or(-1, |window| window.min(1 << 30) as i32);
        let scale = 1.0 / (dim as f32).sqrt();
        launch!(
            sharing shared;
            device,
            function,
            grid,
            threads,
            qkv,
            work,
            &mut out,
            &heads,
            &kv_heads,
            &dim,
            &window,
            &scale,
        );
        Ok(CudaStorage::wrap_cuda_slice(out, device.clone()))
    }
}

/// Returns how many bytes of shared memory a multiprocessor has.
fn shared_memory(device: &CudaDevice) -> Result<u32> {
    let most = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR;
    let bytes = device.cuda_stream().context().attribute(most).w()?;
    Ok(u32::try_from(bytes).unwrap_or(0))
}

impl CustomOp2 for Attend {
    fn name(&self) -> &'static str {
        "attend"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("the CPU has an attention of its own")
    }

    fn cuda_fwd(
        &self,
        qkv: &CudaStorage,
        qkv_layout: &Layout,
        work: &CudaStorage,
        work_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (tokens, width) = qkv_layout.shape().dims2()?;
        let Heads { queries, keys, dim } = self.heads;
        if width != (queries + 2 * keys) * dim {
            bail!("{width} columns for {:?}", self.heads)
        }
        let (device, work) = (qkv.device(), elements(work, work_layout)?);
        let out = by_type!(qkv.dtype(), T => self.run::<T>(device, &elements(qkv, qkv_layout)?, &work, tokens)?);
        Ok((out, (tokens, queries * dim).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::QueryBlock;

    /// Bytes of shared memory of a multiprocessor: H100, A100, and what is sold for games.
    #[test]
    fn wide_blocks_are_for_long_sequences_where_two_fit() {
        for memory in [233_472, 167_936] {
            assert_eq!(QueryBlock::of(128, 1024, memory), QueryBlock::Wide);
            assert_eq!(QueryBlock::of(128, 1023, memory), QueryBlock::Narrow);
            assert_eq!(QueryBlock::of(256, 1024, memory), QueryBlock::Narrow);
        }
        assert_eq!(QueryBlock::of(128, 8192, 102_400), QueryBlock::Narrow);
        assert_eq!(QueryBlock::of(64, 8192, 102_400), QueryBlock::Wide);
    }
}
