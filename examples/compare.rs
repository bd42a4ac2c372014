//! Fits every method on the same good images and measures them on the same labelled ones: a Markdown table on standard output, and one
//! self-contained HTML page with the heat maps side by side.
//!
//! ```text
//! cargo run --release --example compare -- --data bottle --methods masf,patchcore,padim
//! ```
//!
//! The methods run one after another in this process. Exit code 0: all of them were measured; 1: some could not be (the others were), or
//! none, and then the page is left as it was.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use masf::data::Sample;
use masf::report::{Compared, Gallery, comparison, comparison_table};
use masf::{Config, Detector, Error, Evaluation, Method, Preset, ReadOptions, Size, default_registry};
use masf_examples::{
    Common, describe, memory, note, out, prepare_output, progress, run, training_and_test, write_atomically,
};

/// Compare methods on one category.
#[derive(Parser)]
struct Args {
    /// A category in the MVTec AD layout: methods learn from train/good and are measured on test
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Methods to compare [default: all of masf, patchcore, padim, cfa, rdpp, adtr and isstad; the last four are trained, some for
    /// more than half an hour of processor time each with resnet50-v2]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    methods: Vec<Method>,
    /// Settings for all methods (docs/masf.toml lists them); the options below override them. Without this file padim has a level
    /// at stride 4 beside those of the others
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Feature extractor of all methods [default: masf-nano, whose weights are part of the program]
    #[arg(long, value_name = "NAME")]
    backbone: Option<String>,
    /// Weights of the backbone
    #[arg(long, value_name = "FILE.safetensors")]
    weights: Option<PathBuf>,
    /// Size that images are resized to: SIDE or HEIGHTxWIDTH [default: 256; 252 for dinov2]
    #[arg(long, value_name = "SIZE")]
    image_size: Option<Size>,
    /// Passes of the methods that are trained over the images [default: those of the settings]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Seed of everything random [default: 0]
    #[arg(long)]
    seed: Option<u64>,
    /// Where the page goes
    #[arg(long, value_name = "OUT.html", default_value = "compare.html")]
    html: PathBuf,
    /// Images whose heat maps the page shows, evenly chosen from the test images
    #[arg(long, value_name = "COUNT", default_value_t = 24)]
    images: usize,
    #[command(flatten)]
    common: Common,
}

/// A method with what was found of it.
struct Found {
    name: String,
    evaluation: Evaluation,
    gallery: Gallery,
    fit_seconds: f64,
    fit_memory: Option<u64>,
    model_bytes: u64,
}

impl Args {
    /// The settings of a method. PaDiM takes a level at stride 4 too, as published, where no file of settings is given.
    fn config(&self, method: Method) -> masf::Result<Config> {
        let mut config = Config::choose(self.config.as_deref(), Preset::Balanced, self.backbone.as_deref())?;
        config.method = method;
        if method == Method::Padim && self.config.is_none() && config.backbone.strides == [8, 16] {
            config.backbone.strides = vec![4, 8, 16];
        }
        if let Some(size) = self.image_size {
            config.input.size = size;
        }
        if let Some(seed) = self.seed {
            config.seed = seed;
        }
        if let Some(epochs) = self.epochs {
            config.set_epochs(epochs);
        }
        config.check()?;
        Ok(config)
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(|| {
        args.common.apply()?;
        let progress = progress()?;
        prepare_output(&args.html)?;
        let (good, test) = training_and_test(&args.data)?;
        let methods = if args.methods.is_empty() { Method::ALL.to_vec() } else { args.methods.clone() };
        // What is wrong with the options is told before anything is measured.
        let configs = methods.iter().map(|method| args.config(*method)).collect::<masf::Result<Vec<_>>>()?;
        anyhow::ensure!(
            args.epochs.is_none() || configs.iter().any(Config::takes_epochs),
            "--epochs is for what is trained (masf's student, cfa, rdpp, adtr, isstad), which is nothing here; leave it out"
        );
        if let Some(config) = configs.first() {
            masf::open_backbone(&config.backbone, args.weights.as_deref(), progress.as_ref())?;
        }
        let mut all = Vec::new();
        let mut failures = 0;
        for config in configs {
            let method = config.method;
            match measure(&args, config, &good, &test, progress.clone()) {
                Ok(found) => all.push(found),
                Err(error) if matches!(error.downcast_ref(), Some(Error::Cancelled)) => return Err(error),
                Err(error) => {
                    failures += 1;
                    note!("error: {method}: {}", describe(&error));
                }
            }
        }
        anyhow::ensure!(!all.is_empty(), "no method could be measured; {} is left as it was", args.html.display());
        let compared: Vec<Compared<'_>> = all
            .iter()
            .map(|found| Compared {
                name: &found.name,
                evaluation: &found.evaluation,
                gallery: &found.gallery,
                fit_seconds: found.fit_seconds,
                fit_memory: found.fit_memory,
                model_bytes: found.model_bytes,
            })
            .collect();
        let name = args.data.file_name().map_or_else(|| args.data.to_string_lossy(), |name| name.to_string_lossy());
        out!("{}", comparison_table(&compared))?;
        write_atomically(&args.html, comparison(&name, &compared).as_bytes())?;
        note!("heat maps: {}", args.html.display());
        Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// Fits a method, saves and loads it, and measures it.
fn measure(
    args: &Args,
    config: Config,
    good: &[Sample],
    test: &[Sample],
    progress: std::sync::Arc<dyn masf::Progress>,
) -> anyhow::Result<Found> {
    let (name, device) = (config.method.to_string(), config.backbone.device);
    memory::forget_peak();
    let started = Instant::now();
    let backbone = masf::open_backbone(&config.backbone, args.weights.as_deref(), progress.as_ref())?;
    let detector = Detector::builder()
        .config(config)
        .backbone(backbone)
        .progress(progress.clone())
        .fit(good.iter().map(|sample| &sample.path))?;
    let (fit_seconds, fit_memory) = (started.elapsed().as_secs_f64(), memory::peak());
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.masf");
    detector.save(&path)?;
    let model_bytes = std::fs::metadata(&path)?.len();
    drop(detector);
    let options = ReadOptions { device, ..ReadOptions::default() };
    let detector = Detector::load_with(&path, &default_registry(), options)?;
    let mut gallery = Gallery::new();
    let (shown, mut seen) = (args.images.min(test.len()), 0);
    let evaluation = detector.evaluate_each(test, progress.as_ref(), |found| {
        // Number `seen` is shown where another share of the images is complete with it.
        let before = seen * shown / test.len();
        seen += 1;
        if seen * shown / test.len() > before { gallery.add(&found) } else { Ok(()) }
    })?;
    Ok(Found { name, evaluation, gallery, fit_seconds, fit_memory, model_bytes })
}
