//! Images as callers have them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::{DynamicImage, GrayImage, ImageBuffer, Luma, RgbImage, RgbaImage};

use crate::decode::{Limits, decode_image};
use crate::error::{DataError, Result};
use crate::{Preprocess, Size};
use candle_core::{DType, Device, Tensor};

/// An image as a caller has it: a file or its content, a decoded image, a buffer of values, or a tensor.
///
/// Paths (`&str`, `String`, `Path`, `PathBuf`) and images of the crate `image` convert by `into()`; buffers and tensors, which may
/// not have the size that they should have, by functions that check it. All of them go the same way from there on.
///
/// ```
/// use masf_data::{ImageInput, Limits};
///
/// let from_camera = ImageInput::rgb8(2, 1, vec![255, 0, 0, 0, 0, 255])?;
/// assert_eq!(from_camera.decode(&Limits::default())?.height(), 2);
/// assert!(ImageInput::rgb8(2, 2, vec![0; 5]).is_err());
/// let from_file: ImageInput = "part.png".into();
/// let from_network = ImageInput::encoded("upload 17", b"the bytes of a PNG file".to_vec());
/// let error = from_network.decode(&Limits::default()).expect_err("that is no PNG");
/// assert!(error.to_string().starts_with("upload 17: not an image"));
/// # Ok::<(), masf_data::DataError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ImageInput {
    /// A file, read when it is needed.
    Path(PathBuf),
    /// An upright image, shared: clones do not copy its pixels.
    Image(Arc<DynamicImage>),
    /// The content of a file, decoded when it is needed; see [`encoded`](Self::encoded).
    Encoded {
        /// What errors call it.
        name: String,
        /// The content of a PNG, JPEG, BMP, TIFF or WebP file.
        bytes: Arc<[u8]>,
    },
}

impl ImageInput {
    /// An image from RGB values in row-major order, 8 bits each: R, G, B of the first pixel, and so on.
    ///
    /// # Errors
    /// [`DataError::Argument`] unless there are `3 * height * width` values, and at least one pixel.
    pub fn rgb8(height: u32, width: u32, values: Vec<u8>) -> Result<Self> {
        let size = checked("length of the RGB buffer", Size::new(height, width), 3, values.len())?;
        from_raw(size, RgbImage::from_raw(width, height, values))
    }

    /// As [`rgb8`](Self::rgb8), with the channels in the order B, G, R, as many cameras and OpenCV have them.
    ///
    /// # Errors
    /// As [`rgb8`](Self::rgb8).
    pub fn bgr8(height: u32, width: u32, mut values: Vec<u8>) -> Result<Self> {
        let size = checked("length of the BGR buffer", Size::new(height, width), 3, values.len())?;
        for pixel in values.chunks_exact_mut(3) {
            pixel.swap(0, 2);
        }
        from_raw(size, RgbImage::from_raw(width, height, values))
    }

    /// An image from grey values in row-major order, 8 bits each.
    ///
    /// # Errors
    /// [`DataError::Argument`] unless there are `height * width` values, and at least one pixel.
    pub fn luma8(height: u32, width: u32, values: Vec<u8>) -> Result<Self> {
        let size = checked("length of the grey buffer", Size::new(height, width), 1, values.len())?;
        from_raw(size, GrayImage::from_raw(width, height, values))
    }

    /// An image from grey values in row-major order, 16 bits each; how many of them count is a matter of
    /// [`Preprocess::with_significant_bits`].
    ///
    /// # Errors
    /// As [`luma8`](Self::luma8).
    pub fn luma16(height: u32, width: u32, values: Vec<u16>) -> Result<Self> {
        let size = checked("length of the grey buffer", Size::new(height, width), 1, values.len())?;
        from_raw(size, ImageBuffer::<Luma<u16>, _>::from_raw(width, height, values))
    }

    /// An image from the content of a file, such as the body of a request; `name` is what errors call it.
    ///
    /// It is decoded when it is needed, within the same limits and by the same rules as a file.
    pub fn encoded(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self::Encoded { name: name.into(), bytes: bytes.into() }
    }

    /// An image from a tensor `[3, H, W]` (RGB) or `[1, H, W]` (grey), not normalised: `u8` from 0 to 255, or `f32` or `f64` from 0
    /// to 1, which is rounded to 8 bits as an image file would hold it.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use masf_data::ImageInput;
    ///
    /// let grey = Tensor::full(0.5f32, (1, 4, 6), &Device::Cpu)?;
    /// assert_eq!(ImageInput::from_tensor(&grey)?, ImageInput::luma8(4, 6, vec![128; 24])?);
    /// let normalised = Tensor::full(-1.8f32, (3, 4, 6), &Device::Cpu)?;
    /// assert!(ImageInput::from_tensor(&normalised).is_err());
    /// # Ok::<(), masf_data::DataError>(())
    /// ```
    ///
    /// # Errors
    /// [`DataError::Image`] for another shape or type, or values outside of 0 to 1.
    pub fn from_tensor(tensor: &Tensor) -> Result<Self> {
        let refused = |problem: String| DataError::Image {
            image: "tensor".into(),
            problem: crate::ImageProblem::Values(problem),
        };
        let (channels, height, width) = match *tensor.dims() {
            [channels @ (1 | 3), height, width] if height > 0 && width > 0 => (channels, height, width),
            ref dims => return Err(refused(format!("its shape is {dims:?}; expected [3, H, W] or [1, H, W]"))),
        };
        let side = |side: usize| u32::try_from(side).map_err(|_| refused(format!("a side of {side} is too long")));
        let (rows, columns) = (side(height)?, side(width)?);
        let tensor = tensor.to_device(&Device::Cpu)?;
        // Channels last, as images have them.
        let values = tensor.permute((1, 2, 0))?.flatten_all()?;
        let values = match values.dtype() {
            DType::U8 => values.to_vec1::<u8>()?,
            DType::F32 | DType::F64 => {
                let values = values.to_dtype(DType::F32)?.to_vec1::<f32>()?;
                // Also true for NaN, which is in no range.
                if let Some(value) = values.iter().find(|value| !(0.0..=1.0).contains(*value)) {
                    let problem = format!("holds {value}; expected RGB from 0 to 1, before any normalisation");
                    return Err(refused(problem));
                }
                values.into_iter().map(|value| (value * 255.0).round() as u8).collect()
            }
            other => return Err(refused(format!("its type is {other:?}; expected u8 (0 to 255) or f32 (0 to 1)"))),
        };
        if channels == 1 { Self::luma8(rows, columns, values) } else { Self::rgb8(rows, columns, values) }
    }

    /// The path, where the image is a file.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            _ => None,
        }
    }

    /// What errors call the image: its path, the name given to [`encoded`](Self::encoded), or `image in memory`.
    pub fn name(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Image(_) => "image in memory".into(),
            Self::Encoded { name, .. } => name.clone(),
        }
    }

    /// The upright image.
    ///
    /// # Errors
    /// Those of [`read_image`](crate::read_image).
    pub fn decode(&self, limits: &Limits) -> Result<DynamicImage> {
        match self {
            Self::Path(path) => crate::read_image(path, limits),
            Self::Image(image) => Ok(DynamicImage::clone(image)),
            Self::Encoded { name, bytes } => decode_image(name, bytes, limits),
        }
    }

    /// The image as a normalised tensor `[3, H, W]`, `f32`, on the CPU: from the file to the tensor in one step.
    ///
    /// # Errors
    /// Those of [`read_image`](crate::read_image) and of [`Preprocess::tensor`].
    pub fn tensor(&self, preprocess: &Preprocess, limits: &Limits) -> Result<Tensor> {
        let decoded;
        let image = match self {
            Self::Image(image) => image,
            _ => {
                decoded = self.decode(limits)?;
                &decoded
            }
        };
        preprocess.tensor(image).map_err(|error| error.named(self.name()))
    }
}

/// The size, if a buffer of `length` values fits it.
fn checked(what: &'static str, size: Size, channels: u64, length: usize) -> Result<Size> {
    if size.pixels() > 0 && size.pixels().checked_mul(channels) == Some(length as u64) {
        return Ok(size);
    }
    let each = if channels == 1 { "1 value".to_owned() } else { format!("{channels} values") };
    Err(DataError::argument(what, length, format!("{each} for each pixel of {size}, at least one pixel")))
}

fn from_raw(size: Size, image: Option<impl Into<DynamicImage>>) -> Result<ImageInput> {
    let image = image.ok_or_else(|| DataError::argument("image size", size, "one that fits into memory"))?;
    Ok(image.into().into())
}

impl TryFrom<&Tensor> for ImageInput {
    type Error = DataError;

    /// As [`from_tensor`](Self::from_tensor).
    fn try_from(tensor: &Tensor) -> Result<Self> {
        Self::from_tensor(tensor)
    }
}

impl From<PathBuf> for ImageInput {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl From<&Path> for ImageInput {
    fn from(path: &Path) -> Self {
        Self::Path(path.to_path_buf())
    }
}

impl From<&PathBuf> for ImageInput {
    fn from(path: &PathBuf) -> Self {
        Self::Path(path.clone())
    }
}

impl From<&str> for ImageInput {
    fn from(path: &str) -> Self {
        Self::Path(path.into())
    }
}

impl From<DynamicImage> for ImageInput {
    fn from(image: DynamicImage) -> Self {
        Self::Image(Arc::new(image))
    }
}

impl From<RgbImage> for ImageInput {
    fn from(image: RgbImage) -> Self {
        DynamicImage::from(image).into()
    }
}

impl From<String> for ImageInput {
    fn from(path: String) -> Self {
        Self::Path(path.into())
    }
}

impl From<&String> for ImageInput {
    fn from(path: &String) -> Self {
        Self::Path(path.into())
    }
}

impl From<&DynamicImage> for ImageInput {
    fn from(image: &DynamicImage) -> Self {
        image.clone().into()
    }
}

impl From<&RgbImage> for ImageInput {
    fn from(image: &RgbImage) -> Self {
        image.clone().into()
    }
}

impl From<RgbaImage> for ImageInput {
    fn from(image: RgbaImage) -> Self {
        DynamicImage::from(image).into()
    }
}

impl From<GrayImage> for ImageInput {
    fn from(image: GrayImage) -> Self {
        DynamicImage::from(image).into()
    }
}

impl From<ImageBuffer<Luma<u16>, Vec<u16>>> for ImageInput {
    fn from(image: ImageBuffer<Luma<u16>, Vec<u16>>) -> Self {
        DynamicImage::from(image).into()
    }
}

#[cfg(test)]
mod tests {
    use masf_core::Normalisation;

    use super::*;

    #[test]
    fn every_way_in_gives_the_same_tensor() {
        let image = RgbImage::from_fn(7, 5, |x, y| image::Rgb([(x * 30) as u8, (y * 50) as u8, 9]));
        let mut png = std::io::Cursor::new(Vec::new());
        image.write_to(&mut png, image::ImageFormat::Png).unwrap();
        let bgr = image.pixels().flat_map(|pixel| [pixel.0[2], pixel.0[1], pixel.0[0]]).collect();
        let planes: Vec<u8> = (0..3).flat_map(|channel| image.pixels().map(move |pixel| pixel.0[channel])).collect();
        let tensor = Tensor::from_vec(planes, (3, 5, 7), &Device::Cpu).unwrap();
        let unit = (tensor.to_dtype(DType::F64).unwrap() / 255.0).unwrap();
        let inputs = [
            ImageInput::from(&image),
            ImageInput::rgb8(5, 7, image.as_raw().clone()).unwrap(),
            ImageInput::bgr8(5, 7, bgr).unwrap(),
            ImageInput::encoded("upload", png.into_inner()),
            ImageInput::try_from(&tensor).unwrap(),
            ImageInput::try_from(&unit).unwrap(),
            DynamicImage::from(image).into(),
        ];
        let preprocess = Preprocess::new(Size::square(16), Normalisation::IMAGENET).unwrap();
        let values = |input: &ImageInput| {
            input.tensor(&preprocess, &Limits::default()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        for input in &inputs {
            assert_eq!(values(input), values(&inputs[0]), "{}", input.name());
        }
    }

    #[test]
    fn buffers_of_another_size_are_refused_by_name() {
        let refused = [
            ImageInput::rgb8(2, 2, vec![0; 11]),
            ImageInput::bgr8(0, 2, Vec::new()),
            ImageInput::luma8(2, 2, vec![0; 12]),
            ImageInput::luma16(u32::MAX, u32::MAX, vec![0; 4]),
        ];
        for result in refused {
            let message = result.unwrap_err().to_string();
            assert!(message.contains("buffer is") && message.contains("each pixel"), "{message}");
        }
    }

    #[test]
    fn tensors_that_are_no_image_are_refused() {
        let cpu = &Device::Cpu;
        let refused = |tensor: Tensor, part: &str| {
            let message = ImageInput::from_tensor(&tensor).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        };
        refused(Tensor::zeros((1, 3, 4, 4), DType::F32, cpu).unwrap(), "[3, H, W]");
        refused(Tensor::zeros((4, 4, 3), DType::U8, cpu).unwrap(), "[4, 4, 3]");
        refused(Tensor::zeros((3, 4, 4), DType::I64, cpu).unwrap(), "I64");
        refused(Tensor::full(f32::NAN, (3, 4, 4), cpu).unwrap(), "NaN");
        refused(Tensor::full(1.5f32, (3, 4, 4), cpu).unwrap(), "before any normalisation");
    }
}
