//! What an inspection costs beyond its backbone.
//!
//! ```text
//! cargo run --release --example cost -- --model fast.masf --model accurate.masf parts/test/good/000.png
//! ```
//!
//! Inspects one image again and again with each model, in turn, so that a busy machine troubles all alike, and prints medians: the
//! passes of the backbone alone (one, timed, as often as there are angles and views), the whole inspection of the decoded image, and how
//! much the latter takes beyond the former. Without arguments it works on a synthetic image and a model of default settings.

use std::hint::black_box;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use image::DynamicImage;
use masf::data::synthetic::{SyntheticConfig, SyntheticSet};
use masf::{Config, Detector, DeviceChoice, ImageInput};
use masf_examples::{Common, ModelArgs, demo, outln, progress, quantile, run};

/// Time an inspection and its backbone.
#[derive(Parser)]
struct Args {
    /// A model; may be given several times [default: one that is made from synthetic images]
    #[arg(long, value_name = "M.masf")]
    model: Vec<PathBuf>,
    /// Weights of the backbone, for models saved with --reference-weights; others than a model's are refused
    #[arg(long, value_name = "FILE.safetensors", requires = "model")]
    weights: Option<PathBuf>,
    /// Where the backbone computes: cpu, cuda, cuda:INDEX, metal or metal:INDEX; GPUs need a build with the feature of that name
    #[arg(long, value_name = "DEVICE", default_value_t, requires = "model")]
    device: DeviceChoice,
    /// How often each model inspects the image
    #[arg(long, default_value_t = 51)]
    rounds: usize,
    /// The image [default: a synthetic one]
    image: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// How often the backbone sees an image.
fn passes(config: &Config) -> u32 {
    (config.orientations * (1 + config.views.noise + config.views.shifts)) as u32
}

/// A model and what it took.
struct Timed {
    name: String,
    detector: Detector,
    backbone: Vec<Duration>,
    inspection: Vec<Duration>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(|| {
        args.common.apply()?;
        anyhow::ensure!(args.rounds > 0, "--rounds is 0; expected at least 1");
        let progress = progress()?;
        let timed = |name: String, detector| Timed { name, detector, backbone: Vec::new(), inspection: Vec::new() };
        let mut models = Vec::new();
        for model in args.model {
            let name = model.display().to_string();
            let model = ModelArgs { model, weights: args.weights.clone(), device: args.device };
            models.push(timed(name, model.load()?));
        }
        if models.is_empty() {
            models.push(timed("default settings".to_owned(), demo::model()?));
        }
        // Shared: a copy of it is no part of an inspection.
        let image = Arc::new(match args.image {
            Some(path) => ImageInput::from(path).decode(&Default::default())?,
            None => {
                let set = SyntheticSet::new(SyntheticConfig::default())?;
                DynamicImage::from(set.iter().next().map(|picture| picture.image).unwrap_or_default())
            }
        });
        progress.start("inspecting", args.rounds as u64);
        // The first round fills caches and is not counted.
        for round in 0..=args.rounds {
            progress.check()?;
            for model in &mut models {
                let device = model.detector.backbone().device();
                let tensor = model.detector.preprocess().tensor(&image)?.unsqueeze(0)?.to_device(&device)?;
                let begun = Instant::now();
                black_box(model.detector.backbone().extract(&tensor)?);
                // A GPU may still be at it.
                device.synchronize()?;
                let backbone = begun.elapsed() * passes(model.detector.config());
                let begun = Instant::now();
                black_box(model.detector.inspect(ImageInput::Image(image.clone()))?);
                let inspection = begun.elapsed();
                if round > 0 {
                    model.backbone.push(backbone);
                    model.inspection.push(inspection);
                }
            }
            progress.step(u64::from(round > 0));
        }
        progress.finish();
        outln!("| model | backbone | inspection | beyond the backbone |")?;
        outln!("|---|---|---|---|")?;
        for Timed { name, backbone, inspection, .. } in &mut models {
            let [backbone, inspection] = [backbone, inspection].map(|times| {
                times.sort_unstable();
                quantile(times, 0.5).as_secs_f64() * 1e3
            });
            let more = 100.0 * (inspection / backbone - 1.0);
            outln!("| {name} | {backbone:.2} ms | {inspection:.2} ms | {more:.0} % |")?;
        }
        Ok(ExitCode::SUCCESS)
    })
}
