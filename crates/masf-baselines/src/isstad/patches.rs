//! Pyramids as tokens: the features of all levels within one cell of the coarsest grid.
//!
//! The features of a position are normalised over their channels, level by level, as masked autoencoders normalise the pixels of a
//! patch (He et al. 2022). Features have long tails; without this a few strong ones decide what is restored and scored.

use candle_core::{DType, Device, Result, Tensor};
use masf_core::resample::bilinear;

use crate::training::tokens::{Grid, layer_norm};
use crate::training::{Level, grid};

/// How a level lies in the cells of the coarsest grid.
struct Layout {
    /// Positions of a cell; where sizes do not divide, cells at the border repeat the last row and column.
    cell: usize,
    /// For every position of every cell in turn, the position of the level.
    reads: Tensor,
    /// For every position of the level, its place among those of all cells.
    places: Tensor,
}

impl Layout {
    fn new((height, width): Grid, coarsest: Grid) -> Result<Self> {
        let (rows, columns) = (height.div_ceil(coarsest.0), width.div_ceil(coarsest.1));
        let cell = rows * columns;
        let mut reads = Vec::with_capacity(coarsest.0 * coarsest.1 * cell);
        for token in 0..coarsest.0 * coarsest.1 {
            for place in 0..cell {
                let row = (token / coarsest.1 * rows + place / columns).min(height - 1);
                let column = (token % coarsest.1 * columns + place % columns).min(width - 1);
                reads.push((row * width + column) as u32);
            }
        }
        let place = |position: usize| {
            let (row, column) = (position / width, position % width);
            let token = row / rows * coarsest.1 + column / columns;
            (token * cell + row % rows * columns + column % columns) as u32
        };
        let places: Vec<u32> = (0..height * width).map(place).collect();
        Ok(Self { cell, reads: Tensor::new(reads, &Device::Cpu)?, places: Tensor::new(places, &Device::Cpu)? })
    }
}

/// Pyramids as the transformer takes them.
pub(super) struct Patches {
    levels: Vec<Level>,
    /// The deviation of every level's features, which they are divided by, so that the norm's epsilon is small beside any.
    deviations: Vec<f32>,
    layouts: Vec<Layout>,
}

impl Patches {
    /// For levels, finest first, and the deviation of each.
    pub(super) fn new(levels: Vec<Level>, deviations: Vec<f32>) -> masf_core::Result<Self> {
        let coarsest = grid(levels.last());
        let layouts = levels.iter().map(|(_, height, width)| Layout::new((*height, *width), coarsest));
        let layouts = layouts.collect::<Result<_>>()?;
        Ok(Self { levels, deviations, layouts })
    }

    pub(super) fn levels(&self) -> &[Level] {
        &self.levels
    }

    pub(super) fn deviations(&self) -> &[f32] {
        &self.deviations
    }

    /// The grid of tokens.
    pub(super) fn grid(&self) -> Grid {
        grid(self.levels.last())
    }

    /// The grid of scores, which is the finest.
    pub(super) fn finest(&self) -> Grid {
        grid(self.levels.first())
    }

    /// Channels of a token.
    pub(super) fn channels(&self) -> usize {
        self.levels.iter().zip(&self.layouts).map(|((spec, ..), layout)| spec.channels * layout.cell).sum()
    }

    /// Positions of the finest grid in a token.
    pub(super) fn cell(&self) -> usize {
        self.layouts.first().map_or(1, |layout| layout.cell)
    }

    /// The tokens `[B, P, C]` of the features `[B, positions, channels]` of all levels.
    pub(super) fn join(&self, features: &[Tensor]) -> Result<Tensor> {
        let (height, width) = self.grid();
        let mut parts = Vec::with_capacity(features.len());
        for ((features, layout), deviation) in features.iter().zip(&self.layouts).zip(&self.deviations) {
            let normal = layer_norm(&(features / f64::from(*deviation))?)?;
            parts.push(normal.index_select(&layout.reads, 1)?.reshape((features.dim(0)?, height * width, ()))?);
        }
        Tensor::cat(&parts, 2)
    }

    /// Values of the positions of the finest grid, `[B, positions]`, by token: `[B, P, cell]`.
    pub(super) fn split(&self, values: &Tensor) -> Result<Tensor> {
        let Some(layout) = self.layouts.first() else { candle_core::bail!("there are no levels") };
        values.index_select(&layout.reads, 1)?.reshape((values.dim(0)?, (), layout.cell))
    }

    /// Values by token, `[B, P, cell]`, as a map on the finest grid, `[B, h, w]`.
    pub(super) fn map(&self, values: &Tensor) -> Result<Tensor> {
        self.lay(0, values)
    }

    fn lay(&self, level: usize, values: &Tensor) -> Result<Tensor> {
        let (_, height, width) = self.levels[level];
        let values = values.reshape((values.dim(0)?, ()))?.index_select(&self.layouts[level].places, 1)?;
        values.reshape((values.dim(0)?, height, width))
    }

    /// The mean over the levels of the mean squares over the channels of tokens `[B, P, C]`, as a map on the finest grid, `[B, h, w]`.
    pub(super) fn mean_squares(&self, tokens: &Tensor) -> masf_core::Result<Tensor> {
        let batch = tokens.dim(0)?;
        let (height, width) = self.finest();
        let mut sum = Tensor::zeros((batch, height, width), DType::F32, &Device::Cpu)?;
        let mut first = 0;
        for (level, ((spec, ..), layout)) in self.levels.iter().zip(&self.layouts).enumerate() {
            let count = spec.channels * layout.cell;
            let part =
                tokens.narrow(2, first, count)?.contiguous()?.reshape((batch, (), layout.cell, spec.channels))?;
            let squares = self.lay(level, &part.sqr()?.mean(3)?)?;
            sum = (sum + bilinear(&squares, (height, width))?)?;
            first += count;
        }
        Ok((sum / self.levels.len().max(1) as f64)?)
    }
}

#[cfg(test)]
mod tests {
    use masf_core::LevelSpec;

    use super::*;
    use crate::training::values;

    fn patches(sizes: &[(usize, Grid)]) -> masf_core::Result<Patches> {
        let level = |(index, (channels, (height, width))): (usize, &(usize, Grid))| {
            (LevelSpec { stride: 8 << index, channels: *channels }, *height, *width)
        };
        let levels: Vec<Level> = sizes.iter().enumerate().map(level).collect();
        let deviations = vec![2.0; levels.len()];
        Patches::new(levels, deviations)
    }

    #[test]
    fn a_token_holds_its_cell() -> masf_core::Result<()> {
        let patches = patches(&[(2, (4, 4)), (3, (2, 2))])?;
        assert_eq!((patches.grid(), patches.finest(), patches.cell(), patches.channels()), ((2, 2), (4, 4), 4, 11));
        // Every position has another pattern of ones and minus ones, whatever its scale.
        let fine: Vec<f32> = (0..16).flat_map(|at| if at % 3 == 0 { [9.0, 5.0] } else { [-7.0, at as f32] }).collect();
        let coarse: Vec<f32> = (0..4).flat_map(|at| [at as f32, 0.0, -(at as f32)]).collect();
        let fine = Tensor::from_vec(fine, (1, 16, 2), &Device::Cpu)?;
        let tokens = patches.join(&[fine, Tensor::from_vec(coarse, (1, 4, 3), &Device::Cpu)?])?;
        // The second token: positions 2, 3, 6 and 7 of the fine level, position 1 of the coarse one.
        let expected = [-1.0, 1.0, 1.0, -1.0, 1.0, -1.0, -1.0, 1.0, 1.5f32.sqrt(), 0.0, -(1.5f32.sqrt())];
        for (found, expected) in values(&tokens.get(0)?.get(1)?)?.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-3, "{found} {expected}");
        }
        let numbers = Tensor::arange(0f32, 16f32, &Device::Cpu)?.reshape((1, 16))?;
        let back = patches.map(&patches.split(&numbers)?)?;
        assert_eq!(values(&back)?, values(&numbers)?);
        Ok(())
    }

    #[test]
    fn sizes_that_do_not_divide_keep_every_position() -> masf_core::Result<()> {
        for (fine, coarse) in [((5, 7), (3, 4)), ((9, 4), (2, 2)), ((3, 3), (3, 3)), ((7, 1), (4, 1))] {
            let patches = patches(&[(3, fine), (2, coarse)])?;
            let count = fine.0 * fine.1;
            let values_of = Tensor::arange(0f32, count as f32, &Device::Cpu)?.reshape((1, count))?;
            let back = patches.map(&patches.split(&values_of)?)?;
            assert_eq!(back.dims(), [1, fine.0, fine.1]);
            assert_eq!(values(&back)?, values(&values_of)?);
        }
        Ok(())
    }

    #[test]
    fn levels_weigh_alike_in_mean_squares() -> masf_core::Result<()> {
        let patches = patches(&[(3, (4, 4)), (5, (2, 2))])?;
        let ones = |channels| Tensor::ones((2, 4, channels), DType::F32, &Device::Cpu);
        let tokens = Tensor::cat(&[ones(12)?, (ones(5)? * 3.0)?], 2)?;
        for value in values(&patches.mean_squares(&tokens)?)? {
            assert!((value - 5.0).abs() < 1e-6, "{value}");
        }
        Ok(())
    }
}
