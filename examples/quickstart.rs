//! The whole job in one go, offline and without any file: makes a small synthetic inspection set, learns from its good
//! images, measures the model on the rest, and writes heat maps.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use masf::data::synthetic::{SyntheticConfig, write_dataset};
use masf::data::{Dataset, Limits, read_image};
use masf::report::Gallery;
use masf::{Config, Detector, heatmap};
use masf_examples::{Common, out, outln, png, progress, run, write_atomically};

/// Fit, measure and inspect on a synthetic inspection set.
#[derive(Parser)]
struct Args {
    /// Where images, model, metrics and heat maps go
    #[arg(long, value_name = "DIR", default_value = "target/quickstart")]
    out: PathBuf,
    /// Seed of the images and of the model
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
        let started = Instant::now();

        let data = args.out.join("data");
        write_dataset(&data, &SyntheticConfig { seed: args.seed, ..SyntheticConfig::default() })?;

        let good = Dataset::training(&data)?;
        let detector = Detector::builder()
            .config(Config { seed: args.seed, ..Config::default() })
            .progress(progress.clone())
            .fit(good.samples.iter().map(|sample| &sample.path))?;
        detector.save(args.out.join("model.masf"))?;

        let test = Dataset::test(&data)?;
        let mut gallery = Gallery::new();
        let evaluation = detector.evaluate_each(&test.samples, progress.as_ref(), |found| gallery.add(&found))?;
        out!("{evaluation}")?;
        write_atomically(&args.out.join("metrics.json"), serde_json::to_string_pretty(&evaluation)?.as_bytes())?;
        let page = masf::report::html("Quickstart", &detector, &evaluation, &gallery)?;
        write_atomically(&args.out.join("report.html"), page.as_bytes())?;
        let mut table =
            String::from("| image | kind | normalised score | verdict | regions |\n|---|---|---|---|---|\n");
        for sample in &test.samples {
            let found = detector.inspect(&sample.path)?;
            let place = sample.path.strip_prefix(data.join("test")).unwrap_or(&sample.path);
            let verdict = if found.is_anomalous { "anomalous" } else { "normal" };
            let (score, regions) = (found.normalised_score, found.regions.len());
            writeln!(table, "| {} | {} | {score:.3} | {verdict} | {regions} |", place.display(), sample.kind)?;
            let target = args.out.join("heatmaps").join(place);
            if let Some(folder) = target.parent() {
                std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
            }
            let picture = heatmap::render(&read_image(&sample.path, &Limits::default())?, &found);
            write_atomically(&target, &png(&picture)?)?;
        }
        write_atomically(&args.out.join("images.md"), table.as_bytes())?;
        outln!(
            "\n{:.1} s; report.html, heat maps, tables and the model are in {}",
            started.elapsed().as_secs_f64(),
            args.out.display()
        )?;
        Ok(ExitCode::SUCCESS)
    })
}
