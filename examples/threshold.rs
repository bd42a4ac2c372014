//! Chooses the threshold of a model: by a false-alarm rate, from good images alone, or by the largest F1 score, from labelled images.
//!
//! ```text
//! cargo run --release --example threshold -- --model part.masf --data part --rate 0.01 --out part-strict.masf
//! ```
//!
//! Nothing is fitted again: the model holds the scores that its good images had while they were held out, and a conformal quantile of
//! these is the threshold for any rate. Without arguments it works on synthetic images.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use masf::data::Dataset;
use masf::{Evaluation, Threshold, ThresholdSource};
use masf_examples::demo::{self, OptionalModel};
use masf_examples::{Common, note_flattered, outln, prepare_model, progress, run, save_options};

/// Compare thresholds, and save the model with one.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: OptionalModel,
    /// Labelled images: a category in the MVTec AD layout, or a folder with sub-folders `good` and others [default: synthetic ones]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The false-alarm rate of the model that is saved, between 0 and 1
    #[arg(long, value_name = "RATE", conflicts_with = "f1")]
    rate: Option<f64>,
    /// Save the model with the threshold of the largest F1 score instead
    #[arg(long, requires = "out")]
    f1: bool,
    /// Where the model with the chosen threshold goes
    #[arg(long, value_name = "M.masf")]
    out: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// False-alarm rates of the table.
const RATES: [f64; 5] = [0.2, 0.1, 0.05, 0.02, 0.01];

fn main() -> ExitCode {
    let Args { model, data, rate, f1, out, common } = Args::parse();
    run(|| {
        common.apply()?;
        let progress = progress()?;
        if let Some(path) = &out {
            prepare_model(path)?;
        }
        let detector = model.load()?;
        let by_rate = rate.map_or_else(|| Ok(*detector.threshold()), |rate| detector.threshold_for(rate))?;
        let data = data.map_or_else(demo::dataset, Ok)?;
        let dataset = Dataset::test(&data)?;
        note_flattered(&dataset);
        let evaluation = detector.evaluate(&dataset.samples, progress.as_ref())?;

        outln!(
            "{} good images set the threshold, {} labelled ones try it",
            detector.calibration_scores().len(),
            evaluation.images
        )?;
        outln!("{:>24}  {:>9}  {:>12}  {:>13}", "chosen by", "threshold", "false alarms", "defects found")?;
        for rate in RATES.into_iter().chain(rate.filter(|rate| !RATES.contains(rate))) {
            show(&format!("rate {rate}"), &detector.threshold_for(rate)?, &evaluation)?;
        }
        let by_labels = evaluation.f1_threshold(detector.threshold())?;
        show("largest F1 score", &by_labels, &evaluation)?;
        outln!("* too few good images for this rate: extrapolated")?;

        if let Some(path) = out {
            let chosen = if f1 { by_labels } else { by_rate };
            let options = model.model.as_deref().map(save_options).transpose()?.unwrap_or_default();
            detector.with_threshold(chosen)?.save_with(&path, options)?;
            outln!("saved {} with the threshold {chosen}", path.display())?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// A row of the table.
fn show(name: &str, threshold: &Threshold, evaluation: &Evaluation) -> anyhow::Result<()> {
    let share = |defective| 100.0 * evaluation.share_above(threshold, defective);
    let extrapolated = matches!(threshold.source, ThresholdSource::Conformal { extrapolated: true, .. });
    let mark = if extrapolated { "*" } else { " " };
    outln!("{name:>24}{mark} {:>9.4}  {:>10.1} %  {:>11.1} %", threshold.value, share(false), share(true))?;
    Ok(())
}
