//! Networks with generated weights: what a backbone promises, and parity with torchvision and timm.

mod common;
mod contract;
#[cfg(feature = "vit")]
mod dinov2;
mod noise;
mod torchvision;
