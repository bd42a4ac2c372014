//! A backbone of one's own: anything that turns images into maps of features can take the place of a network.
//!
//! ```text
//! cargo run --release --example own_backbone
//! ```
//!
//! This one has no weights: means and deviations of colours, and mean gradients, over squares. It fits, inspects, is saved and loaded
//! like masf's own.

use std::process::ExitCode;

use candle_core::{D, Tensor};
use clap::Parser;
use masf::core::{Artifact, ArtifactReader, ArtifactWriter, FeatureLevel, FeaturePyramid, LevelSpec, Normalisation};
use masf::{Detector, Error, FeatureExtractor, ReadOptions, Result, default_registry};
use masf_examples::{Common, demo, outln, progress, run};

/// Statistics of colour and gradient over squares.
struct LocalStatistics {
    levels: Vec<LevelSpec>,
}

/// Mean of R, G, B; their deviations; mean absolute differences across and down.
const CHANNELS: usize = 8;

impl LocalStatistics {
    const TAG: &'static str = "example.local-statistics";

    fn new(strides: &[usize]) -> Result<Self> {
        if strides.is_empty() || strides.contains(&0) || !strides.is_sorted() {
            return Err(Error::argument("strides", format!("{strides:?}"), "ascending numbers of pixels, above 0"));
        }
        Ok(Self { levels: strides.iter().map(|&stride| LevelSpec { stride, channels: CHANNELS }).collect() })
    }
}

impl FeatureExtractor for LocalStatistics {
    fn levels(&self) -> &[LevelSpec] {
        &self.levels
    }

    fn normalisation(&self) -> Normalisation {
        Normalisation::SYMMETRIC
    }

    fn name(&self) -> &str {
        "local-statistics"
    }

    fn extract(&self, images: &Tensor) -> Result<FeaturePyramid> {
        let (_, _, height, width) = images.dims4()?;
        let coarsest = self.levels.iter().map(|level| level.stride).max().unwrap_or(1);
        if height < coarsest || width < coarsest {
            return Err(Error::data(
                "image",
                format!("is {height} x {width}; at least {coarsest} x {coarsest} is needed"),
            ));
        }
        let grey = images.mean_keepdim(1)?;
        // Differences to the next pixel; the last row and column have none.
        let next = |axis, length| grey.narrow(axis, 1, length - 1)?.sub(&grey.narrow(axis, 0, length - 1)?)?.abs();
        let across = next(3, width)?.pad_with_zeros(D::Minus1, 0, 1)?;
        let down = next(2, height)?.pad_with_zeros(D::Minus2, 0, 1)?;
        let squares = images.sqr()?;
        let mut levels = Vec::with_capacity(self.levels.len());
        for &spec in &self.levels {
            let mean = images.avg_pool2d(spec.stride)?;
            // Rounding can make a variance slightly negative.
            let deviation = (squares.avg_pool2d(spec.stride)? - mean.sqr()?)?.relu()?.sqrt()?;
            let gradients = [across.avg_pool2d(spec.stride)?, down.avg_pool2d(spec.stride)?];
            let map = Tensor::cat(&[&mean, &deviation, &gradients[0], &gradients[1]], 1)?;
            levels.push(FeatureLevel { spec, map });
        }
        FeaturePyramid::new(levels, (height, width))
    }
}

/// How it is written to a model file: its strides are all that it is made of.
impl Artifact for LocalStatistics {
    fn tag(&self) -> &'static str {
        Self::TAG
    }

    fn write(&self, writer: &mut ArtifactWriter) -> Result<()> {
        let strides: Vec<usize> = self.levels.iter().map(|level| level.stride).collect();
        writer.section(&strides)
    }

    fn read(reader: &ArtifactReader<'_>) -> Result<Self> {
        let strides: Vec<usize> = reader.section()?;
        Self::new(&strides).map_err(|error| reader.invalid(error.to_string()))
    }
}

/// Fit and reload a model with a backbone of one's own, on synthetic images.
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
        let detector = Detector::builder()
            .backbone(LocalStatistics::new(&[8, 16])?)
            .progress(progress.clone())
            .fit_folder(&data)?;
        let path = std::path::Path::new(demo::FOLDER).join("own_backbone.masf");
        detector.save(&path)?;

        // Reading needs to know who reads what the tag names.
        let registry = default_registry().with_backbone::<LocalStatistics>(LocalStatistics::TAG);
        let reloaded = Detector::load_with(&path, &registry, ReadOptions::default())?;
        demo::show_same(&reloaded, &detector, progress.as_ref())?;
        outln!("{} scores the same after reloading", path.display())?;
        Ok(ExitCode::SUCCESS)
    })
}
