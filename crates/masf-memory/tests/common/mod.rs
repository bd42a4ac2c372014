//! Pyramids for tests.
#![allow(dead_code, reason = "each test crate uses a part")]

use candle_core::{Device, Tensor};
use masf_core::{FeatureLevel, FeaturePyramid, LevelSpec, Progress, PyramidSource, Result, random_stream};
use rand::Rng;

/// A pyramid of `(stride, [B, C, h, w])` maps.
pub(crate) fn pyramid(maps: &[(usize, Tensor)]) -> Result<FeaturePyramid> {
    let level = |(stride, map): &(usize, Tensor)| {
        let spec = LevelSpec { stride: *stride, channels: map.dims()[1] };
        // Channels-last memory, as backbones give it.
        let map = map.permute((0, 2, 3, 1))?.contiguous()?.permute((0, 3, 1, 2))?;
        Ok(FeatureLevel { spec, map })
    };
    let levels = maps.iter().map(level).collect::<Result<Vec<_>>>()?;
    let size = levels.first().map_or((0, 0), |level| (level.map.dims()[2] * 8, level.map.dims()[3] * 8));
    FeaturePyramid::new(levels, size)
}

/// Images that are held as pyramids of one image each.
pub(crate) struct Images(pub(crate) Vec<FeaturePyramid>);

impl PyramidSource for Images {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn batch(&self, indices: &[usize]) -> Result<FeaturePyramid> {
        batch(&indices.iter().map(|index| self.0[*index].clone()).collect::<Vec<_>>())
    }
}

/// One pyramid of several.
pub(crate) fn batch(images: &[FeaturePyramid]) -> Result<FeaturePyramid> {
    let mut maps = Vec::new();
    for (index, level) in images[0].levels().iter().enumerate() {
        let parts: Vec<&Tensor> = images.iter().map(|image| &image.levels()[index].map).collect();
        maps.push((level.spec.stride, Tensor::cat(&parts, 0)?));
    }
    pyramid(&maps)
}

/// A random image with the given channels at strides 8 and 16, on a grid of `side` x `side + 2` at stride 8.
pub(crate) fn image(channels: (usize, usize), side: usize, seed: u64) -> Result<FeaturePyramid> {
    let mut random = random_stream(seed, "test.image");
    let mut map = |channels: usize, h: usize, w: usize| {
        let values: Vec<f32> = (0..channels * h * w).map(|_| random.random_range(0.0..2.0)).collect();
        Tensor::from_vec(values, (1, channels, h, w), &Device::Cpu)
    };
    let (h, w) = (side, side + 2);
    pyramid(&[(8, map(channels.0, h, w)?), (16, map(channels.1, h.div_ceil(2), w.div_ceil(2))?)])
}

/// What is to stop at once.
pub(crate) struct Cancelled;

impl Progress for Cancelled {
    fn start(&self, _: &str, _: u64) {}
    fn step(&self, _: u64) {}
    fn finish(&self) {}
    fn is_cancelled(&self) -> bool {
        true
    }
}
