//! How much accuracy turned parts cost, with and without a memory bank of turned training images.
//!
//! ```text
//! cargo run --example rotation -- --data screw --backbone mobilenet-v2 --weights mobilenet_v2_f32.safetensors
//! ```
//!
//! Training and test images are treated alike: the largest disc about the centre is kept, outside of it its edge is repeated along the
//! radius, and test images are turned at their own resolution. The table has the image AUROC of upright test images, of random multiples of
//! 90 degrees, and of random angles.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use candle_core::{Device, Tensor};
use clap::Parser;
use masf::data::{ImageInput, Limits, Sample, read_image, to_rgb8, turn};
use masf::{Branch, Config, Detector, Method, Preset, Progress};
use masf_examples::{Common, outln, progress, run, training_and_test};
use masf_metrics::Ranking;
use rand::Rng;

/// Measure what turned test images cost.
#[derive(Parser)]
struct Args {
    /// A category in the MVTec AD layout
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Settings (docs/masf.toml lists all)
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Feature extractor [default: masf-nano]
    #[arg(long, value_name = "NAME")]
    backbone: Option<String>,
    /// Weights of the backbone
    #[arg(long, value_name = "FILE.safetensors")]
    weights: Option<PathBuf>,
    /// Numbers of angles that training images are turned to, one column each
    #[arg(long, value_name = "COUNTS", value_delimiter = ',', default_values_t = [0, 4, 8])]
    turns: Vec<usize>,
    /// Seed of everything random [default: 0]
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    common: Common,
}

/// What is done to the test images.
const VIEWS: [&str; 3] = ["upright", "random multiples of 90 degrees", "random angles"];

fn main() -> ExitCode {
    let args = Args::parse();
    run(|| {
        args.common.apply()?;
        let progress = progress()?;
        let mut config = Config::choose(args.config.as_deref(), Preset::Fast, args.backbone.as_deref())?;
        config.seed = args.seed.unwrap_or(config.seed);
        let learns = config.method == Method::Masf && config.branches.contains(&Branch::Memory);
        anyhow::ensure!(
            learns || args.turns.iter().all(|turns| *turns < 2),
            "--turns is for the memory bank of masf, which does not learn here; give --turns 0"
        );
        let columns: Vec<Config> = args
            .turns
            .iter()
            .map(|turns| {
                let mut config = config.clone();
                config.memory.turns = *turns;
                config.check().map(|()| config)
            })
            .collect::<masf::Result<_>>()?;
        let (training, test) = training_and_test(&args.data)?;

        let bits = config.input.significant_bits;
        let mut random = masf::core::random_stream(config.seed, "rotation example");
        let mut views: Vec<Vec<ImageInput>> = vec![Vec::new(); VIEWS.len()];
        for sample in &test {
            let quarter = f64::from(random.random_range(0..4u32)) * 90.0;
            let angles = [0.0, quarter, random.random_range(0.0..360.0)];
            for (view, angle) in views.iter_mut().zip(angles) {
                view.push(turned(&sample.path, angle, bits)?);
            }
        }
        let normals =
            training.iter().map(|sample| turned(&sample.path, 0.0, bits)).collect::<anyhow::Result<Vec<_>>>()?;

        let titles: Vec<String> = args.turns.iter().map(|turns| format!("{turns} turns")).collect();
        outln!("| test images | {} |\n|---|{}", titles.join(" | "), "---|".repeat(titles.len()))?;
        let mut table = Vec::new();
        for config in columns {
            let backbone = masf::open_backbone(&config.backbone, args.weights.as_deref(), progress.as_ref())?;
            let detector = Detector::builder()
                .config(config)
                .backbone(backbone)
                .progress(progress.clone())
                .fit(normals.clone())?;
            let aurocs = views.iter().map(|view| auroc(&detector, view, &test, progress.as_ref()));
            table.push(aurocs.collect::<anyhow::Result<Vec<_>>>()?);
        }
        for (row, view) in VIEWS.iter().enumerate() {
            let values: Vec<String> = table.iter().map(|column| format!("{:.4}", column[row])).collect();
            outln!("| {view} | {} |", values.join(" | "))?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The image AUROC on images that stand for the samples.
fn auroc(
    detector: &Detector,
    images: &[ImageInput],
    samples: &[Sample],
    progress: &dyn Progress,
) -> anyhow::Result<f64> {
    progress.check()?;
    let scores = detector
        .inspect_batch(images.iter().cloned())
        .into_iter()
        .map(|found| Ok(found?.image_score))
        .collect::<anyhow::Result<Vec<f32>>>()?;
    let defective: Vec<bool> = samples.iter().map(|sample| sample.label.is_defective()).collect();
    Ok(Ranking::new(&scores, &defective)?.auroc())
}

/// The central disc of an image, turned, on a square that goes on as the edge of the disc ends: a visible edge would be what stands out most.
fn turned(path: &Path, degrees: f64, significant_bits: u8) -> anyhow::Result<ImageInput> {
    let image = read_image(path, &Limits::default())?;
    let image = to_rgb8(&image, significant_bits).with_context(|| path.display().to_string())?;
    let side = image.width().min(image.height());
    let (left, top) = ((image.width() - side) / 2, (image.height() - side) / 2);
    let square = image::imageops::crop_imm(&*image, left, top, side, side).to_image();
    let n = side as usize;
    let values: Vec<f32> = square.into_raw().into_iter().map(f32::from).collect();
    let planes = Tensor::from_vec(values, (1, n, n, 3), &Device::Cpu)?.permute((0, 3, 1, 2))?;
    let kept = masf::data::disc(&turn(&planes, degrees)?)?.permute((0, 2, 3, 1))?.flatten_all()?.to_vec1::<f32>()?;
    Ok(ImageInput::rgb8(side, side, kept.into_iter().map(|value| value.round() as u8).collect())?)
}
