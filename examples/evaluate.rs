//! Measures a saved model on labelled images.
//!
//! ```text
//! cargo run --release --example evaluate -- --model bottle.masf --data bottle --json bottle.json
//! ```

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use masf::data::Dataset;
use masf::report::Gallery;
use masf_examples::{
    Common, ModelArgs, note, note_flattered, note_ignored, out, outln, prepare_model, prepare_output, progress, run,
    save_options, write_atomically,
};

/// Measure a saved model on labelled images.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// A category in the MVTec AD layout (its test folder is used), or a folder with sub-folders `good` and others
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Write the results as JSON
    #[arg(long, value_name = "OUT.json")]
    json: Option<PathBuf>,
    /// Write a self-contained page with metrics, curves and pictures, DIR/report.html
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Save the model with the threshold of the largest F1 score on these images
    #[arg(long, value_name = "M.masf")]
    adopt_f1_threshold: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(|| {
        args.common.apply()?;
        let progress = progress()?;
        let report = args.report.as_ref().map(|folder| folder.join("report.html"));
        for output in [&report, &args.json].into_iter().flatten() {
            prepare_output(output)?;
        }
        if let Some(path) = &args.adopt_f1_threshold {
            prepare_model(path)?;
        }
        let detector = args.model.load()?;
        let dataset = Dataset::test(&args.data)?;
        note_flattered(&dataset);
        note_ignored(&dataset.ignored);
        for mask in &dataset.stray_masks {
            note!("warning: {} is the mask of no image", mask.display());
        }
        let mut gallery = Gallery::new();
        let evaluation = detector.evaluate_each(&dataset.samples, progress.as_ref(), |found| match report {
            Some(_) => gallery.add(&found),
            None => Ok(()),
        })?;
        out!("{evaluation}")?;
        if let Some(warning) = &evaluation.drift.warning {
            note!("warning: {warning}");
        }
        if let Some(path) = &report {
            let name = args.data.file_name().map_or_else(|| args.data.to_string_lossy(), |name| name.to_string_lossy());
            let page = masf::report::html(&name, &detector, &evaluation, &gallery)?;
            write_atomically(path, page.as_bytes())?;
        }
        if let Some(path) = &args.json {
            write_atomically(path, format!("{}\n", serde_json::to_string_pretty(&evaluation)?).as_bytes())?;
        }
        if let Some(path) = &args.adopt_f1_threshold {
            let threshold = evaluation.f1_threshold(detector.threshold())?;
            detector.with_threshold(threshold)?.save_with(path, save_options(&args.model.model)?)?;
            outln!("saved {} with the threshold {:.4}", path.display(), threshold.value)?;
        }
        Ok(ExitCode::SUCCESS)
    })
}
