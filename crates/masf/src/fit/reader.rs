//! Reading the images to learn from: each is decoded, preprocessed and run through the backbone once.

use masf_core::{Error, FeatureExtractor, Progress, Result};
use masf_data::{ImageInput, Limits, Loader, Preprocess};

use super::{Extracted, Extraction};
use crate::detector::BATCH;
use crate::pipeline::Looks;
use crate::provenance::ImageDigest;
use crate::{Config, FitReport, Provenance};

/// Reads images and computes their features.
pub(crate) struct Reader<'a> {
    pub(crate) config: &'a Config,
    pub(crate) preprocess: Preprocess,
    pub(crate) backbone: &'a dyn FeatureExtractor,
    pub(crate) limits: Limits,
    /// Whether images that cannot be read are left out.
    pub(crate) skip_bad: bool,
    pub(crate) progress: &'a dyn Progress,
}

impl Reader<'_> {
    /// The features of images and of their versions turned to `turns` angles, and which images could be read. `needed` says what they are
    /// for and how many of them there must be at least.
    pub(crate) fn read(
        &self,
        images: Vec<ImageInput>,
        (what, least): (&'static str, usize),
        turns: usize,
    ) -> Result<(Extracted, Vec<usize>, Provenance, FitReport)> {
        let Self { config, preprocess, backbone, progress, .. } = *self;
        let total = images.len();
        let looks = Looks { views: None, orientations: config.orientations };
        let mut loader = Loader::new(images, preprocess, looks.load_options(self.limits), progress);
        let mut extraction =
            Extraction::new(config.cache_budget()).with_turned(turns, total, config.memory.turned_images);
        let mut digest = ImageDigest::default();
        let mut report = FitReport::default();
        let mut learned = Vec::with_capacity(total);
        progress.start("features", total as u64);
        while let Some(batch) = loader.next_batch(BATCH)? {
            let seen = batch.images.len() + batch.failed.len();
            for failed in batch.failed {
                if !self.skip_bad {
                    return Err(failed.error.into());
                }
                tracing::debug!("skipped: {}", failed.error);
                report.skipped.push(failed.error.into());
            }
            if let Some(tensor) = batch.tensor {
                let tensor = looks.upright(&tensor)?;
                digest.update(&tensor)?;
                extraction.push(backbone, &tensor)?;
                let indices: Vec<usize> = batch.images.iter().map(|image| image.index).collect();
                extraction.push_turned(backbone, &tensor, &indices)?;
                learned.extend(indices);
            }
            progress.step(seen as u64);
        }
        progress.finish();
        for line in report.skipped_summary() {
            tracing::warn!("skipped: {line}");
        }
        let found = learned.len();
        if found < least {
            let mut problem = format!("{found} can be used; at least {least} needed, and 20 or more are advisable");
            if let Some(reason) = report.skipped_summary().first() {
                problem += &format!("; left out: {reason}");
            }
            return Err(Error::data(what, problem));
        }
        let provenance = Provenance {
            masf_version: env!("CARGO_PKG_VERSION").to_owned(),
            images: learned.len(),
            skipped: report.skipped.len(),
            images_sha256: digest.finish(),
        };
        Ok((extraction.finish()?, learned, provenance, report))
    }
}
