//! From 8-bit pixels to the networks' input.

use candle_core::{Device, Tensor};
use masf::data::Normalisation;

/// Square images with a normalisation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input {
    pub(crate) side: usize,
    pub(crate) normalisation: Normalisation,
}

impl Input {
    /// `[B, 3, H, W]` from interleaved RGB.
    pub(crate) fn tensor(&self, images: &[Vec<u8>]) -> candle_core::Result<Tensor> {
        let Normalisation { mean, std } = self.normalisation;
        let mut values = Vec::with_capacity(images.len() * 3 * self.side * self.side);
        for image in images {
            for channel in 0..3 {
                let (scale, shift) = (1.0 / (255.0 * std[channel]), -mean[channel] / std[channel]);
                values.extend(image.iter().skip(channel).step_by(3).map(|&level| f32::from(level) * scale + shift));
            }
        }
        Tensor::from_vec(values, (images.len(), 3, self.side, self.side), &Device::Cpu)
    }
}
