//! A vision transformer before its weights are known: the tensors that it needs, and the layers that it offers.

use candle_core::Device;

use super::{Config, Transformer};
use crate::Result;
use crate::networks::Layer;
use crate::weights::{Requirement, Weights};

/// The network, or the part of it that some layers need.
#[derive(Debug, Clone)]
pub(crate) struct Blueprint {
    config: Config,
    /// Whether the last layer norm is needed.
    norm: bool,
    maps: Vec<String>,
}

/// The block of a layer's name, and whether the last layer norm follows: `blocks.5`, `blocks.5.norm`.
fn parse(name: &str) -> Option<(usize, bool)> {
    let block = name.strip_prefix("blocks.")?;
    let (block, norm) = block.strip_suffix(".norm").map_or((block, false), |block| (block, true));
    // Digits alone, without a sign or leading zeros.
    let index = block.parse().ok()?;
    (block == usize::to_string(&index)).then_some((index, norm))
}

impl Blueprint {
    /// The networks of DINOv2 with 12 blocks.
    ///
    /// The default maps are those of every third block, evenly over the depth, as DINOv2's own dense heads take them (DPT:
    /// R. Ranftl et al., "Vision transformers for dense prediction", ICCV 2021). As there, the last layer norm is applied to
    /// each: the sums themselves have a few channels many times larger than the others.
    pub(crate) fn dinov2(width: usize, registers: usize) -> Self {
        let config = Config { width, depth: 12, heads: width / 64, registers, patch: 14, grid: 37 };
        Self::new(config, [2, 5, 8, 11].map(|block| format!("blocks.{block}.norm")).to_vec())
    }

    pub(crate) fn new(config: Config, maps: Vec<String>) -> Self {
        Self { config, norm: true, maps }
    }

    /// Pixels of a patch's side.
    pub(crate) fn patch(&self) -> usize {
        self.config.patch
    }

    /// The names of the default maps, first block first.
    pub(crate) fn maps(&self) -> &[String] {
        &self.maps
    }

    /// The names of all layers.
    pub(crate) fn names(&self) -> Vec<String> {
        (0..self.config.depth).flat_map(|block| [format!("blocks.{block}"), format!("blocks.{block}.norm")]).collect()
    }

    /// The layer of a name.
    pub(crate) fn layer(&self, name: &str) -> Option<Layer> {
        let (block, norm) = parse(name).filter(|(block, norm)| *block < self.config.depth && (self.norm || !norm))?;
        Some(Layer { stride: self.config.patch, order: 2 * block + usize::from(norm), channels: self.config.width })
    }

    /// The blocks up to the last one that is needed, with the maps as its default ones. Unknown names are left out.
    pub(crate) fn select(&self, maps: &[String]) -> Self {
        let wanted = maps.iter().filter(|name| self.layer(name).is_some()).filter_map(|name| parse(name));
        let (mut depth, mut norm) = (0, false);
        for (block, with_norm) in wanted {
            depth = depth.max(block + 1);
            norm |= with_norm;
        }
        Self { config: Config { depth, ..self.config }, norm, maps: maps.to_vec() }
    }

    /// The tensors that are needed.
    pub(crate) fn requirements(&self) -> Vec<Requirement> {
        let Config { width, depth, registers, patch, grid, .. } = self.config;
        let hidden = self.config.hidden();
        let mut required = Vec::new();
        let mut need = |name: String, shape: &[usize]| {
            required.push(Requirement { name, shape: shape.to_vec(), non_negative: false });
        };
        need("cls_token".into(), &[1, 1, width]);
        if registers > 0 {
            need("reg_token".into(), &[1, registers, width]);
        }
        need("pos_embed".into(), &[1, self.config.prefix_positions() + grid * grid, width]);
        need("patch_embed.proj.weight".into(), &[width, 3, patch, patch]);
        need("patch_embed.proj.bias".into(), &[width]);
        for block in 0..depth {
            for (layer, rows, columns) in [
                ("attn.qkv", 3 * width, width),
                ("attn.proj", width, width),
                ("mlp.fc1", hidden, width),
                ("mlp.fc2", width, hidden),
            ] {
                need(format!("blocks.{block}.{layer}.weight"), &[rows, columns]);
                need(format!("blocks.{block}.{layer}.bias"), &[rows]);
            }
            for vector in ["norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"] {
                need(format!("blocks.{block}.{vector}"), &[width]);
            }
        }
        if self.norm {
            need("norm.weight".into(), &[width]);
            need("norm.bias".into(), &[width]);
        }
        required
    }

    /// Whether a tensor may be in a file although it is not used: the token that hides patches in training, and classifiers.
    pub(crate) fn ignores(&self, name: &str) -> bool {
        matches!(name, "mask_token" | "head.weight" | "head.bias")
    }

    /// The network with its weights, on a device. The weights have been checked.
    pub(crate) fn assemble(&self, weights: &Weights, device: &Device) -> Result<Transformer> {
        let taps = self.maps.iter().filter(|name| self.layer(name).is_some()).filter_map(|name| parse(name)).collect();
        Transformer::new(self.config, self.norm, taps, |name| weights.get(name, device))
    }
}
