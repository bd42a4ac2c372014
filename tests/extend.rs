//! Detectors that learn more and detectors that become one: what they know, and that nothing about them is stale.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;
use masf::core::{
    Artifact, ArtifactReader, ArtifactWriter, FeaturePyramid, Fit, PyramidSource, ScoreMap, Scorer, Scores,
};
use masf::data::Dataset;
use masf::{Config, Detector, Error, ExtendOptions, Fault, ImageInput, Progress, Result, Search, ThresholdSource};
use masf_tests::{Cancelled, dataset, quick_config, training_images};

fn halves() -> Result<(Vec<ImageInput>, Vec<ImageInput>)> {
    let mut all: Vec<ImageInput> = training_images()?.into_iter().map(Into::into).collect();
    let second = all.split_off(all.len() / 2);
    Ok((all, second))
}

fn fit(config: &Config, images: Vec<ImageInput>) -> Result<Detector> {
    Detector::builder().config(config.clone()).fit(images)
}

fn test_scores(detector: &Detector) -> Result<Vec<u32>> {
    let samples = Dataset::test(dataset())?.samples;
    samples.iter().map(|sample| Ok(detector.inspect(&sample.path)?.image_score.to_bits())).collect()
}

fn images_of(source: ThresholdSource) -> usize {
    let ThresholdSource::Conformal { images, .. } = source else { panic!("{source:?}") };
    images
}

#[test]
fn extended_detectors_are_calibrated_anew_and_reload_bit_for_bit() -> Result<()> {
    let (first, second) = halves()?;
    let mut cells = quick_config();
    cells.memory.search = Search::Cells { cells: 0, visited: 8, keys: masf::CellKeys::Both };
    for config in [quick_config(), cells] {
        let count = second.len();
        let mut detector = fit(&config, first.clone())?;
        let (before, digest) = (*detector.threshold(), detector.provenance().images_sha256.clone());
        detector.extend(second.clone(), &ExtendOptions::default())?;
        assert_ne!(before, *detector.threshold());
        // Set by the new images, each scored by a detector that had not learned from it.
        assert_eq!(images_of(detector.threshold().source), count);
        assert_eq!(images_of(detector.pixel_threshold().source), count);
        assert_eq!(detector.provenance().images, first.len() + count);
        assert_ne!(detector.provenance().images_sha256, digest);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("model.masf");
        detector.save(&path)?;
        assert_eq!(test_scores(&Detector::load(&path)?)?, test_scores(&detector)?);
        // The same from the reloaded first detector.
        let mut again = fit(&config, first.clone())?;
        again.save(&path)?;
        again = Detector::load(&path)?;
        again.extend(second.clone(), &ExtendOptions::default())?;
        assert_eq!(test_scores(&again)?, test_scores(&detector)?);
        assert_eq!(again.threshold(), detector.threshold());
    }
    Ok(())
}

/// The usual case: a good part was called anomalous.
#[test]
fn one_image_is_enough_where_others_calibrate() -> Result<()> {
    let (first, second) = halves()?;
    let (one, held) = (vec![second[0].clone()], second[1..].to_vec());
    let detector = fit(&quick_config(), first)?;
    let stated = detector.threshold_for(0.2)?;
    let mut detector = detector.with_threshold(stated)?;
    let error = detector.extend(one.clone(), &ExtendOptions::default()).unwrap_err().to_string();
    assert!(error.contains("further images: 1 can be used; at least 2"), "{error}");
    let few = ExtendOptions { calibration: held[..1].to_vec(), ..ExtendOptions::default() };
    let error = detector.extend(one.clone(), &few).unwrap_err().to_string();
    assert!(error.contains("calibration images: 1 can be used; at least 2"), "{error}");
    let both = ExtendOptions { calibration: second.clone(), ..ExtendOptions::default() };
    let error = detector.extend(one.clone(), &both).unwrap_err().to_string();
    assert!(error.starts_with("calibration image is ") && error.contains("none that is learned from"), "{error}");
    let before = detector.inspect(one[0].clone())?.image_score;
    detector.extend(one.clone(), &ExtendOptions { calibration: held, ..ExtendOptions::default() })?;
    assert!(detector.inspect(one[0].clone())?.image_score < before);
    let source = detector.threshold().source;
    assert!(matches!(source, ThresholdSource::Conformal { false_alarm_rate: 0.2, .. }), "{source:?}");
    // Pixels keep the rate that was trained with.
    let source = detector.pixel_threshold().source;
    assert!(matches!(source, ThresholdSource::Conformal { false_alarm_rate: 0.05, .. }), "{source:?}");
    Ok(())
}

#[test]
fn merged_detectors_take_their_thresholds_from_images_that_are_held_out() -> Result<()> {
    let (first, mut second) = halves()?;
    let held = second.split_off(second.len() - 3);
    let (mut a, b) = (fit(&quick_config(), first)?, fit(&quick_config(), second)?);
    let before = (test_scores(&a)?, *a.threshold());
    let error = a.merge(&b, &ExtendOptions::default()).unwrap_err();
    assert_eq!(error.fault(), Fault::Argument);
    assert!(error.to_string().contains("calibration images is 0"), "{error}");
    assert_eq!((test_scores(&a)?, *a.threshold()), before, "a refused merge changed the detector");
    let options = ExtendOptions { calibration: held, ..ExtendOptions::default() };
    a.merge(&b, &options)?;
    assert_eq!(images_of(a.threshold().source), 3);
    assert_ne!(test_scores(&a)?, before.0);
    assert_eq!(a.provenance().images, 16 - 3);
    Ok(())
}

#[test]
fn what_does_not_fit_together_is_refused_and_named() -> Result<()> {
    let (first, second) = halves()?;
    let held = || ExtendOptions { calibration: second.clone(), ..ExtendOptions::default() };
    let mut detector = fit(&quick_config(), first.clone())?;
    let mut other = quick_config();
    other.memory.prototypes = 150;
    let error = detector.merge(&fit(&other, first.clone())?, &held()).unwrap_err();
    assert!(
        error.to_string().contains("configuration") && error.to_string().contains("[memory] prototypes = 150"),
        "{error}"
    );
    let error = detector.extend(second[..1].to_vec(), &ExtendOptions::default()).unwrap_err();
    assert!(error.to_string().contains("at least 2"), "{error}");
    let missing = [second[0].clone(), "no/such/image.png".into()];
    let error = detector.extend(missing, &ExtendOptions::default()).unwrap_err();
    assert!(error.to_string().contains("image.png"), "{error}");
    let progress = Arc::new(Cancelled);
    let cancelled = detector.extend(second.clone(), &ExtendOptions { progress, ..ExtendOptions::default() });
    assert!(matches!(cancelled, Err(Error::Cancelled)));
    // A branch of another kind.
    let mut foreign = Detector::builder().config(quick_config()).branch(FlatFit::default()).fit(first)?;
    let error = foreign.extend(second, &ExtendOptions::default()).unwrap_err();
    assert!(error.to_string().contains("test.flat") && error.to_string().contains("fitted anew"), "{error}");
    Ok(())
}

/// A branch that is not masf's own may break later.
#[test]
fn a_score_that_is_no_number_is_no_verdict() -> Result<()> {
    let images = training_images()?;
    let branch = FlatFit::default();
    let broken = branch.0.clone();
    let detector = Detector::builder().config(quick_config()).branch(branch).fit(&images)?;
    assert!(!detector.inspect(&images[0])?.is_anomalous);
    broken.store(true, Ordering::Relaxed);
    let error = detector.inspect(&images[0]).expect_err("a verdict from NaN");
    assert!(error.to_string().contains("image score: NaN"), "{error}");
    assert!(detector.inspect_batch(&images[..2]).iter().all(Result::is_err));
    Ok(())
}

/// Scores everything alike, until it is broken.
#[derive(Default)]
struct Flat(Arc<AtomicBool>);
#[derive(Default)]
struct FlatFit(Arc<AtomicBool>);

impl Fit for FlatFit {
    type Scorer = Flat;

    fn fit(&self, _: &dyn PyramidSource, _: &dyn Progress) -> Result<Flat> {
        Ok(Flat(self.0.clone()))
    }
}

impl Scorer for Flat {
    fn score(&self, pyramid: &FeaturePyramid) -> Result<Scores> {
        let map = pyramid.levels()[0].map.narrow(1, 0, 1)?.squeeze(1)?.zeros_like()?;
        let broken = self.0.load(Ordering::Relaxed).then(|| vec![f32::NAN; pyramid.batch_size()]);
        let image = broken.map(|values| Tensor::new(values, map.device())).transpose()?;
        Ok(Scores { maps: vec![ScoreMap { name: "flat".into(), values: map }], image })
    }
}

impl Artifact for Flat {
    fn tag(&self) -> &'static str {
        "test.flat"
    }

    fn write(&self, writer: &mut ArtifactWriter) -> Result<()> {
        writer.section(&())
    }

    fn read(_: &ArtifactReader<'_>) -> Result<Self> {
        Ok(Self::default())
    }
}
