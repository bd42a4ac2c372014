//! The whole student's gradient, and the training as it runs inside: what needs the crate's own parts.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use masf_core::{FeatureCacheBuilder, FeatureLevel, FeaturePyramid, LevelSpec, Scorer, Silent, random_stream};
use rand::Rng;

use crate::bands::{BandLoss, Bands};
use crate::features::{Batch, ChannelStatistics};
use crate::grid::Grid;
use crate::mask::{dropout, frequency_mask, token_mask};
use crate::network::{Masks, Network, parameters};
use crate::ops::{self, LevelTargets, Mode};
use crate::smooth::smooth;
use crate::trainer::Trainer;
use crate::{MaskedStudent, Positions, Result, StudentParams, start};

/// Levels of 5 channels on 7 x 6 and 3 channels on 4 x 3: cells with a row that does not exist.
fn pyramid(images: usize) -> Result<FeaturePyramid> {
    let mut random = random_stream(5, "test.pyramid");
    let mut level = |stride, channels: usize, height: usize, width: usize| {
        let values: Vec<f32> =
            (0..images * channels * height * width).map(|_| random.random_range(-0.5..1.5)).collect();
        let map = Tensor::from_vec(values, (images, channels, height, width), &Device::Cpu)?;
        Result::<_, crate::DistillError>::Ok(FeatureLevel { spec: LevelSpec { stride, channels }, map })
    };
    Ok(FeaturePyramid::new(vec![level(8, 5, 7, 6)?, level(16, 3, 4, 3)?], (56, 48))?)
}

fn params() -> StudentParams {
    StudentParams {
        width: 6,
        depth: 2,
        mlp_ratio: 2,
        heads: 2,
        bottleneck: 4,
        positions: Positions::Learned,
        band_loss: 0.3,
        dropout: Some(0.2),
        ..StudentParams::default()
    }
}

/// Everything that a loss of the whole student needs, with all masks on.
struct Case {
    params: StudentParams,
    grid: Grid,
    statistics: Vec<Arc<ChannelStatistics>>,
    batch: Batch,
}

impl Case {
    fn new() -> Result<Self> {
        Self::of_patch(1)
    }

    /// With tokens of several positions: of 2 x 2 tokens the lower ones lack a row on the finer level, none on the coarser.
    fn of_patch(patch: usize) -> Result<Self> {
        let pyramid = pyramid(2)?;
        let grid = Grid::of(&pyramid, patch);
        let statistics = grid.levels.iter().map(|level| {
            let channels = level.spec.channels;
            let mean = (0..channels).map(|c| 0.3 + 0.1 * c as f32).collect();
            Arc::new(ChannelStatistics { mean, deviation: (0..channels).map(|c| 0.5 + 0.2 * c as f32).collect() })
        });
        let statistics: Vec<_> = statistics.collect();
        let batch = Batch::new(&pyramid, &grid, &statistics)?;
        Ok(Self { params: StudentParams { patch, ..params() }, grid, statistics, batch })
    }

    fn masks(&self) -> Masks {
        let mut random = random_stream(1, "test.masks");
        let tokens = token_mask(2, self.grid.tokens(), 0.4, &mut random);
        let frequencies = frequency_mask(2, &self.grid, 1.0, &mut random).map(Arc::new);
        let mut factors = |width: usize| Arc::new(dropout(2 * self.grid.tokens() * width, 0.2, &mut random));
        Masks { tokens, frequencies, dropout: Some([factors(self.params.width), factors(self.params.bottleneck)]) }
    }

    /// The loss for given parameters, in their dtype. Hard mining is left out of differences: its weights are constants.
    fn loss(&self, tensors: &[Tensor], easy_weight: f32) -> Result<Tensor> {
        let network = Network::new(&self.params, &self.grid, tensors)?;
        let tokens = self.batch.tokens.to_dtype(tensors[0].dtype())?;
        let x = network.body(&network.embed(&tokens)?, Some(self.masks()), Mode::Training)?;
        let mut total = Tensor::zeros((), x.dtype(), &Device::Cpu)?;
        for (index, level) in self.grid.levels.iter().enumerate() {
            let bands = Some(BandLoss { bands: Bands::new(&self.grid, level)?, weight: 0.3, first: 1, count: 2 });
            let targets = LevelTargets {
                features: self.batch.targets[index].clone(),
                exists: Arc::new(self.grid.positions(level).iter().map(Option::is_some).collect()),
                statistics: self.statistics[index].clone(),
                kinds: [0.4, 0.6],
                map_loss: 0.7,
                easy_weight,
                bands,
            };
            total = (total + ops::head_loss(&x, &network.levels[index], targets)?)?;
        }
        Ok(total)
    }

    fn gradients(&self, dtype: DType, easy_weight: f32) -> Result<(f64, Vec<Vec<f64>>)> {
        let variables = self.variables(dtype)?;
        let tensors: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
        let loss = self.loss(&tensors, easy_weight)?;
        let mut store = loss.backward()?;
        let mut all = Vec::new();
        for variable in &variables {
            let gradient = store.remove(variable).expect("every parameter takes part");
            all.push(gradient.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?);
        }
        Ok((loss.to_dtype(DType::F64)?.to_scalar::<f64>()?, all))
    }

    /// Parameters away from their start, where too much is zero.
    fn variables(&self, dtype: DType) -> Result<Vec<Var>> {
        let mut random = random_stream(9, "test.parameters");
        parameters(&self.params, &self.grid)
            .iter()
            .map(|spec| {
                let values: Vec<f32> =
                    (0..spec.shape.iter().product::<usize>()).map(|_| random.random_range(-0.6..0.6)).collect();
                let tensor = Tensor::from_vec(values, spec.shape.as_slice(), &Device::Cpu)?.to_dtype(dtype)?;
                Ok(Var::from_tensor(&tensor)?)
            })
            .collect()
    }
}

#[test]
fn gradients_of_the_student_match_finite_differences() -> Result<()> {
    for patch in [1, 2] {
        check_gradients(&Case::of_patch(patch)?)?;
    }
    Ok(())
}

fn check_gradients(case: &Case) -> Result<()> {
    let variables = case.variables(DType::F64)?;
    let tensors: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().detach()).collect();
    let (_, gradients) = case.gradients(DType::F64, 1.0)?;
    for (index, spec) in parameters(&case.params, &case.grid).iter().enumerate() {
        let values = tensors[index].flatten_all()?.to_vec1::<f64>()?;
        let scale = gradients[index].iter().fold(1e-3f64, |most, value| most.max(value.abs()));
        // Some elements of every parameter, the last row (the bias) among them.
        for element in (0..values.len()).step_by(values.len().div_ceil(12)).chain([values.len() - 1]) {
            let at = |offset: f64| -> Result<f64> {
                let mut moved = values.clone();
                moved[element] += offset;
                let mut tensors = tensors.clone();
                tensors[index] = Tensor::from_vec(moved, spec.shape.as_slice(), &Device::Cpu)?;
                Ok(case.loss(&tensors, 1.0)?.to_scalar::<f64>()?)
            };
            let step = 1e-5;
            let difference = (at(step)? - at(-step)?) / (2.0 * step);
            let found = gradients[index][element];
            assert!((found - difference).abs() < 1e-5 * scale, "{}[{element}]: {found} {difference}", spec.name);
        }
    }
    Ok(())
}

#[test]
fn fused_operations_have_the_values_and_gradients_of_plain_ones() -> Result<()> {
    let case = Case::new()?;
    for easy_weight in [1.0, 0.1] {
        let (plain_loss, plain) = case.gradients(DType::F64, easy_weight)?;
        let (loss, fused) = case.gradients(DType::F32, easy_weight)?;
        assert!((loss - plain_loss).abs() < 1e-5 * plain_loss.abs(), "{loss} {plain_loss}");
        for ((spec, fused), plain) in parameters(&case.params, &case.grid).iter().zip(fused).zip(plain) {
            let scale = plain.iter().fold(1e-3f64, |most, value| most.max(value.abs()));
            for (index, (fused, plain)) in fused.iter().zip(plain).enumerate() {
                assert!((fused - plain).abs() < 2e-4 * scale, "{}[{index}]: {fused} {plain}", spec.name);
            }
        }
    }
    Ok(())
}

#[test]
fn attention_of_more_queries_than_are_weighed_at_once_equals_the_plain_one() -> Result<()> {
    let shape = ops::AttentionShape { queries: 1030, keys: 3, width: 4, heads: 2 };
    let mut random = random_stream(3, "test.attention");
    let mut values = |rows: usize, columns: usize| -> Result<Tensor> {
        let values: Vec<f64> = (0..rows * columns).map(|_| random.random_range(-1.0..1.0)).collect();
        Ok(Tensor::from_vec(values, (rows, columns), &Device::Cpu)?)
    };
    let (q, kv, counts) = (values(2 * 1030, 4)?, values(2 * 3, 8)?, values(2 * 1030, 4)?);
    // The values, and the gradients of a sum in which every value counts differently.
    let all = |dtype: DType| -> Result<Vec<Vec<f64>>> {
        let (q, kv) = (Var::from_tensor(&q.to_dtype(dtype)?)?, Var::from_tensor(&kv.to_dtype(dtype)?)?);
        let out = ops::attend(&q, &kv, shape)?;
        let gradients = out.mul(&counts.to_dtype(dtype)?)?.sum_all()?.backward()?;
        let mut all = Vec::new();
        for tensor in [Some(&out), gradients.get(&q), gradients.get(&kv)] {
            let tensor = tensor.expect("both take part").to_dtype(DType::F64)?;
            all.push(tensor.flatten_all()?.to_vec1::<f64>()?);
        }
        Ok(all)
    };
    for (fused, plain) in all(DType::F32)?.iter().zip(&all(DType::F64)?) {
        let scale = plain.iter().fold(1e-3f64, |most, value| most.max(value.abs()));
        assert_eq!(fused.len(), plain.len());
        assert!(fused.iter().zip(plain).all(|(fused, plain)| (fused - plain).abs() < 1e-4 * scale));
    }
    Ok(())
}

#[test]
fn a_linear_start_leaves_no_hidden_channel_dead() -> Result<()> {
    let case = Case::new()?;
    let mut cache = FeatureCacheBuilder::new(1 << 20);
    cache.push(&pyramid(2)?)?;
    let source = cache.finish()?;
    for bottleneck in [1, 2, 5, 12, 20] {
        let params = StudentParams { bottleneck, ..case.params.clone() };
        let (width, pairs) = (params.width, params.width.min(bottleneck / 2));
        let mut trainer = Trainer::new(params, &source, case.grid.clone(), case.statistics.clone())?;
        start::linear(&mut trainer, &source, &Silent)?;
        let (down, up) = (trainer.value("bottleneck.down")?, trainer.value("bottleneck.up")?);
        for unit in 0..bottleneck {
            let column: Vec<f32> = down.iter().skip(unit).step_by(bottleneck).copied().collect();
            assert!(column.iter().any(|value| *value != 0.0), "{unit} of {bottleneck}");
            let sum: f32 = column.iter().map(|value| value.abs()).sum();
            assert!(unit >= 2 * pairs || sum == 1.0, "{unit} of {bottleneck}: {sum}");
        }
        trainer.step()?;
        trainer.step()?;
        let learned = trainer.value("bottleneck.up")?;
        assert!(up.iter().any(|value| *value != 0.0));
        for unit in 0..bottleneck {
            assert_ne!(up[unit * width..][..width], learned[unit * width..][..width], "{unit} of {bottleneck}");
        }
    }
    Ok(())
}

#[test]
fn inference_equals_training_without_masks() -> Result<()> {
    let case = Case::new()?;
    let tensors: Vec<Tensor> =
        case.variables(DType::F32)?.iter().map(|variable| variable.as_tensor().clone()).collect();
    let network = Network::new(&case.params, &case.grid, &tensors)?;
    let values = |mode| -> Result<Vec<f32>> {
        Ok(network.body(&network.embed(&case.batch.tokens)?, None, mode)?.flatten_all()?.to_vec1::<f32>()?)
    };
    assert_eq!(values(Mode::Inference)?, values(Mode::Training)?);
    Ok(())
}

#[test]
fn scores_are_those_of_the_predictions() -> Result<()> {
    for patch in [1, 2] {
        check_scores(Case::of_patch(patch)?)?;
    }
    Ok(())
}

fn check_scores(mut case: Case) -> Result<()> {
    case.params.neighbourhood = 3;
    let tensors: Vec<Tensor> =
        case.variables(DType::F32)?.iter().map(|variable| variable.as_tensor().clone()).collect();
    let image = pyramid(1)?;
    let smoothed = smooth(image.clone(), 3)?;
    let batch = Batch::new(&smoothed, &case.grid, &case.statistics)?;
    let network = Network::new(&case.params, &case.grid, &tensors)?;
    let x = network.body(&network.embed(&batch.tokens)?, None, Mode::Inference)?;
    let student = MaskedStudent::new(case.params.clone(), case.grid.clone(), case.statistics.clone(), tensors.clone())?;
    let scores = student.score(&image)?;
    for (index, (level, statistics)) in case.grid.levels.iter().zip(&case.statistics).enumerate() {
        let channels = level.spec.channels;
        let predictions = ops::linear(&x, &network.levels[index], false)?.flatten_all()?.to_vec1::<f32>()?;
        let maps: Vec<Vec<f32>> = scores.maps[2 * index..2 * index + 2]
            .iter()
            .map(|map| map.values.flatten_all()?.to_vec1::<f32>())
            .collect::<candle_core::Result<_>>()?;
        for (cell, position) in case.grid.positions(level).into_iter().enumerate() {
            let Some(position) = position else { continue };
            let at =
                |values: &[f32]| values[cell * channels..(cell + 1) * channels].iter().map(|v| f64::from(*v)).collect();
            let (z, t): (Vec<f64>, Vec<f64>) = (at(&predictions), at(&batch.targets[index]));
            let mean = |channel: usize| f64::from(statistics.mean[channel]);
            let deviation = |channel: usize| f64::from(statistics.deviation[channel]);
            let r: Vec<f64> = (0..channels).map(|c| deviation(c) * z[c] + mean(c)).collect();
            let q: Vec<f64> = (0..channels).map(|c| (t[c] - mean(c)) / deviation(c)).collect();
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let rms = (dot(&t, &t) / channels as f64).sqrt();
            let cosine = |a: &[f64], b: &[f64]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
            let expected = [1.0 - cosine(&r, &t), (1.0 - cosine(&z, &q)) * rms.sqrt()];
            for (map, expected) in maps.iter().zip(expected) {
                assert!((f64::from(map[position]) - expected).abs() < 1e-3, "{} {expected}", map[position]);
            }
        }
    }
    Ok(())
}

#[test]
fn frequency_masks_take_their_band_out_of_the_tokens() -> Result<()> {
    use masf_spectral::{Norm, rfft2};
    let (images, width, height, columns) = (3, 4, 6, 5);
    let maps = Tensor::randn(0f32, 1f32, (images, width, height, columns), &Device::Cpu)?;
    let spectrum = rfft2(&maps, Norm::Ortho)?;
    let bins = height * (columns / 2 + 1);
    let responses: Vec<f32> = (0..images * bins).map(|bin| f32::from(bin % 3 != 1)).collect();
    let planes = spectrum.values().planes().reshape((2, images, width, bins))?;
    let masked = ops::mask_frequencies(&planes, &Arc::new(responses.clone()))?;
    let (before, after) = (planes.flatten_all()?.to_vec1::<f32>()?, masked.flatten_all()?.to_vec1::<f32>()?);
    for (index, (before, after)) in before.iter().zip(after).enumerate() {
        let (image, bin) = (index / (width * bins) % images, index % bins);
        assert_eq!(after, before * responses[image * bins + bin]);
    }
    Ok(())
}

#[test]
fn tokens_hold_standardised_features_and_targets_raw_ones() -> Result<()> {
    for patch in [1, 2, 3] {
        check_tokens(&Case::of_patch(patch)?)?;
    }
    Ok(())
}

fn check_tokens(case: &Case) -> Result<()> {
    let pyramid = pyramid(2)?;
    let tokens = case.batch.tokens.to_vec2::<f32>()?;
    let mut offset = 0;
    for (index, (level, statistics)) in case.grid.levels.iter().zip(&case.statistics).enumerate() {
        let channels = level.spec.channels;
        let map = pyramid.levels()[index].map.flatten_all()?.to_vec1::<f32>()?;
        for (row, token) in tokens.iter().enumerate() {
            let (image, token_index) = (row / case.grid.tokens(), row % case.grid.tokens());
            for place in 0..level.per_cell() {
                for channel in 0..channels {
                    let found = token[offset + place * channels + channel];
                    let target = case.batch.targets[index][(row * level.per_cell() + place) * channels + channel];
                    let Some(position) = case.grid.position(level, token_index, place) else {
                        assert_eq!((found, target), (0.0, 0.0));
                        continue;
                    };
                    let value = map[(image * channels + channel) * level.height * level.width + position];
                    assert_eq!(target, value);
                    let expected = (value - statistics.mean[channel]) / statistics.deviation[channel];
                    assert!((found - expected).abs() < 1e-5, "{found} {expected}");
                }
            }
        }
        offset += level.values();
    }
    Ok(())
}
