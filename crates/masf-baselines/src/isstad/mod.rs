//! ISSTAD (Jin, Guo and Zhu, "ISSTAD: incremental self-supervised learning based on Transformer for anomaly detection and
//! localization", 2023), of a size that trains on a CPU.
//!
//! The paper restores pixels; here the features of the backbone are restored. A token `f` holds the features of all levels within one
//! cell of the coarsest grid, normalised over the channels of every level and position. A masked autoencoder learns in two stages, the second of which goes on from the first:
//!
//! ```text
//! z = n(T(E v + p))                 encoder on the tokens v that it sees; n: layer norm, T: transformer, p: sines and cosines
//! h_0 = D z + q, mask token + q     decoder; h_k after its layer k
//! g = W n(h_K) + b                  what it restores
//!
//! stage 1: three quarters of the tokens are hidden      L = mean of (g - f)^2 over the hidden ones
//! stage 2: synthetic defects on most images, nothing is hidden, the encoder stays as it is;
//!          a_k = M h_k + c, the logits of "normal" and "defective" for every position of the finest grid
//!          L = mean over k of (weighted cross entropy of a_k) + 0.5 mean of (g - f)^2 + 0.1 (1 - SSIM(g, f))
//! ```
//!
//! The score of a position is the mean square of what its features differ from the restored ones, times 1 + the mean over the layers of
//! its probability to be defective. The paper multiplies with the probability itself; that of defects made in features says too little
//! about real ones.

mod defects;
mod fit;
mod loss;
mod model;
mod network;
mod params;
mod patches;

pub use fit::IsstadFit;
pub use model::Isstad;
pub use params::IsstadParams;
