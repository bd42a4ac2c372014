//! The configuration: everything that a fit depends on besides the images and the weights.

use std::path::Path;

use masf_baselines::{PadimFit, PadimParams, PatchCoreFit, PatchCoreParams};
use masf_core::Normalisation;
use masf_core::{Error, Result};
use masf_data::{Preprocess, Resize, Size};
use masf_fusion::FusionParams;
use masf_memory::{MemoryBankParams, Reduction, Standardisation};
use masf_tta::ViewParams;

use crate::{ByteSize, Method};

/// All settings, with defaults for each; read from TOML, refused if a key is unknown.
///
/// The file `docs/masf.toml` lists every option with its default and its meaning.
///
/// ```
/// let config = masf::Config::from_toml("
///     seed = 7
///     [input]
///     size = '640x256'
///     [threshold]
///     false_alarm_rate = 0.01
/// ")?;
/// assert_eq!(config.input.size.to_string(), "640x256");
/// assert!(masf::Config::from_toml("sede = 7").unwrap_err().to_string().contains("sede"));
/// # Ok::<(), masf::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Seed of everything random.
    pub seed: u64,
    /// Bytes that fitting may use for features: three quarters for the memory bank's candidates, a quarter for the cache
    /// of extracted features, which continues in a temporary file.
    pub memory_budget: ByteSize,
    /// What is learned: masf itself, or one of the baselines.
    pub method: Method,
    /// What the backbone sees.
    pub input: InputConfig,
    /// The feature extractor.
    pub backbone: BackboneConfig,
    /// The memory bank of the method `masf`.
    pub memory: MemoryConfig,
    /// The method `patchcore`.
    pub patchcore: PatchCoreConfig,
    /// The method `padim`.
    pub padim: PadimConfig,
    /// Test-time views; none by default.
    pub views: ViewParams,
    /// Calibration and fusion.
    pub fusion: FusionParams,
    /// Thresholds.
    pub threshold: ThresholdConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            memory_budget: ByteSize::mib(512),
            method: Method::default(),
            input: InputConfig::default(),
            backbone: BackboneConfig::default(),
            memory: MemoryConfig::default(),
            patchcore: PatchCoreConfig::default(),
            padim: PadimConfig::default(),
            views: ViewParams::default(),
            fusion: FusionParams::default(),
            threshold: ThresholdConfig::default(),
        }
    }
}

/// What the backbone sees of an image.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InputConfig {
    /// Size of the model's input, `SIDE` or `HEIGHTxWIDTH`.
    #[serde(with = "size_text")]
    pub size: Size,
    /// Resize to this size first and keep the centre; nothing is cut off by default.
    #[serde(with = "optional_size_text", skip_serializing_if = "Option::is_none")]
    pub crop_from: Option<Size>,
    /// How many bits of 16-bit images the camera fills, 8 to 16.
    pub significant_bits: u8,
}

impl Default for InputConfig {
    fn default() -> Self {
        Self { size: Size::square(256), crop_from: None, significant_bits: 16 }
    }
}

impl InputConfig {
    /// The preprocessing for a backbone's normalisation.
    ///
    /// # Errors
    /// Sizes out of range.
    pub fn preprocess(&self, normalisation: Normalisation) -> Result<Preprocess> {
        let mut preprocess = Preprocess::new(self.size, normalisation)?.with_significant_bits(self.significant_bits)?;
        if let Some(size) = self.crop_from {
            preprocess = preprocess.with_crop_from(Resize::Exact(size))?;
        }
        Ok(preprocess)
    }
}

/// The feature extractor.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackboneConfig {
    /// A name of the registry, such as `resnet18`; `scattering` needs no weights.
    pub name: String,
    /// The levels to extract, by their strides in pixels.
    pub strides: Vec<usize>,
}

impl Default for BackboneConfig {
    fn default() -> Self {
        Self { name: "scattering".into(), strides: vec![8, 16] }
    }
}

/// The memory bank; levels, seed and memory budget are those of the whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryConfig {
    /// Side of the square over which features are averaged around a position, odd; 1 is no averaging.
    pub neighbourhood: usize,
    /// How channels are scaled before distances are taken.
    pub standardise: Standardisation,
    /// How descriptors are brought to fewer dimensions: less memory and time for some accuracy.
    pub reduction: Reduction,
    /// Most patch descriptors that are sampled from the training images; fewer where the memory budget is tighter.
    pub candidates: usize,
    /// Dimensions of the random projection in which the coreset is chosen; 0 is none.
    pub projection: usize,
    /// Most descriptors that the bank keeps.
    pub prototypes: usize,
    /// Angles at which training images are learned from, evenly spread over the full circle: 0 or 1 is upright only, up to 36.
    pub turns: usize,
    /// Most turned images that are learned from, evenly chosen; bounds the time of fitting.
    pub turned_images: usize,
    /// One bank for each stride, with a score map of its own, instead of one over all.
    pub per_level: bool,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        let MemoryBankParams { neighbourhood, standardise, reduction, candidates, projection, prototypes, .. } =
            MemoryBankParams::default();
        Self {
            neighbourhood,
            standardise,
            reduction,
            candidates,
            projection,
            prototypes,
            turns: 0,
            turned_images: 1000,
            per_level: false,
        }
    }
}

/// The method `patchcore`; levels, seed and memory budget are those of the whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PatchCoreConfig {
    /// Side of the square over which features are averaged around a position, odd.
    pub neighbourhood: usize,
    /// Most patch descriptors that are sampled from the training images; fewer where the memory budget is tighter.
    pub candidates: usize,
    /// Dimensions of the random projection in which the coreset is chosen; 0 is none.
    pub projection: usize,
    /// Size of the coreset.
    pub prototypes: usize,
    /// Neighbours that weigh the image score; 0 takes the largest value of the map.
    pub reweight_neighbours: usize,
}

impl Default for PatchCoreConfig {
    fn default() -> Self {
        let PatchCoreParams { neighbourhood, candidates, projection, prototypes, reweight_neighbours, .. } =
            PatchCoreParams::default();
        Self { neighbourhood, candidates, projection, prototypes, reweight_neighbours }
    }
}

/// The method `padim`; levels, seed and memory budget are those of the whole configuration.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PadimConfig {
    /// Channels that are kept, drawn at random from those of all levels.
    pub dimensions: usize,
    /// What is added to the diagonal of every covariance.
    pub regularisation: f64,
}

impl Default for PadimConfig {
    fn default() -> Self {
        let PadimParams { dimensions, regularisation, .. } = PadimParams::default();
        Self { dimensions, regularisation }
    }
}

/// Most angles: every ten degrees.
const MOST_TURNS: usize = 36;

/// Thresholds from normal images.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ThresholdConfig {
    /// The share of normal images that may be called anomalous, in `(0, 1)`.
    pub false_alarm_rate: f64,
    /// Parts that the training images are split into; each part is scored by a model of the others. At least 2.
    pub folds: usize,
    /// The p-value below which a batch of scores is said to differ from the calibration, above 0 and at most 0.5.
    pub drift_level: f64,
}

impl Default for ThresholdConfig {
    fn default() -> Self {
        Self { false_alarm_rate: 0.05, folds: 5, drift_level: 0.001 }
    }
}

impl Config {
    /// Reads a configuration; keys that are left out have their defaults.
    ///
    /// # Errors
    /// Text that is not TOML, unknown keys, or values of the wrong type or range.
    pub fn from_toml(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text).map_err(|error| Error::data("configuration", error.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// A file that cannot be read, and as [`from_toml`](Self::from_toml); the message names the file.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, source))?;
        toml::from_str::<Self>(&text)
            .map_err(|error| Error::data(path.display().to_string(), error.to_string()))
            .and_then(|config| config.check().map(|()| config))
    }

    /// The configuration as TOML, with every key.
    ///
    /// # Errors
    /// Values that TOML cannot hold, such as a seed above `i64::MAX`.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::data("configuration", error.to_string()))
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`Error::Argument`] or a component's own error names the setting.
    pub fn check(&self) -> Result<()> {
        if i64::try_from(self.seed).is_err() {
            return Err(Error::argument("seed", self.seed, "0 to 9223372036854775807"));
        }
        if self.memory_budget < ByteSize::mib(1) {
            return Err(Error::argument("memory_budget", self.memory_budget, "at least 1MiB"));
        }
        let rate = self.threshold.false_alarm_rate;
        if !(rate > 0.0 && rate < 1.0) {
            return Err(Error::argument("threshold.false_alarm_rate", rate, "a number between 0 and 1"));
        }
        if !(2..=100).contains(&self.threshold.folds) {
            return Err(Error::argument("threshold.folds", self.threshold.folds, "2 to 100"));
        }
        let level = self.threshold.drift_level;
        if !(level > 0.0 && level <= 0.5) {
            return Err(Error::argument("threshold.drift_level", level, "above 0 and at most 0.5"));
        }
        if self.backbone.strides.is_empty() {
            return Err(Error::argument("backbone.strides", "empty", "at least one stride, such as [8, 16]"));
        }
        self.input.preprocess(Normalisation::IMAGENET)?;
        for params in self.memory_banks() {
            params.check()?;
        }
        self.patchcore()?;
        self.padim()?;
        if self.memory.turns > MOST_TURNS {
            return Err(Error::argument("memory.turns", self.memory.turns, format!("0 to {MOST_TURNS}")));
        }
        self.views.check()?;
        self.fusion.clone().check()?;
        Ok(())
    }
}

impl Config {
    /// The part of the memory budget for the cache of extracted features.
    pub(crate) fn cache_budget(&self) -> usize {
        self.memory_budget.0 / 4
    }

    /// The part of the memory budget for learning.
    fn learning_budget(&self) -> usize {
        self.memory_budget.0 - self.cache_budget()
    }

    /// The learner of the method `patchcore`.
    pub(crate) fn patchcore(&self) -> Result<PatchCoreFit> {
        let PatchCoreConfig { neighbourhood, candidates, projection, prototypes, reweight_neighbours } = self.patchcore;
        let params = PatchCoreParams {
            levels: self.backbone.strides.clone(),
            neighbourhood,
            candidates,
            projection,
            prototypes,
            reweight_neighbours,
            memory_budget: self.learning_budget(),
            seed: self.seed,
        };
        Ok(params.check()?)
    }

    /// The learner of the method `padim`.
    pub(crate) fn padim(&self) -> Result<PadimFit> {
        let PadimConfig { dimensions, regularisation } = self.padim;
        let params = PadimParams {
            levels: self.backbone.strides.clone(),
            dimensions,
            regularisation,
            memory_budget: self.learning_budget(),
            seed: self.seed,
        };
        Ok(params.check()?)
    }

    /// The settings of the memory banks: one over all strides, or one for each.
    pub(crate) fn memory_banks(&self) -> Vec<MemoryBankParams> {
        let strides = &self.backbone.strides;
        if self.memory.per_level {
            strides.iter().map(|stride| self.memory_params(vec![*stride])).collect()
        } else {
            vec![self.memory_params(strides.clone())]
        }
    }

    /// The settings of a memory bank over some levels.
    fn memory_params(&self, levels: Vec<usize>) -> MemoryBankParams {
        let MemoryConfig { neighbourhood, standardise, reduction, candidates, projection, prototypes, .. } =
            self.memory;
        MemoryBankParams {
            levels,
            neighbourhood,
            standardise,
            reduction,
            candidates,
            memory_budget: self.learning_budget(),
            projection,
            prototypes,
            seed: self.seed,
            ..MemoryBankParams::default()
        }
    }
}

/// `"640x256"`.
mod size_text {
    use super::Size;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(size: &Size, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(size)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        match SizeText::deserialize(deserializer)? {
            SizeText::Side(side) => Ok(Size::square(side)),
            SizeText::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }

    #[derive(serde::Deserialize)]
    #[serde(untagged, expecting = "an image size such as 256 or \"640x256\"")]
    enum SizeText {
        Side(u32),
        Text(String),
    }
}

mod optional_size_text {
    use super::{Size, size_text};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(size: &Option<Size>, serializer: S) -> Result<S::Ok, S::Error> {
        match size {
            Some(size) => size_text::serialize(size, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Size>, D::Error> {
        #[derive(Deserialize)]
        struct Wrapped(#[serde(with = "size_text")] Size);
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_file_lists_every_option_with_its_default() {
        let documented = include_str!("../../../docs/masf.toml");
        let config = Config::from_toml(documented).unwrap();
        assert_eq!(config, Config::default());
        // Every key is there, not just those that differ.
        let written: toml::Table = toml::from_str(documented).unwrap();
        let complete: toml::Table = toml::from_str(&Config::default().to_toml().unwrap()).unwrap();
        for (key, value) in &complete {
            let Some(section) = value.as_table() else {
                assert!(written.contains_key(key), "{key}");
                continue;
            };
            for option in section.keys() {
                assert!(written[key].as_table().is_some_and(|table| table.contains_key(option)), "{key}.{option}");
            }
        }
    }

    #[test]
    fn toml_round_trip() {
        let mut config = Config { seed: 3, memory_budget: ByteSize(1_234_567), ..Config::default() };
        config.method = Method::PatchCore;
        config.input.crop_from = Some(Size::new(300, 290));
        config.fusion.image_score = masf_fusion::ImageScore::TopFraction(0.01);
        assert_eq!(Config::from_toml(&config.to_toml().unwrap()).unwrap(), config);
    }
}
