//! Pixel metrics over a test set, from anomaly maps and masks that are given one at a time.

use ndarray::ArrayView2;

use crate::components::label_components;
use crate::curve::{PrecisionRecallPoint, RocPoint};
use crate::error::{Error, Result};
use crate::ranking::{F1Max, Ranking};
use crate::sweep::{key_of, pack};

/// Gathers the pixels of a test set, map by map; [`finish`](Self::finish) ranks them.
///
/// Keeps 4 bytes for a normal pixel and 8 for an anomalous one; maps and masks are not kept. Maps may differ in shape.
///
/// ```
/// # use masf_metrics::{AUPRO_FPR_LIMIT, PixelEvaluator};
/// # use ndarray::array;
/// let mut evaluator = PixelEvaluator::new();
/// evaluator.add(array![[0.8, 0.3], [0.1, 0.5]].view(), Some(array![[true, false], [false, false]].view()))?;
/// evaluator.add(array![[0.9, 0.2]].view(), None)?; // a good image
/// let pixels = evaluator.finish()?;
/// assert_eq!(pixels.regions(), 1);
/// assert_eq!(pixels.auroc(), 0.8); // one normal pixel of five scores higher than the defect
/// assert!(pixels.aupro(AUPRO_FPR_LIMIT)? < 0.8);
/// # Ok::<(), masf_metrics::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct PixelEvaluator {
    normal: Vec<u32>,
    anomalous: Vec<u64>,
    region_areas: Vec<usize>,
    images: usize,
}

impl PixelEvaluator {
    /// An evaluator without images.
    pub fn new() -> Self {
        Self::default()
    }

    /// An evaluator with room for this many normal pixels (the number of all pixels is a good guess), which avoids
    /// copies and spare room while it grows. It is a hint: without that much memory it starts empty.
    pub fn with_capacity(normal_pixels: usize) -> Self {
        let mut evaluator = Self::default();
        let _ = evaluator.normal.try_reserve_exact(normal_pixels);
        evaluator
    }

    /// Adds the anomaly map of one image, `[H, W]`, higher being more anomalous.
    ///
    /// `mask`, `[H, W]`, is true where the image is defective; each of its 8-connected components is one region of the
    /// PRO metrics. `None` says that the image is good. Leave out a defective image whose mask is unknown.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyMap`], [`Error::ShapeMismatch`], [`Error::NonFinitePixel`], and [`Error::TooMany`] beyond
    /// `u32::MAX` regions or pixels of one mask. The evaluator is then as if the image had not been given.
    pub fn add(&mut self, map: ArrayView2<'_, f32>, mask: Option<ArrayView2<'_, bool>>) -> Result<()> {
        self.check(map, mask)?;
        match mask {
            None => self.normal.extend(map.iter().map(|&score| key_of(score))),
            Some(mask) => self.add_masked(map, mask)?,
        }
        self.images += 1;
        Ok(())
    }

    fn check(&self, map: ArrayView2<'_, f32>, mask: Option<ArrayView2<'_, bool>>) -> Result<()> {
        let image = self.images;
        if map.is_empty() {
            return Err(Error::EmptyMap { image });
        }
        if let Some(mask) = mask.filter(|mask| mask.dim() != map.dim()) {
            return Err(Error::ShapeMismatch { image, map: map.dim().into(), mask: mask.dim().into() });
        }
        match map.indexed_iter().find(|(_, score)| !score.is_finite()) {
            Some(((row, column), &value)) => Err(Error::NonFinitePixel { image, row, column, value }),
            None => Ok(()),
        }
    }

    fn add_masked(&mut self, map: ArrayView2<'_, f32>, mask: ArrayView2<'_, bool>) -> Result<()> {
        let found = label_components(mask)?;
        let count = self.region_areas.len() + found.components.len();
        if u32::try_from(count).is_err() {
            return Err(Error::TooMany { count, items: "regions" });
        }
        let first = self.region_areas.len() as u32;
        self.region_areas.extend(found.components.iter().map(|component| component.area));
        for (&score, &label) in map.iter().zip(&found.labels) {
            match label.checked_sub(1) {
                None => self.normal.push(key_of(score)),
                Some(region) => self.anomalous.push(pack(key_of(score), first + region)),
            }
        }
        Ok(())
    }

    /// Numbers the images from `image` on, for errors about one image of many.
    pub(crate) fn numbered_from(image: usize) -> Self {
        Self { images: image, ..Self::default() }
    }

    /// The number of images added.
    pub fn images(&self) -> usize {
        self.images
    }

    /// The number of defect regions added.
    pub fn regions(&self) -> usize {
        self.region_areas.len()
    }

    /// Ranks the pixels of all images, on rayon's threads, in place.
    ///
    /// # Errors
    ///
    /// [`Error::Empty`] without an image, [`Error::NoRegions`] where no mask marks a pixel, [`Error::OneClass`] where
    /// all pixels are anomalous.
    pub fn finish(self) -> Result<PixelRanking> {
        if self.anomalous.is_empty() && !self.normal.is_empty() {
            return Err(Error::NoRegions { images: self.images });
        }
        let ranking = Ranking::from_keys(self.normal, self.anomalous, "pixels")?;
        Ok(PixelRanking { ranking, region_areas: self.region_areas })
    }
}

/// The pixels of a test set in the order of their scores: each metric is one linear pass.
///
/// Made by [`PixelEvaluator::finish`]. The metrics are those of [`Ranking`], and the per-region overlap.
#[derive(Debug, Clone)]
pub struct PixelRanking {
    ranking: Ranking,
    region_areas: Vec<usize>,
}

impl PixelRanking {
    /// Pixel AUROC, in `[0, 1]`; see [`Ranking::auroc`].
    pub fn auroc(&self) -> f64 {
        self.ranking.auroc()
    }

    /// Pixel average precision, in `(0, 1]`; see [`Ranking::average_precision`].
    pub fn average_precision(&self) -> f64 {
        self.ranking.average_precision()
    }

    /// The largest pixel F1 and its threshold; see [`Ranking::f1_max`].
    pub fn f1_max(&self) -> F1Max {
        self.ranking.f1_max()
    }

    /// The ROC curve of the pixels; see [`Ranking::roc_curve`]. Without `max_points` it has a point for every distinct
    /// score, which takes 24 bytes.
    pub fn roc_curve(&self, max_points: Option<usize>) -> Vec<RocPoint> {
        self.ranking.roc_curve(max_points)
    }

    /// The precision-recall curve of the pixels; see [`Ranking::precision_recall_curve`].
    pub fn precision_recall_curve(&self, max_points: Option<usize>) -> Vec<PrecisionRecallPoint> {
        self.ranking.precision_recall_curve(max_points)
    }

    /// The number of normal pixels, at least 1.
    pub fn normal_pixels(&self) -> usize {
        self.ranking.normal()
    }

    /// The number of anomalous pixels, at least 1.
    pub fn anomalous_pixels(&self) -> usize {
        self.ranking.anomalous()
    }

    /// The number of defect regions, at least 1.
    pub fn regions(&self) -> usize {
        self.region_areas.len()
    }

    pub(crate) fn ranking(&self) -> &Ranking {
        &self.ranking
    }

    pub(crate) fn region_areas(&self) -> &[usize] {
        &self.region_areas
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;
    use crate::error::Class;

    #[test]
    fn bad_images_are_named_and_leave_no_trace() {
        let mut evaluator = PixelEvaluator::with_capacity(usize::MAX);
        evaluator.add(array![[0.1, 0.2]].view(), None).unwrap();
        let map = array![[0.5f32, 0.6], [0.7, 0.8]];
        let mut add =
            |map: &Array2<f32>, mask: Option<&Array2<bool>>| evaluator.add(map.view(), mask.map(|m| m.view()));

        let turned = Array2::from_elem((4, 1), true);
        assert_eq!(add(&map, Some(&turned)), Err(Error::ShapeMismatch { image: 1, map: [2, 2], mask: [4, 1] }));
        assert_eq!(add(&Array2::zeros((0, 3)), None), Err(Error::EmptyMap { image: 1 }));
        let mut infinite = map.clone();
        infinite[[1, 0]] = f32::INFINITY;
        assert_eq!(
            add(&infinite, Some(&Array2::from_elem((2, 2), true))),
            Err(Error::NonFinitePixel { image: 1, row: 1, column: 0, value: f32::INFINITY })
        );
        infinite[[0, 1]] = f32::NAN;
        assert!(matches!(add(&infinite, None), Err(Error::NonFinitePixel { row: 0, column: 1, .. })));

        add(&map, Some(&array![[true, false], [false, false]])).unwrap();
        assert_eq!((evaluator.images(), evaluator.regions()), (2, 1));
        let pixels = evaluator.finish().unwrap();
        assert_eq!((pixels.normal_pixels(), pixels.anomalous_pixels(), pixels.regions()), (5, 1, 1));
    }

    #[test]
    fn sets_on_which_pixel_metrics_are_undefined() {
        assert_eq!(PixelEvaluator::new().finish().unwrap_err(), Error::Empty { items: "pixels" });

        let map = array![[0.1, 0.2]];
        let mut good = PixelEvaluator::new();
        good.add(map.view(), None).unwrap();
        good.add(map.view(), Some(array![[false, false]].view())).unwrap();
        assert_eq!(good.finish().unwrap_err(), Error::NoRegions { images: 2 });

        let mut covered = PixelEvaluator::new();
        covered.add(map.view(), Some(array![[true, true]].view())).unwrap();
        assert_eq!(
            covered.finish().unwrap_err(),
            Error::OneClass { count: 2, items: "pixels", class: Class::Anomalous }
        );
    }

    #[test]
    fn maps_of_any_shape_and_layout() {
        let map = array![[0.1f32, 0.9, 0.3], [0.4, 0.5, 0.6]];
        let mask = array![[false, true, false], [false, false, true]];
        let mut upright = PixelEvaluator::new();
        upright.add(map.view(), Some(mask.view())).unwrap();
        upright.add(array![[0.7]].view(), None).unwrap();
        let mut turned = PixelEvaluator::new();
        turned.add(array![[0.7]].view(), None).unwrap();
        turned.add(map.t(), Some(mask.t())).unwrap();
        let (upright, turned) = (upright.finish().unwrap(), turned.finish().unwrap());
        assert_eq!(upright.auroc(), turned.auroc());
        assert_eq!(upright.roc_curve(None), turned.roc_curve(None));
    }
}
