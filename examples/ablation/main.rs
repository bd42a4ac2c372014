//! Turns off one part of the method after the other and measures what remains, over all categories of a folder.
//!
//! ```text
//! cargo run --release --example ablation -- --data DATA --out ablation --backbone mobilenet-v2 --weights FILE.safetensors
//! ```
//!
//! Every row, category and seed is written to a file of its own when it is done; what is there with the same configuration is not
//! measured again, so an interrupted run goes on where it stopped. Students are kept too, and shared by all rows that would train the
//! same one. `table.md` and `table.json` hold the rows, categories and seeds of this run that are done, `reliability.svg` whether false-alarm
//! rates and uncertainties of its row `full` come true.

mod reliability;
mod rows;
mod table;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use masf::data::Dataset;
use masf::{Checkpoints, Config, Detector, Preset, Progress, Size};
use masf_examples::{Common, note, out, progress, run, write_atomically};
use rows::{ROWS, Row};
use serde_json::{Value, json};
use table::Measured;

/// Measure the method with one part off at a time.
#[derive(Parser)]
struct Args {
    /// A folder of categories in the MVTec AD layout
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where results and tables go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The full configuration: a preset
    #[arg(long, value_name = "PRESET", default_value_t = Preset::Accurate, conflicts_with = "config")]
    preset: Preset,
    /// The full configuration: a file
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Feature extractor, as for `train`
    #[arg(long, value_name = "NAME")]
    backbone: Option<String>,
    /// Weights of the backbone
    #[arg(long, value_name = "FILE.safetensors")]
    weights: Option<PathBuf>,
    /// Size that images are resized to
    #[arg(long, value_name = "SIZE")]
    image_size: Option<Size>,
    /// Seeds; rows whose branches learn anew run with the first one only
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1, 2])]
    seeds: Vec<u64>,
    /// Only these rows
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    rows: Vec<String>,
    /// Only these categories
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    categories: Vec<String>,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(|| {
        args.common.apply()?;
        let progress = progress()?;
        let full = args.full()?;
        let rows = args.rows()?;
        for row in &rows {
            let mut config = full.clone();
            (row.change)(&mut config);
            config.check()?;
        }
        let categories = args.categories()?;
        std::fs::create_dir_all(args.out.join("results")).with_context(|| args.out.display().to_string())?;
        let names: Vec<_> = rows.iter().map(|row| (row.name, row.what)).collect();
        let mut measured = Vec::new();
        for row in &rows {
            let seeds = if row.trains_again { &args.seeds[..1] } else { &args.seeds[..] };
            for category in &categories {
                for seed in seeds {
                    let mut config = Config { seed: *seed, ..full.clone() };
                    (row.change)(&mut config);
                    let figures = args.measure(row, category, &config, &progress)?;
                    measured.push(Measured { row: row.name, category: category.clone(), seed: *seed, figures });
                    write_atomically(&args.out.join("table.md"), table::markdown(&names, &measured).as_bytes())?;
                    let document = format!("{:#}\n", table::json(&names, &measured));
                    write_atomically(&args.out.join("table.json"), document.as_bytes())?;
                    if row.name == rows::FULL {
                        let picture = reliability::svg(row.name, &measured);
                        write_atomically(&args.out.join("reliability.svg"), picture.as_bytes())?;
                    }
                }
            }
        }
        out!("{}", table::markdown(&names, &measured))?;
        Ok(ExitCode::SUCCESS)
    })
}

impl Args {
    fn full(&self) -> anyhow::Result<Config> {
        let mut config = Config::choose(self.config.as_deref(), self.preset, self.backbone.as_deref())?;
        if let Some(size) = self.image_size {
            config.input.size = size;
        }
        anyhow::ensure!(!self.seeds.is_empty(), "--seeds is empty; expected at least one");
        Ok(config)
    }

    fn rows(&self) -> anyhow::Result<Vec<&'static Row>> {
        let known = || ROWS.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
        for name in &self.rows {
            anyhow::ensure!(ROWS.iter().any(|row| row.name == name), "--rows {name}: expected some of {}", known());
        }
        Ok(ROWS.iter().filter(|row| self.rows.is_empty() || self.rows.iter().any(|name| name == row.name)).collect())
    }

    /// The sub-folders that are categories, in the order of their names.
    fn categories(&self) -> anyhow::Result<Vec<String>> {
        let entries = std::fs::read_dir(&self.data).with_context(|| self.data.display().to_string())?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| self.data.display().to_string())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_category = entry.path().join("train/good").is_dir() && entry.path().join("test").is_dir();
            if is_category && (self.categories.is_empty() || self.categories.contains(&name)) {
                found.push(name);
            }
        }
        found.sort_unstable();
        if let Some(missing) = self.categories.iter().find(|name| !found.contains(name)) {
            anyhow::bail!("{}: there is no category `{missing}`", self.data.display());
        }
        anyhow::ensure!(!found.is_empty(), "{}: there are no categories", self.data.display());
        Ok(found)
    }

    /// What figures and students come from beside the configuration: the folder of images and the file of weights.
    fn sources(&self) -> (String, Option<String>) {
        let absolute = |path: &Path| {
            let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
            path.to_string_lossy().into_owned()
        };
        (absolute(&self.data), self.weights.as_deref().map(absolute))
    }

    /// Where the student of a configuration is kept, which goes on from what is there.
    fn student(&self, category: &str, config: &Config) -> Checkpoints {
        let mut hasher = DefaultHasher::new();
        let Config { branches, backbone, input, distill, threshold, .. } = config;
        // What else there is decides how much the student drops.
        let mut learned_from = vec![json!(branches), json!(backbone), json!(input), json!(distill)];
        learned_from.extend([json!(threshold), json!(self.sources())]);
        if config.orientations > 1 {
            learned_from.push(json!("discs"));
        }
        Value::Array(learned_from).to_string().hash(&mut hasher);
        let name = format!("{category}-{}-{:016x}", config.seed, hasher.finish());
        let folder = self.out.join("students").join(name);
        let checkpoints = Checkpoints::new(&folder);
        if folder.join("student-calibration.checkpoint").is_file() {
            checkpoints.resume_from(folder)
        } else {
            checkpoints
        }
    }

    /// The figures of a row on a category: from its file if that has this configuration, data and weights, otherwise measured now.
    fn measure(
        &self,
        row: &Row,
        category: &str,
        config: &Config,
        progress: &Arc<dyn Progress>,
    ) -> anyhow::Result<Value> {
        let path = self.out.join("results").join(format!("{}-{category}-{}.json", row.name, config.seed));
        let (data, weights) = self.sources();
        let key = json!([config, data, weights]);
        if let Some(figures) = finished(&path, &key) {
            return Ok(figures);
        }
        progress.check()?;
        note!("{} on {category}, seed {}", row.name, config.seed);
        let data = self.data.join(category);
        let backbone = masf::open_backbone(&config.backbone, self.weights.as_deref(), progress.as_ref())?;
        let good = Dataset::training(&data)?;
        let started = std::time::Instant::now();
        let (detector, report) = Detector::builder()
            .config(config.clone())
            .backbone(backbone)
            .checkpoints(self.student(category, config))
            .progress(progress.clone())
            .fit_with_report(good.samples.iter().map(|sample| &sample.path))?;
        let fit_seconds = started.elapsed().as_secs_f64();
        let evaluation = detector.evaluate(&Dataset::test(&data)?.samples, progress.as_ref())?;
        let mut figures = serde_json::to_value(&evaluation)?;
        figures["fit_seconds"] = json!(fit_seconds);
        figures["precisions"] = json!(report.precisions);
        figures["false_alarms"] = reliability::false_alarms(&detector, &evaluation)?;
        let document = json!({ "configuration": key, "figures": figures });
        write_atomically(&path, format!("{document:#}\n").as_bytes())?;
        Ok(figures)
    }
}

/// The figures of a file that was written with a configuration; none of a file from before there were all of them.
fn finished(path: &Path, configuration: &Value) -> Option<Value> {
    let mut document: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    document.pointer("/figures/false_alarms")?;
    (document.get("configuration")? == configuration).then(|| document["figures"].take())
}
