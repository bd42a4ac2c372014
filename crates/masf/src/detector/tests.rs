//! What a fitted detector keeps, on small pictures and with the backbone that needs no weights.

use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Tensor};
use masf_backbone::ScatteringBackbone;
use masf_core::{
    Artifact, ArtifactReader, ArtifactWriter, Error, Fault, FeatureExtractor, FeaturePyramid, Fit, LevelSpec,
    Normalisation, Progress, PyramidSource, Result, ScoreMap, Scorer, Scores, Silent,
};
use masf_data::synthetic::{SyntheticConfig, SyntheticSet, write_dataset};
use masf_data::{Dataset, ImageInput, Limits, Size};
use masf_fusion::Threshold;
use masf_memory::{MemoryBank, MemoryBankFit, MemoryBankParams};

use crate::{BackboneConfig, Branch, Config, Detector, DetectorBuilder, ExtendOptions, Preset};

/// What fits in a moment.
pub(crate) fn config() -> Config {
    let mut config = Config::for_backbone("scattering");
    config.input.size = Size::square(64);
    config.memory.candidates = 500;
    config.memory.prototypes = 60;
    config
}

/// Good images in memory.
pub(crate) fn images(seed: u64, count: usize) -> Vec<ImageInput> {
    let config = SyntheticConfig { size: Size::square(64), train: count, seed, ..SyntheticConfig::default() };
    let set = SyntheticSet::new(config).expect("a synthetic set");
    // Those to learn from come first.
    set.iter().take(count).map(|picture| picture.image.into()).collect()
}

#[test]
fn limits_hold_wherever_a_fitted_detector_reads() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let size = Size::square(64);
    let set = SyntheticConfig { size, train: 2, test_good: 1, test_per_kind: 1, ..SyntheticConfig::default() };
    write_dataset(folder.path(), &set)?;
    let samples = Dataset::test(folder.path())?.samples;
    let path = &samples[0].path;
    let encoded = ImageInput::encoded("upload", std::fs::read(path).expect("a picture"));
    let refused = |error: Error| assert!(error.to_string().contains("above the limit of 16;"), "{error}");

    let narrow = Limits { max_width: 16, ..Limits::default() };
    let mut detector = Detector::builder().config(config()).limits(narrow).fit(images(0, 6))?;
    refused(detector.inspect(path).unwrap_err());
    refused(detector.inspect(encoded.clone()).unwrap_err());
    refused(detector.inspect_batch([path]).remove(0).unwrap_err());
    refused(detector.evaluate(&samples, &Silent).unwrap_err());
    refused(detector.extend([path], &ExtendOptions::default()).unwrap_err());

    // They are not saved.
    let model = folder.path().join("model.masf");
    detector.save(&model)?;
    let loaded = Detector::load(&model)?;
    loaded.inspect(path)?;
    refused(loaded.with_limits(narrow).inspect(path).unwrap_err());

    let limits = Limits { max_width: 100, ..Limits::default() };
    let detector = detector.with_limits(limits);
    detector.inspect(encoded)?;
    detector.evaluate_each(&samples, &Silent, |found| {
        assert_eq!(found.limits, limits);
        Ok(())
    })?;
    Ok(())
}

#[test]
fn the_configuration_names_the_backbone_that_was_given() -> Result<()> {
    let backbone: Box<dyn FeatureExtractor> = Box::new(ScatteringBackbone::new(&[8, 16])?);
    let config = Config { backbone: BackboneConfig::default(), ..config() };
    assert_ne!(config.backbone.name, backbone.name());
    let detector = Detector::builder().config(config).backbone(backbone).fit(images(0, 4))?;
    assert_eq!(detector.config().backbone.name, "scattering");
    Ok(())
}

#[test]
fn both_maps_end_where_the_disc_does() -> Result<()> {
    let mut config = Config { orientations: 2, ..config() };
    config.memory.per_level = true;
    let detector = Detector::builder().config(config).fit(images(0, 6))?;
    let found = detector.inspect(images(1, 1).remove(0))?;
    let corners: [(usize, usize); 4] = [(0, 0), (0, 63), (63, 0), (63, 63)];
    for map in [&found.anomaly_map, &found.uncertainty_map] {
        for corner in corners {
            assert_eq!(map[corner], 0.0, "{corner:?}");
        }
        assert!(map.iter().any(|value| *value != 0.0));
    }
    Ok(())
}

#[test]
fn fewer_images_go_together_where_each_has_views() -> Result<()> {
    let mut detector = Detector::builder().config(config()).fit(images(0, 4))?;
    for (noise, shifts, expected) in [(0, 0, 8), (1, 0, 4), (64, 8, 1)] {
        (detector.config.views.noise, detector.config.views.shifts) = (noise, shifts);
        assert_eq!(detector.batch(), expected);
    }
    Ok(())
}

/// The stages, each with the steps that it announced and those that it took.
#[derive(Default)]
struct Stages(Mutex<Vec<(String, u64, u64)>>);

impl Progress for Stages {
    fn start(&self, stage: &str, total: u64) {
        self.0.lock().unwrap().push((stage.to_owned(), total, 0));
    }

    fn step(&self, count: u64) {
        if let Some((_, _, taken)) = self.0.lock().unwrap().last_mut() {
            *taken += count;
        }
    }

    fn finish(&self) {}
}

#[test]
fn stages_take_the_steps_that_they_announce() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let size = Size::square(64);
    let set = SyntheticConfig { size, train: 2, test_good: 2, test_per_kind: 2, ..SyntheticConfig::default() };
    write_dataset(folder.path(), &set)?;
    let mut good = images(0, 9);
    good.push(ImageInput::encoded("broken", vec![0u8; 4]));
    let stages = Arc::new(Stages::default());
    let detector = Detector::builder().config(config()).progress(stages.clone()).skip_bad(true).fit(good)?;
    detector.evaluate(&Dataset::test(folder.path())?.samples, &*stages)?;
    let found = stages.0.lock().unwrap();
    for (stage, total, taken) in found.iter() {
        // A coreset tells of every sixteenth prototype.
        assert!(taken == total || (stage == "choosing prototypes" && taken < total), "{stage}: {taken} of {total}");
    }
    for expected in ["features", "evaluating"] {
        assert!(found.iter().any(|(stage, total, _)| stage == expected && *total == 10), "{found:?}");
    }
    Ok(())
}

/// A branch that says nothing of its stages, and has to learn anew for each fold.
struct Anew(MemoryBankFit);

impl Fit for Anew {
    type Scorer = MemoryBank;

    fn fit(&self, source: &dyn PyramidSource, _: &dyn Progress) -> Result<MemoryBank> {
        self.0.fit(source, &Silent)
    }
}

#[test]
fn a_bank_learns_once_beside_a_branch_that_learns_anew_for_each_fold() -> Result<()> {
    let bank = MemoryBankParams { prototypes: 60, ..MemoryBankParams::default() }.check()?;
    let stages = Arc::new(Stages::default());
    let builder = Detector::builder().config(config()).progress(stages.clone());
    builder.branch(bank.clone()).branch(Anew(bank)).fit(images(0, 6))?;
    let found = stages.0.lock().unwrap();
    let count = |wanted: &str| found.iter().filter(|(stage, _, _)| stage == wanted).count();
    assert_eq!((count("choosing prototypes"), count("calibration 5/5")), (1, 1), "{found:?}");
    Ok(())
}

/// A backbone and a scorer in name only: what they are asked for first goes wrong.
struct Named(&'static str, Vec<LevelSpec>);

impl Artifact for Named {
    fn tag(&self) -> &'static str {
        "test.named"
    }

    fn write(&self, _: &mut ArtifactWriter) -> Result<()> {
        Ok(())
    }

    fn read(_: &ArtifactReader<'_>) -> Result<Self> {
        Ok(Self("", Vec::new()))
    }
}

impl FeatureExtractor for Named {
    fn name(&self) -> &str {
        self.0
    }

    fn levels(&self) -> &[LevelSpec] {
        &self.1
    }

    fn normalisation(&self) -> Normalisation {
        Normalisation::IMAGENET
    }

    fn extract(&self, _: &Tensor) -> Result<FeaturePyramid> {
        Err(Error::Cancelled)
    }
}

#[test]
fn a_preset_is_that_for_the_backbone() -> Result<()> {
    let named = |name, strides: &[usize]| {
        Box::new(Named(name, strides.iter().map(|stride| LevelSpec { stride: *stride, channels: 4 }).collect()))
            as Box<dyn FeatureExtractor>
    };
    // The strides are the patch's: with masf-nano's the backbone would be refused before it is asked for anything.
    let refused = |builder: DetectorBuilder| builder.fit(images(0, 3)).expect_err("no features");
    let dino = || Detector::builder().preset(Preset::Balanced).backbone(named("dinov2-vits14", &[14]));
    assert!(matches!(refused(dino()), Error::Cancelled));
    let error = refused(dino().config(Config::default()));
    assert!(error.to_string().contains("Config::for_backbone"), "{error}");

    let resolved = |builder: DetectorBuilder| builder.backbone(named("resnet50-v2", &[8, 16])).resolve();
    let both = [Branch::Memory, Branch::Distill];
    let config = resolved(Detector::builder().seed(3));
    assert_eq!((config.branches.as_slice(), config.seed, config.backbone.name.as_str()), (&both[..], 3, "resnet50-v2"));
    let config = resolved(Detector::builder().seed(3).preset(Preset::Accurate));
    assert_eq!((config.branches.as_slice(), config.seed, config.memory.prototypes), (&both[..], 0, 8000));
    assert_eq!(resolved(Detector::builder().preset(Preset::Fast)).branches, [Branch::Memory]);
    assert_eq!(resolved(Detector::builder().config(Config::default())).branches, [Branch::Memory]);
    Ok(())
}

#[test]
fn a_threshold_that_is_none_is_refused() -> Result<()> {
    let detector = Detector::builder().config(config()).fit(images(0, 4))?;
    let threshold = Threshold { value: f32::NAN, ..*detector.threshold() };
    assert_eq!(detector.with_threshold(threshold).expect_err("not a number").fault(), Fault::Argument);
    Ok(())
}

/// A scorer of images whose scores are of a type that none is.
struct Doubles;

impl Artifact for Doubles {
    fn tag(&self) -> &'static str {
        "test.doubles"
    }

    fn write(&self, _: &mut ArtifactWriter) -> Result<()> {
        Ok(())
    }

    fn read(_: &ArtifactReader<'_>) -> Result<Self> {
        Ok(Self)
    }
}

impl Scorer for Doubles {
    fn score(&self, pyramid: &FeaturePyramid) -> Result<Scores> {
        let images = pyramid.batch_size();
        let values = Tensor::zeros((images, 8, 8), DType::F32, &Device::Cpu)?;
        let image = Some(Tensor::zeros(images, DType::F64, &Device::Cpu)?);
        Ok(Scores { maps: vec![ScoreMap { name: "doubles".into(), values }], image })
    }
}

impl Fit for Doubles {
    type Scorer = Self;

    fn fit(&self, _: &dyn PyramidSource, _: &dyn Progress) -> Result<Self> {
        Ok(Self)
    }
}

#[test]
fn image_scores_of_another_type_are_named() {
    let error =
        Detector::builder().config(config()).branch(Doubles).fit(images(0, 4)).expect_err("doubles").to_string();
    assert!(error.contains("test.doubles") && error.contains("F32 [1]"), "{error}");
}

#[test]
fn shifted_views_of_which_nothing_counts_are_refused() {
    let mut config = config();
    config.views.shifts = 1;
    let error = Detector::builder().config(config).fit(images(0, 4)).expect_err("no position counts").to_string();
    assert!(error.contains("views.margin is 32; expected at most 16"), "{error}");
}

#[test]
fn a_model_of_before_such_views_were_refused_opens() -> Result<()> {
    let mut config = config();
    (config.views.shifts, config.views.margin) = (1, 8);
    let mut detector = Detector::builder().config(config).fit(images(0, 4))?;
    detector.config.views.margin = 32;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.masf");
    detector.save(&path)?;
    Detector::load(&path)?.inspect(images(1, 1).remove(0))?;
    Ok(())
}

#[test]
fn banks_per_level_share_the_budget() {
    let mut config = Config::default();
    let whole = config.memory_banks()[0].memory_budget;
    config.memory.per_level = true;
    let budgets: Vec<usize> = config.memory_banks().iter().map(|bank| bank.memory_budget).collect();
    assert_eq!(budgets, [whole / 2; 2]);
}
