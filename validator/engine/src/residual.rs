//! The residual stream: a sum that each block adds a term to, and reads through a norm.

use candle_core::{Device, Result, Tensor};

use crate::{batch::take_rows, device::moved, linear::Linear, norm::Norm};

/// A sum whose last term may still be beside it: a norm that is read next adds it on its way.
#[derive(Debug)]
pub(crate) struct Residual {
    sum: Tensor,
    term: Option<Tensor>,
}

impl Residual {
    pub(crate) const fn new(sum: Tensor) -> Self {
        Self { sum, term: None }
    }

    /// Adds a linear layer's output, as it is or normalized.
    pub(crate) fn add(self, linear: &Linear, norm: Option<&Norm>, x: &Tensor) -> Result<Self> {
        let sum = self.sum()?;
        if let Some(norm) = norm {
            let term = Some(norm.forward(&linear.forward(x)?)?);
            return Ok(Self { sum, term });
        }
        if sum.device().is_cpu() {
            return Ok(Self::new(linear.add_to(sum, x)?));
        }
        let term = Some(linear.forward(x)?);
        Ok(Self { sum, term })
    }

    /// Returns the sum, and what a norm makes of it.
    pub(crate) fn normed(self, norm: &Norm) -> Result<(Self, Tensor)> {
        let (sum, normed) = norm.forward_sum(self.sum, self.term.as_ref())?;
        Ok((Self::new(sum), normed))
    }

    /// Keeps only some rows, or all.
    pub(crate) fn rows(self, rows: Option<&Tensor>) -> Result<Self> {
        match rows {
            Some(rows) => Ok(Self::new(take_rows(&self.sum()?, rows)?)),
            None => Ok(self),
        }
    }

    /// Brings it to another device.
    pub(crate) fn to_device(&self, device: &Device) -> Result<Self> {
        let term = self.term.as_ref();
        Ok(Self {
            sum: moved(&self.sum, device)?,
            term: term.map(|term| moved(term, device)).transpose()?,
        })
    }

    fn sum(self) -> Result<Tensor> {
        match self.term {
            Some(term) => self.sum + term,
            None => Ok(self.sum),
        }
    }
}
