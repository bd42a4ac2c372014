//! Layers and gradients against plain loops and finite differences; training, checkpoints, and the trained file on the engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use masf_core::{Fault, FeatureExtractor};
use rand_chacha::rand_core::RngCore;

use super::conv::Geometry;
use super::layer::ConvNorm;
use super::{Schedule, Teacher, Trainer};
use crate::{Backbone, Result, Weights};

/// Numbers in -1..1.
fn noise(shape: &[usize], purpose: &str) -> Tensor {
    let mut stream = masf_core::random_stream(0, purpose);
    let values = (0..shape.iter().product::<usize>()).map(|_| (stream.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0);
    Tensor::from_vec(values.collect::<Vec<_>>(), shape, &Device::Cpu).unwrap()
}

fn layer(geometry: Geometry, norm: bool, relu: bool) -> ConvNorm {
    ConvNorm { geometry, norm, relu, through: true, saved: Arc::default() }
}

/// Candle's own operations on the same values (whose gradients want both sides of an image odd or both even at stride 2).
fn plain(x: &Tensor, weight: &Tensor, affine: &Tensor, g: Geometry, norm: bool, relu: bool) -> Tensor {
    let build = || -> candle_core::Result<Tensor> {
        let kernel = weight.reshape((g.kernel, g.kernel, g.input[2], g.channels))?.permute((3, 2, 0, 1))?;
        let y =
            x.permute((0, 3, 1, 2))?.conv2d(&kernel.contiguous()?, g.padding, g.stride, 1, 1)?.permute((0, 2, 3, 1))?;
        let y = if norm {
            let mean = y.mean_keepdim(0)?.mean_keepdim(1)?.mean_keepdim(2)?;
            let centred = y.broadcast_sub(&mean)?;
            let variance = centred.sqr()?.mean_keepdim(0)?.mean_keepdim(1)?.mean_keepdim(2)?;
            let normal = centred.broadcast_div(&(variance + 1e-5)?.sqrt()?)?;
            normal.broadcast_mul(&affine.get(0)?)?.broadcast_add(&affine.get(1)?)?
        } else {
            y.broadcast_add(&affine.get(0)?)?
        };
        if relu { y.relu() } else { Ok(y) }
    };
    build().unwrap()
}

fn assert_close(found: &Tensor, expected: &Tensor, what: &str) {
    let largest = |x: &Tensor| x.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let difference = largest(&(found - expected).unwrap()) / largest(expected).max(1e-3);
    assert!(difference < 2e-4, "{what}: {difference}");
}

#[test]
fn values_and_gradients_are_those_of_candle() {
    for (index, (kernel, stride, size, channels)) in [
        (3, 1, [9, 7], (5, 6)),
        (3, 2, [8, 12], (3, 20)),
        (1, 1, [6, 5], (18, 4)),
        (3, 2, [30, 40], (4, 3)),
        (1, 2, [5, 5], (3, 2)),
    ]
    .into_iter()
    .enumerate()
    {
        let input = [size[0], size[1], channels.0];
        let geometry = Geometry { kernel, stride, padding: kernel / 2, input, channels: channels.1 };
        for (norm, relu) in [(true, true), (true, false), (false, true), (false, false)] {
            let what = format!("case {index}, norm {norm}, ReLU {relu}");
            let x = Var::from_tensor(&noise(&[6, input[0], input[1], input[2]], "x")).unwrap();
            let weight = Var::from_tensor(&noise(&[geometry.depth(), channels.1], "weight")).unwrap();
            let affine = noise(&[if norm { 2 } else { 1 }, channels.1], "affine");
            let affine = Var::from_tensor(&(affine + 0.3).unwrap()).unwrap();
            let found = x.apply_op3(&weight, &affine, layer(geometry, norm, relu)).unwrap();
            let expected = plain(&x, &weight, &affine, geometry, norm, relu);
            assert_close(&found, &expected, &what);
            // Every output counts differently.
            let counts = noise(found.dims(), "counts");
            let loss = |y: &Tensor| (y * &counts).unwrap().sum_all().unwrap();
            let (found, expected) = (loss(&found).backward().unwrap(), loss(&expected).backward().unwrap());
            for (name, variable) in [("x", &x), ("weight", &weight), ("affine", &affine)] {
                assert_close(found.get(variable).unwrap(), expected.get(variable).unwrap(), &format!("{what}, {name}"));
            }
        }
    }
}

#[test]
fn gradients_are_finite_differences() {
    let geometry = Geometry { kernel: 3, stride: 2, padding: 1, input: [7, 6, 4], channels: 5 };
    let variables =
        [noise(&[3, 7, 6, 4], "x"), noise(&[geometry.depth(), 5], "weight"), (noise(&[2, 5], "affine") + 0.5).unwrap()]
            .map(|tensor| Var::from_tensor(&tensor).unwrap());
    let counts = noise(&[3, 4, 3, 5], "counts");
    let loss = || {
        let [x, weight, affine] = &variables;
        let y = x.apply_op3(weight, affine, layer(geometry, true, true)).unwrap();
        (y * &counts).unwrap().sum_all().unwrap()
    };
    let gradients = loss().backward().unwrap();
    for (index, variable) in variables.iter().enumerate() {
        let direction = noise(variable.dims(), &format!("direction {index}"));
        let analytic = (gradients.get(variable).unwrap() * &direction).unwrap().sum_all().unwrap();
        let value = variable.copy().unwrap();
        let at = |step: f64| {
            variable.set(&(&value + (&direction * step).unwrap()).unwrap()).unwrap();
            loss().to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap()
        };
        let step = 2e-3;
        let numeric = (at(step) - at(-step)) / (2.0 * step);
        variable.set(&value).unwrap();
        let analytic = f64::from(analytic.to_scalar::<f32>().unwrap());
        assert!((analytic - numeric).abs() < 0.02 * numeric.abs().max(0.5), "{index}: {analytic} for {numeric}");
    }
}

/// Batches of smooth images.
fn images(batch: usize, side: usize, purpose: &str) -> Tensor {
    noise(&[batch, 3, side / 8, side / 8], purpose).upsample_nearest2d(side, side).unwrap()
}

fn targets(images: &Tensor) -> Vec<Tensor> {
    let target = |stride: usize, channels: usize| {
        let pooled = images.avg_pool2d(stride).unwrap().permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
        let matrix = noise(&[3, channels], "matrix");
        pooled
            .broadcast_matmul(
                &matrix.broadcast_as((images.dim(0).unwrap(), pooled.dim(1).unwrap(), 3, channels)).unwrap(),
            )
            .unwrap()
    };
    vec![target(4, 32), target(8, 64), target(16, 128)]
}

/// The norms of a trained file are folded, so the engine computes what the student computed, but for `f16` and the statistics.
#[test]
fn a_student_learns_continues_and_runs_on_the_engine() -> masf_core::Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let (checkpoint, file) = (folder.path().join("checkpoint.safetensors"), folder.path().join("nano.safetensors"));
    let batch = images(4, 48, "images");
    let wanted = targets(&batch);
    let mut student = Trainer::new("masf-nano", 3)?;
    let first = student.step(&batch, &wanted, 2e-3)?;
    for _ in 0..20 {
        student.step(&batch, &wanted, 2e-3)?;
    }
    student.save(&checkpoint, BTreeMap::from([("other".to_owned(), noise(&[2], "other"))]))?;
    let last = student.step(&batch, &wanted, 2e-3)?;
    assert!(first.iter().zip(&last).all(|(first, last)| *last < 0.7 * first), "{first:?} to {last:?}");

    let mut resumed = Trainer::new("masf-nano", 4)?;
    let tensors = resumed.resume(&checkpoint)?;
    assert_eq!(tensors["other"].to_vec1::<f32>()?, noise(&[2], "other").to_vec1::<f32>()?);
    assert_eq!(resumed.step(&batch, &wanted, 2e-3)?, last);
    assert_eq!(resumed.steps(), student.steps());
    let mut negative = tensors.clone();
    for (_, squares) in negative.iter_mut().filter(|(name, _)| name.starts_with("second.")) {
        *squares = squares.neg()?;
    }
    let negative = safetensors::serialize(&negative, Some([("step".to_owned(), "21".to_owned())].into())).unwrap();
    let without: BTreeMap<_, _> = tensors.into_iter().filter(|(name, _)| !name.starts_with("average.")).collect();
    let without = safetensors::serialize(&without, Some([("step".to_owned(), "21".to_owned())].into())).unwrap();
    let cut = std::fs::read(&checkpoint).unwrap();
    let (mut refused, mut untouched) = (Trainer::new("masf-nano", 4)?, Trainer::new("masf-nano", 4)?);
    for (bytes, says) in [(&without[..], "average."), (&negative, "negative"), (&cut[..cut.len() - 8], "")] {
        let broken = folder.path().join("broken.safetensors");
        std::fs::write(&broken, bytes).unwrap();
        let error = refused.resume(&broken).unwrap_err().to_string();
        assert!(error.contains("broken.safetensors") && error.contains(says), "{error}");
    }
    assert_eq!(refused.step(&batch, &wanted, 2e-3)?, untouched.step(&batch, &wanted, 2e-3)?);

    student.export(&file, std::iter::once(Ok(batch.clone())))?;
    let backbone = Backbone::builder("masf-nano")?.build(Weights::read(&file)?)?;
    let pyramid = backbone.extract(&batch).unwrap();
    let of_student = student.evaluate(&batch, &wanted)?;
    for ((level, target), error) in pyramid.levels().iter().zip(&wanted).zip(of_student) {
        let map = level.map.permute((0, 2, 3, 1))?.contiguous()?;
        let found =
            (map - target)?.sqr()?.mean_all()?.to_scalar::<f32>()? / target.sqr()?.mean_all()?.to_scalar::<f32>()?;
        assert!((found - error).abs() < 0.02 * error + 1e-3, "engine {found}, student {error}");
    }
    Ok(())
}

#[test]
fn a_short_batch_weighs_as_many_images_as_it_has() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let mut student = Trainer::new("masf-nano", 5)?;
    let all = images(5, 32, "images");
    let mut statistics = |name: &str, batches: Vec<Tensor>| -> Result<BTreeMap<String, Tensor>> {
        let file = folder.path().join(name);
        student.export(&file, batches.into_iter().map(Ok))?;
        Ok(candle_core::safetensors::load(&file, &Device::Cpu)?.into_iter().collect())
    };
    // A norm changes what follows with the batch, so only the first layer sees the same in any batches.
    let (whole, parts) = (
        statistics("whole", vec![all.clone()])?,
        statistics("parts", vec![all.narrow(0, 0, 4)?, all.narrow(0, 4, 1)?])?,
    );
    for name in ["stem.bn.running_mean", "stem.bn.running_var"] {
        assert_close(&parts[name], &whole[name], name);
    }
    Ok(())
}

#[test]
fn targets_are_centred_and_keep_distances() -> Result<()> {
    let file = |name: &str| -> Result<Backbone> {
        // A student's file serves as a teacher here.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("teacher.safetensors");
        Trainer::new("masf-nano", name.len() as u64)?.export(&path, std::iter::once(Ok(images(4, 64, name))))?;
        Backbone::builder("masf-nano")?.load(&path)
    };
    let batch = images(8, 64, "images");
    let batches = || std::iter::once(Ok(batch.clone()));
    // All components of 64 + 64 channels: the projection is a rotation and a scale.
    let teacher = Teacher::fit(vec![file("one")?, file("other")?], (&[8], &[128]), batches(), 0)?;
    let targets = teacher.targets(&batch)?.remove(0).reshape(((), 128))?;
    let mean = targets.mean(0)?.abs()?.max_all()?.to_scalar::<f32>()?;
    let variance = targets.sqr()?.mean_all()?.to_scalar::<f32>()?;
    assert!(mean < 1e-3 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
    let restored = Teacher::restore(vec![file("one")?, file("other")?], &[8], &teacher.tensors())?;
    assert_eq!(
        restored.targets(&batch)?.remove(0).flatten_all()?.to_vec1::<f32>()?,
        targets.flatten_all()?.to_vec1::<f32>()?
    );
    let swapped = Teacher::restore(vec![file("other")?, file("one")?], &[8], &teacher.tensors()).unwrap_err();
    assert_eq!(swapped.fault(), Fault::Argument, "{swapped}");

    // Fewer components keep most of the variance: the best subspace is found.
    let few = Teacher::fit(vec![file("one")?], (&[8], &[6]), batches(), 0)?;
    let few = few.targets(&batch)?.remove(0);
    let per_channel: Vec<f32> = few.reshape(((), 6))?.sqr()?.mean(0)?.to_vec1()?;
    assert!(per_channel.windows(2).all(|pair| pair[0] >= pair[1] * 0.999), "{per_channel:?}");
    assert!(Teacher::fit(Vec::new(), (&[8], &[6]), batches(), 0).is_err());
    for (strides, channels, side, fault) in [
        (vec![4usize, 8, 16], vec![32usize, 64], 64, Fault::Argument),
        (vec![32], vec![6], 64, Fault::Argument),
        (vec![8], vec![6], 16, Fault::Data),
    ] {
        let batches = std::iter::once(Ok(images(1, side, "images")));
        let error = Teacher::fit(vec![file("one")?], (&strides, &channels), batches, 0).unwrap_err();
        assert_eq!(error.fault(), fault, "{error}");
    }
    Ok(())
}

#[test]
fn the_rate_rises_stays_and_falls() {
    let schedule = Schedule { rate: 1.0, warmup: 10, descent: 50, end: 100 };
    assert!(schedule.at(0) < 0.11 && schedule.at(9) == 1.0 && schedule.at(49) == 1.0);
    assert!(
        (schedule.at(75) - 0.505).abs() < 1e-6
            && (schedule.at(100) - 0.01).abs() < 1e-6
            && (schedule.at(500) - 0.01).abs() < 1e-6
    );
    assert!((50..100).all(|step| schedule.at(step + 1) < schedule.at(step)));
}
