//! The checked configuration of a scattering transform.

use crate::error::{Error, Result};

/// What [`Scattering2d`](super::Scattering2d) computes. The default is `scales = 3`, `angles = 8`, `max_order = 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScatteringConfig {
    /// Number of dyadic scales `J`, 1 to 8: wavelets of scale `j` (0 to `J - 1`) have their pass band around `3 pi / 4 / 2^j` radians
    /// per pixel, and the averaging window is about `2^J` pixels wide.
    pub scales: usize,
    /// Number of orientations `L` in half a turn, 2 to 32. The bank is designed for 8.
    pub angles: usize,
    /// Highest order: 1 or 2.
    pub max_order: usize,
}

impl Default for ScatteringConfig {
    fn default() -> Self {
        Self { scales: 3, angles: 8, max_order: 1 }
    }
}

impl ScatteringConfig {
    /// Sets the number of scales `J`.
    pub fn scales(mut self, scales: usize) -> Self {
        self.scales = scales;
        self
    }

    /// Sets the number of orientations `L`.
    pub fn angles(mut self, angles: usize) -> Self {
        self.angles = angles;
        self
    }

    /// Sets the highest order.
    pub fn max_order(mut self, max_order: usize) -> Self {
        self.max_order = max_order;
        self
    }

    /// Number of coefficients per input channel: `1 + J L`, and `L^2 J (J - 1) / 2` more for order 2.
    pub fn coefficients(&self) -> usize {
        let (j, l) = (self.scales, self.angles);
        let second = if self.max_order >= 2 { l * l * j * j.saturating_sub(1) / 2 } else { 0 };
        1 + j * l + second
    }

    /// Errors if a field is outside its range.
    pub fn check(&self) -> Result<()> {
        if !(1..=8).contains(&self.scales) {
            return Err(Error::argument("scales", self.scales, "use 1 to 8"));
        }
        if !(2..=32).contains(&self.angles) {
            return Err(Error::argument("angles", self.angles, "use 2 to 32"));
        }
        if !(1..=2).contains(&self.max_order) {
            return Err(Error::argument("max_order", self.max_order, "use 1 or 2"));
        }
        Ok(())
    }
}
