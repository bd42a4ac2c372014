//! CFA (Lee, Lee and Song, "CFA: coupled-hypersphere-based feature adaptation for target-oriented anomaly localization", IEEE
//! Access 10, 2022).
//!
//! A patch `p` (features of all levels, averaged over 3 x 3 positions, on the grid of the finest level, with its two coordinates)
//! becomes a descriptor `phi(p)` by a learned 1 x 1 convolution. The memory bank holds, for every position of the grid, the mean
//! of the initial descriptors of all training images there, or fewer centres by k-means of these. Learning moves `phi` and a
//! radius `r`, with the squared distances `d` of a patch to its `K` nearest centres and to the `J` next ones:
//!
//! ```text
//! L_att = mean over K of max(0, d - r^2)         L_rep = mean over J of max(0, r^2 - d - alpha)
//! L = (L_att + L_rep) / nu
//! ```
//!
//! The score of a position is its distance to the nearest centre times the softmin of its `K` nearest distances.

mod fit;
mod loss;
mod model;
mod params;

pub use fit::CfaFit;
pub use model::Cfa;
pub use params::CfaParams;
