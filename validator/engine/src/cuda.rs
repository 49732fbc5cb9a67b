//! CUDA devices: opened for one stream of work, with memory that stays with the process.

use candle_core::{CudaDevice, Device, Error, Result, cuda_backend::cudarc::driver};

/// Opens a device.
///
/// # Errors
/// What is missing, in words.
pub(crate) fn open(number: usize) -> std::result::Result<Device, String> {
    let device = CudaDevice::new_with_stream(number).map_err(|error| explain(&error))?;
    keep_memory(&device).map_err(|error| explain(&error))?;
    #[expect(
        unsafe_code,
        reason = "events for every tensor cost more than the tensors' work"
    )]
    // SAFETY: all work is on the device's one stream. Only loading uses another, for memory that is
    // not yet visible to the first, and it joins the two before handing that memory over.
    unsafe {
        device.disable_event_tracking();
    }
    Ok(Device::Cuda(device))
}

/// Returns name and memory (free and total, in bytes) of a device.
pub(crate) fn describe(device: &CudaDevice) -> Option<(String, usize, usize)> {
    let stream = device.cuda_stream();
    let context = stream.context();
    let (free, total) = context.mem_get_info().ok()?;
    Some((context.name().ok()?, free, total))
}

/// Freed memory goes back to the driver at the next synchronization, unless the pool is told to
/// keep it; asking the driver again costs milliseconds for each large tensor.
fn keep_memory(device: &CudaDevice) -> Result<()> {
    let mut threshold = u64::MAX;
    let stream = device.cuda_stream();
    #[expect(
        unsafe_code,
        reason = "the attribute is set through a pointer to its value"
    )]
    // SAFETY: the pool belongs to the device, which is open, and the attribute is a u64.
    unsafe {
        let pool = driver::result::device::get_default_mem_pool(stream.context().cu_device())
            .map_err(Error::wrap)?;
        driver::result::mem_pool::set_attribute(
            pool,
            driver::sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
            (&raw mut threshold).cast(),
        )
        .map_err(Error::wrap)
    }
}

fn explain(error: &Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    if line.contains("NO_DEVICE") || line.contains("STUB_LIBRARY") {
        format!("no NVIDIA driver or no GPU was found ({line})")
    } else if line.contains("INVALID_DEVICE") {
        format!("there is no device of this number ({line})")
    } else if line.contains("SYSTEM_DRIVER_MISMATCH") || line.contains("INSUFFICIENT_DRIVER") {
        format!("the NVIDIA driver is too old for this build ({line})")
    } else {
        line.to_owned()
    }
}
