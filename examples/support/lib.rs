//! What the examples share: the allocator, progress with Ctrl-C, options of the command line, how errors and results are
//! written, and what they work on where nothing is given.

pub mod demo;
pub mod memory;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use candle_core::{DType, Tensor};
use masf::Progress;
use masf::core::FeaturePyramid;
use masf::data::{DataError, Dataset, Layout, Sample};
use masf::progress::TerminalProgress;

/// Large tensors come and go on every image; a pooling allocator spares the page faults.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Progress on the terminal, stopped by the first Ctrl-C; the second one ends the process at once.
///
/// # Errors
/// The signal handler cannot be installed.
pub fn progress() -> anyhow::Result<Arc<dyn Progress>> {
    let cancelled = Arc::new(AtomicBool::new(false));
    let flag = cancelled.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .context("cannot handle Ctrl-C")?;
    Ok(Arc::new(Tidy(TerminalProgress::new(cancelled))))
}

/// Progress on the terminal, and at the beginning of every stage what the one before has freed goes back to the system, which the allocator
/// would do a second later: the largest stages begin where much was freed.
struct Tidy(TerminalProgress);

impl Progress for Tidy {
    fn start(&self, stage: &str, total: u64) {
        memory::give_back();
        self.0.start(stage, total);
    }

    fn step(&self, count: u64) {
        self.0.step(count);
    }

    fn finish(&self) {
        self.0.finish();
    }

    fn note(&self, text: &str) {
        self.0.note(text);
    }

    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// Runs an example; an error goes to standard error, with exit code 1 (130 after Ctrl-C).
pub fn run(example: impl FnOnce() -> anyhow::Result<ExitCode>) -> ExitCode {
    match example() {
        Ok(code) => code,
        Err(error) => {
            note!("error: {}", describe(&error));
            let cancelled = matches!(error.downcast_ref(), Some(masf::Error::Cancelled))
                || matches!(error.downcast_ref(), Some(DataError::Cancelled));
            if cancelled { ExitCode::from(130) } else { ExitCode::FAILURE }
        }
    }
}

/// An error and its causes, each said once: some errors repeat their cause in their own message.
pub fn describe(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Options that every example has.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Threads to use [default: one for every core]
    #[arg(long)]
    pub threads: Option<usize>,
}

impl Common {
    /// Applies the options.
    ///
    /// # Errors
    /// No threads, or the thread pool cannot be started.
    pub fn apply(&self) -> anyhow::Result<()> {
        if let Some(threads) = self.threads {
            anyhow::ensure!(threads > 0, "--threads is 0; expected at least 1");
            rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("cannot start threads")?;
        }
        Ok(())
    }
}

/// A saved model, and the weights of its backbone where it does not hold them.
#[derive(Debug, clap::Args)]
pub struct ModelArgs {
    /// Model file made by `train`
    #[arg(long, value_name = "M.masf")]
    pub model: PathBuf,
    /// Weights of the backbone, for a model saved with --reference-weights; others than the model's are refused
    #[arg(long, value_name = "FILE.safetensors")]
    pub weights: Option<PathBuf>,
    /// Where the backbone computes: cpu, cuda, cuda:INDEX, metal or metal:INDEX; GPUs need a build with the feature of that name
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: masf::DeviceChoice,
}

impl ModelArgs {
    /// Loads the model.
    ///
    /// # Errors
    /// Those of [`masf::Detector::load_with`].
    pub fn load(&self) -> masf::Result<masf::Detector> {
        let options = masf::ReadOptions { weights: self.weights.clone(), device: self.device, ..Default::default() };
        masf::Detector::load_with(&self.model, &masf::default_registry(), options)
    }
}

/// How a model is saved again: without the weights of its backbone where its file lacks them.
///
/// # Errors
/// A file that cannot be read, or is no model.
pub fn save_options(model: &Path) -> masf::Result<masf::SaveOptions> {
    let file = masf::core::artifact::ModelFile::open(model, masf::ReadOptions::default())?;
    let backbone: serde_json::Value = file.root()?.child("backbone")?.section()?;
    Ok(masf::SaveOptions { reference_weights: backbone["embedded"] == false })
}

/// Says how many files of a folder were passed over, if any were.
pub fn note_ignored(ignored: &[PathBuf]) {
    if let Some(first) = ignored.first() {
        let count = ignored.len();
        note!("note: passed over {count} without an image's extension, such as {}", first.display());
    }
}

/// Says that the good images of a folder that has no others may have been learned.
pub fn note_flattered(test: &Dataset) {
    if test.layout == Layout::GoodAndBad {
        note!("note: if the model learned from this folder's `good`, these figures flatter it");
    }
}

/// The good images to learn from, and labelled images of which none is among them.
///
/// # Errors
/// Those of [`Dataset::training`] and [`Dataset::test`], and a folder whose good images would be learned and measured.
pub fn training_and_test(folder: &Path) -> anyhow::Result<(Vec<Sample>, Vec<Sample>)> {
    let (training, test) = (Dataset::training(folder)?, Dataset::test(folder)?);
    anyhow::ensure!(
        test.layout == Layout::Mvtec,
        "{}: the good images that are learned would be measured, too; lay the images out as train/good and test",
        folder.display()
    );
    Ok((training.samples, test.samples))
}

/// Adds the maps of a batch, f16, under `maps` and their stride; the channels of levels of one stride lie side by side.
///
/// # Errors
/// Levels of one stride and different sizes.
pub fn add_maps(maps: &mut BTreeMap<String, Vec<Tensor>>, pyramid: &FeaturePyramid) -> anyhow::Result<()> {
    let mut of_stride: BTreeMap<usize, Vec<Tensor>> = BTreeMap::new();
    for level in pyramid.levels() {
        of_stride.entry(level.spec.stride).or_default().push(level.map.to_dtype(DType::F16)?);
    }
    for (stride, levels) in of_stride {
        maps.entry(format!("maps{stride}")).or_default().push(Tensor::cat(&levels, 1)?);
    }
    Ok(())
}

/// The value that so large a share of sorted values does not exceed.
pub fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Writes a file whole or not at all; what is no regular file, and what is open already, such as `/dev/stdout`, is written to as it is.
///
/// # Errors
/// The file system's, with the path.
pub fn write_atomically(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let written = if path == Path::new("/dev/stdout") {
        // Opened anew, it would begin where the file that it is led to begins.
        let mut output = std::io::stdout().lock();
        output.write_all(content).and_then(|()| output.flush())
    } else if is_special(path) {
        std::fs::OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(content))
    } else {
        masf::core::replace_file(path, |temporary| std::fs::write(temporary, content))
    };
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Whether a path is neither file nor folder, or names what is open already, be it a file.
fn is_special(path: &Path) -> bool {
    let is_open = ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc/self/fd"].iter().any(|open| path.starts_with(open));
    std::fs::metadata(path).is_ok_and(|found| !found.is_dir() && (is_open || !found.is_file()))
}

/// Makes sure, before long work, that a file can be written where its result goes: makes the folder where it is missing.
///
/// # Errors
/// The file system's, with the path.
pub fn prepare_output(path: &Path) -> anyhow::Result<()> {
    if is_special(path) { Ok(()) } else { prepare_model(path) }
}

/// As [`prepare_output`] for a model or weights, which no device and no pipe can hold.
///
/// # Errors
/// The file system's, with the path.
pub fn prepare_model(path: &Path) -> anyhow::Result<()> {
    masf::core::check_replaceable(path).with_context(|| format!("cannot write {}", path.display()))
}

/// Whether a reader of standard output has gone away, as `head` does.
static OUTPUT_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether nobody reads standard output any more: what is printed is lost, files are not.
pub fn output_is_closed() -> bool {
    OUTPUT_CLOSED.load(Ordering::Relaxed)
}

/// Prints; what [`out!`] and [`outln!`] call.
///
/// # Errors
/// Those of standard output, but a reader that went away is none.
pub fn print(text: std::fmt::Arguments<'_>) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_fmt(text) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            OUTPUT_CLOSED.store(true, Ordering::Relaxed);
            Ok(())
        }
        written => written.context("cannot write to standard output"),
    }
}

/// Prints a note for the user to standard error, if anybody reads it; what [`note!`] calls.
pub fn print_note(text: std::fmt::Arguments<'_>) {
    // There is no better place to report that to.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// As `print!`, but a reader that goes away is no panic, and other refusals are errors to return.
#[macro_export]
macro_rules! out {
    ($($text:tt)*) => { $crate::print(format_args!($($text)*)) };
}

/// As `println!`, but a reader that goes away is no panic, and other refusals are errors to return.
#[macro_export]
macro_rules! outln {
    ($($text:tt)*) => { $crate::print(format_args!("{}\n", format_args!($($text)*))) };
}

/// As `eprintln!`, without a panic where nobody reads it.
#[macro_export]
macro_rules! note {
    ($($text:tt)*) => { $crate::print_note(format_args!($($text)*)) };
}

/// An inspection as JSON, all but its maps.
pub fn as_json(inspection: &masf::Inspection) -> serde_json::Value {
    serde_json::json!({
        "image_score": inspection.image_score,
        "normalised_score": inspection.normalised_score,
        "threshold": inspection.threshold.value,
        "is_anomalous": inspection.is_anomalous,
        "uncertainty": inspection.uncertainty,
        "regions": inspection.regions,
    })
}

/// As [`as_json`], with the path of the image.
pub fn as_json_of(path: &Path, inspection: &masf::Inspection) -> serde_json::Value {
    let mut found = as_json(inspection);
    found["path"] = path.to_string_lossy().into();
    found
}

/// A picture as the content of a PNG file.
///
/// # Errors
/// A picture that PNG cannot hold.
pub fn png(picture: &image::RgbImage) -> anyhow::Result<Vec<u8>> {
    use image::ImageEncoder;
    use image::codecs::png::{CompressionType, FilterType, PngEncoder};
    let mut bytes = Vec::new();
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Default, FilterType::Adaptive).write_image(
        picture.as_raw(),
        picture.width(),
        picture.height(),
        image::ExtendedColorType::Rgb8,
    )?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, IndexOp};
    use masf::core::{FeatureLevel, LevelSpec};

    use super::*;

    #[test]
    fn levels_of_one_stride_lie_side_by_side() -> anyhow::Result<()> {
        let level = |value: f64| -> anyhow::Result<FeatureLevel> {
            let map = (Tensor::ones((2, 3, 4, 5), DType::F32, &Device::Cpu)? * value)?;
            Ok(FeatureLevel { spec: LevelSpec { stride: 14, channels: 3 }, map })
        };
        let pyramid = FeaturePyramid::new(vec![level(1.0)?, level(2.0)?], (56, 70))?;
        let mut maps = BTreeMap::new();
        add_maps(&mut maps, &pyramid)?;
        add_maps(&mut maps, &pyramid)?;
        let all = Tensor::cat(&maps["maps14"], 0)?.to_dtype(DType::F32)?;
        assert_eq!(all.dims(), [4, 6, 4, 5]);
        for image in 0..all.dim(0)? {
            assert_eq!(all.i((image, .., 0, 0))?.to_vec1::<f32>()?, [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
        }
        Ok(())
    }

    #[test]
    fn cancelled_work_has_its_exit_code() {
        let code = |error: anyhow::Error| format!("{:?}", run(|| Err(error)));
        let expected = format!("{:?}", ExitCode::from(130));
        assert_eq!(code(masf::Error::Cancelled.into()), expected);
        assert_eq!(code(DataError::Cancelled.into()), expected);
        assert_ne!(code(anyhow::anyhow!("cancelled")), expected);
    }
}
