//! Anchors and the ways to search in whole banks, banks that learn more, and banks that become one.

use crate::common::{Images, batch, image, pyramid};
use candle_core::{Device, Tensor};
use masf_core::artifact::{ModelFile, ReadOptions, SaveOptions, save};
use masf_core::{Artifact, Fault, FeaturePyramid, Fit, Result, Scorer, Silent};
use masf_memory::{CellKeys, MemoryBank, MemoryBankFit, MemoryBankParams, Reduction, Search, Standardisation};

fn images(seeds: std::ops::Range<u64>) -> Result<Images> {
    Ok(Images(seeds.map(|seed| image((6, 10), 8, seed)).collect::<Result<_>>()?))
}

fn small() -> MemoryBankParams {
    MemoryBankParams {
        candidates: 400,
        prototypes: 60,
        projection: 8,
        anchor_channels: 2,
        ..MemoryBankParams::default()
    }
}

fn fit(params: &MemoryBankParams, images: &Images) -> Result<MemoryBank> {
    params.clone().check()?.fit(images, &Silent)
}

fn learner(params: &MemoryBankParams) -> Result<MemoryBankFit> {
    Ok(params.clone().check()?)
}

fn scores(bank: &MemoryBank, image: &FeaturePyramid) -> Result<Vec<f32>> {
    let scores = bank.score(image)?;
    let mut values = scores.maps[0].values.flatten_all()?.to_vec1::<f32>()?;
    if let Some(image) = scores.image {
        values.extend(image.to_vec1::<f32>()?);
    }
    Ok(values)
}

fn reloaded(bank: &MemoryBank) -> Result<MemoryBank> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bank.masf");
    save(bank, &path, SaveOptions::default())?;
    MemoryBank::read(&ModelFile::open(&path, ReadOptions::default())?.root()?)
}

fn cells(visited: usize, keys: CellKeys) -> Search {
    Search::Cells { cells: 6, visited, keys }
}

fn searches() -> Vec<(Search, f64)> {
    let mut all = vec![
        (Search::Exact, 0.5),
        (cells(2, CellKeys::Descriptors), 0.0),
        (cells(2, CellKeys::Anchors), 0.0),
        (cells(3, CellKeys::Both), 2.0),
    ];
    if cfg!(feature = "hnsw") {
        all.push((Search::Hnsw { connections: 16, construction: 50, search: 20 }, 0.0));
        all.push((Search::Hnsw { connections: 8, construction: 50, search: 20 }, 1.0));
    }
    all
}

#[test]
fn every_search_scores_the_same_in_batches_on_threads_and_reloaded() -> Result<()> {
    let images = images(0..5)?;
    let queries: Vec<FeaturePyramid> = (20..23).map(|seed| image((6, 10), 8, seed)).collect::<Result<_>>()?;
    // Without a reduction 16 dimensions, whose keys come from the feature maps.
    let shortlist = Search::Shortlist { directions: 4, candidates: 4 };
    for (search, anchor_weight) in searches().into_iter().chain([(shortlist, 0.0)]) {
        for reduction in [Reduction::None, Reduction::Pca { components: 5, whiten: false }] {
            let params = MemoryBankParams { search, anchor_weight, reduction, reweight_neighbours: 4, ..small() };
            let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let bank = pool(1).install(|| fit(&params, &images))?;
            let other = reloaded(&pool(3).install(|| fit(&params, &images))?)?;
            assert_eq!(bank.search().prototypes(), other.search().prototypes());
            let together = scores(&bank, &batch(&queries)?)?;
            let mut alone = (Vec::new(), Vec::new());
            for query in &queries {
                let values = pool(2).install(|| scores(&other, query))?;
                alone.0.extend_from_slice(&values[..80]);
                alone.1.extend_from_slice(&values[80..]);
            }
            alone.0.extend(alone.1);
            assert_eq!(together, alone.0, "{search:?}");
        }
    }
    Ok(())
}

#[test]
fn all_cells_visited_scores_as_the_exact_bank_does() -> Result<()> {
    let images = images(0..5)?;
    let query = image((6, 10), 8, 30)?;
    for (keys, anchor_weight) in [(CellKeys::Descriptors, 0.0), (CellKeys::Anchors, 0.0), (CellKeys::Both, 0.7)] {
        let with =
            |search| fit(&MemoryBankParams { search, anchor_weight, reweight_neighbours: 5, ..small() }, &images);
        assert_eq!(scores(&with(cells(100, keys))?, &query)?, scores(&with(Search::Exact)?, &query)?, "{keys:?}");
    }
    Ok(())
}

#[test]
fn weights_add_squared_distances_of_anchors() -> Result<()> {
    let images = images(0..1)?;
    let query = image((6, 10), 8, 31)?;
    // One prototype: every distance is to it.
    let with = |anchor_weight| -> Result<Vec<f32>> {
        scores(&fit(&MemoryBankParams { anchor_weight, prototypes: 1, ..small() }, &images)?, &query)
    };
    let (plain, one, four) = (with(0.0)?, with(1.0)?, with(4.0)?);
    for ((plain, one), four) in plain.iter().zip(one).zip(four) {
        let anchors = one.powi(2) - plain.powi(2);
        assert!(anchors > 0.0);
        assert!((four.powi(2) - plain.powi(2) - 4.0 * anchors).abs() < 1e-3 * four.powi(2));
    }
    Ok(())
}

#[test]
fn extended_banks_know_the_new_images_and_most_of_the_old() -> Result<()> {
    let (old, new) = (images(0..4)?, images(10..14)?);
    for (search, anchor_weight) in searches() {
        let params = MemoryBankParams { search, anchor_weight, prototypes: 400, candidates: 400, ..small() };
        let bank = fit(&params, &old)?;
        assert_eq!(bank.search().count(), 320);
        let extended = bank.extend(&learner(&params)?, &new, &Silent)?;
        assert_eq!(extended.search().count(), 400);
        // Against the bank before, the new images become normal; some old patches gave way to them.
        let mean = |bank: &MemoryBank, images: &Images| -> Result<f32> {
            let all: Vec<f32> = images.0.iter().map(|image| scores(bank, image)).collect::<Result<Vec<_>>>()?.concat();
            Ok(all.iter().sum::<f32>() / all.len() as f32)
        };
        let (before, after) = (mean(&bank, &new)?, mean(&extended, &new)?);
        assert!(after < 0.7 * before, "{search:?}: {before} to {after}");
        assert!(mean(&extended, &old)? < 0.7 * before, "{search:?}");
        // The same again, on other threads and from the reloaded bank.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let again = pool.install(|| reloaded(&bank)?.extend(&learner(&params)?, &new, &Silent))?;
        assert_eq!(again.search().prototypes(), extended.search().prototypes());
    }
    Ok(())
}

#[test]
fn a_bank_with_room_keeps_all_it_had() -> Result<()> {
    let params = MemoryBankParams { prototypes: 10_000, candidates: 10_000, ..small() };
    let (old, new) = (images(0..2)?, images(5..6)?);
    let bank = fit(&params, &old)?;
    let extended = bank.extend(&learner(&params)?, &new, &Silent)?;
    assert_eq!(extended.search().count(), 3 * 80);
    assert_eq!(extended.search().prototypes()[..bank.search().prototypes().len()], *bank.search().prototypes());
    for image in old.0.iter().chain(&new.0) {
        assert!(scores(&extended, image)?.iter().all(|score| *score == 0.0));
    }
    Ok(())
}

#[test]
fn a_stride_with_several_levels_extends_and_merges() -> Result<()> {
    let of_one_stride = |seeds: std::ops::Range<u64>| -> Result<Images> {
        let level = |seed| -> Result<_> { Ok((14, image((6, 10), 8, seed)?.levels()[0].map.clone())) };
        Ok(Images(seeds.map(|seed| pyramid(&[level(seed)?, level(seed + 50)?])).collect::<Result<_>>()?))
    };
    let params = MemoryBankParams { levels: vec![14], prototypes: 400, candidates: 400, ..small() };
    let (old, new) = (of_one_stride(0..2)?, of_one_stride(5..6)?);
    let (bank, other) = (fit(&params, &old)?, fit(&params, &new)?);
    for grown in [bank.extend(&learner(&params)?, &new, &Silent)?, bank.merge(&other, &learner(&params)?, &Silent)?] {
        assert_eq!(grown.search().count(), 3 * 80);
        for image in &old.0 {
            assert!(scores(&grown, image)?.iter().all(|score| *score < 1e-3));
        }
    }
    Ok(())
}

#[test]
fn merged_banks_know_both_parts() -> Result<()> {
    let (here, there) = (images(0..3)?, images(40..43)?);
    for standardise in [Standardisation::None, Standardisation::Level, Standardisation::Channel] {
        for (search, anchor_weight) in searches() {
            let params = MemoryBankParams {
                search,
                anchor_weight,
                standardise,
                prototypes: 10_000,
                candidates: 10_000,
                ..small()
            };
            let (a, b) = (fit(&params, &here)?, fit(&params, &there)?);
            let merged = a.merge(&b, &learner(&params)?, &Silent)?;
            assert_eq!(merged.search().count(), 6 * 80);
            let unknown = image((6, 10), 8, 90)?;
            let typical = scores(&merged, &unknown)?.into_iter().fold(f32::INFINITY, f32::min);
            for image in here.0.iter().chain(&there.0) {
                // Rounding of another scale and back.
                assert!(
                    scores(&merged, image)?.iter().all(|score| *score < 1e-3 * typical),
                    "{standardise:?} {search:?}"
                );
            }
        }
    }
    let params = small();
    let (a, b) = (fit(&params, &here)?, fit(&params, &there)?);
    assert_eq!(a.merge(&b, &learner(&params)?, &Silent)?.search().count(), 60);
    Ok(())
}

#[test]
fn banks_that_do_not_fit_together_are_refused() -> Result<()> {
    let images = images(0..3)?;
    let base = small();
    let bank = fit(&base, &images)?;
    let refused = |result: Result<MemoryBank>, what: &str| {
        let error = result.err().unwrap();
        assert_eq!(error.fault(), Fault::Argument, "{error}");
        assert!(error.to_string().contains(what), "{error}");
    };
    // Parameters that describe patches otherwise.
    for (other, what) in [
        (MemoryBankParams { levels: vec![8], ..base.clone() }, "levels"),
        (MemoryBankParams { neighbourhood: 5, ..base.clone() }, "neighbourhood"),
        (MemoryBankParams { reduction: Reduction::Projection { dimensions: 3 }, ..base.clone() }, "reduction"),
        (MemoryBankParams { search: cells(1, CellKeys::Descriptors), ..base.clone() }, "search"),
        (MemoryBankParams { anchor_weight: 1.0, ..base.clone() }, "anchor_weight"),
    ] {
        refused(bank.extend(&learner(&other)?, &images, &Silent), what);
        refused(bank.merge(&fit(&other, &images)?, &learner(&base)?, &Silent), "differ");
    }
    // Images of another backbone.
    let wide = Images(vec![image((7, 10), 8, 0)?]);
    refused(bank.extend(&learner(&base)?, &wide, &Silent), "levels");
    let error = bank.extend(&learner(&base)?, &Images(vec![]), &Silent).unwrap_err();
    assert_eq!(error.fault(), Fault::Data);
    // Reductions that were learned apart; those of one origin fit.
    let reduced = MemoryBankParams { reduction: Reduction::Pca { components: 4, whiten: false }, ..base.clone() };
    let (a, b) = (fit(&reduced, &images)?, fit(&reduced, &self::images(7..9)?)?);
    refused(a.merge(&b, &learner(&reduced)?, &Silent), "extend both from one bank");
    let c = a.extend(&learner(&reduced)?, &self::images(7..9)?, &Silent)?;
    assert_eq!(a.merge(&c, &learner(&reduced)?, &Silent)?.search().count(), 60);
    // Anchors of other seeds.
    let anchored = MemoryBankParams { anchor_weight: 1.0, ..base.clone() };
    let other = MemoryBankParams { seed: 1, ..anchored.clone() };
    refused(fit(&anchored, &images)?.merge(&fit(&other, &images)?, &learner(&anchored)?, &Silent), "anchors");
    // A budget that cannot hold both.
    let tight = MemoryBankParams { memory_budget: (1 << 20) + 100_000, ..base };
    refused(bank.merge(&bank, &learner(&tight)?, &Silent), "memory_budget");
    // The least budget that is named holds the patches of both, which take more than their one prototype.
    let large = Images((0..3).map(|seed| image((6, 10), 20, seed)).collect::<Result<_>>()?);
    let bank = fit(&MemoryBankParams { prototypes: 10_000, candidates: 10_000, ..small() }, &large)?;
    let with = |memory_budget| -> Result<MemoryBank> {
        bank.merge(&bank, &learner(&MemoryBankParams { prototypes: 1, memory_budget, ..small() })?, &Silent)
    };
    let text = with(1 << 20).unwrap_err().to_string();
    assert!(text.contains("patches that are held already") && !text.contains("lower `prototypes`"), "{text}");
    let least: usize = text.split("at least ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert_eq!(with(least)?.search().count(), 1);
    assert!(with(least - 1).is_err());
    Ok(())
}

#[test]
fn features_that_are_not_finite_are_named_when_extending() -> Result<()> {
    let bank = fit(&small(), &images(0..2)?)?;
    let mut values = vec![1f32; 6 * 8 * 10];
    values[2 * 80 + 3 * 10 + 4] = f32::NAN;
    let fine = Tensor::from_vec(values, (1, 6, 8, 10), &Device::Cpu)?;
    let coarse = Tensor::ones((1, 10, 4, 5), candle_core::DType::F32, &Device::Cpu)?;
    let bad = Images(vec![pyramid(&[(8, fine), (16, coarse)])?]);
    let error = bank.extend(&learner(&small())?, &bad, &Silent).unwrap_err();
    assert_eq!(error.fault(), Fault::Data);
    assert!(error.to_string().contains("stride 8, row 3, column 4, channel 2"), "{error}");
    Ok(())
}

#[test]
fn flat_images_single_images_and_single_prototypes_work_with_every_search() -> Result<()> {
    let map = |channels, h, w| Tensor::zeros((1, channels, h, w), candle_core::DType::F32, &Device::Cpu);
    let flat = pyramid(&[(8, map(6, 8, 10)?), (16, map(10, 4, 5)?)])?;
    for (search, anchor_weight) in searches() {
        for prototypes in [1, 60] {
            let params = MemoryBankParams { search, anchor_weight, prototypes, reweight_neighbours: 9, ..small() };
            let bank = fit(&params, &Images(vec![flat.clone()]))?;
            assert_eq!(bank.search().count(), 1, "zero vectors are one prototype");
            assert!(scores(&bank, &flat)?.iter().all(|score| *score == 0.0), "{search:?}");
            assert!(scores(&bank, &image((6, 10), 8, 0)?)?.iter().all(|score| score.is_finite() && *score > 0.0));
            let extended = bank.extend(&learner(&params)?, &images(3..4)?, &Silent)?;
            assert_eq!(extended.search().count(), prototypes, "{search:?}");
            assert!(scores(&extended, &flat)?.iter().all(|score| score.is_finite()));
        }
    }
    Ok(())
}
