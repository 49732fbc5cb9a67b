//! Our own kernels (`engine/kernels/*.cu`), compiled to PTX by the build script: what they take, how
//! they are launched.

use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp1, CustomOp2, InplaceOp3, Layout, Result, Shape,
    WithDType,
    backend::BackendStorage,
    bail,
    cuda_backend::{
        CudaDType, WrapErr,
        cudarc::driver::{
            CudaFunction, CudaSlice, CudaView, DeviceRepr, LaunchConfig, PushKernelArg,
        },
    },
};
use model::config::Activation;

use crate::{dtype::by_type, heads::Heads};

/// The kernels of one file, which the driver compiles together.
#[derive(Debug)]
struct Module {
    name: &'static str,
    ptx: &'static str,
}

macro_rules! module {
    ($name:literal) => {
        Module {
            name: $name,
            ptx: include_str!(concat!(env!("OUT_DIR"), "/", $name, ".ptx")),
        }
    };
}
const ATTENTION: Module = module!("attention");
const ATTENTION_F32: Module = module!("attention_f32");
const NORM: Module = module!("norm");
const ROWS: Module = module!("rows");

/// Has the driver compile all of them.
pub(super) fn load(device: &CudaDevice) -> Result<()> {
    for (module, kernel) in [
        (ATTENTION, "attention_bf16_64"),
        (ATTENTION_F32, "attention_f32"),
        (NORM, "norm_f32"),
        (ROWS, "gated_f32"),
    ] {
        function(device, &module, kernel)?;
    }
    Ok(())
}

/// Threads of a block of every kernel but the attention's in 16 bits.
const THREADS: u32 = 256;

/// A number type of the kernels, which have the name of its dtype in theirs.
trait Number: CudaDType + DeviceRepr + WithDType {}
impl<T: CudaDType + DeviceRepr + WithDType> Number for T {}

fn function(device: &CudaDevice, module: &Module, name: &str) -> Result<CudaFunction> {
    let function = device.get_or_load_custom_func(name, module.name, module.ptx)?;
    Ok(function.into_cuda_function())
}

/// Returns the elements of a contiguous tensor.
fn elements<'a, T: CudaDType>(
    storage: &'a CudaStorage,
    layout: &Layout,
) -> Result<CudaView<'a, T>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(storage.as_cuda_slice::<T>()?.slice(start..end)),
        None => bail!("the kernel's input is not contiguous"),
    }
}

/// Launches a kernel with the arguments that follow.
///
/// The caller's kernel reads and writes within its arguments: their shapes were checked before.
macro_rules! launch {
    ($device:expr, $function:expr, $grid:expr, $threads:expr, $($argument:expr),+ $(,)?) => {
        launch!(sharing 0; $device, $function, $grid, $threads, $($argument),+)
    };
    // With so many bytes that the threads of a block share, beside those the kernel declares itself.
    (sharing $bytes:expr; $device:expr, $function:expr, $grid:expr, $threads:expr, $($argument:expr),+ $(,)?) => {{
        let (stream, function) = ($device.cuda_stream(), $function);
        let mut builder = stream.launch_builder(&function);
        $(builder.arg($argument);)+
        let config = LaunchConfig {
            grid_dim: $grid,
            block_dim: ($threads, 1, 1),
            shared_mem_bytes: $bytes,
        };
        #[expect(unsafe_code, reason = "kernels are launched by address")]
        // SAFETY: the arguments are those the kernel declares, and it stays within their shapes.
        unsafe { builder.launch(config) }.w()?
    }};
}

mod attention;
mod gather;
mod norm;
pub use attention::{Attend, attention_work, can_attend};
pub use gather::Gather;
pub use norm::{AddBias, RowNorm};

/// Allocates what a kernel writes whole.
fn output<T: DeviceRepr>(device: &CudaDevice, count: usize) -> Result<CudaSlice<T>> {
    #[expect(unsafe_code, reason = "zeroing what is overwritten costs a pass")]
    // SAFETY: the kernel that follows on the same stream writes every element.
    unsafe {
        device.alloc::<T>(count)
    }
}

/// Rotates the query and key heads of `[tokens, queries | keys | values]` in place by cosines and
/// sines (`[tokens, rotated / 2]` each).
#[derive(Debug, Clone, Copy)]
pub struct Rotate(pub Heads);

impl Rotate {
    fn run<T: Number>(
        self,
        qkv: &mut CudaStorage,
        (cos, cos_layout): (&CudaStorage, &Layout),
        (sin, sin_layout): (&CudaStorage, &Layout),
    ) -> Result<()> {
        let device = qkv.device().clone();
        let (tokens, half) = cos_layout.shape().dims2()?;
        let (cos, sin) = (
            elements::<T>(cos, cos_layout)?,
            elements::<T>(sin, sin_layout)?,
        );
        let Heads { queries, keys, dim } = self.0;
        let (stride, dim) = (((queries + 2 * keys) * dim) as i32, dim as i32);
        let (heads, half) = ((queries + keys) as i32, half as i32);
        launch!(
            &device,
            function(&device, &ROWS, &format!("rotate_{}", T::DTYPE.as_str()))?,
            (tokens as u32, 1, 1),
            THREADS,
            qkv.as_cuda_slice_mut::<T>()?,
            &cos,
            &sin,
            &stride,
            &heads,
            &dim,
            &half,
        );
        Ok(())
    }
}

impl InplaceOp3 for Rotate {
    fn name(&self) -> &'static str {
        "rotate"
    }

    fn cpu_fwd(
        &self,
        _: &mut CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<()> {
        bail!("the CPU rotates within its attention")
    }

    fn cuda_fwd(
        &self,
        qkv: &mut CudaStorage,
        qkv_layout: &Layout,
        cos: &CudaStorage,
        cos_layout: &Layout,
        sin: &CudaStorage,
        sin_layout: &Layout,
    ) -> Result<()> {
        let Heads { queries, keys, dim } = self.0;
        let tokens = cos_layout.shape().dims2()?.0;
        let whole = qkv_layout.contiguous_offsets() == Some((0, qkv_layout.shape().elem_count()));
        if cos_layout.shape() != sin_layout.shape() || 2 * cos_layout.shape().dims2()?.1 > dim {
            bail!(
                "{:?} and {:?} for {:?}",
                cos_layout.shape(),
                sin_layout.shape(),
                self.0
            )
        }
        if !whole || qkv_layout.shape().dims2()? != (tokens, (queries + 2 * keys) * dim) {
            bail!("{:?} for {:?}", qkv_layout.shape(), self.0)
        }
        let (cos, sin) = ((cos, cos_layout), (sin, sin_layout));
        by_type!(qkv.dtype(), T => self.run::<T>(qkv, cos, sin))
    }
}

/// The gated activation on the device: from `[rows, gate | up]` to `[rows, width]`.
#[derive(Debug, Clone, Copy)]
pub struct Gate(i32);

impl Gate {
    /// Returns the kernel of an activation, if there is one.
    pub const fn of(activation: Activation) -> Option<Self> {
        match activation {
            Activation::Silu => Some(Self(0)),
            Activation::GeluTanh => Some(Self(1)),
            Activation::Gelu => Some(Self(2)),
            _ => None,
        }
    }

    fn run<T: Number>(
        self,
        device: &CudaDevice,
        gate_up: &CudaView<'_, T>,
        (rows, width): (usize, usize),
    ) -> Result<CudaStorage> {
        let mut out = output::<T>(device, rows * width)?;
        let width = width as i32;
        launch!(
            device,
            function(device, &ROWS, &format!("gated_{}", T::DTYPE.as_str()))?,
            (rows as u32, 1, 1),
            THREADS,
            gate_up,
            &mut out,
            &width,
            &self.0,
        );
        Ok(CudaStorage::wrap_cuda_slice(out, device.clone()))
    }
}

impl CustomOp1 for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("the CPU has a gate of its own")
    }

    fn cuda_fwd(&self, gate_up: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (rows, columns) = layout.shape().dims2()?;
        if !columns.is_multiple_of(2) {
            bail!("{columns} columns are not gate and up")
        }
        let (device, shape) = (gate_up.device(), (rows, columns / 2));
        let out = by_type!(gate_up.dtype(), T => self.run::<T>(device, &elements(gate_up, layout)?, shape)?);
        Ok((out, shape.into()))
    }
}

/// `-log softmax(row)[target]` of each row of logits (`[rows, vocabulary]`), in f32. Targets are
/// within the vocabulary.
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropy;

impl CrossEntropy {
    fn run<T: Number>(
        device: &CudaDevice,
        logits: &CudaView<'_, T>,
        targets: &CudaView<'_, u32>,
        (rows, width): (usize, usize),
    ) -> Result<CudaStorage> {
        let mut out = output::<f32>(device, rows)?;
        let width = width as i32;
        launch!(
            device,
            function(
                device,
                &ROWS,
                &format!("cross_entropy_{}", T::DTYPE.as_str())
            )?,
            (rows as u32, 1, 1),
            THREADS,
            logits,
            targets,
            &mut out,
            &width,
        );
        Ok(CudaStorage::wrap_cuda_slice(out, device.clone()))
    }
}

impl CustomOp2 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("the CPU has a cross-entropy of its own")
    }

    fn cuda_fwd(
        &self,
        logits: &CudaStorage,
        layout: &Layout,
        targets: &CudaStorage,
        targets_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let shape = layout.shape().dims2()?;
        if targets_layout.shape().dims1()? != shape.0 {
            bail!("{:?} targets for {shape:?}", targets_layout.shape())
        }
        let (device, targets) = (logits.device(), elements(targets, targets_layout)?);
        let out = by_type!(logits.dtype(), T => Self::run::<T>(device, &elements(logits, layout)?, &targets, shape)?);
        Ok((out, shape.0.into()))
    }
}
