#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod bands;
mod checkpoint;
mod error;
mod features;
mod fit;
mod grid;
mod mask;
mod network;
mod ops;
mod params;
mod schedule;
mod smooth;
mod start;
mod student;
#[cfg(test)]
mod tests;
mod trainer;

pub use checkpoint::Checkpoints;
pub use error::{DistillError, Result};
pub use fit::MaskedStudentFit;
pub use params::{Positions, StudentParams, Targets};
pub use student::MaskedStudent;
