//! Files, seeds, batches, threads and bad input of the baselines.

use candle_core::{Device, Tensor};
use masf_baselines::{Padim, PadimFit, PadimParams, PatchCore, PatchCoreParams};
use masf_core::artifact::{ModelFile, ReadOptions, SaveOptions, save};
use masf_core::{
    Artifact, Fault, FeatureCache, FeatureCacheBuilder, FeatureLevel, FeaturePyramid, Fit, LevelSpec, Result, Scorer,
    Silent, random_stream,
};
use rand::Rng;

/// Random images with levels at strides 4, 8 and 16 of an input of `8 side x 8 (side + 1)` pixels.
fn images(count: usize, side: usize, seed: u64) -> Result<FeaturePyramid> {
    let mut random = random_stream(seed, "test.images");
    let mut levels = Vec::new();
    for (stride, channels) in [(4, 6), (8, 7), (16, 9)] {
        let (height, width) = (8 * side / stride, 8 * (side + 1) / stride);
        let values: Vec<f32> = (0..count * channels * height * width).map(|_| random.random_range(-1.0..1.0)).collect();
        let map = Tensor::from_vec(values, (count, channels, height, width), &Device::Cpu)?;
        levels.push(FeatureLevel { spec: LevelSpec { stride, channels }, map });
    }
    FeaturePyramid::new(levels, (8 * side, 8 * (side + 1)))
}

fn source(count: usize, side: usize) -> Result<FeatureCache> {
    let mut cache = FeatureCacheBuilder::new(1 << 24);
    cache.push(&images(count, side, 1)?)?;
    cache.finish()
}

fn padim(dimensions: usize) -> PadimFit {
    PadimParams { dimensions, ..PadimParams::default() }.check().unwrap()
}

fn map(scorer: &dyn Scorer, pyramid: &FeaturePyramid) -> Result<Vec<f32>> {
    Ok(scorer.score(pyramid)?.maps[0].values.flatten_all()?.to_vec1()?)
}

fn reloaded<T: Artifact>(artifact: &T) -> T {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.masf");
    save(artifact, &path, SaveOptions::default()).unwrap();
    let file = ModelFile::open(&path, ReadOptions::default()).unwrap();
    T::read(&file.root().unwrap()).unwrap()
}

#[test]
fn reloaded_models_and_batches_give_the_same_bits() -> Result<()> {
    let (source, test) = (source(6, 4)?, images(3, 4, 2)?);
    let patchcore = PatchCoreParams { prototypes: 40, ..PatchCoreParams::default() }.check()?.fit(&source, &Silent)?;
    let gaussians = padim(10).fit(&source, &Silent)?;
    for (scorer, again) in [
        (&patchcore as &dyn Scorer, &reloaded::<PatchCore>(&patchcore) as &dyn Scorer),
        (&gaussians, &reloaded::<Padim>(&gaussians)),
    ] {
        let all = map(scorer, &test)?;
        assert_eq!(all, map(again, &test)?);
        let single: Vec<f32> =
            (0..3).map(|index| map(scorer, &test.image(index)?)).collect::<Result<Vec<_>>>()?.concat();
        assert_eq!(all, single);
    }
    Ok(())
}

#[test]
fn the_number_of_threads_changes_nothing() -> Result<()> {
    let (source, test) = (source(6, 4)?, images(1, 4, 2)?);
    let run = || map(&padim(10).fit(&source, &Silent)?, &test);
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(run)?;
    let three = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap().install(run)?;
    assert_eq!(one, three);
    Ok(())
}

#[test]
fn the_seed_chooses_the_channels() -> Result<()> {
    let source = source(3, 2)?;
    let with_seed = |seed| PadimParams { dimensions: 10, seed, ..PadimParams::default() }.check().unwrap();
    let channels = |seed| Ok::<_, masf_core::Error>(with_seed(seed).fit(&source, &Silent)?.channels().to_vec());
    assert_eq!(channels(0)?, channels(0)?);
    assert_ne!(channels(0)?, channels(1)?);
    assert_eq!(channels(0)?.len(), 10);
    // More than there are: all of them.
    assert_eq!(padim(100).fit(&source, &Silent)?.channels(), (0..22).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn one_image_is_enough_and_has_distance_zero() -> Result<()> {
    let scorer = padim(5).fit(&source(1, 2)?, &Silent)?;
    assert!(map(&scorer, &images(1, 2, 1)?)?.iter().all(|score| *score == 0.0));
    // The covariance is 0.01 times the identity: ten times the Euclidean distance.
    let shifted = images(1, 2, 1)?;
    let levels = shifted.levels().iter().map(|level| Ok(FeatureLevel { spec: level.spec, map: (&level.map + 1.0)? }));
    let shifted = FeaturePyramid::new(levels.collect::<Result<_>>()?, shifted.input_size())?;
    for score in map(&scorer, &shifted)? {
        assert!((score - 10.0 * 5f32.sqrt()).abs() < 1e-3, "{score}");
    }
    Ok(())
}

#[test]
fn bad_input_is_named() -> Result<()> {
    let scorer = padim(10).fit(&source(4, 4)?, &Silent)?;
    let other_size = scorer.score(&images(1, 6, 1)?).unwrap_err();
    assert!(other_size.fault() == Fault::Data && other_size.to_string().contains("stride 4"), "{other_size}");

    let mut levels = images(1, 4, 1)?.levels().to_vec();
    levels[0].map = (&levels[0].map * f64::NAN)?;
    let nan = FeaturePyramid::new(levels, (32, 40))?;
    let error = scorer.score(&nan).unwrap_err();
    assert!(error.fault() == Fault::Data && error.to_string().contains("finite"), "{error}");
    let mut cache = FeatureCacheBuilder::new(1 << 24);
    cache.push(&nan)?;
    let error = padim(22).fit(&cache.finish()?, &Silent).unwrap_err();
    assert!(error.fault() == Fault::Data && error.to_string().contains("row 0, column 0"), "{error}");

    // The covariance of one image is 0, the square root of this too for 32 bits.
    let tiny = PadimParams { regularisation: 1e-95, ..PadimParams::default() }.check()?;
    let error = tiny.fit(&source(1, 2)?, &Silent).unwrap_err();
    assert!(error.fault() == Fault::Argument && error.to_string().contains("regularisation"), "{error}");

    let small = PadimParams { memory_budget: 1000, ..PadimParams::default() }.check()?;
    let error = small.fit(&source(2, 4)?, &Silent).unwrap_err();
    assert!(error.fault() == Fault::Argument && error.to_string().contains("memory_budget"), "{error}");
    for (channels, says) in
        [(vec![], "number of channels is 0"), (vec![3, 3], "each once"), (vec![22], "[22] of levels")]
    {
        let error = padim(3).with_channels(channels).fit(&source(2, 2)?, &Silent).unwrap_err();
        assert!(error.fault() == Fault::Argument && error.to_string().contains(says), "{error}");
    }
    let levels = PadimParams { levels: vec![8, 4], ..PadimParams::default() }.check().unwrap_err();
    assert!(levels.to_string().contains("levels"), "{levels}");
    assert!(PadimParams { dimensions: 0, ..PadimParams::default() }.check().is_err());
    Ok(())
}
