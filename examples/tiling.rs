//! Small defects in large images: the whole image shrunk to the usual size, against tiles at its own resolution.
//!
//! ```text
//! cargo run --release --example tiling
//! ```
//!
//! The backbone sees overlapping tiles, and their features are put together without seams; everything after it works on the whole image.
//! `train --image-size 768 --tile 256` does the same with images of your own.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use masf::data::Dataset;
use masf::data::synthetic::{SyntheticConfig, write_dataset};
use masf::{Config, Detector, Size};
use masf_examples::{Common, demo, outln, progress, run};

/// Compare shrunk images with tiles.
#[derive(Parser)]
struct Args {
    /// Side of the images in pixels
    #[arg(long, default_value_t = 768)]
    side: u32,
    /// Side of a tile, a multiple of 16
    #[arg(long, default_value_t = 256)]
    tile: u32,
    /// Good images to learn from
    #[arg(long, default_value_t = 8)]
    images: usize,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(|| {
        args.common.apply()?;
        let progress = progress()?;
        let data = Path::new(demo::FOLDER).join(format!("large-{}-{}", args.side, args.images));
        let set = SyntheticConfig {
            size: Size::square(args.side),
            train: args.images,
            test_good: 4,
            test_per_kind: 2,
            ..SyntheticConfig::default()
        };
        write_dataset(&data, &set)?;
        let (good, test) = (Dataset::training(&data)?, Dataset::test(&data)?);

        let mut shrunk = Config::default();
        shrunk.input.size = Size::square(256);
        let mut tiled = Config::default();
        tiled.input.size = Size::square(args.side);
        tiled.input.tile = Some(Size::square(args.tile));
        tiled.input.tile_overlap = 64;
        for (name, config) in [("shrunk to 256 x 256", shrunk), ("tiles at full size", tiled)] {
            let detector = Detector::builder()
                .config(config)
                .progress(progress.clone())
                .fit(good.samples.iter().map(|sample| &sample.path))?;
            let measured = detector.evaluate(&test.samples, progress.as_ref())?;
            outln!("== {name}\n\n{measured}")?;
        }
        Ok(ExitCode::SUCCESS)
    })
}
