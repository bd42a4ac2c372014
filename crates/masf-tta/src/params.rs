//! Which views there are.

use crate::{SpectralViews, ViewError};

/// Settings of the views, unchecked. The default makes none: plain inference.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ViewParams {
    /// Views with phase noise, 0 to 64. Default 0.
    pub noise: usize,
    /// The largest phase change in radians, 0 to pi. Default 0.1: the noise then holds 0.3 % of the band's energy (limit^2 / 3).
    pub limit: f64,
    /// The radii, 1 at the Nyquist frequency, between which phases change. Default 0.25 to 1.5: noise below makes ripples on plain backgrounds.
    pub band: (f64, f64),
    /// Views shifted by one largest stride, each in another of the eight directions, 0 to 8. Default 0.
    pub shifts: usize,
    /// Pixels from the seam and from the border of a shifted view within which its scores do not count, at most 4096. Default 32.
    pub margin: usize,
}

impl Default for ViewParams {
    fn default() -> Self {
        Self { noise: 0, limit: 0.1, band: (0.25, 1.5), shifts: 0, margin: 32 }
    }
}

/// Settings whose ranges have been checked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ViewValidParams(pub(crate) ViewParams);

impl ViewParams {
    /// Checks every range.
    ///
    /// # Errors
    /// [`ViewError::Parameter`] names the setting.
    pub fn check(self) -> Result<ViewValidParams, ViewError> {
        let wrong = |name, value: String, expected: &str| {
            Err(ViewError::Parameter { name, value, expected: expected.to_owned() })
        };
        if self.noise > 64 {
            return wrong("views.noise", self.noise.to_string(), "0 to 64");
        }
        if !(0.0..=std::f64::consts::PI).contains(&self.limit) {
            return wrong("views.limit", self.limit.to_string(), "0 to pi radians");
        }
        let (low, high) = self.band;
        // Corners of the spectrum lie at the square root of 2.
        if !(low >= 0.0 && low <= high && high <= 1.5) {
            return wrong("views.band", format!("{low} to {high}"), "two radii in ascending order, 0 to 1.5");
        }
        if self.shifts > 8 {
            return wrong("views.shifts", self.shifts.to_string(), "0 to 8");
        }
        if self.margin > 4096 {
            return wrong("views.margin", self.margin.to_string(), "0 to 4096 pixels");
        }
        Ok(ViewValidParams(self))
    }
}

impl ViewValidParams {
    /// How many views there are beside the image itself.
    pub fn extra(&self) -> usize {
        self.0.noise + self.0.shifts
    }

    /// The views for a backbone whose largest stride is `stride` pixels.
    ///
    /// # Errors
    /// [`ViewError::Parameter`] for a stride of 0 or above 1024.
    pub fn build(self, stride: usize, seed: u64) -> Result<SpectralViews, ViewError> {
        SpectralViews::new(self, stride, seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_named() {
        let default = ViewParams::default();
        let wrong = [
            (ViewParams { noise: 65, ..default }, "views.noise"),
            (ViewParams { limit: f64::NAN, ..default }, "views.limit"),
            (ViewParams { limit: -0.1, ..default }, "views.limit"),
            (ViewParams { band: (0.5, 0.4), ..default }, "views.band"),
            (ViewParams { band: (0.0, f64::INFINITY), ..default }, "views.band"),
            (ViewParams { shifts: 9, ..default }, "views.shifts"),
            (ViewParams { margin: 5000, ..default }, "views.margin"),
        ];
        for (params, name) in wrong {
            assert!(params.check().unwrap_err().to_string().contains(name), "{name}");
        }
        let valid = ViewParams { noise: 3, shifts: 2, ..default }.check().unwrap();
        assert_eq!(valid.extra(), 5);
        assert!(valid.build(0, 0).is_err());
        assert!(valid.build(2000, 0).is_err());
    }
}
