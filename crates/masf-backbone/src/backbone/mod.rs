//! A frozen network as a [`FeatureExtractor`].

mod artifact;
mod builder;
mod executor;

pub use builder::BackboneBuilder;

use candle_core::{DType, Device, Tensor};
use masf_core::{FeatureExtractor, FeatureLevel, FeaturePyramid, LevelSpec, Normalisation, all_finite};
use masf_models::Model;

use crate::engine::Precision;
use crate::weights::Weights;
use crate::{BackboneError, Result};
use executor::Prepared;

/// The shortest side of an image that is accepted, in pixels.
const MIN_SIDE: usize = 32;

/// A frozen pretrained network that gives the feature maps of chosen layers.
///
/// On the CPU convolutional networks run on the [engine](crate::engine); on other devices, and for vision transformers (feature
/// `vit`), Candle's operations compute. Layers that no chosen map needs are neither computed nor kept.
///
/// ```no_run
/// use masf_backbone::Backbone;
/// use masf_core::FeatureExtractor;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let backbone = Backbone::builder("resnet18")?.strides(&[8, 16]).load("resnet18.safetensors".as_ref())?;
/// let images = candle_core::Tensor::zeros((1, 3, 256, 256), candle_core::DType::F32, &candle_core::Device::Cpu)?;
/// let pyramid = backbone.extract(&images)?;
/// assert_eq!(pyramid.level(16)?.map.dims(), [1, 256, 16, 16]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Backbone {
    model: &'static Model,
    layers: Vec<String>,
    levels: Vec<LevelSpec>,
    /// What the sides of images must be multiples of.
    granularity: usize,
    normalisation: Normalisation,
    device: Device,
    precision: Precision,
    /// What the network was made from, in the type it was stored in: a model file has to give the same bits.
    weights: Weights,
    executor: Prepared,
}

impl Backbone {
    /// The tag of the model file.
    pub const TAG: &'static str = "masf.backbone";

    /// Starts from a name of the registry, such as `resnet18`.
    ///
    /// # Errors
    /// [`BackboneError::Argument`] lists the names of the networks that there are.
    pub fn builder(name: &str) -> Result<BackboneBuilder> {
        BackboneBuilder::new(name)
    }

    /// SHA-256 of the file of weights, hexadecimal.
    pub fn weights_sha256(&self) -> &str {
        self.weights.sha256()
    }

    /// The layers whose maps are given, one for each level.
    pub fn layers(&self) -> &[String] {
        &self.layers
    }

    /// How exactly it multiplies.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The same backbone on another device.
    ///
    /// # Errors
    /// Those of the device, and [`BackboneError::Argument`] for a precision that is the CPU's only.
    pub fn to_device(self, device: Device) -> Result<Self> {
        let layers: Vec<&str> = self.layers.iter().map(String::as_str).collect();
        let builder = BackboneBuilder::new(self.model.name)?.layers(&layers).normalisation(self.normalisation);
        builder.device(device).precision(self.precision).restore(self.weights)
    }

    /// The maps of the levels, `[B, C, h, w]`.
    pub(crate) fn maps(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        check_images(images, &self.device)?;
        check_granularity(images, self.granularity)?;
        let maps = self.executor.get(&self.weights, &self.device, self.precision)?.run(images)?;
        for (map, level) in maps.iter().zip(&self.levels) {
            if !is_finite(map)? {
                return Err(BackboneError::NotFinite { backbone: self.model.name.into(), stride: level.stride });
            }
        }
        Ok(maps)
    }
}

impl FeatureExtractor for Backbone {
    fn levels(&self) -> &[LevelSpec] {
        &self.levels
    }

    fn normalisation(&self) -> Normalisation {
        self.normalisation
    }

    fn name(&self) -> &str {
        self.model.name
    }

    fn extract(&self, images: &Tensor) -> masf_core::Result<FeaturePyramid> {
        pyramid(self.maps(images)?, &self.levels, images)
    }

    fn device(&self) -> Device {
        self.device.clone()
    }

    fn release(&self) {
        self.executor.release();
    }
}

/// Maps of images as a pyramid.
pub(crate) fn pyramid(maps: Vec<Tensor>, levels: &[LevelSpec], images: &Tensor) -> masf_core::Result<FeaturePyramid> {
    let (_, _, height, width) = images.dims4()?;
    let levels = levels.iter().zip(maps).map(|(spec, map)| FeatureLevel { spec: *spec, map }).collect();
    FeaturePyramid::new(levels, (height, width))
}

/// Accepts `[B, 3, H, W]`, `f32`, finite, large enough, where the weights are.
pub(crate) fn check_images(images: &Tensor, device: &Device) -> Result<()> {
    let refuse = |problem: String| Err(BackboneError::Images { shape: images.dims().to_vec(), problem });
    let &[batch, channels, height, width] = images.dims() else {
        return refuse("expected four axes [B, 3, H, W]".into());
    };
    if batch == 0 || channels != 3 {
        return refuse("expected at least one image of 3 channels, [B, 3, H, W]".into());
    }
    if height.min(width) < MIN_SIDE {
        return refuse(format!("{height} x {width} pixels are too few; sides must be at least {MIN_SIDE}"));
    }
    if images.dtype() != DType::F32 {
        return refuse(format!("the type is {:?}; expected F32", images.dtype()));
    }
    if !images.device().same_device(device) {
        return refuse(format!(
            "they are on {:?}, the weights on {device:?}; move them with to_device",
            images.device()
        ));
    }
    if !is_finite(images)? {
        return refuse("some pixels are NaN or infinite".into());
    }
    Ok(())
}

/// Accepts sides of whole patches.
fn check_granularity(images: &Tensor, patch: usize) -> Result<()> {
    let (_, _, height, width) = images.dims4()?;
    if height.is_multiple_of(patch) && width.is_multiple_of(patch) {
        return Ok(());
    }
    let near = |side: usize| {
        let below = (side / patch * patch).max(MIN_SIDE.next_multiple_of(patch));
        let above = side.next_multiple_of(patch);
        if below < above { format!("{below} or {above}") } else { above.to_string() }
    };
    let problem = format!(
        "{height} x {width} pixels are not whole patches of {patch} x {patch}; choose a height of {} and a width of {}",
        near(height),
        near(width)
    );
    Err(BackboneError::Images { shape: images.dims().to_vec(), problem })
}

/// Whether all values are finite.
pub(crate) fn is_finite(x: &Tensor) -> Result<bool> {
    if !x.device().is_cpu() {
        // 0 x is 0 for finite values and NaN otherwise, and NaN is not equal to 0.
        let finite = (x * 0.0)?.eq(0f32)?.to_dtype(DType::F32)?.min_all()?;
        return Ok(finite.to_scalar::<f32>()? == 1.0);
    }
    let (storage, layout) = x.storage_and_layout();
    // A strided tensor is walked in the order of its memory where it covers it without gaps, else copied.
    let covered = |values: &[f32]| {
        let start = layout.start_offset();
        values.get(start..start + x.elem_count()).map(all_finite)
    };
    if let candle_core::Storage::Cpu(storage) = &*storage
        && is_dense(layout)
        && let Some(finite) = covered(storage.as_slice::<f32>()?)
    {
        return Ok(finite);
    }
    drop(storage);
    Ok(all_finite(&x.flatten_all()?.to_vec1::<f32>()?))
}

/// Whether some order of the axes makes the tensor contiguous, so that its values are one stretch of memory.
fn is_dense(layout: &candle_core::Layout) -> bool {
    let mut axes: Vec<(usize, usize)> =
        layout.stride().iter().copied().zip(layout.dims().iter().copied()).filter(|(_, len)| *len > 1).collect();
    axes.sort_unstable();
    let mut expected = 1;
    axes.iter().all(|(stride, len)| {
        let fits = *stride == expected;
        expected *= len;
        fits
    })
}

#[cfg(test)]
mod tests;
