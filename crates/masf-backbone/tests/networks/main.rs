//! Networks with generated weights: what a backbone promises, and parity with torchvision.

mod common;
mod contract;
mod torchvision;
