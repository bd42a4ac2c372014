//! A scorer of one's own: what is learned from the features can be anything, too.
//!
//! ```text
//! cargo run --release --example own_scorer
//! ```
//!
//! This one learns mean and deviation of every channel over all positions of all good images, and scores a position by its mean squared
//! deviation: simple, fast, and worse than the memory bank. It takes part in cross-fitting, thresholds, saving and loading like masf's own.

use std::process::ExitCode;

use candle_core::{DType, Device, Tensor};
use clap::Parser;
use masf::core::{Artifact, ArtifactReader, ArtifactWriter, FeaturePyramid, PyramidSource, ScoreMap, Scores};
use masf::{Detector, Error, Fit, Progress, ReadOptions, Result, Scorer, default_registry};
use masf_examples::{Common, demo, outln, progress, run};

/// Learns a [`Gaussian`] from the level of one stride.
struct GaussianFit {
    stride: usize,
}

/// Mean and reciprocal deviation of every channel, `[C]` each.
struct Gaussian {
    stride: usize,
    mean: Tensor,
    scale: Tensor,
}

impl Fit for GaussianFit {
    type Scorer = Gaussian;

    fn fit(&self, source: &dyn PyramidSource, progress: &dyn Progress) -> Result<Gaussian> {
        let (mut count, mut sum, mut squares) = (0f64, Vec::new(), Vec::new());
        // One image at a time: memory does not grow with their number.
        for index in 0..source.len() {
            progress.check()?;
            let pyramid = source.batch(&[index])?;
            let map = &pyramid.level(self.stride)?.map;
            let (_, channels, height, width) = map.dims4()?;
            let rows = map.reshape((channels, height * width))?.to_dtype(DType::F64)?;
            sum.resize(channels, 0f64);
            squares.resize(channels, 0f64);
            add(&mut sum, &rows.sum(1)?)?;
            add(&mut squares, &rows.sqr()?.sum(1)?)?;
            count += (height * width) as f64;
        }
        if count == 0.0 {
            return Err(Error::data("training images", "there are none"));
        }
        let mean: Vec<f32> = sum.iter().map(|sum| (sum / count) as f32).collect();
        let scale: Vec<f32> = sum
            .iter()
            .zip(&squares)
            // A channel that never changes says nothing: the floor keeps it from dividing by zero.
            .map(|(sum, squares)| (1.0 / (squares / count - (sum / count).powi(2)).max(1e-6).sqrt()) as f32)
            .collect();
        let tensor = |values: Vec<f32>| Tensor::new(values, &Device::Cpu);
        Ok(Gaussian { stride: self.stride, mean: tensor(mean)?, scale: tensor(scale)? })
    }
}

/// Adds the values of a tensor to a sum.
fn add(sum: &mut [f64], values: &Tensor) -> Result<()> {
    sum.iter_mut().zip(values.to_vec1::<f64>()?).for_each(|(sum, value)| *sum += value);
    Ok(())
}

impl Gaussian {
    const TAG: &'static str = "example.gaussian";
}

impl Scorer for Gaussian {
    fn score(&self, pyramid: &FeaturePyramid) -> Result<Scores> {
        let map = &pyramid.level(self.stride)?.map;
        let channels = self.mean.dim(0)?;
        let column = |values: &Tensor| values.reshape((1, channels, 1, 1));
        let distance = map.broadcast_sub(&column(&self.mean)?)?.broadcast_mul(&column(&self.scale)?)?;
        let values = distance.sqr()?.mean(1)?;
        Ok(Scores { maps: vec![ScoreMap { name: "gaussian".into(), values }], image: None })
    }
}

impl Artifact for Gaussian {
    fn tag(&self) -> &'static str {
        Self::TAG
    }

    fn write(&self, writer: &mut ArtifactWriter) -> Result<()> {
        writer.section(&self.stride)?;
        writer.tensor("mean", &self.mean)?;
        writer.tensor("scale", &self.scale)
    }

    fn read(reader: &ArtifactReader<'_>) -> Result<Self> {
        let mean = reader.tensor("mean", DType::F32, &[None])?;
        let scale = reader.tensor("scale", DType::F32, &[Some(mean.dim(0)?)])?;
        Ok(Self { stride: reader.section()?, mean, scale })
    }
}

/// Fit and reload a model with a scorer of one's own, on synthetic images.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(|| {
        args.common.apply()?;
        let progress = progress()?;
        let data = demo::dataset()?;
        // A branch of one's own takes the place of those that the configuration names.
        let detector =
            Detector::builder().branch(GaussianFit { stride: 8 }).progress(progress.clone()).fit_folder(&data)?;
        let path = std::path::Path::new(demo::FOLDER).join("own_scorer.masf");
        detector.save(&path)?;

        let registry = default_registry().with_scorer::<Gaussian>(Gaussian::TAG);
        let reloaded = Detector::load_with(&path, &registry, ReadOptions::default())?;
        demo::show_same(&reloaded, &detector, progress.as_ref())?;
        outln!("{} scores the same after reloading", path.display())?;
        Ok(ExitCode::SUCCESS)
    })
}
