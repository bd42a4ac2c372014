//! What is needed of held-out images beside their cached features: their views, synthetic defects on them, and their luminance.

use candle_core::Tensor;
use image::{DynamicImage, RgbImage};
use masf_core::{Error, Fault, FeatureExtractor, Result, Scorer};
use masf_data::anomaly::{Anomalies, AnomalyKind, AnomalyParams};
use masf_data::{ImageInput, Limits, Preprocess};

use crate::orientations;
use crate::pipeline::{self, Looks, ViewScores};

/// The images that were learned from, to be read again where more than their cached features is needed.
pub(crate) struct HeldOut<'a> {
    pub(crate) images: &'a [ImageInput],
    pub(crate) preprocess: Preprocess,
    pub(crate) limits: Limits,
    pub(crate) backbone: &'a dyn FeatureExtractor,
    pub(crate) looks: Looks<'a>,
    /// Synthetic defects in all; 0 for none.
    pub(crate) defects: usize,
    pub(crate) seed: u64,
    /// The least number of scored images that the fusion can be learned from.
    pub(crate) least: usize,
    /// Goes on without images that can no longer be read.
    pub(crate) skip_bad: bool,
}

/// Most draws of a synthetic defect; of nearly all something is seen.
const TRIES: usize = 16;

/// Scores of an image with a synthetic defect.
pub(crate) struct DefectScores {
    pub(crate) scores: ViewScores,
    /// The indices of the defective pixels, ascending.
    pub(crate) inside: Vec<u32>,
}

impl HeldOut<'_> {
    /// Refuses fewer scored images than the fusion needs, before anything is learned.
    pub(crate) fn check_enough(&self, scored: usize) -> Result<()> {
        if scored >= self.least {
            return Ok(());
        }
        let found = format!("always, where {scored} images are held out");
        Err(Error::argument("fusion.position_aware", found, format!("at least {} of them, or auto", self.least)))
    }

    /// Whether what is wrong with an image is no reason to stop.
    pub(crate) fn may_skip(&self, error: &Error) -> bool {
        self.skip_bad && matches!(error.fault(), Fault::Io | Fault::Data)
    }

    /// Scores a held-out image, whose own pyramid is given, and what else is to be looked at. The inner error is of an image
    /// that is [skipped](Self::may_skip).
    pub(crate) fn score(
        &self,
        branches: &[Box<dyn Scorer>],
        index: usize,
        pyramid: &masf_core::FeaturePyramid,
    ) -> Result<Result<ViewScores>> {
        if self.looks.are_plain() {
            let first = pipeline::score(branches, pyramid)?;
            return Ok(Ok(ViewScores { first, others: Vec::new(), turned: Vec::new() }));
        }
        let image = match self.wanted(index) {
            Err(error) if self.may_skip(&error) => return Ok(Err(error)),
            image => image?,
        };
        let upright = self.looks.upright(&image)?;
        pipeline::score_looks(self.backbone, branches, self.looks, (&image, &upright), pyramid).map(Ok)
    }

    /// Scores the synthetic defects that fall to a held-out image, which is number `place` of `total` that are scored;
    /// `branches` did not learn from it.
    pub(crate) fn score_defects(
        &self,
        branches: &[Box<dyn Scorer>],
        index: usize,
        (place, total): (usize, usize),
    ) -> Result<Vec<DefectScores>> {
        let numbers = numbers(self.defects, place, total.max(1));
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let normal = match self.view(index) {
            Err(error) if self.may_skip(&error) => {
                tracing::warn!("bears no synthetic defects: {error}");
                return Ok(Vec::new());
            }
            normal => normal?,
        };
        let anomalies = Anomalies::new(AnomalyParams::default(), self.seed)?;
        let mut scored = Vec::with_capacity(numbers.len());
        for number in numbers {
            let source = match self.view((index + 1 + number) % self.images.len()) {
                Err(error) if self.may_skip(&error) => normal.clone(),
                source => source?,
            };
            let Some((image, inside)) = self.defect(&anomalies, number, &normal, &source)? else { continue };
            let mut image = self.preprocess.tensor_of_view(&image)?.unsqueeze(0)?;
            if self.looks.are_doubled() {
                // What the branches have learned from, at their own size.
                image = masf_data::disc(&image)?;
            }
            let pyramid = self.backbone.extract(&image.to_device(&self.backbone.device())?)?;
            let scores = pipeline::score_views(self.backbone, branches, self.looks.views, &image, &pyramid)?;
            scored.push(DefectScores { scores, inside });
        }
        Ok(scored)
    }

    /// An image with the defect of a number, and the indices of its pixels that are seen. A defect of which none is seen teaches
    /// nothing: another one of its kind takes its place.
    fn defect(
        &self,
        anomalies: &Anomalies,
        number: usize,
        normal: &RgbImage,
        source: &RgbImage,
    ) -> Result<Option<(RgbImage, Vec<u32>)>> {
        let seen = |pixel: usize| !self.looks.are_doubled() || orientations::is_seen(pixel, self.size());
        for attempt in 0..TRIES {
            // Numbers that no other defect has.
            let number = number + attempt * AnomalyKind::ALL.len() * self.defects;
            let made = anomalies.make(number, normal, source)?;
            let pixels = made.mask.into_pixels().into_iter().enumerate();
            let inside: Vec<u32> =
                pixels.filter(|(pixel, bad)| *bad && seen(*pixel)).map(|(pixel, _)| pixel as u32).collect();
            if !inside.is_empty() {
                return Ok(Some((made.image, inside)));
            }
        }
        Ok(None)
    }

    /// The luminance of an image as the network sees it, `[1, H, W]`.
    pub(crate) fn luminance(&self, index: usize) -> Result<Tensor> {
        self.backbone.normalisation().luminance(&self.looks.upright(&self.wanted(index)?)?)
    }

    /// Height and width of what the network sees.
    pub(crate) fn size(&self) -> (usize, usize) {
        let size = self.preprocess.size();
        (size.height as usize, size.width as usize)
    }

    /// An image at the size that the network sees, before normalisation.
    fn view(&self, index: usize) -> Result<RgbImage> {
        Ok(self.preprocess.view(&self.read(index)?)?)
    }

    /// An image as it is wanted to be looked at, `[1, 3, H, W]` or twice as large.
    fn wanted(&self, index: usize) -> Result<Tensor> {
        Ok(self.looks.tensor(&self.preprocess, &self.read(index)?)?.unsqueeze(0)?)
    }

    fn read(&self, index: usize) -> Result<DynamicImage> {
        let expected = || format!("less than {}", self.images.len());
        let image = self.images.get(index).ok_or_else(|| Error::argument("image", index, expected()))?;
        Ok(image.decode(&self.limits)?)
    }
}

/// The numbers of the defects on image `place` of `total`: all `defects` are spread evenly over the images.
fn numbers(defects: usize, place: usize, total: usize) -> Vec<usize> {
    let on = |number: usize| if defects <= total { number * total / defects } else { number % total };
    (0..defects).filter(|number| on(*number) == place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_defect_falls_to_one_image() {
        for (defects, total) in [(0, 5), (8, 100), (100, 8), (7, 7), (100, 1)] {
            let mut all: Vec<usize> = (0..total).flat_map(|place| numbers(defects, place, total)).collect();
            all.sort_unstable();
            assert_eq!(all, (0..defects).collect::<Vec<_>>());
            let most = (0..total).map(|place| numbers(defects, place, total).len()).max();
            assert!(most <= Some(defects.div_ceil(total)));
        }
    }
}
