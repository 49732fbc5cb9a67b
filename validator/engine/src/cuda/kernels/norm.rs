//! Norms over rows, with the residual's new term added on the way, and biases of linear layers.

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, D, DType, InplaceOp2, Layout, Result, Shape,
    Storage, Tensor,
    backend::BackendStorage,
    bail,
    cuda_backend::{
        WrapErr,
        cudarc::driver::{LaunchConfig, PushKernelArg},
    },
};
use model::config::Norm as NormSpec;

use super::{NORM, Number, elements, function, output};
use crate::dtype::by_type;

/// A norm over the last dimension, of `x` or of `x + term`; see [`crate::cpu::norm::RowNorm`].
#[derive(Debug, Clone)]
pub struct RowNorm {
    /// Its number in `kernels/norm.cu`.
    kind: i32,
    eps: f32,
    width: usize,
    /// Rows of weight, taken in turns.
    rows: usize,
    /// Weight, then bias if there is one, in f32.
    weight: Tensor,
    biased: bool,
}

impl RowNorm {
    /// Makes a norm of weight and bias: `[width]` or `[rows, width]`.
    ///
    /// # Errors
    /// The device's.
    pub fn new(spec: &NormSpec, weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let (kind, eps) = match *spec {
            NormSpec::Rms { eps } => (0, eps),
            NormSpec::RmsPlusOne { eps } => (1, eps),
            NormSpec::Layer { eps } => (2, eps),
        };
        let width = weight.dim(D::Minus1)?;
        let rows = weight.elem_count() / width;
        let biased = bias.is_some();
        let plain = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.flatten_all();
        let mut weight = plain(weight)?;
        if matches!(spec, NormSpec::RmsPlusOne { .. }) {
            weight = (weight + 1.0)?;
        }
        if let Some(bias) = bias {
            weight = Tensor::cat(&[weight, plain(bias)?], 0)?;
        }
        Ok(Self {
            kind,
            eps: eps as f32,
            width,
            rows,
            weight,
            biased,
        })
    }

    /// Normalizes `x`.
    ///
    /// # Errors
    /// The device's.
    pub fn of(&self, x: &Tensor) -> Result<Tensor> {
        x.apply_op1_no_bwd(self)
    }

    /// Returns `x + term` and what it is normalized.
    ///
    /// # Errors
    /// The device's.
    pub fn of_sum(&self, x: &Tensor, term: &Tensor) -> Result<(Tensor, Tensor)> {
        let both = x.apply_op2_no_bwd(term, self)?;
        Ok((both.get(0)?, both.get(1)?))
    }

    fn run<T: Number>(
        &self,
        (x, x_layout): (&CudaStorage, &Layout),
        term: Option<(&CudaStorage, &Layout)>,
    ) -> Result<CudaStorage> {
        let device = x.device();
        let x = elements::<T>(x, x_layout)?;
        let summed = term.is_some();
        let term = match term {
            Some((term, layout)) => elements::<T>(term, layout)?,
            None => x.slice(..),
        };
        if !x.len().is_multiple_of(self.width) || x.len() != term.len() {
            bail!("no norm over {} of {:?}", self.width, x_layout.shape())
        }
        let (weight, layout) = self.weight.storage_and_layout();
        let Storage::Cuda(weight) = &*weight else {
            bail!("a norm's weight is not on the device")
        };
        let weight = elements::<f32>(weight, layout)?;
        let mut out = output::<T>(device, x.len() * (1 + usize::from(summed)))?;
        let threads = (self.width / 4).next_multiple_of(32).clamp(32, 256) as u32;
        let [width, rows] = [self.width, self.rows].map(|count| count as i32);
        let [summed, biased] = [summed, self.biased].map(i32::from);
        launch!(
            device,
            function(device, &NORM, &format!("norm_{}", T::DTYPE.as_str()))?,
            ((x.len() / self.width) as u32, 1, 1),
            threads,
            &x,
            &term,
            &mut out,
            &weight,
            &width,
            &rows,
            &self.kind,
            &summed,
            &biased,
            &self.eps,
        );
        Ok(CudaStorage::wrap_cuda_slice(out, device.clone()))
    }

    fn dispatch(
        &self,
        x: (&CudaStorage, &Layout),
        term: Option<(&CudaStorage, &Layout)>,
    ) -> Result<CudaStorage> {
        by_type!(x.0.dtype(), T => self.run::<T>(x, term))
    }
}

impl CustomOp1 for RowNorm {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("the CPU has a norm of its own")
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        Ok((self.dispatch((x, layout), None)?, layout.shape().clone()))
    }
}

impl CustomOp2 for RowNorm {
    fn name(&self) -> &'static str {
        "norm-of-sum"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("the CPU has a norm of its own")
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        layout: &Layout,
        term: &CudaStorage,
        term_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let out = self.dispatch((x, layout), Some((term, term_layout)))?;
        Ok((out, [&[2][..], layout.shape().dims()].concat().into()))
    }
}

/// Adds a bias to each row of a tensor in place.
#[derive(Debug, Clone, Copy)]
pub struct AddBias;

impl AddBias {
    fn run<T: Number>(
        x: &mut CudaStorage,
        (rows, columns): (usize, usize),
        (bias, bias_layout): (&CudaStorage, &Layout),
    ) -> Result<()> {
        let device = x.device().clone();
        let bias = elements::<T>(bias, bias_layout)?;
        let width = columns as i32;
        launch!(
            &device,
            function(&device, &NORM, &format!("add_bias_{}", T::DTYPE.as_str()))?,
            (rows as u32, 1, 1),
            super::THREADS,
            x.as_cuda_slice_mut::<T>()?,
            &bias,
            &width,
        );
        Ok(())
    }
}

impl InplaceOp2 for AddBias {
    fn name(&self) -> &'static str {
        "add-bias"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<()> {
        bail!("the CPU adds biases within its products")
    }

    fn cuda_fwd(
        &self,
        x: &mut CudaStorage,
        layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> Result<()> {
        let shape = layout.shape().dims2()?;
        let whole = layout.contiguous_offsets() == Some((0, layout.shape().elem_count()));
        if !whole || bias_layout.shape().dims1()? != shape.1 {
            bail!("{:?} for {shape:?}", bias_layout.shape())
        }
        let bias = (bias, bias_layout);
        by_type!(x.dtype(), T => Self::run::<T>(x, shape, bias))
    }
}
