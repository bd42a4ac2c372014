//! The engine against plain Candle operations, every network of the registry.

use std::io::Write;

use candle_core::{Device, Tensor};
use masf_core::FeatureExtractor as _;
use rayon::prelude::*;

use super::Backbone;
use super::executor::Executor;
use crate::engine::Precision;
use crate::networks::{self, Blueprint, Network};
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

/// Distinct images.
fn images(batch: usize, height: usize, width: usize) -> Tensor {
    let pixels = (0..batch * 3 * height * width).map(|i| ((i * 7919) % 509) as f32 / 127.0 - 2.0);
    Tensor::from_iter(pixels, &Device::Cpu).unwrap().reshape((batch, 3, height, width)).unwrap()
}

/// Both executors of one network.
struct Pair {
    name: &'static str,
    engine: Executor,
    oracle: Executor,
}

impl Pair {
    fn new(name: &'static str, network: &Blueprint) -> Self {
        let graph = network.assemble(&weights(&network.requirements()), &Device::Cpu).unwrap();
        let oracle = Executor::Candle(graph.clone());
        let engine = Executor::of_graph(graph, &Device::Cpu, Precision::F32).unwrap();
        assert!(matches!(engine, Executor::Engine(_)));
        Self { name, engine, oracle }
    }

    /// Compares every tap of five images in one batch, and of the first one alone; `distinct` of the five differ, which
    /// bounds the work of the oracle.
    fn check(&self, (height, width): (usize, usize), distinct: usize) {
        let some = images(distinct, height, width);
        let five: Vec<Tensor> = (0..5).map(|i| some.narrow(0, i % distinct, 1).unwrap()).collect();
        let five = self.engine.run(&Tensor::cat(&five, 0).unwrap()).unwrap();
        let one = self.engine.run(&some.narrow(0, 0, 1).unwrap()).unwrap();
        let expected = self.oracle.run(&some).unwrap();
        assert_eq!((five.len(), one.len()), (expected.len(), expected.len()), "{}", self.name);
        for ((five, one), expected) in five.iter().zip(&one).zip(&expected) {
            let of = |image: usize| expected.narrow(0, image % distinct, 1).unwrap();
            self.assert_close(one, &of(0));
            assert_eq!(five.dim(0).unwrap(), 5);
            (0..5).for_each(|image| self.assert_close(&five.narrow(0, image, 1).unwrap(), &of(image)));
        }
    }

    fn assert_close(&self, found: &Tensor, expected: &Tensor) {
        assert_eq!(found.dims(), expected.dims(), "{}", self.name);
        let largest = |x: &Tensor| x.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        let scale = largest(expected);
        let difference = largest(&(found.contiguous().unwrap() - expected).unwrap()) / scale;
        let shape = expected.dims();
        assert!(scale > 0.0 && difference < 1e-4, "{}, {shape:?}: {difference} (scale {scale})", self.name);
    }
}

/// Every convolutional network.
fn registered() -> impl Iterator<Item = (&'static str, Blueprint)> {
    masf_models::MODELS.iter().filter_map(|model| match networks::find(model.name) {
        Ok((_, Network::Convolutional(network))) => Some((model.name, network)),
        _ => None,
    })
}

const SIZES: [(usize, usize); 4] = [(224, 224), (256, 256), (320, 320), (257, 193)];

/// The networks of each kind that are small, at every size.
#[test]
fn the_engine_equals_candle_at_every_size() {
    let small = ["masf-nano", "resnet18", "resnet50-v2", "mobilenet-v2", "mobilenet-v2-tf"];
    for (name, network) in registered().filter(|(name, _)| small.contains(name)) {
        let pair = Pair::new(name, &network);
        SIZES.into_iter().for_each(|size| pair.check(size, 2));
    }
}

/// Every network, at the odd size.
#[test]
fn the_engine_equals_candle_on_every_network() {
    registered().for_each(|(name, network)| Pair::new(name, &network).check((257, 193), 1));
}

/// Every network, every layer that can be chosen as a map.
#[test]
fn the_engine_equals_candle_on_every_layer() {
    for (name, network) in registered() {
        let layers = network.names();
        Pair::new(name, &network.select(&layers)).check((65, 97), 1);
    }
}

/// Every network at every size with five images that all differ: minutes, so on request only.
#[test]
fn the_engine_equals_candle_on_the_full_product() {
    if std::env::var_os("MASF_EVAL_FULL").is_none() {
        let _ = writeln!(std::io::stderr(), "skipped: MASF_EVAL_FULL is not set");
        return;
    }
    for (name, network) in registered() {
        let pair = Pair::new(name, &network);
        for size in SIZES {
            pair.check(size, 5);
            let _ = writeln!(std::io::stderr(), "{name}, {size:?}: equal");
        }
    }
}

/// What the default backbone promises: small, and cheap.
#[test]
#[cfg(feature = "embedded")]
fn the_embedded_network_is_small() {
    let (_, network) = registered().find(|(name, _)| *name == "masf-nano").unwrap();
    let strides: Vec<_> =
        network.maps().iter().filter_map(|name| network.layer(name)).map(|layer| layer.stride).collect();
    assert_eq!(strides, [4, 8, 16]);
    let weights = Weights::embedded("masf-nano").unwrap().unwrap();
    let graph = network.assemble(&weights, &Device::Cpu).unwrap();
    let operations = 2 * crate::engine::Engine::new(&graph).unwrap().multiply_adds(256, 256).unwrap();
    assert!((500_000_000..=600_000_000).contains(&operations), "{operations}");
    let known = masf_models::find("masf-nano").and_then(|model| model.weights?.sha256);
    assert_eq!(Some(weights.sha256()), known);
    assert!(masf_models::embedded("masf-nano").is_some_and(|file| file.len() <= 4 << 20));
    // Its description tells of the weights, not every one of them.
    let backbone = Backbone::builder("masf-nano").unwrap().embedded().unwrap();
    let described = || format!("{backbone:?}").len();
    let before = described();
    backbone.extract(&images(1, 64, 64)).unwrap();
    assert!(before.max(described()) < 1_000_000, "{before}, then {}", described());
}

#[test]
fn the_list_of_models_gives_their_levels() {
    let list = include_str!("../../../../models/README.md");
    for (name, network) in registered() {
        let levels = Network::Convolutional(network).levels();
        let levels: Vec<_> = levels.iter().map(|level| format!("{} at {}", level.channels, level.stride)).collect();
        let levels = format!("| {} |", levels.join(", "));
        let row = list.lines().find(|line| line.starts_with(&format!("| `{name}` ")));
        assert!(row.is_some_and(|row| row.contains(&levels)), "{name}: {levels} for {row:?}");
    }
}

#[test]
fn a_released_backbone_gives_the_same_bits() {
    let (name, blueprint) = registered().find(|(name, _)| *name == "mobilenet-v2").unwrap();
    let builder = Backbone::builder(name).unwrap().strides(&[8, 16]);
    let backbone = builder.build(weights(&blueprint.requirements())).unwrap();
    let image = images(1, 64, 96);
    let values = || -> Vec<Vec<f32>> {
        let pyramid = backbone.extract(&image).unwrap();
        pyramid.levels().iter().map(|level| level.map.flatten_all().unwrap().to_vec1().unwrap()).collect()
    };
    let before = values();
    backbone.release();
    assert_eq!(values(), before);
    std::thread::scope(|scope| {
        let found: Vec<_> = (0..3).map(|_| scope.spawn(values)).collect();
        backbone.release();
        found.into_iter().for_each(|found| assert_eq!(found.join().unwrap(), before));
    });
}

/// Parts of an executor that a thread outside of the pool makes wait for threads of the pool, which all want that executor.
#[test]
fn a_released_backbone_is_made_again_within_the_pool_and_outside() {
    let (name, blueprint) = registered().find(|(name, _)| *name == "mobilenet-v2").unwrap();
    let backbone = Backbone::builder(name).unwrap().build(weights(&blueprint.requirements())).unwrap();
    let image = images(1, 32, 32);
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let extract = || drop(backbone.extract(&image).unwrap());
        for _ in 0..3 {
            backbone.release();
            std::thread::scope(|scope| {
                scope.spawn(extract);
                std::thread::sleep(std::time::Duration::from_millis(1));
                let calls = 2 * rayon::current_num_threads();
                (0..calls).into_par_iter().with_max_len(1).for_each(|_| extract());
            });
        }
        done.send(()).unwrap();
    });
    assert!(finished.recv_timeout(std::time::Duration::from_secs(60)).is_ok(), "the threads wait for each other");
}
