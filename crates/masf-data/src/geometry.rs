//! Where the pixels of a preprocessed image come from.
//!
//! The rules are torchvision's: `Resize((h, w))` stretches; `Resize(n)` brings the shorter side to `n` and the longer to
//! `n * long / short`, rounded down; `CenterCrop` starts at half the surplus, a half rounded to even.

use serde::{Deserialize, Serialize};

use crate::Size;

/// How an image is resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Resize {
    /// To this size, whatever the aspect ratio.
    Exact(Size),
    /// The shorter side to this length, the aspect ratio kept.
    ShorterSide(u32),
}

impl Resize {
    /// The size of an image of size `image` after resizing, without overflow for any input.
    pub(crate) fn target(self, image: Size) -> Size {
        match self {
            Self::Exact(size) => size,
            Self::ShorterSide(side) => {
                let scaled = |long: u32, short: u32| {
                    u32::try_from(u64::from(side) * u64::from(long) / u64::from(short.max(1))).unwrap_or(u32::MAX)
                };
                if image.width <= image.height {
                    Size::new(scaled(image.height, image.width), side)
                } else {
                    Size::new(side, scaled(image.width, image.height))
                }
            }
        }
    }
}

/// The way of one image of a given size through resizing and cropping, and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Geometry {
    /// The size of the upright image.
    pub image: Size,
    /// Its size after resizing.
    pub resized: Size,
    /// The first row of the resized image that is kept.
    pub top: u32,
    /// The first column of the resized image that is kept.
    pub left: u32,
    /// The size of what is kept: the size of the tensor.
    pub output: Size,
}

impl Geometry {
    /// `output` must not exceed `resized`.
    pub(crate) fn new(image: Size, resized: Size, output: Size) -> Self {
        let start = |resized: u32, output: u32| half_to_even(resized.saturating_sub(output));
        Self {
            image,
            resized,
            top: start(resized.height, output.height),
            left: start(resized.width, output.width),
            output,
        }
    }

    /// The same part of the image at twice the height and the width.
    pub(crate) fn doubled(self) -> Self {
        let Self { image, resized, top, left, output } = self;
        Self { image, resized: resized.doubled(), top: 2 * top, left: 2 * left, output: output.doubled() }
    }

    /// The place in the image, in pixels from its upper left corner, of a place `(row, column)` in the output.
    ///
    /// Places are continuous: the centre of the first pixel is `(0.5, 0.5)`, and `(0.0, 0.0)` is its outer corner.
    pub fn to_image(&self, row: f64, column: f64) -> (f64, f64) {
        let back = |place: f64, start: u32, image: u32, resized: u32| {
            (place + f64::from(start)) * f64::from(image) / f64::from(resized)
        };
        (
            back(row, self.top, self.image.height, self.resized.height),
            back(column, self.left, self.image.width, self.resized.width),
        )
    }
}

/// `surplus / 2`, a half rounded to the even neighbour, as Python's `round` does.
fn half_to_even(surplus: u32) -> u32 {
    let half = surplus / 2;
    if surplus.is_multiple_of(2) { half } else { half + half % 2 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn follows_torchvision() {
        // torchvision.transforms: Resize(256) of 480x640 gives 256x341; CenterCrop(224) then starts at (16, 58).
        let resized = Resize::ShorterSide(256).target(Size::new(480, 640));
        assert_eq!(resized, Size::new(256, 341));
        let geometry = Geometry::new(Size::new(480, 640), resized, Size::square(224));
        assert_eq!((geometry.top, geometry.left), (16, 58));
        // round(0.5) = 0, round(1.5) = 2, round(2.5) = 2.
        assert_eq!([1, 3, 5].map(half_to_even), [0, 2, 2]);
    }

    proptest! {
        #[test]
        fn the_crop_lies_inside(height in 1_u32..5000, width in 1_u32..5000, side in 1_u32..600, crop in 1_u32..600) {
            let image = Size::new(height, width);
            let output = Size::square(crop.min(side));
            let resized = Resize::ShorterSide(side).target(image);
            prop_assert_eq!(resized.height.min(resized.width), side);
            let geometry = Geometry::new(image, resized, output);
            prop_assert!(geometry.top + output.height <= resized.height);
            prop_assert!(geometry.left + output.width <= resized.width);
            // The crop is central to within a pixel.
            let below = resized.height - output.height - geometry.top;
            prop_assert!(geometry.top.abs_diff(below) <= 1);
        }

        #[test]
        fn without_crop_corners_map_to_corners(height in 1_u32..5000, width in 1_u32..5000, side in 1_u32..600) {
            let output = Size::square(side);
            let geometry = Geometry::new(Size::new(height, width), output, output);
            prop_assert_eq!(geometry.to_image(0.0, 0.0), (0.0, 0.0));
            let (bottom, right) = geometry.to_image(f64::from(side), f64::from(side));
            prop_assert!((bottom - f64::from(height)).abs() < 1e-6 && (right - f64::from(width)).abs() < 1e-6);
        }
    }
}
