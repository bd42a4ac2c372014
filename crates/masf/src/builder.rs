//! Fitting a detector.

use std::path::Path;
use std::sync::Arc;

use masf_baselines::BaselineError;
use masf_core::{Error, FeatureExtractor, Fit, Progress, Result, Silent};
use masf_data::{DataError, Dataset, ImageInput, Limits, Size};
use masf_distill::Checkpoints;
use masf_fusion::{MapPrecision, Weights};
use masf_memory::MemoryError;

use crate::config::whole_budget;
use crate::detector::build_views;
use crate::fit::{self, FitBranch, HeldOut, MIN_IMAGES, OnTurned, Reader, StudentBranch};
use crate::pipeline::Looks;
use crate::{Branch, ByteSize, Config, Detector, Method, Preset};

/// What the configuration begins with.
enum Settings {
    /// A preset, for whatever backbone there will be.
    Preset(Preset),
    /// As it was given.
    Own(Box<Config>),
}

/// A single setting.
type Change = Box<dyn FnOnce(&mut Config) + Send + Sync>;

/// Gathers what a fit needs; made by [`Detector::builder`].
///
/// Everything has a default: the backbone `masf-nano`, whose weights are part of the library, the configuration of
/// [`Preset::Balanced`] for the backbone, and the branches that the configuration names. [`fit_folder`](Self::fit_folder) has an example that needs nothing else.
pub struct DetectorBuilder {
    settings: Settings,
    changes: Vec<Change>,
    backbone: Option<Box<dyn FeatureExtractor>>,
    branches: Vec<Box<dyn FitBranch>>,
    checkpoints: Option<Checkpoints>,
    progress: Arc<dyn Progress>,
    limits: Limits,
    skip_bad: bool,
}

impl Default for DetectorBuilder {
    fn default() -> Self {
        Self {
            settings: Settings::Preset(Preset::default()),
            changes: Vec::new(),
            backbone: None,
            branches: Vec::new(),
            checkpoints: None,
            progress: Arc::new(Silent),
            limits: Limits::default(),
            skip_bad: false,
        }
    }
}

/// What happened while a detector was fitted.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct FitReport {
    /// The images that were left out, or that were learned from but could not be read again to set thresholds, with the reasons; only with
    /// [`DetectorBuilder::skip_bad`].
    pub skipped: Vec<Error>,
    /// The number of images whose features did not fit into memory and went to a temporary file.
    pub spilled: usize,
    /// How well each score map tells synthetic defects from normal images, and its weight; empty unless weights were learned.
    pub precisions: Vec<MapPrecision>,
}

/// Reasons that a summary gives.
const MOST_REASONS: usize = 20;
/// Images that a summary names for a reason.
const MOST_EXAMPLES: usize = 3;

impl FitReport {
    /// Why images were left out, in a few lines however many they are: each reason with the number of its images and the names of the first
    /// of them, the most frequent reason first.
    pub fn skipped_summary(&self) -> Vec<String> {
        let mut reasons: Vec<(String, Vec<&Error>)> = Vec::new();
        let mut places = std::collections::HashMap::new();
        for error in &self.skipped {
            let (reason, _) = reason(error);
            let place = *places.entry(reason.clone()).or_insert(reasons.len());
            if place == reasons.len() {
                reasons.push((reason, Vec::new()));
            }
            reasons[place].1.push(error);
        }
        // Stable: equal counts stay in the order of the images.
        reasons.sort_by_key(|(_, errors)| std::cmp::Reverse(errors.len()));
        let rest: usize = reasons.iter().skip(MOST_REASONS).map(|(_, errors)| errors.len()).sum();
        let line = |(text, errors): &(String, Vec<&Error>)| {
            let named: Vec<_> = errors.iter().take(MOST_EXAMPLES).map(|error| reason(error).1).collect();
            match errors.as_slice() {
                [error] => error.to_string(),
                _ if errors.len() <= MOST_EXAMPLES => format!("{} images: {text}: {}", errors.len(), named.join(", ")),
                _ => format!("{} images: {text}: {}, ...", errors.len(), named.join(", ")),
            }
        };
        let mut lines: Vec<String> = reasons.iter().take(MOST_REASONS).map(line).collect();
        if rest > 0 {
            lines.push(format!("{rest} more images for other reasons"));
        }
        lines
    }
}

/// What is wrong with an image, and the name of the image.
fn reason(error: &Error) -> (String, String) {
    let of_data = match error {
        Error::Component { source, .. } => source.downcast_ref::<DataError>(),
        _ => None,
    };
    match of_data {
        Some(DataError::Image { image, problem }) => (problem.to_string(), image.clone()),
        Some(DataError::Io { path, source }) => (source.to_string(), path.display().to_string()),
        _ => (error.to_string(), String::new()),
    }
}

impl DetectorBuilder {
    /// Sets the configuration; settings made before are lost. [`Config::for_backbone`] has what suits a backbone.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.settings = Settings::Own(Box::new(config));
        self.changes.clear();
        self
    }

    /// Sets the configuration to that of a preset for the backbone ([`Config::preset_for`]); settings made before are lost.
    #[must_use]
    pub fn preset(mut self, preset: Preset) -> Self {
        self.settings = Settings::Preset(preset);
        self.changes.clear();
        self
    }

    fn change(mut self, change: impl FnOnce(&mut Config) + Send + Sync + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    /// Sets the seed of everything random; 0 by default.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        self.change(move |config| config.seed = seed)
    }

    /// Sets the size that images are resized to; 256 x 256 by default (252 x 252 with DINOv2). Time and memory grow with its area.
    #[must_use]
    pub fn image_size(self, size: Size) -> Self {
        self.change(move |config| config.input.size = size)
    }

    /// Sets the share of good images that may be called anomalous: between 0 and 1, 0.05 by default.
    #[must_use]
    pub fn false_alarm_rate(self, rate: f64) -> Self {
        self.change(move |config| config.threshold.false_alarm_rate = rate)
    }

    /// Sets the memory for features while fitting; 512 MiB by default.
    #[must_use]
    pub fn memory_budget(self, budget: ByteSize) -> Self {
        self.change(move |config| config.memory_budget = budget)
    }

    /// Sets the feature extractor, masf's or one's own; its name takes the place of the configuration's, of which nothing else changes, if one
    /// was [given](Self::config). [`open_backbone`](crate::open_backbone) makes one from a name.
    #[must_use]
    pub fn backbone(mut self, backbone: impl Into<Box<dyn FeatureExtractor>>) -> Self {
        self.backbone = Some(backbone.into());
        self
    }

    /// Adds a branch of one's own; those of the configuration are then no longer added. Where it scores images itself
    /// ([`Scores::image`](masf_core::Scores::image)) and is the only one, fitting refuses test-time views. It learns from upright images:
    /// `memory.turns` becomes 0.
    #[must_use]
    pub fn branch<F: Fit<Scorer: 'static> + Send + Sync + 'static>(mut self, branch: F) -> Self {
        self.branches.push(Box::new(branch));
        self
    }

    /// Sets where the trainings of the student, for the thresholds and on all images, keep checkpoints (`student-calibration.checkpoint` and
    /// `student.checkpoint`, or another [`name`](Checkpoints::name)), and whether they go on from them; without effect where the student
    /// is not trained: other `branches`, another `method`, or branches of one's own.
    #[must_use]
    pub fn checkpoints(mut self, checkpoints: Checkpoints) -> Self {
        self.checkpoints = Some(checkpoints);
        self
    }

    /// Sets who hears of the progress and may cancel.
    #[must_use]
    pub fn progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = progress;
        self
    }

    /// Sets what an image file may ask for, here and of the detector that is fitted ([`Detector::with_limits`]).
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Leaves out images that cannot be read instead of stopping at the first one. One that can be learned from, but not read again where
    /// that is needed, sets no threshold.
    #[must_use]
    pub fn skip_bad(mut self, skip: bool) -> Self {
        self.skip_bad = skip;
        self
    }

    /// The configuration, now that the backbone is known.
    pub(crate) fn resolve(&mut self) -> Config {
        let name = self.backbone.as_ref().map(|backbone| backbone.name().to_owned());
        let settings = std::mem::replace(&mut self.settings, Settings::Preset(Preset::default()));
        let mut config = match (settings, &name) {
            (Settings::Own(config), _) => *config,
            (Settings::Preset(preset), Some(name)) => Config::preset_for(preset, name),
            (Settings::Preset(preset), None) => Config::preset(preset),
        };
        if let Some(name) = name {
            config.backbone.name = name;
        }
        for change in self.changes.drain(..) {
            change(&mut config);
        }
        config
    }

    /// Learns from normal images.
    ///
    /// The result depends on the images, their order, the backbone and the configuration alone.
    ///
    /// # Errors
    /// An image that cannot be read (named), fewer than two images (three where a network is trained), a setting out of range (named),
    /// [`Error::Cancelled`].
    pub fn fit<I>(self, images: I) -> Result<Detector>
    where
        I: IntoIterator<Item: Into<ImageInput>>,
    {
        self.fit_with_report(images).map(|(detector, _)| detector)
    }

    /// Learns from the good images of a folder: a category in the layout of MVTec AD (its `train/good`), a folder with a sub-folder
    /// `good`, or a folder of good images alone.
    ///
    /// ```
    /// use masf::data::synthetic::{SyntheticConfig, write_dataset};
    /// use masf::{Detector, Size};
    ///
    /// # fn main() -> masf::Result<()> {
    /// let folder = std::env::temp_dir().join(format!("masf-builder-{}", std::process::id()));
    /// write_dataset(&folder, &SyntheticConfig { train: 6, test_good: 1, test_per_kind: 1, ..SyntheticConfig::default() })?;
    ///
    /// let detector = Detector::builder().image_size(Size::square(64)).false_alarm_rate(0.2).fit_folder(&folder)?;
    /// let found = detector.inspect(folder.join("test/good/000.png"))?;
    /// assert!((0.0..=1.0).contains(&found.normalised_score.0));
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`fit`](Self::fit), and a folder without good images, or with defective ones where only good ones may be.
    pub fn fit_folder(self, folder: impl AsRef<Path>) -> Result<Detector> {
        let images = Dataset::training(folder.as_ref())?.samples;
        self.fit(images.iter().map(|sample| &sample.path))
    }

    /// As [`fit`](Self::fit), and tells what happened on the way.
    ///
    /// # Errors
    /// As [`fit`](Self::fit).
    pub fn fit_with_report<I>(mut self, images: I) -> Result<(Detector, FitReport)>
    where
        I: IntoIterator<Item: Into<ImageInput>>,
    {
        let mut config = self.resolve();
        config.check()?;
        let _span = tracing::info_span!("fit", backbone = %config.backbone.name, seed = config.seed).entered();
        let progress = self.progress.clone();
        let backbone = match self.backbone.take() {
            Some(backbone) => backbone,
            None => crate::open_backbone(&config.backbone, None, progress.as_ref())?,
        };
        let backbone = crate::tiles::wrap(backbone, &config.input)?;
        let mut branches = std::mem::take(&mut self.branches);
        if branches.is_empty() {
            check_strides(&config.backbone.strides, backbone.as_ref())?;
            branches = learners(&config, self.checkpoints.as_ref())?;
        } else {
            // Branches of one's own learn from upright images, and so they do when they are extended.
            config.memory.turns = 0;
        }
        let preprocess = config.preprocess(backbone.normalisation())?;
        let images: Vec<ImageInput> = images.into_iter().map(Into::into).collect();
        check_margin(&config, backbone.as_ref())?;
        let views = build_views(&config, backbone.as_ref())?;
        let defects = match config.fusion.weights {
            Weights::Learned => config.fusion.synthetic_defects,
            _ => 0,
        };
        let fusion_params = config.fusion_params().check()?;
        // The images are read again for views, synthetic defects and the detail of maps only.
        let looks = Looks { views: views.as_deref(), orientations: config.orientations };
        let reads_again = !looks.are_plain() || defects > 0 || fusion_params.params().detail.is_on();
        let again = if reads_again { images.clone() } else { Vec::new() };
        let turns = if branches.iter().any(|branch| branch.uses_turned()) { config.memory.turns } else { 0 };
        let reader = Reader {
            config: &config,
            preprocess,
            backbone: backbone.as_ref(),
            limits: self.limits,
            skip_bad: self.skip_bad,
            progress: progress.as_ref(),
        };
        let (extracted, learned, provenance, mut report) = {
            let _span = tracing::info_span!("features", images = images.len()).entered();
            reader.read(images, ("training images", MIN_IMAGES), turns)?
        };
        backbone.release();
        // `learned` ascends.
        let again: Vec<ImageInput> = again
            .into_iter()
            .enumerate()
            .filter(|(index, _)| learned.binary_search(index).is_ok())
            .map(|(_, image)| image)
            .collect();

        let held = HeldOut {
            images: &again,
            preprocess,
            limits: self.limits,
            backbone: backbone.as_ref(),
            looks,
            defects,
            seed: config.seed,
            least: fusion_params.least_images(),
            skip_bad: self.skip_bad,
        };
        let (branches, mut scores) = {
            let _span = tracing::info_span!("learn", branches = branches.len(), images = learned.len()).entered();
            fit::fit_and_score(&branches, &extracted, &held, config.threshold.folds, progress.as_ref())
                .map_err(|error| in_whole_budget(error, &config))?
        };
        let _span = tracing::info_span!("calibrate").entered();
        let fusion = fit::fit_fusion(&fusion_params, &mut scores, held.size())?;
        report.precisions = fusion.precisions().unwrap_or_default().to_vec();
        let rate = config.threshold.false_alarm_rate;
        let thresholds = fit::thresholds(&fusion, &scores, &held, (rate, rate), progress.as_ref())?;
        let unscored = scores.skipped.into_iter().chain(thresholds.skipped);
        report.skipped.extend(unscored.inspect(|error| tracing::warn!("sets no threshold: {error}")));
        report.spilled = extracted.cache.spilled();
        let detector = Detector {
            config,
            preprocess,
            backbone,
            branches,
            views,
            fusion: Box::new(fusion),
            image_threshold: thresholds.image,
            pixel_threshold: thresholds.pixel,
            calibration_scores: thresholds.image_scores,
            provenance,
            limits: self.limits,
        };
        Ok((detector, report))
    }
}

/// What the configuration learns.
fn learners(config: &Config, checkpoints: Option<&Checkpoints>) -> Result<Vec<Box<dyn FitBranch>>> {
    Ok(match config.method {
        Method::Masf => {
            check_shares(&config.fusion.weights)?;
            let mut branches: Vec<Box<dyn FitBranch>> = Vec::new();
            for branch in &config.branches {
                match branch {
                    Branch::Memory => {
                        for params in config.memory_banks() {
                            branches.push(Box::new(OnTurned(params.check()?)));
                        }
                    }
                    Branch::Distill => {
                        branches.push(Box::new(StudentBranch::new(config.student_params(), checkpoints)?));
                    }
                }
            }
            branches
        }
        Method::PatchCore => vec![Box::new(config.patchcore()?)],
        Method::Padim => vec![Box::new(config.padim()?)],
        Method::Cfa => vec![Box::new(config.cfa()?)],
        Method::Rdpp => vec![Box::new(config.rdpp()?)],
        Method::Adtr => vec![Box::new(config.adtr()?)],
        Method::Isstad => vec![Box::new(config.isstad()?)],
    })
}

/// What a component says of its part of the memory budget, as of the whole.
pub(crate) fn in_whole_budget(error: Error, config: &Config) -> Error {
    let Error::Component { source, .. } = &error else { return error };
    // Banks per level share it; PatchCore has one bank.
    let banks = if config.method == Method::Masf { config.memory_banks().len() } else { 1 };
    let of_bank = |least: usize| least.saturating_mul(banks);
    let (least, what) = match (source.downcast_ref(), source.downcast_ref()) {
        (Some(MemoryError::Budget { least, prototypes, dimensions, .. }), _) => {
            (of_bank(*least), format!("{prototypes} prototypes of {dimensions} dimensions; or fewer of either"))
        }
        (Some(MemoryError::LeastBudget { least, prototypes, dimensions, .. }), _) => {
            (of_bank(*least), format!("{prototypes} prototypes of {dimensions} dimensions; or fewer dimensions"))
        }
        (Some(MemoryError::Held { least, held, dimensions, .. }), _) => {
            (of_bank(*least), format!("the {held} patches of {dimensions} dimensions that are held already"))
        }
        (_, Some(BaselineError::Budget { needed, positions, dimensions, .. })) => {
            (*needed, format!("{positions} positions of {dimensions} dimensions; or fewer of either"))
        }
        _ => return error,
    };
    let least = ByteSize::mib(whole_budget(least).div_ceil(1 << 20));
    Error::argument("memory_budget", config.memory_budget, format!("at least {least} for {what}"))
}

/// Refuses strides that the backbone has no level of, before it works for long.
fn check_strides(strides: &[usize], backbone: &dyn FeatureExtractor) -> Result<()> {
    let known: Vec<usize> = backbone.levels().iter().map(|level| level.stride).collect();
    match strides.iter().find(|stride| !known.contains(stride)) {
        Some(missing) => {
            let expected =
                format!("strides of the backbone, {known:?} (Config::for_backbone has those of a registered one)");
            Err(Error::argument("backbone.strides", missing, expected))
        }
        None => Ok(()),
    }
}

/// Refuses shifted views of which no score would count.
fn check_margin(config: &Config, backbone: &dyn FeatureExtractor) -> Result<()> {
    let stride = backbone.levels().iter().map(|level| level.stride).max().unwrap_or(1);
    // So many positions count that there is one on every level.
    let side = config.input.size.height.min(config.input.size.width) as usize;
    let (margin, most) = (config.views.margin, side.saturating_sub(2 * stride) / 2);
    if config.views.shifts > 0 && margin > most {
        let size = config.input.size;
        let expected =
            format!("at most {most} with shifts of {stride} pixels on {size}: else no score of theirs counts");
        return Err(Error::argument("views.margin", margin, expected));
    }
    Ok(())
}

/// Refuses shares of branches that the configuration cannot have; branches of one's own may have any name.
fn check_shares(weights: &Weights) -> Result<()> {
    const NAMES: [&str; 2] = ["memory", "student"];
    let Weights::Shares(shares) = weights else { return Ok(()) };
    match shares.keys().find(|name| !NAMES.contains(&name.as_str())) {
        Some(unknown) => Err(Error::argument("branch of fusion.weights.shares", unknown, NAMES.join(" or "))),
        None => Ok(()),
    }
}
