//! From any channel layout and depth to 8 bits, by stated rules.

use std::borrow::Cow;

use image::{DynamicImage, GrayImage, RgbImage};

use super::unsupported_float;
use crate::error::ImageProblem;

/// Brings an image to 8-bit RGB.
///
/// Grey becomes three equal channels. Alpha is dropped, not composited: cameras and exporters fill it with anything, and
/// Pillow's `convert("RGB")` does the same. 16-bit values are scaled by `255 / (2^bits - 1)` and rounded.
///
/// # Errors
/// 16-bit values of more bits, and floating-point images.
pub fn to_rgb8(image: &DynamicImage, bits: u8) -> Result<Cow<'_, RgbImage>, ImageProblem> {
    let (width, height) = (image.width(), image.height());
    let pixels: Vec<u8> = match image {
        DynamicImage::ImageRgb8(rgb) => return Ok(Cow::Borrowed(rgb)),
        DynamicImage::ImageLuma8(grey) => {
            grey.as_raw().iter().map(|value| [*value; 3]).collect::<Vec<_>>().into_flattened()
        }
        DynamicImage::ImageLumaA8(grey) => grey.pixels().flat_map(|pixel| [pixel.0[0]; 3]).collect(),
        DynamicImage::ImageRgba8(rgba) => rgba.pixels().flat_map(|&image::Rgba([r, g, b, _])| [r, g, b]).collect(),
        DynamicImage::ImageLuma16(grey) => {
            let scale = Scale::new(bits, grey.as_raw().iter().copied())?;
            grey.as_raw().iter().flat_map(|value| [scale.apply(*value); 3]).collect()
        }
        DynamicImage::ImageLumaA16(grey) => {
            let scale = Scale::new(bits, grey.pixels().map(|pixel| pixel.0[0]))?;
            grey.pixels().flat_map(|pixel| [scale.apply(pixel.0[0]); 3]).collect()
        }
        DynamicImage::ImageRgb16(rgb) => {
            let scale = Scale::new(bits, rgb.as_raw().iter().copied())?;
            rgb.as_raw().iter().map(|value| scale.apply(*value)).collect()
        }
        DynamicImage::ImageRgba16(rgba) => {
            let scale = Scale::new(bits, rgba.pixels().flat_map(|&image::Rgba([r, g, b, _])| [r, g, b]))?;
            rgba.pixels().flat_map(|&image::Rgba([r, g, b, _])| [r, g, b]).map(|value| scale.apply(value)).collect()
        }
        _ => return Err(unsupported_float()),
    };
    RgbImage::from_raw(width, height, pixels).map(Cow::Owned).ok_or_else(internal)
}

/// Brings an image to 8-bit grey for masks: the largest of R, G and B, so that a mask painted in any pure colour counts.
pub(crate) fn to_luma8(image: &DynamicImage) -> Result<GrayImage, ImageProblem> {
    if let DynamicImage::ImageLuma8(grey) = image {
        return Ok(grey.clone());
    }
    let rgb = to_rgb8(image, 16)?;
    let largest = rgb.pixels().map(|&image::Rgb([r, g, b])| r.max(g).max(b)).collect();
    GrayImage::from_raw(rgb.width(), rgb.height(), largest).ok_or_else(internal)
}

fn internal() -> ImageProblem {
    ImageProblem::Values("its buffer does not have the size that its header says".into())
}

/// The map from 16-bit samples, of which `bits` bits are used, to 8 bits.
struct Scale {
    max: u32,
}

impl Scale {
    fn new(bits: u8, samples: impl Iterator<Item = u16>) -> Result<Self, ImageProblem> {
        let max = (1_u32 << bits.clamp(1, 16)) - 1;
        match samples.max() {
            Some(largest) if u32::from(largest) > max => Err(ImageProblem::Values(format!(
                "it holds the value {largest}, more than {bits} bits can; set significant_bits to the camera's bit depth, \
                 or to 16 where the values are already scaled"
            ))),
            _ => Ok(Self { max }),
        }
    }

    fn apply(&self, value: u16) -> u8 {
        // At most 255: `value <= max` was checked.
        ((u32::from(value) * 255 + self.max / 2) / self.max) as u8
    }
}
