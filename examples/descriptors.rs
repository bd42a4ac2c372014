//! Writes the patch descriptors that a memory bank would keep of a folder's good images: `descriptors [N, D]` in a
//! safetensors file, image after image, training images before the good test images. For measuring search and coreset
//! on real vectors (`benches/peers/run search`).

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;

use candle_core::{Device, Tensor};
use clap::Parser;
use masf::core::{FeatureCacheBuilder, Fit as _};
use masf::data::{Dataset, LoadOptions, Loader};
use masf::{BackboneConfig, Config, ImageInput, MemoryBankParams, Reduction, Silent};
use masf_examples::{Common, run};

#[derive(Debug, Parser)]
struct Args {
    /// Folders with train/good and test/good
    #[arg(long, required = true)]
    data: Vec<PathBuf>,
    /// Backbone, a name of the registry
    #[arg(long)]
    backbone: String,
    /// Its weights
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Take every n-th image
    #[arg(long, default_value_t = 1)]
    every: usize,
    /// Project descriptors to so many dimensions
    #[arg(long)]
    dimensions: Option<usize>,
    /// Append spectral anchors
    #[arg(long)]
    anchors: bool,
    /// Descriptors to sample in all
    #[arg(long)]
    count: usize,
    /// File to write
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(|| {
        args.common.apply()?;
        let backbone = BackboneConfig { name: args.backbone.clone(), ..BackboneConfig::default() };
        let config = Config { backbone, ..Config::default() };
        let backbone = masf::open_backbone(&config.backbone, args.weights.as_deref(), &Silent)?;
        let mut images: Vec<ImageInput> = Vec::new();
        for folder in &args.data {
            images.extend(Dataset::training(folder)?.samples.into_iter().map(|sample| sample.path.into()));
        }
        for folder in &args.data {
            let mut good: Vec<_> = std::fs::read_dir(folder.join("test/good"))?.collect::<Result<Vec<_>, _>>()?;
            good.sort_by_key(std::fs::DirEntry::path);
            images.extend(good.into_iter().map(|entry| entry.path().into()));
        }
        let images: Vec<ImageInput> = images.into_iter().step_by(args.every.max(1)).collect();
        let preprocess = config.input.preprocess(backbone.normalisation())?;
        let mut loader = Loader::new(images, preprocess, LoadOptions::default(), &Silent);
        let mut cache = FeatureCacheBuilder::new(256 << 20);
        while let Some(batch) = loader.next_batch(8)? {
            if let Some(tensor) = batch.tensor {
                cache.push(&backbone.extract(&tensor)?)?;
            }
        }
        // A bank with room for all candidates keeps them in their order.
        let params = MemoryBankParams {
            candidates: args.count,
            prototypes: args.count,
            memory_budget: usize::MAX / 4,
            reduction: args.dimensions.map_or(Reduction::None, |dimensions| Reduction::Projection { dimensions }),
            // Anchors that count are part of the rows.
            anchor_weight: if args.anchors { 1.0 } else { 0.0 },
            ..MemoryBankParams::default()
        };
        let bank = params.check()?.fit(&cache.finish()?, &Silent)?;
        let search = bank.search();
        let rows = Tensor::from_slice(search.prototypes(), (search.count(), search.dimensions()), &Device::Cpu)?;
        candle_core::safetensors::save(&HashMap::from([("descriptors".to_owned(), rows)]), &args.out)?;
        println!("{} descriptors of {} dimensions", search.count(), search.dimensions());
        Ok(ExitCode::SUCCESS)
    })
}
