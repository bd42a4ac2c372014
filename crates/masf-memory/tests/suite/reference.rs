//! Against numbers of PyTorch, scikit-learn and NumPy; see `tests/reference/memory_reference.py`.

use crate::common::{Images, pyramid};
use candle_core::{Device, Tensor};
use masf_core::{Fit, Scorer, Silent};
use masf_memory::{MemoryBankParams, PatchEmbedding, Standardisation, greedy_k_centre};

#[derive(serde::Deserialize)]
struct Reference {
    fine: Vec<f32>,
    coarse: Vec<f32>,
    descriptors: Vec<f32>,
    distances: Vec<f32>,
    image_score: f32,
    points: Vec<f32>,
    chosen: Vec<usize>,
    radius: f32,
}

fn reference() -> Reference {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/memory_reference.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance, "{index}: {a} instead of {b}");
    }
}

fn features(reference: &Reference) -> masf_core::Result<masf_core::FeaturePyramid> {
    let fine = Tensor::from_slice(&reference.fine, (2, 3, 5, 7), &Device::Cpu)?;
    let coarse = Tensor::from_slice(&reference.coarse, (2, 4, 3, 4), &Device::Cpu)?;
    pyramid(&[(8, fine), (16, coarse)])
}

#[test]
fn descriptors_are_those_of_pytorch() -> masf_core::Result<()> {
    let reference = reference();
    let pyramid = features(&reference)?;
    let maps = PatchEmbedding::of_pyramid(&pyramid, &[8, 16], 3)?.open(&pyramid)?;
    let positions: Vec<usize> = (0..35).collect();
    let mut rows = vec![0.0; 2 * 35 * 7];
    let (first, second) = rows.split_at_mut(35 * 7);
    maps.describe(0, &positions, first)?;
    maps.describe(1, &positions, second)?;
    assert_close(&rows, &reference.descriptors, 1e-6);
    Ok(())
}

#[test]
fn distances_and_image_scores_are_those_of_scikit_learn_and_the_formula() -> masf_core::Result<()> {
    let reference = reference();
    let pyramid = features(&reference)?;
    let params = MemoryBankParams {
        standardise: Standardisation::Channel,
        reweight_neighbours: 3,
        ..MemoryBankParams::default()
    };
    let bank = params.check()?.fit(&Images(vec![pyramid.image(0)?]), &Silent)?;
    assert_eq!(bank.search().count(), 35);
    let scores = bank.score(&pyramid.image(1)?)?;
    let image = scores.image.as_ref().map(Tensor::to_vec1::<f32>).transpose()?.unwrap();
    assert_close(&scores.maps[0].values.flatten_all()?.to_vec1::<f32>()?, &reference.distances, 2e-5);
    assert_close(&image, &[reference.image_score], 2e-5);
    Ok(())
}

#[test]
fn the_coreset_is_that_of_numpy() -> masf_core::Result<()> {
    let reference = reference();
    let coreset = greedy_k_centre(&reference.points, 5, 40, 11, &Silent)?;
    assert_eq!(coreset.indices, reference.chosen);
    assert_close(&[coreset.radius], &[reference.radius], 1e-5);
    Ok(())
}
