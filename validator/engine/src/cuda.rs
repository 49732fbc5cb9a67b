//! CUDA devices: opened for one stream of work, with memory that stays with the process.

pub mod kernels;

use std::path::Path;

use candle_core::{
    CudaDevice, DType, Device, Error, Result, Tensor,
    cuda_backend::{
        CudaError,
        cudarc::driver::{self, sys::CUresult},
        kernels as candle_kernels,
    },
};

/// The tensor library's modules of kernels that models need, and a kernel of each.
const MODULES: [(&candle_kernels::Module, &str); 8] = [
    (&candle_kernels::AFFINE, "affine_f32"),
    (&candle_kernels::BINARY, "badd_f32"),
    (&candle_kernels::CAST, "cast_u32_f32"),
    (&candle_kernels::FILL, "copy2d_f32"),
    (&candle_kernels::INDEXING, "is_u32_f32"),
    (&candle_kernels::REDUCE, "softmax_f32"),
    (&candle_kernels::TERNARY, "where_u8_f32"),
    (&candle_kernels::UNARY, "usilu_f32"),
];

/// Opens a device.
///
/// # Errors
/// What is missing, in words.
pub(crate) fn open(number: usize) -> std::result::Result<Device, Cause> {
    let device = CudaDevice::new_with_stream(number).map_err(|error| Cause::of(&error))?;
    // Compiled now, because later the walls keep the driver's cache from being written.
    for (module, kernel) in MODULES {
        let loaded = device.get_or_load_func(kernel, module);
        loaded.map_err(|error| Cause::of(&error))?;
    }
    kernels::load(&device).map_err(|error| Cause::of(&error))?;
    try_kernel(&device).map_err(|error| Cause::of(&error))?;
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

/// Why a GPU can't be had, and what that means to the owner of the machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cause {
    /// Nothing is known of the driver.
    #[error("no NVIDIA driver is loaded, /dev/nvidiactl is missing")]
    NoDriver,
    /// The driver would run this itself, but no program can be started from within the walls.
    #[error("/dev/nvidia-uvm is missing: run `nvidia-modprobe -u -c 0`")]
    NoMemoryDevice,
    /// `cuInit` was refused what it does at its start: see [`crate::sandbox`].
    #[error(
        "the system refuses what the driver does at its start (CUDA_ERROR_OPERATING_SYSTEM): if \
         `nvidia-smi` works, the container or this worker's walls stand in its way; please report \
         the release of the driver"
    )]
    OperatingSystem,
    /// The driver says what is wrong.
    #[error("{meaning} ({0:?})", meaning = meaning(*.0))]
    Driver(CUresult),
    /// A library beside the driver does not start.
    #[error("is {0} in LD_LIBRARY_PATH? ({1})")]
    Library(&'static str, String),
    #[error("{0}")]
    Other(String),
}

impl Cause {
    fn of(error: &Error) -> Self {
        match error {
            Error::WithBacktrace { inner, .. } | Error::Context { inner, .. } => Self::of(inner),
            Error::Cuda(cause) => match cause.downcast_ref::<CudaError>() {
                Some(CudaError::Cuda(cuda) | CudaError::Load { cuda, .. }) => Self::driver(cuda.0),
                Some(CudaError::Cublas(error)) => Self::Library("libcublas", format!("{error:?}")),
                Some(CudaError::Curand(error)) => Self::Library("libcurand", format!("{error:?}")),
                _ => Self::Other(cause.to_string()),
            },
            other => Self::Other(other.to_string()),
        }
    }

    fn driver(code: CUresult) -> Self {
        let missing = |files: &[&str]| files.iter().all(|file| !Path::new(file).exists());
        match code {
            CUresult::CUDA_ERROR_OPERATING_SYSTEM => Self::OperatingSystem,
            CUresult::CUDA_ERROR_NO_DEVICE if missing(&["/dev/nvidiactl", "/dev/dxg"]) => {
                Self::NoDriver
            }
            CUresult::CUDA_ERROR_UNKNOWN if missing(&["/dev/nvidia-uvm", "/dev/dxg"]) => {
                Self::NoMemoryDevice
            }
            code => Self::Driver(code),
        }
    }
}

fn meaning(code: CUresult) -> &'static str {
    const DRIVER_TOO_OLD: &str = "the NVIDIA driver is too old for this build's CUDA";
    const GPU_TOO_OLD: &str = "this build is for newer GPUs: see CUDA_COMPUTE_CAP";
    match code {
        CUresult::CUDA_ERROR_NO_DEVICE => {
            "libcuda.so.1 is missing, or CUDA_VISIBLE_DEVICES hides all GPUs"
        }
        CUresult::CUDA_ERROR_STUB_LIBRARY => "libcuda.so.1 is not the NVIDIA driver's",
        CUresult::CUDA_ERROR_INVALID_DEVICE => "there is no device of this number",
        CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => "the driver was replaced: reboot",
        CUresult::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE
        | CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => DRIVER_TOO_OLD,
        CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU | CUresult::CUDA_ERROR_INVALID_PTX => GPU_TOO_OLD,
        CUresult::CUDA_ERROR_SYSTEM_NOT_READY => "is nvidia-fabricmanager running?",
        CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE => "another program has the GPU to itself",
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => "other programs left no memory on the GPU",
        _ => "the driver does not start",
    }
}
