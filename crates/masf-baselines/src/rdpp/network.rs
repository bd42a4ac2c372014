//! Projections, bottleneck and decoder.
//!
//! ```text
//! p_l = four layers C -> C/2 -> C/4 -> C/2 -> C of level l, each with instance normalisation and leaky ReLU
//! z   = sum over l of (cell means on the coarsest grid) (p_l A_l)
//! u   = leaky(n(conv 3 x 3, stride 2, of leaky(n(z))))         twice the width, half the sides
//! u   = u + W2 leaky(W1 n(u))
//! u_l = leaky(n(conv 3 x 3 of u resized bilinearly to level l)), coarsest first
//! d_l = u_l H_l + b_l
//! ```
//!
//! `n` is the layer normalisation of a token.

use candle_core::Tensor;
use masf_core::Result;

use super::params::RdppParams;
use crate::training::tokens::{
    self, Grid, Resampling, cell_means, layer_norm, leaky_instance_norm, leaky_layer_norm, leaky_relu, linear,
    map_positions, neighbourhoods,
};
use crate::training::{Level, Parameters, Start, grid};

/// The network with its parameters.
pub(super) struct Network {
    levels: Vec<Level>,
    /// Four weights for every level.
    projections: Vec<Vec<Tensor>>,
    reduce: Vec<Tensor>,
    /// Cell means of every level on the coarsest grid.
    cells: Vec<Resampling>,
    down: Tensor,
    hidden: (Tensor, Tensor),
    /// From the coarsest level to the finest.
    ups: Vec<Up>,
}

struct Up {
    resize: Resampling,
    grid: Grid,
    convolution: Tensor,
    head: Tensor,
    bias: Tensor,
}

impl Network {
    /// A network for levels, finest first, with parameters as they are taken.
    pub(super) fn new(params: &RdppParams, levels: &[Level], parameters: &mut Parameters<'_>) -> Result<Self> {
        let weight = |parameters: &mut Parameters<'_>, name: &str, input: usize, output: usize| {
            parameters.take(name, &[input, output], Start::Normal((2.0 / input as f64).sqrt()))
        };
        let width = params.width;
        let coarsest = grid(levels.last());
        let (mut projections, mut reduce, mut cells) = (Vec::new(), Vec::new(), Vec::new());
        // Levels by stride in the names of parameters; further ones of a stride are numbered.
        let name = |index: usize| {
            let stride = levels[index].0.stride;
            let further = index > 0 && levels[index - 1].0.stride == stride;
            if further { format!("{stride}-{index}") } else { stride.to_string() }
        };
        for (index, (spec, height, columns)) in levels.iter().enumerate() {
            let (channels, stride) = (spec.channels, name(index));
            let (half, quarter) = ((channels / 2).max(1), (channels / 4).max(1));
            let shapes = [(channels, half), (half, quarter), (quarter, half), (half, channels)];
            let layers = shapes.iter().enumerate().map(|(layer, (input, output))| {
                weight(parameters, &format!("projection{stride}.{layer}"), *input, *output)
            });
            projections.push(layers.collect::<Result<Vec<_>>>()?);
            reduce.push(weight(parameters, &format!("reduce{stride}"), channels, width)?);
            cells.push(cell_means((*height, *columns), coarsest));
        }
        let down = weight(parameters, "down", 9 * width, 2 * width)?;
        let hidden = (
            weight(parameters, "hidden.up", 2 * width, 4 * width)?,
            weight(parameters, "hidden.down", 4 * width, 2 * width)?,
        );
        let (mut from, mut input) = (tokens::strided(coarsest, 2), 2 * width);
        let mut ups = Vec::with_capacity(levels.len());
        for (index, (spec, height, columns)) in levels.iter().rev().enumerate() {
            let (grid, output) = ((*height, *columns), (width >> index).max(64.min(width)));
            let stride = name(levels.len() - 1 - index);
            let start = Start::Normal(1.0 / (output as f64).sqrt());
            ups.push(Up {
                resize: tokens::bilinear(from, grid),
                grid,
                convolution: weight(parameters, &format!("up{stride}"), 9 * input, output)?,
                head: parameters.take(&format!("head{stride}"), &[output, spec.channels], start)?,
                bias: parameters.take(&format!("bias{stride}"), &[spec.channels], Start::Constant(0.0))?,
            });
            (from, input) = (grid, output);
        }
        Ok(Self { levels: levels.to_vec(), projections, reduce, cells, down, hidden, ups })
    }

    /// The projection of the features of a level, `[B, P, C]`.
    pub(super) fn project(&self, level: usize, features: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = features.clone();
        for weight in &self.projections[level] {
            x = leaky_instance_norm(&linear(&x, weight, None)?)?;
        }
        Ok(x)
    }

    /// The levels as the decoder restores them from projected ones, finest first, `[B, P, C]` each.
    pub(super) fn restore(&self, projected: &[Tensor]) -> candle_core::Result<Vec<Tensor>> {
        let mut sum: Option<Tensor> = None;
        for ((projected, reduce), cells) in projected.iter().zip(&self.reduce).zip(&self.cells) {
            let part = map_positions(&linear(projected, reduce, None)?, cells)?;
            sum = Some(match sum {
                Some(sum) => (sum + part)?,
                None => part,
            });
        }
        let Some(sum) = sum else { candle_core::bail!("there are no levels") };
        let coarsest = grid(self.levels.last());
        let x = leaky_layer_norm(&sum)?;
        let x = leaky_layer_norm(&linear(&neighbourhoods(&x, coarsest, 2)?, &self.down, None)?)?;
        let hidden = leaky_relu(&linear(&layer_norm(&x)?, &self.hidden.0, None)?)?;
        let mut x = (x + linear(&hidden, &self.hidden.1, None)?)?;
        let mut restored = Vec::with_capacity(self.ups.len());
        for up in &self.ups {
            let resized = map_positions(&x, &up.resize)?;
            x = leaky_layer_norm(&linear(&neighbourhoods(&resized, up.grid, 1)?, &up.convolution, None)?)?;
            restored.push(linear(&x, &up.head, Some(&up.bias))?);
        }
        restored.reverse();
        Ok(restored)
    }
}
