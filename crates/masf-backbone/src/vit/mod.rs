//! Vision transformers (ViT) of DINOv2, with timm's tensor names.
//!
//! A. Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021; M. Oquab et al., "DINOv2: Learning robust visual features
//! without supervision", TMLR 2024; T. Darcet et al., "Vision transformers need registers", ICLR 2024. An image is cut into
//! patches, each of which becomes a token; a class token and, in the variants with registers, four more come before them.
//! The tokens of the patches after a block, back in their places, are a map.

mod blueprint;
mod positions;
mod transformer;

pub(crate) use blueprint::Blueprint;
pub(crate) use transformer::Transformer;

/// The dimensions of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Config {
    /// Channels of a token.
    pub(crate) width: usize,
    pub(crate) depth: usize,
    pub(crate) heads: usize,
    /// Tokens that belong to no patch, besides the class token. With registers, the class token has no position.
    pub(crate) registers: usize,
    /// Pixels of a patch's side.
    pub(crate) patch: usize,
    /// Patches along a side of the images that it was trained on, for which there are positions.
    pub(crate) grid: usize,
}

impl Config {
    /// Tokens before those of the patches.
    pub(crate) fn prefix(&self) -> usize {
        1 + self.registers
    }

    /// Positions before those of the patches.
    pub(crate) fn prefix_positions(&self) -> usize {
        usize::from(self.registers == 0)
    }

    /// Channels inside the two-layer perceptron of a block.
    pub(crate) fn hidden(&self) -> usize {
        4 * self.width
    }
}

#[cfg(test)]
mod tests;
