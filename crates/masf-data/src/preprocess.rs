//! The one way from an image to the tensor that a network sees.
//!
//! Everything that fits, evaluates or inspects goes through [`Preprocess`], and it is part of the model file, so scores
//! cannot differ because two paths resize differently.
//!
//! 1. 8-bit RGB: grey is repeated, alpha is dropped, 16-bit values are scaled and rounded.
//! 2. Resize: bilinear with antialiasing (the triangle filter, widened by the scale when shrinking, as in Pillow's
//!    `BILINEAR`), rounded to 8 bits after each of the two passes, as Pillow does.
//! 3. Centre crop, if any.
//! 4. `(value / 255 - mean) / std` for each channel.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use fast_image_resize as fir;
use fir::images::{TypedImage, TypedImageRef};
use fir::pixels::{U8, U8x3};
use image::{DynamicImage, GrayImage, RgbImage};
use masf_core::Normalisation;
use serde::{Deserialize, Serialize};

use crate::decode::to_rgb8;
use crate::error::{DataError, ImageProblem, Result};
use crate::{Geometry, Mask, Resize, Size};

/// The largest side of an output, and of the size that an image is resized to.
const MAX_SIDE: u32 = 16_384;

/// The most pixels that a resized image may have before the crop.
const MAX_RESIZED_PIXELS: u64 = 1 << 27;

/// The filter of the resize. There is one; the name stands in the model file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ResizeFilter {
    /// Triangle filter over the area that an output pixel covers: Pillow's `BILINEAR`, torchvision's `antialias=True`.
    #[default]
    AntialiasedBilinear,
}

/// Resizing, cropping and normalisation; valid once made.
///
/// ```
/// use masf_core::Normalisation;
/// use masf_data::{Preprocess, Resize, Size};
///
/// let stretch = Preprocess::new(Size::square(256), Normalisation::IMAGENET)?;
/// let crop = Preprocess::new(Size::square(224), Normalisation::IMAGENET)?.with_crop_from(Resize::ShorterSide(256))?;
///
/// let image = image::DynamicImage::new_rgb8(640, 480);
/// assert_eq!(stretch.tensor(&image)?.dims(), [3, 256, 256]);
/// assert_eq!(crop.tensor(&image)?.dims(), [3, 224, 224]);
/// # Ok::<(), masf_data::DataError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct Preprocess {
    fields: Fields,
}

/// The serialised form.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    size: Size,
    resize: Resize,
    filter: ResizeFilter,
    significant_bits: u8,
    normalisation: Normalisation,
}

impl Preprocess {
    /// Resizes to `size`, whatever the aspect ratio of the image, and normalises.
    ///
    /// # Errors
    /// [`DataError::Argument`] for a side of 0 or above 16,384, more than 2^27 pixels, or a normalisation that is not finite or divides
    /// by 0.
    pub fn new(size: Size, normalisation: Normalisation) -> Result<Self> {
        Fields {
            size,
            resize: Resize::Exact(size),
            filter: ResizeFilter::default(),
            significant_bits: 16,
            normalisation,
        }
        .try_into()
    }

    /// Resizes by `resize` first and keeps the centre, of the size given to [`new`](Self::new).
    ///
    /// # Errors
    /// [`DataError::Argument`] if an image could come out smaller than the crop, or is resized beyond 16,384 or 2^27
    /// pixels.
    pub fn with_crop_from(self, resize: Resize) -> Result<Self> {
        Fields { resize, ..self.fields }.try_into()
    }

    /// The same at twice the height and the width. What is cropped may differ by a pixel; [`doubled_tensor`](Self::doubled_tensor) keeps it.
    ///
    /// # Errors
    /// [`DataError::Argument`] where that is beyond 16,384 or 2^27 pixels.
    pub fn doubled(self) -> Result<Self> {
        let resize = match self.fields.resize {
            Resize::Exact(size) => Resize::Exact(size.doubled()),
            Resize::ShorterSide(side) => Resize::ShorterSide(2 * side),
        };
        Fields { size: self.fields.size.doubled(), resize, ..self.fields }.try_into()
    }

    /// How many bits of 16-bit images the camera uses (16 by default): 12-bit samples stored in 16-bit files need 12, or
    /// all images come out nearly black. Larger values in a file are then an error. 8-bit images are not affected.
    ///
    /// # Errors
    /// [`DataError::Argument`] unless between 8 and 16.
    pub fn with_significant_bits(self, bits: u8) -> Result<Self> {
        Fields { significant_bits: bits, ..self.fields }.try_into()
    }

    /// The size `(H, W)` of the tensors.
    pub fn size(&self) -> Size {
        self.fields.size
    }

    /// How images are resized before the crop, if any.
    pub fn resize(&self) -> Resize {
        self.fields.resize
    }

    /// How many bits of 16-bit images count.
    pub fn significant_bits(&self) -> u8 {
        self.fields.significant_bits
    }

    /// The normalisation of the tensors.
    pub fn normalisation(&self) -> Normalisation {
        self.fields.normalisation
    }

    /// Where the pixels of the output come from, for an image of size `image`.
    ///
    /// # Errors
    /// [`DataError::Image`] for an image without pixels, or one so elongated that resizing its shorter side makes more
    /// than 2^27 pixels.
    pub fn geometry(&self, image: Size) -> Result<Geometry> {
        if image.pixels() == 0 {
            return Err(in_memory(ImageProblem::Values("it has no pixels".into())));
        }
        let resized = self.fields.resize.target(image);
        if resized.pixels() > MAX_RESIZED_PIXELS {
            return Err(in_memory(ImageProblem::Values(format!(
                "its size of {image} is too elongated: resizing its shorter side would make it {resized}"
            ))));
        }
        Ok(Geometry::new(image, resized, self.fields.size))
    }

    /// What the network sees, as 8-bit RGB of [`size`](Self::size), before normalisation.
    ///
    /// # Errors
    /// [`DataError::Image`] for floating-point pixels or values beyond the significant bits, and as
    /// [`geometry`](Self::geometry).
    pub fn view(&self, image: &DynamicImage) -> Result<RgbImage> {
        self.view_by(image, self.geometry(Size::of(image))?)
    }

    fn view_by(&self, image: &DynamicImage, geometry: Geometry) -> Result<RgbImage> {
        let resized = match image {
            // One channel to resize, not three equal ones.
            DynamicImage::ImageLuma8(grey) if Size::of(image) != geometry.resized => {
                let grey = resize_bilinear::<U8>(grey.as_raw(), Size::of(image), geometry.resized)?;
                let grey = GrayImage::from_raw(geometry.resized.width, geometry.resized.height, grey);
                let grey = DynamicImage::ImageLuma8(grey.ok_or_else(too_small)?);
                Cow::Owned(to_rgb8(&grey, self.fields.significant_bits).map_err(in_memory)?.into_owned())
            }
            _ => resize_rgb(to_rgb8(image, self.fields.significant_bits).map_err(in_memory)?, geometry.resized)?,
        };
        if geometry.resized == geometry.output {
            return Ok(resized.into_owned());
        }
        let Geometry { left, top, output, .. } = geometry;
        Ok(image::imageops::crop_imm(resized.as_ref(), left, top, output.width, output.height).to_image())
    }

    /// The image as a tensor `[3, H, W]`, `f32`, normalised, on the CPU.
    ///
    /// # Errors
    /// As [`view`](Self::view).
    pub fn tensor(&self, image: &DynamicImage) -> Result<Tensor> {
        self.tensor_of_view(&self.view(image)?)
    }

    /// The same part of the image at twice the height and the width, `[3, 2H, 2W]`: what images that are yet to be [turned](crate::turn)
    /// keep their sharpness with.
    ///
    /// # Errors
    /// As [`doubled`](Self::doubled) and [`view`](Self::view).
    pub fn doubled_tensor(&self, image: &DynamicImage) -> Result<Tensor> {
        let size = Size::of(image);
        // At least as many pixels, so this refuses too many.
        self.doubled()?.geometry(size)?;
        self.tensor_of_view(&self.view_by(image, self.geometry(size)?.doubled())?)
    }

    /// Images as a batch `[B, 3, H, W]`, `f32`, normalised, on the CPU. [`Loader`](crate::Loader) reads many from files.
    ///
    /// # Errors
    /// [`DataError::Argument`] for no images, and as [`view`](Self::view).
    pub fn batch(&self, images: &[DynamicImage]) -> Result<Tensor> {
        if images.is_empty() {
            return Err(DataError::argument("number of images", 0, "at least 1"));
        }
        let named = |index: usize| self.tensor(&images[index]).map_err(|error| error.named(format!("image {index}")));
        let tensors = (0..images.len()).map(named).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::stack(&tensors, 0)?)
    }

    /// Normalises a [`view`](Self::view) (or any RGB image, at its own size): `[3, H, W]`, `f32`, on the CPU.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn tensor_of_view(&self, view: &RgbImage) -> Result<Tensor> {
        let Normalisation { mean, std } = self.fields.normalisation;
        let pixels = view.as_raw().as_chunks::<3>().0;
        let mut values = vec![0f32; 3 * pixels.len()];
        for (channel, plane) in values.chunks_exact_mut(pixels.len().max(1)).enumerate() {
            let (mean, std) = (mean[channel], std[channel]);
            let table: [f32; 256] = std::array::from_fn(|value| (value as f32 / 255.0 - mean) / std);
            for (value, pixel) in plane.iter_mut().zip(pixels) {
                *value = table[usize::from(pixel[channel])];
            }
        }
        let shape = (3, view.height() as usize, view.width() as usize);
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    /// A mask of an image's size, brought to the output by nearest neighbour with the image's own geometry.
    /// Defects may vanish; [`Loader`](crate::Loader) keeps them.
    ///
    /// # Errors
    /// As [`geometry`](Self::geometry).
    pub fn mask(&self, mask: &Mask) -> Result<Mask> {
        Ok(mask.sample(&self.geometry(mask.size())?))
    }
}

impl TryFrom<Fields> for Preprocess {
    type Error = DataError;

    fn try_from(fields: Fields) -> Result<Self> {
        let Fields { size, resize, significant_bits, normalisation, .. } = fields;
        let sides = 1..=MAX_SIDE;
        if !sides.contains(&size.height) || !sides.contains(&size.width) {
            return Err(DataError::argument("image size", size, format!("sides from 1 to {MAX_SIDE}")));
        }
        let (enough, shown) = match resize {
            Resize::Exact(resized) => (
                (size.height..=MAX_SIDE).contains(&resized.height) && (size.width..=MAX_SIDE).contains(&resized.width),
                resized.to_string(),
            ),
            Resize::ShorterSide(side) => {
                ((size.height.max(size.width)..=MAX_SIDE).contains(&side), format!("{side} (shorter side)"))
            }
        };
        if !enough {
            return Err(DataError::argument(
                "resize",
                shown,
                format!("no side shorter than the crop, {size}, or above {MAX_SIDE}"),
            ));
        }
        let largest = match resize {
            Resize::Exact(resized) => resized,
            Resize::ShorterSide(_) => size,
        };
        if largest.pixels() > MAX_RESIZED_PIXELS {
            return Err(DataError::argument("image size", largest, "at most 2^27 pixels"));
        }
        if !(8..=16).contains(&significant_bits) {
            return Err(DataError::argument("significant_bits", significant_bits, "8 to 16"));
        }
        let finite = normalisation.mean.iter().chain(&normalisation.std).all(|value| value.is_finite());
        // A deviation this small would make infinities of ordinary values.
        if !finite || normalisation.std.iter().any(|std| *std < 1e-6) {
            return Err(DataError::argument(
                "normalisation",
                format!("{normalisation:?}"),
                "finite means, and standard deviations of at least 1e-6",
            ));
        }
        Ok(Self { fields })
    }
}

impl From<Preprocess> for Fields {
    fn from(preprocess: Preprocess) -> Self {
        preprocess.fields
    }
}

fn in_memory(problem: ImageProblem) -> DataError {
    DataError::Image { image: "image".into(), problem }
}

/// An image that has the size already is taken as it is.
fn resize_rgb(image: Cow<'_, RgbImage>, size: Size) -> Result<Cow<'_, RgbImage>> {
    let own = Size::new(image.height(), image.width());
    if own == size {
        return Ok(image);
    }
    let resized = resize_bilinear::<U8x3>(image.as_raw(), own, size)?;
    RgbImage::from_raw(size.width, size.height, resized).map(Cow::Owned).ok_or_else(too_small)
}

/// Antialiased bilinear resize. The kind of pixel is a type: by value, the code of all kinds would be compiled.
fn resize_bilinear<P: fir::PixelTrait>(pixels: &[u8], from: Size, to: Size) -> Result<Vec<u8>> {
    let unfit = |error: fir::ImageBufferError| not_resized(error.to_string());
    let source = TypedImageRef::<P>::from_buffer(from.width, from.height, pixels).map_err(unfit)?;
    let mut resized = vec![0; to.pixels() as usize * size_of::<P>()];
    let mut target = TypedImage::<P>::from_buffer(to.width, to.height, &mut resized).map_err(unfit)?;
    let options = fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Bilinear));
    fir::Resizer::new().resize_typed(&source, &mut target, &options).map_err(|error| not_resized(error.to_string()))?;
    Ok(resized)
}

fn too_small() -> DataError {
    not_resized("its buffer is too small".into())
}

fn not_resized(reason: String) -> DataError {
    in_memory(ImageProblem::Values(format!("it cannot be resized: {reason}")))
}

#[cfg(test)]
mod tests {
    use image::{Rgb, Rgba};
    use proptest::prelude::*;

    use super::*;

    fn stretch(height: u32, width: u32) -> Preprocess {
        Preprocess::new(Size::new(height, width), Normalisation::IMAGENET).unwrap()
    }

    #[test]
    fn normalises_as_defined() {
        let image = DynamicImage::ImageRgb8(RgbImage::from_pixel(2, 2, Rgb([0, 128, 255])));
        let tensor = stretch(2, 2).tensor(&image).unwrap().to_vec3::<f32>().unwrap();
        assert_eq!(tensor[0][0][0], -0.485_f32 / 0.229);
        assert_eq!(tensor[1][1][0], (128.0_f32 / 255.0 - 0.456) / 0.224);
        assert_eq!(tensor[2][0][1], (1.0_f32 - 0.406) / 0.225);
    }

    #[test]
    fn grey_is_resized_as_three_equal_channels_would_be() {
        let grey = image::GrayImage::from_fn(97, 61, |x, y| image::Luma([((x * 31 + y * y * 7) % 256) as u8]));
        let rgb = DynamicImage::ImageRgb8(DynamicImage::ImageLuma8(grey.clone()).to_rgb8());
        let grey = DynamicImage::ImageLuma8(grey);
        for size in [(32, 40), (61, 97), (128, 96), (1, 1)] {
            let preprocess = stretch(size.0, size.1);
            assert_eq!(preprocess.view(&grey).unwrap(), preprocess.view(&rgb).unwrap(), "{size:?}");
        }
    }

    #[test]
    fn brings_every_layout_to_rgb() {
        let view = |image: DynamicImage| stretch(1, 1).view(&image).unwrap().into_raw();
        assert_eq!(view(DynamicImage::ImageLuma8(image::GrayImage::from_pixel(1, 1, image::Luma([7])))), [7, 7, 7]);
        let transparent = image::RgbaImage::from_pixel(1, 1, Rgba([9, 8, 7, 0]));
        assert_eq!(view(DynamicImage::ImageRgba8(transparent)), [9, 8, 7]);
        let deep = image::ImageBuffer::from_pixel(1, 1, Rgb([0_u16, 32_896, 65_535]));
        assert_eq!(view(DynamicImage::ImageRgb16(deep)), [0, 128, 255]);
        let deep = image::ImageBuffer::from_pixel(1, 1, image::LumaA([257_u16, 0]));
        assert_eq!(view(DynamicImage::ImageLumaA16(deep)), [1, 1, 1]);
    }

    #[test]
    fn scales_the_bits_that_a_camera_uses() {
        let twelve = stretch(1, 1).with_significant_bits(12).unwrap();
        let image = |value| DynamicImage::ImageLuma16(image::ImageBuffer::from_pixel(1, 1, image::Luma([value])));
        assert_eq!(twelve.view(&image(4095)).unwrap().into_raw(), [255; 3]);
        assert_eq!(twelve.view(&image(2048)).unwrap().into_raw(), [128; 3]);
        let error = twelve.view(&image(4096)).unwrap_err().to_string();
        assert!(error.contains("4096") && error.contains("12 bits"), "{error}");
    }

    #[test]
    fn refuses_floating_point_pixels() {
        let error = stretch(1, 1).view(&DynamicImage::new_rgb32f(2, 2)).unwrap_err().to_string();
        assert!(error.contains("floating-point"), "{error}");
        let batch = [DynamicImage::new_rgb8(2, 2), DynamicImage::new_rgb32f(2, 2)];
        assert!(stretch(1, 1).batch(&batch).unwrap_err().to_string().starts_with("image 1: "));
    }

    #[test]
    fn refuses_what_cannot_be_done() {
        let new = Preprocess::new;
        assert!(new(Size::new(0, 4), Normalisation::IMAGENET).is_err());
        assert!(new(Size::new(4, 20_000), Normalisation::IMAGENET).is_err());
        assert!(new(Size::new(8_192, 16_384), Normalisation::IMAGENET).is_ok());
        let error = new(Size::new(8_193, 16_384), Normalisation::IMAGENET).unwrap_err().to_string();
        assert!(error.contains("8193x16384") && error.contains("2^27"), "{error}");
        assert!(stretch(4, 4).with_crop_from(Resize::Exact(Size::square(16_384))).is_err());
        assert!(stretch(8_192, 8_192).doubled().is_err());
        let broken = Normalisation { mean: [0.0; 3], std: [1.0, 0.0, 1.0] };
        assert!(new(Size::square(4), broken).is_err());
        let broken = Normalisation { mean: [f32::NAN; 3], std: [1.0; 3] };
        assert!(new(Size::square(4), broken).is_err());
        assert!(stretch(224, 224).with_crop_from(Resize::ShorterSide(200)).is_err());
        assert!(stretch(224, 224).with_crop_from(Resize::Exact(Size::new(256, 223))).is_err());
        assert!(stretch(4, 4).with_significant_bits(17).is_err());
        assert!(stretch(4, 4).batch(&[]).is_err());
        // A line of 1 x 3,000,000 pixels would become 256 x 768,000,000.
        let crop = stretch(256, 256).with_crop_from(Resize::ShorterSide(256)).unwrap();
        assert!(crop.geometry(Size::new(1, 3_000_000)).is_err());
    }

    #[test]
    fn survives_serialisation_and_refuses_tampering() {
        let crop = stretch(224, 192).with_crop_from(Resize::ShorterSide(256)).unwrap();
        let text = serde_json::to_string(&crop).unwrap();
        assert!(text.contains("antialiased-bilinear"), "{text}");
        assert_eq!(serde_json::from_str::<Preprocess>(&text).unwrap(), crop);
        for (from, to) in
            [("224", "0"), ("\"significant_bits\":16", "\"significant_bits\":99"), ("\"size\"", "\"sise\"")]
        {
            assert!(text.contains(from));
            assert!(serde_json::from_str::<Preprocess>(&text.replacen(from, to, 1)).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_constant_image_stays_constant(
            (height, width) in (1_u32..90, 1_u32..90),
            (new_height, new_width) in (1_u32..90, 1_u32..90),
            colour: [u8; 3],
        ) {
            let image = DynamicImage::ImageRgb8(RgbImage::from_pixel(width, height, Rgb(colour)));
            let view = stretch(new_height, new_width).view(&image).unwrap();
            prop_assert_eq!((view.height(), view.width()), (new_height, new_width));
            prop_assert!(view.pixels().all(|pixel| pixel.0 == colour));
        }

        #[test]
        fn an_image_of_the_right_size_is_taken_as_it_is(pixels in proptest::collection::vec(any::<u8>(), 5 * 7 * 3)) {
            let image = RgbImage::from_raw(7, 5, pixels).unwrap();
            prop_assert_eq!(stretch(5, 7).view(&DynamicImage::ImageRgb8(image.clone())).unwrap(), image);
        }

        #[test]
        fn a_crop_is_a_part_of_the_resized_image(height in 8_u32..60, width in 8_u32..60, seed: u8) {
            let image = DynamicImage::ImageRgb8(RgbImage::from_fn(width, height, |x, y| {
                Rgb([(x * 7) as u8 ^ seed, (y * 5) as u8, (x * y) as u8])
            }));
            let crop = stretch(6, 8).with_crop_from(Resize::ShorterSide(8)).unwrap();
            let geometry = crop.geometry(Size::of(&image)).unwrap();
            let whole = stretch(geometry.resized.height, geometry.resized.width).view(&image).unwrap();
            for (x, y, pixel) in crop.view(&image).unwrap().enumerate_pixels() {
                prop_assert_eq!(pixel, whole.get_pixel(x + geometry.left, y + geometry.top));
            }
        }
    }
}
