//! Learning, scoring, saving and loading, with good and with hostile input.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::common::{Cancelled, Images, batch, image, pyramid};
use candle_core::{Device, Tensor};
use masf_core::artifact::{ModelFile, ReadOptions, SaveOptions, save};
use masf_core::{
    Artifact, Error, Fault, FeaturePyramid, Fit, Progress, PyramidSource, Result, Scorer, Scores, Silent, random_stream,
};
use masf_memory::{
    CellKeys, LinearMap, MemoryBank, MemoryBankParams, MemoryError, PatchEmbedding, Reduction, Search, Standardisation,
    greedy_k_centre,
};
use rand::Rng;

fn images(count: u64) -> Result<Images> {
    Ok(Images((0..count).map(|seed| image((6, 10), 8, seed)).collect::<Result<_>>()?))
}

fn small() -> MemoryBankParams {
    MemoryBankParams { candidates: 400, prototypes: 60, projection: 8, ..MemoryBankParams::default() }
}

fn fit(params: MemoryBankParams, images: &Images) -> Result<MemoryBank> {
    params.check()?.fit(images, &Silent)
}

fn map(scores: &Scores) -> Result<Vec<f32>> {
    Ok(scores.maps[0].values.flatten_all()?.to_vec1::<f32>()?)
}

fn all(scores: &Scores) -> Result<Vec<u32>> {
    let mut values = map(scores)?;
    if let Some(image) = &scores.image {
        values.extend(image.to_vec1::<f32>()?);
    }
    Ok(values.into_iter().map(f32::to_bits).collect())
}

fn reloaded(bank: &MemoryBank) -> Result<MemoryBank> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bank.masf");
    save(bank, &path, SaveOptions::default())?;
    MemoryBank::read(&ModelFile::open(&path, ReadOptions::default())?.root()?)
}

#[test]
fn maps_have_the_finest_grid_and_odd_features_score_higher() -> Result<()> {
    let images = images(5)?;
    let bank = fit(small(), &images)?;
    assert_eq!((bank.search().count(), bank.search().dimensions()), (60, 16));
    let scores = bank.score(&batch(&images.0[..2])?)?;
    assert_eq!(scores.maps[0].name, "memory");
    assert_eq!(scores.maps[0].values.dims(), [2, 8, 10]);
    assert!(scores.image.is_none());
    let odd: Vec<_> =
        images.0[0].levels().iter().map(|level| Ok((level.spec.stride, (&level.map + 5.0)?))).collect::<Result<_>>()?;
    let normal = map(&scores)?.into_iter().fold(0.0, f32::max);
    assert!(map(&bank.score(&pyramid(&odd)?)?)?.into_iter().all(|score| score > normal));
    Ok(())
}

#[test]
fn a_bank_of_all_patches_scores_its_own_images_exactly_zero() -> Result<()> {
    for standardise in [Standardisation::None, Standardisation::Channel, Standardisation::Level] {
        let images = images(3)?;
        let reduction = Reduction::Pca { components: 5, whiten: true };
        let reduction = if standardise == Standardisation::Level { reduction } else { Reduction::None };
        let params = MemoryBankParams { standardise, reduction, prototypes: 1000, ..small() };
        let bank = fit(params, &images)?;
        assert_eq!(bank.search().count(), 3 * 80);
        for image in &images.0 {
            assert!(map(&bank.score(image)?)?.into_iter().all(|score| score == 0.0), "{standardise:?}");
        }
    }
    Ok(())
}

#[test]
fn batches_threads_and_reloading_change_no_bit() -> Result<()> {
    let images = images(6)?;
    for reduction in [
        Reduction::None,
        Reduction::Projection { dimensions: 9 },
        Reduction::Pca { components: 7, whiten: false },
        Reduction::Pca { components: 15, whiten: true },
    ] {
        same_bits(MemoryBankParams { reduction, reweight_neighbours: 5, ..small() }, &images)?;
    }
    Ok(())
}

fn same_bits(params: MemoryBankParams, images: &Images) -> Result<()> {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let bank = pool(1).install(|| fit(params.clone(), images))?;
    let other = pool(3).install(|| fit(params, images))?;
    assert_eq!(bank.search().prototypes(), other.search().prototypes());
    assert_eq!(bank.search().count(), 60);
    let reloaded = reloaded(&bank)?;
    let queries: Vec<FeaturePyramid> = (20..25).map(|seed| image((6, 10), 8, seed)).collect::<Result<_>>()?;
    let together = bank.score(&batch(&queries)?)?;
    let expected = all(&together)?;
    assert_eq!(expected.len(), 5 * 80 + 5);
    assert_eq!(all(&pool(3).install(|| reloaded.score(&batch(&queries)?))?)?, expected);
    let (mut maps, mut scores) = (Vec::new(), Vec::new());
    for query in &queries {
        let alone = all(&pool(2).install(|| reloaded.score(query))?)?;
        maps.extend_from_slice(&alone[..80]);
        scores.extend_from_slice(&alone[80..]);
    }
    maps.extend(scores);
    assert_eq!(maps, expected);
    Ok(())
}

/// The obvious way: every descriptor of every image at hand.
#[test]
fn the_bank_is_the_coreset_of_all_patches() -> Result<()> {
    let images = images(5)?;
    for projection in [0, 4] {
        let params =
            MemoryBankParams { standardise: Standardisation::None, projection, candidates: 1000, seed: 9, ..small() };
        let mut rows = Vec::new();
        for image in &images.0 {
            let embedding = PatchEmbedding::of_pyramid(image, &[8, 16], 3)?;
            let maps = embedding.open(image)?;
            let all: Vec<usize> = (0..maps.positions()).collect();
            let mut own = vec![0.0; all.len() * embedding.dimensions()];
            maps.describe(0, &all, &mut own)?;
            rows.extend(own);
        }
        let points = match projection {
            0 => rows.clone(),
            output => LinearMap::random(16, output, 9, "memory.projection")?.apply(&rows)?,
        };
        let dimensions = if projection == 0 { 16 } else { projection };
        let first = random_stream(9, "memory.coreset").random_range(0..rows.len() as u64 / 16) as usize;
        let coreset = greedy_k_centre(&points, dimensions, 60, first, &Silent)?;
        let expected: Vec<f32> = coreset.indices.iter().flat_map(|index| &rows[index * 16..][..16]).copied().collect();
        assert_eq!(fit(params, &images)?.search().prototypes(), expected, "projection to {projection}");
    }
    Ok(())
}

#[test]
fn images_that_change_while_they_are_learned_from_are_an_error() -> Result<()> {
    /// Larger images until they have been read a number of times.
    struct Fickle(AtomicUsize);
    impl PyramidSource for Fickle {
        fn len(&self) -> usize {
            2
        }

        fn batch(&self, indices: &[usize]) -> Result<FeaturePyramid> {
            let side = if self.0.fetch_add(1, Ordering::Relaxed) < 2 { 8 } else { 4 };
            batch(&indices.iter().map(|seed| image((6, 10), side, *seed as u64)).collect::<Result<Vec<_>>>()?)
        }
    }
    let found = small().check()?.fit(&Fickle(AtomicUsize::new(0)), &Silent);
    assert!(found.unwrap_err().to_string().contains("has another size than when it was read first"));
    Ok(())
}

#[test]
fn seeds_differ_and_repeat() -> Result<()> {
    let images = images(4)?;
    let with = |seed| fit(MemoryBankParams { seed, ..small() }, &images);
    assert_eq!(with(1)?.search().prototypes(), with(1)?.search().prototypes());
    assert_ne!(with(1)?.search().prototypes(), with(2)?.search().prototypes());
    Ok(())
}

#[test]
fn a_tight_budget_takes_fewer_candidates_and_says_when_it_is_too_tight() -> Result<()> {
    // In the second the pool takes more than the sample before it, and than the search.
    let wide = Images((0..2).map(|seed| image((160, 240), 8, seed)).collect::<Result<_>>()?);
    let many = MemoryBankParams { prototypes: 2000, projection: 0, ..MemoryBankParams::default() };
    for (params, images, count) in [(small(), images(6)?, 60), (many, wide, 160)] {
        let with = |memory_budget| fit(MemoryBankParams { memory_budget, ..params.clone() }, &images);
        let error = with(1 << 20).unwrap_err();
        assert_eq!(error.fault(), Fault::Argument);
        let text = error.to_string();
        let least: usize = text.split("at least ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert_eq!(with(least)?.search().count(), count);
        assert!(with(least - 1).is_err());
    }
    Ok(())
}

#[test]
fn few_patches_and_single_prototypes_work() -> Result<()> {
    let one = Images(vec![image((6, 10), 2, 0)?]);
    let bank = fit(small(), &one)?;
    assert_eq!(bank.search().count(), 8);
    let single = fit(MemoryBankParams { prototypes: 1, reweight_neighbours: 9, ..small() }, &one)?;
    assert_eq!(single.search().count(), 1);
    let scores = single.score(&image((6, 10), 3, 1)?)?;
    let largest = map(&scores)?.into_iter().fold(0.0, f32::max);
    assert_eq!(scores.image.unwrap().to_vec1::<f32>()?, [largest]);
    // More images than candidates.
    let many = fit(MemoryBankParams { candidates: 3, prototypes: 3, ..small() }, &images(7)?)?;
    assert_eq!(many.search().count(), 3);
    Ok(())
}

#[test]
fn equal_patches_give_one_prototype_and_finite_scores() -> Result<()> {
    for value in [0f32, 3.5] {
        let flat = |side| {
            let map = |channels, h, w| Tensor::full(value, (1, channels, h, w), &Device::Cpu);
            pyramid(&[(8, map(6, side, side)?), (16, map(10, side / 2, side / 2)?)])
        };
        let bank = fit(small(), &Images(vec![flat(20)?, flat(20)?]))?;
        // Averages over windows of different lengths may differ in the last bit.
        assert!(bank.search().count() < 60);
        let scores = map(&bank.score(&flat(20)?)?)?;
        assert!(scores.iter().all(|score| *score < 1e-3), "{scores:?}");
        let other = map(&bank.score(&image((6, 10), 8, 0)?)?)?;
        assert!(other.iter().all(|score| score.is_finite() && *score > 0.0));
    }
    Ok(())
}

#[test]
fn features_that_are_not_finite_are_named() -> Result<()> {
    let images = images(2)?;
    let bank = fit(small(), &images)?;
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = vec![1f32; 6 * 8 * 10];
        values[2 * 80 + 3 * 10 + 4] = bad;
        let fine = Tensor::from_vec(values, (1, 6, 8, 10), &Device::Cpu)?;
        let coarse = Tensor::ones((1, 10, 4, 5), candle_core::DType::F32, &Device::Cpu)?;
        let image = pyramid(&[(8, fine), (16, coarse)])?;
        for error in [bank.score(&image).unwrap_err(), fit(small(), &Images(vec![image.clone()])).unwrap_err()] {
            assert_eq!(error.fault(), Fault::Data);
            assert!(error.to_string().contains("stride 8, row 3, column 4, channel 2"), "{error}");
        }
        // The last of six, which are read four at a time.
        let six = Images(self::images(5)?.0.into_iter().chain([image]).collect());
        let error = fit(small(), &six).unwrap_err().to_string();
        assert!(error.contains("image 5: the feature at stride 8"), "{error}");
    }
    let huge = [(8, Tensor::full(1e30f32, (1, 6, 8, 10), &Device::Cpu)?), (16, images.0[0].levels()[1].map.clone())];
    let error = bank.score(&pyramid(&huge)?).unwrap_err().to_string();
    assert!(error.contains("position 0"), "{error}");
    let learned = fit(small(), &Images(images.0.iter().cloned().chain([pyramid(&huge)?]).collect()));
    let error = learned.unwrap_err().to_string();
    assert!(error.contains("image 2: the descriptor at position 0"), "{error}");
    Ok(())
}

#[test]
fn other_pyramids_and_no_images_are_refused() -> Result<()> {
    let bank = fit(small(), &images(2)?)?;
    let error = bank.score(&image((6, 11), 8, 0)?).unwrap_err().to_string();
    assert!(error.contains("stride 16 with 10 channels"), "{error}");
    let error = fit(MemoryBankParams { levels: vec![4, 8], ..small() }, &images(2)?).unwrap_err().to_string();
    assert!(error.contains("[8, 16]"), "{error}");
    let reduction = Reduction::Projection { dimensions: 16 };
    let error = fit(MemoryBankParams { reduction, ..small() }, &images(2)?).unwrap_err().to_string();
    assert!(error.contains("fewer than the 16 dimensions"), "{error}");
    let error = fit(small(), &Images(vec![])).unwrap_err();
    assert_eq!(error.fault(), Fault::Data);
    assert!(error.to_string().contains("at least 1 normal image"), "{error}");
    Ok(())
}

#[test]
fn parameters_out_of_range_are_named() {
    let refused = |params: MemoryBankParams, name: &str| match params.check() {
        Err(error @ MemoryError::Parameter { .. }) => assert!(error.to_string().starts_with(name), "{error}"),
        other => panic!("{name}: {other:?}"),
    };
    let default = MemoryBankParams::default;
    for levels in [vec![], vec![0, 8], vec![16, 8], vec![8, 8]] {
        refused(MemoryBankParams { levels, ..default() }, "levels");
    }
    for neighbourhood in [0, 2, 17] {
        refused(MemoryBankParams { neighbourhood, ..default() }, "neighbourhood");
    }
    for reweight_neighbours in [1, 65] {
        refused(MemoryBankParams { reweight_neighbours, ..default() }, "reweight_neighbours");
    }
    for reduction in [Reduction::Projection { dimensions: 0 }, Reduction::Pca { components: 9999, whiten: false }] {
        refused(MemoryBankParams { reduction, ..default() }, "reduction");
    }
    refused(MemoryBankParams { candidates: 0, ..default() }, "candidates");
    refused(MemoryBankParams { candidates: usize::MAX, ..default() }, "candidates");
    refused(MemoryBankParams { prototypes: 0, ..default() }, "prototypes");
    refused(MemoryBankParams { memory_budget: 0, ..default() }, "memory_budget");
    refused(MemoryBankParams { projection: 5000, ..default() }, "projection");
    refused(MemoryBankParams { anchor_channels: 0, ..default() }, "anchor_channels");
    for anchor_weight in [-1.0, f64::NAN, 1e9] {
        refused(MemoryBankParams { anchor_weight, ..default() }, "anchor_weight");
    }
    let search = Search::Cells { cells: 0, visited: 0, keys: CellKeys::Both };
    refused(MemoryBankParams { search, ..default() }, "visited");
    let search = Search::Cells { cells: usize::MAX, visited: 1, keys: CellKeys::Both };
    refused(MemoryBankParams { search, ..default() }, "cells");
    let search = Search::Hnsw { connections: 1, construction: 1, search: 1 };
    refused(
        MemoryBankParams { search, ..default() },
        if cfg!(feature = "hnsw") { "hnsw connections" } else { "search" },
    );
}

#[test]
fn parameters_read_from_toml_with_defaults_and_refuse_unknown_keys() {
    let params: MemoryBankParams =
        toml::from_str("prototypes = 9\nstandardise = \"level\"\nreduction = { pca = { components = 64 } }").unwrap();
    let expected = MemoryBankParams {
        prototypes: 9,
        standardise: Standardisation::Level,
        reduction: Reduction::Pca { components: 64, whiten: false },
        ..Default::default()
    };
    assert_eq!(params, expected);
    assert!(toml::from_str::<MemoryBankParams>("prototype = 9").is_err());
    for (text, expected) in [
        ("search = 'exact'", Search::Exact),
        ("search = { shortlist = {} }", Search::Shortlist { directions: 128, candidates: 8 }),
        ("search = { cells = {} }", Search::Cells { cells: 0, visited: 16, keys: CellKeys::Descriptors }),
        (
            "search = { cells = { visited = 3, keys = 'both' } }",
            Search::Cells { cells: 0, visited: 3, keys: CellKeys::Both },
        ),
        ("search = { hnsw = {} }", Search::Hnsw { connections: 32, construction: 200, search: 64 }),
    ] {
        assert_eq!(toml::from_str::<MemoryBankParams>(text).unwrap().search, expected);
    }
    assert!(toml::from_str::<MemoryBankParams>("search = { cells = { visit = 3 } }").is_err());
}

/// A bank's model file with other settings and tensors.
struct Forged {
    settings: serde_json::Value,
    tensors: Vec<(&'static str, Tensor)>,
}

impl Artifact for Forged {
    fn tag(&self) -> &'static str {
        MemoryBank::TAG
    }

    fn write(&self, writer: &mut masf_core::ArtifactWriter) -> Result<()> {
        writer.section(&self.settings)?;
        self.tensors.iter().try_for_each(|(name, tensor)| writer.tensor(name, tensor))
    }

    fn read(_: &masf_core::ArtifactReader<'_>) -> Result<Self> {
        Err(Error::argument("forged", "read", "never"))
    }
}

#[test]
fn hostile_model_files_are_refused() -> Result<()> {
    let read = |settings: &serde_json::Value, tensors: &[(&'static str, &[usize], f32)]| -> Result<MemoryBank> {
        let tensor = |(name, shape, value): &(&'static str, &[usize], f32)| {
            Ok((*name, Tensor::full(*value, *shape, &Device::Cpu)?))
        };
        let forged = Forged { settings: settings.clone(), tensors: tensors.iter().map(tensor).collect::<Result<_>>()? };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bank.masf");
        save(&forged, &path, SaveOptions::default())?;
        MemoryBank::read(&ModelFile::open(&path, ReadOptions::default())?.root()?)
    };
    let level = |stride: u64, channels: u64| serde_json::json!({ "stride": stride, "channels": channels });
    let good = serde_json::json!({ "levels": [level(8, 2), level(16, 3)], "neighbourhood": 3, "standardised": true,
        "reduced": null, "reweight_neighbours": 0 });
    type Entry = (&'static str, &'static [usize], f32);
    let (prototypes, mean, factor): (Entry, Entry, Entry) =
        (("prototypes", &[4, 5], 1.0), ("mean", &[5], 0.0), ("factor", &[5], 1.0));
    assert_eq!(read(&good, &[prototypes, mean, factor])?.search().count(), 4);
    for (key, value) in [
        ("levels", serde_json::json!([])),
        ("levels", serde_json::json!([level(16, 2), level(8, 3)])),
        ("levels", serde_json::json!([level(0, 2), level(8, 3)])),
        ("levels", serde_json::json!([level(8, 0), level(16, 5)])),
        ("levels", serde_json::json!([level(8, u64::MAX), level(16, 6)])),
        ("levels", serde_json::json!([level(8, 2), level(16, 1 << 60)])),
        ("neighbourhood", serde_json::json!(4)),
        ("neighbourhood", serde_json::json!(usize::MAX)),
        ("standardised", serde_json::json!("yes")),
        ("reduced", serde_json::json!(0)),
        ("reduced", serde_json::json!(3)),
        ("reweight_neighbours", serde_json::json!(1)),
        ("reweight_neighbours", serde_json::json!(1u64 << 40)),
        ("surplus", serde_json::json!(1)),
    ] {
        let mut settings = good.clone();
        settings[key] = value;
        let error = read(&settings, &[prototypes, mean, factor]).unwrap_err();
        assert_eq!(error.fault(), Fault::Model, "{key}: {error}");
    }
    let tensors: [&[Entry]; 9] = [
        &[prototypes, mean],
        &[mean, factor],
        &[("prototypes", &[0, 5], 1.0), mean, factor],
        &[("prototypes", &[4, 6], 1.0), mean, factor],
        &[("prototypes", &[20], 1.0), mean, factor],
        &[("prototypes", &[4, 5], 1e30), mean, factor],
        &[prototypes, ("mean", &[6], 0.0), factor],
        &[prototypes, mean, ("factor", &[5], 0.0)],
        &[prototypes, mean, ("factor", &[5], -1.0)],
    ];
    for tensors in tensors {
        let error = read(&good, tensors).unwrap_err();
        assert_eq!(error.fault(), Fault::Model, "{tensors:?}: {error}");
    }
    // Cells and anchors, which older files do not have.
    let mut celled = good.clone();
    celled["search"] = serde_json::json!({ "cells": { "cells": 2, "visited": 1, "keys": "both" } });
    celled["anchors"] = serde_json::json!({ "channels": 1, "weight": 0.5 });
    let rows: Entry = ("prototypes", &[4, 21], 1.0);
    let (projection, factors): (Entry, Entry) = (("anchor_projection", &[5, 1], 1.0), ("anchor_factor", &[2], 1.0));
    let centres: Entry = ("centres", &[2, 21], 1.0);
    assert_eq!(read(&celled, &[rows, mean, factor, projection, factors, centres])?.search().count(), 4);
    let bad: [&[Entry]; 8] = [
        &[rows, mean, factor, projection, factors],
        &[rows, mean, factor, projection, factors, ("centres", &[2, 5], 1.0)],
        &[rows, mean, factor, projection, factors, ("centres", &[0, 21], 1.0)],
        &[rows, mean, factor, projection, factors, ("centres", &[5, 21], 1.0)],
        &[rows, mean, factor, projection, factors, ("centres", &[99, 21], 1.0)],
        &[rows, mean, factor, projection, ("anchor_factor", &[2], 0.0), centres],
        &[rows, mean, factor, ("anchor_projection", &[4, 1], 1.0), factors, centres],
        &[prototypes, mean, factor, projection, factors, centres],
    ];
    for tensors in bad {
        let error = read(&celled, tensors).unwrap_err();
        assert_eq!(error.fault(), Fault::Model, "{tensors:?}: {error}");
    }
    for (key, value) in [
        ("search", serde_json::json!("exactly")),
        ("search", serde_json::json!({ "cells": { "cells": 2, "visited": 0, "keys": "both" } })),
        ("anchors", serde_json::json!(null)),
        ("anchors", serde_json::json!({ "channels": 0, "weight": 0.5 })),
        ("anchors", serde_json::json!({ "channels": 1u64 << 50, "weight": 0.5 })),
        ("anchors", serde_json::json!({ "channels": 1, "weight": -0.5 })),
    ] {
        let mut settings = celled.clone();
        settings[key] = value;
        let error = read(&settings, &[rows, mean, factor, projection, factors, centres]).unwrap_err();
        assert_eq!(error.fault(), Fault::Model, "{key}: {error}");
    }
    let mut unused = celled.clone();
    unused["search"] = serde_json::json!("exact");
    unused["anchors"]["weight"] = serde_json::json!(0.0);
    assert!(
        read(&unused, &[rows, mean, factor, projection, factors]).unwrap_err().to_string().contains("nothing uses")
    );
    let mut reduced = good.clone();
    reduced["reduced"] = serde_json::json!(0);
    let error = read(&reduced, &[("prototypes", &[4, 0], 1.0), ("reduction", &[5, 0], 1.0), mean, factor]).unwrap_err();
    assert_eq!(error.fault(), Fault::Model, "{error}");
    Ok(())
}

#[test]
fn cancellation_is_heard() -> Result<()> {
    /// Cancelled as soon as a stage begins.
    struct At(&'static str, AtomicBool);
    impl Progress for At {
        fn start(&self, stage: &str, _: u64) {
            self.1.fetch_or(stage == self.0, Ordering::Relaxed);
        }
        fn step(&self, _: u64) {}
        fn finish(&self) {}
        fn is_cancelled(&self) -> bool {
            self.1.load(Ordering::Relaxed)
        }
    }
    assert!(matches!(small().check()?.fit(&images(2)?, &Cancelled), Err(Error::Cancelled)));
    let reduction = Reduction::Pca { components: 5, whiten: false };
    let mut stages = vec![("principal components", MemoryBankParams { reduction, ..small() })];
    if cfg!(feature = "hnsw") {
        let search = Search::Hnsw { connections: 16, construction: 50, search: 20 };
        stages.push(("building the graph", MemoryBankParams { search, ..small() }));
    }
    for (stage, params) in stages {
        let found = params.check()?.fit(&images(2)?, &At(stage, AtomicBool::new(false)));
        assert!(matches!(found, Err(Error::Cancelled)), "{stage}");
    }
    Ok(())
}

#[test]
fn public_types_are_send_sync_unpin() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<MemoryBank>();
    check::<MemoryBankParams>();
    check::<masf_memory::MemoryBankFit>();
    check::<MemoryError>();
    check::<masf_memory::ExactSearch>();
    check::<masf_memory::PatchEmbedding>();
    check::<masf_memory::PatchMaps>();
    check::<masf_memory::LinearMap>();
    check::<masf_memory::Coreset>();
}
