//! The parts of a transformer's layers; residuals and norms are left to the network.

use candle_core::Tensor;
use masf_core::Result;

use super::fused::softmax;
use super::tokens::{Grid, linear};
use super::{Parameters, Start};
use crate::BaselineError;

/// Most bytes that the attentions of a step may hold.
const MOST_BYTES: u64 = 8 << 30;

/// Refuses a training whose attentions would hold too much: `pairs` counts the pairs of positions of all that are held at once, each of
/// which leaves three values to the gradient, and one while that is taken, for every head and image.
pub(crate) fn check_attentions(
    positions: usize,
    pairs: usize,
    heads: usize,
    batch_size: usize,
) -> Result<(), BaselineError> {
    let factors = [4, size_of::<f32>(), heads, batch_size];
    let bytes = factors.iter().fold(pairs as u64, |all, factor| all.saturating_mul(*factor as u64));
    if bytes <= MOST_BYTES {
        return Ok(());
    }
    let expected = format!(
        "attentions of at most {} MiB a step instead of {} (a coarser level, smaller images or a smaller batch_size)",
        MOST_BYTES >> 20,
        bytes >> 20
    );
    Err(BaselineError::parameter("levels", format!("{positions} positions at the coarsest"), expected))
}

/// Refuses a model whose attentions over one image, which are held one at a time, would take more than those of a training may.
pub(crate) fn check_one_image((height, width): Grid, heads: usize) -> Result<(), BaselineError> {
    let positions = height * width;
    check_attentions(positions, positions * positions, heads, 1)
}

/// Multi-head attention: projections of queries, keys and values, and of the result.
pub(crate) struct Attention {
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    heads: usize,
}

impl Attention {
    /// For tokens of `width` channels, a multiple of `heads`.
    pub(crate) fn new(width: usize, heads: usize, parameters: &mut Parameters<'_>, name: &str) -> Result<Self> {
        let shape = [width, width];
        let start = Start::Normal(1.0 / (width as f64).sqrt());
        let mut take = |part: &str| parameters.take(&format!("{name}.{part}"), &shape, start);
        Ok(Self { query: take("query")?, key: take("key")?, value: take("value")?, out: take("out")?, heads })
    }

    /// `[B, Q, D]` attends to `[B, K, D]`.
    pub(crate) fn attend(&self, queries: &Tensor, keys: &Tensor) -> candle_core::Result<Tensor> {
        let (batch, count, width) = queries.dims3()?;
        let head = width / self.heads;
        let split = |x: Tensor| x.reshape((batch, (), self.heads, head))?.transpose(1, 2)?.contiguous();
        let q = split(linear(queries, &self.query, None)?)?;
        let k = split(linear(keys, &self.key, None)?)?;
        let v = split(linear(keys, &self.value, None)?)?;
        let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? * (1.0 / (head as f64).sqrt()))?;
        let mixed = softmax(&scores)?.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape((batch, count, width))?;
        linear(&mixed, &self.out, None)
    }
}

/// `W2 relu(W1 x + b1) + b2`.
pub(crate) struct Mlp {
    up: (Tensor, Tensor),
    down: (Tensor, Tensor),
}

impl Mlp {
    /// For tokens of `width` channels, with `ratio` times as many hidden ones.
    pub(crate) fn new(width: usize, ratio: usize, parameters: &mut Parameters<'_>, name: &str) -> Result<Self> {
        let hidden = width * ratio;
        let mut affine = |part: &str, input: usize, output: usize| -> Result<(Tensor, Tensor)> {
            let start = Start::Normal(1.0 / (input as f64).sqrt());
            let weight = parameters.take(&format!("{name}.{part}"), &[input, output], start)?;
            Ok((weight, parameters.take(&format!("{name}.{part}.bias"), &[output], Start::Constant(0.0))?))
        };
        Ok(Self { up: affine("up", width, hidden)?, down: affine("down", hidden, width)? })
    }

    pub(crate) fn apply(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let hidden = linear(x, &self.up.0, Some(&self.up.1))?.relu()?;
        linear(&hidden, &self.down.0, Some(&self.down.1))
    }
}
