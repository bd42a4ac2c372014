//! The configuration: everything that a fit depends on besides the images and the weights.

mod baselines;
mod learners;
mod size_text;

use std::path::Path;

use masf_backbone::Precision;
use masf_baselines::{AdtrParams, CfaParams, IsstadParams, RdppParams};
use masf_core::{DeviceChoice, Error, Normalisation, Result};
use masf_data::{Preprocess, Resize, Size};
use masf_distill::StudentParams;
use masf_fusion::FusionParams;
use masf_memory::{MemoryBankParams, Reduction, Search, Standardisation};
use masf_models::Architecture;
use masf_tta::ViewParams;

pub use baselines::{PadimConfig, PatchCoreConfig};
pub(crate) use learners::whole_budget;

use crate::{ByteSize, Method, orientations};

/// All settings, with defaults for each; read from TOML, refused if a key is unknown.
///
/// The defaults are the same for all backbones, with the exceptions of [`Config::for_backbone`].
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
    /// Bytes that fitting may use for features: three quarters for the memory bank's candidates, a sixteenth for the cache
    /// of extracted features, which continues in a temporary file. Beside it stand 4 bytes for each score of every good image
    /// (positions x maps x views x angles) and for each of its mean features.
    pub memory_budget: ByteSize,
    /// What is learned: masf itself, or one of the baselines.
    pub method: Method,
    /// What is learned, in the order of the score maps; at least one, each once.
    pub branches: Vec<Branch>,
    /// Angles that every image is inspected at, evenly spread, for parts that lie at any angle: the one at which it looks most normal
    /// counts. The largest disc about the centre alone is seen, so the input is square. Each costs a pass through backbone and branches. 1, the default: as it is.
    pub orientations: usize,
    /// What the backbone sees.
    pub input: InputConfig,
    /// The feature extractor.
    pub backbone: BackboneConfig,
    /// The memory bank of the method `masf`.
    pub memory: MemoryConfig,
    /// Test-time views; none by default.
    pub views: ViewParams,
    /// The method `patchcore`.
    pub patchcore: PatchCoreConfig,
    /// The method `padim`.
    pub padim: PadimConfig,
    /// The method `cfa`; levels and seed are those of the whole configuration.
    pub cfa: CfaParams,
    /// The method `rdpp`; levels and seed are those of the whole configuration.
    pub rdpp: RdppParams,
    /// The method `adtr`; levels and seed are those of the whole configuration.
    pub adtr: AdtrParams,
    /// The method `isstad`; levels and seed are those of the whole configuration.
    pub isstad: IsstadParams,
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
            method: Method::default(),
            branches: vec![Branch::Memory],
            orientations: 1,
            input: InputConfig::default(),
            backbone: BackboneConfig::default(),
            memory: MemoryConfig::default(),
            distill: StudentParams::default(),
            views: ViewParams::default(),
            patchcore: PatchCoreConfig::default(),
            padim: PadimConfig::default(),
            cfa: CfaParams::default(),
            rdpp: RdppParams::default(),
            adtr: AdtrParams::default(),
            isstad: IsstadParams::default(),
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
    #[serde(with = "size_text::optional", skip_serializing_if = "Option::is_none")]
    pub crop_from: Option<Size>,
    /// How many bits of 16-bit images the camera fills, 8 to 16.
    pub significant_bits: u8,
    /// The backbone sees tiles of this size instead of the whole `size`; whole images by default.
    #[serde(with = "size_text::optional", skip_serializing_if = "Option::is_none")]
    pub tile: Option<Size>,
    /// Least overlap of neighbouring tiles in pixels, at most the shorter side of a tile less the largest stride.
    pub tile_overlap: u32,
}

impl Default for InputConfig {
    fn default() -> Self {
        Self { size: Size::square(256), crop_from: None, significant_bits: 16, tile: None, tile_overlap: 64 }
    }
}

impl InputConfig {
    /// Checks the tiles, if there are any, for a backbone of a largest stride.
    pub(crate) fn check_tiles(&self, largest_stride: usize) -> Result<()> {
        let Some(tile) = self.tile else { return Ok(()) };
        let divides = |size: Size| {
            [size.height, size.width].iter().all(|side| *side > 0 && (*side as usize).is_multiple_of(largest_stride))
        };
        let expected = format!("sides that are multiples of the largest stride, {largest_stride}");
        if !divides(tile) {
            return Err(Error::argument("input.tile", tile, expected));
        }
        if !divides(self.size) {
            return Err(Error::argument("input.size (with tiles)", self.size, expected));
        }
        if tile.height > self.size.height || tile.width > self.size.width {
            return Err(Error::argument("input.tile", tile, format!("at most the input's size, {}", self.size)));
        }
        // Tiles are at least a stride apart.
        let most = (tile.height.min(tile.width) as usize).saturating_sub(largest_stride);
        if self.tile_overlap as usize > most {
            let expected = format!("at most {most}, the shorter side of a tile less the largest stride");
            return Err(Error::argument("input.tile_overlap", self.tile_overlap, expected));
        }
        Ok(())
    }

    /// The preprocessing at one angle; [`Config::preprocess`] is that of the whole.
    fn preprocess(&self, normalisation: Normalisation) -> Result<Preprocess> {
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
    /// A name of the registry, such as `resnet18`; the weights of `masf-nano` are part of the library, and `scattering` has none.
    pub name: String,
    /// The levels to extract, by their strides in pixels; all levels that the network has at a stride.
    pub strides: Vec<usize>,
    /// Where it computes while fitting. A loaded model computes where [`ReadOptions`](crate::ReadOptions) say.
    pub device: DeviceChoice,
    /// How exactly convolutional networks multiply on the CPU; part of the fitted model.
    pub precision: Precision,
}

impl Default for BackboneConfig {
    fn default() -> Self {
        Self { name: "masf-nano".into(), strides: vec![8, 16], device: DeviceChoice::Cpu, precision: Precision::F32 }
    }
}

/// The memory bank; levels, seed and memory budget are those of the whole configuration.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryConfig {
    /// Side of the square over which features are averaged around a position, odd; 1 is no averaging.
    pub neighbourhood: usize,
    /// How channels are scaled before distances are taken.
    pub standardise: Standardisation,
    /// How descriptors are brought to fewer dimensions: less memory and time for some accuracy.
    pub reduction: Reduction,
    /// Most patches of the training images that prototypes are chosen among; fewer where the memory budget is tighter.
    pub candidates: usize,
    /// Dimensions of the random projection in which the coreset is chosen; 0 is none.
    pub projection: usize,
    /// Most descriptors that the bank keeps.
    pub prototypes: usize,
    /// How the nearest prototype is found.
    pub search: Search,
    /// Random channels of each level that spectral anchors are made of, where they are used.
    pub anchor_channels: usize,
    /// The weight of squared distances of spectral anchors beside those of descriptors; 0 leaves them out.
    pub anchor_weight: f64,
    /// One bank for each stride, with a score map of its own, instead of one over all.
    pub per_level: bool,
    /// Angles at which training images are learned from, evenly spread over the full circle: 0 or 1 is upright only, up to 36.
    pub turns: usize,
    /// Most turned images that are learned from, evenly chosen, up to 2^30; bounds the time of fitting.
    pub turned_images: usize,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        let params = MemoryBankParams::default();
        Self {
            neighbourhood: params.neighbourhood,
            standardise: params.standardise,
            reduction: params.reduction,
            candidates: params.candidates,
            projection: params.projection,
            prototypes: params.prototypes,
            search: params.search,
            anchor_channels: params.anchor_channels,
            anchor_weight: params.anchor_weight,
            per_level: false,
            turns: 0,
            turned_images: 1000,
        }
    }
}

/// Most angles: every ten degrees.
const MOST_TURNS: usize = 36;
/// As good as no limit, and a number that TOML holds.
const MOST_TURNED: usize = 1 << 30;

/// Thresholds from normal images.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ThresholdConfig {
    /// The share of normal images that may be called anomalous, in `(0, 1)`.
    pub false_alarm_rate: f64,
    /// Parts that the training images are split into; each part is scored by a model of the others. At least 2. `None`, the default, is
    /// 20 where models without a part come cheaply ([`Fit::cross_fit`](masf_core::Fit::cross_fit)), as those of memory banks do, and
    /// 5 where they are learned anew.
    pub folds: Option<usize>,
    /// The p-value below which a batch of scores is said to differ from the calibration, above 0 and at most 0.5.
    pub drift_level: f64,
}

impl Default for ThresholdConfig {
    fn default() -> Self {
        Self { false_alarm_rate: 0.05, folds: None, drift_level: 0.001 }
    }
}

impl Config {
    /// The default settings with a backbone of the registry.
    ///
    /// Networks that cut images into patches have no levels at strides 8 and 16, and take sides that are multiples of the patch:
    /// for them `strides` is the patch's side, and `size` the largest multiple of it up to 256.
    ///
    /// Convolutional networks that learned from ImageNet have both branches. `masf-nano`, whose few features give the student too little to restore
    /// (`docs/fusion.md`), and what is neither have the memory bank alone.
    ///
    /// ```
    /// let config = masf::Config::for_backbone("dinov2-vits14");
    /// assert_eq!((config.backbone.strides, config.input.size.to_string().as_str()), (vec![14], "252x252"));
    /// assert_eq!(masf::Config::for_backbone("resnet50-v2").branches.len(), 2);
    /// assert_eq!(masf::Config::for_backbone("masf-nano"), masf::Config::default());
    /// ```
    pub fn for_backbone(name: &str) -> Self {
        let mut config = Self::default();
        name.clone_into(&mut config.backbone.name);
        let architecture = masf_models::find(name).map(|model| model.architecture);
        if let Some(Architecture::MobileNetV2 { .. } | Architecture::ResNet50V2 | Architecture::ResNet { .. }) =
            architecture
        {
            config.branches = vec![Branch::Memory, Branch::Distill];
        }
        if let Some(patch) = architecture.and_then(|architecture| architecture.patch()) {
            config.backbone.strides = vec![patch];
            let whole = |side: u32| (side as usize / patch * patch) as u32;
            config.input.size = Size::new(whole(config.input.size.height), whole(config.input.size.width));
        }
        config
    }

    /// Whether anything is trained that passes over the images: the student, or a baseline that is a network.
    pub fn takes_epochs(&self) -> bool {
        match self.method {
            Method::Masf => self.branches.contains(&Branch::Distill),
            Method::PatchCore | Method::Padim => false,
            Method::Cfa | Method::Rdpp | Method::Adtr | Method::Isstad => true,
        }
    }

    /// Sets the passes over the images of every part that is trained.
    pub fn set_epochs(&mut self, epochs: usize) {
        let baselines = [&mut self.cfa.epochs, &mut self.rdpp.epochs, &mut self.adtr.epochs, &mut self.isstad.epochs];
        for setting in baselines.into_iter().chain([&mut self.distill.epochs]) {
            *setting = Some(epochs);
        }
    }

    /// Reads a configuration; keys that are left out have the defaults of [`for_backbone`](Self::for_backbone).
    ///
    /// # Errors
    /// Text that is not TOML, unknown keys, or values of the wrong type or range.
    pub fn from_toml(text: &str) -> Result<Self> {
        let config = Self::parse(text, None).map_err(|error| Error::data("configuration", error.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// A file that cannot be read, and as [`from_toml`](Self::from_toml); the message names the file.
    pub fn from_file(path: &Path) -> Result<Self> {
        let config = Self::read(path, None)?;
        config.check().map_err(|error| crate::error::in_file(path, error))?;
        Ok(config)
    }

    /// Reads a file, unchecked; `backbone`, where given, takes the place of the one that it names.
    pub(crate) fn read(path: &Path, backbone: Option<&str>) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, source))?;
        Self::parse(&text, backbone).map_err(|error| Error::data(path.display().to_string(), error.to_string()))
    }

    fn parse(text: &str, backbone: Option<&str>) -> Result<Self, toml::de::Error> {
        let mut config: Self = toml::from_str(text)?;
        if let Some(name) = backbone {
            name.clone_into(&mut config.backbone.name);
        }
        let table: toml::Table = toml::from_str(text)?;
        let given = |section: &str, key: &str| table.get(section).is_some_and(|section| section.get(key).is_some());
        let defaults = Self::for_backbone(&config.backbone.name);
        if !table.contains_key("branches") {
            config.branches = defaults.branches;
        }
        if !given("backbone", "strides") {
            config.backbone.strides = defaults.backbone.strides;
        }
        if !given("input", "size") {
            config.input.size = defaults.input.size;
        }
        Ok(config)
    }

    /// The preprocessing for a backbone's normalisation: the input's, but where parts lie at any angle
    /// ([`orientations`](Self::orientations)) images keep their aspect ratio, and their middle is seen.
    ///
    /// # Errors
    /// Sizes out of range.
    pub fn preprocess(&self, normalisation: Normalisation) -> Result<Preprocess> {
        let preprocess = self.input.preprocess(normalisation)?;
        match preprocess.resize() {
            Resize::Exact(size) if self.orientations > 1 => {
                Ok(preprocess.with_crop_from(Resize::ShorterSide(size.height.min(size.width)))?)
            }
            _ => Ok(preprocess),
        }
    }

    /// The configuration as TOML, with every key.
    ///
    /// # Errors
    /// Values that TOML cannot hold.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::data("configuration", error.to_string()))
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`Error::Argument`] or, with its section, a component's own error names the setting.
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
        if let Some(folds) = self.threshold.folds.filter(|folds| !(2..=100).contains(folds)) {
            return Err(Error::argument("threshold.folds", folds, "2 to 100"));
        }
        let level = self.threshold.drift_level;
        if !(level > 0.0 && level <= 0.5) {
            return Err(Error::argument("threshold.drift_level", level, "above 0 and at most 0.5"));
        }
        let strides = &self.backbone.strides;
        if strides.first().is_none_or(|first| *first == 0) || !strides.windows(2).all(|pair| pair[0] < pair[1]) {
            let expected = "at least one stride, positive and in ascending order, such as [8, 16]";
            return Err(Error::argument("backbone.strides", format!("{strides:?}"), expected));
        }
        let repeated = (1..self.branches.len()).any(|index| self.branches[..index].contains(&self.branches[index]));
        if self.branches.is_empty() || repeated {
            let value = format!("{:?}", self.branches);
            return Err(Error::argument("branches", value, "at least one of memory and distill, each once"));
        }
        of("distill", self.student_params().check())?;
        self.check_orientations()?;
        self.preprocess(Normalisation::IMAGENET)?;
        self.input.check_tiles(self.backbone.strides.iter().copied().max().unwrap_or(1).max(1))?;
        for params in self.memory_banks() {
            of("memory", params.check())?;
        }
        self.views.check()?;
        of("patchcore", self.patchcore())?;
        if self.method == Method::PatchCore
            && self.patchcore.reweight_neighbours > 0
            && self.views.noise + self.views.shifts > 0
        {
            let expected = "0 with views: an image score of its own has no mean over them";
            return Err(Error::argument("patchcore.reweight_neighbours", self.patchcore.reweight_neighbours, expected));
        }
        of("padim", self.padim())?;
        of("cfa", self.cfa())?;
        of("rdpp", self.rdpp())?;
        of("adtr", self.adtr())?;
        of("isstad", self.isstad())?;
        if self.memory.turns > MOST_TURNS {
            return Err(Error::argument("memory.turns", self.memory.turns, format!("0 to {MOST_TURNS}")));
        }
        let turned = self.memory.turned_images;
        if turned > MOST_TURNED {
            return Err(Error::argument("memory.turned_images", turned, format!("0 to {MOST_TURNED}")));
        }
        self.fusion.clone().check()?;
        Ok(())
    }

    fn check_orientations(&self) -> Result<()> {
        let InputConfig { size, crop_from, .. } = self.input;
        if !(1..=orientations::MOST).contains(&self.orientations) {
            let expected = format!("1 to {}", orientations::MOST);
            return Err(Error::argument("orientations", self.orientations, expected));
        }
        if self.orientations == 1 {
            return Ok(());
        }
        for (name, size) in
            [("input.size (with orientations)", Some(size)), ("input.crop_from (with orientations)", crop_from)]
        {
            if let Some(size) = size.filter(|size| size.height != size.width) {
                return Err(Error::argument(name, size, "a square: a disc is seen at any angle"));
            }
        }
        self.preprocess(Normalisation::IMAGENET)?.doubled()?;
        Ok(())
    }
}

/// What is said of a setting, with its section.
fn of<T>(section: &str, found: Result<T, impl Into<Error>>) -> Result<T> {
    found.map_err(|error| {
        let error: Error = error.into();
        Error::Component { part: "masf", fault: error.fault(), source: format!("[{section}] {error}").into() }
    })
}

#[cfg(test)]
mod tests {
    use masf_fusion::ImageScore;

    use super::*;

    #[test]
    fn the_documented_file_lists_every_option_with_its_default() {
        let documented = include_str!("../../../../docs/masf.toml");
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
    fn defaults_that_a_backbone_cannot_have_are_replaced() {
        let plain = Config::from_toml("backbone.name = 'resnet18'").unwrap();
        assert_eq!((plain.backbone.strides, plain.input.size), (vec![8, 16], Size::square(256)));
        let patches = Config::from_toml("backbone.name = 'dinov2-vitb14-reg4'").unwrap();
        assert_eq!(patches, Config::for_backbone("dinov2-vitb14-reg4"));
        assert_eq!((&patches.backbone.strides, patches.input.size), (&vec![14], Size::square(252)));
        assert_eq!(Config::from_toml(&patches.to_toml().unwrap()).unwrap(), patches);
        // What is given stays, even the default of others.
        let text = "input.size = 256\nbackbone = { name = 'dinov2-vits14', strides = [8, 16], device = 'cuda:1', precision = 'bf16' }";
        let given = Config::from_toml(text).unwrap();
        assert_eq!((given.backbone.strides, given.input.size), (vec![8, 16], Size::square(256)));
        assert_eq!((given.backbone.device, given.backbone.precision), (DeviceChoice::Cuda(1), Precision::Bf16));
        let error = Config::from_toml("backbone.device = 'gpu'").unwrap_err().to_string();
        assert!(error.contains("cuda:INDEX"), "{error}");
    }

    #[test]
    fn parts_at_any_angle_keep_their_shape() {
        let mut config = Config { orientations: 4, ..Config::default() };
        let geometry = |config: &Config| {
            let preprocess = config.preprocess(Normalisation::IMAGENET).unwrap();
            preprocess.geometry(Size::new(480, 640)).unwrap()
        };
        let found = geometry(&config);
        assert_eq!((found.resized, found.top, found.left), (Size::new(256, 341), 0, 42));
        config.input.crop_from = Some(Size::square(300));
        assert_eq!(geometry(&config).resized, Size::new(300, 400));
        config.check().unwrap();
        config.input.crop_from = Some(Size::new(300, 400));
        assert!(config.check().unwrap_err().to_string().contains("input.crop_from"));
        config.orientations = 1;
        config.check().unwrap();
        assert_eq!(geometry(&config).resized, Size::new(300, 400));
    }

    #[test]
    fn the_student_drops_values_beside_a_bank_unless_told_otherwise() {
        let dropout = |branches, dropout| {
            let mut config = Config { branches, ..Config::default() };
            config.distill.dropout = dropout;
            config.student_params().dropout
        };
        assert_eq!(dropout(vec![Branch::Memory, Branch::Distill], None), Some(0.2));
        assert_eq!(dropout(vec![Branch::Distill], None), None);
        for branches in [vec![Branch::Distill], vec![Branch::Distill, Branch::Memory]] {
            assert_eq!(dropout(branches, Some(0.1)), Some(0.1));
        }
    }

    #[test]
    fn toml_round_trip() {
        let mut config = Config { seed: 3, memory_budget: ByteSize(1_234_567), ..Config::default() };
        config.method = Method::PatchCore;
        config.input.crop_from = Some(Size::new(300, 290));
        config.fusion.image_score = ImageScore::Max;
        config.branches = vec![Branch::Distill, Branch::Memory];
        config.distill.epochs = Some(12);
        assert_eq!(Config::from_toml(&config.to_toml().unwrap()).unwrap(), config);
        // TOML has no number as large as this.
        config.memory.turned_images = usize::MAX;
        assert!(config.check().unwrap_err().to_string().contains("memory.turned_images"));
        for branches in [vec![], vec![Branch::Memory, Branch::Memory]] {
            let error = Config { branches, ..Config::default() }.check().unwrap_err();
            assert!(error.to_string().contains("branches"), "{error}");
        }
        assert!("samb".parse::<Branch>().unwrap_err().to_string().contains("memory or distill"));
    }
}
