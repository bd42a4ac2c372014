//! What the examples work on where neither a model nor images are given: a small synthetic inspection set, drawn by a
//! program, and a model that has learned from it. Both are kept, so that only the first example that needs them makes them.

use std::path::{Path, PathBuf};

use anyhow::Context;
use masf::Detector;
use masf::data::Dataset;
use masf::data::synthetic::{SyntheticConfig, write_dataset};

use crate::ModelArgs;

/// Where the set and the model are kept.
pub const FOLDER: &str = "target/demo";

/// The synthetic set, in the layout of MVTec AD.
///
/// # Errors
/// The file system's.
pub fn dataset() -> anyhow::Result<PathBuf> {
    let data = Path::new(FOLDER).join("data");
    if !data.join("test").is_dir() {
        let config = SyntheticConfig { train: 24, test_good: 8, test_per_kind: 3, ..SyntheticConfig::default() };
        // Whole or not at all, and another program may be making it, too.
        std::fs::create_dir_all(FOLDER).with_context(|| format!("cannot create {FOLDER}"))?;
        let made = tempfile::tempdir_in(FOLDER)?;
        write_dataset(made.path(), &config)?;
        let moved = std::fs::rename(made.path(), &data);
        if !data.join("test").is_dir() {
            moved.with_context(|| format!("cannot make {}; delete it, if it is there", data.display()))?;
        }
    }
    Ok(data)
}

/// A model that has learned from the good images of [`dataset`].
///
/// # Errors
/// The file system's, and those of fitting.
pub fn model() -> anyhow::Result<Detector> {
    let path = Path::new(FOLDER).join("model.masf");
    if path.exists() {
        crate::note!("no --model: {}, which has learned from synthetic images, judges", path.display());
        return Detector::load(&path).with_context(|| format!("delete {} to make it again", path.display()));
    }
    crate::note!(
        "no --model: learning from synthetic images, which takes some seconds; the model is kept in {}",
        path.display()
    );
    let detector = Detector::builder().fit_folder(dataset()?)?;
    detector.save(&path)?;
    Ok(detector)
}

/// Prints the evaluation of a model on the test images of [`dataset`], after checking that another one scores them the same.
///
/// # Errors
/// Other scores, and those of evaluating and of standard output.
pub fn show_same(detector: &Detector, other: &Detector, progress: &dyn masf::Progress) -> anyhow::Result<()> {
    let test = Dataset::test(&dataset()?)?.samples;
    let evaluation = detector.evaluate(&test, progress)?;
    anyhow::ensure!(evaluation.scores == other.evaluate(&test, progress)?.scores, "the scores changed");
    crate::out!("{evaluation}\n")
}

/// The model that the command line names, or that of the synthetic set.
#[derive(Debug, clap::Args)]
pub struct OptionalModel {
    /// Model file made by `train` [default: one that learns from synthetic images]
    #[arg(long, value_name = "M.masf")]
    pub model: Option<PathBuf>,
    /// Weights of the backbone, for a model saved with --reference-weights; others than the model's are refused
    #[arg(long, value_name = "FILE.safetensors", requires = "model")]
    pub weights: Option<PathBuf>,
    /// Where the backbone computes: cpu, cuda, cuda:INDEX, metal or metal:INDEX; GPUs need a build with the feature of that name
    #[arg(long, value_name = "DEVICE", default_value_t, requires = "model")]
    pub device: masf::DeviceChoice,
}

impl OptionalModel {
    /// Loads or makes the model.
    ///
    /// # Errors
    /// Those of [`ModelArgs::load`] and of [`model`].
    pub fn load(&self) -> anyhow::Result<Detector> {
        match self.model.clone() {
            Some(model) => Ok(ModelArgs { model, weights: self.weights.clone(), device: self.device }.load()?),
            None => model(),
        }
    }
}
