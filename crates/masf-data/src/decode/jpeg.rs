//! JPEG, strictly: every coefficient must be there.
//!
//! Most decoders, by default, fill what is missing with grey. Here the decoder runs in its strict mode, and the end mark must
//! stand where the marker structure says.

use image::metadata::Orientation;
use image::{DynamicImage, ImageBuffer};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::{Limits, complete, corrupt, refuse_empty, unsupported_cmyk};
use crate::error::ImageProblem;

const FORMAT: &str = "JPEG";

/// Bytes per pixel: RGB, and the coefficients that a progressive file keeps until its last scan (16 bits of 3 channels).
const BYTES_PER_PIXEL: u64 = 3 + 6;

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<DynamicImage, ImageProblem> {
    let whole = complete::jpeg(bytes);
    // The decoder's errors about a file without an end are many; what the user needs to know is one.
    let problem = |reason: String| {
        if whole { corrupt(FORMAT, reason) } else { ImageProblem::Truncated { format: FORMAT } }
    };
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| problem(error.to_string()))?;
    let info = decoder.info().ok_or_else(|| problem("no header".into()))?;
    let (width, height) = (u32::from(info.width), u32::from(info.height));
    limits.check(width, height, BYTES_PER_PIXEL)?;
    if !whole {
        return Err(ImageProblem::Truncated { format: FORMAT });
    }
    let grey = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => true,
        Some(ColorSpace::YCbCr | ColorSpace::RGB) => false,
        Some(ColorSpace::CMYK | ColorSpace::YCCK) => return Err(unsupported_cmyk(FORMAT)),
        other => return Err(corrupt(FORMAT, format!("unknown colour space {other:?}"))),
    };
    let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    decoder.set_options(options.jpeg_set_out_colorspace(if grey { ColorSpace::Luma } else { ColorSpace::RGB }));
    let pixels = decoder.decode().map_err(|error| problem(error.to_string()))?;
    let image = if grey {
        ImageBuffer::from_raw(width, height, pixels).map(DynamicImage::ImageLuma8)
    } else {
        ImageBuffer::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8)
    };
    let mut image = image.ok_or_else(|| corrupt(FORMAT, "fewer pixels than its header says"))?;
    image.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
    refuse_empty(image, FORMAT)
}
