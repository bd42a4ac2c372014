#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod anomaly;
pub mod decode;
mod error;
mod geometry;
mod input;
pub mod layout;
pub mod loader;
mod mask;
mod preprocess;
pub mod procedural;
mod size;
pub mod synthetic;
mod turn;

pub use decode::{Limits, decode_image, read_image, to_rgb8};
pub use error::{DataError, ImageProblem, Result};
pub use geometry::{Geometry, Resize};
pub use input::ImageInput;
pub use layout::{Collected, Dataset, ImageFile, Label, Layout, Sample, collect_images, collect_readable_images};
pub use loader::{Batch, Failed, LoadItem, LoadOptions, Loaded, Loader};
/// How RGB values in `[0, 1]` are normalised.
pub use masf_core::Normalisation;
pub use mask::Mask;
pub use preprocess::{Preprocess, ResizeFilter};
pub use size::Size;
pub use turn::{disc, halve, turn};
