//! Teaches a saved model further normal images without the old ones, or joins two models that were learned apart.
//!
//! ```text
//! cargo run --release --example extend -- --model line1.masf --data more/good --out line1b.masf
//! cargo run --release --example extend -- --model line1.masf --merge line2.masf --calibration held/good --out both.masf
//! ```

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use masf::data::Dataset;
use masf::{ExtendOptions, ImageInput};
use masf_examples::{Common, ModelArgs, outln, prepare_model, progress, run, save_options};

/// Extend a model with good images, or merge two models.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Good images to learn: a category in the MVTec AD layout (its train/good is used), or a folder of images
    #[arg(long, value_name = "DIR", required_unless_present = "merge")]
    data: Option<PathBuf>,
    /// Another model of the same configuration and backbone; needs --calibration
    #[arg(long, value_name = "M.masf", conflicts_with = "data", requires = "calibration")]
    merge: Option<PathBuf>,
    /// Good images that neither model learned from, to set the thresholds; without them --data is cross-fitted
    #[arg(long, value_name = "DIR")]
    calibration: Option<PathBuf>,
    /// Where the new model goes
    #[arg(long, value_name = "M.masf")]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
}

fn images(folder: &PathBuf) -> masf::Result<Vec<ImageInput>> {
    Ok(Dataset::training(folder)?.samples.into_iter().map(|sample| sample.path.into()).collect())
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(|| {
        args.common.apply()?;
        prepare_model(&args.out)?;
        let mut detector = args.model.load()?;
        let saved_as = save_options(&args.model.model)?;
        let calibration = args.calibration.as_ref().map(images).transpose()?.unwrap_or_default();
        let options = ExtendOptions { calibration, progress: progress()?, ..ExtendOptions::default() };
        outln!("before: {} images, threshold {}", detector.provenance().images, detector.threshold())?;
        match (&args.merge, &args.data) {
            (Some(other), _) => {
                let ModelArgs { weights, device, .. } = args.model;
                let other = ModelArgs { model: other.clone(), weights, device };
                detector.merge(&other.load()?, &options)?;
            }
            (None, Some(data)) => detector.extend(images(data)?, &options)?,
            (None, None) => anyhow::bail!("neither --data nor --merge is given"),
        }
        detector.save_with(&args.out, saved_as)?;
        outln!("after: {} images, threshold {}", detector.provenance().images, detector.threshold())?;
        Ok(ExitCode::SUCCESS)
    })
}
