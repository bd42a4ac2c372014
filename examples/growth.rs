//! How the memory bank's fit grows with the number of images: features are extracted once, and the bank learns from them `times`
//! over, each time flipped, shifted and noised differently.
//!
//! ```text
//! for times in 1 4 16; do cargo run --release --example growth -- --data magnetic_tile --backbone mobilenet-v2 --weights FILE --times $times; done
//! ```

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use masf::core::{FeatureCache, FeatureCacheBuilder, FeatureLevel, FeaturePyramid, Fit as _, PyramidSource};
use masf::data::{Dataset, LoadOptions, Loader};
use masf::{BackboneConfig, ByteSize, Config, MemoryBankParams, Silent};
use masf_examples::{Common, memory, outln, run};

/// Measure the fit of a memory bank on repeated images.
#[derive(Parser)]
struct Args {
    /// A category in the MVTec AD layout, or a folder of defect-free images
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Backbone, a name of the registry
    #[arg(long)]
    backbone: String,
    /// Its weights
    #[arg(long)]
    weights: Option<PathBuf>,
    /// How often the images are repeated
    #[arg(long, default_value_t = 1)]
    times: usize,
    /// The bank's share of memory
    #[arg(long, default_value = "256MiB")]
    memory_budget: ByteSize,
    #[command(flatten)]
    common: Common,
}

/// The images of a cache, again and again.
struct Repeated {
    cache: FeatureCache,
    times: usize,
}

impl PyramidSource for Repeated {
    fn len(&self) -> usize {
        self.cache.len() * self.times
    }

    fn batch(&self, indices: &[usize]) -> masf::Result<FeaturePyramid> {
        let mut parts: Vec<FeaturePyramid> = Vec::with_capacity(indices.len());
        for index in indices {
            let pyramid = self.cache.batch(&[index % self.cache.len()])?;
            parts.push(altered(&pyramid, index / self.cache.len())?);
        }
        FeaturePyramid::cat(&parts)
    }
}

/// The same features for repeat 0; flipped, shifted and scaled ones after.
fn altered(pyramid: &FeaturePyramid, repeat: usize) -> masf::Result<FeaturePyramid> {
    let mut levels = Vec::with_capacity(pyramid.levels().len());
    let coarsest = pyramid.levels().iter().map(|level| level.spec.stride).max().unwrap_or(1);
    for level in pyramid.levels() {
        let mut map = level.map.clone();
        if repeat % 2 == 1 {
            map = map.contiguous()?.flip(&[3])?;
        }
        let shift = repeat / 2 * coarsest / level.spec.stride;
        let (height, width) = (map.dim(2)?, map.dim(3)?);
        map = map.roll((shift % height) as i32, 2)?.roll((shift / 2 % width) as i32, 3)?;
        levels.push(FeatureLevel { spec: level.spec, map: (map * (1.0 + 0.01 * repeat as f64))? });
    }
    FeaturePyramid::new(levels, pyramid.input_size())
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(|| {
        args.common.apply()?;
        let backbone = BackboneConfig { name: args.backbone.clone(), ..BackboneConfig::default() };
        let config = Config { backbone, ..Config::default() };
        let backbone = masf::open_backbone(&config.backbone, args.weights.as_deref(), &Silent)?;
        let preprocess = config.preprocess(backbone.normalisation())?;
        let images = Dataset::training(&args.data)?;
        let paths: Vec<PathBuf> = images.samples.into_iter().map(|sample| sample.path).collect();
        let mut loader = Loader::new(paths, preprocess, LoadOptions::default(), &Silent);
        // Features lie in a file, as they do where they are many.
        let mut cache = FeatureCacheBuilder::new(0);
        while let Some(batch) = loader.next_batch(8)? {
            if let Some(failed) = batch.failed.into_iter().next() {
                return Err(failed.error.into());
            }
            if let Some(tensor) = batch.tensor {
                cache.push(&backbone.extract(&tensor)?)?;
            }
        }
        let source = Repeated { cache: cache.finish()?, times: args.times };
        drop((loader, backbone));
        memory::forget_peak();
        let started = Instant::now();
        let params = MemoryBankParams { memory_budget: args.memory_budget.0, ..MemoryBankParams::default() };
        let bank = params.check()?.fit(&source, &Silent)?;
        outln!(
            "{} images: {:.1} s, peak {:.0} MiB, {} prototypes of {}",
            source.len(),
            started.elapsed().as_secs_f64(),
            memory::peak().unwrap_or(0) as f64 / f64::from(1 << 20),
            bank.search().count(),
            bank.search().dimensions(),
        )?;
        Ok(ExitCode::SUCCESS)
    })
}
