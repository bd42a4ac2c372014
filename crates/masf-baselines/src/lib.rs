#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod error;
mod padim;
mod patchcore;

pub use error::{BaselineError, Result};
pub use padim::{Padim, PadimFit, PadimParams};
pub use patchcore::{PatchCore, PatchCoreFit, PatchCoreParams};
