//! What trainings share: the step of an optimiser, the norm that gradients are clipped by, and the order of the images.
//!
//! Nothing here has hidden state, and results do not depend on the number of threads: a training goes on from its variables, their
//! [`Moments`] and the number of the step. Networks, losses and schedules of the learning rate are the methods' own.

mod adam;
mod epochs;

pub use adam::{AdamStep, Moments, clip_factor, gradient_norm};
pub use epochs::{ShuffledEpochs, steps};
