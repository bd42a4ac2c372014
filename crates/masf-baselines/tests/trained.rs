//! Files, seeds, batches, threads, cancellation and bad input of the trained baselines, and that they find what is not normal.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use candle_core::{DType, Device, Tensor};
use masf_baselines::{Adtr, AdtrParams, Cfa, CfaParams, Isstad, IsstadParams, PadimParams, Rdpp, RdppParams};
use masf_core::artifact::{ModelFile, ReadOptions, SaveOptions, save};
use masf_core::{
    Artifact, Error, Fault, FeatureCache, FeatureCacheBuilder, FeatureLevel, FeaturePyramid, Fit, LevelSpec, Progress,
    PyramidSource, Result, Scorer, Silent, random_stream,
};
use rand::Rng;

/// Smooth images of three patterns, with levels at strides 8 and 16 of 8 x 8 and 4 x 4 positions; in odd images a patch of the
/// fine level is turned around, where that is wanted.
fn images(count: usize, seed: u64, defective: bool) -> Result<FeaturePyramid> {
    let mut random = random_stream(seed, "test.images");
    let shifts: Vec<[f32; 3]> = (0..count).map(|_| [(); 3].map(|()| random.random_range(-0.3..0.3))).collect();
    let mut levels = Vec::new();
    for (stride, channels, side) in [(8, 12, 8usize), (16, 16, 4)] {
        let mut values = Vec::new();
        for (image, shift) in shifts.iter().enumerate() {
            for channel in 0..channels {
                for (y, x) in (0..side * side).map(|index| (index / side, index % side)) {
                    let (y, x) = (y as f32 / side as f32, x as f32 / side as f32);
                    let wave = (channel as f32 * 1.7 + 3.0 * x + 2.0 * y + shift[channel % 3]).sin();
                    let sign =
                        if defective && image % 2 == 1 && (0.5..0.75).contains(&x) && y < 0.25 { -1.0 } else { 1.0 };
                    values.push(sign * wave + 0.05 * random.random_range(-1.0..1.0f32));
                }
            }
        }
        let map = Tensor::from_vec(values, (count, channels, side, side), &Device::Cpu)?;
        levels.push(FeatureLevel { spec: LevelSpec { stride, channels }, map });
    }
    FeaturePyramid::new(levels, (64, 64))
}

fn source(count: usize) -> Result<FeatureCache> {
    cached(&images(count, 1, false)?)
}

fn cached(pyramid: &FeaturePyramid) -> Result<FeatureCache> {
    let mut cache = FeatureCacheBuilder::new(1 << 24);
    cache.push(pyramid)?;
    cache.finish()
}

fn cfa() -> CfaParams {
    CfaParams { channel_divisor: 1, passes: 240, ..CfaParams::default() }
}

fn rdpp() -> RdppParams {
    RdppParams { width: 16, passes: 1200, learning_rate: 5e-3, ..RdppParams::default() }
}

fn adtr() -> AdtrParams {
    AdtrParams { width: 16, heads: 2, depth: 1, passes: 1200, learning_rate: 3e-3, ..AdtrParams::default() }
}

fn isstad() -> IsstadParams {
    IsstadParams {
        width: 16,
        decoder_width: 16,
        heads: 2,
        depth: 1,
        decoder_depth: 1,
        passes: 1200,
        learning_rate: 5e-3,
        ..IsstadParams::default()
    }
}

/// The pyramid with every map changed.
fn changed(
    pyramid: &FeaturePyramid,
    change: impl Fn(&Tensor) -> candle_core::Result<Tensor>,
) -> Result<FeaturePyramid> {
    let levels = pyramid.levels().iter();
    let levels = levels.map(|level| Ok(FeatureLevel { spec: level.spec, map: change(&level.map)? }));
    FeaturePyramid::new(levels.collect::<Result<_>>()?, pyramid.input_size())
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

/// What every trained method must do; `fit` is given a seed, `side` is that of its map.
fn behaves<T: Artifact + Scorer>(fit: impl Fn(u64) -> Result<T> + Sync, name: &str, side: usize) -> Result<()> {
    let test = images(6, 2, true)?;
    let fitted = fit(0)?;
    let scores = fitted.score(&test)?;
    assert_eq!((scores.maps.len(), scores.maps[0].name.as_str()), (1, name));
    assert_eq!(scores.maps[0].values.dims(), [6, side, side]);
    let all = map(&fitted, &test)?;

    // Odd images have a defect in rows 0 and 1, columns 4 and 5 of 8; it stands out from all of the even ones.
    let positions = side * side;
    let most = |image: usize| all[image * positions..(image + 1) * positions].iter().copied().fold(f32::MIN, f32::max);
    let normal = [0, 2, 4].map(most).into_iter().fold(f32::MIN, f32::max);
    for image in [1, 3, 5] {
        assert!(most(image) > 1.3 * normal, "{name}: image {image} has {}, normal ones {normal}", most(image));
        let at = |place: &usize| all[image * positions + place];
        let place = (0..positions).max_by(|a, b| at(a).total_cmp(&at(b))).unwrap();
        let (row, column) = (place / side * 8 / side, place % side * 8 / side);
        assert!(row <= 2 && (3..=6).contains(&column), "{name}: at row {row}, column {column}");
    }

    // A model that was saved, images one by one, and other numbers of threads give the same bits; other seeds do not.
    assert_eq!(all, map(&reloaded(&fitted), &test)?);
    let single: Vec<f32> = (0..6).map(|index| map(&fitted, &test.image(index)?)).collect::<Result<Vec<_>>>()?.concat();
    assert_eq!(all, single);
    let run = || map(&fit(0)?, &test);
    assert_eq!(all, rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(run)?);
    assert_eq!(all, rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap().install(run)?);
    assert_ne!(all, map(&fit(1)?, &test)?);

    // Other sizes and values that are not finite are named.
    let mut levels = test.levels().to_vec();
    levels[0].map = levels[0].map.narrow(3, 0, 6)?;
    let error = fitted.score(&FeaturePyramid::new(levels, (64, 48))?).unwrap_err();
    assert_eq!(error.fault(), Fault::Data, "{error}");
    let nan = |map: &Tensor| Tensor::cat(&[map.narrow(0, 0, 1)?, (map.narrow(0, 1, 1)? * f64::NAN)?], 0);
    let error = fitted.score(&changed(&test, nan)?).unwrap_err();
    assert!(error.fault() == Fault::Data && error.to_string().contains("image 1"), "{error}");
    // Finite features whose squares are not.
    match map(&fitted, &changed(&test, |map| map * 1e38)?) {
        Ok(scores) => assert!(scores.iter().all(|score| score.is_finite()), "{name}: {scores:?}"),
        Err(error) => assert_eq!(error.fault(), Fault::Data, "{error}"),
    }
    let none = fitted.score(&changed(&test, |map| map.narrow(0, 0, 0))?)?;
    assert_eq!(none.maps[0].values.dims(), [0, side, side]);
    Ok(())
}

#[test]
fn cfa_behaves() -> Result<()> {
    let source = source(12)?;
    behaves(|seed| CfaParams { seed, ..cfa() }.check()?.fit(&source, &Silent), Cfa::MAP, 8)?;
    // Fewer centres, by k-means; too few are refused.
    let few = CfaParams { centre_divisor: 4, ..cfa() }.check()?.fit(&source, &Silent)?;
    assert_eq!(few.centres(), 16);
    let error = CfaParams { centre_divisor: 32, ..cfa() }.check()?.fit(&source, &Silent).unwrap_err();
    assert!(error.fault() == Fault::Argument && error.to_string().contains("centre_divisor"), "{error}");
    // No divisor helps where the grid is too small.
    let tiny = cached(&changed(&images(2, 1, false)?, |map| map.avg_pool2d(4))?)?;
    let error = cfa().check()?.fit(&tiny, &Silent).unwrap_err();
    assert!(error.to_string().starts_with("nearest + negatives is 6; expected at most the 4 positions"), "{error}");
    Ok(())
}

#[test]
fn rdpp_behaves() -> Result<()> {
    let source = source(12)?;
    behaves(|seed| RdppParams { seed, ..rdpp() }.check()?.fit(&source, &Silent), Rdpp::MAP, 8)
}

#[test]
fn adtr_behaves() -> Result<()> {
    let source = source(12)?;
    behaves(|seed| AdtrParams { seed, ..adtr() }.check()?.fit(&source, &Silent), Adtr::MAP, 4)
}

#[test]
fn isstad_behaves() -> Result<()> {
    let source = source(12)?;
    behaves(|seed| IsstadParams { seed, ..isstad() }.check()?.fit(&source, &Silent), Isstad::MAP, 8)
}

#[test]
fn isstad_learns_two_images_by_heart() -> Result<()> {
    let model = isstad().check()?.fit(&source(2)?, &Silent)?;
    let most = |map: Vec<f32>| map.into_iter().fold(0f32, f32::max);
    let known = most(map(&model, &source(2)?.batch(&[0, 1])?)?);
    let defective = most(map(&model, &images(2, 1, true)?.image(1)?)?);
    assert!(known < 0.1 && defective > 5.0 * known, "{known} {defective}");
    Ok(())
}

#[test]
fn isstad_needs_tokens_to_restore_from_and_takes_sizes_that_do_not_divide() -> Result<()> {
    let level = |stride, channels, height, width| -> Result<FeatureLevel> {
        let map = Tensor::randn(0f32, 1f32, (3, channels, height, width), &Device::Cpu)?;
        Ok(FeatureLevel { spec: LevelSpec { stride, channels }, map })
    };
    let fit = |levels: Vec<FeatureLevel>, size| -> Result<Vec<usize>> {
        let pyramid = FeaturePyramid::new(levels, size)?;
        let model = IsstadParams { passes: 8, ..isstad() }.check()?.fit(&cached(&pyramid)?, &Silent)?;
        Ok(model.score(&pyramid)?.maps[0].values.dims().to_vec())
    };
    let error = fit(vec![level(8, 3, 2, 2)?, level(16, 4, 1, 1)?], (16, 16)).unwrap_err();
    assert!(error.fault() == Fault::Data && error.to_string().contains("1 position"), "{error}");
    assert_eq!(fit(vec![level(8, 3, 5, 7)?, level(16, 4, 3, 4)?], (40, 56))?, [3, 5, 7]);
    Ok(())
}

#[test]
fn all_levels_of_a_stride_are_taken() -> Result<()> {
    // Alike in stride, channels and size, as the blocks of a vision transformer.
    let first = images(6, 1, false)?.levels()[0].clone();
    let with = |map| FeaturePyramid::new(vec![first.clone(), FeatureLevel { spec: first.spec, map }], (64, 64));
    let (normal, other) = (with(first.map.sqr()?)?, with(first.map.neg()?)?);
    let source = cached(&normal)?;
    let rdpp = RdppParams { levels: vec![8], passes: 8, ..rdpp() }.check()?.fit(&source, &Silent)?;
    let scorers: [Box<dyn Scorer>; 3] = [
        Box::new(PadimParams { levels: vec![8], ..PadimParams::default() }.check()?.fit(&source, &Silent)?),
        Box::new(CfaParams { levels: vec![8], passes: 8, ..cfa() }.check()?.fit(&source, &Silent)?),
        Box::new(reloaded(&rdpp)),
    ];
    for scorer in scorers {
        assert_ne!(map(&*scorer, &normal)?, map(&*scorer, &other)?);
    }
    Ok(())
}

/// Asks to stop after some steps; counts them, and the stages that are open.
#[derive(Default)]
struct Impatient(AtomicU64, AtomicU64);

impl Progress for Impatient {
    fn start(&self, _: &str, _: u64) {
        self.1.fetch_add(1, Relaxed);
    }
    fn step(&self, _: u64) {
        self.0.fetch_add(1, Relaxed);
    }
    fn finish(&self) {
        self.1.fetch_sub(1, Relaxed);
    }
    fn is_cancelled(&self) -> bool {
        self.0.load(Relaxed) > 8
    }
}

#[test]
fn trainings_stop_when_asked_and_refuse_nonsense() -> Result<()> {
    let source = source(12)?;
    let impatient = Impatient::default;
    assert!(matches!(cfa().check()?.fit(&source, &impatient()), Err(Error::Cancelled)));
    assert!(matches!(rdpp().check()?.fit(&source, &impatient()), Err(Error::Cancelled)));
    assert!(matches!(adtr().check()?.fit(&source, &impatient()), Err(Error::Cancelled)));
    assert!(matches!(isstad().check()?.fit(&source, &impatient()), Err(Error::Cancelled)));

    let stopped = impatient();
    let padim = PadimParams { levels: vec![8], ..PadimParams::default() }.check()?;
    assert!(matches!(padim.fit(&self::source(24)?, &stopped), Err(Error::Cancelled)));
    assert_eq!(stopped.1.into_inner(), 0);

    let missing = CfaParams { levels: vec![4, 8], ..cfa() }.check()?.fit(&source, &Silent).unwrap_err();
    assert!(missing.to_string().contains("stride"), "{missing}");
    let missing = RdppParams { levels: vec![32], ..rdpp() }.check()?.fit(&source, &Silent).unwrap_err();
    assert!(missing.to_string().contains("stride"), "{missing}");

    // More positions than a model file may have.
    let map = Tensor::zeros((1, 1, 129, 128), DType::F32, &Device::Cpu)?;
    let level = FeatureLevel { spec: LevelSpec { stride: 8, channels: 1 }, map };
    let large = cached(&FeaturePyramid::new(vec![level], (1032, 1024))?)?;
    let errors = [
        RdppParams { levels: vec![8], ..rdpp() }.check()?.fit(&large, &Silent).unwrap_err(),
        AdtrParams { levels: vec![8], ..adtr() }.check()?.fit(&large, &Silent).unwrap_err(),
        IsstadParams { levels: vec![8], ..isstad() }.check()?.fit(&large, &Silent).unwrap_err(),
    ];
    for error in errors {
        assert!(error.fault() == Fault::Argument && error.to_string().contains("16,384"), "{error}");
    }
    // Attentions of many GB.
    let level = |(stride, side): (usize, usize)| -> Result<FeatureLevel> {
        let map = Tensor::zeros((1, 1, side, side), DType::F32, &Device::Cpu)?;
        Ok(FeatureLevel { spec: LevelSpec { stride, channels: 1 }, map })
    };
    let levels = [(8, 128), (16, 64)].map(level).into_iter().collect::<Result<Vec<_>>>()?;
    let large = cached(&FeaturePyramid::new(levels, (1024, 1024))?)?;
    let errors = [
        AdtrParams::default().check()?.fit(&large, &Silent).unwrap_err(),
        IsstadParams::default().check()?.fit(&large, &Silent).unwrap_err(),
    ];
    for error in errors {
        assert!(error.fault() == Fault::Argument && error.to_string().contains("4096 positions"), "{error}");
    }

    // The last of six images, which are read four at a time.
    let mut levels = source.batch(&[0, 1, 2, 3, 4, 5])?.levels().to_vec();
    let map = levels[1].map.narrow(0, 5, 1)?;
    levels[1].map = Tensor::cat(&[levels[1].map.narrow(0, 0, 5)?, (map * f64::NAN)?], 0)?;
    let nan = cached(&FeaturePyramid::new(levels, (64, 64))?)?;
    let errors = [
        cfa().check()?.fit(&nan, &Silent).unwrap_err(),
        rdpp().check()?.fit(&nan, &Silent).unwrap_err(),
        adtr().check()?.fit(&nan, &Silent).unwrap_err(),
        isstad().check()?.fit(&nan, &Silent).unwrap_err(),
    ];
    for error in errors {
        let text = error.to_string();
        assert!(error.fault() == Fault::Data && text.contains("finite") && text.contains("image 5"), "{error}");
    }
    Ok(())
}
