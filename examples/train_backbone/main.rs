//! Trains the compact backbone `masf-nano` from scratch: it learns on procedural images to give the features of larger, pretrained
//! networks.
//!
//! ```text
//! cargo run --release --example train_backbone -- --teacher resnet50-v2 --teacher-weights resnet50_v2_layers123.safetensors \
//!     --teacher mobilenet-v2 --teacher-weights mobilenet_v2_f32.safetensors --checkpoint-dir run --out nano.safetensors
//! ```
//!
//! The run can be stopped at any time (Ctrl-C saves) and continues with the same command and `--resume`; a resumed run makes the
//! same steps as one that was not stopped. `constant.safetensors` in the checkpoint folder is the state before the learning rate
//! descends: a copy of it as `checkpoint.safetensors` is where a longer training continues.

mod input;
mod pool;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, ensure};
use candle_core::Tensor;
use clap::Parser;
use masf::data::Size;
use masf::data::procedural::ProceduralImages;
use masf::{FeatureExtractor, Progress};
use masf_backbone::train::{Schedule, Teacher, Trainer};
use masf_backbone::{Backbone, BackboneError};
use masf_examples::{Common, note, outln, prepare_model, progress, run};
use rand_chacha::rand_core::RngCore;
use rayon::prelude::*;

use input::Input;
use pool::Pool;

/// Strides of the maps, and the channels of the student's maps there.
const STRIDES: [usize; 3] = [4, 8, 16];
const CHANNELS: [usize; 3] = [32, 64, 128];
/// Images from which the targets' projections and the statistics of the norms are taken, per batch and in all.
const STATISTICS: (usize, u64) = (16, 512);
/// Where the indices of images for other purposes than training begin.
const OTHERS: u64 = 1 << 40;
/// Images that the progress is measured on; they follow those of the training in the pool.
const VALIDATION: u64 = 64;
/// Steps between lines of progress, and between checkpoints.
const REPORT: u64 = 50;
const CHECKPOINT: u64 = 500;

/// Train the compact backbone by distillation.
#[derive(Parser)]
struct Args {
    /// Name of a pretrained network to learn from; may be given several times
    #[arg(long, value_name = "NAME", required = true)]
    teacher: Vec<String>,
    /// Its weights; as many as teachers
    #[arg(long, value_name = "FILE", required = true)]
    teacher_weights: Vec<PathBuf>,
    /// Where the trained weights go
    #[arg(long, value_name = "OUT.safetensors")]
    out: PathBuf,
    /// Folder of checkpoints and of the pool of images with targets
    #[arg(long, value_name = "DIR")]
    checkpoint_dir: PathBuf,
    /// Continue from the checkpoint in the folder
    #[arg(long)]
    resume: bool,
    /// Steps of the whole training
    #[arg(long, default_value_t = 12_000)]
    steps: u64,
    /// Begin the descent of the learning rate early enough to end after about so many hours of this run; without it the
    /// number of steps alone decides, and the training is reproducible
    #[arg(long)]
    hours: Option<f64>,
    /// Share of the steps in which the learning rate descends
    #[arg(long, default_value_t = 0.25)]
    descent: f64,
    /// Learning rate of AdamW
    #[arg(long, default_value_t = 3e-3)]
    rate: f64,
    /// Images per step
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Side of the images, a multiple of 16
    #[arg(long, default_value_t = 160)]
    side: usize,
    /// Different images; each is seen again after all the others
    #[arg(long, default_value_t = 20_000)]
    images: u64,
    /// Seed of images, weights and order
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(|| {
        args.common.apply()?;
        let progress = progress()?;
        train(&args, progress.as_ref())?;
        Ok(ExitCode::SUCCESS)
    })
}

fn train(args: &Args, progress: &dyn Progress) -> anyhow::Result<()> {
    ensure!(args.teacher.len() == args.teacher_weights.len(), "as many --teacher-weights as --teacher are needed");
    ensure!(
        args.side >= 32 && args.side.is_multiple_of(16),
        "--side is {}; expected a multiple of 16 from 32 on",
        args.side
    );
    ensure!(
        args.batch > 0 && args.images >= args.batch as u64,
        "--images must be at least --batch, which must be positive"
    );
    prepare_model(&args.out)?;
    std::fs::create_dir_all(&args.checkpoint_dir)
        .with_context(|| format!("cannot create {}", args.checkpoint_dir.display()))?;
    let images = ProceduralImages::new(Size::square(u32::try_from(args.side)?), args.seed)?;
    let teachers = args.teacher.iter().zip(&args.teacher_weights);
    let teachers: Vec<Backbone> = teachers
        .map(|(name, path)| Ok(Backbone::builder(name)?.strides(&STRIDES).load(path)?))
        .collect::<anyhow::Result<_>>()?;
    let Some(normalisation) = teachers.first().map(FeatureExtractor::normalisation) else { return Ok(()) };
    let input = Input { side: args.side, normalisation };

    let checkpoint = args.checkpoint_dir.join("checkpoint.safetensors");
    let mut trainer = Trainer::new("masf-nano", args.seed)?;
    let teacher = if args.resume {
        let tensors = trainer.resume(&checkpoint)?;
        Teacher::restore(teachers, &STRIDES, &tensors)?
    } else {
        ensure!(!checkpoint.exists(), "{} exists; continue it with --resume, or remove it", checkpoint.display());
        Teacher::fit(teachers, (&STRIDES, &CHANNELS), statistics(images, input), args.seed)?
    };
    let shapes =
        STRIDES.iter().zip(CHANNELS).map(|(stride, channels)| [args.side / stride, args.side / stride, channels]);
    let shapes: Vec<[usize; 3]> = shapes.collect();
    let pool = Pool::open(&args.checkpoint_dir, args.seed, args.resume, images, input, shapes)?;
    let save = |trainer: &Trainer, path: &Path| trainer.save(path, teacher.tensors());

    let mut schedule = Schedule { rate: args.rate, warmup: 200, descent: descent(args, args.steps), end: args.steps };
    let constant = args.checkpoint_dir.join("constant.safetensors");
    let (started, first) = (Instant::now(), trainer.steps());
    let (mut errors, mut order) = (vec![0.0_f32; STRIDES.len()], Order::new(args));
    progress.start("training", schedule.end.saturating_sub(first));
    while trainer.steps() < schedule.end {
        let step = trainer.steps();
        if progress.is_cancelled() {
            save(&trainer, &checkpoint)?;
            progress.finish();
            note!("stopped after {step} steps; continue with --resume");
            return Err(masf::Error::Cancelled.into());
        }
        if step == schedule.descent {
            save(&trainer, &constant)?;
        }
        let batch = pool.get(&order.batch(step), &teacher)?;
        let found = trainer.step(&batch.images, &batch.targets, schedule.at(step))?;
        errors.iter_mut().zip(&found).for_each(|(sum, error)| *sum += *error);
        progress.step(1);
        let step = trainer.steps();
        if step % REPORT == 0 {
            let seconds = started.elapsed().as_secs_f64() / (step - first) as f64;
            // The first line of a resumed run has fewer steps behind it.
            let count = REPORT.min(step - first) as f32;
            errors.iter_mut().for_each(|sum| *sum /= count);
            note!("step {step}, {seconds:.3} s a step, unexplained at strides {STRIDES:?}: {errors:.4?}");
            errors.fill(0.0);
            if let Some(hours) = args.hours.filter(|_| step < schedule.descent) {
                let affordable = first + (hours * 3600.0 / seconds) as u64;
                schedule.end = args.steps.min(affordable.max(step + 2));
                schedule.descent = descent(args, schedule.end).max(step + 1);
            }
        }
        if step % CHECKPOINT == 0 {
            save(&trainer, &checkpoint)?;
            let indices: Vec<u64> = (args.images..args.images + VALIDATION).collect();
            let held_out = pool.get(&indices, &teacher)?;
            note!("step {step}, held out: {:.4?}", trainer.evaluate(&held_out.images, &held_out.targets)?);
        }
    }
    progress.finish();
    save(&trainer, &checkpoint)?;
    trainer.export(&args.out, statistics(images, input))?;
    outln!("{}", args.out.display())?;
    Ok(())
}

/// The step at which the learning rate begins to descend.
fn descent(args: &Args, end: u64) -> u64 {
    (end as f64 * (1.0 - args.descent.clamp(0.0, 1.0))) as u64
}

/// Batches of images that the training does not see, for the projections and the norms.
fn statistics(images: ProceduralImages, input: Input) -> impl Iterator<Item = Result<Tensor, BackboneError>> {
    let (size, count) = STATISTICS;
    (0..count / size as u64).map(move |batch| {
        let first = OTHERS + batch * size as u64;
        let pixels: Vec<Vec<u8>> =
            (first..first + size as u64).into_par_iter().map(|index| images.image(index).into_raw()).collect();
        Ok(input.tensor(&pixels)?)
    })
}

/// Which images a step sees: every image once, in random order, then again in another order.
struct Order<'a> {
    args: &'a Args,
    epoch: Option<u64>,
    indices: Vec<u64>,
}

impl<'a> Order<'a> {
    fn new(args: &'a Args) -> Self {
        Self { args, epoch: None, indices: Vec::new() }
    }

    fn batch(&mut self, step: u64) -> Vec<u64> {
        let batch = self.args.batch as u64;
        let per_epoch = self.args.images / batch;
        let (epoch, within) = (step / per_epoch, step % per_epoch);
        if self.epoch != Some(epoch) {
            // Fisher and Yates.
            self.indices = (0..self.args.images).collect();
            let mut stream = masf::core::random_stream(self.args.seed, &format!("train/order/{epoch}"));
            for last in (1..self.indices.len()).rev() {
                self.indices.swap(last, (stream.next_u64() % (last as u64 + 1)) as usize);
            }
            self.epoch = Some(epoch);
        }
        self.indices[(within * batch) as usize..][..batch as usize].to_vec()
    }
}
