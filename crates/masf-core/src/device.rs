//! Which device computes, as a setting.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;

use crate::{Error, Result};

/// A device by name: `cpu`, `cuda` or `metal`; `cuda:1` is the second one of its kind.
///
/// Devices other than the CPU need the Cargo feature of the same name. That it is there is looked at by [`open`](Self::open), not
/// when the name is read, so settings can be shared between machines.
///
/// ```
/// use masf_core::DeviceChoice;
/// assert_eq!("cuda:1".parse::<DeviceChoice>()?, DeviceChoice::Cuda(1));
/// assert!("gpu".parse::<DeviceChoice>().is_err());
/// assert!(DeviceChoice::Cpu.open()?.is_cpu());
/// # Ok::<(), masf_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum DeviceChoice {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU by its index; feature `cuda` (with cuDNN: `cudnn`).
    Cuda(usize),
    /// An Apple GPU by its index; feature `metal`.
    Metal(usize),
}

impl DeviceChoice {
    /// Opens the device.
    ///
    /// # Errors
    /// [`Error::Argument`] if support for it is not built in, [`Error::Backend`] if it cannot be used.
    pub fn open(self) -> Result<Device> {
        let missing = |feature: &str| {
            Err(Error::argument("device", self, format!("cpu, or a build of masf with the feature `{feature}`")))
        };
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(index) if cfg!(feature = "cuda") => Ok(Device::new_cuda(index)?),
            Self::Metal(index) if cfg!(feature = "metal") => Ok(Device::new_metal(index)?),
            Self::Cuda(_) => missing("cuda"),
            Self::Metal(_) => missing("metal"),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Metal(index) => write!(f, "metal:{index}"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (kind, index) = text.split_once(':').unwrap_or((text, "0"));
        match (kind, index.parse()) {
            ("cpu", _) if text == "cpu" => Ok(Self::Cpu),
            ("cuda", Ok(index)) => Ok(Self::Cuda(index)),
            ("metal", Ok(index)) => Ok(Self::Metal(index)),
            _ => Err(Error::argument("device", text, "cpu, cuda, cuda:INDEX, metal or metal:INDEX")),
        }
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() -> Result<()> {
        for (name, choice) in [
            ("cpu", DeviceChoice::Cpu),
            ("cuda:0", DeviceChoice::Cuda(0)),
            ("cuda:7", DeviceChoice::Cuda(7)),
            ("metal:0", DeviceChoice::Metal(0)),
        ] {
            assert_eq!(name.parse::<DeviceChoice>()?, choice);
            assert_eq!(choice.to_string(), name);
        }
        assert_eq!("cuda".parse::<DeviceChoice>()?, DeviceChoice::Cuda(0));
        for name in ["", "gpu", "cpu:0", "cuda:", "cuda:-1", "cuda:x", "CUDA"] {
            let message = name.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(message.contains("cuda:INDEX"), "{message}");
        }
        Ok(())
    }

    #[cfg(not(any(feature = "cuda", feature = "metal")))]
    #[test]
    fn devices_that_are_not_built_in_name_their_feature() {
        for (choice, feature) in [(DeviceChoice::Cuda(0), "`cuda`"), (DeviceChoice::Metal(1), "`metal`")] {
            let error = choice.open().unwrap_err();
            assert!(error.to_string().contains(feature), "{error}");
            assert_eq!(error.fault(), crate::Fault::Argument);
        }
    }
}
