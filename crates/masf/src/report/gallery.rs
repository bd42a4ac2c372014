//! The pictures of a report, small enough that hundreds of them fit into one page.

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::png::PngEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, ExtendedColorType, GrayImage, ImageEncoder, Luma, RgbImage};
use jpeg_encoder::{ColorType, Encoder};
use masf_core::{Error, Result};
use masf_data::{Geometry, Mask, read_image};

use crate::evaluation::Evaluated;
use crate::{Region, heatmap};

/// Longest side of the pictures.
const SIDE: u32 = 208;
/// Quality of the JPEG pictures, 1 to 100.
const QUALITY: u8 = 76;

/// Collects what a report shows of every image: small pictures of the image, its heat map and its mask.
///
/// Takes about 25 KB an image.
#[derive(Debug, Clone, Default)]
pub struct Gallery {
    entries: Vec<Entry>,
}

/// One image of the gallery; pictures are data URLs.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) defective: bool,
    pub(super) is_anomalous: bool,
    pub(super) normalised_score: f32,
    pub(super) image_score: f32,
    pub(super) uncertainty: f32,
    pub(super) regions: Vec<Region>,
    pub(super) size: (u32, u32),
    pub(super) image: String,
    pub(super) heat: String,
    pub(super) mask: Option<String>,
}

impl Gallery {
    /// A gallery without images.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds an evaluated image; its file is read again for the picture.
    ///
    /// # Errors
    /// An image that can no longer be read.
    pub fn add(&mut self, found: &Evaluated<'_>) -> Result<()> {
        let image = read_image(&found.sample.path, &found.limits)?;
        let image = thumbnail(&image);
        let size = (image.width(), image.height());
        let inspection = found.inspection;
        self.entries.push(Entry {
            name: shown_name(&found.sample.path),
            kind: found.sample.kind.clone(),
            defective: found.sample.label.is_defective(),
            is_anomalous: inspection.is_anomalous,
            normalised_score: inspection.normalised_score.0,
            image_score: inspection.image_score,
            uncertainty: inspection.uncertainty,
            regions: inspection.regions.clone(),
            size,
            image: jpeg(&heatmap::shown(&image, inspection))?,
            heat: jpeg(&heatmap::overlaid(&image, inspection))?,
            mask: found.mask.map(|mask| mask_png(mask, size, &inspection.geometry)).transpose()?,
        });
        Ok(())
    }

    /// Whether an image of the gallery has a mask.
    pub(super) fn has_masks(&self) -> bool {
        self.entries.iter().any(|entry| entry.mask.is_some())
    }

    /// The images, in the order in which they were added.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The images, the most anomalous first; equal scores keep the order in which they were added.
    pub(super) fn sorted(&self) -> Vec<&Entry> {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by(|a, b| b.image_score.total_cmp(&a.image_score));
        entries
    }
}

/// The last two parts of a path: `crack/000.png`.
fn shown_name(path: &std::path::Path) -> String {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    parts[parts.len().saturating_sub(2)..].join("/")
}

fn thumbnail(image: &DynamicImage) -> DynamicImage {
    if image.width().max(image.height()) <= SIDE {
        return image.clone();
    }
    image.resize(SIDE, SIDE, FilterType::Triangle)
}

fn jpeg(picture: &RgbImage) -> Result<String> {
    let mut bytes = Vec::new();
    // Thumbnails are at most `SIDE` pixels wide and high.
    let (width, height) = (picture.width() as u16, picture.height() as u16);
    Encoder::new(&mut bytes, QUALITY)
        .encode(picture.as_raw(), width, height, ColorType::Rgb)
        .map_err(|error| Error::data("picture of the report", error.to_string()))?;
    Ok(format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes)))
}

/// A mask of what the model sees, at its place in a picture of the whole image.
fn mask_png(mask: &Mask, (width, height): (u32, u32), geometry: &Geometry) -> Result<String> {
    let Geometry { resized, top, left, output, .. } = *geometry;
    // Where the centre of a pixel of the picture lies in what the model sees.
    let seen = |pixel: u32, of: u32, from: u32, start: u32, length: u32| {
        let place = (2 * u64::from(pixel) + 1) * u64::from(from) / (2 * u64::from(of.max(1)));
        place.checked_sub(u64::from(start)).filter(|place| *place < u64::from(length))
    };
    let picture = GrayImage::from_fn(width, height, |x, y| {
        let row = seen(y, height, resized.height, top, output.height);
        let place = row.zip(seen(x, width, resized.width, left, output.width));
        let index = place.map(|(row, column)| (row * u64::from(output.width) + column) as usize);
        let defective = index.and_then(|index| mask.pixels().get(index)).copied().unwrap_or(false);
        Luma([if defective { 255 } else { 0 }])
    });
    let mut bytes = Cursor::new(Vec::new());
    PngEncoder::new(&mut bytes)
        .write_image(picture.as_raw(), width, height, ExtendedColorType::L8)
        .map_err(|error| Error::data("mask of the report", error.to_string()))?;
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(bytes.into_inner())))
}

#[cfg(test)]
mod tests {
    use masf_core::Normalisation;
    use masf_data::{Preprocess, Resize, Size};

    use super::*;

    /// What is shown of a mask where the model sees the middle of images of a size.
    fn shown(mask: &Mask, size: (u32, u32), whole: Size) -> GrayImage {
        let preprocess = Preprocess::new(mask.size(), Normalisation::IMAGENET).unwrap();
        let preprocess = preprocess.with_crop_from(Resize::Exact(whole)).unwrap();
        let url = mask_png(mask, size, &preprocess.geometry(whole).unwrap()).unwrap();
        let bytes = STANDARD.decode(url.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
        image::load_from_memory(&bytes).unwrap().to_luma8()
    }

    #[test]
    fn names_have_their_folder() {
        assert_eq!(shown_name("/data/bottle/test/crack/000.png".as_ref()), "crack/000.png");
        assert_eq!(shown_name("000.png".as_ref()), "000.png");
    }

    #[test]
    fn masks_keep_their_place_at_any_size() {
        let mut pixels = vec![false; 400 * 100];
        pixels[99 * 400 + 399] = true;
        let mask = Mask::new(Size::new(100, 400), pixels).unwrap();
        for size in [(224, 56), (1, 1), (400, 100)] {
            let picture = shown(&mask, size, mask.size());
            assert_eq!(picture.dimensions(), size);
            assert_eq!(picture.get_pixel(0, 0).0, [0]);
        }
        assert_eq!(shown(&mask, (400, 100), mask.size()).get_pixel(399, 99).0, [255]);
    }

    #[test]
    fn masks_of_a_crop_cover_the_crop() {
        let mask = Mask::new(Size::square(64), vec![true; 64 * 64]).unwrap();
        for (side, inside) in [(128, 32..96), (64, 16..48)] {
            for (x, y, pixel) in shown(&mask, (side, side), Size::square(128)).enumerate_pixels() {
                let expected = if inside.contains(&x) && inside.contains(&y) { 255 } else { 0 };
                assert_eq!(pixel.0, [expected], "({x}, {y}) of {side}");
            }
        }
    }
}
