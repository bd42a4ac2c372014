//! The networks with their real weights against the reference values that came with them.
//!
//! Runs when `MASF_EVAL_DIR` names a folder with `weights/`.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;

use candle_core::{Device, Result as CandleResult, Tensor};
use masf::backbone::{Backbone, BackboneError};
use masf::core::Normalisation;
use masf::{Error, Fault, FeatureExtractor, Result};

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("MASF_EVAL_DIR").map(|dir| PathBuf::from(dir).join("weights"));
    let folder = folder.filter(|folder| folder.is_dir());
    if folder.is_none() {
        let _ = writeln!(std::io::stderr(), "skipped: MASF_EVAL_DIR names no folder with weights/");
    }
    folder
}

/// The ramp image that the reference values were computed from, normalised: `[1, 3, 224, 224]`.
fn ramp(Normalisation { mean, std }: Normalisation) -> CandleResult<Tensor> {
    let pixel = |c: usize, h: usize, w: usize| ((c * 31 + h * 7 + w * 3) % 256) as f64 / 255.0;
    let plane = |c: usize| (0..224 * 224).map(move |i| (pixel(c, i / 224, i % 224) - mean[c] as f64) / std[c] as f64);
    Tensor::from_iter((0..3).flat_map(plane).map(|x| x as f32), &Device::Cpu)?.reshape((1, 3, 224, 224))
}

fn largest_difference(a: &Tensor, b: &Tensor) -> CandleResult<f32> {
    (a.contiguous()? - b.contiguous()?)?.abs()?.max_all()?.to_scalar()
}

/// Compares the default maps' first channels, and mean and standard deviation of every intermediate map.
fn check(name: &str, file: &str, tolerance: f32, intermediate: usize) -> Result<()> {
    let Some(folder) = folder() else { return Ok(()) };
    let weights = folder.join(format!("{file}.safetensors"));
    let reference = folder.join(format!("{file}.reference.safetensors"));
    let reference: HashMap<String, Tensor> = candle_core::safetensors::load(reference, &Device::Cpu)?;
    let backbone = Backbone::builder(name)?.load(&weights)?;
    let known = masf_models::find(name).and_then(|model| model.weights?.sha256);
    assert_eq!(Some(backbone.weights_sha256()), known);

    let image = ramp(backbone.normalisation())?;
    let corner = image.squeeze(0)?.narrow(1, 0, 4)?.narrow(2, 0, 8)?;
    assert!(largest_difference(&corner, &reference["input_corner"])? < 1e-5);
    let pyramid = backbone.extract(&image)?;
    let mut compared = 0;
    for level in pyramid.levels() {
        let expected = &reference[&format!("stride{}", level.spec.stride)];
        let found = level.map.squeeze(0)?.narrow(0, 0, expected.dim(0)?)?;
        let difference = largest_difference(&found, expected)?;
        assert!(difference < tolerance, "{name}, stride {}: {difference}", level.spec.stride);
        compared += 1;
    }
    assert_eq!(compared, reference.keys().filter(|key| key.starts_with("stride")).count());

    let mut compared = 0;
    for (key, mean) in &reference {
        let Some(layer) = key.strip_prefix("channel_mean.") else { continue };
        // The projection of a block with a skip is fused with the addition and is no value of its own.
        let backbone = match Backbone::builder(name)?.layers(&[layer]).load(&weights) {
            Err(BackboneError::Argument { what: "layer", .. }) => continue,
            backbone => backbone?,
        };
        let pyramid = backbone.extract(&image)?;
        let map = pyramid.levels()[0].map.contiguous()?.squeeze(0)?.flatten_from(1)?;
        let found_mean = map.mean(1)?;
        let found_std = map.broadcast_sub(&found_mean.unsqueeze(1)?)?.sqr()?.mean(1)?.sqrt()?;
        let difference = largest_difference(&found_mean, mean)?;
        assert!(difference < tolerance, "{name}, mean of {layer}: {difference}");
        let difference = largest_difference(&found_std, &reference[&format!("channel_std.{layer}")])?;
        assert!(difference < tolerance, "{name}, standard deviation of {layer}: {difference}");
        compared += 1;
    }
    assert_eq!(compared, intermediate, "intermediate maps of {name}");
    Ok(())
}

#[test]
fn mobilenet_v2() -> Result<()> {
    check("mobilenet-v2", "mobilenet_v2_f32", 1e-3, 18 + 1 + 16 + 17 + 7)
}

#[test]
fn mobilenet_v2_tf() -> Result<()> {
    check("mobilenet-v2-tf", "mobilenet_v2", 1e-3, 18 + 1 + 16 + 17 + 7)
}

#[test]
fn resnet50_v2() -> Result<()> {
    check("resnet50-v2", "resnet50_v2_layers123", 1e-4, 1 + 13 + 3)
}

#[test]
fn a_known_file_is_not_taken_for_another_network() -> Result<()> {
    let Some(folder) = folder() else { return Ok(()) };
    // The two MobileNets have the same tensors and differ in padding and normalisation.
    for (name, file, other) in [
        ("mobilenet-v2", "mobilenet_v2.safetensors", "`mobilenet-v2-tf`"),
        ("mobilenet-v2-tf", "mobilenet_v2_f32.safetensors", "`mobilenet-v2`"),
        ("resnet18", "resnet50_v2_layers123.safetensors", "`resnet50-v2`"),
    ] {
        let error = Backbone::builder(name)?.load(&folder.join(file)).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, BackboneError::Weights { .. }), "{message}");
        assert!(message.contains(&format!("does not fit `{name}`")) && message.contains(other), "{message}");
        assert!(matches!(Error::from(error).fault(), Fault::Model));
    }
    Ok(())
}
