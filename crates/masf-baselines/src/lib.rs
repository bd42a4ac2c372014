#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod adtr;
mod cfa;
mod error;
mod isstad;
mod padim;
mod patchcore;
mod rdpp;
mod training;

pub use adtr::{Adtr, AdtrFit, AdtrParams};
pub use cfa::{Cfa, CfaFit, CfaParams};
pub use error::{BaselineError, Result};
pub use isstad::{Isstad, IsstadFit, IsstadParams};
pub use padim::{Padim, PadimFit, PadimParams};
pub use patchcore::{PatchCore, PatchCoreFit, PatchCoreParams};
pub use rdpp::{Rdpp, RdppFit, RdppParams};
