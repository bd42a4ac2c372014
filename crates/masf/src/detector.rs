//! A fitted model: inspects images, is saved and loaded.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use image::DynamicImage;
use masf_core::artifact::{self, ModelFile, ReadOptions, Registry, SaveOptions};
use masf_core::{
    AnomalyMap, Artifact, ArtifactReader, ArtifactWriter, Error, FeatureExtractor, Fusion, Result, Scorer, Silent,
    Views, all_finite, in_pool,
};
use masf_data::{DataError, Geometry, ImageInput, Limits, Loaded, Loader, Preprocess, Size};
use masf_fusion::{Threshold, conformal_threshold};
use ndarray::Array2;

use crate::inspection::{normal_deviation, regions, verdict_uncertainty};
use crate::pipeline::Looks;
use crate::{Config, DetectorBuilder, Inspection, Inspections, Provenance, pipeline};

/// Images that go through the backbone together; bounds the memory of [`Detector::inspect_batch`].
pub(crate) const BATCH: usize = 8;

/// A fitted anomaly detector.
///
/// Made by [`Detector::builder`] or [`Detector::load`]. Inspection takes `&self`; one detector serves many threads. Scores
/// do not depend on the batch an image comes in or on the number of threads, bit for bit.
pub struct Detector {
    pub(crate) config: Config,
    pub(crate) preprocess: Preprocess,
    pub(crate) backbone: Box<dyn FeatureExtractor>,
    pub(crate) branches: Vec<Box<dyn Scorer>>,
    pub(crate) views: Option<Box<dyn Views>>,
    pub(crate) fusion: Box<dyn Fusion>,
    pub(crate) image_threshold: Threshold,
    pub(crate) pixel_threshold: Threshold,
    /// The cross-fitted image scores of the normal images, ascending.
    pub(crate) calibration_scores: Vec<f32>,
    pub(crate) provenance: Provenance,
    /// What an image file may ask for; no part of the model file.
    pub(crate) limits: Limits,
}

/// What is written to a model file beside the parts.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    config: Config,
    preprocess: Preprocess,
    branches: usize,
    image_threshold: Threshold,
    pixel_threshold: Threshold,
    /// How many scores the tensor `calibration_scores` holds.
    #[serde(default)]
    calibration_images: usize,
    provenance: Provenance,
}

/// The tensor of the calibration's scores.
const CALIBRATION_SCORES: &str = "calibration_scores";

impl Detector {
    /// The tag of a detector in a model file.
    pub const TAG: &'static str = "masf.detector";

    /// Starts to fit a detector.
    pub fn builder() -> DetectorBuilder {
        DetectorBuilder::default()
    }

    /// Inspects one image: a path, the content of a file, a decoded image, or raw pixels; see [`ImageInput`].
    ///
    /// The uncertainty of the verdict grows as the score nears the threshold, measured in the spread of normal scores, and
    /// with the spread of this image's score over views and score maps.
    ///
    /// # Errors
    /// An image that cannot be read or decoded; the message names it.
    pub fn inspect(&self, image: impl Into<ImageInput>) -> Result<Inspection> {
        let input = image.into();
        let _span = tracing::info_span!("inspect", image = %input.name()).entered();
        let tensor_of = |image: &DynamicImage| -> Result<(Tensor, Geometry)> {
            let named = |error: DataError| error.named(input.name());
            let geometry = self.preprocess.geometry(Size::new(image.height(), image.width())).map_err(named)?;
            Ok((self.looks().tensor(&self.preprocess, image).map_err(named)?, geometry))
        };
        let (tensor, geometry) = match &input {
            ImageInput::Image(image) => tensor_of(image)?,
            _ => tensor_of(&input.decode(&self.limits)?)?,
        };
        self.inspect_one(&tensor, geometry)
    }

    /// Inspects images, in their order, and keeps all results; one image that cannot be read does not stop the others.
    ///
    /// A result holds two maps of the size of the model's input (512 KiB at 256 x 256): for many images
    /// [`inspect_iter`](Self::inspect_iter) needs less memory. Where the scores no longer look like those of the calibration, a
    /// warning is logged; [`drift`](Self::drift) tells more.
    ///
    /// # Errors
    /// Each image has a result of its own, with the errors of [`inspect`](Self::inspect).
    pub fn inspect_batch<I>(&self, images: I) -> Vec<Result<Inspection>>
    where
        I: IntoIterator<Item: Into<ImageInput>>,
    {
        let results: Vec<Result<Inspection>> = self.inspect_iter(images).collect();
        let scores: Vec<f32> = results.iter().flatten().map(|inspection| inspection.image_score).collect();
        if let Ok(drift) = self.drift(&scores)
            && let Some(warning) = drift.warning
        {
            tracing::warn!("{warning}");
        }
        results
    }

    /// Inspects images one after the other, in their order, as the results are asked for.
    ///
    /// Images are taken from the iterator up to 32 at a time, decoded in parallel, and inspected in batches; no more results
    /// than these are held. One image that cannot be read does not stop the others.
    ///
    /// ```no_run
    /// # fn main() -> masf::Result<()> {
    /// let detector = masf::Detector::load("part.masf")?;
    /// let paths = ["0001.png", "0002.png"];
    /// for (path, result) in paths.iter().zip(detector.inspect_iter(paths)) {
    ///     match result {
    ///         Ok(found) => println!("{path}: {:.3}", found.normalised_score),
    ///         Err(error) => eprintln!("{error}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A detector can be shared among threads, so rayon's iterators work as well; that keeps more memory busy, and pays where a
    /// single image does not fill all cores:
    ///
    /// ```no_run
    /// # use masf::{Detector, Inspection};
    /// use rayon::prelude::*;
    ///
    /// # fn run(detector: &Detector, paths: &[std::path::PathBuf]) {
    /// let found: Vec<masf::Result<Inspection>> = paths.par_iter().map(|path| detector.inspect(path)).collect();
    /// # }
    /// ```
    ///
    /// # Errors
    /// Each image has a result of its own, with the errors of [`inspect`](Self::inspect).
    pub fn inspect_iter<I>(&self, images: I) -> Inspections<'_, I::IntoIter>
    where
        I: IntoIterator<Item: Into<ImageInput>>,
    {
        Inspections::new(self, images.into_iter())
    }

    /// Inspects some images that are decoded together.
    pub(crate) fn inspect_some(&self, images: Vec<ImageInput>) -> Vec<Result<Inspection>> {
        let _span = tracing::info_span!("inspect", images = images.len()).entered();
        let mut results: Vec<Option<Result<Inspection>>> = images.iter().map(|_| None).collect();
        let mut loader = Loader::new(images, self.preprocess, self.looks().load_options(self.limits), &Silent);
        while let Ok(Some(batch)) = loader.next_batch(self.batch()) {
            for failed in batch.failed {
                results[failed.index] = Some(Err(failed.error.into()));
            }
            let Some(tensor) = batch.tensor else { continue };
            let inspected = batch
                .images
                .iter()
                .map(|image| Ok(self.preprocess.geometry(image.size)?))
                .collect::<Result<Vec<_>>>()
                .and_then(|geometries| self.run(&tensor, &geometries));
            match inspected {
                Ok(inspected) => {
                    for (image, inspection) in batch.images.iter().zip(inspected) {
                        results[image.index] = Some(Ok(inspection));
                    }
                }
                // What stopped the batch may concern one image only.
                Err(_) => {
                    for image in &batch.images {
                        results[image.index] = Some(self.inspect_loaded(image));
                    }
                }
            }
        }
        let lost = || Err(Error::data("inspection", "the image was not read"));
        results.into_iter().map(|result| result.unwrap_or_else(lost)).collect()
    }

    fn inspect_loaded(&self, image: &Loaded) -> Result<Inspection> {
        self.inspect_one(&image.tensor, self.preprocess.geometry(image.size)?)
    }

    /// As [`run`](Self::run), of one image.
    fn inspect_one(&self, image: &Tensor, geometry: Geometry) -> Result<Inspection> {
        let mut found = self.run(&image.unsqueeze(0)?, &[geometry])?;
        found.pop().ok_or_else(|| Error::data("inspection", "gave no result"))
    }

    /// How every image is looked at.
    pub(crate) fn looks(&self) -> Looks<'_> {
        Looks { views: self.views.as_deref(), orientations: self.config.orientations }
    }

    /// Images that go through together: fewer where each has views, which are all held at once.
    pub(crate) fn batch(&self) -> usize {
        BATCH / (1 + self.config.views.noise + self.config.views.shifts).min(BATCH)
    }

    /// Inspects images as [`Looks::load_options`] has them.
    pub(crate) fn run(&self, images: &Tensor, geometries: &[Geometry]) -> Result<Vec<Inspection>> {
        // Whoever listens to this thread, and what it is in, go along.
        let (listener, span) = (tracing::dispatcher::get_default(Clone::clone), tracing::Span::current());
        let work = || {
            let _span = span.enter();
            pipeline::run(self.backbone.as_ref(), &self.branches, self.looks(), self.fusion.as_ref(), images)
        };
        let AnomalyMap { map, image_score, uncertainty, image_uncertainty } =
            in_pool(|| tracing::dispatcher::with_default(&listener, work))?;
        let vector = |tensor: Tensor| tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.to_vec1::<f32>();
        let scores: Vec<_> = vector(image_score)?.into_iter().zip(vector(image_uncertainty)?).collect();
        if scores.len() != geometries.len() {
            let problem = format!("{} for {} images", scores.len(), geometries.len());
            return Err(Error::data("image scores", problem));
        }
        let (map, uncertainty) = (map.to_device(&Device::Cpu)?, uncertainty.to_device(&Device::Cpu)?);
        let normal = self.normal_deviation();
        scores
            .into_iter()
            .zip(geometries)
            .enumerate()
            .map(|(index, (score, geometry))| {
                let maps = (to_array(&map.get(index)?)?, to_array(&uncertainty.get(index)?)?);
                self.conclude(score, maps, *geometry, normal)
            })
            .collect()
    }

    /// The verdict from the score of an image and its maps, each with its uncertainty; `normal` is the [deviation of normal
    /// scores](Self::normal_deviation).
    fn conclude(
        &self,
        (image_score, deviation): (f32, f32),
        (anomaly_map, uncertainty_map): (Array2<f32>, Array2<f32>),
        geometry: Geometry,
        normal: f64,
    ) -> Result<Inspection> {
        // No verdict without a number: a branch may come from elsewhere, and so may the numbers of a file.
        if !(image_score.is_finite() && deviation.is_finite()) {
            return Err(Error::data("image score", format!("{image_score} (deviation {deviation}) is not finite")));
        }
        if !anomaly_map.as_slice().is_some_and(all_finite) {
            return Err(Error::data("anomaly map", "it has scores that are not finite"));
        }
        let regions = regions(anomaly_map.view(), &self.pixel_threshold, &geometry).map_err(crate::error::metrics)?;
        Ok(Inspection {
            image_score,
            normalised_score: self.image_threshold.normalise(image_score),
            threshold: self.image_threshold,
            is_anomalous: self.image_threshold.is_exceeded_by(image_score),
            uncertainty: verdict_uncertainty(image_score, deviation, &self.image_threshold, normal),
            uncertainty_map,
            anomaly_map,
            pixel_threshold: self.pixel_threshold,
            regions,
            geometry,
            significant_bits: self.preprocess.significant_bits(),
        })
    }

    /// The standard deviation of the image scores of normal images, whatever the rate of the threshold.
    fn normal_deviation(&self) -> f64 {
        normal_deviation(&self.threshold_for(0.05).unwrap_or(self.image_threshold))
    }

    /// Saves the model to one file, atomically: an older file at `path` is replaced when the new one is complete.
    ///
    /// The backbone's weights are embedded.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_with(path, SaveOptions::default())
    }

    /// Saves with options, for example without the backbone's weights.
    ///
    /// # Errors
    /// The file system's, a model of more than 4 GiB, which could not be loaded, and what a part of one's own says.
    pub fn save_with(&self, path: impl AsRef<Path>, options: SaveOptions) -> Result<()> {
        let path = path.as_ref();
        let _span = tracing::info_span!("save", path = %path.display()).entered();
        artifact::save(self, path, options)
    }

    /// Loads a model; it scores every image bit for bit like the one that was saved. Image files have the default limits,
    /// whatever the builder's were: [`with_limits`](Self::with_limits) sets others.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged, newer than this library, or no model; the message names the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Self::load_with(path, &default_registry(), ReadOptions::default())
    }

    /// Loads a model that has parts of other types than masf's own, or whose weights lie in another file.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with(path: impl AsRef<Path>, registry: &Registry, options: ReadOptions) -> Result<Self> {
        let path = path.as_ref();
        let _span = tracing::info_span!("load", path = %path.display()).entered();
        let read = || Self::read_with(&ModelFile::open(path, options)?.root()?, registry);
        read().map_err(|error| crate::error::in_file(path, error))
    }

    fn read_with(reader: &ArtifactReader<'_>, registry: &Registry) -> Result<Self> {
        if reader.tag() != Self::TAG {
            return Err(reader.invalid(format!("the file holds `{}`, not a detector", reader.tag())));
        }
        let Section { config, preprocess, branches, image_threshold, pixel_threshold, calibration_images, provenance } =
            reader.section()?;
        config.check().map_err(|error| reader.invalid(error.to_string()))?;
        for threshold in [&image_threshold, &pixel_threshold] {
            threshold.check().map_err(|error| reader.invalid(error.to_string()))?;
        }
        if !(1..=64).contains(&branches) {
            return Err(reader.invalid(format!("{branches} branches; expected 1 to 64")));
        }
        let calibration_scores = match calibration_images {
            0 => Vec::new(),
            count => reader.tensor(CALIBRATION_SCORES, DType::F32, &[Some(count)])?.to_vec1::<f32>()?,
        };
        if !calibration_scores.is_sorted() {
            return Err(reader.invalid("the scores of the calibration do not ascend"));
        }
        // Packing weights and building a search take most of the time to the first score.
        let (scorers, backbone) = rayon::join(
            || {
                (0..branches)
                    .map(|index| registry.scorer(&reader.child(&branch_name(index))?))
                    .collect::<Result<Vec<_>>>()
            },
            || registry.backbone(&reader.child("backbone")?),
        );
        let (backbone, branches) = (backbone?, scorers?);
        if config.preprocess(backbone.normalisation())? != preprocess {
            return Err(reader.invalid("the preprocessing is not that of the configuration and the backbone"));
        }
        let backbone =
            crate::tiles::wrap(backbone, &config.input).map_err(|error| reader.invalid(error.to_string()))?;
        let views = build_views(&config, backbone.as_ref()).map_err(|error| reader.invalid(error.to_string()))?;
        Ok(Self {
            backbone,
            views,
            calibration_scores,
            branches,
            fusion: registry.fusion(&reader.child("fusion")?)?,
            config,
            preprocess,
            image_threshold,
            pixel_threshold,
            provenance,
            limits: Limits::default(),
        })
    }

    /// The configuration it was fitted with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How images become the backbone's input.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Where it comes from.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// The feature extractor.
    pub fn backbone(&self) -> &dyn FeatureExtractor {
        self.backbone.as_ref()
    }

    /// The threshold for images.
    pub fn threshold(&self) -> &Threshold {
        &self.image_threshold
    }

    /// The threshold for pixels.
    pub fn pixel_threshold(&self) -> &Threshold {
        &self.pixel_threshold
    }

    /// The image scores of the good images that the threshold was set from, ascending, each by a model that had not learned from
    /// that image; empty for a model whose file does not hold them.
    pub fn calibration_scores(&self) -> &[f32] {
        &self.calibration_scores
    }

    /// The image threshold for another false-alarm rate, from the scores of the calibration: nothing is fitted again.
    ///
    /// ```no_run
    /// # fn main() -> masf::Result<()> {
    /// let detector = masf::Detector::load("part.masf")?;
    /// let strict = detector.threshold_for(0.01)?;
    /// detector.with_threshold(strict)?.save("part-strict.masf")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A rate that is not between 0 and 1, or a model that holds fewer than two scores of its calibration.
    pub fn threshold_for(&self, false_alarm_rate: f64) -> Result<Threshold> {
        Ok(conformal_threshold(&self.calibration_scores, false_alarm_rate)?)
    }

    /// Replaces the threshold for images, for example by one chosen on labelled images.
    ///
    /// It moves the verdict on images alone: the threshold for pixels stays, and with it the regions.
    ///
    /// # Errors
    /// A threshold that fails its [check](Threshold::check).
    pub fn with_threshold(mut self, threshold: Threshold) -> Result<Self> {
        threshold.check()?;
        self.image_threshold = threshold;
        Ok(self)
    }

    /// Sets what an image file may ask for, wherever this detector reads one. After a fit these are the
    /// [builder's](DetectorBuilder::limits), after loading the default ones: they are not saved.
    ///
    /// ```no_run
    /// # fn main() -> masf::Result<()> {
    /// use masf::data::Limits;
    ///
    /// // Strangers send images: 16 million pixels at most.
    /// let limits = Limits { max_pixels: 16_000_000, ..Limits::default() };
    /// let detector = masf::Detector::load("part.masf")?.with_limits(limits);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

impl std::fmt::Debug for Detector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Detector")
            .field("backbone", &self.backbone.name())
            .field("config", &self.config)
            .field("image_threshold", &self.image_threshold)
            .field("pixel_threshold", &self.pixel_threshold)
            .field("provenance", &self.provenance)
            .finish_non_exhaustive()
    }
}

impl Artifact for Detector {
    fn tag(&self) -> &'static str {
        Self::TAG
    }

    fn write(&self, writer: &mut ArtifactWriter) -> Result<()> {
        self.image_threshold.check()?;
        self.pixel_threshold.check()?;
        writer.section(&Section {
            config: self.config.clone(),
            preprocess: self.preprocess,
            branches: self.branches.len(),
            image_threshold: self.image_threshold,
            pixel_threshold: self.pixel_threshold,
            calibration_images: self.calibration_scores.len(),
            provenance: self.provenance.clone(),
        })?;
        if !self.calibration_scores.is_empty() {
            let count = self.calibration_scores.len();
            writer.tensor(CALIBRATION_SCORES, &Tensor::from_slice(&self.calibration_scores, count, &Device::Cpu)?)?;
        }
        writer.child("backbone", self.backbone.as_ref())?;
        for (index, branch) in self.branches.iter().enumerate() {
            writer.child(&branch_name(index), branch.as_ref())?;
        }
        writer.child("fusion", self.fusion.as_ref())
    }

    fn read(reader: &ArtifactReader<'_>) -> Result<Self> {
        Self::read_with(reader, &default_registry())
    }
}

/// The readers of masf's own parts; add others with [`Registry`]'s methods.
pub fn default_registry() -> Registry {
    Registry::new()
        .with_backbone::<masf_backbone::Backbone>(masf_backbone::Backbone::TAG)
        .with_backbone::<masf_backbone::ScatteringBackbone>(masf_backbone::ScatteringBackbone::TAG)
        .with_scorer::<masf_memory::MemoryBank>(masf_memory::MemoryBank::TAG)
        .with_scorer::<masf_baselines::PatchCore>(masf_baselines::PatchCore::TAG)
        .with_scorer::<masf_baselines::Padim>(masf_baselines::Padim::TAG)
        .with_scorer::<masf_baselines::Cfa>(masf_baselines::Cfa::TAG)
        .with_scorer::<masf_baselines::Rdpp>(masf_baselines::Rdpp::TAG)
        .with_scorer::<masf_baselines::Adtr>(masf_baselines::Adtr::TAG)
        .with_scorer::<masf_baselines::Isstad>(masf_baselines::Isstad::TAG)
        .with_scorer::<masf_distill::MaskedStudent>(masf_distill::MaskedStudent::TAG)
        .with_fusion::<masf_fusion::CalibratedFusion>(masf_fusion::CalibratedFusion::TAG)
}

/// The views of a configuration; `None` where there is the image alone.
pub(crate) fn build_views(config: &Config, backbone: &dyn FeatureExtractor) -> Result<Option<Box<dyn Views>>> {
    let params = config.views.check()?;
    if params.extra() == 0 {
        return Ok(None);
    }
    let stride = backbone.levels().iter().map(|level| level.stride).max().unwrap_or(1);
    Ok(Some(Box::new(params.build(stride, config.seed)?)))
}

fn branch_name(index: usize) -> String {
    format!("branch{index}")
}

/// A tensor `[H, W]` as an array.
fn to_array(map: &Tensor) -> Result<Array2<f32>> {
    let shape = map.dims2()?;
    let values = map.flatten_all()?.to_vec1::<f32>()?;
    Array2::from_shape_vec(shape, values).map_err(|error| Error::data("anomaly map", error.to_string()))
}

#[cfg(test)]
pub(crate) mod tests;
