//! One anomaly map and one image score from several calibrated maps.

use std::cmp::Ordering;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use masf_core::{
    AnomalyMap, Artifact, ArtifactReader, ArtifactWriter, CalibratedMap, Error, Fusion, Result, ScoreMap, Scores,
    values, with_values,
};
use rayon::prelude::*;

use crate::gate::{GateUnits, Layer, blend};
use crate::params::{FusionParams, FusionValidParams, ImageScore};
use crate::position::PositionScales;
use crate::smoothing::{Smoother, Smoothers};
use crate::{Calibration, Detail, FineScale, FusionError, MapPrecision, Weights};

impl FusionValidParams {
    /// Learns the scales of all score maps from the scores of held-out normal images.
    ///
    /// Weights and the gate are learned afterwards, from calibrated maps: [`CalibratedFusion::learn`]. Until then branches have their
    /// stated shares, or weigh alike, and there is no gate.
    ///
    /// # Errors
    /// No scores, scores without maps or with different ones, or scores that are not finite.
    pub fn fit(&self, normals: &[Scores]) -> Result<CalibratedFusion, FusionError> {
        let Some(first) = normals.first() else {
            return Err(FusionError::TooFewImages { found: 0, needed: 1 });
        };
        let expected = names(&first.maps);
        if expected.is_empty() {
            return Err(FusionError::NoMaps);
        }
        let mut columns: Vec<Vec<&ScoreMap>> = vec![Vec::with_capacity(normals.len()); expected.len()];
        for scores in normals {
            let found = names(&scores.maps);
            if found != expected {
                return Err(FusionError::Maps { found, expected });
            }
            for (column, map) in columns.iter_mut().zip(&scores.maps) {
                column.push(map);
            }
        }
        let FusionParams { upper_quantile, position_aware, .. } = self.0;
        let calibrations = columns
            .iter()
            .map(|maps| Calibration::fit_at_positions(maps, upper_quantile, position_aware))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(CalibratedFusion {
            params: self.0.clone(),
            calibrations,
            precisions: None,
            units: None,
            smoothers: Smoothers::default(),
        })
    }
}

fn names(maps: &[ScoreMap]) -> Vec<String> {
    maps.iter().map(|map| map.name.clone()).collect()
}

/// The weighted mean of calibrated maps, resized, smoothed, gated by doubt, and summed up in an image score.
#[derive(Debug, Clone, PartialEq)]
pub struct CalibratedFusion {
    params: FusionParams,
    calibrations: Vec<Calibration>,
    precisions: Option<Vec<MapPrecision>>,
    units: Option<Vec<GateUnits>>,
    smoothers: Smoothers,
}

/// What is written to a model file.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    params: FusionParams,
    calibrations: Vec<Calibration>,
    #[serde(default)]
    precisions: Option<Vec<MapPrecision>>,
    #[serde(default)]
    units: Option<Vec<GateUnits>>,
    /// Those of the parameters; `None` in files of before, whose thresholds were set without them.
    #[serde(default)]
    fine_scale: Option<FineScale>,
    #[serde(default)]
    detail: Option<Detail>,
}

/// The fused result for one image.
struct FusedImage {
    map: Tensor,
    score: f32,
    uncertainty: Tensor,
    image_uncertainty: f32,
}

impl CalibratedFusion {
    /// The tag of its section in a model file.
    pub const TAG: &'static str = "masf.calibrated-fusion";

    /// The settings.
    pub fn params(&self) -> &FusionParams {
        &self.params
    }

    /// What was learned about each map; `None` unless weights were learned.
    pub fn precisions(&self) -> Option<&[MapPrecision]> {
        self.precisions.as_deref()
    }

    /// Whether the calibration of each map depends on the position, in the order of the maps.
    pub fn follows_positions(&self) -> Vec<bool> {
        self.calibrations.iter().map(|calibration| calibration.positions().is_some()).collect()
    }

    pub(crate) fn maps(&self) -> usize {
        self.calibrations.len()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.calibrations.iter().map(Calibration::name)
    }

    pub(crate) fn set_precisions(&mut self, precisions: Vec<MapPrecision>) {
        self.precisions = Some(precisions);
    }

    pub(crate) fn set_units(&mut self, units: Vec<GateUnits>) {
        self.units = Some(units);
    }

    /// The weights of the maps; they add up to 1.
    pub(crate) fn weights(&self) -> Vec<f64> {
        match &self.precisions {
            Some(precisions) => precisions.iter().map(|precision| precision.weight).collect(),
            None => branch_weights(&self.names().collect::<Vec<_>>(), &self.params.weights),
        }
    }

    fn smoother(&self, map: &Tensor, size: (usize, usize)) -> Result<Arc<Smoother>> {
        self.smoothers.get(map.dims2()?, size, self.params.smoothing_sigma)
    }

    /// Refuses other maps than those of the calibration, or in another order.
    pub(crate) fn check_maps(&self, maps: &[CalibratedMap]) -> Result<()> {
        if maps.iter().map(|map| map.name.as_str()).eq(self.names()) {
            return Ok(());
        }
        let found = maps.iter().map(|map| map.name.clone()).collect();
        let expected = self.names().map(str::to_owned).collect();
        Err(FusionError::Maps { found, expected }.into())
    }

    /// Means and variances of one image of a batch, resized and smoothed.
    pub(crate) fn layers_of_image(
        &self,
        maps: &[CalibratedMap],
        index: usize,
        size: (usize, usize),
    ) -> Result<Vec<Layer>> {
        let layers = maps.par_iter().map(|map| {
            let mean = map.mean.get(index)?;
            let smoothed = self.smoother(&mean, size)?.apply(&mean)?;
            Ok(Layer { mean: values(&smoothed)?, variance: self.variance(map, index, size)? })
        });
        // All first: of several errors that of the first map.
        layers.collect::<Vec<Result<Layer>>>().into_iter().collect()
    }

    /// The smoothed variance over the views; `None` where it is zero everywhere.
    fn variance(&self, map: &CalibratedMap, index: usize, size: (usize, usize)) -> Result<Option<Vec<f32>>> {
        let variance = map.variance.get(index)?;
        if values(&variance)?.iter().all(|value| *value == 0.0) {
            return Ok(None);
        }
        Ok(Some(values(&self.smoother(&variance, size)?.apply(&variance)?)?))
    }

    /// Fuses the maps of one image, of which there is at least one.
    fn fuse_image(&self, maps: &[CalibratedMap], index: usize, size: (usize, usize)) -> Result<FusedImage> {
        let gate = self.units.as_deref().map(|units| (self.params.gate, units));
        let ungated = self.precisions.is_none() && gate.is_none();
        if ungated && maps.len() == 1 && self.variance(&maps[0], index, size)?.is_none() {
            let mean = maps[0].mean.get(index)?;
            let map = self.smoother(&mean, size)?.apply(&mean)?;
            let score = with_values(&map, |pixels| self.read_image_score(pixels))?;
            let uncertainty = map.zeros_like()?;
            return Ok(FusedImage { map, score, uncertainty, image_uncertainty: 0.0 });
        }
        let (layers, weights) = (self.layers_of_image(maps, index, size)?, self.weights());
        let (mut scores, deviations) = blend(&layers, &weights, gate);
        let (score, image_uncertainty) = self.image_score(&scores, &deviations);
        let smoothed = |sum: &Tensor, sigma| {
            self.smoothers.get(sum.dims2()?, size, self.params.smoothing_sigma.hypot(sigma))?.apply(sum)
        };
        self.params.fine_scale.add_to(&mut scores, maps, &weights, index, &smoothed)?;
        let tensor = |values: Vec<f32>| Ok::<_, Error>(Tensor::from_vec(values, size, maps[0].mean.device())?);
        Ok(FusedImage { map: tensor(scores)?, score, uncertainty: tensor(deviations)?, image_uncertainty })
    }

    /// The score of an image, and the standard deviation of the pixels that it was read from.
    fn image_score(&self, scores: &[f32], deviations: &[f32]) -> (f32, f32) {
        if deviations.iter().all(|deviation| *deviation == 0.0) {
            return (self.read_image_score(scores), 0.0);
        }
        match self.params.image_score {
            ImageScore::Max => {
                let score = self.read_image_score(scores);
                let peak = scores.iter().position(|value| *value == score);
                (score, peak.and_then(|peak| deviations.get(peak)).copied().unwrap_or(0.0))
            }
            ImageScore::TopFraction(share) => {
                let mut pairs: Vec<(f32, f32)> = scores.iter().copied().zip(deviations.iter().copied()).collect();
                let top = largest(&mut pairs, share, |a, b| b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1)));
                let mean = |part: fn(&(f32, f32)) -> f32| {
                    let sum: f64 = top.iter().map(|pair| f64::from(part(pair))).sum();
                    (sum / top.len() as f64) as f32
                };
                (mean(|pair| pair.0), mean(|pair| pair.1))
            }
        }
    }

    /// The score of an image from its pixels.
    pub(crate) fn read_image_score(&self, pixels: &[f32]) -> f32 {
        match self.params.image_score {
            ImageScore::Max => pixels.iter().copied().fold(f32::NEG_INFINITY, f32::max),
            ImageScore::TopFraction(share) => {
                let mut pixels = pixels.to_vec();
                let top = largest(&mut pixels, share, |a, b| b.total_cmp(a));
                (top.iter().map(|value| f64::from(*value)).sum::<f64>() / top.len().max(1) as f64) as f32
            }
        }
    }
}

/// The branch that a map comes from: its name up to the first full stop, as in `student.8.raw`.
pub(crate) fn branch(name: &str) -> &str {
    name.split_once('.').map_or(name, |(branch, _)| branch)
}

/// For each map, how many maps its branch has.
pub(crate) fn maps_of_branch(names: &[&str]) -> Vec<usize> {
    names.iter().map(|name| names.iter().filter(|other| branch(other) == branch(name)).count()).collect()
}

/// Weights with which branches count for their shares, or alike, and all maps of a branch alike; they add up to 1.
fn branch_weights(names: &[&str], weights: &Weights) -> Vec<f64> {
    let share = |name: &str| match weights {
        Weights::Shares(shares) => shares.get(branch(name)).copied().unwrap_or(1.0),
        Weights::Equal | Weights::Learned => 1.0,
    };
    let maps = maps_of_branch(names).into_iter().zip(names).map(|(count, name)| share(name) / count as f64);
    let sum: f64 = maps.clone().sum();
    maps.map(|weight| weight / sum).collect()
}

/// The largest `share` of values, at least one if there are any, in descending order: what is summed up in it does not depend on how they were found.
fn largest<T>(values: &mut [T], share: f64, descending: impl Fn(&T, &T) -> Ordering) -> &[T] {
    let count = ((values.len() as f64 * share).round() as usize).max(1).min(values.len());
    if count < values.len() {
        values.select_nth_unstable_by(count, &descending);
    }
    let top = &mut values[..count];
    top.sort_unstable_by(descending);
    top
}

impl Fusion for CalibratedFusion {
    fn calibrate(&self, scores: &Scores) -> Result<Vec<CalibratedMap>> {
        let found = names(&scores.maps);
        let expected: Vec<String> = self.calibrations.iter().map(|c| c.name().to_owned()).collect();
        if found != expected {
            return Err(FusionError::Maps { found, expected }.into());
        }
        let calibrated = self.calibrations.iter().zip(&scores.maps).map(|(calibration, map)| calibration.apply(map));
        Ok(calibrated.collect::<Result<Vec<_>, _>>()?)
    }

    fn fuse(&self, maps: &[CalibratedMap], size: (usize, usize)) -> Result<AnomalyMap> {
        self.check_maps(maps)?;
        let batch = maps.first().map_or(Ok(0), |map| map.mean.dim(0))?;
        if let Some(other) = maps.iter().find(|map| map.mean.dims().first() != Some(&batch)) {
            let problem = format!("it has shape {:?}; the batch of the first map is {batch}", other.mean.dims());
            return Err(Error::data(format!("score map `{}`", other.name), problem));
        }
        let mut fused = Vec::with_capacity(batch);
        let mut scores = Vec::with_capacity(batch);
        let mut uncertainties = Vec::with_capacity(batch);
        let mut image_uncertainties = Vec::with_capacity(batch);
        // Image by image: a matrix product's rounding may depend on how many rows it has.
        for index in 0..batch {
            let image = self.fuse_image(maps, index, size)?;
            fused.push(image.map);
            scores.push(image.score);
            uncertainties.push(image.uncertainty);
            image_uncertainties.push(image.image_uncertainty);
        }
        if fused.is_empty() {
            return Err(Error::argument("score maps", "none", "at least one with at least one image"));
        }
        let map = Tensor::stack(&fused, 0)?;
        let vector = |values: Vec<f32>| Tensor::from_vec(values, batch, map.device());
        Ok(AnomalyMap {
            image_score: vector(scores)?,
            uncertainty: Tensor::stack(&uncertainties, 0)?,
            image_uncertainty: vector(image_uncertainties)?,
            map,
        })
    }

    fn refine(&self, maps: Tensor, luminance: &dyn Fn() -> Result<Tensor>) -> Result<Tensor> {
        if self.params.detail.is_on() { self.params.detail.add(&maps, &luminance()?) } else { Ok(maps) }
    }
}

/// The names of the tensors of a calibration that depends on the position.
fn position_names(index: usize) -> [String; 2] {
    ["centre", "factor"].map(|name| format!("calibration{index}.{name}"))
}

impl Artifact for CalibratedFusion {
    fn tag(&self) -> &'static str {
        Self::TAG
    }

    fn write(&self, writer: &mut ArtifactWriter) -> Result<()> {
        writer.section(&Section {
            params: self.params.clone(),
            calibrations: self.calibrations.clone(),
            precisions: self.precisions.clone(),
            units: self.units.clone(),
            fine_scale: Some(self.params.fine_scale),
            detail: Some(self.params.detail),
        })?;
        for (index, calibration) in self.calibrations.iter().enumerate() {
            if let Some(PositionScales { size, centre, factor }) = calibration.positions() {
                for (name, values) in position_names(index).iter().zip([centre, factor]) {
                    writer.tensor(name, &Tensor::from_slice(values, *size, &Device::Cpu)?)?;
                }
            }
        }
        Ok(())
    }

    fn read(reader: &ArtifactReader<'_>) -> Result<Self> {
        let Section { mut params, mut calibrations, precisions, units, fine_scale, detail } = reader.section()?;
        params.fine_scale = fine_scale.unwrap_or(FineScale::OFF);
        params.detail = detail.unwrap_or(Detail::OFF);
        let invalid = |error: FusionError| reader.invalid(error.to_string());
        params.clone().check().map_err(invalid)?;
        if calibrations.is_empty() {
            return Err(reader.invalid("no calibrations"));
        }
        for (index, calibration) in calibrations.iter_mut().enumerate() {
            if calibration.is_positional() {
                let [centre, factor] = position_names(index);
                let centre = reader.tensor(&centre, DType::F32, &[None, None])?;
                let size = centre.dims2()?;
                let factor = reader.tensor(&factor, DType::F32, &[Some(size.0), Some(size.1)])?;
                let positions = PositionScales { size, centre: values(&centre)?, factor: values(&factor)? };
                calibration.set_positions(positions);
            }
            calibration.check().map_err(invalid)?;
        }
        check_precisions(&precisions, &calibrations).map_err(|problem| reader.invalid(problem))?;
        if let Some(units) = &units {
            if units.len() != calibrations.len() {
                return Err(reader.invalid(format!("{} units of the gate; one a map", units.len())));
            }
            units.iter().try_for_each(GateUnits::check).map_err(invalid)?;
        }
        Ok(Self { params, calibrations, precisions, units, smoothers: Smoothers::default() })
    }
}

/// What is wrong with precisions that may come from a file.
fn check_precisions(precisions: &Option<Vec<MapPrecision>>, calibrations: &[Calibration]) -> Result<(), String> {
    let Some(precisions) = precisions else { return Ok(()) };
    let names = precisions.iter().map(|precision| precision.name.as_str());
    if !names.eq(calibrations.iter().map(Calibration::name)) {
        return Err("the weights are not those of the calibrated maps".into());
    }
    let weights = || precisions.iter().map(|precision| precision.weight);
    let sum: f64 = weights().sum();
    if weights().any(|weight| !(0.0..=1.0).contains(&weight)) || (sum - 1.0).abs() > 1e-6 {
        return Err(format!("the weights add up to {sum}; they must lie in 0 to 1 and add up to 1"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
