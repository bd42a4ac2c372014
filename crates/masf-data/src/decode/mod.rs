//! From the bytes of a file to an upright image, within limits and without guessing.
//!
//! - The format comes from the content: PNG, JPEG, BMP, TIFF or WebP. Of a file with several pictures (TIFF pages,
//!   animations) the first is read.
//! - The header is checked against [`Limits`] before anything is allocated for the pixels.
//! - A file whose data end early is refused, also where only the end mark is missing: a half-written image looks like
//!   a defect, or worse, like the absence of one.
//! - The orientation stored by a camera (EXIF, or TIFF's own tag) is applied.
//! - Colour profiles are not applied: values are taken as they are stored.
//!
//! The decoders are third-party code whose panics, which damaged files may cause, are caught here and become errors. (The
//! process's panic hook still sees them; a program built with `panic = "abort"` ends.)

mod colour;
mod complete;
mod jpeg;

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::error::{ImageError, LimitErrorKind};
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ExtendedColorType, ImageDecoder, ImageFormat, ImageReader};

use crate::error::{DataError, ImageProblem, Result};
pub(crate) use colour::to_luma8;
pub use colour::to_rgb8;

/// Most bytes that a PNG file's chunks may take beside its pixels.
const MAX_PNG_CHUNKS: u64 = 1 << 26;

/// What an image file may ask for. A file beyond a limit is an error, raised before its pixels are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest width in pixels; 65,535 by default.
    pub max_width: u32,
    /// Largest height in pixels; 65,535 by default.
    pub max_height: u32,
    /// Largest number of pixels; 2^27 by default, a square of 11,585.
    pub max_pixels: u64,
    /// Most bytes that decoding one image may hold as pixels and decoder state; 1 GiB by default, of which chunks of PNG files other than
    /// pixels may take 64 MiB, and TIFF files hold their pixels twice. Turning an image upright and bringing it to 8-bit RGB each take
    /// another copy for a moment.
    pub max_alloc: u64,
    /// Largest file in bytes; 1 GiB by default.
    pub max_file_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_width: 65_535, max_height: 65_535, max_pixels: 1 << 27, max_alloc: 1 << 30, max_file_bytes: 1 << 30 }
    }
}

impl Limits {
    /// Checks the claims of a header: the size, and the bytes that a decoded pixel takes.
    fn check(&self, width: u32, height: u32, bytes_per_pixel: u64) -> Result<(), ImageProblem> {
        let pixels = u64::from(width) * u64::from(height);
        let limited = [
            ("width", u64::from(width), u64::from(self.max_width)),
            ("height", u64::from(height), u64::from(self.max_height)),
            ("number of pixels", pixels, self.max_pixels),
            ("decoded size in bytes", pixels.saturating_mul(bytes_per_pixel), self.max_alloc),
        ];
        match limited.into_iter().find(|(_, value, limit)| value > limit) {
            Some((what, value, limit)) => Err(ImageProblem::Limit { what, value, limit }),
            None => Ok(()),
        }
    }
}

/// Reads and decodes an image file; see the [module](crate::decode) for the rules.
///
/// The image keeps its bit depth and channels; [`Preprocess`](crate::Preprocess) brings it to 8-bit RGB.
///
/// # Errors
/// [`DataError::Io`] if the file cannot be read or is no regular file, [`DataError::Image`] if it is no image of a
/// supported kind, damaged, truncated or over a limit.
pub fn read_image(path: impl AsRef<Path>, limits: &Limits) -> Result<DynamicImage> {
    let path = path.as_ref();
    decode_image(path.display().to_string(), &read_file(path, limits)?, limits)
}

/// Decodes the bytes of an image file; `name` is what errors call it.
///
/// # Errors
/// As [`read_image`].
pub fn decode_image(name: impl Into<String>, bytes: &[u8], limits: &Limits) -> Result<DynamicImage> {
    let decoded = if bytes.len() as u64 > limits.max_file_bytes {
        Err(over_file_limit(bytes.len() as u64, limits))
    } else {
        catch_unwind(AssertUnwindSafe(|| decode(bytes, limits)))
            .unwrap_or_else(|_| Err(corrupt("image", "the decoder failed on it")))
    };
    decoded.map_err(|problem| DataError::Image { image: name.into(), problem })
}

/// The bytes of a regular file within the limit.
fn read_file(path: &Path, limits: &Limits) -> Result<Vec<u8>> {
    let io = |source| DataError::io(path, source);
    // Opening a pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(io)?;
    if !metadata.is_file() {
        return Err(io(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let over =
        |length| DataError::Image { image: path.display().to_string(), problem: over_file_limit(length, limits) };
    if metadata.len() > limits.max_file_bytes {
        return Err(over(metadata.len()));
    }
    let file = std::fs::File::open(path).map_err(io)?;
    let bytes = masf_core::read_within(file, metadata.len(), limits.max_file_bytes).map_err(io)?;
    if bytes.len() as u64 > limits.max_file_bytes { Err(over(bytes.len() as u64)) } else { Ok(bytes) }
}

fn over_file_limit(length: u64, limits: &Limits) -> ImageProblem {
    ImageProblem::Limit { what: "file size in bytes", value: length, limit: limits.max_file_bytes }
}

fn decode(bytes: &[u8], limits: &Limits) -> Result<DynamicImage, ImageProblem> {
    if bytes.is_empty() {
        return Err(ImageProblem::Empty);
    }
    let guessed = match bytes {
        // BigTIFF, which is read, and not guessed.
        [b'I', b'I', 43, 0, ..] | [b'M', b'M', 0, 43, ..] => Ok(ImageFormat::Tiff),
        _ => image::guess_format(bytes),
    };
    let (format, name) = match guessed {
        Ok(format @ ImageFormat::Png) => (format, "PNG"),
        Ok(format @ ImageFormat::Bmp) => (format, "BMP"),
        Ok(format @ ImageFormat::Tiff) => (format, "TIFF"),
        Ok(format @ ImageFormat::WebP) => (format, "WebP"),
        Ok(ImageFormat::Jpeg) => return jpeg::decode(bytes, limits),
        _ => return Err(ImageProblem::Unrecognised),
    };
    let whole = match format {
        ImageFormat::Png => complete::png(bytes),
        ImageFormat::WebP => complete::webp(bytes),
        ImageFormat::Tiff => complete::tiff(bytes)?,
        _ => true,
    };
    let max_alloc = match format {
        // This decoder's limit is for all but the pixels; what it is there for, profiles and texts, is compressed up to 1000 to 1.
        ImageFormat::Png => limits.max_alloc.min(MAX_PNG_CHUNKS),
        _ => limits.max_alloc,
    };
    let mut image_limits = image::Limits::no_limits();
    image_limits.max_alloc = Some(max_alloc);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(image_limits);
    let problem = |error| image_problem(error, name, max_alloc);
    // A damaged header is best explained by the decoder, so a missing end is reported after reading it.
    let mut decoder = reader.into_decoder().map_err(problem)?;
    let (width, height) = decoder.dimensions();
    // The TIFF decoder fills a buffer of its own and copies it.
    let copies = if format == ImageFormat::Tiff { 2 } else { 1 };
    limits.check(width, height, copies * u64::from(decoder.color_type().bytes_per_pixel()))?;
    if !whole {
        return Err(ImageProblem::Truncated { format: name });
    }
    if matches!(decoder.original_color_type(), ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16) {
        return Err(unsupported_cmyk(name));
    }
    if matches!(decoder.color_type(), ColorType::Rgb32F | ColorType::Rgba32F) {
        return Err(unsupported_float());
    }
    let mut orientation = decoder.orientation().map_err(problem)?;
    if format == ImageFormat::Png && orientation == Orientation::NoTransforms {
        orientation = complete::png_exif(bytes).and_then(Orientation::from_exif_chunk).unwrap_or(orientation);
    }
    let mut image = DynamicImage::from_decoder(decoder).map_err(problem)?;
    image.apply_orientation(orientation);
    refuse_empty(image, name)
}

fn refuse_empty(image: DynamicImage, format: &'static str) -> Result<DynamicImage, ImageProblem> {
    if image.width() == 0 || image.height() == 0 { Err(corrupt(format, "it has no pixels")) } else { Ok(image) }
}

fn corrupt(format: &'static str, reason: impl ToString) -> ImageProblem {
    ImageProblem::Corrupt { format, reason: reason.to_string() }
}

fn unsupported_cmyk(format: &str) -> ImageProblem {
    ImageProblem::Unsupported {
        what: format!("a {format} file in CMYK (print) colours, which have no fixed meaning in RGB; save it as RGB"),
    }
}

/// Floating-point pixels have no defined range.
fn unsupported_float() -> ImageProblem {
    ImageProblem::Unsupported {
        what: "an image of floating-point values, whose range is not defined; save it as 8- or 16-bit integers".into(),
    }
}

fn image_problem(error: ImageError, format: &'static str, max_alloc: u64) -> ImageProblem {
    match error {
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageProblem::Truncated { format }
        }
        ImageError::Unsupported(error) => ImageProblem::Unsupported {
            what: format!(
                "a kind of {format} file that is not supported ({error}); save it as 8- or 16-bit grey or RGB"
            ),
        },
        ImageError::Limits(error) if matches!(error.kind(), LimitErrorKind::InsufficientMemory) => {
            let advice = if format == "PNG" { " beside its pixels; save it without texts and profiles" } else { "" };
            ImageProblem::Unsupported {
                what: format!("decoding the {format} file takes more than the limit of {max_alloc} bytes{advice}"),
            }
        }
        error => corrupt(format, error),
    }
}
