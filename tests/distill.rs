//! The student as a branch of a detector: alone and beside the memory bank.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use masf::data::Dataset;
use masf::{Branch, Checkpoints, Config, Detector, Error, Progress, Result, ThresholdSource};
use masf_tests::{dataset, quick_config, training_images};

/// A student that learns in a second.
fn config(branches: &[Branch]) -> Config {
    let mut config = Config { branches: branches.to_vec(), ..quick_config() };
    (config.distill.width, config.distill.bottleneck, config.distill.depth) = (32, 32, 1);
    config.distill.epochs = Some(4);
    config
}

fn test_images() -> Result<Vec<PathBuf>> {
    Ok(Dataset::test(dataset())?.samples.into_iter().map(|sample| sample.path).collect())
}

fn bytes(detector: &Detector) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.masf");
    detector.save(&path)?;
    std::fs::read(&path).map_err(|error| Error::io(path, error))
}

#[test]
fn students_alone_and_beside_the_bank_survive_saving() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for branches in [&[Branch::Distill][..], &[Branch::Memory, Branch::Distill]] {
        let detector = Detector::builder().config(config(branches)).fit(training_images()?)?;
        let path = folder.path().join("model.masf");
        detector.save(&path)?;
        let reloaded = Detector::load(&path)?;
        assert_eq!(reloaded.config(), detector.config());
        let images = test_images()?;
        for (image, batched) in images.iter().zip(reloaded.inspect_batch(&images)) {
            let (found, batched) = (detector.inspect(image)?, batched?);
            assert_eq!(found.image_score.to_bits(), batched.image_score.to_bits());
            assert_eq!(found.anomaly_map, batched.anomaly_map);
        }
    }
    Ok(())
}

#[test]
fn thresholds_come_from_images_that_the_student_has_not_seen() -> Result<()> {
    let images = training_images()?;
    let detector = Detector::builder().config(config(&[Branch::Distill])).fit(&images)?;
    // A fifth of 16 images: too few for a rate of 5 %, and said so.
    let ThresholdSource::Conformal { images: used, extrapolated, .. } = detector.threshold().source else {
        panic!("{:?}", detector.threshold());
    };
    assert!((3..=4).contains(&used) && extrapolated, "{used}");
    let few = Detector::builder().config(config(&[Branch::Distill])).fit(&images[..3])?;
    assert!(matches!(few.threshold().source, ThresholdSource::Conformal { images: 2, .. }));
    let error = Detector::builder().config(config(&[Branch::Distill])).fit(&images[..2]).expect_err("two images");
    assert!(error.to_string().contains("at least 3"), "{error}");
    Ok(())
}

/// Cancels in the middle of the student's training.
#[derive(Default)]
struct Stop {
    steps: AtomicUsize,
    training: AtomicUsize,
}

impl Progress for Stop {
    fn start(&self, stage: &str, _: u64) {
        self.training.store(usize::from(stage.contains("student")), Ordering::Relaxed);
    }
    fn step(&self, count: u64) {
        self.steps.fetch_add(count as usize * self.training.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    fn finish(&self) {}
    fn is_cancelled(&self) -> bool {
        self.steps.load(Ordering::Relaxed) >= 3
    }
}

#[test]
fn a_cancelled_fit_goes_on_from_its_checkpoint() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let checkpoints = Checkpoints::new(folder.path());
    let builder = || Detector::builder().config(config(&[Branch::Distill]));
    let whole = builder().fit(training_images()?)?;
    let stopped =
        builder().checkpoints(checkpoints.clone()).progress(Arc::new(Stop::default())).fit(training_images()?);
    assert!(matches!(stopped, Err(Error::Cancelled)));
    let resumed = builder().checkpoints(checkpoints.resume_from(folder.path())).fit(training_images()?)?;
    assert!(bytes(&whole)? == bytes(&resumed)?, "the interruption changed the model");
    Ok(())
}
