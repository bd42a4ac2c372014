//! Banks without folds, made from one bank, against banks learned without them.

use crate::common::{Cancelled, Images, batch, image};
use masf_core::{CrossFit, FeaturePyramid, Fit, Result, Scorer, Silent, Subset};
use masf_memory::{MemoryBank, MemoryBankFit, MemoryBankParams, Reduction, Search, Standardisation};

fn images(count: u64) -> Result<Images> {
    Ok(Images((0..count).map(|seed| image((6, 10), 8, seed)).collect::<Result<_>>()?))
}

fn small() -> MemoryBankParams {
    MemoryBankParams { candidates: 400, prototypes: 60, projection: 4, ..MemoryBankParams::default() }
}

fn bits(bank: &MemoryBank) -> Vec<u32> {
    bank.search().prototypes().iter().map(|value| value.to_bits()).collect()
}

fn folded<'a>(
    fit: &'a MemoryBankFit,
    images: &'a Images,
    fold_of: &[usize],
) -> Result<Box<dyn CrossFit<MemoryBank> + 'a>> {
    Ok(fit.cross_fit(images, fold_of, &Silent)?.expect("a cheaper way"))
}

fn scores(bank: &MemoryBank, image: &FeaturePyramid) -> Result<Vec<f32>> {
    Ok(bank.score(image)?.maps[0].values.flatten_all()?.to_vec1::<f32>()?)
}

#[test]
fn the_whole_is_what_fit_learns() -> Result<()> {
    let images = images(6)?;
    let fold_of = [0, 1, 2, 0, 1, 2];
    for params in [
        small(),
        MemoryBankParams { projection: 0, search: Search::Exact, ..small() },
        MemoryBankParams { anchor_weight: 0.5, reweight_neighbours: 3, ..small() },
        MemoryBankParams { reduction: Reduction::Projection { dimensions: 5 }, ..small() },
        MemoryBankParams { standardise: Standardisation::None, prototypes: 1000, candidates: 1000, ..small() },
    ] {
        let fit = params.check()?;
        let expected = fit.fit(&images, &Silent)?;
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let folded = folded(&fit, &images, &fold_of)?;
                let without = folded.without(1, &Silent)?;
                assert_eq!(without.search().count(), expected.search().count().min(400).min(4 * 80));
                assert_eq!(bits(&folded.whole(&Silent)?), bits(&expected));
                Ok::<_, masf_core::Error>(())
            })?;
        }
    }
    Ok(())
}

#[test]
fn a_bank_without_a_fold_has_none_of_its_patches_and_scores_like_one_learned_without() -> Result<()> {
    let images = images(12)?;
    let fold_of: Vec<usize> = (0..12).map(|image| image % 4).collect();
    // All 80 patches of an image are candidates.
    let fit = MemoryBankParams { candidates: 12 * 80, prototypes: 300, ..small() }.check()?;
    let folded = folded(&fit, &images, &fold_of)?;
    for fold in 0..4 {
        let without = folded.without(fold, &Silent)?;
        assert_eq!(without.search().count(), 300);
        let left: Vec<usize> = (0..12).filter(|image| fold_of[*image] != fold).collect();
        let learned = fit.fit(&Subset::new(&images, left)?, &Silent)?;
        let (mut own, mut others) = (Vec::new(), Vec::new());
        for image in (0..12).filter(|image| fold_of[*image] == fold) {
            own.extend(scores(&without, &images.0[image])?);
            others.extend(scores(&learned, &images.0[image])?);
        }
        // Patches of images that were learned from have some distances of zero; these have none.
        assert!(own.iter().all(|score| *score > 0.1), "fold {fold} was learned from");
        let mean = |scores: &[f32]| scores.iter().sum::<f32>() / scores.len() as f32;
        let (own, others) = (mean(&own), mean(&others));
        assert!((own / others - 1.0).abs() < 0.02, "fold {fold}: {own} on average, learned without {others}");
    }
    Ok(())
}

#[test]
fn what_fits_single_directions_to_the_images_is_learned_anew() -> Result<()> {
    let images = images(6)?;
    let fold_of = [0, 1, 0, 1, 0, 1];
    for params in [
        MemoryBankParams { standardise: Standardisation::Channel, ..small() },
        MemoryBankParams { reduction: Reduction::Pca { components: 4, whiten: false }, ..small() },
        // A budget with no room for a second set of prototypes.
        MemoryBankParams { candidates: 100_000, prototypes: 479, memory_budget: 1_700_000, ..small() },
    ] {
        let fit = params.check()?;
        fit.fit(&images, &Silent)?;
        assert!(fit.cross_fit(&images, &fold_of, &Silent)?.is_none(), "{:?}", fit.params());
    }
    Ok(())
}

#[test]
fn bad_folds_are_errors() -> Result<()> {
    let images = images(3)?;
    let fit = small().check()?;
    let message = |fold_of: &[usize]| fit.cross_fit(&images, fold_of, &Silent).err().map(|error| error.to_string());
    assert!(message(&[0, 1]).is_some_and(|message| message.contains("one for each of the 3 items")));
    assert!(message(&[0, 1, 3]).is_some_and(|message| message.contains("less than the number of items, 3")));
    // One fold of all: nothing is left without it. A fold that no image is in: everything is.
    let folded = folded(&fit, &images, &[0, 0, 0])?;
    assert!(folded.without(0, &Silent).is_err_and(|error| error.to_string().contains("no images")));
    assert_eq!(bits(&folded.without(7, &Silent)?), bits(&fit.fit(&images, &Silent)?));
    let none = Images(Vec::new());
    assert!(fit.cross_fit(&none, &[], &Silent).is_err_and(|error| error.to_string().contains("no images")));
    Ok(())
}

#[test]
fn images_that_are_alike_to_the_bit_leave_a_bank() -> Result<()> {
    let one = image((6, 10), 8, 3)?;
    let images = Images(vec![one.clone(), one.clone(), one]);
    let fit = MemoryBankParams { candidates: 240, prototypes: 100, projection: 0, ..small() }.check()?;
    let folded = folded(&fit, &images, &[0, 1, 2])?;
    for fold in 0..3 {
        // The other images have the same patches, so each is replaced with its double.
        let without = folded.without(fold, &Silent)?;
        assert!(scores(&without, &batch(&images.0[..1])?)?.iter().filter(|score| **score == 0.0).count() >= 80 - 20);
    }
    Ok(())
}

#[test]
fn cancellation_is_heard() -> Result<()> {
    let images = images(3)?;
    let fit = small().check()?;
    assert!(matches!(fit.cross_fit(&images, &[0, 1, 2], &Cancelled), Err(masf_core::Error::Cancelled)));
    let folded = folded(&fit, &images, &[0, 1, 2])?;
    assert!(matches!(folded.without(0, &Cancelled), Err(masf_core::Error::Cancelled)));
    Ok(())
}
