//! Spectral anchors: what surrounds a position, up to rotation.
//!
//! The features of every level are projected to a few random channels and averaged and resized as descriptors are. Around
//! every position each channel is sampled on rings, and the magnitudes of the first harmonics along the angle are
//! kept ([`RingDescriptor`]). A turn of the surroundings by a right angle permutes the samples of a ring in a circle, which
//! leaves the magnitudes.

use candle_core::{Device, Tensor};
use masf_core::{FeaturePyramid, LevelSpec};
use masf_spectral::RingDescriptor;

use crate::{LinearMap, MemoryError, PatchEmbedding, PatchMaps, Result};

/// Most channels that are projected to.
const MOST_CHANNELS: usize = 64;

/// Computes spectral anchors.
#[derive(Debug, Clone)]
pub struct SpectralAnchors {
    embedding: PatchEmbedding,
    projections: Vec<LinearMap>,
    rings: RingDescriptor,
}

impl SpectralAnchors {
    /// Anchors of the levels of an embedding, of `channels` seeded random channels each.
    ///
    /// # Errors
    /// [`MemoryError::Parameter`] for 0 channels or more than 64.
    pub fn random(embedding: &PatchEmbedding, channels: usize, seed: u64) -> Result<Self> {
        check_channels(channels)?;
        let levels = embedding.levels();
        let projection = |(index, level): (usize, &LevelSpec)| {
            let earlier = levels[..index].iter().filter(|other| other.stride == level.stride).count();
            let number = if earlier == 0 { String::new() } else { format!(".{}", earlier + 1) };
            LinearMap::random(level.channels, channels, seed, &format!("memory.anchors.{}{number}", level.stride))
        };
        let projections = levels.iter().enumerate().map(projection).collect::<Result<_>>()?;
        Ok(Self::new(embedding, projections))
    }

    /// Anchors of given projections, one for each level of an embedding.
    pub(crate) fn new(embedding: &PatchEmbedding, projections: Vec<LinearMap>) -> Self {
        Self { embedding: embedding.clone(), projections, rings: RingDescriptor::default() }
    }

    /// The projections `[channels of the level, channels]`.
    pub(crate) fn projections(&self) -> &[LinearMap] {
        &self.projections
    }

    /// The length of an anchor.
    pub fn dimensions(&self) -> usize {
        self.projections.len() * self.of_level()
    }

    /// The entries of an anchor that come from one level; those of the finest level come first.
    pub(crate) fn of_level(&self) -> usize {
        self.projections.first().map_or(0, LinearMap::output) * self.rings.size()
    }

    /// The anchors of every position of an image of a batch, `[positions, dimensions]`, on the grid of the finest level.
    ///
    /// # Errors
    /// [`MemoryError::Parameter`] for an image that the batch lacks, [`MemoryError::Level`] if the pyramid lacks a level,
    /// [`MemoryError::NonFinite`] for features that are not finite.
    pub fn describe(&self, pyramid: &FeaturePyramid, image: usize) -> Result<Vec<f32>> {
        let batch = pyramid.batch_size();
        if image >= batch {
            return Err(MemoryError::parameter("image", image, format!("less than the {batch} of the batch")));
        }
        let single = pyramid.image(image).map_err(|error| MemoryError::parameter("image", image, error.to_string()))?;
        self.of_maps(&self.embedding.open(&single).map_err(|error| error.of(&[image]))?, 0)
    }

    /// The same for an image of opened maps, which is there.
    pub(crate) fn of_maps(&self, maps: &PatchMaps, image: usize) -> Result<Vec<f32>> {
        let maps = maps.projected(&self.projections, image)?;
        let (height, width) = maps.grid();
        let positions: Vec<usize> = (0..height * width).collect();
        let channels = self.projections.len() * self.projections.first().map_or(0, LinearMap::output);
        let mut rows = vec![0f32; positions.len() * channels];
        maps.describe(0, &positions, &mut rows)?;
        let map = Tensor::from_vec(rows, (1, height, width, channels), &Device::Cpu)?;
        let described = self.rings.describe(&map.permute((0, 3, 1, 2))?.contiguous()?)?;
        Ok(described.permute((0, 2, 3, 1))?.contiguous()?.flatten_all()?.to_vec1::<f32>()?)
    }
}

pub(crate) fn check_channels(channels: usize) -> Result<()> {
    if (1..=MOST_CHANNELS).contains(&channels) {
        return Ok(());
    }
    Err(MemoryError::parameter("anchor_channels", channels, format!("1 to {MOST_CHANNELS}")))
}

/// One factor for the entries of each level, so that levels vary alike and anchors in all as much as the descriptors they
/// stand beside: `anchors` `[n, dimensions]`, `variance` the sum of the variances of the descriptors' entries.
pub(crate) fn factors(anchors: &[f32], of_level: usize, levels: usize, variance: f64) -> Vec<f32> {
    let dimensions = of_level * levels;
    let variances = column_variances(anchors, dimensions);
    let factor = |own: &[f64]| {
        let factor = (variance / levels as f64 / own.iter().sum::<f64>()).sqrt() as f32;
        // No spread: the entries say nothing, whatever their unit.
        if factor.is_normal() { factor } else { 1.0 }
    };
    variances.chunks_exact(of_level.max(1)).map(factor).collect()
}

/// The variance of every column of rows.
pub(crate) fn column_variances(rows: &[f32], dimensions: usize) -> Vec<f64> {
    let count = (rows.len() / dimensions.max(1)).max(1) as f64;
    let mut sums = vec![(0f64, 0f64); dimensions];
    for row in rows.chunks_exact(dimensions.max(1)) {
        for ((sum, squares), value) in sums.iter_mut().zip(row) {
            *sum += f64::from(*value);
            *squares += f64::from(*value).powi(2);
        }
    }
    sums.into_iter().map(|(sum, squares)| masf_core::variance(squares / count, (sum / count).powi(2))).collect()
}

#[cfg(test)]
mod tests {
    use masf_core::{FeatureLevel, random_stream};
    use rand::Rng;

    use super::*;

    fn pyramid(sides: (usize, usize), turned: bool) -> FeaturePyramid {
        let mut random = random_stream(5, "test");
        let mut level = |stride: usize, channels: usize, (h, w): (usize, usize)| {
            let values: Vec<f32> = (0..channels * h * w).map(|_| random.random_range(-1f32..3.0)).collect();
            let map = Tensor::from_vec(values, (1, channels, h, w), &Device::Cpu).unwrap();
            // A quarter turn against the clock: (row, column) to (w - 1 - column, row).
            let map = if turned { map.transpose(2, 3).unwrap().contiguous().unwrap().flip(&[2]).unwrap() } else { map };
            FeatureLevel { spec: LevelSpec { stride, channels }, map: map.contiguous().unwrap() }
        };
        let levels = vec![level(8, 7, sides), level(16, 11, (sides.0 / 2, sides.1 / 2))];
        let size = if turned { (sides.1 * 8, sides.0 * 8) } else { (sides.0 * 8, sides.1 * 8) };
        FeaturePyramid::new(levels, size).unwrap()
    }

    #[test]
    fn quarter_turns_leave_anchors() -> Result<()> {
        let (height, width) = (12, 16);
        let (plain, turned) = (pyramid((height, width), false), pyramid((height, width), true));
        let embedding = PatchEmbedding::of_pyramid(&plain, &[8, 16], 3)?;
        let anchors = SpectralAnchors::random(&embedding, 4, 9)?;
        let k = anchors.dimensions();
        assert_eq!(k, 2 * 4 * 8);
        let error = anchors.describe(&plain, 1).unwrap_err().to_string();
        assert_eq!(error, "image is 1; expected less than the 1 of the batch");
        let (plain, turned) = (anchors.describe(&plain, 0)?, anchors.describe(&turned, 0)?);
        let largest = plain.iter().fold(0f32, |most, value| most.max(value.abs()));
        let mut apart = 0f32;
        for row in 0..height {
            for column in 0..width {
                let a = &plain[(row * width + column) * k..][..k];
                let b = &turned[((width - 1 - column) * height + row) * k..][..k];
                apart = a.iter().zip(b).fold(apart, |most, (a, b)| most.max((a - b).abs()));
            }
        }
        assert!(apart < 1e-5 * largest.max(1.0), "{apart} of {largest}");
        // Anchors of different positions differ.
        let first = &plain[..k];
        assert!(plain.chunks_exact(k).skip(1).all(|other| other.iter().zip(first).any(|(a, b)| (a - b).abs() > 1e-2)));
        Ok(())
    }

    #[test]
    fn every_level_of_a_stride_has_its_say() -> Result<()> {
        let level = |seed: f32| {
            let values: Vec<f32> = (0..5 * 36).map(|index| (seed * index as f32).sin()).collect();
            let map = Tensor::from_vec(values, (1, 5, 6, 6), &Device::Cpu).unwrap();
            FeatureLevel { spec: LevelSpec { stride: 14, channels: 5 }, map }
        };
        let [one, other] =
            [2.0, 3.0].map(|second| FeaturePyramid::new(vec![level(1.0), level(second)], (84, 84)).unwrap());
        let anchors = SpectralAnchors::random(&PatchEmbedding::of_pyramid(&one, &[14], 3)?, 4, 9)?;
        let (one, other) = (anchors.describe(&one, 0)?, anchors.describe(&other, 0)?);
        for (one, other) in one.chunks(anchors.dimensions()).zip(other.chunks(anchors.dimensions())) {
            let (first, second) = one.split_at(anchors.of_level());
            assert_eq!(first, &other[..anchors.of_level()]);
            assert_ne!(second, &other[anchors.of_level()..]);
            assert_ne!(first, second);
        }
        Ok(())
    }

    #[test]
    fn factors_make_levels_vary_alike() {
        let mut random = random_stream(6, "test");
        let anchors: Vec<f32> =
            (0..4000).map(|index| random.random_range(-1f32..1.0) * if index % 4 < 2 { 1.0 } else { 50.0 }).collect();
        let factors = factors(&anchors, 2, 2, 10.0);
        let scaled: Vec<f32> =
            anchors.iter().enumerate().map(|(index, value)| value * factors[index % 4 / 2]).collect();
        let variances = column_variances(&scaled, 4);
        assert!((variances.iter().sum::<f64>() - 10.0).abs() < 1e-3);
        assert!((variances[0] + variances[1] - 5.0).abs() < 1e-3);
        // No spread, also of values whose squares are rounded.
        for constant in [3.0, 0.7, 0.1, 123.456] {
            assert_eq!(super::factors(&vec![constant; 4 * 784], 2, 2, 10.0), [1.0, 1.0], "{constant}");
        }
    }
}
