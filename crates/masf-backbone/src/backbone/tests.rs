//! The engine against plain Candle operations, every network of the registry.

use candle_core::{Device, Tensor};

use super::executor::Executor;
use crate::networks;
use crate::weights::Weights;

/// Weights that keep values bounded: unit gain in convolutions, batch norms near the identity.
fn weights(requirements: &[crate::weights::Requirement]) -> Weights {
    let mut state = 1u64;
    let mut noise = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let tensors = requirements.iter().map(|needed| {
        let fan_in: usize = needed.shape.iter().skip(1).product();
        let gain = if needed.shape.len() == 4 { (6.0 / fan_in as f32).sqrt() } else { 0.125 };
        let offset = if needed.non_negative { 1.0 } else { 0.0 };
        let damping = if needed.name.contains("bn") || needed.name.ends_with("scale") { 0.5 } else { 0.0 };
        let values = (0..needed.shape.iter().product()).map(|_| gain * noise() + f32::max(offset, damping));
        let values: Vec<f32> = values.collect();
        (needed.name.clone(), Tensor::from_vec(values, needed.shape.as_slice(), &Device::Cpu).unwrap())
    });
    Weights::from_parts(tensors.collect(), String::new(), "generated".into())
}

fn images(batch: usize, height: usize, width: usize) -> Tensor {
    let pixels = (0..batch * 3 * height * width).map(|i| ((i * 7919) % 509) as f32 / 127.0 - 2.0);
    Tensor::from_iter(pixels, &Device::Cpu).unwrap().reshape((batch, 3, height, width)).unwrap()
}

fn compare(name: &str, sizes: &[(usize, usize, usize)]) {
    let (_, network) = networks::find(name).unwrap();
    let graph = network.assemble(&weights(&network.requirements()), &Device::Cpu).unwrap();
    let oracle = Executor::Candle(graph.clone());
    let engine = Executor::new(graph, &Device::Cpu).unwrap();
    assert!(matches!(engine, Executor::Engine(_)));
    for &(batch, height, width) in sizes {
        let images = images(batch, height, width);
        let (found, expected) = (engine.run(&images).unwrap(), oracle.run(&images).unwrap());
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.dims(), expected.dims(), "{name}");
            let largest =
                |x: &Tensor| x.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
            let scale = largest(expected);
            let difference = largest(&(found.contiguous().unwrap() - expected).unwrap()) / scale;
            let shape = expected.dims();
            assert!(scale > 0.0 && difference < 1e-4, "{name}, {shape:?}: {difference} (scale {scale})");
        }
    }
}

#[test]
fn the_engine_equals_candle() {
    for model in masf_models::MODELS.iter().filter(|model| model.weights.is_some()) {
        compare(model.name, &[(2, 97, 65)]);
    }
    // The usual size, for one network of each kind.
    for name in ["resnet18", "resnet50-v2", "mobilenet-v2", "mobilenet-v2-tf"] {
        compare(name, &[(1, 224, 224)]);
    }
}

/// What the default backbone promises: small, and cheap.
#[test]
#[cfg(feature = "embedded")]
fn the_embedded_network_is_small() {
    let (_, network) = networks::find("masf-nano").unwrap();
    let maps: Vec<_> = network.maps().map(|(_, stride)| stride).collect();
    assert_eq!(maps, [4, 8, 16]);
    let weights = Weights::embedded("masf-nano").unwrap().unwrap();
    let graph = network.assemble(&weights, &Device::Cpu).unwrap();
    let operations = 2 * crate::engine::Engine::new(&graph).unwrap().multiply_adds(256, 256).unwrap();
    assert!((500_000_000..=600_000_000).contains(&operations), "{operations}");
    let known = masf_models::find("masf-nano").and_then(|model| model.weights?.sha256);
    assert_eq!(Some(weights.sha256()), known);
    assert!(masf_models::embedded("masf-nano").is_some_and(|file| file.len() <= 4 << 20));
}
