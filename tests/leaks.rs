//! What inspections leave behind: the bytes that are held after many of them are those that are held after a few. Resident memory over
//! 20,000 inspections is measured by the example `soak`; this counts what is allocated and not given back, which no allocator hides.

use image::{Rgb, RgbImage};
use masf::{Config, Detector, Result};
use masf_tests::training_images;

#[allow(dead_code, reason = "its bounds are for the attacks")]
#[path = "attacks/measure.rs"]
mod measure;

#[global_allocator]
static ALLOCATOR: measure::Counting = measure::Counting;

/// What the pools of threads may keep, whatever is done. One map of the smallest model is 16 KiB, and 96 images are inspected.
const NOISE: usize = 64 << 10;

/// The bytes that some work leaves behind every time: a pool grows once, when two threads first need something at the same moment, a leak always.
fn growth(work: impl Fn()) -> usize {
    let mut least = usize::MAX;
    for _ in 0..3 {
        let before = measure::live();
        work();
        least = least.min(measure::live().saturating_sub(before));
        if least <= NOISE {
            break;
        }
    }
    least
}

/// Inspects images of four sizes, and bytes that are none; asks for a batch too.
fn round(detector: &Detector, folder: &std::path::Path) {
    let image = |(width, height): (u32, u32)| {
        RgbImage::from_fn(width, height, |x, y| Rgb([(x * 7) as u8, (y * 5) as u8, (x * y) as u8]))
    };
    for size in [(64, 64), (96, 64), (50, 70), (128, 128)] {
        let found = detector.inspect(image(size)).expect("it can be inspected");
        assert!(found.image_score.is_finite());
    }
    let batch = [(64, 64), (65, 64), (70, 40), (64, 64), (31, 64), (64, 128), (90, 90)].map(image);
    assert!(detector.inspect_batch(batch).iter().all(|found| found.is_ok()));
    assert!(detector.inspect(folder.join("no_image.png")).is_err());
}

#[test]
fn inspections_give_back_what_they_take() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("no_image.png"), b"\x89PNG\r\n\x1a\n and no more").expect("written");
    let kinds = [
        ("bank", ""),
        (
            "bank and student, views",
            "branches = ['memory', 'distill']\n[distill]\nwidth = 32\nbottleneck = 32\ndepth = 1\nepochs = 1\n[views]\nnoise = 1\nshifts = 1\nmargin = 8",
        ),
        ("graph", "memory.search = { hnsw = {} }"),
        ("tiles", "input = { tile = 64, tile_overlap = 16 }"),
        ("scattering", "backbone.name = 'scattering'"),
    ];
    for (name, text) in kinds {
        let mut config = Config::from_toml(text)?;
        config.threshold.folds = Some(2);
        let side = if name == "tiles" { 128 } else { 64 };
        (config.input.size, config.memory.candidates, config.memory.prototypes) = (masf::Size::square(side), 500, 60);
        let path = folder.path().join("model.masf");
        Detector::builder().config(config).fit(&training_images()?[..6])?.save(&path)?;

        let detector = Detector::load(&path)?;
        (0..3).for_each(|_| round(&detector, folder.path()));
        let grown = growth(|| (0..8).for_each(|_| round(&detector, folder.path())));
        assert!(grown <= NOISE, "{name}: 96 inspections left {grown} bytes behind");

        drop(detector);
        let before = measure::live();
        for _ in 0..4 {
            let detector = Detector::load(&path)?;
            round(&detector, folder.path());
        }
        let grown = measure::live().saturating_sub(before);
        assert!(grown <= NOISE, "{name}: 4 detectors that are gone left {grown} bytes behind");
    }
    Ok(())
}
