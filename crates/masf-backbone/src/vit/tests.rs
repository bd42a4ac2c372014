//! Shallow networks against timm, at several image sizes, and how the parts are named. References are made by
//! `tests/reference/backbone_dinov2.py`.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::*;
use crate::weights::Weights;

#[path = "../../tests/networks/noise.rs"]
mod noise;
#[path = "../../tests/networks/dinov2_reference.rs"]
mod reference;

use reference::{assert_map, image, reference, value};

fn small(registers: usize) -> Blueprint {
    let config = Config { width: 24, depth: 3, heads: 2, registers, patch: 14, grid: 5 };
    Blueprint::new(config, ["blocks.0", "blocks.0.norm", "blocks.2", "blocks.2.norm"].map(str::to_owned).to_vec())
}

fn weights(blueprint: &Blueprint) -> Weights {
    let tensor = |needed: crate::weights::Requirement| {
        let tensor = Tensor::from_iter(value(&needed.name, &needed.shape), &Device::Cpu).unwrap();
        (needed.name, tensor.reshape(needed.shape).unwrap())
    };
    let tensors: BTreeMap<_, _> = blueprint.requirements().into_iter().map(tensor).collect();
    Weights::from_parts(tensors, String::new(), "generated".into())
}

#[test]
fn shallow_networks_equal_timm_at_any_size() {
    for registers in [0, 4] {
        let blueprint = small(registers);
        let transformer = blueprint.assemble(&weights(&blueprint), &Device::Cpu).unwrap();
        let reference = &reference()[&format!("small-{registers}")];
        for size in [[70, 70], [42, 98], [154, 28], [126, 140]] {
            let maps = transformer.run(&image(size)).unwrap();
            assert_eq!(maps.len(), blueprint.maps().len());
            for (layer, map) in blueprint.maps().iter().zip(&maps) {
                assert_map(reference.map(size, layer), map);
            }
        }
    }
}

#[test]
fn the_selected_part_is_enough() {
    let whole = small(4);
    let part = whole.select(&["blocks.0".to_owned()]);
    let names: Vec<String> = part.requirements().into_iter().map(|needed| needed.name).collect();
    assert!(names.iter().any(|name| name == "blocks.0.ls2.gamma"), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("blocks.1") || name.starts_with("norm")), "{names:?}");
    let image = image([56, 70]);
    let run = |blueprint: &Blueprint| {
        let maps = blueprint.assemble(&weights(blueprint), &Device::Cpu).unwrap().run(&image).unwrap();
        maps[0].flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(run(&part), run(&whole));
}

#[test]
fn layers_have_one_name_each() {
    let blueprint = small(0);
    for name in blueprint.names() {
        assert!(blueprint.layer(&name).is_some(), "{name}");
    }
    for name in ["blocks.3", "blocks.+1", "blocks.01", "blocks.", "blocks.1.norm1", "norm", "block.1", "blocks.-1"] {
        assert_eq!(blueprint.layer(name), None, "{name}");
    }
    assert!(blueprint.layer("blocks.1").unwrap() < blueprint.layer("blocks.1.norm").unwrap());
    assert!(blueprint.layer("blocks.1.norm").unwrap() < blueprint.layer("blocks.2").unwrap());
}
