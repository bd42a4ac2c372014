//! Detectors that learn further normal images without the old ones, and detectors that become one.
//!
//! Prototypes move, so scores do, and with them everything that was set from scores: the fusion is fitted and the
//! thresholds are set anew, from scores of images that the scorers did not learn from. Where there are no such images the
//! work is refused: the old thresholds are never kept.

use std::any::Any;
use std::collections::HashSet;
use std::sync::Arc;

use masf_core::artifact::{SaveOptions, fingerprint};
use masf_core::{Error, Progress, PyramidSource, Result, Scorer, Silent};
use masf_data::{ImageInput, Limits};
use masf_fusion::{ThresholdSource, Weights};
use masf_memory::{MemoryBank, MemoryBankFit};

use crate::fit::{self, CrossFitted, Extracted, FitBranch, HeldOut, Purpose};
use crate::provenance::joined;
use crate::{BackboneConfig, Config, Detector, DetectorBuilder, Provenance};

/// How [`Detector::extend`] and [`Detector::merge`] work; everything has a default.
#[derive(Clone)]
pub struct ExtendOptions {
    /// Normal images, at least two, that set the thresholds. The detector must not have learned from them, nor learn from
    /// them now. None by default.
    pub calibration: Vec<ImageInput>,
    /// Hears of the progress, and may cancel.
    pub progress: Arc<dyn Progress>,
    /// What an image file may ask for.
    pub limits: Limits,
}

impl Default for ExtendOptions {
    fn default() -> Self {
        Self { calibration: Vec::new(), progress: Arc::new(Silent), limits: Limits::default() }
    }
}

/// Refuses files that are to be learned from and to set thresholds, which would come out too low.
fn refuse_repeated(learned: &[ImageInput], calibration: &[ImageInput]) -> Result<()> {
    let files = |images: &'_ [ImageInput]| {
        let path = |image: &ImageInput| if let ImageInput::Path(path) = image { Some(path.clone()) } else { None };
        images.iter().filter_map(path).collect::<HashSet<_>>()
    };
    match files(learned).intersection(&files(calibration)).min() {
        Some(path) => Err(Error::argument("calibration image", path.display(), "none that is learned from")),
        None => Ok(()),
    }
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
    /// The memory banks are extended within the configuration's budget, and calibration, fusion and thresholds are made
    /// anew: from [`calibration`](ExtendOptions::calibration) images where there are some, otherwise by cross-fitting over
    /// the new images (each fold is scored by the detector extended with the others). The stated false-alarm rate
    /// then holds for images like those. A threshold set by hand or from labelled images is replaced, with the
    /// rate of the configuration. On an error the detector stays as it was.
    ///
    /// # Errors
    /// Branches other than memory banks, no images (without calibration images: fewer than two), fewer than two calibration images, a file
    /// that is among both, an image that cannot be read (named), or cancellation.
    pub fn extend<I>(&mut self, images: I, options: &ExtendOptions) -> Result<()>
    where
        I: IntoIterator<Item: Into<ImageInput>>,
    {
        let images: Vec<ImageInput> = images.into_iter().map(Into::into).collect();
        let _span = tracing::info_span!("extend", images = images.len()).entered();
        let progress = options.progress.as_ref();
        let banks = self.banks()?;
        let fits = self.bank_fits(banks.len())?;
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
        let (extracted, _, added, _) =
            self.reader(options).extract(images.clone(), needed, self.preprocess, self.backbone.as_ref(), turns)?;
        let (fitted, scores) = match &calibration {
            None => {
                let held = self.held_out(&images, options)?;
                fit::fit_and_score(&branches, &extracted, &held, self.config.threshold.folds, progress)?
            }
            Some(calibration) => {
                let fitted = extracted.fit_all(Purpose::Detector, &branches, |_| true, progress)?;
                let scores = self.score_calibration(&fitted, calibration, options)?;
                (fitted, scores)
            }
        };
        drop(branches);
        let provenance = joined(&self.provenance, &added);
        let scored = if options.calibration.is_empty() { &images } else { &options.calibration };
        self.recalibrate(fitted, &scores, (scored, options), provenance)
    }

    /// Takes in what another detector has learned, for example at another site.
    ///
    /// Both must have the same configuration and backbone, weights included. Thresholds of the two do not hold for the whole
    /// and cannot be made from them, so [`calibration`](ExtendOptions::calibration) images are needed. On an error the
    /// detector stays as it was.
    ///
    /// # Errors
    /// No calibration images, detectors that differ (what differs is named), branches other than memory banks, an image
    /// that cannot be read, or cancellation.
    pub fn merge(&mut self, other: &Self, options: &ExtendOptions) -> Result<()> {
        let _span = tracing::info_span!("merge").entered();
        if options.calibration.len() < fit::MIN_IMAGES {
            let expected = "at least 2 normal images that neither detector learned from: the thresholds of the two do \
                            not hold for the whole";
            return Err(Error::argument("number of calibration images", options.calibration.len(), expected));
        }
        self.check_alike(other)?;
        let banks = self.banks()?;
        let fits = self.bank_fits(banks.len())?;
        let calibration = self.extract_calibration(options)?;
        let mut merged: Vec<Box<dyn Scorer>> = Vec::with_capacity(banks.len());
        for ((own, other), fit) in banks.into_iter().zip(other.banks()?).zip(fits) {
            merged.push(Box::new(own.merge(other, &fit, options.progress.as_ref())?));
        }
        let scores = self.score_calibration(&merged, &calibration, options)?;
        let provenance = joined(&self.provenance, &other.provenance);
        self.recalibrate(merged, &scores, (&options.calibration, options), provenance)
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

    /// The settings of the memory banks, which must be as many as there are.
    fn bank_fits(&self, banks: usize) -> Result<Vec<MemoryBankFit>> {
        let fits: Vec<_> =
            self.config.memory_banks().into_iter().map(|params| params.check()).collect::<Result<_, _>>()?;
        if fits.len() != banks {
            return Err(Error::argument(
                "branches",
                banks,
                format!("the {} memory banks of the configuration", fits.len()),
            ));
        }
        Ok(fits)
    }

    fn check_alike(&self, other: &Self) -> Result<()> {
        let differ = |what: &str| Err(Error::argument("other detector", format!("of another {what}"), "the same"));
        // Where a backbone computes, and how much memory learning may take, is no part of what was learned.
        let like = |config: &Config| {
            let backbone = BackboneConfig { device: self.config.backbone.device, ..config.backbone.clone() };
            Config { backbone, memory_budget: self.config.memory_budget, ..config.clone() }.to_toml()
        };
        let (own, others) = (like(&self.config)?, like(&other.config)?);
        let mut section = String::new();
        for (own, other) in own.lines().zip(others.lines()) {
            if own != other {
                let value = format!("of another configuration: `{section}{other}`");
                return Err(Error::argument("other detector", value, format!("`{section}{own}`, as this one has")));
            }
            if own.starts_with('[') {
                section = format!("{own} ");
            }
        }
        if own != others {
            return differ("configuration");
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
            limits: options.limits,
            backbone: self.backbone.as_ref(),
            looks: self.looks(),
            defects: if learned { self.config.fusion.synthetic_defects } else { 0 },
            seed: self.config.seed,
            least: self.config.fusion_params().check()?.least_images(),
        })
    }

    /// What reads images and computes their features.
    fn reader(&self, options: &ExtendOptions) -> DetectorBuilder {
        Self::builder().config(self.config.clone()).limits(options.limits).progress(options.progress.clone())
    }

    /// The features of the calibration images, of which there are enough.
    fn extract_calibration(&self, options: &ExtendOptions) -> Result<Extracted> {
        let images = &options.calibration;
        let needed = ("calibration images", fit::MIN_IMAGES);
        let (extracted, ..) =
            self.reader(options).extract(images.clone(), needed, self.preprocess, self.backbone.as_ref(), 0)?;
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
        scores: &CrossFitted,
        (images, options): (&[ImageInput], &ExtendOptions),
        provenance: Provenance,
    ) -> Result<()> {
        let held = self.held_out(images, options)?;
        let fusion = fit::fit_fusion(&self.config.fusion_params().check()?, scores, held.size())?;
        let rate = match self.image_threshold.source {
            ThresholdSource::Conformal { false_alarm_rate, .. } => false_alarm_rate,
            _ => self.config.threshold.false_alarm_rate,
        };
        let thresholds = fit::thresholds(&fusion, scores, &held, rate, options.progress.as_ref())?;
        self.branches = branches;
        self.fusion = Box::new(fusion);
        self.image_threshold = thresholds.image;
        self.pixel_threshold = thresholds.pixel;
        self.calibration_scores = thresholds.image_scores;
        self.provenance = provenance;
        Ok(())
    }
}
