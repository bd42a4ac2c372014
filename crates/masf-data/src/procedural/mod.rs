//! Procedural images: unlimited, free of licences, for training backbones by distillation.
//!
//! Surfaces (fractal noise of many slopes, brushed and fibrous ones, gratings, Voronoi cells, weaves, rings, lattices, grains), dead
//! leaves (Lee, Mumford and Huang, "Occlusion models for natural images", 2001), objects with bevels, holes and shadows, strokes like
//! writing or scratches, and patches of one surface on another; lit, blurred, toned, sometimes grey, with camera noise. That
//! networks learn general features from such images is known from Baradad et al., "Learning to see by looking at noise", 2021.
//!
//! Every image depends on the seed and its own index alone.

mod canvas;
mod field;
mod finish;
mod scene;
mod shape;

use image::RgbImage;
use masf_core::random_stream;

use crate::Size;
use crate::error::{DataError, Result};
use crate::synthetic::noise::Draw;

/// An endless series of images.
///
/// ```
/// use masf_data::{Size, procedural::ProceduralImages};
/// let images = ProceduralImages::new(Size::square(128), 0)?;
/// assert_eq!(images.image(7).dimensions(), (128, 128));
/// assert_eq!(images.image(7), images.image(7));
/// # Ok::<(), masf_data::DataError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProceduralImages {
    size: Size,
    seed: u64,
}

impl ProceduralImages {
    /// Images of a size.
    ///
    /// # Errors
    /// [`DataError::Argument`] for a side outside of 16 to 4096.
    pub fn new(size: Size, seed: u64) -> Result<Self> {
        let sides = 16..=4096;
        if !sides.contains(&size.height) || !sides.contains(&size.width) {
            return Err(DataError::argument("procedural image size", size, "sides from 16 to 4096"));
        }
        Ok(Self { size, seed })
    }

    /// The image of an index; the same on every call.
    pub fn image(&self, index: u64) -> RgbImage {
        let mut draw = Draw(random_stream(self.seed, &format!("procedural/{index}")));
        let Size { width, height } = self.size;
        let mut canvas = scene::draw(&mut draw, width as usize, height as usize);
        finish::finish(&mut draw, &mut canvas);
        let mut image = RgbImage::new(width, height);
        for (target, pixel) in image.pixels_mut().zip(&canvas.pixels) {
            target.0 = pixel.map(|value| (value * 255.0 + 0.5).clamp(0.0, 255.0) as u8);
        }
        image
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(count: u64, seed: u64) -> Vec<RgbImage> {
        let images = ProceduralImages::new(Size::square(64), seed).unwrap();
        (0..count).map(|index| images.image(index)).collect()
    }

    /// Mean and standard deviation of a channel.
    fn statistics(image: &RgbImage, channel: usize) -> (f64, f64) {
        let values: Vec<f64> = image.pixels().map(|pixel| f64::from(pixel.0[channel])).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (mean, (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt())
    }

    #[test]
    fn depends_on_seed_and_index_alone() {
        let first = images(20, 3);
        assert_eq!(first, images(20, 3));
        let other = images(20, 4);
        assert!(first.iter().zip(&other).all(|(a, b)| a != b));
        assert!(first.iter().enumerate().all(|(i, a)| first[..i].iter().all(|b| a != b)));
    }

    #[test]
    fn any_size_is_filled() {
        for size in [Size::new(16, 16), Size::new(33, 190), Size::new(300, 20)] {
            let images = ProceduralImages::new(size, 1).unwrap();
            for index in 0..60 {
                assert_eq!(images.image(index).dimensions(), (size.width, size.height));
            }
        }
        assert!(ProceduralImages::new(Size::square(8), 0).is_err());
        assert!(ProceduralImages::new(Size::new(64, 5000), 0).is_err());
    }

    #[test]
    fn images_are_varied() {
        let images = images(300, 0);
        let of: Vec<(f64, f64)> = images.iter().map(|image| statistics(image, 1)).collect();
        let share = |wanted: &dyn Fn(&(f64, f64)) -> bool| of.iter().filter(|s| wanted(s)).count() as f64 / 300.0;
        // Dark, middling and bright ones; flat ones are few, contrasts of all strengths are there.
        assert!(share(&|(mean, _)| *mean < 90.0) > 0.1);
        assert!(share(&|(mean, _)| *mean > 165.0) > 0.1);
        assert!(share(&|(_, deviation)| *deviation < 4.0) < 0.15);
        assert!(share(&|(_, deviation)| *deviation < 20.0) > 0.1);
        assert!(share(&|(_, deviation)| *deviation > 45.0) >= 0.1);
        let grey = images.iter().filter(|image| image.pixels().all(|p| p.0[0] == p.0[1] && p.0[1] == p.0[2])).count();
        assert!((60..200).contains(&grey), "{grey} of 300 are grey");
        // Neighbouring pixels are alike in most images, in some hardly: the spectra differ.
        let roughness = |image: &RgbImage| {
            let pairs = image.rows().flat_map(|row| {
                let row: Vec<f64> = row.map(|pixel| f64::from(pixel.0[1])).collect();
                row.windows(2).map(|pair| (pair[1] - pair[0]).powi(2)).collect::<Vec<_>>()
            });
            let (sum, count) = pairs.fold((0.0, 0.0), |(sum, count), square| (sum + square, count + 1.0));
            (sum / count).sqrt() / statistics(image, 1).1.max(1.0)
        };
        let roughness: Vec<f64> = images.iter().map(roughness).collect();
        assert!(roughness.iter().filter(|r| **r < 0.2).count() > 30);
        assert!(roughness.iter().filter(|r| **r > 0.7).count() > 30);
    }
}
