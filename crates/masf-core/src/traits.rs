//! The traits of the parts.

use candle_core::{Device, Tensor};

use crate::{
    AnomalyMap, Artifact, CalibratedMap, Error, FeaturePyramid, LevelSpec, Progress, RealignedScores, Result, Scores,
    with_values,
};

/// A frozen network (or transform) that turns images into feature pyramids.
///
/// Extraction is deterministic, and the features of an image do not depend on the batch it came in or on the number of
/// threads, bit for bit.
pub trait FeatureExtractor: Artifact {
    /// The levels of its pyramids, finest first.
    fn levels(&self) -> &[LevelSpec];

    /// Per-channel mean and standard deviation that images are normalised with, for RGB in `[0, 1]`.
    fn normalisation(&self) -> Normalisation;

    /// A name for people and for messages, such as `resnet18`.
    fn name(&self) -> &str;

    /// The features of normalised images, `[B, 3, H, W]`, `f32`, on [`device`](Self::device).
    ///
    /// # Errors
    /// An image of another shape or below the smallest size, or features that are not finite.
    fn extract(&self, images: &Tensor) -> Result<FeaturePyramid>;

    /// Where it computes.
    fn device(&self) -> Device {
        Device::Cpu
    }

    /// Frees what [`extract`](Self::extract) can make again, such as packed weights: no features will be wanted for a while. By default nothing.
    fn release(&self) {}
}

impl<T: FeatureExtractor> From<T> for Box<dyn FeatureExtractor> {
    fn from(extractor: T) -> Self {
        Box::new(extractor)
    }
}

/// Mean and standard deviation per channel of RGB values in `[0, 1]`: the input of a network is `(x - mean) / std`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Normalisation {
    /// Mean of R, G, B.
    pub mean: [f32; 3],
    /// Standard deviation of R, G, B.
    pub std: [f32; 3],
}

impl Normalisation {
    /// The statistics of ImageNet, which most pretrained networks expect.
    pub const IMAGENET: Self = Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
    /// RGB to `[-1, 1]`.
    pub const SYMMETRIC: Self = Self { mean: [0.5; 3], std: [0.5; 3] };

    /// The brightness of normalised images: `[B, 3, H, W]` to `[B, H, W]`, `f32`, in `[0, 1]`, on the CPU; the luma of ITU-R BT.601.
    ///
    /// # Errors
    /// Images of another shape.
    pub fn luminance(&self, images: &Tensor) -> Result<Tensor> {
        const WEIGHTS: [f32; 3] = [0.299, 0.587, 0.114];
        let &[batch, 3, height, width] = images.dims() else {
            return Err(Error::data("images", format!("shape {:?}; expected [B, 3, H, W]", images.dims())));
        };
        let plane = (height * width).max(1);
        let mut luminance = vec![0f32; batch * height * width];
        with_values(images, |values| {
            for (out, image) in luminance.chunks_exact_mut(plane).zip(values.chunks_exact(3 * plane)) {
                for (channel, values) in image.chunks_exact(plane).enumerate() {
                    let (weight, mean, std) = (WEIGHTS[channel], self.mean[channel], self.std[channel]);
                    for (out, value) in out.iter_mut().zip(values) {
                        *out += weight * (value * std + mean);
                    }
                }
            }
        })?;
        Ok(Tensor::from_vec(luminance, (batch, height, width), &Device::Cpu)?)
    }
}

/// A fitted model of normality: scores the positions of a pyramid.
///
/// Scores of an image do not depend on the batch it came in or on the number of threads, bit for bit.
pub trait Scorer: Artifact {
    /// Scores a batch, whose maps are on the CPU wherever the backbone computes; larger is more anomalous.
    ///
    /// # Errors
    /// A pyramid without the levels that the scorer was fitted on, or with values that are not finite.
    fn score(&self, pyramid: &FeaturePyramid) -> Result<Scores>;
}

/// Learns a [`Scorer`] from the pyramids of normal images.
pub trait Fit {
    /// What is learned.
    type Scorer: Scorer;

    /// Learns from all items of `source`; the result depends on the items, their order and the configuration alone.
    ///
    /// # Errors
    /// Too few items, values that are not finite, or [`Error::Cancelled`].
    fn fit(&self, source: &dyn PyramidSource, progress: &dyn Progress) -> Result<Self::Scorer>;

    /// Whether learning takes so long that it should not be done for every fold: scores of unseen images, from which thresholds are set,
    /// then come from one part of the images alone, after learning from the rest.
    fn is_expensive(&self) -> bool {
        false
    }

    /// Learning from all items, and fold by fold from all items but those of a fold, where that is cheaper than [`fit`](Self::fit) for each;
    /// `None`, the default, where it is not. `fold_of` has the fold of every item, counted from 0. Fitting asks with no items first: `None` then
    /// means that it never is, while an error means nothing.
    ///
    /// # Errors
    /// Those of [`fit`](Self::fit), and [`Error::Argument`] where `fold_of` has another length than the source, or a fold is no less than that.
    fn cross_fit<'a>(
        &'a self,
        source: &'a dyn PyramidSource,
        fold_of: &[usize],
        progress: &dyn Progress,
    ) -> Result<Option<Box<dyn CrossFit<Self::Scorer> + 'a>>> {
        let _ = (source, fold_of, progress);
        Ok(None)
    }
}

/// What was learned from all items, and can be had without the items of any fold; made by [`Fit::cross_fit`].
pub trait CrossFit<S> {
    /// Learned from all items but those of a fold.
    ///
    /// # Errors
    /// No items left, or those of [`Fit::fit`].
    fn without(&self, fold: usize, progress: &dyn Progress) -> Result<S>;

    /// Learned from all items: what [`Fit::fit`] gives, bit for bit.
    ///
    /// # Errors
    /// Those of [`Fit::fit`].
    fn whole(self: Box<Self>, progress: &dyn Progress) -> Result<S>;
}

impl<'a, S: 'a> dyn CrossFit<S> + 'a {
    /// The same with something made of what was learned.
    pub fn map<T: 'a>(self: Box<Self>, make: impl Fn(S) -> T + 'a) -> Box<dyn CrossFit<T> + 'a> {
        struct Mapped<'a, S, F>(Box<dyn CrossFit<S> + 'a>, F);
        impl<S, T, F: Fn(S) -> T> CrossFit<T> for Mapped<'_, S, F> {
            fn without(&self, fold: usize, progress: &dyn Progress) -> Result<T> {
                Ok((self.1)(self.0.without(fold, progress)?))
            }

            fn whole(self: Box<Self>, progress: &dyn Progress) -> Result<T> {
                Ok((self.1)(self.0.whole(progress)?))
            }
        }
        Box::new(Mapped(self, make))
    }
}

/// Pyramids of single images that can be read again and again, in any order.
pub trait PyramidSource: Send + Sync {
    /// The number of images.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pyramids of some images as one batch, in the order of `indices`.
    ///
    /// # Errors
    /// [`Error::Argument`] for no indices or one out of range, [`Error::Io`] where a spilled item cannot be read.
    fn batch(&self, indices: &[usize]) -> Result<FeaturePyramid>;
}

/// A selection of another source's items, such as all but one fold.
pub struct Subset<'a> {
    source: &'a dyn PyramidSource,
    indices: Vec<usize>,
}

impl<'a> Subset<'a> {
    /// The items of `source` at `indices`, in that order.
    ///
    /// # Errors
    /// [`Error::Argument`] if an index is out of range.
    pub fn new(source: &'a dyn PyramidSource, indices: Vec<usize>) -> Result<Self> {
        if let Some(index) = indices.iter().find(|index| **index >= source.len()) {
            return Err(Error::argument("index", index, format!("less than the {} items of the source", source.len())));
        }
        Ok(Self { source, indices })
    }
}

impl PyramidSource for Subset<'_> {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn batch(&self, indices: &[usize]) -> Result<FeaturePyramid> {
        let mut mapped = Vec::with_capacity(indices.len());
        for &index in indices {
            let Some(&inner) = self.indices.get(index) else {
                return Err(Error::argument("index", index, format!("less than {}", self.len())));
            };
            mapped.push(inner);
        }
        self.source.batch(&mapped)
    }
}

/// Brings the scores of branches to a common scale and fuses them.
pub trait Fusion: Artifact {
    /// Maps raw scores of one view to the common scale, one calibrated map per score map, with zero variance.
    ///
    /// # Errors
    /// A score map that was not there when the fusion was fitted.
    fn calibrate(&self, scores: &Scores) -> Result<Vec<CalibratedMap>>;

    /// Fuses calibrated maps into one map of `size` `(height, width)` and one score an image.
    ///
    /// # Errors
    /// No maps, or maps of different batch sizes.
    fn fuse(&self, maps: &[CalibratedMap], size: (usize, usize)) -> Result<AnomalyMap>;

    /// Fits fused maps `[B, H, W]` to what can be seen. `luminance` makes that of the images, `[B, H, W]` ([`Normalisation::luminance`]), which may mean
    /// reading them. Image scores are those of the maps before. Changes nothing unless it is implemented.
    ///
    /// # Errors
    /// Those of `luminance`, and tensors of different shapes.
    fn refine(&self, maps: Tensor, luminance: &dyn Fn() -> Result<Tensor>) -> Result<Tensor> {
        let _ = luminance;
        Ok(maps)
    }
}

/// Slightly different views of an image: what is defective scores high in all of them.
///
/// The first view is the image itself. What is done to an image does not depend on the batch it comes in.
pub trait Views: Send + Sync {
    /// The views of normalised images `[B, 3, H, W]`, each of the same shape; the first are the images themselves.
    ///
    /// # Errors
    /// Images of another shape, or too small for a view.
    fn views(&self, images: &Tensor) -> Result<Vec<Tensor>>;

    /// Undoes on the score maps of a view what the view did to places; `input_size` is `(H, W)` of the images.
    ///
    /// # Errors
    /// A view that there is not, or maps whose grid does not follow from the input size.
    fn realign(&self, view: usize, scores: Scores, input_size: (usize, usize)) -> Result<RealignedScores>;
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    #[test]
    fn luminance_is_that_of_the_image_before_it_was_normalised() -> Result<()> {
        // Red, green, blue, white and a mixture, as Pillow's conversion to `L` weighs them.
        let pixels = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0; 3], [0.2, 0.4, 0.6f32]];
        let expected = [0.299, 0.587, 0.114, 1.0, 0.363];
        for normalisation in [Normalisation::IMAGENET, Normalisation::SYMMETRIC] {
            let Normalisation { mean, std } = normalisation;
            let plane = |channel: usize| pixels.map(|pixel| (pixel[channel] - mean[channel]) / std[channel]);
            let image = [plane(0), plane(1), plane(2)].concat();
            let images = Tensor::from_vec([image.clone(), image].concat(), (2, 3, 1, 5), &Device::Cpu)?;
            let luminance = normalisation.luminance(&images)?;
            assert_eq!(luminance.dims(), [2, 1, 5]);
            for (found, expected) in luminance.flatten_all()?.to_vec1::<f32>()?.iter().zip(expected.repeat(2)) {
                assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
            }
        }
        let wrong = Tensor::zeros((1, 1, 4, 4), DType::F32, &Device::Cpu)?;
        assert!(Normalisation::IMAGENET.luminance(&wrong).unwrap_err().to_string().contains("[B, 3, H, W]"));
        Ok(())
    }
}
