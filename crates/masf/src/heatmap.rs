//! Heat maps over images: what people look at.
//!
//! The colour scale is fixed: it runs over the normalised pixel score from 0 to 1, with 0.5 at the pixel threshold, so the
//! pictures of one model compare. The colour map is Inferno (N. Smith and S. van der Walt), which is perceptually uniform
//! and can be read without colour vision. Regions above the threshold are outlined. [`maps`](crate::maps) has the values
//! themselves, for other programs.

use std::borrow::Cow;

use image::{DynamicImage, Rgb, RgbImage};
use masf_data::Geometry;

use crate::Inspection;

/// The longest side of a rendered picture; larger images are shrunk to it.
const MAX_SIDE: u32 = 2048;
/// Width of the legend in its units; a unit is a pixel for pictures up to 511 pixels high, and grows with them.
const LEGEND_WIDTH: u32 = 44;
/// The least height of a picture with a legend.
const LEGEND_HEIGHT: u32 = 64;
const OUTLINE: Rgb<u8> = Rgb([255, 255, 255]);
const INK: Rgb<u8> = Rgb([40, 40, 40]);
const PAPER: Rgb<u8> = Rgb([255, 255, 255]);

/// Draws the anomaly map of an inspection over its image, with outlined regions and a legend.
///
/// `image` is the inspected image, upright. The picture has its size (or its aspect ratio with a longest side of 2048, if
/// it is larger) plus the legend on the right: 1, 0.5 (the threshold) and 0.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let detector = masf::Detector::load("part.masf")?;
/// let image = masf::data::read_image("part.png", &masf::data::Limits::default())?;
/// let found = detector.inspect(&image)?;
/// masf::heatmap::render(&image, &found).save("part-heat.png")?;
/// # Ok(())
/// # }
/// ```
pub fn render(image: &DynamicImage, inspection: &Inspection) -> RgbImage {
    with_legend(&overlaid(&shrunk(image), inspection))
}

/// The same without its legend, at the size of `image`.
pub fn overlaid(image: &DynamicImage, inspection: &Inspection) -> RgbImage {
    let mut picture = shown(image, inspection);
    overlay(&mut picture, inspection);
    picture
}

/// The image in the colours that the model sees.
pub(crate) fn shown(image: &DynamicImage, inspection: &Inspection) -> RgbImage {
    masf_data::to_rgb8(image, inspection.significant_bits).map_or_else(|_| image.to_rgb8(), Cow::into_owned)
}

fn shrunk(image: &DynamicImage) -> DynamicImage {
    if image.width().max(image.height()) <= MAX_SIDE {
        return image.clone();
    }
    image.resize(MAX_SIDE, MAX_SIDE, image::imageops::FilterType::Triangle)
}

/// Blends the map into the picture and outlines what lies above the threshold.
fn overlay(picture: &mut RgbImage, inspection: &Inspection) {
    let (width, height) = picture.dimensions();
    let sampler = Sampler::new(inspection, width, height);
    let scores: Vec<Option<f32>> = (0..height)
        .flat_map(|row| (0..width).map(move |column| (row, column)))
        .map(|(r, c)| sampler.at(r, c))
        .collect();
    let threshold = &inspection.pixel_threshold;
    let above = |row: i64, column: i64| {
        let inside = (0..i64::from(height)).contains(&row) && (0..i64::from(width)).contains(&column);
        inside
            && scores[(row * i64::from(width) + column) as usize].is_some_and(|score| threshold.is_exceeded_by(score))
    };
    let line = i64::from((width.max(height) / 256).max(1));
    for (column, row, pixel) in picture.enumerate_pixels_mut() {
        let Some(score) = scores[(row * width + column) as usize] else { continue };
        let (row, column) = (i64::from(row), i64::from(column));
        let edge = [(line, 0), (-line, 0), (0, line), (0, -line)].iter().any(|(r, c)| !above(row + r, column + c));
        if above(row, column) && edge {
            *pixel = OUTLINE;
            continue;
        }
        let level = f64::from(threshold.normalise(score).0);
        let heat = colour(level);
        // Normal areas stay recognisable, anomalous ones glow.
        let weight = 0.25 + 0.5 * level;
        for (channel, heat) in pixel.0.iter_mut().zip(heat.0) {
            *channel = (f64::from(*channel) * (1.0 - weight) + f64::from(heat) * weight).round() as u8;
        }
    }
}

/// Reads the map at the pixels of a picture of any size.
struct Sampler<'a> {
    inspection: &'a Inspection,
    /// Resized rows and columns per pixel of the picture.
    scale: (f64, f64),
}

impl<'a> Sampler<'a> {
    fn new(inspection: &'a Inspection, width: u32, height: u32) -> Self {
        let Geometry { resized, .. } = inspection.geometry;
        let scale =
            (f64::from(resized.height) / f64::from(height.max(1)), f64::from(resized.width) / f64::from(width.max(1)));
        Self { inspection, scale }
    }

    /// The score at the centre of a pixel by bilinear interpolation; nothing outside the crop.
    fn at(&self, row: u32, column: u32) -> Option<f32> {
        let Geometry { top, left, .. } = self.inspection.geometry;
        let map = &self.inspection.anomaly_map;
        let (h, w) = map.dim();
        let place = |index: u32, scale: f64, start: u32, length: usize| {
            let place = (f64::from(index) + 0.5) * scale - f64::from(start);
            (0.0..=length as f64).contains(&place).then(|| (place - 0.5).clamp(0.0, (length - 1) as f64))
        };
        let (y, x) = (place(row, self.scale.0, top, h)?, place(column, self.scale.1, left, w)?);
        let (y0, x0) = (y as usize, x as usize);
        let (y1, x1) = ((y0 + 1).min(h - 1), (x0 + 1).min(w - 1));
        let (fy, fx) = ((y - y0 as f64) as f32, (x - x0 as f64) as f32);
        let mix = |row: usize| map[(row, x0)] * (1.0 - fx) + map[(row, x1)] * fx;
        Some(mix(y0) * (1.0 - fy) + mix(y1) * fy)
    }
}

/// The colour of a normalised score in `[0, 1]`; values outside are taken as the nearer end.
pub fn colour(level: f64) -> Rgb<u8> {
    let colorous::Color { r, g, b } = colorous::INFERNO.eval_continuous(level.clamp(0.0, 1.0));
    Rgb([r, g, b])
}

/// Puts the colour scale to the right: 1 at the top, the threshold in the middle, 0 at the bottom.
fn with_legend(picture: &RgbImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    let unit = (height / 256).max(1);
    let mut sheet = RgbImage::from_pixel(width + LEGEND_WIDTH * unit, height.max(LEGEND_HEIGHT), PAPER);
    image::imageops::replace(&mut sheet, picture, 0, 0);
    let (top, bottom) = (8 * unit, sheet.height() - 8 * unit - 1);
    let bar = width + 8 * unit..width + 20 * unit;
    for row in top..=bottom {
        let level = f64::from(bottom - row) / f64::from(bottom - top);
        for column in bar.clone() {
            sheet.put_pixel(column, row, colour(level));
        }
    }
    for (text, level) in [("1", 1.0), ("0.5", 0.5), ("0", 0.0)] {
        let row = bottom - (f64::from(bottom - top) * level).round() as u32;
        for column in bar.end..bar.end + 3 * unit {
            sheet.put_pixel(column, row, INK);
        }
        write(&mut sheet, text, bar.end + 5 * unit, row - 2 * unit - unit / 2, unit);
    }
    for column in bar {
        sheet.put_pixel(column, bottom - (f64::from(bottom - top) / 2.0).round() as u32, OUTLINE);
    }
    sheet
}

/// Writes digits of 3 by 5 squares, each `unit` pixels wide.
fn write(sheet: &mut RgbImage, text: &str, mut column: u32, row: u32, unit: u32) {
    for character in text.chars() {
        let glyph: [u8; 5] = match character {
            '0' => [0b111, 0b101, 0b101, 0b101, 0b111],
            '1' => [0b010, 0b110, 0b010, 0b010, 0b111],
            '5' => [0b111, 0b100, 0b111, 0b001, 0b111],
            _ => [0, 0, 0, 0, 0b010],
        };
        for (line, bits) in (0..).zip(glyph) {
            for (offset, bit) in (0..).zip([4, 2, 1]) {
                if bits & bit == 0 {
                    continue;
                }
                for (dx, dy) in (0..unit).flat_map(|dx| (0..unit).map(move |dy| (dx, dy))) {
                    sheet.put_pixel(column + offset * unit + dx, row + line * unit + dy, INK);
                }
            }
        }
        column += 4 * unit;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use masf_core::Normalisation;
    use masf_data::{Preprocess, Resize, Size};
    use masf_fusion::{NormalisedScore, Threshold, ThresholdSource};
    use ndarray::Array2;

    use super::*;

    pub(crate) fn inspection(image: Size, resize: Resize) -> Inspection {
        let preprocess = Preprocess::new(Size::square(64), Normalisation::IMAGENET).unwrap();
        let geometry = preprocess.with_crop_from(resize).unwrap().geometry(image).unwrap();
        let threshold = Threshold { value: 1.0, typical: 0.0, source: ThresholdSource::Manual };
        let inside = |(row, column): (usize, usize)| (20..40).contains(&row) && (20..40).contains(&column);
        let anomaly_map = Array2::from_shape_fn((64, 64), |place| if inside(place) { 9.0 } else { 0.0 });
        Inspection {
            image_score: 9.0,
            normalised_score: NormalisedScore(1.0),
            threshold,
            is_anomalous: true,
            uncertainty: 0.0,
            uncertainty_map: Array2::zeros((64, 64)),
            anomaly_map,
            pixel_threshold: threshold,
            regions: Vec::new(),
            geometry,
            significant_bits: 16,
        }
    }

    #[test]
    fn images_of_few_bits_are_as_bright_as_the_model_sees_them() {
        let full = image::ImageBuffer::from_pixel(8, 8, image::Luma([4095u16]));
        let mut found = inspection(Size::square(128), Resize::Exact(Size::square(64)));
        for (bits, value) in [(12, 255), (16, 16)] {
            found.significant_bits = bits;
            assert_eq!(shown(&DynamicImage::ImageLuma16(full.clone()), &found).get_pixel(0, 0).0, [value; 3]);
        }
    }

    #[test]
    fn the_region_is_hot_outlined_and_in_place() {
        let image = DynamicImage::new_rgb8(128, 128);
        let picture = render(&image, &inspection(Size::square(128), Resize::Exact(Size::square(64))));
        assert_eq!(picture.dimensions(), (128 + LEGEND_WIDTH, 128));
        let brightness = |x, y| picture.get_pixel(x, y).0.iter().map(|v| u32::from(*v)).sum::<u32>();
        assert!(brightness(60, 60) > 300 && brightness(10, 10) < 60);
        assert!((38..44).any(|x| *picture.get_pixel(x, 60) == OUTLINE));
    }

    #[test]
    fn what_the_crop_leaves_out_is_unchanged() {
        let image = DynamicImage::ImageRgb8(RgbImage::from_pixel(128, 128, Rgb([7, 8, 9])));
        let picture = render(&image, &inspection(Size::square(128), Resize::Exact(Size::square(128))));
        assert_eq!(picture.get_pixel(5, 5).0, [7, 8, 9]);
        assert_ne!(picture.get_pixel(40, 40).0, [7, 8, 9]);
    }

    #[test]
    fn any_size_is_drawn() {
        for (width, height) in [(1, 1), (3, 200), (4000, 10), (2500, 2500)] {
            let image = DynamicImage::new_luma8(width, height);
            let picture = render(&image, &inspection(Size::new(height, width), Resize::Exact(Size::square(64))));
            assert!(picture.width() <= MAX_SIDE + 8 * LEGEND_WIDTH && picture.height() >= LEGEND_HEIGHT);
            // The legend is as large as the picture.
            assert_eq!(
                picture.width() - picture.width().min(width).min(MAX_SIDE),
                LEGEND_WIDTH * (height.min(MAX_SIDE) / 256).max(1)
            );
        }
    }
}
