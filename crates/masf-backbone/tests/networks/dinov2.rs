//! The vision transformers against timm: same weights, same image, maps computed in `f64` by
//! `tests/reference/backbone_dinov2.py`; and what they promise as backbones.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use masf_backbone::{Backbone, Precision, Weights};
use masf_core::artifact::{ModelFile, ReadOptions, Registry, SaveOptions, save};
use masf_core::{Fault, FeatureExtractor, FeaturePyramid, LevelSpec, Result};
use sha2::{Digest, Sha256};

use crate::common::{self, requirements};
use crate::noise;

#[path = "dinov2_reference.rs"]
mod reference;

fn tensors(network: &str) -> HashMap<String, Tensor> {
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let tensor = Tensor::from_iter(reference::value(&name, &shape), &Device::Cpu).unwrap();
        (name, tensor.reshape(shape).unwrap())
    };
    requirements(network).into_iter().map(tensor).collect()
}

fn weights(network: &str) -> Result<Weights> {
    Ok(Weights::from_bytes(&common::file(&tensors(network)), "generated")?)
}

fn check(network: &str) -> Result<()> {
    let reference = &reference::reference()[network];
    let mut lines: Vec<String> =
        requirements(network).iter().map(|(name, shape)| format!("{name} {shape:?}")).collect();
    lines.sort();
    let digest = Sha256::digest(lines.join("\n"));
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, reference.tensors, "names and shapes of {network}");

    let layers = ["blocks.5", "blocks.5.norm", "blocks.11", "blocks.11.norm"];
    let backbone = Backbone::builder(network)?.layers(&layers).build(weights(network)?)?;
    let size = [56, 84];
    let pyramid = backbone.extract(&reference::image(size))?;
    assert_eq!(pyramid.levels().len(), layers.len());
    for (level, layer) in pyramid.levels().iter().zip(layers) {
        reference::assert_map(reference.map(size, layer), &level.map);
    }
    Ok(())
}

#[test]
fn vit_s() -> Result<()> {
    ["dinov2-vits14", "dinov2-vits14-reg4"].into_iter().try_for_each(check)
}

#[test]
fn vit_b() -> Result<()> {
    ["dinov2-vitb14", "dinov2-vitb14-reg4"].into_iter().try_for_each(check)
}

fn bits(pyramid: &FeaturePyramid) -> Vec<Vec<u32>> {
    let values = |map: &Tensor| map.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    pyramid.levels().iter().map(|level| values(&level.map).into_iter().map(f32::to_bits).collect()).collect()
}

#[test]
fn features_do_not_depend_on_batch_or_threads() -> Result<()> {
    let backbone = Backbone::builder("dinov2-vits14-reg4")?.strides(&[14]).build(weights("dinov2-vits14-reg4")?)?;
    let spec = LevelSpec { stride: 14, channels: 384 };
    assert_eq!(backbone.levels(), [spec; 4]);
    assert_eq!(backbone.layers(), ["blocks.2.norm", "blocks.5.norm", "blocks.8.norm", "blocks.11.norm"]);
    let images = common::images(3, 84, 126);
    let together = backbone.extract(&images)?;
    assert_eq!(together.levels()[3].map.dims(), [3, 384, 6, 9]);
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for image in 0..3 {
            let alone = pool.install(|| backbone.extract(&images.narrow(0, image, 1)?))?;
            assert_eq!(bits(&alone), bits(&together.image(image)?), "image {image}, {threads} threads");
        }
    }
    Ok(())
}

#[test]
fn a_read_back_transformer_gives_the_same_bits() -> Result<()> {
    let layers = ["blocks.3.norm", "blocks.1"];
    let half = |(name, tensor): (String, Tensor)| Ok((name, tensor.to_dtype(DType::F16)?));
    let file = common::file(&tensors("dinov2-vits14").into_iter().map(half).collect::<Result<_>>()?);
    let backbone =
        Backbone::builder("dinov2-vits14")?.layers(&layers).build(Weights::from_bytes(&file, "generated")?)?;
    assert_eq!(backbone.layers(), ["blocks.1", "blocks.3.norm"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backbone.masf");
    save(&backbone, &path, SaveOptions::default())?;
    // Four of twelve blocks, and the positions.
    let bytes = std::fs::metadata(&path).unwrap().len();
    assert!((14_000_000..18_000_000).contains(&bytes), "{bytes}");
    let registry = Registry::new().with_backbone::<Backbone>(Backbone::TAG);
    let again = registry.backbone(&ModelFile::open(&path, ReadOptions::default())?.root()?)?;
    let images = common::images(2, 42, 56);
    assert_eq!(bits(&again.extract(&images)?), bits(&backbone.extract(&images)?));
    Ok(())
}

#[test]
fn sizes_that_are_not_whole_patches_are_refused_with_those_that_work() -> Result<()> {
    let backbone = Backbone::builder("dinov2-vits14")?.layers(&["blocks.0"]).build(weights("dinov2-vits14")?)?;
    for (height, width, part) in [
        (256, 256, "a height of 252 or 266 and a width of 252 or 266"),
        (252, 100, "a height of 252 and a width of 98 or 112"),
        (40, 42, "a height of 42 and a width of 42"),
    ] {
        let error = backbone.extract(&common::images(1, height, width)).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(error.fault(), Fault::Data);
    }
    let rounded = Backbone::builder("dinov2-vits14")?.precision(Precision::Bf16).build(weights("dinov2-vits14")?);
    assert!(rounded.unwrap_err().to_string().contains("convolutional networks on the CPU"));
    let error = Backbone::builder("dinov2-vits14")?.strides(&[8, 16]).build(weights("dinov2-vits14")?).unwrap_err();
    assert!(error.to_string().contains("one of [14], which `dinov2-vits14` has"), "{error}");
    Ok(())
}

#[test]
fn weights_of_the_variant_with_registers_are_recognised() -> Result<()> {
    let error = Backbone::builder("dinov2-vits14")?.build(weights("dinov2-vits14-reg4")?).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("`reg_token` is unknown") && message.contains("weights of `dinov2-vits14-reg4`"),
        "{message}"
    );
    Ok(())
}
