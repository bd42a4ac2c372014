//! What the end-to-end tests share: a small synthetic data set and a detector fitted on it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use masf::data::Dataset;
use masf::data::synthetic::{SyntheticConfig, write_dataset};
use masf::{Config, Detector, Progress, Result, Size};
use tempfile::TempDir;

/// A synthetic data set in the MVTec AD layout, written once for all tests of a process.
///
/// # Panics
/// If it cannot be written.
pub fn dataset() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let folder = TempDir::new().expect("a temporary folder");
            let config = SyntheticConfig { train: 16, test_good: 4, test_per_kind: 2, ..SyntheticConfig::default() };
            write_dataset(folder.path(), &config).expect("a synthetic data set");
            folder
        })
        .path()
}

/// A configuration that fits in a second or two.
pub fn quick_config() -> Config {
    let mut config = Config::default();
    config.input.size = Size::square(128);
    config.memory.candidates = 2000;
    config.memory.prototypes = 200;
    config
}

/// The good training images of the synthetic data set.
///
/// # Errors
/// Those of [`Dataset::training`].
pub fn training_images() -> Result<Vec<PathBuf>> {
    Ok(Dataset::training(dataset())?.samples.into_iter().map(|sample| sample.path).collect())
}

/// A detector fitted on the synthetic data set with the default backbone.
///
/// # Errors
/// Those of fitting.
pub fn fitted() -> Result<Detector> {
    Detector::builder().config(quick_config()).fit(training_images()?)
}

/// What is to stop at once.
pub struct Cancelled;

impl Progress for Cancelled {
    fn start(&self, _: &str, _: u64) {}
    fn step(&self, _: u64) {}
    fn finish(&self) {}
    fn is_cancelled(&self) -> bool {
        true
    }
}
