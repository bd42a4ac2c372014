//! The student as a branch: its two trainings keep checkpoints of their own.

use masf_core::{Progress, PyramidSource, Result, Scorer};
use masf_distill::{Checkpoints, MaskedStudentFit, StudentParams};

use super::{FitBranch, Purpose};

/// Learns a student from a part of the images for the thresholds, then from all of them.
pub(crate) struct StudentBranch {
    calibration: MaskedStudentFit,
    detector: MaskedStudentFit,
}

impl StudentBranch {
    /// Goes on from a folder that must hold a checkpoint of the first training; the second may not have begun.
    pub(crate) fn new(params: StudentParams, checkpoints: Option<&Checkpoints>) -> Result<Self> {
        let fit = params.check()?;
        let Some(checkpoints) = checkpoints else {
            return Ok(Self { calibration: fit.clone(), detector: fit });
        };
        let calibration = checkpoints.clone().named(format!("{}-calibration", checkpoints.name));
        Ok(Self {
            calibration: fit.clone().with_checkpoints(calibration)?,
            detector: fit.with_checkpoints(checkpoints.clone().resume_if_present())?,
        })
    }
}

impl FitBranch for StudentBranch {
    fn fit_branch(
        &self,
        purpose: Purpose,
        source: &dyn PyramidSource,
        progress: &dyn Progress,
    ) -> Result<Box<dyn Scorer>> {
        let fit = match purpose {
            Purpose::Calibration => &self.calibration,
            Purpose::Detector => &self.detector,
        };
        fit.fit_branch(purpose, source, progress)
    }

    fn takes_long(&self) -> bool {
        true
    }
}
