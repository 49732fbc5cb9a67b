//! Loading onto a CUDA device: one allocation, filled through pinned buffers on a stream of its
//! own, so that the model before can go on computing.

use std::sync::Arc;

use candle_core::{
    CudaDevice, CudaStorage, Error, Storage, Tensor,
    cuda_backend::{
        CudaDType,
        cudarc::driver::{
            CudaEvent, CudaStream, DevicePtrMut, DeviceRepr, DriverError, PinnedHostSlice,
            ValidAsZeroBits, result, sys::CUdeviceptr,
        },
    },
    op::BackpropOp,
};
use model::Fault;
use rayon::prelude::*;

use super::{Shard, arena::Arena, stream, stream::Streamed};
use crate::{cpu::Element, fault};

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
    let streamed: Result<Vec<Streamed>, Fault> = shards
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
    let streamed = streamed?;
    let mut uploader = Uploader::<T>::new(copy.clone(), base, arena.elements())?;
    for (name, &value) in arena.defaulted() {
        if let Some(start) = arena.start(name) {
            let count = arena.count(name).min(STAGED);
            uploader.upload(start, count, |staged| staged.fill(T::round(value)))?;
        }
    }
    uploader.finish()?;
    compute.join(&copy).map_err(lost)?;
    #[expect(unsafe_code, reason = "memory changes its stream as a bare pointer")]
    // SAFETY: the pointer is that of the memory just filled, of the same length and type. All work
    // on it comes after what the two streams were joined at, and so does freeing it, which the
    // stream that computes now does in its turn: not while a computation still reads it.
    let memory = unsafe { compute.upgrade_device_ptr::<T>(memory.leak(), arena.elements()) };
    let storage = CudaStorage::wrap_cuda_slice(memory, device.clone());
    let base = Tensor::from_storage(
        Storage::Cuda(storage),
        arena.elements(),
        BackpropOp::none(),
        false,
    );
    Ok((base, streamed))
}

fn lost(error: DriverError) -> Fault {
    fault::of_tensors(&Error::wrap(error))
}

/// Two pinned buffers: one is filled while the other is copied to the device.
struct Uploader<T> {
    stream: Arc<CudaStream>,
    base: CUdeviceptr,
    elements: usize,
    buffers: [Staged<T>; 2],
    next: usize,
}

/// A pinned buffer, and the copy from it that may still be under way.
struct Staged<T> {
    buffer: PinnedHostSlice<T>,
    copied: Option<CudaEvent>,
}

impl<T> Staged<T> {
    fn wait(&mut self) -> Result<(), Fault> {
        match self.copied.take() {
            Some(copied) => copied.synchronize().map_err(lost),
            None => Ok(()),
        }
    }
}

impl<T> Drop for Staged<T> {
    fn drop(&mut self) {
        // After a failure elsewhere: the device must not read memory that is gone. Should waiting
        // fail too, the device is lost and reads nothing any more.
        let _ = self.wait();
    }
}

impl<T: Loadable> Uploader<T> {
    fn new(stream: Arc<CudaStream>, base: CUdeviceptr, elements: usize) -> Result<Self, Fault> {
        let staged = || {
            #[expect(unsafe_code, reason = "pinned memory comes uninitialized")]
            // SAFETY: every bit pattern is a valid number, and only what was written is copied.
            // Flags of zero: the memory is cached, as it is written in small steps.
            let buffer = unsafe { stream.context().alloc_pinned_with_flags::<T>(STAGED, 0) };
            let buffer = buffer.map_err(lost)?;
            Ok(Staged {
                buffer,
                copied: None,
            })
        };
        let buffers = [staged()?, staged()?];
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
    fn upload(
        &mut self,
        to: usize,
        count: usize,
        fill: impl FnOnce(&mut [T]),
    ) -> Result<(), Fault> {
        assert!(
            to + count <= self.elements,
            "a tensor lies within the model"
        );
        let staged = &mut self.buffers[self.next];
        self.next = 1 - self.next;
        staged.wait()?;
        let elements = &mut staged.buffer.as_mut_slice().map_err(lost)?[..count];
        fill(elements);
        self.stream.context().bind_to_thread().map_err(lost)?;
        let target = self.base + (to * size_of::<T>()) as u64;
        #[expect(unsafe_code, reason = "the copy goes to a device address")]
        // SAFETY: the target lies within the device's memory, as checked above, which outlives the
        // stream's work, and no one else writes there. The buffer stays until the event is over.
        unsafe {
            result::memcpy_htod_async(target, elements, self.stream.cu_stream()).map_err(lost)?;
        }
        staged.copied = Some(self.stream.record_event(None).map_err(lost)?);
        Ok(())
    }

    /// Waits until everything has been copied.
    fn finish(mut self) -> Result<(), Fault> {
        self.buffers.iter_mut().try_for_each(Staged::wait)
    }
}
