//! The registry of backbones: names, architectures, input normalisation, and where weights come from under which licence.
//!
//! Pure data. The crate `masf-backbone` builds networks from it; nothing here reads files or the network.
//!
//! ```
//! let model = masf_models::find("resnet18").ok_or("unknown")?;
//! let weights = model.weights.ok_or("needs no weights")?;
//! assert_eq!(weights.hub.map(|hub| hub.repository), Some("timm/resnet18.tv_in1k"));
//! # Ok::<(), &str>(())
//! ```

#![forbid(unsafe_code)]

mod registry;

pub use registry::MODELS;

/// A backbone that can be asked for by name.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Model {
    /// The name in configurations and on the command line, such as `resnet18`.
    pub name: &'static str,
    /// The network.
    pub architecture: Architecture,
    /// Mean per channel (R, G, B) of values in `[0, 1]`; the network's input is `(x - mean) / std`.
    pub mean: [f32; 3],
    /// Standard deviation per channel (R, G, B) of values in `[0, 1]`.
    pub std: [f32; 3],
    /// The weights that the name stands for; none if the architecture has no weights.
    pub weights: Option<Weights>,
}

/// The kinds of networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// Sandler et al., "MobileNetV2: Inverted residuals and linear bottlenecks" (2018), width 1.0, batch norm folded.
    MobileNetV2 {
        /// How 3x3 convolutions are padded.
        padding: PaddingRule,
    },
    /// He et al., "Identity mappings in deep residual networks" (2016): pre-activation, 50 layers, the first three stages.
    ResNet50V2,
    /// He et al., "Deep residual learning for image recognition" (2016), with batch norm, under torchvision's tensor names.
    ResNet {
        /// Residual blocks of the four stages.
        blocks: [usize; 4],
        /// Two 3x3 convolutions a block, or a bottleneck.
        block: Block,
    },
    /// The compact network of `masf-nano`: 3x3 convolutions and bottleneck blocks, made for the CPU engine of `masf-backbone`.
    Nano,
    /// Oquab et al., "DINOv2: Learning robust visual features without supervision" (2024): a vision transformer of 12 blocks with
    /// layer scale on patches of 14 x 14, heads of 64 channels, under timm's tensor names. Its maps all have stride 14.
    DinoV2 {
        /// Channels of a token.
        width: usize,
        /// Tokens that belong to no patch (Darcet et al., "Vision transformers need registers", 2024), besides the class token.
        registers: usize,
    },
    /// Wavelet scattering, which is computed and not learned.
    Scattering,
}

impl Architecture {
    /// The side of the patches, in pixels, that the network cuts images into; none if it does not.
    ///
    /// The sides of images must be multiples of it, and it is the stride of all levels.
    pub fn patch(self) -> Option<usize> {
        match self {
            Self::DinoV2 { .. } => Some(14),
            _ => None,
        }
    }
}

/// Zero padding of 3x3 convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PaddingRule {
    /// One pixel on every side.
    Symmetric,
    /// TensorFlow's SAME: none before and one after, for stride 2 on even sizes.
    Same,
}

/// The residual block of a [`Architecture::ResNet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Block {
    /// Two 3x3 convolutions.
    Basic,
    /// 1x1, 3x3, 1x1; the inner ones have `width` channels in the first stage, twice as many in each one after.
    Bottleneck {
        /// 64; 128 in the wide networks (Zagoruyko, Komodakis, "Wide residual networks", 2016).
        width: usize,
    },
}

/// A file of weights and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Weights {
    /// SHA-256 of the file in hexadecimal, where the file was at hand when this version was made.
    pub sha256: Option<&'static str>,
    /// Where it can be downloaded; none if it has to be given as a file.
    pub hub: Option<HubFile>,
    /// SPDX identifier of the weights' licence.
    pub licence: &'static str,
    /// Who trained the weights on what, and what was done to them since.
    pub origin: &'static str,
}

/// A file in a repository of the Hugging Face hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubFile {
    /// Owner and name.
    pub repository: &'static str,
    /// Branch, tag or commit.
    pub revision: &'static str,
    /// The file's path.
    pub path: &'static str,
}

/// The model of a name.
pub fn find(name: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.name == name)
}

/// The file of weights (safetensors) that is part of this crate, for a model that has one; needs the feature `embedded`, which is
/// on by default.
///
/// ```
/// # #[cfg(feature = "embedded")]
/// assert!(masf_models::embedded("masf-nano").is_some());
/// assert!(masf_models::embedded("resnet18").is_none());
/// ```
pub fn embedded(name: &str) -> Option<&'static [u8]> {
    EMBEDDED.iter().find(|(model, _)| *model == name).map(|(_, file)| *file)
}

/// The embedded files by the names of their models.
#[cfg(feature = "embedded")]
const EMBEDDED: &[(&str, &[u8])] = &[("masf-nano", include_bytes!("../weights/masf-nano.safetensors"))];
#[cfg(not(feature = "embedded"))]
const EMBEDDED: &[(&str, &[u8])] = &[];

/// All names, in the order of [`MODELS`].
pub fn names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|model| model.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_hashes_are_unique() {
        for (index, model) in MODELS.iter().enumerate() {
            for other in &MODELS[index + 1..] {
                assert_ne!(model.name, other.name);
                let hash = |model: &Model| model.weights.and_then(|weights| weights.sha256);
                assert!(hash(model).is_none() || hash(model) != hash(other), "{} and {}", model.name, other.name);
            }
            assert_eq!(find(model.name), Some(model));
        }
        assert_eq!(find("resnet"), None);
    }

    #[test]
    fn entries_are_complete() {
        for model in MODELS {
            let learned = model.architecture != Architecture::Scattering;
            assert_eq!(model.weights.is_some(), learned, "{}", model.name);
            assert!(model.std.iter().all(|std| *std > 0.0), "{}", model.name);
            let Some(weights) = model.weights else { continue };
            assert!(weights.hub.is_some() || weights.sha256.is_some(), "{} cannot be found or verified", model.name);
            if let Some(hash) = weights.sha256 {
                assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
            }
        }
    }

    #[test]
    fn the_readme_lists_every_model_and_licence() {
        let readme = include_str!("../README.md");
        for model in MODELS {
            let row = readme.lines().find(|line| line.starts_with(&format!("| `{}` ", model.name)));
            let row = row.unwrap_or_else(|| panic!("README.md has no row for {}", model.name));
            let Some(weights) = model.weights else { continue };
            assert!(row.contains(weights.licence), "{row}");
            if let Some(hub) = weights.hub {
                assert!(row.contains(hub.repository), "{row}");
            }
            if let Some(hash) = weights.sha256 {
                let row = format!("| `{}` | `{hash}` |", model.name);
                assert!(readme.lines().any(|line| line == row), "README.md lacks the SHA-256 of {}", model.name);
            }
        }
    }
}
