//! Views, several branches, learned weights, the gate, uncertainty and drift, over the whole way of an image; with a backbone
//! that costs next to nothing.

use candle_core::Tensor;
use masf::core::{
    Artifact, ArtifactReader, ArtifactWriter, FeatureExtractor, FeatureLevel, FeaturePyramid, Fit, LevelSpec,
    Normalisation, PyramidSource, ScoreMap, Scorer, Scores,
};
use masf::data::Dataset;
use masf::data::synthetic::{SyntheticConfig, SyntheticSet};
use masf::{
    Branch, Config, Detail, Detector, DetectorBuilder, Gate, ImageInput, Inspection, MemoryBankParams, PositionAware,
    Progress, ReadOptions, Result, Silent, Size, Weights,
};
use masf_tests::{dataset, quick_config, training_images};

fn test_images() -> Result<Vec<std::path::PathBuf>> {
    Ok(Dataset::test(dataset())?.samples.into_iter().map(|sample| sample.path).collect())
}

fn bits(found: &Inspection) -> (u32, u32, Vec<u32>, Vec<u32>) {
    let scores = found.anomaly_map.iter().map(|score| score.to_bits()).collect();
    let deviations = found.uncertainty_map.iter().map(|deviation| deviation.to_bits()).collect();
    (found.image_score.to_bits(), found.uncertainty.to_bits(), scores, deviations)
}

fn builder(config: Config) -> DetectorBuilder {
    Detector::builder().config(config).backbone(Box::new(Blocks) as Box<dyn FeatureExtractor>)
}

fn fitted(config: Config) -> Result<Detector> {
    builder(config).fit(training_images()?)
}

fn registry() -> masf::Registry {
    masf::default_registry().with_backbone::<Blocks>("test.blocks").with_scorer::<Noise>("test.noise")
}

/// Two banks, views, learned weights, the gate and two angles.
fn everything() -> Config {
    let mut config = quick_config();
    config.orientations = 2;
    config.memory.per_level = true;
    config.views.noise = 1;
    (config.views.shifts, config.views.margin) = (1, 8);
    config.fusion.weights = Weights::Learned;
    config.fusion.synthetic_defects = 15;
    config.fusion.gate = Gate { views: 1.0, disagreement: 1.0 };
    config
}

#[test]
fn with_everything_on_a_reloaded_model_gives_the_same_bits_in_any_batch() -> Result<()> {
    let (detector, report) = builder(everything()).fit_with_report(training_images()?)?;
    let names: Vec<&str> = report.precisions.iter().map(|map| map.name.as_str()).collect();
    assert_eq!(names, ["memory", "memory.2"]);
    let sum: f64 = report.precisions.iter().map(|map| map.weight).sum();
    assert!((sum - 1.0).abs() < 1e-9, "{report:?}");
    let better = report
        .precisions
        .iter()
        .max_by(|a, b| a.image_auroc.min(a.pixel_auroc).total_cmp(&b.image_auroc.min(b.pixel_auroc)));
    assert!(report.precisions.iter().all(|map| better.is_some_and(|better| map.weight <= better.weight)), "{report:?}");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.masf");
    detector.save(&path)?;
    let reloaded = Detector::load_with(&path, &registry(), ReadOptions::default())?;
    assert_eq!(reloaded.config(), detector.config());
    let images = test_images()?;
    let batch = reloaded.inspect_batch(&images);
    for (image, batched) in images.iter().zip(batch) {
        let found = detector.inspect(image)?;
        assert_eq!(bits(&reloaded.inspect(image)?), bits(&found));
        assert_eq!(bits(&batched?), bits(&found), "in a batch");
        assert!(found.uncertainty_map.iter().all(|deviation| deviation.is_finite() && *deviation >= 0.0));
        assert!(found.uncertainty_map.iter().any(|deviation| *deviation > 0.0));
        assert!((0.0..=1.0).contains(&found.uncertainty));
    }
    let again = folder.path().join("again.masf");
    reloaded.save(&again)?;
    assert!(std::fs::read(&path).ok() == std::fs::read(&again).ok(), "two writes of a model differ");
    Ok(())
}

#[test]
fn positions_are_refused_where_too_few_images_are_held_out() -> Result<()> {
    let mut config = quick_config();
    config.fusion.position_aware = PositionAware::Always;
    let refused = |config| Detector::builder().config(config).fit(&training_images()?[..12]).map(|_| ());
    let found = refused(config.clone()).unwrap_err().to_string();
    assert!(found.contains("fusion.position_aware") && found.contains("12 images are held out"), "{found}");
    // Three of twelve for a student, which would learn for long before.
    config.branches = vec![Branch::Distill];
    config.distill.passes = 1_000_000;
    let found = refused(config).unwrap_err().to_string();
    assert!(found.contains("3 images are held out") && found.contains("at least 20"), "{found}");
    Ok(())
}

#[test]
fn views_change_scores_a_little_and_their_absence_not_at_all() -> Result<()> {
    let plain = fitted(quick_config())?;
    let mut config = quick_config();
    // Settings without views have no effect.
    config.views.limit = 0.3;
    config.views.margin = 8;
    let without = fitted(config.clone())?;
    config.views.noise = 2;
    let with = fitted(config)?;
    for image in test_images()? {
        let [plain, without, with] = [plain.inspect(&image)?, without.inspect(&image)?, with.inspect(&image)?];
        assert_eq!(bits(&plain), bits(&without));
        assert!(plain.uncertainty_map.iter().all(|deviation| *deviation == 0.0));
        assert!(with.uncertainty_map.iter().any(|deviation| *deviation > 0.0));
        let change = (&with.anomaly_map - &plain.anomaly_map).mapv(f32::abs).mean().unwrap_or(f32::NAN);
        assert!(change > 0.0 && change < 1.0, "{change}");
    }
    Ok(())
}

#[test]
fn views_are_refused_where_a_branch_scores_images_itself() -> Result<()> {
    let fit = |noise| -> Result<Detector> {
        let mut config = quick_config();
        config.views.noise = noise;
        let memory =
            MemoryBankParams { candidates: 2000, prototypes: 200, reweight_neighbours: 9, ..Default::default() };
        builder(config).branch(memory.check()?).fit(training_images()?)
    };
    fit(0)?;
    let refused = fit(1).expect_err("such a score has no mean").to_string();
    assert!(refused.contains("views is on"), "{refused}");
    Ok(())
}

#[test]
fn at_several_angles_a_turned_part_is_as_normal_as_an_upright_one() -> Result<()> {
    let mut config = quick_config();
    config.fusion.detail = Detail::OFF;
    // A network that tells directions, which the means of blocks do not.
    let fitted = |config| Detector::builder().config(config).fit(training_images()?);
    let plain = fitted(config.clone())?;
    config.orientations = 4;
    let detector = fitted(config)?;
    let mut differ = 0;
    for image in test_images()? {
        let upright = image::open(&image).expect("an image").to_rgb8();
        let turned = image::imageops::rotate90(&upright);
        let [found, of_turned] = [detector.inspect(upright.clone())?, detector.inspect(turned.clone())?];
        assert!((found.image_score - of_turned.image_score).abs() < 1e-4 * found.image_score.abs().max(1.0));
        // The map of the turned image is the turned map.
        let side = found.anomaly_map.nrows();
        let differences = found
            .anomaly_map
            .indexed_iter()
            .map(|((y, x), own)| (own - of_turned.anomaly_map[(x, side - 1 - y)]).abs());
        let change = differences.sum::<f32>() / (side * side) as f32;
        assert!(change < 1e-3, "{change}");
        let [plain, plain_turned] = [plain.inspect(upright)?, plain.inspect(turned)?];
        differ += usize::from((plain.image_score - plain_turned.image_score).abs() > 0.05);
    }
    // To the plain one a turned part is another.
    assert!(differ > 10, "{differ}");
    Ok(())
}

#[test]
fn detail_changes_maps_and_the_threshold_of_pixels_alone() -> Result<()> {
    let mut config = quick_config();
    let with = fitted(config.clone())?;
    config.fusion.detail = Detail::OFF;
    let without = fitted(config)?;
    assert_eq!(with.threshold(), without.threshold());
    assert_ne!(with.pixel_threshold(), without.pixel_threshold());
    for image in test_images()? {
        let [with, without] = [with.inspect(&image)?, without.inspect(&image)?];
        assert_eq!(with.image_score.to_bits(), without.image_score.to_bits());
        assert_eq!(with.uncertainty_map, without.uncertainty_map);
        assert_ne!(with.anomaly_map, without.anomaly_map);
    }
    Ok(())
}

#[test]
fn a_branch_that_fails_loses_its_weight() -> Result<()> {
    let config = everything();
    let memory = MemoryBankParams { levels: vec![8, 16], candidates: 2000, prototypes: 200, ..Default::default() };
    let (detector, report) = builder(Config { views: Default::default(), ..config })
        .branch(memory.check()?)
        .branch(Noise)
        .fit_with_report(training_images()?)?;
    let [memory, noise] = &report.precisions[..] else { panic!("{report:?}") };
    assert!(memory.weight > 0.9 && noise.weight < 0.1, "{report:?}");
    // The model with a branch of its own kind loads with its reader.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("noise.masf");
    detector.save(&path)?;
    let reloaded = Detector::load_with(&path, &registry(), ReadOptions::default())?;
    let image = &test_images()?[0];
    assert_eq!(bits(&reloaded.inspect(image)?), bits(&detector.inspect(image)?));
    Ok(())
}

#[test]
fn the_least_number_of_defects_is_enough_at_any_angle() -> Result<()> {
    let mut config = Config { views: Default::default(), ..everything() };
    config.fusion.synthetic_defects = 8;
    config.input.size = Size::square(64);
    // Seeds of which a defect first lies outside the disc that is seen.
    for seed in [2, 5, 6, 7] {
        builder(Config { seed, ..config.clone() }).fit(&training_images()?[..8])?;
    }
    Ok(())
}

/// Mean and deviation of the colours of blocks of 8 and of 16 pixels.
struct Blocks;

const LEVELS: [LevelSpec; 2] = [LevelSpec { stride: 8, channels: 6 }, LevelSpec { stride: 16, channels: 6 }];

impl FeatureExtractor for Blocks {
    fn levels(&self) -> &[LevelSpec] {
        &LEVELS
    }

    fn normalisation(&self) -> Normalisation {
        Normalisation::SYMMETRIC
    }

    fn name(&self) -> &str {
        "blocks"
    }

    fn extract(&self, images: &Tensor) -> Result<FeaturePyramid> {
        let (_, _, height, width) = images.dims4()?;
        let level = |spec: LevelSpec| -> Result<FeatureLevel> {
            let mean = images.avg_pool2d(spec.stride)?;
            let variance = (images.sqr()?.avg_pool2d(spec.stride)? - mean.sqr()?)?;
            Ok(FeatureLevel { spec, map: Tensor::cat(&[mean, variance.relu()?.sqrt()?], 1)? })
        };
        FeaturePyramid::new(LEVELS.into_iter().map(level).collect::<Result<_>>()?, (height, width))
    }
}

impl Artifact for Blocks {
    fn tag(&self) -> &'static str {
        "test.blocks"
    }

    fn write(&self, writer: &mut ArtifactWriter) -> Result<()> {
        writer.section(&())
    }

    fn read(_: &ArtifactReader<'_>) -> Result<Self> {
        Ok(Self)
    }
}

/// A branch that knows nothing: scores that depend on the features like the digits of a hash.
#[derive(Clone, Copy)]
struct Noise;

impl Fit for Noise {
    type Scorer = Self;

    fn fit(&self, _: &dyn PyramidSource, _: &dyn Progress) -> Result<Self> {
        Ok(Self)
    }
}

impl Scorer for Noise {
    fn score(&self, pyramid: &FeaturePyramid) -> Result<Scores> {
        let map = pyramid.levels()[0].map.sum(1)?;
        let values: Vec<f32> = map
            .flatten_all()?
            .to_vec1::<f32>()?
            .into_iter()
            .map(|value| (value.to_bits().wrapping_mul(2_654_435_761) >> 16) as f32 / 65_536.0)
            .collect();
        let values = Tensor::from_vec(values, map.shape(), map.device())?;
        Ok(Scores { maps: vec![ScoreMap { name: "noise".into(), values }], image: None })
    }
}

impl Artifact for Noise {
    fn tag(&self) -> &'static str {
        "test.noise"
    }

    fn write(&self, writer: &mut ArtifactWriter) -> Result<()> {
        writer.section(&())
    }

    fn read(_: &ArtifactReader<'_>) -> Result<Self> {
        Ok(Self)
    }
}

#[test]
fn drift_is_reported_for_other_light_and_not_for_images_like_the_calibration() -> Result<()> {
    let detector = fitted(quick_config())?;
    let good = training_images()?;
    let scores = |images: Vec<ImageInput>| -> Result<Vec<f32>> {
        detector.inspect_batch(images).into_iter().map(|found| Ok(found?.image_score)).collect()
    };
    let mut dark = Vec::new();
    for path in &good {
        let image = masf::data::read_image(path, &masf::data::Limits::default())?;
        dark.push(ImageInput::from(image.brighten(-90)));
    }
    let dark = detector.drift(&scores(dark)?)?;
    assert!(dark.is_suspected(), "{dark:?}");
    let calm = detector.drift(&[1.0; 3])?;
    assert!(!calm.is_suspected() && calm.p_value.is_none(), "three images prove nothing: {calm:?}");
    // Found defects are no drift as long as they are few.
    let evaluation = detector.evaluate(&Dataset::test(dataset())?.samples, &Silent)?;
    assert_eq!(evaluation.drift.images, 4);
    let json = serde_json::to_value(&evaluation).expect("JSON");
    assert!(json["drift"]["p_value"].is_null() && json["error_rate"].is_number());
    Ok(())
}

#[test]
fn a_large_image_in_tiles_scores_like_the_whole() -> Result<()> {
    let set = SyntheticConfig { size: Size::new(512, 768), train: 6, test_good: 0, test_per_kind: 1, seed: 1 };
    let (train, test): (Vec<_>, Vec<_>) = SyntheticSet::new(set)?.iter().partition(|image| image.mask.is_none());
    let images: Vec<ImageInput> = train.into_iter().map(|image| image.image.into()).collect();
    let mut config = everything();
    config.input.size = Size::new(512, 768);
    // A disc is seen at several angles, and this is no square.
    (config.orientations, config.views.shifts) = (1, 0);
    config.fusion.synthetic_defects = 8;
    // All candidates are kept: a choice among them might turn on rounding.
    (config.memory.candidates, config.memory.prototypes, config.memory.turns) = (1000, 1000, 0);
    let whole = builder(config.clone()).fit(images.clone())?;
    config.input.tile = Some(Size::new(128, 256));
    config.input.tile_overlap = 32;
    let tiled = builder(config).fit(images)?;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tiled.masf");
    tiled.save(&path)?;
    let reloaded = Detector::load_with(&path, &registry(), ReadOptions::default())?;
    assert_eq!(reloaded.config().input.tile, Some(Size::new(128, 256)));
    for image in test {
        let found = tiled.inspect(image.image.clone())?;
        assert_eq!(found.anomaly_map.dim(), (512, 768));
        assert_eq!(bits(&reloaded.inspect(image.image.clone())?), bits(&found));
        // The features of blocks do not see the border of a tile, so only rounding differs.
        let of_whole = whole.inspect(image.image)?;
        let change = (&found.anomaly_map - &of_whole.anomaly_map).mapv(f32::abs).mean().unwrap_or(f32::NAN);
        assert!(change < 0.01, "{change}");
    }
    Ok(())
}

#[test]
fn settings_of_views_and_fusion_are_checked() {
    for (text, name) in [
        ("views.noise = 100", "views.noise"),
        ("views.band = [0.5, 0.1]", "views.band"),
        ("orientations = 0", "orientations"),
        ("orientations = 37", "orientations"),
        ("orientations = 2\ninput.size = 10000", "image size"),
        ("orientations = 2\ninput.size = '256x320'", "input.size"),
        ("method = 'patchcore'\npatchcore.reweight_neighbours = 3\nviews.noise = 2", "reweight_neighbours"),
        ("fusion.gate.views = -1.0", "fusion.gate.views"),
        ("fusion.weights = 'best'", "best"),
        ("fusion.weights = { shares = { memory = 0.0 } }", "shares"),
        ("fusion.fine_scale.sigma = 0.0", "fine_scale.sigma"),
        ("fusion.synthetic_defects = 1", "synthetic_defects"),
        ("threshold.drift_level = 0.0", "drift_level"),
        ("input.tile = 100", "input.tile"),
    ] {
        let error = Config::from_toml(text).expect_err(text).to_string();
        assert!(error.contains(name), "{text}: {error}");
    }
}
