//! The chosen channels of all levels on the grid of the finest one.

use masf_core::FeaturePyramid;

use super::fit::MOST_DIMENSIONS;
use crate::training::{Level, check, features, grid, values};
use crate::{BaselineError, Result};

/// Which levels, of which sizes, and which of their channels (counted through all levels).
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Embedding {
    /// Specification, height and width of every level, finest first.
    pub(super) levels: Vec<Level>,
    pub(super) channels: Vec<usize>,
}

impl Embedding {
    /// Channels of all levels together.
    pub(super) fn total(&self) -> usize {
        self.levels.iter().map(|(spec, ..)| spec.channels).sum()
    }

    /// Whether levels and channels fit together.
    pub(super) fn check(&self) -> Result<()> {
        check::whole("number of channels", self.channels.len(), 1, MOST_DIMENSIONS)?;
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
                "channels that the levels have, each once",
            )),
        }
    }

    /// `(height, width)` of the grid.
    pub(super) fn grid(&self) -> (usize, usize) {
        grid(self.levels.first())
    }

    /// The chosen channels of every image and position: `[B, h, w, d]`, row after row.
    pub(super) fn rows(&self, pyramid: &FeaturePyramid) -> Result<Vec<f32>> {
        let (height, width) = self.grid();
        let dimensions = self.channels.len();
        let batch = pyramid.batch_size();
        let mut rows = vec![0f32; batch * height * width * dimensions];
        let (mut first_channel, mut first_column) = (0, 0);
        for (map, &(spec, level_height, level_width)) in features(&self.levels, pyramid)?.iter().zip(&self.levels) {
            let values = values(map)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_channels_than_a_model_file_may_have_are_refused() {
        let levels = vec![(masf_core::LevelSpec { stride: 8, channels: 2000 }, 1, 1)];
        let check = |count| Embedding { levels: levels.clone(), channels: (0..count).collect() }.check();
        assert!(check(1024).is_ok() && check(1025).is_err());
    }
}
