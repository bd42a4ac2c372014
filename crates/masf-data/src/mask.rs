//! Pixel masks of defects.

use std::path::Path;

use crate::decode::{Limits, read_image, to_luma8, to_rgb8};
use crate::error::{DataError, ImageProblem, Result};
use crate::{Geometry, Size};

/// Which pixels of an image are defective.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    size: Size,
    pixels: Vec<bool>,
}

impl Mask {
    /// A mask from its pixels in row-major order.
    ///
    /// # Errors
    /// [`DataError::Argument`] if there are not as many pixels as `size` says, or none.
    pub fn new(size: Size, pixels: Vec<bool>) -> Result<Self> {
        if size.pixels() == 0 || pixels.len() as u64 != size.pixels() {
            return Err(DataError::argument(
                "number of mask pixels",
                pixels.len(),
                format!("the {} of {size}, at least one", size.pixels()),
            ));
        }
        Ok(Self { size, pixels })
    }

    /// Reads a mask of any supported format. A pixel above 127 (of 255; the largest of R, G and B) is defective.
    ///
    /// # Errors
    /// As [`read_image`]; and for a mask with values above 0 but none above 127 (such as 0 and 1, in 16 bits, too), which by
    /// the rule would have no defect.
    pub fn read(path: impl AsRef<Path>, limits: &Limits) -> Result<Self> {
        let path = path.as_ref();
        let image = read_image(path, limits)?;
        let problem = |problem| DataError::Image { image: path.display().to_string(), problem };
        let grey = to_luma8(&image).map_err(problem)?;
        let largest = match grey.as_raw().iter().max() {
            Some(largest @ 1..=127) => Some(largest.to_string()),
            // 16-bit labels such as 1 scale to 0. As one bit they are 255, or refused.
            Some(0) if !to_rgb8(&image, 1).is_ok_and(|rgb| rgb.as_raw().iter().all(|value| *value == 0)) => {
                Some("less than 1".into())
            }
            _ => None,
        };
        if let Some(largest) = largest {
            return Err(problem(ImageProblem::Values(format!(
                "a mask whose largest value is {largest} of 255; a defective pixel must be above 127"
            ))));
        }
        Self::new(Size::of(&image), grey.as_raw().iter().map(|value| *value > 127).collect())
    }

    /// Reads the mask of an image, whose name and upright size are given.
    ///
    /// # Errors
    /// As [`read`](Self::read), and [`DataError::MaskSize`] if the sizes differ.
    pub fn read_for(path: impl AsRef<Path>, limits: &Limits, image: &str, image_size: Size) -> Result<Self> {
        let path = path.as_ref();
        let mask = Self::read(path, limits)?;
        if mask.size == image_size {
            return Ok(mask);
        }
        Err(DataError::MaskSize { mask: path.to_path_buf(), mask_size: mask.size, image: image.to_owned(), image_size })
    }

    /// Height and width.
    pub fn size(&self) -> Size {
        self.size
    }

    /// The pixels `[H * W]` in row-major order, `true` for a defect.
    pub fn pixels(&self) -> &[bool] {
        &self.pixels
    }

    /// The pixels, without a copy.
    pub fn into_pixels(self) -> Vec<bool> {
        self.pixels
    }

    /// Whether any pixel is defective.
    pub fn any(&self) -> bool {
        self.pixels.contains(&true)
    }

    /// The number of defective pixels.
    pub fn area(&self) -> usize {
        self.pixels.iter().filter(|defective| **defective).count()
    }

    /// The mask after resizing by nearest neighbour and cropping.
    pub(crate) fn sample(&self, geometry: &Geometry) -> Self {
        let Geometry { image, resized, top, left, output } = *geometry;
        let rows = nearest(image.height, resized.height, top, output.height);
        let columns = nearest(image.width, resized.width, left, output.width);
        let width = self.size.width as usize;
        let pixels = rows
            .iter()
            .filter_map(|row| self.pixels.get(row * width..(row + 1) * width))
            .flat_map(|row| columns.iter().filter_map(|column| row.get(*column).copied()))
            .collect();
        Self { size: output, pixels }
    }

    /// As [`sample`](Self::sample), but a defect that this passes over keeps the pixels that it lies in.
    pub(crate) fn sample_defect(&self, geometry: &Geometry) -> Self {
        let sampled = self.sample(geometry);
        if sampled.any() {
            return sampled;
        }
        let Geometry { image, resized, .. } = *geometry;
        let rows = nearest(resized.height, image.height, 0, image.height);
        let columns = nearest(resized.width, image.width, 0, image.width);
        let mut whole = Self { size: resized, pixels: vec![false; resized.pixels() as usize] };
        for (index, _) in self.pixels.iter().enumerate().filter(|(_, defective)| **defective) {
            let (row, column) = (rows[index / columns.len()], columns[index % columns.len()]);
            whole.pixels[row * resized.width as usize + column] = true;
        }
        whole.sample(&Geometry { image: resized, ..*geometry })
    }
}

/// The source index of each of `count` target indices from `start` on: the source pixel under the centre of the target.
///
/// The position is summed up, not multiplied out, because Pillow does so, and a centre that falls on the border between
/// two pixels goes one way or the other by the rounding of that sum.
fn nearest(source: u32, target: u32, start: u32, count: u32) -> Vec<usize> {
    let scale = f64::from(source) / f64::from(target);
    let last = source.saturating_sub(1) as usize;
    let mut position = scale * 0.5;
    let mut indices = Vec::with_capacity(count as usize);
    for index in 0..start.saturating_add(count) {
        if index >= start {
            indices.push((position as usize).min(last));
        }
        position += scale;
    }
    indices
}

#[cfg(test)]
mod tests {
    use masf_core::Normalisation;
    use proptest::prelude::*;

    use super::*;
    use crate::{Preprocess, Resize};

    #[test]
    fn checks_the_number_of_pixels() {
        assert!(Mask::new(Size::new(2, 2), vec![true; 3]).is_err());
        assert!(Mask::new(Size::new(0, 0), vec![]).is_err());
    }

    #[test]
    fn goes_the_way_of_its_image() {
        let preprocess = Preprocess::new(Size::square(4), Normalisation::IMAGENET)
            .and_then(|stretch| stretch.with_crop_from(Resize::ShorterSide(6)))
            .unwrap();
        // 12 x 18 with its left third defective: resized to 6 x 9, columns 2 to 5 are kept (2.5 rounds to 2).
        let mask = Mask::new(Size::new(12, 18), (0..12 * 18).map(|index| index % 18 < 6).collect()).unwrap();
        let cropped = preprocess.mask(&mask).unwrap();
        assert_eq!(cropped.size(), Size::square(4));
        assert_eq!(cropped.pixels()[..4], [true, false, false, false]);
        assert_eq!(cropped.area(), 4);
    }

    proptest! {
        #[test]
        fn full_and_empty_stay_so(h in 1_u32..80, w in 1_u32..80, oh in 1_u32..80, ow in 1_u32..80, value: bool) {
            let mask = Mask::new(Size::new(h, w), vec![value; (h * w) as usize]).unwrap();
            let out = Preprocess::new(Size::new(oh, ow), Normalisation::IMAGENET).unwrap().mask(&mask).unwrap();
            prop_assert_eq!(out.pixels().len(), (oh * ow) as usize);
            prop_assert!(out.pixels().iter().all(|pixel| *pixel == value));
        }
    }
}
