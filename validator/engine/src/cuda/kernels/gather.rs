//! Rows of a matrix, by their numbers.

use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp2, Layout, Result, Shape,
    backend::BackendStorage,
    bail,
    cuda_backend::{
        WrapErr,
        cudarc::driver::{CudaView, LaunchConfig, PushKernelArg},
    },
};

use super::{Number, ROWS, THREADS, elements, function, output};
use crate::dtype::by_type;

/// From `[all, width]` and the numbers of rows (`[rows]`, u32, each below `all`) to `[rows, width]`.
#[derive(Debug, Clone, Copy)]
pub struct Gather;

impl Gather {
    fn run<T: Number>(
        device: &CudaDevice,
        from: &CudaView<'_, T>,
        rows: &CudaView<'_, u32>,
        width: usize,
    ) -> Result<CudaStorage> {
        let mut out = output::<T>(device, rows.len() * width)?;
        let (count, width) = (rows.len() as u32, width as i32);
        launch!(
            device,
            function(device, &ROWS, &format!("gather_{}", T::DTYPE.as_str()))?,
            (count, 1, 1),
            THREADS,
            from,
            rows,
            &mut out,
            &width,
        );
        Ok(CudaStorage::wrap_cuda_slice(out, device.clone()))
    }
}

impl CustomOp2 for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("the CPU takes rows by itself")
    }

    fn cuda_fwd(
        &self,
        from: &CudaStorage,
        layout: &Layout,
        rows: &CudaStorage,
        rows_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (_, width) = layout.shape().dims2()?;
        let (device, rows) = (from.device(), elements(rows, rows_layout)?);
        let out = by_type!(from.dtype(), T => Self::run::<T>(device, &elements(from, layout)?, &rows, width)?);
        Ok((out, (rows.len(), width).into()))
    }
}
