//! The configuration: everything that a fit depends on besides the images and the weights.

use std::path::Path;

use masf_core::Normalisation;
use masf_core::{Error, Result};
use masf_data::{Preprocess, Resize, Size};
use masf_distill::StudentParams;
use masf_fusion::FusionParams;
use masf_memory::{MemoryBankParams, Reduction, Standardisation};

use crate::ByteSize;

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
    /// What is learned, in the order of the score maps; at least one, each once.
    pub branches: Vec<Branch>,
    /// What the backbone sees.
    pub input: InputConfig,
    /// The feature extractor.
    pub backbone: BackboneConfig,
    /// The memory bank.
    pub memory: MemoryConfig,
    /// The student; the seed is that of the whole configuration.
    pub distill: StudentParams,
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
            branches: vec![Branch::Memory],
            input: InputConfig::default(),
            backbone: BackboneConfig::default(),
            memory: MemoryConfig::default(),
            distill: StudentParams::default(),
            fusion: FusionParams::default(),
            threshold: ThresholdConfig::default(),
        }
    }
}

/// A model of normality that scores the positions of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Branch {
    /// The distance to the nearest normal patch (masf-memory).
    Memory,
    /// The error of a student that restores normal features (masf-distill).
    Distill,
}

impl std::str::FromStr for Branch {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim() {
            "memory" => Ok(Self::Memory),
            "distill" => Ok(Self::Distill),
            other => Err(Error::argument("branch", other, "memory or distill")),
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
}

impl Default for MemoryConfig {
    fn default() -> Self {
        let MemoryBankParams { neighbourhood, standardise, reduction, candidates, projection, prototypes, .. } =
            MemoryBankParams::default();
        Self { neighbourhood, standardise, reduction, candidates, projection, prototypes }
    }
}

/// Thresholds from normal images.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ThresholdConfig {
    /// The share of normal images that may be called anomalous, in `(0, 1)`.
    pub false_alarm_rate: f64,
    /// Parts that the training images are split into; each part is scored by a model of the others. At least 2.
    pub folds: usize,
}

impl Default for ThresholdConfig {
    fn default() -> Self {
        Self { false_alarm_rate: 0.05, folds: 5 }
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
        if self.backbone.strides.is_empty() {
            return Err(Error::argument("backbone.strides", "empty", "at least one stride, such as [8, 16]"));
        }
        let repeated = (1..self.branches.len()).any(|index| self.branches[..index].contains(&self.branches[index]));
        if self.branches.is_empty() || repeated {
            let value = format!("{:?}", self.branches);
            return Err(Error::argument("branches", value, "at least one of memory and distill, each once"));
        }
        self.student_params().check()?;
        self.input.preprocess(Normalisation::IMAGENET)?;
        self.memory_params().check()?;
        self.fusion.clone().check()?;
        Ok(())
    }
}

impl Config {
    /// The part of the memory budget for the cache of extracted features.
    pub(crate) fn cache_budget(&self) -> usize {
        self.memory_budget.0 / 4
    }

    /// The settings of the student.
    pub(crate) fn student_params(&self) -> StudentParams {
        StudentParams { seed: self.seed, ..self.distill.clone() }
    }

    /// The settings of the memory bank.
    pub(crate) fn memory_params(&self) -> MemoryBankParams {
        let MemoryConfig { neighbourhood, standardise, reduction, candidates, projection, prototypes } = self.memory;
        MemoryBankParams {
            levels: self.backbone.strides.clone(),
            neighbourhood,
            standardise,
            reduction,
            candidates,
            memory_budget: self.memory_budget.0 - self.cache_budget(),
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
        config.input.crop_from = Some(Size::new(300, 290));
        config.fusion.image_score = masf_fusion::ImageScore::TopFraction(0.01);
        config.branches = vec![Branch::Distill, Branch::Memory];
        config.distill.epochs = Some(12);
        assert_eq!(Config::from_toml(&config.to_toml().unwrap()).unwrap(), config);
        for branches in [vec![], vec![Branch::Memory, Branch::Memory]] {
            let error = Config { branches, ..Config::default() }.check().unwrap_err();
            assert!(error.to_string().contains("branches"), "{error}");
        }
        assert!("samb".parse::<Branch>().unwrap_err().to_string().contains("memory or distill"));
    }
}
