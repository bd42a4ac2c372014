//! Detail of the fine scale in an anomaly map.
//!
//! A branch that scores several scales, `student.8` and `student.16` say, tells best on all of them together whether an image has a defect, and
//! on the finest one where: a coarse map spreads a small defect over its cells. So the high frequencies of the fine scale count for more in the map
//! than its weight in the score:
//!
//! `m' = m + gain (f - G f)`
//!
//! with `f` the mean of the fine maps (by their weights) and `G` a Gaussian as wide as a coarse cell.

use candle_core::{Device, Tensor};
use masf_core::{CalibratedMap, Result, values};

use crate::FusionError;
use crate::fusion::branch;

/// How much an anomaly map follows the finest maps of branches that have several scales; a gain of 0 turns it off.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FineScale {
    /// How much of it is added, 0 to 10.
    pub gain: f64,
    /// Standard deviation of the Gaussian that it is told from, in pixels of the model's input, above 0 and at most 1000.
    pub sigma: f64,
}

impl Default for FineScale {
    /// What is finer than a cell of stride 16.
    fn default() -> Self {
        Self { gain: 0.5, sigma: 16.0 }
    }
}

impl FineScale {
    /// None.
    pub const OFF: Self = Self { gain: 0.0, sigma: 16.0 };

    /// Whether it does anything.
    pub fn is_on(&self) -> bool {
        self.gain > 0.0
    }

    pub(crate) fn check(&self) -> Result<(), FusionError> {
        if !(0.0..=10.0).contains(&self.gain) {
            return Err(FusionError::parameter("fusion.fine_scale.gain", self.gain, "0 to 10"));
        }
        if !(self.sigma > 0.0 && self.sigma <= 1000.0) {
            return Err(FusionError::parameter(
                "fusion.fine_scale.sigma",
                self.sigma,
                "above 0 and at most 1000 pixels",
            ));
        }
        Ok(())
    }

    /// Adds the fine scale of image `index` of calibrated maps, which weigh `weights`, to its map. `smoothed` enlarges to the map's size, and smooths as the
    /// map is and by a further Gaussian.
    pub(crate) fn add_to(
        &self,
        map: &mut [f32],
        maps: &[CalibratedMap],
        weights: &[f64],
        index: usize,
        smoothed: &dyn Fn(&Tensor, f64) -> Result<Tensor>,
    ) -> Result<()> {
        let fine = if self.is_on() { fine_maps(maps)? } else { Vec::new() };
        let total: f64 = fine.iter().map(|place| weights[*place]).sum();
        if total <= 0.0 {
            return Ok(());
        }
        // Everything is linear: maps of one size are summed up before they are enlarged.
        let mut grids: Vec<((usize, usize), Vec<f32>)> = Vec::new();
        for place in fine {
            let scores = maps[place].mean.get(index)?;
            let share = (self.gain * weights[place] / total) as f32;
            let scaled = values(&scores)?.into_iter().map(|score| share * score);
            match grids.iter_mut().find(|(dims, _)| Some(*dims) == scores.dims2().ok()) {
                Some((_, sum)) => sum.iter_mut().zip(scaled).for_each(|(sum, score)| *sum += score),
                None => grids.push((scores.dims2()?, scaled.collect())),
            }
        }
        for (dims, sum) in grids {
            let sum = Tensor::from_vec(sum, dims, &Device::Cpu)?;
            let (narrow, wide) = (values(&smoothed(&sum, 0.0)?)?, values(&smoothed(&sum, self.sigma)?)?);
            for ((score, narrow), wide) in map.iter_mut().zip(narrow).zip(wide) {
                *score = (*score + (narrow - wide)).clamp(f32::MIN, f32::MAX);
            }
        }
        Ok(())
    }
}

/// The places of the maps with the most positions, of each branch that has maps of several sizes.
fn fine_maps(maps: &[CalibratedMap]) -> Result<Vec<usize>> {
    let positions = maps.iter().map(|map| Ok(map.mean.get(0)?.elem_count())).collect::<Result<Vec<usize>>>()?;
    let is_fine = |place: &usize| {
        let of_branch = || {
            let same = maps.iter().zip(&positions).filter(|(map, _)| branch(&map.name) == branch(&maps[*place].name));
            same.map(|(_, positions)| *positions)
        };
        of_branch().max() == Some(positions[*place]) && of_branch().min() < of_branch().max()
    };
    Ok((0..maps.len()).filter(is_fine).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::smoothing::Smoother;

    fn map(name: &str, side: usize, value: impl Fn(usize) -> f32) -> CalibratedMap {
        let values = (0..side * side).map(value).collect();
        let mean = Tensor::from_vec(values, (1, side, side), &Device::Cpu).unwrap();
        CalibratedMap { name: name.into(), variance: mean.zeros_like().unwrap(), mean }
    }

    const ON: FineScale = FineScale { gain: 0.5, sigma: 6.0 };
    const SIZE: (usize, usize) = (32, 32);

    fn added(fine: FineScale, maps: &[CalibratedMap], weights: &[f64]) -> Vec<f32> {
        let mut map = vec![0.0; SIZE.0 * SIZE.1];
        let smoothed = |sum: &Tensor, sigma| Smoother::new(sum.dims2()?, SIZE, 2f64.hypot(sigma))?.apply(sum);
        fine.add_to(&mut map, maps, weights, 0, &smoothed).unwrap();
        map
    }

    #[test]
    fn the_finest_maps_of_branches_with_several_scales_are_fine() {
        let flat = |name: &str, side| map(name, side, |_| 0.0);
        let maps =
            [flat("memory", 8), flat("student.8.raw", 8), flat("student.8.standardised", 8), flat("student.16.raw", 4)];
        assert_eq!(fine_maps(&maps).unwrap(), [1, 2]);
        assert!(fine_maps(&maps[..3]).unwrap().is_empty());
    }

    #[test]
    fn a_spot_of_the_fine_scale_stands_out_and_nothing_is_added_on_the_whole() {
        let spot = |place: usize| if place == 27 { 1.0 } else { 0.0 };
        let maps = [map("memory", 8, |_| 0.0), map("student.4", 8, spot), map("student.8", 4, |_| 3.0)];
        let found = added(ON, &maps, &[0.5, 0.25, 0.25]);
        // Row 3, column 3 of cells of 4 pixels.
        let at = |row: usize, column: usize| found[row * SIZE.1 + column];
        assert!(at(14, 14) > 0.1 && at(14, 24) < 0.0, "{} {}", at(14, 14), at(14, 24));
        assert!(found.iter().sum::<f32>().abs() < 0.02 * found.iter().map(|value| value.abs()).sum::<f32>());
        // The weight in the score does not matter unless it is none.
        assert_eq!(added(ON, &maps, &[0.98, 0.01, 0.01]), found);
        let nothing = vec![0.0; found.len()];
        assert_eq!(added(ON, &maps, &[1.0, 0.0, 0.0]), nothing);
        assert_eq!(added(FineScale::OFF, &maps, &[0.5, 0.25, 0.25]), nothing);
        assert_eq!(added(ON, &maps[..2], &[0.5, 0.5]), nothing);
    }

    proptest! {
        /// Against the obvious: every map enlarged and smoothed by itself, then the mean.
        #[test]
        fn maps_may_be_summed_first(seed in 0usize..1000, weight in 0.1f64..0.9) {
            let noise = |salt: usize| move |place: usize| ((place * 7919 + seed * 31 + salt) % 101) as f32 / 101.0;
            let maps = [map("student.4.a", 8, noise(1)), map("student.4.b", 8, noise(2)), map("student.8.a", 4, noise(3))];
            let weights = [0.5 * weight, 0.5 - 0.5 * weight, 0.5];
            let smoothed = |map: &CalibratedMap, sigma: f64| {
                let grid = map.mean.get(0).unwrap();
                values(&Smoother::new((8, 8), SIZE, sigma).unwrap().apply(&grid).unwrap()).unwrap()
            };
            let high = |map| {
                let (narrow, wide) = (smoothed(map, 2.0), smoothed(map, 40f64.sqrt()));
                narrow.into_iter().zip(wide).map(|(narrow, wide)| f64::from(narrow - wide)).collect::<Vec<_>>()
            };
            let (a, b) = (high(&maps[0]), high(&maps[1]));
            for ((found, a), b) in added(ON, &maps, &weights).into_iter().zip(a).zip(b) {
                let expected = ON.gain * (weight * a + (1.0 - weight) * b);
                prop_assert!((f64::from(found) - expected).abs() < 1e-5, "{found} {expected}");
            }
        }
    }
}
