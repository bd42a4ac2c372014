//! A vision transformer as the backbone of a detector: four levels at one stride, on random weights.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use masf::backbone::{Backbone, BackboneError, Problem, Weights};
use masf::{Config, Detector, Result, Silent};
use masf_tests::{quick_config, training_images};

/// A file of weights that keep tokens different from each other.
fn weights(name: &str, folder: &std::path::Path) -> Result<std::path::PathBuf> {
    let empty = safetensors::serialize(HashMap::<String, Tensor>::new(), None).expect("a file");
    let error = Backbone::builder(name)?.build(Weights::from_bytes(&empty, "nothing")?).expect_err("nothing is there");
    let BackboneError::Weights { problems, .. } = error else { return Err(error.into()) };
    let mut tensors = HashMap::new();
    for problem in problems.0 {
        let Problem::Missing { name, shape } = problem else { continue };
        let (mean, deviation) = match shape.len() {
            1 if name.ends_with("bias") => (0.0, 0.0),
            1 => (1.0, 0.0),
            2 => (0.0, (1.0 / shape[1] as f32).sqrt()),
            4 => (0.0, 0.05),
            _ => (0.0, 0.2),
        };
        let count: usize = shape.iter().product();
        // A Weyl sequence: equidistributed and cheap.
        let values = (0..count)
            .map(|i| mean + deviation * 1.7 * ((i as f64 * 0.618_033_988_749_895).fract() as f32 * 2.0 - 1.0));
        tensors.insert(name, Tensor::from_iter(values, &Device::Cpu)?.reshape(shape)?.to_dtype(DType::F16)?);
    }
    let path = folder.join("weights.safetensors");
    std::fs::write(&path, safetensors::serialize(&tensors, None).expect("a file")).expect("written");
    Ok(path)
}

#[test]
fn a_transformer_serves_a_detector() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let name = "dinov2-vits14-reg4";
    let mut config = Config { memory: quick_config().memory, ..Config::for_backbone(name) };
    config.input.size = masf::Size::new(126, 112);
    let weights = weights(name, folder.path())?;
    let backbone = masf::open_backbone(&config.backbone, Some(&weights), &Silent)?;
    assert_eq!(backbone.levels().len(), 4);
    let images: Vec<_> = training_images()?.into_iter().take(8).collect();
    let detector = Detector::builder().config(config.clone()).backbone(backbone).fit(&images)?;

    let path = folder.path().join("model.masf");
    detector.save(&path)?;
    let again = Detector::load(&path)?;
    for image in &images[..2] {
        let (found, expected) = (again.inspect(image)?, detector.inspect(image)?);
        assert_eq!(found.image_score.to_bits(), expected.image_score.to_bits());
        assert_eq!(found.anomaly_map, expected.anomaly_map);
        assert_eq!(found.anomaly_map.dim(), (126, 112));
    }

    // A size that is not whole patches is refused with those that are.
    config.input.size = masf::Size::square(128);
    let backbone = masf::open_backbone(&config.backbone, Some(&weights), &Silent)?;
    let error =
        Detector::builder().config(config).backbone(backbone).fit(&images).expect_err("128 is no multiple of 14");
    assert!(error.to_string().contains("a height of 126 or 140"), "{error}");
    Ok(())
}
