//! The references of `tests/reference/backbone_dinov2.py`, and the weights that they were computed with. Shared by unit and
//! integration tests.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::noise::noise;

#[derive(serde::Deserialize)]
pub(crate) struct Network {
    /// SHA-256 over names and shapes.
    #[allow(dead_code, reason = "the integration tests compare it")]
    pub(crate) tensors: String,
    maps: Vec<Map>,
}

#[derive(serde::Deserialize)]
pub(crate) struct Map {
    size: [usize; 2],
    layer: String,
    shape: Vec<usize>,
    corner: Vec<f32>,
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl Network {
    /// The reference of a layer for an image size.
    pub(crate) fn map(&self, size: [usize; 2], layer: &str) -> &Map {
        self.maps.iter().find(|map| map.size == size && map.layer == layer).unwrap()
    }
}

pub(crate) fn reference() -> BTreeMap<String, Network> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/backbone_dinov2.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The values of a tensor.
pub(crate) fn value(name: &str, shape: &[usize]) -> impl Iterator<Item = f32> {
    let gain = (3.0 / shape.iter().skip(1).product::<usize>() as f64).sqrt();
    let vector = shape.len() == 1;
    let kind = name.rsplit('.').next().unwrap_or_default().to_owned();
    noise(name, shape.iter().product()).map(move |u| {
        let value = match kind.as_str() {
            "gamma" => 0.25 + 0.0625 * u,
            "bias" => 0.125 * u,
            _ if vector => 1.0 + 0.25 * u,
            "weight" => u * gain,
            _ => u,
        };
        value as f32
    })
}

/// The image `[1, 3, height, width]` of a size.
pub(crate) fn image([height, width]: [usize; 2]) -> Tensor {
    let pixels = noise("image", 3 * height * width).map(|u| (2.0 * u) as f32);
    Tensor::from_iter(pixels, &Device::Cpu).unwrap().reshape((1, 3, height, width)).unwrap()
}

/// Relative to the largest value expected.
#[track_caller]
fn assert_close(found: &Tensor, expected: &[f32], what: &str) {
    let found = found.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0f32, |scale, x| scale.max(x.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-4 * scale, "{what}: {found} instead of {expected} (scale {scale})");
    }
}

/// Compares the map `[1, C, h, w]` of an image.
#[track_caller]
pub(crate) fn assert_map(expected: &Map, found: &Tensor) {
    let what = format!("{:?} {}", expected.size, expected.layer);
    let map = found.squeeze(0).unwrap().contiguous().unwrap();
    assert_eq!(map.dims(), expected.shape, "{what}");
    let corner = map.narrow(0, 0, 4).unwrap().narrow(1, 0, 2).unwrap();
    let corner = corner.narrow(2, 0, expected.shape[2].min(3)).unwrap();
    assert_close(&corner, &expected.corner, &what);
    let described = map.narrow(0, 0, expected.mean.len()).unwrap().flatten_from(1).unwrap();
    let mean = described.mean_keepdim(1).unwrap();
    let std = described.broadcast_sub(&mean).unwrap().sqr().unwrap().mean(1).unwrap().sqrt().unwrap();
    assert_close(&mean, &expected.mean, &format!("{what}, mean"));
    assert_close(&std, &expected.std, &format!("{what}, standard deviation"));
}
