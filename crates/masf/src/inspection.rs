//! The verdict on one image.

use masf_data::Geometry;
use masf_fusion::{NormalisedScore, Threshold};
use masf_metrics::{BoundingBox, label_components};
use ndarray::{Array2, ArrayView2};

/// What a detector says of one image.
///
/// It serialises with serde, all but its two maps, which [`maps`](crate::maps) writes as files.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// The anomaly score of the image on the calibrated scale, or on that of a method that scores images in its own way (PatchCore with
    /// re-weighting); larger is more anomalous, without bound.
    pub image_score: f32,
    /// The same score in `[0, 1]`, with 0.5 at the threshold.
    pub normalised_score: NormalisedScore,
    /// The threshold that the verdict is based on.
    pub threshold: Threshold,
    /// Whether `image_score` lies above `threshold`.
    pub is_anomalous: bool,
    /// How uncertain the verdict is, in `[0, 1]`: about the probability that a score redrawn from its spread falls as far on either side of the
    /// threshold as this one; 1 at the threshold. See [`Detector::inspect`](crate::Detector::inspect).
    pub uncertainty: f32,
    /// The standard deviation of every pixel's score over views and branches, `[H, W]`, on the calibrated scale; zero where
    /// there is one score map and one view.
    #[serde(skip)]
    pub uncertainty_map: Array2<f32>,
    /// The anomaly score of every pixel of the model's input, `[H, W]`, on the calibrated scale.
    #[serde(skip)]
    pub anomaly_map: Array2<f32>,
    /// The threshold for single pixels.
    pub pixel_threshold: Threshold,
    /// The connected regions above `pixel_threshold`, the most anomalous first, in pixels of the image.
    pub regions: Vec<Region>,
    /// How the pixels of the image became those of the map.
    pub geometry: Geometry,
    /// How many bits of a 16-bit image count.
    #[serde(skip)]
    pub(crate) significant_bits: u8,
}

/// The standard deviation of the scores of normal images: the distance from the typical score to the threshold of a false-alarm rate
/// of 5 % is 1.645 of it.
pub(crate) fn normal_deviation(of_five_percent: &Threshold) -> f64 {
    f64::from(of_five_percent.value - of_five_percent.typical) / 1.645
}

/// The uncertainty of a verdict: `2 Phi(-|score - threshold| / sigma)` with the logistic approximation of the normal law `Phi`.
///
/// The variance `sigma^2` is that of the image score over views and maps, plus [that of normal images](normal_deviation).
pub(crate) fn verdict_uncertainty(score: f32, deviation: f32, threshold: &Threshold, normal: f64) -> f32 {
    let sigma = normal.hypot(f64::from(deviation)).max(f64::from(f32::MIN_POSITIVE));
    let distance = f64::from(score - threshold.value).abs() / sigma;
    (2.0 / (1.0 + (1.702 * distance).exp())) as f32
}

/// A connected region whose pixels lie above the pixel threshold; all places are in pixels of the inspected image.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Region {
    /// The first row.
    pub top: usize,
    /// The first column.
    pub left: usize,
    /// The number of rows.
    pub height: usize,
    /// The number of columns.
    pub width: usize,
    /// The area in pixels.
    pub area: f64,
    /// Row and column of the largest score.
    pub peak: (usize, usize),
    /// The largest score on the calibrated scale.
    pub peak_score: f32,
    /// The largest score in `[0, 1]`, with 0.5 at the pixel threshold.
    pub normalised_peak: NormalisedScore,
}

/// The connected regions of a map above a threshold, the most anomalous first.
///
/// # Errors
/// A map of more than `u32::MAX` pixels.
pub(crate) fn regions(
    map: ArrayView2<'_, f32>,
    threshold: &Threshold,
    geometry: &Geometry,
) -> Result<Vec<Region>, masf_metrics::Error> {
    if !map.iter().any(|score| threshold.is_exceeded_by(*score)) {
        return Ok(Vec::new());
    }
    let found = label_components(map.mapv(|score| threshold.is_exceeded_by(score)).view())?;
    let mut peaks = vec![((0, 0), f32::NEG_INFINITY); found.components.len()];
    for ((place, &label), &score) in found.labels.indexed_iter().zip(&map) {
        if let Some(peak) = (label as usize).checked_sub(1).and_then(|component| peaks.get_mut(component))
            && score > peak.1
        {
            *peak = (place, score);
        }
    }
    let mut regions: Vec<Region> = found
        .components
        .iter()
        .zip(peaks)
        .map(|(component, ((row, column), score))| {
            let BoundingBox { top, left, height, width } = component.bounding_box;
            let (top, left, bottom, right) = to_image_box(geometry, (top, left, top + height, left + width));
            let (row, column) = geometry.to_image(row as f64 + 0.5, column as f64 + 0.5);
            Region {
                top,
                left,
                height: bottom - top,
                width: right - left,
                area: component.area as f64 * pixel_area(geometry),
                peak: (row as usize, column as usize),
                peak_score: score,
                normalised_peak: threshold.normalise(score),
            }
        })
        .collect();
    regions.sort_by(|a, b| b.peak_score.total_cmp(&a.peak_score).then(a.peak.cmp(&b.peak)));
    Ok(regions)
}

/// A box `(top, left, bottom, right)` of the map as whole pixels of the image that contain it.
fn to_image_box(
    geometry: &Geometry,
    (top, left, bottom, right): (usize, usize, usize, usize),
) -> (usize, usize, usize, usize) {
    let (first_row, first_column) = geometry.to_image(top as f64, left as f64);
    let (last_row, last_column) = geometry.to_image(bottom as f64, right as f64);
    // Rounding errors must not add a row: 64.00000000001 is 64.
    let down = |place: f64| (place + 1e-6).floor().max(0.0) as usize;
    let up = |place: f64, limit: u32| ((place - 1e-6).ceil().max(1.0) as usize).min(limit as usize);
    (down(first_row), down(first_column), up(last_row, geometry.image.height), up(last_column, geometry.image.width))
}

/// Image pixels per pixel of the map.
fn pixel_area(geometry: &Geometry) -> f64 {
    let scale = |image: u32, resized: u32| f64::from(image) / f64::from(resized.max(1));
    scale(geometry.image.height, geometry.resized.height) * scale(geometry.image.width, geometry.resized.width)
}

#[cfg(test)]
mod tests {
    use masf_core::Normalisation;
    use masf_data::{Preprocess, Resize, Size};
    use masf_fusion::ThresholdSource;

    use super::*;

    const THRESHOLD: Threshold = Threshold { value: 1.0, typical: 0.0, source: ThresholdSource::Manual };

    fn map(places: &[(usize, usize, f32)]) -> Array2<f32> {
        let mut map = Array2::zeros((64, 64));
        for &(row, column, score) in places {
            map[(row, column)] = score;
        }
        map
    }

    #[test]
    fn regions_are_in_pixels_of_the_image() {
        let preprocess = Preprocess::new(Size::square(64), Normalisation::IMAGENET).unwrap();
        let geometry = preprocess.geometry(Size::new(128, 320)).unwrap();
        let map = map(&[(10, 20, 2.0), (11, 21, 3.0), (63, 63, 9.0), (5, 5, 1.0)]);
        let regions = regions(map.view(), &THRESHOLD, &geometry).unwrap();
        assert_eq!(regions.len(), 2, "a score at the threshold does not exceed it");
        let corner = regions[0];
        assert_eq!((corner.top, corner.left, corner.height, corner.width), (126, 315, 2, 5));
        assert_eq!((corner.peak, corner.peak_score, corner.area), ((127, 317), 9.0, 10.0));
        let middle = regions[1];
        assert_eq!((middle.top, middle.left, middle.height, middle.width), (20, 100, 4, 10));
        assert_eq!((middle.peak_score, middle.area), (3.0, 20.0));
    }

    #[test]
    fn verdicts_near_the_threshold_and_scores_that_vary_are_uncertain() {
        let of = |score, deviation| verdict_uncertainty(score, deviation, &THRESHOLD, normal_deviation(&THRESHOLD));
        assert_eq!(of(1.0, 0.0), 1.0);
        assert_eq!(of(0.5, 0.0), of(1.5, 0.0));
        assert!(of(0.9, 0.0) > of(0.5, 0.0) && of(5.0, 3.0) > of(5.0, 0.0));
        // The typical normal image lies 1.645 deviations away: 2 * 0.05, by the logistic approximation 0.115.
        assert!((of(0.0, 0.0) - 0.115).abs() < 0.002, "{}", of(0.0, 0.0));
        let spread = normal_deviation(&Threshold { typical: 1.0, ..THRESHOLD });
        assert_eq!(verdict_uncertainty(1.0, 0.0, &THRESHOLD, spread), 1.0);
        assert_eq!(verdict_uncertainty(2.0, 0.0, &THRESHOLD, spread), 0.0);
    }

    #[test]
    fn a_crop_moves_regions() {
        let preprocess = Preprocess::new(Size::square(64), Normalisation::IMAGENET).unwrap();
        let preprocess = preprocess.with_crop_from(Resize::Exact(Size::square(128))).unwrap();
        let geometry = preprocess.geometry(Size::square(256)).unwrap();
        let regions = regions(map(&[(0, 0, 2.0)]).view(), &THRESHOLD, &geometry).unwrap();
        assert_eq!((regions[0].top, regions[0].left, regions[0].height, regions[0].width), (64, 64, 2, 2));
    }

    #[test]
    fn small_images_keep_regions_inside() {
        let preprocess = Preprocess::new(Size::square(64), Normalisation::IMAGENET).unwrap();
        let geometry = preprocess.geometry(Size::new(3, 1)).unwrap();
        for region in regions(map(&[(0, 0, 2.0), (30, 31, 2.0), (63, 63, 2.0)]).view(), &THRESHOLD, &geometry).unwrap()
        {
            assert!(region.height >= 1 && region.top + region.height <= 3, "{region:?}");
            assert_eq!((region.left, region.width), (0, 1));
        }
    }
}
