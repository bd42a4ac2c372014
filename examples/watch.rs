//! Watches a folder and inspects every image that appears in it: one line of JSON an image, until Ctrl-C.
//!
//! ```text
//! cargo run --release --example watch -- --model part.masf --heatmaps maps incoming
//! ```
//!
//! A file that is still being written is left alone: it is inspected once its size and time of change have stayed the same from one look
//! to the next and it decodes as a whole. One that stays broken for `--patience` seconds is reported. A file that changes later is
//! inspected again. A heat map that cannot be written is the `heatmap_error` of its line. Where nobody reads standard output any more, files
//! are written all the same; without any the program ends. Without a folder, synthetic images arrive in
//! `target/demo/incoming`, each in two halves.

use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use clap::Parser;
use image::DynamicImage;
use masf::data::layout::EXTENSIONS;
use masf::data::{ImageInput, Limits, read_image};
use masf::{Detector, Inspection};
use masf_examples::demo::{self, OptionalModel};
use masf_examples::{
    Common, as_json_of, describe, note, outln, output_is_closed, png, progress, run, write_atomically,
};
use serde_json::json;

/// Inspect the images that appear in a folder.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: OptionalModel,
    /// Append the lines to this file too
    #[arg(long, value_name = "OUT.jsonl")]
    out: Option<PathBuf>,
    /// Write heat maps to this folder
    #[arg(long, value_name = "DIR")]
    heatmaps: Option<PathBuf>,
    /// Seconds between two looks at the folder
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5)]
    interval: f64,
    /// Seconds that a file which cannot be read may stay unchanged before it is reported
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    patience: f64,
    /// Inspect the images that are in the folder already
    #[arg(long)]
    existing: bool,
    /// End after this many lines
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    #[command(flatten)]
    common: Common,
    /// The folder; what lies in folders below it is not looked at [default: one in which synthetic images arrive]
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// What tells that a file has changed.
type Stamp = (u64, Option<SystemTime>);

/// A file that has been seen.
struct Seen {
    stamp: Stamp,
    since: Instant,
    done: bool,
}

fn main() -> ExitCode {
    let Args { model, out, heatmaps, interval, patience, existing, mut count, common, folder } = Args::parse();
    run(|| {
        common.apply()?;
        let interval = seconds("--interval", interval)?;
        let patience = seconds("--patience", patience)?;
        let progress = progress()?;
        let mut out = out.map(|path| append_to(&path)).transpose()?;
        // What comes while the model loads is new.
        let present = folder.as_deref().filter(|_| !existing).map_or(Ok(Vec::new()), images)?;
        let passed_over = |(path, stamp)| (path, Seen { stamp, since: Instant::now(), done: true });
        let mut seen: HashMap<PathBuf, Seen> = present.into_iter().map(passed_over).collect();
        let detector = model.load()?;
        let folder = match folder {
            Some(folder) => folder,
            None => {
                count = count.or(Some(6));
                arriving(count.unwrap_or_default())?
            }
        };
        if let Some(to) = &heatmaps {
            std::fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
            let same = to.canonicalize().ok() == folder.canonicalize().ok();
            anyhow::ensure!(!same, "--heatmaps {} is watched: heat maps would be inspected", to.display());
        }
        let mut left = count.unwrap_or(usize::MAX);
        note!("watching {}; Ctrl-C ends it", folder.display());
        if !seen.is_empty() {
            note!("note: passed over {} images that are there already; --existing inspects them", seen.len());
        }
        let mut hidden_since = None;
        while left > 0 && !progress.is_cancelled() {
            let started = Instant::now();
            let wait = || {
                while started.elapsed() < interval && !progress.is_cancelled() {
                    std::thread::sleep(Duration::from_millis(20).min(interval));
                }
            };
            let present = match images(&folder) {
                Ok(present) => present,
                // A share may be back in a moment.
                Err(_) if hidden_since.get_or_insert(started).elapsed() < patience => {
                    wait();
                    continue;
                }
                Err(error) => return Err(error),
            };
            hidden_since = None;
            seen.retain(|path, _| present.binary_search_by(|(other, _)| other.cmp(path)).is_ok());
            for (path, stamp) in present {
                let file = seen.entry(path.clone()).or_insert(Seen { stamp, since: started, done: false });
                if file.stamp != stamp {
                    *file = Seen { stamp, since: started, done: false };
                }
                // A file that has just been seen for the first time may be growing.
                if file.done || file.since == started {
                    continue;
                }
                let line = match inspect(&detector, &path) {
                    Ok((image, found)) => {
                        let mut line = as_json_of(&path, &found);
                        if let Some(to) = &heatmaps
                            && let Err(error) = draw(&path, &image, &found, to)
                        {
                            line["heatmap_error"] = describe(&error).into();
                        }
                        line
                    }
                    // The rest may be on its way.
                    Err(_) if file.since.elapsed() < patience => continue,
                    Err(error) => json!({ "path": path.to_string_lossy(), "error": describe(&error) }),
                };
                file.done = true;
                if let Some(out) = &mut out {
                    write_line(out, &line).context("cannot write to the file of --out")?;
                }
                outln!("{line}")?;
                if output_is_closed() && out.is_none() && heatmaps.is_none() {
                    return Ok(ExitCode::SUCCESS);
                }
                left -= 1;
                if left == 0 || progress.is_cancelled() {
                    break;
                }
            }
            if left > 0 {
                wait();
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn seconds(name: &str, value: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(value).with_context(|| format!("{name} is {value}; expected seconds, 0 or more"))
}

/// The images of the folder, sorted by name, with their stamps; a file that vanishes meanwhile is left out.
fn images(folder: &Path) -> anyhow::Result<Vec<(PathBuf, Stamp)>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot look into {}", folder.display()))?;
    let stamp = |metadata: Metadata| (metadata.len(), metadata.modified().ok());
    let mut images: Vec<(PathBuf, Stamp)> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.extension().is_some_and(|end| EXTENSIONS.iter().any(|known| end.eq_ignore_ascii_case(known)))
        })
        .filter(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')))
        .filter_map(|path| {
            let metadata = std::fs::metadata(&path).ok().filter(Metadata::is_file)?;
            Some((path, stamp(metadata)))
        })
        .collect();
    images.sort();
    Ok(images)
}

fn append_to(path: &Path) -> anyhow::Result<File> {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let file = made.and_then(|()| OpenOptions::new().create(true).append(true).open(path));
    file.with_context(|| format!("cannot write to {}", path.display()))
}

fn write_line(target: &mut File, line: &serde_json::Value) -> std::io::Result<()> {
    target.write_all(format!("{line}\n").as_bytes())?;
    target.flush()
}

/// Inspects a file, which may be gone afterwards: its image is handed back.
fn inspect(detector: &Detector, path: &Path) -> anyhow::Result<(Arc<DynamicImage>, Inspection)> {
    let image = Arc::new(read_image(path, &Limits::default())?);
    let found = detector.inspect(ImageInput::Image(image.clone()))?;
    Ok((image, found))
}

fn draw(path: &Path, image: &DynamicImage, found: &Inspection, folder: &Path) -> anyhow::Result<()> {
    let mut target = folder.join(path.file_name().unwrap_or_default());
    target.as_mut_os_string().push(".png");
    write_atomically(&target, &png(&masf::heatmap::render(image, found))?)
}

/// A folder in which test images of the synthetic set arrive one after the other, each in two halves, as a slow network would bring them.
fn arriving(count: usize) -> anyhow::Result<PathBuf> {
    let folder = Path::new(demo::FOLDER).join("incoming");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let samples = masf::data::Dataset::test(demo::dataset()?)?.samples;
    // Good and defective ones in turn.
    let step = samples.len() / 2 + 1;
    let chosen: Vec<_> = (0..count).map(|n| (n, samples[n * step % samples.len()].clone())).collect();
    let target = folder.clone();
    std::thread::spawn(move || -> std::io::Result<()> {
        for (number, sample) in chosen {
            let content = std::fs::read(&sample.path)?;
            let (start, rest) = content.split_at(content.len() / 2);
            let mut file = File::create(target.join(format!("{number:03}-{}.png", sample.kind)))?;
            for part in [start, rest] {
                file.write_all(part)?;
                file.flush()?;
                std::thread::sleep(Duration::from_millis(700));
            }
        }
        Ok(())
    });
    Ok(folder)
}

/// One detector serves many threads, so a program may well inspect while it watches.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Detector>();
};
