//! The chosen channels of all levels on the grid of the finest one.

use candle_core::{DType, Device};
use masf_core::{FeaturePyramid, LevelSpec};

use crate::{BaselineError, Result};

/// Which levels, of which sizes, and which of their channels (counted through all levels).
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Embedding {
    /// Specification, height and width of every level, finest first.
    pub(super) levels: Vec<(LevelSpec, usize, usize)>,
    pub(super) channels: Vec<usize>,
}

impl Embedding {
    /// The levels of some strides as a pyramid has them.
    pub(super) fn levels_of(
        pyramid: &FeaturePyramid,
        strides: &[usize],
    ) -> masf_core::Result<Vec<(LevelSpec, usize, usize)>> {
        strides
            .iter()
            .map(|stride| {
                let level = pyramid.level(*stride)?;
                let (_, _, height, width) = level.map.dims4()?;
                Ok((level.spec, height, width))
            })
            .collect()
    }

    /// Channels of all levels together.
    pub(super) fn total(&self) -> usize {
        self.levels.iter().map(|(spec, ..)| spec.channels).sum()
    }

    /// Whether levels and channels fit together.
    pub(super) fn check(&self) -> Result<()> {
        let sizes = self.levels.iter().all(|(spec, h, w)| spec.channels > 0 && *h > 0 && *w > 0);
        let total = self.levels.iter().try_fold(0usize, |sum, (spec, ..)| sum.checked_add(spec.channels));
        let positions = self.levels.first().and_then(|(_, h, w)| h.checked_mul(*w));
        let ascending = self.channels.windows(2).all(|pair| pair[0] < pair[1]);
        let last = self.channels.last().copied();
        match (total, positions, last) {
            (Some(total), Some(_), Some(last)) if sizes && ascending && last < total => Ok(()),
            _ => Err(BaselineError::parameter(
                "channels",
                format!("{:?} of levels {:?}", self.channels, self.levels),
                "at least one channel of the levels, ascending",
            )),
        }
    }

    /// `(height, width)` of the grid.
    pub(super) fn grid(&self) -> (usize, usize) {
        self.levels.first().map_or((0, 0), |(_, height, width)| (*height, *width))
    }

    /// The chosen channels of every image and position: `[B, h, w, d]`, row after row.
    pub(super) fn rows(&self, pyramid: &FeaturePyramid) -> Result<Vec<f32>> {
        let (height, width) = self.grid();
        let dimensions = self.channels.len();
        let batch = pyramid.batch_size();
        let mut rows = vec![0f32; batch * height * width * dimensions];
        let (mut first_channel, mut first_column) = (0, 0);
        for &(spec, level_height, level_width) in &self.levels {
            let found = pyramid.levels().iter().find(|level| level.spec == spec);
            let Some(level) =
                found.filter(|level| level.map.dims() == [batch, spec.channels, level_height, level_width])
            else {
                let found: Vec<_> =
                    pyramid.levels().iter().map(|level| (level.spec.stride, level.map.dims().to_vec())).collect();
                let expected = format!("{} x {level_height} x {level_width} at stride {}", spec.channels, spec.stride);
                return Err(BaselineError::Levels { expected, found: format!("(stride, [B, C, h, w]) {found:?}") });
            };
            let map = level.map.permute((0, 2, 3, 1))?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
            let values = map.flatten_all()?.to_vec1::<f32>()?;
            let own: Vec<usize> = self
                .channels
                .iter()
                .filter(|channel| (first_channel..first_channel + spec.channels).contains(channel))
                .map(|channel| channel - first_channel)
                .collect();
            for (index, row) in rows.chunks_exact_mut(dimensions).enumerate() {
                let (image, y, x) = (index / (height * width), index / width % height, index % width);
                // Nearest neighbour as in PyTorch: floor(position * input / output).
                let (y, x) = (y * level_height / height, x * level_width / width);
                let source = &values[((image * level_height + y) * level_width + x) * spec.channels..][..spec.channels];
                for (target, channel) in row[first_column..].iter_mut().zip(&own) {
                    *target = source[*channel];
                }
            }
            first_channel += spec.channels;
            first_column += own.len();
        }
        Ok(rows)
    }
}
