//! The main road on synthetic images: fit, inspect, evaluate, save, load.

use std::io::Write;

use candle_core::DType;
use masf::data::Dataset;
use masf::{
    ByteSize, Config, Detector, DeviceChoice, Error, Inspection, Method, Result, SaveOptions, Silent, Size,
    ThresholdSource,
};
use masf_tests::{Cancelled, dataset, fitted, quick_config, training_images};

fn test_images() -> Result<Vec<std::path::PathBuf>> {
    Ok(Dataset::test(dataset())?.samples.into_iter().map(|sample| sample.path).collect())
}

fn bits(inspection: &Inspection) -> (u32, Vec<u32>) {
    (inspection.image_score.to_bits(), inspection.anomaly_map.iter().map(|score| score.to_bits()).collect())
}

fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool").install(work)
}

#[test]
fn defects_are_told_from_good_parts_and_found() -> Result<()> {
    // At the default size: the defects are too fine for the quick one.
    let detector = Detector::builder().fit(training_images()?)?;
    let found = detector.evaluate(&Dataset::test(dataset())?.samples, &Silent)?;
    assert!(found.image_auroc > 0.8, "{found}");
    assert!(found.pixel_auroc.is_some_and(|auroc| auroc > 0.95), "{found}");
    assert!(found.aupro.is_some() && found.pixel_metrics_missing.is_none());
    assert_eq!(found.images, found.scores.len());
    assert_eq!(found.images, found.kinds.values().map(|kind| kind.images).sum::<usize>());
    assert!(found.kinds["good"].image_auroc.is_none());
    Ok(())
}

#[test]
fn a_reloaded_model_gives_the_same_bits_on_any_number_of_threads_and_in_any_batch() -> Result<()> {
    let detector = fitted()?;
    let images = test_images()?;
    let expected: Vec<_> = images.iter().map(|path| Ok(bits(&detector.inspect(path)?))).collect::<Result<Vec<_>>>()?;

    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.masf");
    detector.save(&path)?;
    let reloaded = Detector::load(&path)?;
    assert_eq!(reloaded.config(), detector.config());
    assert_eq!(reloaded.threshold(), detector.threshold());
    for threads in [1, 2, 3] {
        let singles = with_threads(threads, || images.iter().map(|path| reloaded.inspect(path)).collect::<Vec<_>>());
        let batch = with_threads(threads, || reloaded.inspect_batch(&images));
        for ((single, batched), expected) in singles.into_iter().zip(batch).zip(&expected) {
            assert_eq!(bits(&single?), *expected, "{threads} threads");
            assert_eq!(bits(&batched?), *expected, "{threads} threads, in a batch");
        }
    }
    let again = folder.path().join("again.masf");
    reloaded.save(&again)?;
    assert!(std::fs::read(&path).ok() == std::fs::read(&again).ok(), "two writes of a model differ");
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_model_on_any_number_of_threads() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let save = |name: &str, threads, seed| -> Result<Vec<u8>> {
        let path = folder.path().join(name);
        let config = Config { seed, ..quick_config() };
        with_threads(threads, || Detector::builder().config(config).fit(training_images()?)?.save(&path))?;
        std::fs::read(&path).map_err(|error| Error::io(path, error))
    };
    let first = save("first", 1, 5)?;
    assert!(first == save("second", 2, 5)?, "the number of threads changed the model");
    assert!(first != save("third", 2, 6)?, "the seed has no effect");
    Ok(())
}

#[test]
fn a_small_memory_budget_spills_and_changes_no_score() -> Result<()> {
    let images = training_images()?;
    // The candidates and the banks of folds still fit; the cache does not.
    let mut config = Config { memory_budget: "5MiB".parse()?, ..quick_config() };
    config.memory.candidates = 1000;
    config.memory.prototypes = 100;
    let (small, report) = Detector::builder().config(config.clone()).fit_with_report(&images)?;
    assert!(report.spilled > 0, "nothing was spilled");
    let large = Config { memory_budget: "512MiB".parse()?, ..config };
    let (large, report) = Detector::builder().config(large).fit_with_report(&images)?;
    assert_eq!(report.spilled, 0);
    for path in test_images()? {
        assert_eq!(bits(&small.inspect(&path)?), bits(&large.inspect(&path)?));
    }
    Ok(())
}

#[test]
fn a_budget_that_is_too_small_names_one_that_is_enough() -> Result<()> {
    let images = training_images()?;
    let fit = |memory_budget| {
        let mut config = Config { memory_budget, ..quick_config() };
        config.memory.prototypes = 2000;
        Detector::builder().config(config).fit(&images).map(|_| ())
    };
    let error = fit(ByteSize::mib(1)).unwrap_err().to_string();
    let enough = error.split_once("at least ").and_then(|(_, rest)| rest.split(' ').next()).unwrap_or_default();
    assert!(error.starts_with("memory_budget is 1MiB"), "{error}");
    fit(enough.parse()?)
}

#[test]
fn every_method_finds_defects_and_is_known_to_its_model_file() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let test = Dataset::test(dataset())?.samples;
    for method in [Method::Masf, Method::PatchCore, Method::Padim] {
        let mut config = Config { method, ..quick_config() };
        config.patchcore.candidates = 2000;
        config.patchcore.prototypes = 200;
        config.patchcore.reweight_neighbours = 9;
        config.padim.dimensions = 20;
        let detector = Detector::builder().config(config).fit(training_images()?)?;
        let path = folder.path().join(method.to_string());
        detector.save(&path)?;
        let reloaded = Detector::load(&path)?;
        assert_eq!(reloaded.config().method, method);
        let (found, again) = (detector.evaluate(&test, &Silent)?, reloaded.evaluate(&test, &Silent)?);
        assert_eq!(found.scores, again.scores, "{method}");
        assert!(found.pixel_auroc.is_some_and(|auroc| auroc > 0.8), "{method}: {found}");
    }
    Ok(())
}

#[test]
fn turned_training_images_make_turned_parts_normal() -> Result<()> {
    let image = |path: &std::path::PathBuf| image::open(path).expect("an image").rotate90();
    let mean_score = |turns| -> Result<f32> {
        let mut config = quick_config();
        config.memory.turns = turns;
        let detector = Detector::builder().config(config).fit(training_images()?)?;
        let good = Dataset::test(dataset())?.samples.into_iter().filter(|sample| !sample.label.is_defective());
        let scores =
            good.map(|sample| Ok(detector.inspect(image(&sample.path))?.image_score / detector.threshold().value));
        let scores = scores.collect::<Result<Vec<_>>>()?;
        Ok(scores.iter().sum::<f32>() / scores.len() as f32)
    };
    let (without, with) = (mean_score(0)?, mean_score(4)?);
    assert!(with < without, "{with} with turned images, {without} without");
    Ok(())
}

#[test]
fn rectangular_inputs_and_crops_work() -> Result<()> {
    let mut config = quick_config();
    config.input.size = Size::new(160, 96);
    config.input.crop_from = Some(Size::new(176, 112));
    let detector = Detector::builder().config(config).fit(training_images()?)?;
    let found = detector.evaluate(&Dataset::test(dataset())?.samples, &Silent)?;
    assert!(found.image_auroc > 0.6, "{found}");
    let inspection = detector.inspect(&test_images()?[0])?;
    assert_eq!(inspection.anomaly_map.dim(), (160, 96));
    Ok(())
}

#[test]
fn images_from_memory_score_like_their_files() -> Result<()> {
    let detector = fitted()?;
    let path = &test_images()?[0];
    let image = masf::data::read_image(path, &masf::data::Limits::default())?;
    let from_file = detector.inspect(path)?;
    assert_eq!(bits(&detector.inspect(image.clone())?), bits(&from_file));
    let rgb = image.to_rgb8();
    let raw = masf::ImageInput::rgb8(rgb.height(), rgb.width(), rgb.into_raw())?;
    assert_eq!(bits(&detector.inspect(raw)?), bits(&from_file));
    Ok(())
}

#[test]
fn the_threshold_follows_the_false_alarm_rate_and_the_labels() -> Result<()> {
    let threshold = |rate| -> Result<_> {
        let mut config = quick_config();
        config.threshold.false_alarm_rate = rate;
        Ok(*Detector::builder().config(config).fit(training_images()?)?.threshold())
    };
    let (strict, usual) = (threshold(0.001)?, threshold(0.25)?);
    assert!(strict.value > usual.value);
    // 16 images support a rate of 1/17.
    assert!(matches!(strict.source, ThresholdSource::Conformal { extrapolated: true, images: 16, .. }));
    assert!(matches!(usual.source, ThresholdSource::Conformal { extrapolated: false, .. }));

    let detector = fitted()?;
    let samples = Dataset::test(dataset())?.samples;
    let found = detector.evaluate(&samples, &Silent)?;
    let labelled = detector.with_threshold(found.f1_threshold(&usual)?)?;
    let again = labelled.evaluate(&samples, &Silent)?;
    let (alarms, detected) = (again.false_alarm_rate, again.detection_rate);
    let (good, bad) = (4.0, (samples.len() - 4) as f64);
    let f1 = 2.0 * detected * bad / (detected * bad + alarms * good + bad);
    assert!((f1 - found.image_f1_max).abs() < 1e-9, "{f1} at the threshold, {} at best", found.image_f1_max);
    Ok(())
}

#[test]
fn without_masks_pixel_metrics_are_missing_with_a_reason() -> Result<()> {
    let mut samples = Dataset::test(dataset())?.samples;
    samples.iter_mut().for_each(|sample| sample.mask = None);
    let found = fitted()?.evaluate(&samples, &Silent)?;
    assert!(found.pixel_auroc.is_none() && found.aupro.is_none() && found.pixel_metrics_missing.is_some());
    let json = serde_json::to_value(&found).expect("JSON");
    for key in ["image_auroc", "image_ap", "image_f1_max", "images", "seconds_per_image"] {
        assert!(json[key].is_number(), "{key}");
    }
    for key in ["pixel_auroc", "pixel_ap", "aupro"] {
        assert!(json.as_object().is_some_and(|object| object.contains_key(key)) && json[key].is_null(), "{key}");
    }
    assert!(json["kinds"]["good"]["image_auroc"].is_null());
    Ok(())
}

#[test]
fn cancelling_stops_a_fit() -> Result<()> {
    let error = Detector::builder()
        .config(quick_config())
        .progress(std::sync::Arc::new(Cancelled))
        .fit(training_images()?)
        .expect_err("it was cancelled");
    assert_eq!(error.fault(), masf::Fault::Cancelled, "{error}");
    Ok(())
}

#[test]
fn referenced_weights_are_not_embedded() -> Result<()> {
    // Those of the default backbone are part of the library: both ways of saving must load without a file of weights.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.masf");
    let detector = fitted()?;
    detector.save_with(&path, SaveOptions { reference_weights: true })?;
    let reloaded = Detector::load(&path)?;
    assert_eq!(reloaded.config().backbone.name, "masf-nano");
    let image = &test_images()?[0];
    assert_eq!(bits(&reloaded.inspect(image)?), bits(&detector.inspect(image)?));
    let whole = folder.path().join("whole.masf");
    detector.save_with(&whole, SaveOptions::default())?;
    let bytes = |path: &std::path::Path| std::fs::metadata(path).map(|data| data.len()).unwrap_or(0);
    assert!(bytes(&path) + 900_000 < bytes(&whole), "{} and {} bytes", bytes(&path), bytes(&whole));
    Ok(())
}

#[test]
fn an_own_backbone_and_an_own_scorer_fit_save_and_load() -> Result<()> {
    let detector = Detector::builder()
        .config(quick_config())
        .backbone(Box::new(own::Luminance) as Box<dyn masf::FeatureExtractor>)
        .branch(own::DistanceToMean)
        .fit(training_images()?)?;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("own.masf");
    detector.save(&path)?;
    let error = Detector::load(&path).expect_err("its parts are unknown");
    assert!(error.to_string().contains("test.luminance"), "{error}");
    let registry = masf::default_registry()
        .with_backbone::<own::Luminance>("test.luminance")
        .with_scorer::<own::MeanScorer>("test.distance-to-mean");
    let reloaded = Detector::load_with(&path, &registry, masf::ReadOptions::default())?;
    for image in test_images()? {
        assert_eq!(bits(&detector.inspect(&image)?), bits(&reloaded.inspect(&image)?));
    }
    Ok(())
}

#[test]
fn an_own_scorer_gets_its_maps_on_the_cpu_wherever_the_backbone_computes() -> Result<()> {
    let mut config = quick_config();
    (config.backbone.name, config.backbone.device) = ("scattering".to_owned(), DeviceChoice::Cuda(0));
    if config.backbone.device.open().is_err() {
        let _ = writeln!(std::io::stderr(), "skipped: no GPU, or a build without the feature `cuda`");
        return Ok(());
    }
    let detector = Detector::builder().config(config).branch(own::DistanceToMean).fit(training_images()?)?;
    detector.inspect(&test_images()?[0])?;
    Ok(())
}

/// Parts that a user could write.
mod own {
    use candle_core::Tensor;
    use masf::Result;
    use masf::core::{
        Artifact, ArtifactReader, ArtifactWriter, FeatureExtractor, FeatureLevel, FeaturePyramid, Fit, LevelSpec,
        Normalisation, Progress, PyramidSource, ScoreMap, Scorer, Scores,
    };

    use super::DType;

    /// Mean brightness of every block of 8 x 8 pixels.
    pub(crate) struct Luminance;

    const LEVELS: [LevelSpec; 1] = [LevelSpec { stride: 8, channels: 1 }];

    impl FeatureExtractor for Luminance {
        fn levels(&self) -> &[LevelSpec] {
            &LEVELS
        }

        fn normalisation(&self) -> Normalisation {
            Normalisation::SYMMETRIC
        }

        fn name(&self) -> &str {
            "luminance"
        }

        fn extract(&self, images: &Tensor) -> Result<FeaturePyramid> {
            let (_, _, height, width) = images.dims4()?;
            let map = images.mean_keepdim(1)?.avg_pool2d(8)?;
            FeaturePyramid::new(vec![FeatureLevel { spec: LEVELS[0], map }], (height, width))
        }
    }

    impl Artifact for Luminance {
        fn tag(&self) -> &'static str {
            "test.luminance"
        }

        fn write(&self, writer: &mut ArtifactWriter) -> Result<()> {
            writer.section(&())
        }

        fn read(_: &ArtifactReader<'_>) -> Result<Self> {
            Ok(Self)
        }
    }

    /// Learns the mean map.
    pub(crate) struct DistanceToMean;

    pub(crate) struct MeanScorer {
        mean: Tensor,
    }

    impl Fit for DistanceToMean {
        type Scorer = MeanScorer;

        fn fit(&self, source: &dyn PyramidSource, _: &dyn Progress) -> Result<MeanScorer> {
            let all: Vec<usize> = (0..source.len()).collect();
            Ok(MeanScorer { mean: source.batch(&all)?.levels()[0].map.mean_keepdim(0)? })
        }
    }

    impl Scorer for MeanScorer {
        fn score(&self, pyramid: &FeaturePyramid) -> Result<Scores> {
            let values = pyramid.levels()[0].map.broadcast_sub(&self.mean)?.sqr()?.sum(1)?;
            Ok(Scores { maps: vec![ScoreMap { name: "distance".into(), values }], image: None })
        }
    }

    impl Artifact for MeanScorer {
        fn tag(&self) -> &'static str {
            "test.distance-to-mean"
        }

        fn write(&self, writer: &mut ArtifactWriter) -> Result<()> {
            writer.section(&())?;
            writer.tensor("mean", &self.mean)
        }

        fn read(reader: &ArtifactReader<'_>) -> Result<Self> {
            Ok(Self { mean: reader.tensor("mean", DType::F32, &[Some(1), Some(1), None, None])? })
        }
    }
}
