//! CUDA devices: opened for one stream of work, with memory that stays with the process.

use std::path::Path;

use candle_core::{CudaDevice, DType, Device, Error, Result, Tensor, cuda_backend::cudarc::driver};

/// Opens a device.
///
/// # Errors
/// What is missing, in words.
pub(crate) fn open(number: usize) -> std::result::Result<Device, String> {
    let device = CudaDevice::new_with_stream(number).map_err(|error| explain(&error))?;
    try_kernel(&device).map_err(|error| explain(&error))?;
    if let Err(error) = keep_memory(&device) {
        tracing::warn!(%error, "the driver won't keep freed memory: allocations are slow");
    }
    #[expect(
        unsafe_code,
        reason = "events for every tensor cost more than the tensors' work"
    )]
    // SAFETY: all work is on the device's one stream. Only loading uses another, for memory that is
    // not yet visible to the first; it joins the two before it hands that memory over to the first.
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

/// Runs a kernel: does the driver take this build's code, and the GPU what it makes of it?
fn try_kernel(device: &CudaDevice) -> Result<()> {
    let ones = Tensor::zeros(1, DType::F32, &Device::Cuda(device.clone()))?.affine(1.0, 1.0)?;
    ones.to_vec1::<f32>().map(drop)
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

/// What the driver or a library says, and what it means to the owner of the machine.
const CAUSES: [(&str, &str); 14] = [
    (
        "NO_DEVICE",
        "libcuda.so.1 is missing, or CUDA_VISIBLE_DEVICES hides all GPUs",
    ),
    ("STUB_LIBRARY", "libcuda.so.1 is not the NVIDIA driver's"),
    ("INVALID_DEVICE", "there is no device of this number"),
    ("SYSTEM_DRIVER_MISMATCH", "the driver was replaced: reboot"),
    ("COMPAT_NOT_SUPPORTED", DRIVER_TOO_OLD),
    ("NEWER_DRIVER", DRIVER_TOO_OLD),
    ("UNSUPPORTED_PTX", DRIVER_TOO_OLD),
    ("NO_BINARY_FOR_GPU", GPU_TOO_OLD),
    ("INVALID_PTX", GPU_TOO_OLD),
    ("SYSTEM_NOT_READY", "is nvidia-fabricmanager running?"),
    (
        "DEVICE_UNAVAILABLE",
        "another program has the GPU to itself",
    ),
    ("OUT_OF_MEMORY", "other programs left no memory on the GPU"),
    ("CublasError", "is libcublas in LD_LIBRARY_PATH?"),
    ("CurandError", "is libcurand in LD_LIBRARY_PATH?"),
];
const DRIVER_TOO_OLD: &str = "the NVIDIA driver is too old for this build's CUDA";
const GPU_TOO_OLD: &str = "this build is for newer GPUs: see CUDA_COMPUTE_CAP";

fn explain(error: &Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let missing = |files: &[&str]| files.iter().all(|file| !Path::new(file).exists());
    let cause = if line.contains("NO_DEVICE") && missing(&["/dev/nvidiactl", "/dev/dxg"]) {
        "no NVIDIA driver is loaded, /dev/nvidiactl is missing"
    } else if line.contains("ERROR_UNKNOWN") && missing(&["/dev/nvidia-uvm", "/dev/dxg"]) {
        // The driver would run this itself, but no program can be started from within the walls.
        "/dev/nvidia-uvm is missing: run `nvidia-modprobe -u -c 0`"
    } else {
        match CAUSES.iter().find(|(name, _)| line.contains(name)) {
            Some((_, cause)) => cause,
            None => return line.to_owned(),
        }
    };
    // From `DriverError(CUDA_ERROR_NO_DEVICE, "..")`, the name of the error.
    let code = line.split(['(', ',', ')']).nth(1).unwrap_or(line);
    format!("{cause} ({code})")
}
