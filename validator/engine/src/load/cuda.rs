//! Loading onto a CUDA device: one allocation, filled through pinned buffers on a stream of its
//! own, so that the model before can go on computing.

use std::{io, sync::Arc};

use candle_core::{
    CudaDevice, CudaStorage, Storage, Tensor,
    cuda_backend::{
        CudaDType,
        cudarc::driver::{
            CudaEvent, CudaStream, DevicePtrMut, DeviceRepr, PinnedHostSlice, ValidAsZeroBits,
            result, sys::CUdeviceptr,
        },
    },
    op::BackpropOp,
};
use model::{Fault, MachineFaultKind};
use rayon::prelude::*;

use super::{Shard, arena::Arena, stream, stream::Streamed};
use crate::cpu::Element;

/// A number type weights can be loaded in, on any device.
pub(super) trait Loadable: Element + CudaDType + DeviceRepr + ValidAsZeroBits {}
impl<T: Element + CudaDType + DeviceRepr + ValidAsZeroBits> Loadable for T {}

/// Elements of a pinned buffer.
const STAGED: usize = 4 << 20;

/// Reads all files, in parallel, into one tensor on the device.
pub(super) fn fill<T: Loadable>(
    arena: &Arena,
    shards: &[Shard],
    device: &CudaDevice,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(Tensor, Vec<Streamed>), Fault> {
    let compute = device.cuda_stream();
    let copy = compute.context().new_stream().map_err(lost)?;
    // On the stream that copies: the allocation need not wait for what is being computed. It is
    // zeroed, so that the gaps between tensors hold no one else's data.
    let mut memory = copy.alloc_zeros::<T>(arena.elements()).map_err(lost)?;
    let base = memory.device_ptr_mut(&copy).0;
    let streamed: io::Result<Vec<Streamed>> = shards
        .par_iter()
        .map(|shard| {
            let mut uploader = Uploader::<T>::new(copy.clone(), base, arena.elements())?;
            let streamed = stream::read(
                &shard.file,
                &shard.header,
                progress,
                |name, first, dtype, bytes| {
                    let Some(start) = arena.start(name) else {
                        return Ok(());
                    };
                    let size = dtype.bytes() as usize;
                    for (i, piece) in bytes.chunks(STAGED * size).enumerate() {
                        let to = start + first + i * STAGED;
                        uploader.upload(to, piece.len() / size, |staged| {
                            stream::convert(dtype, piece, staged);
                        })?;
                    }
                    Ok(())
                },
            )?;
            uploader.finish()?;
            Ok(streamed)
        })
        .collect();
    let streamed = streamed.map_err(|error| Fault::machine(MachineFaultKind::Storage, error))?;
    compute.join(&copy).map_err(lost)?;
    let storage = CudaStorage::wrap_cuda_slice(memory, device.clone());
    let base = Tensor::from_storage(
        Storage::Cuda(storage),
        arena.elements(),
        BackpropOp::none(),
        false,
    );
    Ok((base, streamed))
}

fn lost(error: impl std::fmt::Debug) -> Fault {
    let text = format!("{error:?}");
    let kind = if text.contains("OUT_OF_MEMORY") {
        MachineFaultKind::OutOfMemory
    } else {
        MachineFaultKind::Device
    };
    Fault::machine(kind, text)
}

fn other(error: impl std::fmt::Debug) -> io::Error {
    io::Error::other(format!("{error:?}"))
}

/// Two pinned buffers: one is filled while the other is copied to the device.
struct Uploader<T> {
    stream: Arc<CudaStream>,
    base: CUdeviceptr,
    elements: usize,
    buffers: [(PinnedHostSlice<T>, Option<CudaEvent>); 2],
    next: usize,
}

impl<T: Loadable> Uploader<T> {
    fn new(stream: Arc<CudaStream>, base: CUdeviceptr, elements: usize) -> io::Result<Self> {
        let pinned = || {
            #[expect(unsafe_code, reason = "pinned memory comes uninitialized")]
            // SAFETY: every bit pattern is a valid number, and only what was written is copied.
            // Flags of zero: the memory is cached, as it is written in small steps.
            let buffer = unsafe { stream.context().alloc_pinned_with_flags::<T>(STAGED, 0) };
            buffer.map(|buffer| (buffer, None)).map_err(other)
        };
        let buffers = [pinned()?, pinned()?];
        Ok(Self {
            stream,
            base,
            elements,
            buffers,
            next: 0,
        })
    }

    /// Fills `count` elements of a buffer and starts copying them to element `to` of the device's
    /// memory.
    fn upload(&mut self, to: usize, count: usize, fill: impl FnOnce(&mut [T])) -> io::Result<()> {
        let (buffer, copied) = &mut self.buffers[self.next];
        self.next = 1 - self.next;
        if let Some(copied) = copied.take() {
            copied.synchronize().map_err(other)?;
        }
        let staged = &mut buffer.as_mut_slice().map_err(other)?[..count];
        fill(staged);
        assert!(
            to + count <= self.elements,
            "a tensor lies within the model"
        );
        self.stream.context().bind_to_thread().map_err(other)?;
        let target = self.base + (to * size_of::<T>()) as u64;
        #[expect(unsafe_code, reason = "the copy goes to a device address")]
        // SAFETY: the target lies within the device's memory, as just checked, which outlives the
        // stream's work, and no one else writes there. The buffer stays until the event is over.
        unsafe {
            result::memcpy_htod_async(target, staged, self.stream.cu_stream()).map_err(other)?;
        }
        *copied = Some(self.stream.record_event(None).map_err(other)?);
        Ok(())
    }

    /// Waits until everything has been copied.
    fn finish(self) -> io::Result<()> {
        for (_, copied) in self.buffers {
            if let Some(copied) = copied {
                copied.synchronize().map_err(other)?;
            }
        }
        Ok(())
    }
}
