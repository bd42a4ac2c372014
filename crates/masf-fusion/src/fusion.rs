//! One anomaly map and one image score from several calibrated maps.

use candle_core::{D, Tensor};
use masf_core::{
    AnomalyMap, Artifact, ArtifactReader, ArtifactWriter, CalibratedMap, Error, Fusion, Result, ScoreMap, Scores,
};

use crate::smoothing::Smoother;
use crate::{Calibration, FusionError};

/// How the score of an image is read from its anomaly map.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ImageScore {
    /// The largest value.
    Max,
    /// The mean of the largest values, as a share of all pixels in `(0, 1]`.
    TopFraction(f64),
}

/// Settings of the fusion, unchecked.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FusionParams {
    /// Standard deviation of the Gaussian smoothing in pixels of the model's input; 0 turns it off.
    pub smoothing_sigma: f64,
    /// The quantile of normal scores, in `(0.5, 1]`, that becomes 1 on the common scale.
    pub upper_quantile: f64,
    /// How the image score is read.
    pub image_score: ImageScore,
}

impl Default for FusionParams {
    fn default() -> Self {
        Self { smoothing_sigma: 4.0, upper_quantile: 0.995, image_score: ImageScore::Max }
    }
}

/// Settings whose ranges have been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct FusionValidParams(FusionParams);

impl FusionParams {
    /// Checks every range.
    ///
    /// # Errors
    /// [`FusionError::Parameter`] names the setting.
    pub fn check(self) -> Result<FusionValidParams, FusionError> {
        let wrong =
            |name, value: f64, expected| Err(FusionError::Parameter { name, value: value.to_string(), expected });
        if !(0.0..=1000.0).contains(&self.smoothing_sigma) {
            return wrong("fusion.smoothing_sigma", self.smoothing_sigma, "0 to 1000 pixels");
        }
        if !(self.upper_quantile > 0.5 && self.upper_quantile <= 1.0) {
            return wrong("fusion.upper_quantile", self.upper_quantile, "above 0.5 and at most 1");
        }
        if let ImageScore::TopFraction(share) = self.image_score
            && !(share > 0.0 && share <= 1.0)
        {
            return wrong("fusion.image_score.top_fraction", share, "above 0 and at most 1");
        }
        Ok(FusionValidParams(self))
    }
}

impl FusionValidParams {
    /// Learns the scales of all score maps from the scores of held-out normal images.
    ///
    /// # Errors
    /// No scores, scores with different maps, or scores that are not finite.
    pub fn fit(&self, normals: &[Scores]) -> Result<CalibratedFusion, FusionError> {
        let Some(first) = normals.first() else {
            return Err(FusionError::TooFewImages { found: 0, needed: 1 });
        };
        let expected = names(&first.maps);
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
        let calibrations =
            columns.iter().map(|maps| Calibration::fit(maps, self.0.upper_quantile)).collect::<Result<Vec<_>, _>>()?;
        Ok(CalibratedFusion { params: self.0.clone(), calibrations })
    }
}

fn names(maps: &[ScoreMap]) -> Vec<String> {
    maps.iter().map(|map| map.name.clone()).collect()
}

/// The mean of calibrated maps, resized, smoothed, and summed up in an image score.
#[derive(Debug, Clone, PartialEq)]
pub struct CalibratedFusion {
    params: FusionParams,
    calibrations: Vec<Calibration>,
}

/// What is written to a model file.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    params: FusionParams,
    calibrations: Vec<Calibration>,
}

impl CalibratedFusion {
    /// The tag of its section in a model file.
    pub const TAG: &'static str = "masf.calibrated-fusion";

    /// Fuses the maps of one image.
    fn fuse_image(&self, maps: &[Tensor], size: (usize, usize)) -> Result<(Tensor, f32)> {
        let mut sum: Option<Tensor> = None;
        for map in maps {
            let from = map.dims2()?;
            let smoothed = Smoother::new(from, size, self.params.smoothing_sigma, map.device())?.apply(map)?;
            sum = Some(match sum {
                Some(sum) => (sum + smoothed)?,
                None => smoothed,
            });
        }
        let Some(sum) = sum else {
            return Err(Error::argument("score maps", "none", "at least one"));
        };
        let fused = (sum / maps.len() as f64)?;
        let score = self.image_score(&fused)?;
        Ok((fused, score))
    }

    fn image_score(&self, map: &Tensor) -> Result<f32> {
        match self.params.image_score {
            ImageScore::Max => Ok(map.flatten_all()?.max(D::Minus1)?.to_scalar::<f32>()?),
            ImageScore::TopFraction(share) => {
                let mut values = map.flatten_all()?.to_vec1::<f32>()?;
                let count = ((values.len() as f64 * share).round() as usize).clamp(1, values.len());
                values.sort_unstable_by(|a, b| b.total_cmp(a));
                let sum: f64 = values[..count].iter().map(|value| f64::from(*value)).sum();
                Ok((sum / count as f64) as f32)
            }
        }
    }
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
        let batch = maps.first().map_or(Ok(0), |map| map.mean.dim(0))?;
        let mut fused = Vec::with_capacity(batch);
        let mut scores = Vec::with_capacity(batch);
        // Image by image: a matrix product's rounding may depend on how many rows it has.
        for index in 0..batch {
            let of_image: Vec<Tensor> = maps.iter().map(|map| map.mean.get(index)).collect::<Result<_, _>>()?;
            let (map, score) = self.fuse_image(&of_image, size)?;
            fused.push(map);
            scores.push(score);
        }
        if fused.is_empty() {
            return Err(Error::argument("score maps", "none", "at least one with at least one image"));
        }
        let map = Tensor::stack(&fused, 0)?;
        let image_score = Tensor::from_vec(scores, batch, map.device())?;
        Ok(AnomalyMap { map, image_score })
    }
}

impl Artifact for CalibratedFusion {
    fn tag(&self) -> &'static str {
        Self::TAG
    }

    fn write(&self, writer: &mut ArtifactWriter) -> Result<()> {
        writer.section(&Section { params: self.params.clone(), calibrations: self.calibrations.clone() })
    }

    fn read(reader: &ArtifactReader<'_>) -> Result<Self> {
        let Section { params, calibrations } = reader.section()?;
        params.clone().check().map_err(|error| reader.invalid(error.to_string()))?;
        for calibration in &calibrations {
            calibration.check().map_err(|error| reader.invalid(error.to_string()))?;
        }
        if calibrations.is_empty() {
            return Err(reader.invalid("no calibrations"));
        }
        Ok(Self { params, calibrations })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use masf_core::artifact::{ModelFile, ReadOptions, SaveOptions, save};

    use super::*;

    fn scores(seed: u32, batch: usize) -> Scores {
        let map = |name: &str, h: usize, w: usize, factor: f32| {
            let values = (0..batch * h * w).map(|i| ((i as u32 * 7919 + seed * 31) % 101) as f32 * factor).collect();
            ScoreMap { name: name.into(), values: Tensor::from_vec(values, (batch, h, w), &Device::Cpu).unwrap() }
        };
        Scores { maps: vec![map("memory", 8, 6, 0.01), map("student", 4, 3, 100.0)], image: None }
    }

    fn fitted(params: FusionParams) -> Result<CalibratedFusion> {
        Ok(params.check()?.fit(&[scores(1, 1), scores(2, 2)])?)
    }

    #[test]
    fn a_batch_gives_the_bits_of_single_images() -> Result<()> {
        let fusion = fitted(FusionParams::default())?;
        let batch = fusion.fuse(&fusion.calibrate(&scores(3, 2))?, (64, 48))?;
        assert_eq!(batch.map.dims(), [2, 64, 48]);
        for index in 0..2 {
            let mut single = scores(3, 2);
            for map in &mut single.maps {
                map.values = map.values.narrow(0, index, 1)?;
            }
            let single = fusion.fuse(&fusion.calibrate(&single)?, (64, 48))?;
            assert_eq!(single.map.get(0)?.to_vec2::<f32>()?, batch.map.get(index)?.to_vec2::<f32>()?);
            assert_eq!(single.image_score.to_vec1::<f32>()?[0], batch.image_score.to_vec1::<f32>()?[index]);
        }
        Ok(())
    }

    #[test]
    fn branches_of_any_unit_count_alike() -> Result<()> {
        let fusion = fitted(FusionParams::default())?;
        for map in fusion.calibrate(&scores(1, 1))? {
            let largest = map.mean.flatten_all()?.max(0)?.to_scalar::<f32>()?;
            assert!((0.5..2.0).contains(&largest), "{} reaches {largest}", map.name);
        }
        Ok(())
    }

    #[test]
    fn image_scores() -> Result<()> {
        let map = Tensor::arange(0f32, 100f32, &Device::Cpu)?.reshape((10, 10))?;
        for (image_score, expected) in
            [(ImageScore::Max, 99.0), (ImageScore::TopFraction(0.02), 98.5), (ImageScore::TopFraction(1e-9), 99.0)]
        {
            let fusion = fitted(FusionParams { image_score, ..FusionParams::default() })?;
            assert_eq!(fusion.image_score(&map)?, expected);
        }
        Ok(())
    }

    #[test]
    fn other_maps_are_refused() -> Result<()> {
        let fusion = fitted(FusionParams::default())?;
        let mut other = scores(1, 1);
        other.maps.pop();
        let error = fusion.calibrate(&other).unwrap_err().to_string();
        assert!(error.contains("student"), "{error}");
        let error = FusionParams::default().check()?.fit(&[scores(1, 1), other]).unwrap_err();
        assert!(matches!(error, FusionError::Maps { .. }));
        assert!(fusion.fuse(&[], (8, 8)).is_err());
        let zeros = Tensor::zeros((0, 2, 2), DType::F32, &Device::Cpu)?;
        let empty = CalibratedMap { name: "memory".into(), mean: zeros.clone(), variance: zeros };
        assert!(fusion.fuse(&[empty], (8, 8)).is_err());
        Ok(())
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let default = FusionParams::default();
        let wrong = [
            (FusionParams { smoothing_sigma: f64::NAN, ..default.clone() }, "smoothing_sigma"),
            (FusionParams { upper_quantile: 0.5, ..default.clone() }, "upper_quantile"),
            (FusionParams { image_score: ImageScore::TopFraction(0.0), ..default }, "top_fraction"),
        ];
        for (params, name) in wrong {
            assert!(params.check().unwrap_err().to_string().contains(name));
        }
    }

    #[test]
    fn reloaded_it_is_the_same() -> Result<()> {
        let fusion = fitted(FusionParams { smoothing_sigma: 0.1 + 0.2, ..FusionParams::default() })?;
        let folder = tempfile::tempdir().map_err(|e| Error::io("temp", e))?;
        let path = folder.path().join("fusion.masf");
        save(&fusion, &path, SaveOptions::default())?;
        let file = ModelFile::open(&path, ReadOptions::default())?;
        assert_eq!(CalibratedFusion::read(&file.root()?)?, fusion);
        Ok(())
    }
}
