//! The per-region overlap (PRO) curve and the area under it, AUPRO.
//!
//! Bergmann, Batzner, Fauser, Sattlegger and Steger, "The MVTec Anomaly Detection Dataset", IJCV 129, 2021: at each
//! threshold, the part of a ground-truth region that is found, averaged over all regions of the test set, so that small
//! defects count as much as large ones; against the false-positive rate over all normal pixels of the test set.

use ndarray::ArrayView2;

use crate::curve::{ProPoint, Thinning};
use crate::error::{Error, Result};
use crate::pixel::{PixelEvaluator, PixelRanking};
use crate::sweep::region_of;

/// The customary limit of the false-positive rate up to which AUPRO is integrated.
pub const AUPRO_FPR_LIMIT: f64 = 0.3;

/// A whole region in fixed-point overlap. Integer sums do not depend on their order, so neither do the metrics on the
/// order of the images. A region of `a` pixels is off by at most `a / 2^80`, and 2^32 regions still fit.
const WHOLE: u128 = 1 << 80;

impl PixelRanking {
    /// Area under the PRO curve up to the false-positive rate `fpr_limit`, divided by it, in `[0, 1]`.
    ///
    /// Trapezoids between all distinct scores from (0, 0) on, interpolated linearly at the limit.
    /// [`AUPRO_FPR_LIMIT`] is the customary limit.
    ///
    /// # Errors
    ///
    /// [`Error::FprLimit`] unless `0 < fpr_limit <= 1`.
    pub fn aupro(&self, fpr_limit: f64) -> Result<f64> {
        check_limit(fpr_limit)?;
        let (mut area, mut rate, mut overlap) = (0.0, 0.0, 0.0);
        for point in self.pro_points() {
            let gained = point.false_positive_rate - rate;
            if point.false_positive_rate >= fpr_limit {
                let left = fpr_limit - rate;
                let at_limit = overlap + (point.overlap - overlap) * (left / gained);
                area += left * (overlap + at_limit) / 2.0;
                break;
            }
            area += gained * (overlap + point.overlap) / 2.0;
            (rate, overlap) = (point.false_positive_rate, point.overlap);
        }
        Ok((area / fpr_limit).min(1.0))
    }

    /// The PRO curve from (0, 0) to (1, 1), highest threshold first, a point for each distinct score.
    ///
    /// With `max_points` (at least 2 are returned), points are left out for a plot: each one left out is within
    /// `2 / (max_points - 2)` of a kept one in the sum of rate and overlap.
    pub fn pro_curve(&self, max_points: Option<usize>) -> Vec<ProPoint> {
        let mut thinning = Thinning::new(2.0, max_points);
        let mut points = vec![ProPoint { threshold: f32::INFINITY, false_positive_rate: 0.0, overlap: 0.0 }];
        let mut steps = self.pro_points().peekable();
        while let Some(point) = steps.next() {
            if steps.peek().is_none() || thinning.keeps(point.false_positive_rate + point.overlap) {
                points.push(point);
            }
        }
        points
    }

    /// All points of the curve after (0, 0).
    fn pro_points(&self) -> impl Iterator<Item = ProPoint> + '_ {
        let sorted = self.ranking().sorted();
        let shares: Vec<u128> = self.region_areas().iter().map(|&area| WHOLE / area as u128).collect();
        let whole = WHOLE as f64 * shares.len() as f64;
        let normals = sorted.normal() as f64;
        let (mut sum, mut overlap) = (0u128, 0.0);
        sorted.sweep().map(move |step| {
            if !step.anomalous.is_empty() {
                sum += step.anomalous.iter().map(|&pixel| shares[region_of(pixel)]).sum::<u128>();
                overlap = sum as f64 / whole;
            }
            ProPoint { threshold: step.threshold, false_positive_rate: step.false_positives as f64 / normals, overlap }
        })
    }
}

/// AUPRO of each defective image against its own normal pixels, averaged over the images: the protocol of RD4AD (Deng
/// and Li, CVPR 2022) and of works compared with it.
///
/// It is another metric than [`PixelRanking::aupro`]: good images do not enter, each image has thresholds of its own,
/// and an image with one region weighs as much as one with ten. Its figures must not be compared with those of AUPRO
/// over a set. Published ones come from 200 thresholds an image and a false-positive rate rescaled by the largest
/// reached below the limit; here every distinct score is a threshold and the limit is met by interpolation, so the
/// last digits differ.
///
/// `images` gives map and mask of each, both `[H, W]`; those whose mask marks nothing are passed over.
///
/// # Errors
///
/// [`Error::FprLimit`] unless `0 < fpr_limit <= 1`; [`Error::NoRegions`] where no mask marks a pixel;
/// [`Error::NoNormalPixels`] where a mask covers its image; and those of [`PixelEvaluator::add`]. They number the images
/// from 0, those passed over included.
pub fn mean_image_aupro<'a>(
    images: impl IntoIterator<Item = (ArrayView2<'a, f32>, ArrayView2<'a, bool>)>,
    fpr_limit: f64,
) -> Result<f64> {
    check_limit(fpr_limit)?;
    let (mut values, mut given) = (Vec::new(), 0);
    for (image, (map, mask)) in images.into_iter().enumerate() {
        let mut evaluator = PixelEvaluator::numbered_from(image);
        evaluator.add(map, Some(mask))?;
        given = image + 1;
        if evaluator.regions() == 0 {
            continue;
        }
        let pixels = evaluator.finish().map_err(|error| match error {
            Error::OneClass { .. } => Error::NoNormalPixels { image },
            other => other,
        })?;
        values.push(pixels.aupro(fpr_limit)?);
    }
    if values.is_empty() {
        return Err(Error::NoRegions { images: given });
    }
    // The same bits for any order of the images.
    values.sort_by(f64::total_cmp);
    Ok(values.iter().sum::<f64>() / values.len() as f64)
}

fn check_limit(limit: f64) -> Result<()> {
    if limit > 0.0 && limit <= 1.0 { Ok(()) } else { Err(Error::FprLimit { limit }) }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    fn ranked(images: &[(Array2<f32>, Option<Array2<bool>>)]) -> PixelRanking {
        let mut evaluator = PixelEvaluator::new();
        for (map, mask) in images {
            evaluator.add(map.view(), mask.as_ref().map(|mask| mask.view())).unwrap();
        }
        evaluator.finish().unwrap()
    }

    #[test]
    fn regions_weigh_the_same_whatever_their_size() {
        // The small region is found first: half of the mean overlap, though one pixel of four.
        let map = array![[0.9f32, 0.0, 0.5, 0.5, 0.5]];
        let mask = array![[true, false, true, true, true]];
        let curve = ranked(&[(map, Some(mask))]).pro_curve(None);
        let points: Vec<_> = curve.iter().map(|p| (p.threshold, p.false_positive_rate, p.overlap)).collect();
        assert_eq!(points, [(f32::INFINITY, 0.0, 0.0), (0.9, 0.0, 0.5), (0.5, 0.0, 1.0), (0.0, 1.0, 1.0)]);
    }

    #[test]
    fn interpolates_at_the_limit() {
        // All scores tie: the curve is the diagonal, and the mean height up to a limit is half the limit.
        let pixels = ranked(&[(array![[1.0, 1.0]], Some(array![[true, false]]))]);
        for limit in [1e-9, 0.05, 0.3, 1.0] {
            assert!((pixels.aupro(limit).unwrap() - limit / 2.0).abs() < 1e-15, "{limit}");
        }
    }

    #[test]
    fn best_and_worst() {
        let mask = array![[true, false, false]];
        assert_eq!(ranked(&[(array![[3.0, 2.0, 1.0]], Some(mask.clone()))]).aupro(0.3), Ok(1.0));
        assert_eq!(ranked(&[(array![[1.0, 2.0, 3.0]], Some(mask))]).aupro(0.3), Ok(0.0));
    }

    #[test]
    fn false_positives_count_over_the_whole_set() {
        let defective = (array![[0.5f32, 0.7]], Some(array![[true, false]]));
        let good = (array![[0.1f32, 0.2, 0.3, 0.4, 0.1, 0.2, 0.3, 0.4, 0.1]], None);
        // Alone, the only normal pixel scores higher; in the set it is one of ten: overlap 1 from a rate of 0.1 on.
        assert_eq!(ranked(std::slice::from_ref(&defective)).aupro(0.3), Ok(0.0));
        let together = ranked(&[defective, good]).aupro(0.3).unwrap();
        assert!((together - 2.0 / 3.0).abs() < 1e-15, "{together}");
    }

    #[test]
    fn bad_limits_are_refused() {
        let pixels = ranked(&[(array![[1.0, 2.0]], Some(array![[true, false]]))]);
        for limit in [0.0, -0.1, 1.1, f64::INFINITY] {
            assert_eq!(pixels.aupro(limit), Err(Error::FprLimit { limit }));
            assert_eq!(mean_image_aupro([], limit), Err(Error::FprLimit { limit }));
        }
        assert!(matches!(pixels.aupro(f64::NAN), Err(Error::FprLimit { .. })));
    }

    #[test]
    fn mean_over_images() {
        let images = [
            (array![[3.0f32, 1.0]], array![[true, false]]),
            (array![[1.0f32, 2.0]], array![[false, false]]),
            (array![[1.0f32, 3.0]], array![[true, false]]),
        ];
        let views = || images.iter().map(|(map, mask)| (map.view(), mask.view()));
        assert_eq!(mean_image_aupro(views(), 0.3), Ok(0.5));
        assert_eq!(mean_image_aupro(views().skip(1).take(1), 0.3), Err(Error::NoRegions { images: 1 }));
        let (map, mask) = (array![[1.0f32, f32::NAN]], array![[true, true]]);
        let with_nan = views().chain([(map.view(), mask.view())]);
        assert!(matches!(mean_image_aupro(with_nan, 0.3), Err(Error::NonFinitePixel { image: 3, column: 1, .. })));
        let covered = views().chain([(images[0].0.view(), mask.view())]);
        assert_eq!(mean_image_aupro(covered, 0.3), Err(Error::NoNormalPixels { image: 3 }));
    }
}
