//! Inspects procedural images for a long time: does memory grow, and how long does the slowest inspection take?
//!
//! ```text
//! cargo run --release --example soak -- --inspections 20000
//! ```
//!
//! A model is learned from good images of a synthetic set, saved and loaded again; then images that are made in memory, half of them
//! with a defect, are inspected one by one. Resident memory is sampled (Linux); its slope over the inspections is that of the least-squares
//! line, after a warm-up. Ctrl-C stops and prints what there is.
//!
//! Where the kernel has transparent huge pages it puts small pages together some minutes into a run, the gaps between them included: resident
//! memory rises once, by a third or so, and stays. That is no growth of what is allocated; `MIMALLOC_ALLOW_THP=0` in the environment leaves it out.
//!
//! Exit code 0: memory grew no faster than the limit; 1: it did, or something failed.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use image::RgbImage;
use masf::data::synthetic::{Split, SyntheticConfig, SyntheticSet};
use masf::{Config, Detector};
use masf_examples::{Common, memory, note, outln, progress, quantile, run};

/// Inspect procedural images for a long time and watch memory and latency.
#[derive(Parser)]
struct Args {
    /// Inspections
    #[arg(long, default_value_t = 20_000)]
    inspections: usize,
    /// Inspections before memory is watched: caches and the allocator's pools fill up
    #[arg(long, default_value_t = 1_000)]
    warm_up: usize,
    /// Inspections between two samples of memory
    #[arg(long, default_value_t = 50)]
    sample_every: usize,
    /// Largest slope of resident memory that is no failure, in bytes per 1000 inspections
    #[arg(long, default_value_t = 64 * 1024)]
    most_growth: u64,
    /// Seed of the images
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(|| {
        args.common.apply()?;
        anyhow::ensure!(args.sample_every > 0, "--sample-every is 0; expected at least 1");
        let progress = progress()?;
        let detector = learned(args.seed)?;
        let mut images = (1..).flat_map(|step| pictures(args.seed.wrapping_add(step)));
        let mut next = || images.next().context("the images have come to an end");
        let first = next()?;
        let expected = detector.inspect(first.clone())?;

        let mut samples: Vec<(f64, f64)> = Vec::new();
        let mut latencies = Vec::with_capacity(args.inspections);
        let started = Instant::now();
        progress.start("inspecting", args.inspections as u64);
        while latencies.len() < args.inspections && !progress.is_cancelled() {
            let image = next()?;
            let begun = Instant::now();
            let found = detector.inspect(image)?;
            latencies.push(begun.elapsed());
            anyhow::ensure!(found.image_score.is_finite(), "inspection {} gave no number", latencies.len());
            if latencies.len() % args.sample_every == 0 {
                progress.step(args.sample_every as u64);
                if latencies.len() > args.warm_up {
                    samples.extend(memory::resident().map(|bytes| (latencies.len() as f64, bytes as f64)));
                }
            }
        }
        progress.finish();
        let took = started.elapsed();
        let again = detector.inspect(first)?;
        anyhow::ensure!(
            again.image_score.to_bits() == expected.image_score.to_bits() && again.anomaly_map == expected.anomaly_map,
            "the first image has another score after {} inspections",
            latencies.len()
        );

        if progress.is_cancelled() {
            note!("stopped after {} of {} inspections", latencies.len(), args.inspections);
        }
        outln!("inspections       {} in {:.1} s, making the images included", latencies.len(), took.as_secs_f64())?;
        latencies.sort_unstable();
        for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("longest", 1.0)] {
            let latency = quantile(&latencies, share);
            outln!("{name:<17} {:.2} ms", latency.as_secs_f64() * 1e3)?;
        }
        let Some((slope, error)) = slope(&samples) else {
            outln!("resident memory   not known: fewer than 3 samples after {} inspections", args.warm_up)?;
            return Ok(ExitCode::SUCCESS);
        };
        let (slope, error) = (slope * 1000.0, error * 1000.0);
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        let (least, most) =
            samples.iter().fold((f64::MAX, 0f64), |(least, most), (_, bytes)| (least.min(*bytes), most.max(*bytes)));
        outln!("resident memory   {:.1} to {:.1} MiB in {} samples", mib(least), mib(most), samples.len())?;
        outln!("slope             {slope:.0} bytes per 1000 inspections (standard error {error:.0})")?;
        if slope > args.most_growth as f64 {
            note!(
                "memory grows by {slope:.0} bytes per 1000 inspections; the limit is {}. Huge pages count too: try again with \
                 MIMALLOC_ALLOW_THP=0 in the environment",
                args.most_growth
            );
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// A detector with default settings, saved and loaded.
fn learned(seed: u64) -> anyhow::Result<Detector> {
    let set =
        SyntheticSet::new(SyntheticConfig { seed, test_good: 0, test_per_kind: 0, ..SyntheticConfig::default() })?;
    let good = set.iter().filter(|picture| picture.split == Split::Train).map(|picture| picture.image);
    let detector = Detector::builder().config(Config::default()).fit(good)?;
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let path = folder.path().join("model.masf");
    detector.save(&path)?;
    Ok(Detector::load(&path)?)
}

/// The test images of a seed: four good ones, and one with each kind of defect.
fn pictures(seed: u64) -> Vec<RgbImage> {
    let config = SyntheticConfig { seed, train: 0, test_good: 4, test_per_kind: 1, ..SyntheticConfig::default() };
    // The configuration is within its ranges.
    SyntheticSet::new(config).map(|set| set.iter().map(|picture| picture.image).collect()).unwrap_or_default()
}

/// Slope of the least-squares line through points, and its standard error; `None` for fewer than three.
fn slope(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    if points.len() < 3 {
        return None;
    }
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let slope = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / spread;
    let rest: f64 = points.iter().map(|point| (point.1 - y - slope * (point.0 - x)).powi(2)).sum();
    Some((slope, (rest / (count - 2.0) / spread).sqrt()))
}
