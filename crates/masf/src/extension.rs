//! Detectors that learn further normal images without the old ones, and detectors that become one.
//!
//! Prototypes move, so scores do, and with them everything that was set from scores: the fusion is fitted and the
//! thresholds are set anew, from scores of images that the scorers did not learn from. Where there are no such images the
//! work is refused: the old thresholds are never kept.

use std::any::Any;
use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use image::ColorType;
use masf_core::artifact::{SaveOptions, fingerprint};
use masf_core::{Error, Progress, PyramidSource, Result, Scorer, Silent};
use masf_data::{ImageInput, Limits};
use masf_fusion::{Threshold, ThresholdSource, Weights};
use masf_memory::{MemoryBank, MemoryBankFit};

use crate::builder::in_whole_budget;
use crate::fit::{self, CrossFitted, Extracted, FitBranch, HeldOut, Purpose, Reader};
use crate::provenance::joined;
use crate::{BackboneConfig, Config, Detector, Provenance};

/// How [`Detector::extend`] and [`Detector::merge`] work; everything has a default.
#[derive(Clone)]
pub struct ExtendOptions {
    /// Normal images, at least two, that set the thresholds. The detector must not have learned from them, nor learn from
    /// them now. None by default.
    pub calibration: Vec<ImageInput>,
    /// Hears of the progress, and may cancel.
    pub progress: Arc<dyn Progress>,
    /// What an image file may ask for. `None`, the default: the [limits of the detector](Detector::with_limits).
    pub limits: Option<Limits>,
}

impl Default for ExtendOptions {
    fn default() -> Self {
        Self { calibration: Vec::new(), progress: Arc::new(Silent), limits: None }
    }
}

/// What tells images apart without decoding: the file, however its path is spelt, or the bytes in memory.
#[derive(PartialEq, Eq, Hash)]
enum Identity<'a> {
    File(PathBuf),
    Encoded(&'a [u8]),
    Pixels(ColorType, u32, u32, &'a [u8]),
}

impl<'a> Identity<'a> {
    fn of(image: &'a ImageInput) -> Option<Self> {
        Some(match image {
            ImageInput::Path(path) => Self::File(std::fs::canonicalize(path).unwrap_or_else(|_| path.clone())),
            ImageInput::Encoded { bytes, .. } => Self::Encoded(bytes),
            ImageInput::Image(image) => Self::Pixels(image.color(), image.width(), image.height(), image.as_bytes()),
            _ => return None,
        })
    }
}

/// Refuses images that are to be learned from and to set thresholds, which would come out too low.
fn refuse_repeated(learned: &[ImageInput], calibration: &[ImageInput]) -> Result<()> {
    if calibration.is_empty() {
        return Ok(());
    }
    let learned: HashSet<Identity<'_>> = learned.iter().filter_map(Identity::of).collect();
    let is_learned = |image: &ImageInput| Identity::of(image).is_some_and(|identity| learned.contains(&identity));
    match calibration.iter().enumerate().find(|(_, image)| is_learned(image)) {
        Some((index, image)) => {
            let value = format!("{} (number {} of them)", image.name(), index + 1);
            Err(Error::argument("calibration image", value, "none that is learned from"))
        }
        None => Ok(()),
    }
}

/// The first setting that two configurations do not share, as each of them has it.
fn difference(section: &str, own: &toml::Table, other: &toml::Table) -> Option<(String, String)> {
    let keys: BTreeSet<&String> = own.keys().chain(other.keys()).collect();
    keys.into_iter().find_map(|key| match (own.get(key), other.get(key)) {
        (own, other) if own == other => None,
        (Some(toml::Value::Table(own)), Some(toml::Value::Table(other))) => {
            let section = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
            difference(&section, own, other)
        }
        (own, other) => {
            let place = if section.is_empty() { key.clone() } else { format!("[{section}] {key}") };
            let shown = |value: Option<&toml::Value>| match value {
                Some(value) => format!("`{place} = {value}`"),
                None => format!("`{place}` left out"),
            };
            Some((shown(own), shown(other)))
        }
    })
}

/// A bank that has learned more.
struct Extend<'a> {
    bank: &'a MemoryBank,
    fit: MemoryBankFit,
}

impl FitBranch for Extend<'_> {
    fn fit_branch(&self, _: Purpose, source: &dyn PyramidSource, progress: &dyn Progress) -> Result<Box<dyn Scorer>> {
        Ok(Box::new(self.bank.extend(&self.fit, source, progress)?))
    }

    fn uses_turned(&self) -> bool {
        true
    }
}

impl Detector {
    /// Learns from further normal images; the old ones are not needed.
    ///
    /// The memory banks are extended within the configuration's budget, to its number of prototypes, or their own where that
    /// is larger. Calibration, fusion and thresholds are made anew: from [`calibration`](ExtendOptions::calibration) images
    /// where there are some, otherwise by cross-fitting over the new images (each fold is scored by the detector extended with
    /// the others). Image and pixel threshold keep their false-alarm rates, which then hold for images like those. A threshold
    /// set by hand or from labelled images is replaced, with the rate of the configuration. On an error the detector stays as it
    /// was.
    ///
    /// # Errors
    /// Branches other than memory banks, no images (without calibration images: fewer than two), fewer than two calibration images, an
    /// image that is among both, an image that cannot be read (named), a memory budget that is too small, or cancellation.
    pub fn extend<I>(&mut self, images: I, options: &ExtendOptions) -> Result<()>
    where
        I: IntoIterator<Item: Into<ImageInput>>,
    {
        let images: Vec<ImageInput> = images.into_iter().map(Into::into).collect();
        let _span = tracing::info_span!("extend", images = images.len()).entered();
        let progress = options.progress.as_ref();
        let banks = self.banks()?;
        let held: Vec<usize> = banks.iter().map(|bank| bank.search().count()).collect();
        let fits = self.bank_fits(&held)?;
        let mut branches: Vec<Box<dyn FitBranch + '_>> = Vec::with_capacity(fits.len());
        for (bank, fit) in banks.into_iter().zip(fits) {
            branches.push(Box::new(Extend { bank, fit }));
        }
        refuse_repeated(&images, &options.calibration)?;
        // Without calibration images, each new one is scored by what the others taught.
        let calibration = match options.calibration.as_slice() {
            [] => None,
            _ => Some(self.extract_calibration(options)?),
        };
        let needed = ("further images", if calibration.is_some() { 1 } else { fit::MIN_IMAGES });
        let turns = self.config.memory.turns;
        let (extracted, _, added, _) = self.reader(options).read(images.clone(), needed, turns)?;
        let (fitted, scores) = match &calibration {
            None => {
                let held = self.held_out(&images, options)?;
                fit::fit_and_score(&branches, &extracted, &held, self.config.threshold.folds, progress)
                    .map_err(|error| in_whole_budget(error, &self.config))?
            }
            Some(calibration) => {
                let fitted = extracted
                    .fit_all(Purpose::Detector, &branches, |_| true, progress)
                    .map_err(|error| in_whole_budget(error, &self.config))?;
                let scores = self.score_calibration(&fitted, calibration, options)?;
                (fitted, scores)
            }
        };
        drop(branches);
        let provenance = joined(&self.provenance, &added);
        let scored = if options.calibration.is_empty() { &images } else { &options.calibration };
        self.recalibrate(fitted, scores, (scored, options), provenance)
    }

    /// Takes in what another detector has learned, for example at another site.
    ///
    /// Both must have the same configuration and backbone, weights included. Thresholds of the two do not hold for the whole
    /// and cannot be made from them, so [`calibration`](ExtendOptions::calibration) images are needed. On an error the
    /// detector stays as it was.
    ///
    /// # Errors
    /// No calibration images, detectors that differ (what differs is named), branches other than memory banks, an image
    /// that cannot be read, a memory budget that is too small, or cancellation.
    pub fn merge(&mut self, other: &Self, options: &ExtendOptions) -> Result<()> {
        let _span = tracing::info_span!("merge").entered();
        if options.calibration.len() < fit::MIN_IMAGES {
            let expected = "at least 2 normal images that neither detector learned from: the thresholds of the two do \
                            not hold for the whole";
            return Err(Error::argument("number of calibration images", options.calibration.len(), expected));
        }
        self.check_alike(other)?;
        let pairs: Vec<(&MemoryBank, &MemoryBank)> = self.banks()?.into_iter().zip(other.banks()?).collect();
        let larger = |(own, other): &(&MemoryBank, &MemoryBank)| own.search().count().max(other.search().count());
        let fits = self.bank_fits(&pairs.iter().map(larger).collect::<Vec<_>>())?;
        let calibration = self.extract_calibration(options)?;
        let mut merged: Vec<Box<dyn Scorer>> = Vec::with_capacity(pairs.len());
        for ((own, other), fit) in pairs.into_iter().zip(fits) {
            let bank = own.merge(other, &fit, options.progress.as_ref());
            merged.push(Box::new(bank.map_err(|error| in_whole_budget(error, &self.config))?));
        }
        let scores = self.score_calibration(&merged, &calibration, options)?;
        let provenance = joined(&self.provenance, &other.provenance);
        self.recalibrate(merged, scores, (&options.calibration, options), provenance)
    }

    /// The branches, which must be memory banks.
    fn banks(&self) -> Result<Vec<&MemoryBank>> {
        let mut banks = Vec::with_capacity(self.branches.len());
        for branch in &self.branches {
            let any: &dyn Any = branch.as_ref();
            banks.push(any.downcast_ref().ok_or_else(|| {
                Error::argument("branch", branch.tag(), "a memory bank; branches of other kinds must be fitted anew")
            })?);
        }
        Ok(banks)
    }

    /// The settings of the memory banks, which must be as many as there are, for at least the prototypes that each holds.
    fn bank_fits(&self, held: &[usize]) -> Result<Vec<MemoryBankFit>> {
        let all = self.config.memory_banks();
        if all.len() != held.len() {
            let expected = format!("the {} memory banks of the configuration", all.len());
            return Err(Error::argument("branches", held.len(), expected));
        }
        let fits = all.into_iter().zip(held).map(|(mut params, held)| {
            // A bank that was given to the builder may hold more than the configuration says.
            params.prototypes = params.prototypes.max(*held);
            params.check()
        });
        Ok(fits.collect::<Result<Vec<_>, _>>()?)
    }

    fn check_alike(&self, other: &Self) -> Result<()> {
        let differ = |what: &str| Err(Error::argument("other detector", format!("of another {what}"), "the same"));
        // Where a backbone computes, and how much memory learning may take, is no part of what was learned.
        let settings = |config: &Config| -> Result<toml::Table> {
            let backbone = BackboneConfig { device: self.config.backbone.device, ..config.backbone.clone() };
            let text = Config { backbone, memory_budget: self.config.memory_budget, ..config.clone() }.to_toml()?;
            toml::from_str(&text).map_err(|error| Error::data("configuration", error.to_string()))
        };
        if let Some((own, other)) = difference("", &settings(&self.config)?, &settings(&other.config)?) {
            let value = format!("of another configuration: {other}");
            return Err(Error::argument("other detector", value, format!("{own}, as this one has")));
        }
        if self.preprocess != other.preprocess {
            return differ("preprocessing");
        }
        let by_hash = SaveOptions { reference_weights: true };
        let print = |detector: &Self| fingerprint(detector.backbone.as_ref(), by_hash);
        if self.backbone.name() != other.backbone.name() || print(self)? != print(other)? {
            return differ("backbone (name, levels, weights)");
        }
        if self.branches.len() != other.branches.len() {
            return differ("number of branches");
        }
        Ok(())
    }

    fn held_out<'a>(&'a self, images: &'a [ImageInput], options: &ExtendOptions) -> Result<HeldOut<'a>> {
        let learned = matches!(self.config.fusion.weights, Weights::Learned);
        Ok(HeldOut {
            images,
            preprocess: self.preprocess,
            limits: self.limits_of(options),
            backbone: self.backbone.as_ref(),
            looks: self.looks(),
            defects: if learned { self.config.fusion.synthetic_defects } else { 0 },
            seed: self.config.seed,
            least: self.config.fusion_params().check()?.least_images(),
            skip_bad: false,
        })
    }

    /// What reads images and computes their features.
    fn reader<'a>(&'a self, options: &'a ExtendOptions) -> Reader<'a> {
        Reader {
            config: &self.config,
            preprocess: self.preprocess,
            backbone: self.backbone.as_ref(),
            limits: self.limits_of(options),
            skip_bad: false,
            progress: options.progress.as_ref(),
        }
    }

    fn limits_of(&self, options: &ExtendOptions) -> Limits {
        options.limits.unwrap_or(self.limits)
    }

    /// The features of the calibration images, of which there are enough.
    fn extract_calibration(&self, options: &ExtendOptions) -> Result<Extracted> {
        let images = &options.calibration;
        let needed = ("calibration images", fit::MIN_IMAGES);
        let (extracted, ..) = self.reader(options).read(images.clone(), needed, 0)?;
        self.held_out(images, options)?.check_enough(images.len())?;
        Ok(extracted)
    }

    /// The scores of the calibration images.
    fn score_calibration(
        &self,
        branches: &[Box<dyn Scorer>],
        extracted: &Extracted,
        options: &ExtendOptions,
    ) -> Result<CrossFitted> {
        let held = self.held_out(&options.calibration, options)?;
        fit::score_all(branches, extracted, &held, options.progress.as_ref())
    }

    /// Takes new branches, and sets from their scores of `images` all that depends on scores.
    fn recalibrate(
        &mut self,
        branches: Vec<Box<dyn Scorer>>,
        mut scores: CrossFitted,
        (images, options): (&[ImageInput], &ExtendOptions),
        provenance: Provenance,
    ) -> Result<()> {
        let held = self.held_out(images, options)?;
        let fusion = fit::fit_fusion(&self.config.fusion_params().check()?, &mut scores, held.size())?;
        let rate_of = |threshold: &Threshold| match threshold.source {
            ThresholdSource::Conformal { false_alarm_rate, .. } => false_alarm_rate,
            _ => self.config.threshold.false_alarm_rate,
        };
        let rates = (rate_of(&self.image_threshold), rate_of(&self.pixel_threshold));
        let thresholds = fit::thresholds(&fusion, &scores, &held, rates, options.progress.as_ref())?;
        self.branches = branches;
        self.fusion = Box::new(fusion);
        self.image_threshold = thresholds.image;
        self.pixel_threshold = thresholds.pixel;
        self.calibration_scores = thresholds.image_scores;
        self.provenance = provenance;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
