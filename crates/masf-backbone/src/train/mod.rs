//! Training of the compact network of `masf-nano` by distillation: a student learns to give, from the image alone, what larger
//! pretrained networks give (G. Hinton et al., "Distilling the knowledge in a neural network", 2015; for anomaly detection as in
//! K. Batzner et al., "EfficientAD", 2024, whose network is distilled on images of another domain too).
//!
//! - [`Teacher`]: one or more [`Backbone`](crate::Backbone)s; their maps at one stride are centred, scaled to equal total variance, put side by
//!   side and projected to their principal components. Projected features keep the distances that a memory bank compares.
//! - [`Trainer`]: student, optimiser (AdamW), average of the weights, checkpoints, and the file of weights at the end.
//!
//! The student is the network of the registry itself, with batch norm over the batch; nothing is taken from the teacher's
//! weights. On the CPU Candle's own convolutions have slow gradients, so convolution, norm and ReLU are one operation here,
//! made of matrix products. Results are the same for any number of threads.
//!
//! The example `train_backbone` runs it.

mod conv;
mod layer;
mod matmul;
mod network;
mod optimiser;
mod teacher;
mod trainer;

#[cfg(test)]
mod tests;

pub use teacher::Teacher;
pub use trainer::{Schedule, Trainer};
