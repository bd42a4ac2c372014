//! Operations with gradients that Candle does not have, or has at the price of gradients nobody asks for.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use masf_core::values;

/// `x W` for inputs `x [N, I]` that need no gradient, and a weight `[I, O]` that does.
pub(crate) struct FrozenLinear {
    x: Tensor,
    y: Vec<f32>,
}

impl FrozenLinear {
    /// The product `[N, O]`.
    pub(crate) fn apply(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let y = x.matmul(&weight.detach())?;
        if !weight.track_op() {
            return Ok(y);
        }
        weight.apply_op1(Self { x: x.clone(), y: values(&y)? })
    }
}

impl CustomOp1 for FrozenLinear {
    fn name(&self) -> &'static str {
        "frozen-linear"
    }

    fn cpu_fwd(&self, _: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, output) = layout.shape().dims2()?;
        Ok((CpuStorage::F32(self.y.clone()), Shape::from((self.x.dim(0)?, output))))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.x.t()?.contiguous()?.matmul(&gradient.contiguous()?)?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn it_is_the_plain_product() -> Result<()> {
        let x = Tensor::arange(0f32, 12f32, &Device::Cpu)?.reshape((4, 3))?;
        let weight = Var::from_tensor(&Tensor::arange(0f32, 6f32, &Device::Cpu)?.reshape((3, 2))?)?;
        let (plain, own) = (x.matmul(&weight)?, FrozenLinear::apply(&x, &weight)?);
        assert_eq!(values(&plain)?, values(&own)?);
        let gradient = |y: Tensor| -> Result<Vec<f32>> {
            values(y.sqr()?.sum_all()?.backward()?.get(&weight).expect("the weight takes part"))
        };
        assert_eq!(gradient(plain)?, gradient(own)?);
        Ok(())
    }
}
