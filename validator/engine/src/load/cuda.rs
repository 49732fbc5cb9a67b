//! Loading onto CUDA devices: one allocation on each, filled from the pinned buffers that files are read into, on a
//! stream of its own, so that the model before can go on computing.

use std::{ops::Range, sync::Arc};

use candle_core::{
    CudaDevice, CudaStorage, Device, Error, Storage, Tensor,
    cuda_backend::{
        CudaDType,
        cudarc::driver::{
            CudaEvent, CudaSlice, CudaStream, DevicePtrMut, DeviceRepr, DriverError,
            PinnedHostSlice, ValidAsZeroBits, result,
            sys::{CU_MEMHOSTALLOC_PORTABLE, CUdeviceptr},
        },
    },
    op::BackpropOp,
};
use model::{Fault, MachineFaultKind, header::Dtype};

use super::{
    Shard,
    arena::Arena,
    placement::Shares,
    sources,
    stream::{self, BEYOND, BLOCK, Destination, Streamed},
};
use crate::{cpu::Element, fault, teams};

/// A number type weights can be loaded in, on any device.
pub(super) trait Loadable: Element + CudaDType + DeviceRepr + ValidAsZeroBits {}
impl<T: Element + CudaDType + DeviceRepr + ValidAsZeroBits> Loadable for T {}

/// Reads all files once into a tensor on each device, which holds what is the device's.
pub(super) fn fill<T: Loadable>(
    shares: &Shares<'_>,
    shards: &[Shard],
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(Vec<Tensor>, Vec<Streamed>), Fault> {
    let devices = shares.devices().iter().zip(shares.arenas());
    let memories: Vec<Allocation<'_, T>> = devices
        .map(|(device, arena)| Allocation::new(device, arena))
        .collect::<Result<_, _>>()?;
    let sources = sources(shards, |name, elements| {
        let place = |(device, memory): (usize, &Allocation<'_, T>)| {
            let start = memory.arena.start(name)? + elements.start;
            Some(DeviceRange {
                device,
                elements: start..start + elements.len(),
            })
        };
        let places: Vec<_> = memories.iter().enumerate().filter_map(place).collect();
        Some(places).filter(|places| !places.is_empty())
    });
    let gpus = Gpus {
        memories: &memories,
    };
    let streamed = stream::read(sources, &gpus, teams::threads(), progress)?;
    let defaulted = memories.iter().try_for_each(Allocation::put_defaulted);
    defaulted?;
    let bases = memories.into_iter().map(Allocation::hand_over);
    Ok((bases.collect::<Result<_, _>>()?, streamed))
}

fn lost(error: DriverError) -> Fault {
    fault::of_tensors(&Error::wrap(error))
}

/// The memory of one device that is being filled.
struct Allocation<'a, T> {
    device: &'a CudaDevice,
    arena: &'a Arena,
    copy: Arc<CudaStream>,
    elements: CudaSlice<T>,
    base: CUdeviceptr,
}

impl<'a, T: Loadable> Allocation<'a, T> {
    fn new(device: &'a Device, arena: &'a Arena) -> Result<Self, Fault> {
        let Device::Cuda(device) = device else {
            return Err(Fault::machine(MachineFaultKind::Bug, "not a CUDA device"));
        };
        let compute = device.cuda_stream();
        let copy = compute.context().new_stream().map_err(lost)?;
        // On the stream that copies: the allocation need not wait for what is being computed. It is
        // zeroed, so that the gaps between tensors hold no one else's data.
        let mut elements = copy.alloc_zeros::<T>(arena.elements()).map_err(lost)?;
        let base = elements.device_ptr_mut(&copy).0;
        Ok(Self {
            device,
            arena,
            copy,
            elements,
            base,
        })
    }

    /// Starts copying bytes that are elements of this memory.
    ///
    /// # Safety
    /// The bytes must stay as they are until the copying stream has come this far.
    #[expect(unsafe_code, reason = "what is copied must outlive this call")]
    unsafe fn copy_from(&self, bytes: &[u8], elements: &Range<usize>) -> Result<(), Fault> {
        assert!(
            elements.end <= self.arena.elements() && bytes.len() == elements.len() * size_of::<T>(),
            "a tensor lies within the model"
        );
        self.copy.context().bind_to_thread().map_err(lost)?;
        let target = self.base + (elements.start * size_of::<T>()) as u64;
        // SAFETY: the target lies within the device's memory, as checked above, which outlives the
        // stream's work, and no one else writes there.
        unsafe { result::memcpy_htod_async(target, bytes, self.copy.cu_stream()) }.map_err(lost)
    }

    /// Fills the tensors that no file has.
    fn put_defaulted(&self) -> Result<(), Fault> {
        for (name, &value) in self.arena.defaulted() {
            let Some(start) = self.arena.start(name) else {
                continue;
            };
            let elements = vec![T::round(value); self.arena.count(name)];
            #[expect(unsafe_code, reason = "the stream reads what this thread holds")]
            // SAFETY: waited for before the elements go.
            unsafe {
                self.copy_from(bytes_of(&elements), &(start..start + elements.len()))?;
            }
            self.copy.synchronize().map_err(lost)?;
        }
        Ok(())
    }

    /// Returns the memory as a tensor that computations may use.
    fn hand_over(self) -> Result<Tensor, Fault> {
        let compute = self.device.cuda_stream();
        compute.join(&self.copy).map_err(lost)?;
        let count = self.arena.elements();
        #[expect(unsafe_code, reason = "memory changes its stream as a bare pointer")]
        // SAFETY: the pointer is that of the memory just filled, of the same length and type. All work
        // on it comes after what the two streams were joined at, and so does freeing it, which the
        // stream that computes now does in its turn: not while a computation still reads it.
        let memory = unsafe { compute.upgrade_device_ptr::<T>(self.elements.leak(), count) };
        let storage = CudaStorage::wrap_cuda_slice(memory, self.device.clone());
        Ok(Tensor::from_storage(
            Storage::Cuda(storage),
            count,
            BackpropOp::none(),
            false,
        ))
    }
}

fn bytes_of<T: Loadable>(elements: &[T]) -> &[u8] {
    #[expect(unsafe_code, reason = "the driver copies bytes")]
    // SAFETY: numbers have no padding, and any byte is a valid u8.
    unsafe {
        std::slice::from_raw_parts(elements.as_ptr().cast(), size_of_val(elements))
    }
}

/// Elements in the memory of one of the devices.
struct DeviceRange {
    device: usize,
    elements: Range<usize>,
}

/// All devices that are being filled.
struct Gpus<'a, T> {
    memories: &'a [Allocation<'a, T>],
}

/// A pinned buffer that a block of a file is read into, and what follows from it.
struct Pinned<T> {
    block: PinnedHostSlice<u8>,
    /// Elements in the type they are computed in, if the file has another.
    converted: Option<PinnedHostSlice<T>>,
    /// The copies from here that may still be under way.
    copied: Vec<CudaEvent>,
}

impl<T> Pinned<T> {
    fn wait(&mut self) -> Result<(), Fault> {
        let copied = self.copied.drain(..);
        copied
            .into_iter()
            .try_for_each(|copied| copied.synchronize().map_err(lost))
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        // The devices must not read memory that is gone. Should waiting fail, a device is lost and reads
        // nothing any more.
        let _ = self.wait();
    }
}

impl<T: Loadable> Gpus<'_, T> {
    fn pinned<N: DeviceRepr>(&self, count: usize) -> Result<PinnedHostSlice<N>, Fault> {
        let Some(memory) = self.memories.first() else {
            return Err(Fault::machine(MachineFaultKind::Bug, "no devices"));
        };
        #[expect(unsafe_code, reason = "pinned memory comes uninitialized")]
        // SAFETY: every bit pattern is a valid number, and only what was written is read. Portable: pinned for
        // all devices. Cached, unlike what the library's other call makes: threads read it.
        let pinned = unsafe {
            let context = memory.copy.context();
            context.alloc_pinned_with_flags::<N>(count, CU_MEMHOSTALLOC_PORTABLE)
        };
        pinned.map_err(lost)
    }
}

impl<T: Loadable> Destination for Gpus<'_, T> {
    type Buffer = Pinned<T>;
    type Place = Vec<DeviceRange>;

    fn buffer(&self) -> Result<Pinned<T>, Fault> {
        Ok(Pinned {
            block: self.pinned(BLOCK + BEYOND)?,
            converted: None,
            copied: Vec::new(),
        })
    }

    fn writable<'b>(&self, buffer: &'b mut Pinned<T>) -> Result<&'b mut [u8], Fault> {
        buffer.wait()?;
        buffer.block.as_mut_slice().map_err(lost)
    }

    fn bytes<'b>(&self, buffer: &'b Pinned<T>) -> Result<&'b [u8], Fault> {
        buffer.block.as_slice().map_err(lost)
    }

    fn put(
        &self,
        buffer: &mut Pinned<T>,
        pieces: Vec<(Dtype, Range<usize>, Vec<DeviceRange>)>,
    ) -> Result<(), Fault> {
        self.start_copies(buffer, pieces).inspect_err(|_| {
            // What was started has no event to wait for, and the buffer goes now.
            for memory in self.memories {
                let _ = memory.copy.synchronize();
            }
        })
    }
}

impl<T: Loadable> Gpus<'_, T> {
    fn start_copies(
        &self,
        buffer: &mut Pinned<T>,
        pieces: Vec<(Dtype, Range<usize>, Vec<DeviceRange>)>,
    ) -> Result<(), Fault> {
        let is_odd = |dtype: Dtype| !is_stored_as::<T>(dtype);
        let count = |dtype: Dtype, bytes: &Range<usize>| bytes.len() / dtype.bytes() as usize;
        let odd = pieces.iter().filter(|(dtype, ..)| is_odd(*dtype));
        let needed = odd.map(|(dtype, bytes, _)| count(*dtype, bytes)).sum();
        // One for all of a block, and kept: a model may have very many small tensors.
        if buffer.converted.as_ref().map_or(0, PinnedHostSlice::len) < needed {
            buffer.converted = Some(self.pinned::<T>(needed)?);
        }
        let block = buffer.block.as_slice().map_err(lost)?;
        let mut converted: &mut [T] = match &mut buffer.converted {
            Some(converted) => converted.as_mut_slice().map_err(lost)?,
            None => &mut [],
        };
        let mut used = vec![false; self.memories.len()];
        for (dtype, bytes, places) in pieces {
            let source = if is_odd(dtype) {
                let (elements, rest) = converted.split_at_mut(count(dtype, &bytes));
                converted = rest;
                stream::convert(dtype, &block[bytes], elements);
                bytes_of(elements)
            } else {
                &block[bytes]
            };
            for place in places {
                used[place.device] = true;
                #[expect(unsafe_code, reason = "the stream reads what the buffer holds")]
                // SAFETY: the buffer waits for the events below before it is written to, and before it goes.
                unsafe {
                    self.memories[place.device].copy_from(source, &place.elements)?;
                }
            }
        }
        for (memory, _) in self.memories.iter().zip(used).filter(|(_, used)| *used) {
            let event = memory.copy.record_event(None).map_err(lost)?;
            buffer.copied.push(event);
        }
        Ok(())
    }
}

/// Returns whether a file has numbers of a type as the device wants them.
fn is_stored_as<T: Loadable>(dtype: Dtype) -> bool {
    use candle_core::DType;
    let stored = match dtype {
        Dtype::F32 => DType::F32,
        Dtype::BF16 => DType::BF16,
        Dtype::F16 => DType::F16,
        _ => return false,
    };
    cfg!(target_endian = "little") && stored == T::DTYPE
}
