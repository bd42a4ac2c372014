//! Turned versions of the training images, as further items to learn from.

use candle_core::Tensor;
use masf_core::{FeatureCache, FeatureCacheBuilder, FeatureExtractor, FeaturePyramid, PyramidSource, Result};

/// Collects the features of turned images in a temporary file.
pub(super) struct Turned {
    turns: usize,
    /// Turned versions that there would be, and how many of them are made.
    wanted: (usize, usize),
    cache: FeatureCacheBuilder,
    /// For every item the image that was turned, counted among those that could be read.
    image_of: Vec<usize>,
}

impl Turned {
    pub(super) fn none() -> Self {
        Self::new(0, 0, 0)
    }

    /// Turns to `turns` angles, of which the first is upright; at most `most` of the versions that `total` images give.
    pub(super) fn new(turns: usize, total: usize, most: usize) -> Self {
        let all = total.saturating_mul(turns.saturating_sub(1));
        Self { turns, wanted: (all, all.min(most)), cache: FeatureCacheBuilder::new(0), image_of: Vec::new() }
    }

    /// Whether the version of an image at an angle is among those that are made, which are evenly spread.
    fn includes(&self, image: usize, turn: usize) -> bool {
        let (all, made) = self.wanted;
        let total = all / (self.turns - 1);
        if made == 0 || image >= total {
            return false;
        }
        // Angle after angle, each beginning with another image, so that the angles do not all take the same ones.
        let shift = all / made / (self.turns - 1);
        let item = ((turn - 1) * total + (image + (turn - 1) * shift) % total) as u128;
        let (all, made) = (all as u128, made as u128);
        (item + 1) * made / all > item * made / all
    }

    /// Adds turned versions of preprocessed images `[B, 3, H, W]`.
    ///
    /// `indices` are their positions among all images that were to be read, `first` that of the first among those that were.
    pub(super) fn push(
        &mut self,
        backbone: &dyn FeatureExtractor,
        images: &Tensor,
        indices: &[usize],
        first: usize,
    ) -> Result<()> {
        for turn in 1..self.turns {
            let chosen: Vec<usize> = (0..indices.len()).filter(|slot| self.includes(indices[*slot], turn)).collect();
            if chosen.is_empty() {
                continue;
            }
            let selected = chosen.iter().map(|slot| images.get(*slot)).collect::<Result<Vec<_>, _>>()?;
            let turned = masf_data::turn(&Tensor::stack(&selected, 0)?, 360.0 * turn as f64 / self.turns as f64)?;
            self.cache.push(&backbone.extract(&turned.to_device(&backbone.device())?)?)?;
            self.image_of.extend(chosen.into_iter().map(|slot| first + slot));
        }
        Ok(())
    }

    /// The items, and the image that each comes from; `None` where there are no items.
    pub(super) fn finish(self) -> Result<Option<(FeatureCache, Vec<usize>)>> {
        if self.image_of.is_empty() {
            return Ok(None);
        }
        Ok(Some((self.cache.finish()?, self.image_of)))
    }
}

/// The items of two sources, one after the other.
pub(super) struct Joined<'a>(pub(super) &'a dyn PyramidSource, pub(super) &'a dyn PyramidSource);

impl PyramidSource for Joined<'_> {
    fn len(&self) -> usize {
        self.0.len() + self.1.len()
    }

    fn batch(&self, indices: &[usize]) -> Result<FeaturePyramid> {
        let first = self.0.len();
        if indices.iter().all(|index| *index < first) {
            return self.0.batch(indices);
        }
        if indices.iter().all(|index| *index >= first) {
            return self.1.batch(&indices.iter().map(|index| index - first).collect::<Vec<_>>());
        }
        FeaturePyramid::cat(&indices.iter().map(|index| self.batch(&[*index])).collect::<Result<Vec<_>>>()?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use masf_core::{FeatureLevel, LevelSpec, Subset};

    use super::*;

    fn source(values: &[f32]) -> FeatureCache {
        let mut cache = FeatureCacheBuilder::new(0);
        let map = Tensor::from_slice(values, (values.len(), 1, 1, 1), &Device::Cpu).unwrap();
        let level = FeatureLevel { spec: LevelSpec { stride: 8, channels: 1 }, map };
        cache.push(&FeaturePyramid::new(vec![level], (8, 8)).unwrap()).unwrap();
        cache.finish().unwrap()
    }

    #[test]
    fn joined_sources_keep_the_order_that_is_asked_for() {
        let (a, b) = (source(&[0.0, 1.0, 2.0]), source(&[10.0, 11.0]));
        let upright = Subset::new(&a, vec![0, 2]).unwrap();
        let turned = Subset::new(&b, vec![1]).unwrap();
        let joined = Joined(&upright, &turned);
        assert_eq!(joined.len(), 3);
        let values = |indices: &[usize]| {
            joined.batch(indices).unwrap().levels()[0].map.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(values(&[0, 1]), [0.0, 2.0]);
        assert_eq!(values(&[2]), [11.0]);
        assert_eq!(values(&[1, 2, 0]), [2.0, 11.0, 0.0]);
        assert!(joined.batch(&[3]).is_err() && joined.batch(&[]).is_err());
    }

    #[test]
    fn the_limit_is_met_and_spread_over_images_and_angles() {
        for (turns, total, most) in [(4, 10, 100), (4, 100, 50), (8, 33, 70), (0, 5, 5), (1, 5, 5), (4, 7, 0)] {
            let turned = Turned::new(turns, total, most);
            let of_turn = |turn| (0..total).filter(|image| turned.includes(*image, turn)).count();
            let counts: Vec<usize> = (1..turns).map(of_turn).collect();
            let all = total * turns.saturating_sub(1);
            assert_eq!(counts.iter().sum::<usize>(), all.min(most));
            if let (Some(least), Some(largest)) = (counts.iter().min(), counts.iter().max()) {
                assert!(largest - least <= 1 + most / 10, "{counts:?}");
            }
        }
    }
}
