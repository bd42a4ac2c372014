//! Learns from defect-free images and saves a model.
//!
//! ```text
//! cargo run --release --example train -- --data bottle --out bottle.masf --backbone resnet18 --weights resnet18.safetensors
//! ```

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use masf::data::Dataset;
use masf::{Branch, ByteSize, Checkpoints, Config, Detector, DeviceChoice, Method, Preset, SaveOptions, Size};
use masf_examples::{Common, note, note_ignored, outln, prepare_model, progress, run};

/// Learn from defect-free images and save a model.
#[derive(Parser)]
struct Args {
    /// A category in the MVTec AD layout (its train/good is used), or a folder of defect-free images
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where the model goes; an existing file is replaced when the new one is complete
    #[arg(long, value_name = "M.masf")]
    out: PathBuf,
    /// Settings to begin with: fast, balanced (the default) or accurate (docs/fusion.md says what each is)
    #[arg(long, value_name = "PRESET", conflicts_with = "config")]
    preset: Option<Preset>,
    /// Settings; the options below override them (docs/masf.toml lists all)
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// What is learned: masf, or a baseline to compare with: patchcore, padim, cfa, rdpp, adtr or isstad [default: masf]
    #[arg(long, value_name = "NAME")]
    method: Option<Method>,
    /// Feature extractor: masf-nano (the default; its weights are part of the program), scattering (has no weights),
    /// mobilenet-v2, mobilenet-v2-tf, resnet50-v2, resnet18, resnet34, resnet50, resnet101, wide-resnet50-2 or wide-resnet101-2;
    /// with the feature vit: dinov2-vits14, dinov2-vitb14, dinov2-vits14-reg4 or dinov2-vitb14-reg4
    #[arg(long, value_name = "NAME")]
    backbone: Option<String>,
    /// Weights of the backbone: masf-nano and scattering need none; those of torchvision's ResNets and of DINOv2 are downloaded if
    /// they are not given, in a build with the feature `hub`; the others always need this file
    #[arg(long, value_name = "FILE.safetensors")]
    weights: Option<PathBuf>,
    /// Where the backbone computes: cpu, cuda, cuda:INDEX, metal or metal:INDEX; GPUs need a build with the feature of that
    /// name [default: cpu]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceChoice>,
    /// Levels of the backbone to use, by their strides in pixels; padim wants 4,8,16 [default: 8,16; 14 for dinov2]
    #[arg(long, value_name = "STRIDES", value_delimiter = ',')]
    strides: Option<Vec<usize>>,
    /// Size that images are resized to: SIDE or HEIGHTxWIDTH [default: 256; 252 for dinov2]
    #[arg(long, value_name = "SIZE")]
    image_size: Option<Size>,
    /// Let the backbone see large images in tiles of this size: SIDE or HEIGHTxWIDTH
    #[arg(long, value_name = "SIZE")]
    tile: Option<Size>,
    /// Seed of everything random [default: 0]
    #[arg(long)]
    seed: Option<u64>,
    /// Angles at which the memory bank sees every training image, evenly spread: 0 (upright only), 4 or 8; up to 36 [default: 0]
    #[arg(long, value_name = "COUNT")]
    turns: Option<usize>,
    /// Angles that every image is inspected at, evenly spread, the one at which it looks most normal counting: up to 36 [default: 1]
    #[arg(long, value_name = "COUNT")]
    orientations: Option<usize>,
    /// Memory for features while fitting, such as 512MiB or 2GiB [default: 512MiB]
    #[arg(long, value_name = "SIZE")]
    memory_budget: Option<ByteSize>,
    /// Share of good images that may be called anomalous [default: 0.05]
    #[arg(long, value_name = "RATE")]
    false_alarm_rate: Option<f64>,
    /// What is learned: memory, distill or memory,distill [default: what the preset or file says]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    branches: Vec<Branch>,
    /// Passes of the student, or of a trained baseline, over the images [default: as many as its `passes` images make up]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Where the trainings of the student keep checkpoints
    #[arg(long, value_name = "DIR")]
    checkpoint_dir: Option<PathBuf>,
    /// Go on from the checkpoints in this folder, and keep further ones there (or in --checkpoint-dir)
    #[arg(long, value_name = "DIR")]
    resume: Option<PathBuf>,
    /// Leave out images that cannot be read, and list them, instead of stopping at the first
    #[arg(long)]
    skip_bad: bool,
    /// Save the hash of the backbone's weights instead of the weights
    #[arg(long)]
    reference_weights: bool,
    #[command(flatten)]
    common: Common,
}

impl Args {
    fn config(&self) -> masf::Result<Config> {
        let preset = self.preset.unwrap_or_default();
        let mut config = Config::choose(self.config.as_deref(), preset, self.backbone.as_deref())?;
        if let Some(method) = self.method {
            config.method = method;
        }
        if let Some(strides) = &self.strides {
            config.backbone.strides.clone_from(strides);
        }
        if let Some(turns) = self.turns {
            config.memory.turns = turns;
        }
        if let Some(orientations) = self.orientations {
            config.orientations = orientations;
        }
        if let Some(device) = self.device {
            config.backbone.device = device;
        }
        if let Some(size) = self.image_size {
            config.input.size = size;
        }
        if self.tile.is_some() {
            config.input.tile = self.tile;
        }
        if let Some(seed) = self.seed {
            config.seed = seed;
        }
        if let Some(budget) = self.memory_budget {
            config.memory_budget = budget;
        }
        if let Some(rate) = self.false_alarm_rate {
            config.threshold.false_alarm_rate = rate;
        }
        if !self.branches.is_empty() {
            config.branches.clone_from(&self.branches);
        }
        if let Some(epochs) = self.epochs {
            config.set_epochs(epochs);
        }
        Ok(config)
    }

    fn checkpoints(&self) -> Option<Checkpoints> {
        let checkpoints = Checkpoints::new(self.checkpoint_dir.as_ref().or(self.resume.as_ref())?);
        Some(match &self.resume {
            Some(folder) => checkpoints.resume_from(folder),
            None => checkpoints,
        })
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(|| {
        args.common.apply()?;
        let progress = progress()?;
        let started = std::time::Instant::now();
        let config = args.config()?;
        config.check()?;
        let checkpoints = args.checkpoints();
        let is_masf = config.method == Method::Masf;
        let learns = |branch| is_masf && config.branches.contains(&branch);
        anyhow::ensure!(is_masf || args.branches.is_empty(), "--branches: {} has none; leave it out", config.method);
        anyhow::ensure!(is_masf || args.preset.is_none(), "--preset: {} has none; leave it out", config.method);
        anyhow::ensure!(
            checkpoints.is_none() || is_masf,
            "--checkpoint-dir or --resume is for the student, which {} does not have; leave it out",
            config.method
        );
        anyhow::ensure!(
            checkpoints.is_none() || learns(Branch::Distill),
            "--checkpoint-dir and --resume are for the student, which is not trained here: add --branches memory,distill"
        );
        anyhow::ensure!(
            args.turns.is_none_or(|turns| turns < 2) || learns(Branch::Memory),
            "--turns is for the memory bank of masf, which does not learn here; leave it out"
        );
        anyhow::ensure!(
            args.epochs.is_none() || config.takes_epochs(),
            "--epochs is for what is trained (the student, cfa, rdpp, adtr, isstad), which is nothing here; leave it out"
        );
        prepare_model(&args.out)?;
        let backbone = masf::open_backbone(&config.backbone, args.weights.as_deref(), progress.as_ref())?;
        let images = Dataset::training(&args.data)?;
        note_ignored(&images.ignored);
        let mut builder = Detector::builder().config(config).backbone(backbone);
        if let Some(checkpoints) = checkpoints {
            builder = builder.checkpoints(checkpoints);
        }
        let (detector, report) = builder
            .skip_bad(args.skip_bad)
            .progress(progress)
            .fit_with_report(images.samples.iter().map(|sample| &sample.path))?;
        detector.save_with(&args.out, SaveOptions { reference_weights: args.reference_weights })?;
        for line in report.skipped_summary() {
            note!("skipped: {line}");
        }
        outln!(
            "{}: learned from {} images in {:.1} s ({} left out)",
            args.out.display(),
            detector.provenance().images,
            started.elapsed().as_secs_f64(),
            detector.provenance().skipped,
        )?;
        for map in &report.precisions {
            outln!(
                "weight {:.3} of {} (synthetic defects: image AUROC {:.3}, pixel AUROC {:.3})",
                map.weight,
                map.name,
                map.image_auroc,
                map.pixel_auroc
            )?;
        }
        outln!("threshold {}", detector.threshold())?;
        Ok(ExitCode::SUCCESS)
    })
}
