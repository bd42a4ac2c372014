//! Writes the patch descriptors of a folder's images to a safetensors file, for plots and for the comparisons in `benches/peers`.
//!
//! ```text
//! cargo run --release --example descriptors -- --data bottle --backbone resnet50-v2 --weights FILE --dimensions 384 --out coreset.safetensors
//! ```
//!
//! Tensors, one row per patch, images in order: `descriptors [N, D]` and the spectral `anchors [N, A]`, both f32. With `--maps` it writes
//! the feature maps themselves instead, for every stride: `maps8 [images, C, h, w]` and so on, f16; the
//! channels of levels of one stride lie side by side.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use candle_core::{Device, Tensor, safetensors};
use clap::Parser;
use masf::core::FeaturePyramid;
use masf::data::{Dataset, LoadOptions, Loader};
use masf::{BackboneConfig, Config, Size};
use masf_examples::{Common, add_maps, outln, prepare_model, progress, run};
use masf_memory::{LinearMap, PatchEmbedding, SpectralAnchors};

/// Write patch descriptors.
#[derive(Parser)]
struct Args {
    /// A category in the MVTec AD layout, or a folder of images
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The file that is written
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// Backbone, a name of the registry
    #[arg(long, default_value = "masf-nano")]
    backbone: String,
    /// Its weights
    #[arg(long, value_name = "FILE.safetensors")]
    weights: Option<PathBuf>,
    /// Levels that make up a descriptor
    #[arg(long, value_delimiter = ',', default_values_t = [8, 16])]
    strides: Vec<usize>,
    /// Size that images are resized to
    #[arg(long, default_value = "256")]
    image_size: Size,
    /// Dimensions of a seeded random projection of the descriptors; 0 leaves them as they are
    #[arg(long, default_value_t = 0)]
    dimensions: usize,
    /// Write the feature maps instead
    #[arg(long, conflicts_with = "dimensions")]
    maps: bool,
    /// Most images that are read [default: all]
    #[arg(long)]
    images: Option<usize>,
    #[command(flatten)]
    common: Common,
}

impl Args {
    /// What makes descriptors, anchors and, if wanted, shorter descriptors of pyramids like one.
    fn maker(
        &self,
        pyramid: &FeaturePyramid,
        config: &Config,
    ) -> anyhow::Result<(PatchEmbedding, SpectralAnchors, Option<LinearMap>)> {
        let embedding = PatchEmbedding::of_pyramid(pyramid, &self.strides, config.memory.neighbourhood)?;
        let ring = SpectralAnchors::random(&embedding, config.memory.anchor_channels, config.seed)?;
        let random = || LinearMap::random(embedding.dimensions(), self.dimensions, config.seed, "descriptors");
        let projection = (self.dimensions > 0).then(random).transpose()?;
        Ok((embedding, ring, projection))
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(|| {
        args.common.apply()?;
        let progress = progress()?;
        let backbone =
            BackboneConfig { name: args.backbone.clone(), strides: args.strides.clone(), ..Default::default() };
        let mut config = Config { backbone, ..Config::default() };
        config.input.size = args.image_size;
        config.check()?;
        prepare_model(&args.out)?;
        let backbone = masf::open_backbone(&config.backbone, args.weights.as_deref(), progress.as_ref())?;
        let images = Dataset::training(&args.data)?
            .samples
            .into_iter()
            .take(args.images.unwrap_or(usize::MAX))
            .map(|sample| sample.path);
        let images: Vec<PathBuf> = images.collect();
        progress.start("descriptors", images.len() as u64);
        let preprocess = config.preprocess(backbone.normalisation())?;
        let mut loader = Loader::new(images, preprocess, LoadOptions::default(), progress.as_ref());
        let mut maps: BTreeMap<String, Vec<Tensor>> = BTreeMap::new();
        let (mut rows, mut anchors, mut count, mut maker) = (Vec::new(), Vec::new(), 0, None);
        while let Some(batch) = loader.next_batch(8)? {
            if let Some(failed) = batch.failed.into_iter().next() {
                return Err(failed.error.into());
            }
            let Some(tensor) = batch.tensor else { continue };
            let pyramid = backbone.extract(&tensor)?;
            if args.maps {
                add_maps(&mut maps, &pyramid)?;
                count += pyramid.batch_size();
                continue;
            }
            let (embedding, ring, projection) = match &mut maker {
                Some(maker) => maker,
                none => none.insert(args.maker(&pyramid, &config)?),
            };
            let patches = embedding.open(&pyramid)?;
            let positions: Vec<usize> = (0..patches.positions()).collect();
            for image in 0..patches.batch_size() {
                let mut described = vec![0.0; positions.len() * embedding.dimensions()];
                patches.describe(image, &positions, &mut described)?;
                if let Some(projection) = projection {
                    described = projection.apply(&described)?;
                }
                rows.extend(described);
                anchors.extend(ring.describe(&pyramid, image)?);
                count += positions.len();
            }
        }
        progress.finish();
        anyhow::ensure!(count > 0, "{}: no image was read", args.data.display());
        let mut tensors = HashMap::new();
        if args.maps {
            outln!("maps of {count} images")?;
            for (name, maps) in maps {
                tensors.insert(name, Tensor::cat(&maps, 0)?);
            }
        } else {
            let rows = Tensor::from_vec(rows, (count, ()), &Device::Cpu)?;
            let anchors = Tensor::from_vec(anchors, (count, ()), &Device::Cpu)?;
            outln!("{count} descriptors of {} dimensions, anchors of {}", rows.dim(1)?, anchors.dim(1)?)?;
            tensors.extend([("descriptors".to_owned(), rows), ("anchors".to_owned(), anchors)]);
        }
        masf::core::replace_file(&args.out, |temporary| {
            safetensors::save(&tensors, temporary).map_err(std::io::Error::other)
        })
        .with_context(|| format!("cannot write {}", args.out.display()))?;
        Ok(ExitCode::SUCCESS)
    })
}
