//! RD++ (Tien et al., "Revisiting reverse distillation for anomaly detection", CVPR 2023), of a size that trains on a CPU.
//!
//! A frozen teacher gives the features of all levels. A projection for every level keeps what normal features have in common; a
//! bottleneck brings the projected levels together on a grid of half the coarsest one's sides, and a decoder restores the teacher's
//! levels from it, coarsest first. With normal features `f`, pseudo-abnormal ones `g` (features with noise in a random region), and
//! the projection `p`, every level adds
//!
//! ```text
//! L_RD    = 1 - cos(decoded, f)                      over whole maps
//! L_ssot  = S(p(f) of an image, p(f) of another)     Sinkhorn divergence of descriptors of unit length
//! L_recon = 1 - cos(p(g), p(f))
//! L_con   = max(0, cos(g, p(f)) - 1/2)
//! L = L_RD + 0.2 (L_ssot + 0.01 L_recon + 0.1 L_con)
//! ```
//!
//! The score of a position is the sum over the levels of `1 - cos` of teacher and decoder there.

mod fit;
mod loss;
mod model;
mod network;
mod noise;
mod params;

pub use fit::RdppFit;
pub use model::Rdpp;
pub use params::RdppParams;
