//! Learning weights and the units of the gate from calibrated maps of normal images and of synthetic defects.

use masf_core::{CalibratedMap, Result};

use crate::fusion::{CalibratedFusion, maps_of_branch};
use crate::gate::{Layer, UnitCollector};
use crate::precision::{MapPrecision, auroc, log_variance, unexplained, weights};
use crate::{FusionError, Weights};

/// Pixels taken of a normal image; of the mask of a defect up to twice as many.
const PIXELS: usize = 512;

/// The calibrated maps of a normal image with a synthetic defect.
#[derive(Debug, Clone)]
pub struct DefectMaps {
    /// The maps, of a batch of one, as those of normal images.
    pub maps: Vec<CalibratedMap>,
    /// The indices of the defective pixels at the size of the model's input, row-major, ascending.
    pub inside: Vec<u32>,
}

/// What is gathered of one score map.
#[derive(Default)]
struct Evidence {
    normal_images: Vec<f32>,
    defect_images: Vec<f32>,
    normal_pixels: Vec<f32>,
    defect_pixels: Vec<f32>,
}

impl CalibratedFusion {
    /// Whether [`learn`](Self::learn) would have any use for synthetic defects: weights are to be learned, and of several maps.
    pub fn needs_defects(&self) -> bool {
        self.params().weights == Weights::Learned && self.maps() > 1
    }

    /// Whether [`learn`](Self::learn) would change anything.
    pub fn needs_learning(&self) -> bool {
        self.needs_defects() || (self.params().gate.is_on() && self.maps() > 1)
    }

    /// Learns the weights of the maps and the units of the gate, as far as the settings ask for them.
    ///
    /// `normals` holds the calibrated maps of held-out normal images (batches of one, averaged over the views if there are
    /// any), `defects` those of images with synthetic defects; `size` is the `(height, width)` of the model's input. A single
    /// map has nothing to be weighed against: nothing is learned.
    ///
    /// # Errors
    /// No normal images, other maps than the calibration knows, or, for learned weights, fewer than 8 defects or a defective pixel
    /// outside the input.
    pub fn learn(
        mut self,
        normals: &[Vec<CalibratedMap>],
        defects: &[DefectMaps],
        size: (usize, usize),
    ) -> Result<Self> {
        if !self.needs_learning() {
            return Ok(self);
        }
        if normals.is_empty() {
            return Err(FusionError::TooFewImages { found: 0, needed: 1 }.into());
        }
        if self.needs_defects() {
            let precisions = self.measure(normals, defects, size)?;
            self.set_precisions(precisions);
        }
        if self.params().gate.is_on() {
            let mut units = UnitCollector::new(self.maps());
            let pixels = spread(size);
            for maps in normals {
                units.add(&self.layers(maps, size)?, &self.weights(), &pixels);
            }
            self.set_units(units.finish());
        }
        Ok(self)
    }

    fn measure(
        &self,
        normals: &[Vec<CalibratedMap>],
        defects: &[DefectMaps],
        size: (usize, usize),
    ) -> Result<Vec<MapPrecision>> {
        if defects.len() < 8 {
            return Err(FusionError::TooFewDefects { found: defects.len(), needed: 8 }.into());
        }
        let pixels = size.0 * size.1;
        if let Some(wrong) = defects.iter().flat_map(|defect| &defect.inside).find(|pixel| **pixel as usize >= pixels) {
            return Err(FusionError::parameter("pixel of a synthetic defect", wrong, "an index in the input").into());
        }
        let mut evidence: Vec<Evidence> = (0..self.maps()).map(|_| Evidence::default()).collect();
        let pixels = spread(size);
        for maps in normals {
            for (layer, evidence) in self.layers(maps, size)?.iter().zip(&mut evidence) {
                evidence.normal_images.push(self.read_image_score(&layer.mean));
                evidence.normal_pixels.extend(pixels.iter().filter_map(|pixel| layer.mean.get(*pixel)));
            }
        }
        for defect in defects {
            let step = (defect.inside.len() / PIXELS).max(1);
            for (layer, evidence) in self.layers(&defect.maps, size)?.iter().zip(&mut evidence) {
                evidence.defect_images.push(self.read_image_score(&layer.mean));
                let chosen = defect.inside.iter().step_by(step).filter_map(|pixel| layer.mean.get(*pixel as usize));
                evidence.defect_pixels.extend(chosen);
            }
        }
        let separations: Vec<(f64, f64)> = evidence
            .iter()
            .map(|evidence| {
                let Evidence { normal_images, defect_images, normal_pixels, defect_pixels } = evidence;
                (auroc(defect_images, normal_images), auroc(defect_pixels, normal_pixels))
            })
            .collect();
        let log_variances: Vec<f64> = separations
            .iter()
            .map(|(image, pixel)| log_variance(unexplained(image.min(*pixel), defects.len())))
            .collect();
        let names: Vec<&str> = self.names().collect();
        let found = weights(&log_variances, &maps_of_branch(&names));
        let precisions = self.names().zip(separations).zip(log_variances).zip(found);
        Ok(precisions
            .map(|(((name, (image_auroc, pixel_auroc)), log_variance), weight)| MapPrecision {
                name: name.to_owned(),
                image_auroc,
                pixel_auroc,
                log_variance,
                weight,
            })
            .collect())
    }

    /// The maps of one image, resized and smoothed.
    fn layers(&self, maps: &[CalibratedMap], size: (usize, usize)) -> Result<Vec<Layer>> {
        self.check_maps(maps)?;
        self.layers_of_image(maps, 0, size)
    }
}

/// At most [`PIXELS`] pixels, row after row, the columns by multiples of the golden ratio: even along both axes at any size.
fn spread((height, width): (usize, usize)) -> Vec<usize> {
    let count = PIXELS.min(height * width);
    let column = |index: usize| ((index as f64 * 0.618_033_988_749_895).fract() * width as f64) as usize;
    (0..count).map(|index| index * height / count * width + column(index).min(width - 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_taken_from_all_parts_of_an_image() {
        for (height, width) in [(256, 256), (512, 512), (1024, 1024), (2048, 2048), (512, 1024), (640, 256)] {
            let mut quadrants = [0; 4];
            for pixel in spread((height, width)) {
                let (row, column) = (pixel / width, pixel % width);
                quadrants[2 * (2 * row / height) + 2 * column / width] += 1;
            }
            assert!(quadrants.iter().all(|count| (100..160).contains(count)), "{height}x{width}: {quadrants:?}");
        }
        assert_eq!((spread((1, 1)), spread((3, 1))), (vec![0], vec![0, 1, 2]));
    }
}
