//! PaDiM (Defard et al., "PaDiM: a patch distribution modeling framework", ICPR 2020).
//!
//! The features of all levels are laid on the grid of the finest one (nearest neighbour), a random choice of their channels
//! is kept, and every position of the grid has a Gaussian of its own: mean `m`, covariance `S + e I` with the sample
//! covariance `S` (divisor N - 1) and `e = 0.01`. The score is the Mahalanobis distance `sqrt((x - m)' (S + e I)^-1 (x - m))`,
//! computed as the norm of the solution `z` of `L z = x - m` with the Cholesky factor `L L' = S + e I`. Objects must lie
//! alike in all images.

mod cholesky;
mod embedding;
mod fit;
mod model;

pub use fit::{PadimFit, PadimParams};
pub use model::Padim;
