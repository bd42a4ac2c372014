//! How exactly the engine multiplies.

/// The type of the factors of dense convolutions; sums are `f32` always.
///
/// It is part of what a model is: features of either precision differ in the third digit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Activations and weights are rounded to `bf16` (8 significant bits) where that pays: 1x1 convolutions, and larger ones that
    /// Winograd's method does not suit. Twice as fast there with AVX512-BF16; other processors round the same way and multiply
    /// in `f32`, which gives the same features up to the rounding of sums, at no gain.
    Bf16,
}
