//! Inspects images with a saved model: one line an image; heat maps, raw maps and JSON on request.
//!
//! ```text
//! cargo run --release --example inspect -- --model bottle.masf --heatmaps out bottle/test
//! ```
//!
//! Exit code 0: every image was inspected; 1: some could not be (the others were), or the model could not be loaded;
//! 2: wrong usage; 130: Ctrl-C. The file of `--json` is written after failures too, where an image has its `error` instead of a verdict,
//! or an `output_error` beside it where a heat map or raw map could not be written; and after Ctrl-C, where `complete` is false.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use masf::data::{DataError, ImageFile};
use masf::{Detector, Inspection};
use masf_examples::{
    Common, ModelArgs, as_json_of, describe, note, note_ignored, outln, output_is_closed, png, prepare_output,
    progress, run, write_atomically,
};
use serde_json::{Value, json};

/// Inspect images with a saved model.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Write an overlay of the anomaly map for every image, as PNG, under this folder; sub-folders are kept
    #[arg(long, value_name = "DIR")]
    heatmaps: Option<PathBuf>,
    /// Write the anomaly map of every image under this folder, at the size of the model's input: NAME.npy holds the scores
    /// (f32, on the calibrated scale), NAME.map.png 65535 times the normalised scores (16 bits; 32768 is the threshold)
    #[arg(long, value_name = "DIR")]
    maps: Option<PathBuf>,
    /// Write the results as JSON
    #[arg(long, value_name = "OUT.json")]
    json: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
    /// Images, or folders that are searched for images
    #[arg(required = true, value_name = "IMAGE_OR_DIR")]
    paths: Vec<PathBuf>,
}

/// Images between two looks at the Ctrl-C flag.
const CHUNK: usize = 16;

fn main() -> ExitCode {
    let args = Args::parse();
    run(|| {
        args.common.apply()?;
        let progress = progress()?;
        for (option, folder) in [("--heatmaps", &args.heatmaps), ("--maps", &args.maps)] {
            if let Some(folder) = folder {
                check_apart(option, folder, &args.paths)?;
            }
        }
        if let Some(path) = &args.json {
            prepare_output(path)?;
        }
        let detector = args.model.load()?;
        let mut rows = Vec::new();
        let files = collect(&args.paths, &mut rows);
        let mut failures = rows.len();
        let started = Instant::now();
        let mut inspected = 0;
        let mut scores = Vec::with_capacity(files.len());
        progress.start("inspecting", files.len() as u64);
        for chunk in files.chunks(CHUNK) {
            let writes = args.json.is_some() || args.heatmaps.is_some() || args.maps.is_some();
            if progress.is_cancelled() || output_is_closed() && !writes {
                break;
            }
            let inspections = detector.inspect_batch(chunk.iter().map(|file| file.path.as_path()));
            for (file, inspection) in chunk.iter().zip(inspections) {
                match inspection {
                    Ok(inspection) => {
                        scores.push(inspection.image_score);
                        let mut row = as_json_of(&file.path, &inspection);
                        if let Err(error) = report(&args, file, &inspection) {
                            failures += 1;
                            note!("error: {}", describe(&error));
                            row["output_error"] = describe(&error).into();
                        }
                        rows.push(row);
                    }
                    Err(error) => {
                        failures += 1;
                        rows.push(failed(&file.path, &error.into()));
                    }
                }
            }
            inspected += chunk.len();
            progress.step(chunk.len() as u64);
        }
        progress.finish();
        let drift = detector.drift(&scores)?;
        if let Some(warning) = &drift.warning {
            note!("warning: {warning}");
        }
        if let Some(path) = &args.json {
            let seconds = started.elapsed().as_secs_f64() / inspected.max(1) as f64;
            let document = json!({
                "model": args.model.model.to_string_lossy(),
                "complete": inspected == files.len(),
                "images": rows,
                "seconds_per_image": seconds,
                "drift": drift,
            });
            write_atomically(path, format!("{document:#}\n").as_bytes())?;
        }
        if inspected < files.len() {
            progress.check()?;
        }
        Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// Refuses a folder for pictures in one of the inputs, whether it is there yet or not; in hidden folders nothing is inspected.
fn check_apart(option: &str, folder: &Path, inputs: &[PathBuf]) -> anyhow::Result<()> {
    let absolute = std::path::absolute(folder).with_context(|| folder.display().to_string())?;
    let from = |part: &Path| Some(part.canonicalize().ok()?.join(absolute.strip_prefix(part).ok()?));
    let place = absolute.ancestors().find_map(from).unwrap_or_default();
    let is_seen = |within: &Path| !within.iter().any(|name| name.to_string_lossy().starts_with('.'));
    for input in inputs.iter().filter(|input| input.is_dir()) {
        let inside = input.canonicalize().is_ok_and(|input| place.strip_prefix(input).is_ok_and(is_seen));
        anyhow::ensure!(
            !inside,
            "{option} {} lies in {}: its pictures would be taken for images",
            folder.display(),
            input.display()
        );
    }
    Ok(())
}

/// The images of all paths; a path that does not exist, a folder that cannot be read, or one without an image, is reported, has its row, and does
/// not stop the others.
fn collect(paths: &[PathBuf], rows: &mut Vec<Value>) -> Vec<ImageFile> {
    let (found, problems) = masf::data::collect_readable_images(paths);
    for error in problems {
        let path = match &error {
            DataError::Layout { path, .. } | DataError::Io { path, .. } => path.clone(),
            _ => PathBuf::new(),
        };
        rows.push(failed(&path, &error.into()));
    }
    note_ignored(&found.ignored);
    found.images
}

/// Reports what could not be inspected; its row.
fn failed(path: &Path, error: &anyhow::Error) -> Value {
    note!("error: {}", describe(error));
    json!({ "path": path.to_string_lossy(), "error": describe(error) })
}

/// Prints the line of an image and writes its heat map and its raw maps.
fn report(args: &Args, file: &ImageFile, inspection: &Inspection) -> anyhow::Result<()> {
    let verdict = if inspection.is_anomalous { "ANOMALOUS" } else { "normal" };
    outln!("{}\t{:.4}\t{verdict}", file.path.display(), inspection.normalised_score)?;
    if let Some(folder) = &args.heatmaps {
        let image = masf::data::read_image(&file.path, &masf::data::Limits::default())?;
        write_beside(folder, file, ".png", &png(&masf::heatmap::render(&image, inspection))?)?;
    }
    if let Some(folder) = &args.maps {
        write_beside(folder, file, ".npy", &masf::maps::npy(inspection.anomaly_map.view()))?;
        write_beside(folder, file, ".map.png", &masf::maps::png16(inspection)?)?;
    }
    Ok(())
}

/// Writes a file named after an image. The image's extension stays in the name: a.png and a.jpg are two images.
fn write_beside(folder: &Path, file: &ImageFile, ending: &str, content: &[u8]) -> anyhow::Result<()> {
    let mut target = folder.join(&file.relative);
    target.as_mut_os_string().push(ending);
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    write_atomically(&target, content)
}

/// The detector must be usable from the threads of a server.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Detector>();
};
