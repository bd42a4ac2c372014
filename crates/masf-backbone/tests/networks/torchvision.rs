//! The ResNets against torchvision: same weights, same image, feature maps computed in `f64` by
//! `tests/reference/backbone_torchvision.py`.

use crate::common;

use std::collections::BTreeMap;

use candle_core::Tensor;
use masf_backbone::{Backbone, Weights};
use masf_core::{FeatureExtractor, Result};

#[derive(serde::Deserialize)]
struct Map {
    shape: Vec<usize>,
    corner: Vec<f32>,
    mean: Vec<f32>,
    std: Vec<f32>,
}

fn reference() -> BTreeMap<String, BTreeMap<String, Map>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/backbone_torchvision.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Relative to the largest value expected: `f32` sums of up to 18432 terms in up to 101 layers.
#[track_caller]
fn assert_close(found: &Tensor, expected: &[f32], what: &str) {
    let found = found.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0f32, |scale, x| scale.max(x.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-4 * scale, "{what}: {found} instead of {expected} (scale {scale})");
    }
}

fn check(network: &str) -> Result<()> {
    let reference = &reference()[network];
    let mut tensors = common::tensors(network);
    // What torchvision's files hold besides is ignored.
    tensors.insert("fc.weight".into(), Tensor::zeros((1000, 8), candle_core::DType::F32, &candle_core::Device::Cpu)?);
    tensors.insert("bn1.num_batches_tracked".into(), Tensor::new(7i64, &candle_core::Device::Cpu)?);
    let weights = Weights::from_bytes(&common::file(&tensors), "generated")?;
    drop(tensors);
    let backbone = Backbone::builder(network)?.build(weights)?;
    let pyramid = backbone.extract(&common::images(1, 96, 64))?;
    assert_eq!(pyramid.levels().len(), 4);
    for (level, layer) in pyramid.levels().iter().zip(["layer1", "layer2", "layer3", "layer4"]) {
        let expected = &reference[layer];
        let map = level.map.squeeze(0)?.contiguous()?;
        assert_eq!(map.dims(), expected.shape);
        let (_, height, width) = map.dims3()?;
        let corner = map.narrow(0, 0, 4)?.narrow(1, 0, height.min(2))?.narrow(2, 0, width.min(4))?;
        assert_close(&corner, &expected.corner, &format!("{network} {layer}"));
        let described = map.narrow(0, 0, expected.mean.len())?.flatten_from(1)?;
        let mean = described.mean_keepdim(1)?;
        let std = described.broadcast_sub(&mean)?.sqr()?.mean(1)?.sqrt()?;
        assert_close(&mean, &expected.mean, &format!("{network} {layer}, mean"));
        assert_close(&std, &expected.std, &format!("{network} {layer}, standard deviation"));
    }
    Ok(())
}

#[test]
fn small_networks() -> Result<()> {
    ["resnet18", "resnet34", "resnet50"].into_iter().try_for_each(check)
}

#[test]
fn large_networks() -> Result<()> {
    ["resnet101", "wide-resnet50-2", "wide-resnet101-2"].into_iter().try_for_each(check)
}
