//! Images as callers have them.

use std::path::{Path, PathBuf};

use image::{DynamicImage, RgbImage};

use crate::decode::{Limits, decode_image, read_file};
use crate::error::{DataError, Result};
use crate::{Preprocess, Size};
use candle_core::Tensor;

/// An image as a caller has it: a file, a decoded image, or a buffer of RGB values.
///
/// ```
/// use masf_data::{ImageInput, Limits};
///
/// let from_camera = ImageInput::rgb8(2, 1, vec![255, 0, 0, 0, 0, 255])?;
/// assert_eq!(from_camera.decode(&Limits::default())?.height(), 2);
/// assert!(ImageInput::rgb8(2, 2, vec![0; 5]).is_err());
/// let from_file: ImageInput = "part.png".into();
/// # Ok::<(), masf_data::DataError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ImageInput {
    /// A file, read when it is needed.
    Path(PathBuf),
    /// An upright image.
    Image(DynamicImage),
}

impl ImageInput {
    /// An image from RGB values in row-major order, 8 bits each: R, G, B of the first pixel, and so on.
    ///
    /// # Errors
    /// [`DataError::Argument`] unless there are `3 * height * width` values, and at least one pixel.
    pub fn rgb8(height: u32, width: u32, values: Vec<u8>) -> Result<Self> {
        let (size, length) = (Size::new(height, width), values.len());
        if size.pixels() > 0
            && size.pixels().checked_mul(3) == Some(length as u64)
            && let Some(image) = RgbImage::from_raw(width, height, values)
        {
            return Ok(Self::Image(image.into()));
        }
        Err(DataError::argument(
            "length of the RGB buffer",
            length,
            format!("3 values for each pixel of {size}, at least one pixel"),
        ))
    }

    /// The path, where the image is a file.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Image(_) => None,
        }
    }

    /// What errors call the image.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Image(_) => "image in memory".into(),
        }
    }

    /// The bytes of the file, if it is one: read apart from decoding, so that they can be hashed.
    pub(crate) fn bytes(&self, limits: &Limits) -> Result<Option<Vec<u8>>> {
        self.path().map(|path| read_file(path, limits)).transpose()
    }

    /// The upright image.
    ///
    /// # Errors
    /// Those of [`read_image`](crate::read_image).
    pub fn decode(&self, limits: &Limits) -> Result<DynamicImage> {
        match self {
            Self::Path(path) => crate::read_image(path, limits),
            Self::Image(image) => Ok(image.clone()),
        }
    }

    /// The image as a normalised tensor `[3, H, W]`, `f32`, on the CPU: from the file to the tensor in one step.
    ///
    /// # Errors
    /// Those of [`read_image`](crate::read_image) and of [`Preprocess::tensor`].
    pub fn tensor(&self, preprocess: &Preprocess, limits: &Limits) -> Result<Tensor> {
        match self {
            Self::Path(path) => {
                let image = decode_image(self.name(), &read_file(path, limits)?, limits)?;
                preprocess.tensor(&image).map_err(|error| error.named(self.name()))
            }
            Self::Image(image) => preprocess.tensor(image),
        }
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
        Self::Image(image)
    }
}

impl From<RgbImage> for ImageInput {
    fn from(image: RgbImage) -> Self {
        Self::Image(image.into())
    }
}
