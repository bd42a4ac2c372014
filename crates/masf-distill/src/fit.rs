//! Learning a student.

use std::sync::Arc;

use masf_core::{Error, Fit, Progress, PyramidSource};

use crate::checkpoint::{self, Checkpoints};
use crate::features::ChannelStatistics;
use crate::grid::Grid;
use crate::smooth::Smoothed;
use crate::trainer::Trainer;
use crate::{DistillError, MaskedStudent, Result, StudentParams, start};

/// Steps between two notes on the loss.
const NOTE_EVERY: usize = 10;
/// Least steps between two checkpoints: with few images a step is several epochs.
const LEAST_STEPS: usize = 25;

/// Learns a [`MaskedStudent`]; made by [`StudentParams::check`].
///
/// The result depends on the images, their order and the hyper-parameters, not on the number of threads or on interruptions.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskedStudentFit {
    params: StudentParams,
    checkpoints: Option<Checkpoints>,
}

impl MaskedStudentFit {
    pub(crate) fn new(params: StudentParams) -> Self {
        Self { params, checkpoints: None }
    }

    /// Sets where checkpoints go, and whether training goes on from one; makes the folder.
    ///
    /// # Errors
    /// [`DistillError::Parameter`] if `every_epochs` is 0; a folder that cannot be written to; no checkpoint to go on from;
    /// [`DistillError::CheckpointExists`] if training would replace one that it does not go on from.
    pub fn with_checkpoints(mut self, checkpoints: Checkpoints) -> Result<Self> {
        if checkpoints.every_epochs == 0 {
            return Err(DistillError::parameter("every_epochs", 0, "at least 1"));
        }
        let path = checkpoints.path();
        masf_core::check_replaceable(&path).map_err(|source| Error::io(&path, source))?;
        if let Some(from) = checkpoints.resumed() {
            std::fs::metadata(&from).map_err(|source| Error::io(&from, source))?;
        }
        check_free(&checkpoints)?;
        self.checkpoints = Some(checkpoints);
        Ok(self)
    }

    /// The hyper-parameters, all within their ranges.
    pub fn params(&self) -> &StudentParams {
        &self.params
    }

    fn learn(&self, source: &dyn PyramidSource, progress: &dyn Progress) -> Result<MaskedStudent> {
        if source.is_empty() {
            return Err(DistillError::NoImages);
        }
        // Again: another training may have left one since.
        self.checkpoints.as_ref().map_or(Ok(()), check_free)?;
        let source = &Smoothed::new(source, self.params.neighbourhood);
        let grid = Grid::of(&source.batch(&[0])?, self.params.patch);
        grid.check().map_err(|problem| Error::data("the student's features", problem))?;
        let statistics: Vec<_> = ChannelStatistics::learn(source, &grid, progress)?.into_iter().map(Arc::new).collect();
        let mut trainer = Trainer::new(self.params.clone(), source, grid, statistics)?;
        match self.checkpoints.as_ref().and_then(Checkpoints::resumed) {
            Some(path) => {
                checkpoint::load(&mut trainer, &path)?;
                // A training that goes on in another folder goes on from there alone.
                if self.checkpoints.as_ref().is_some_and(|own| own.path() != path) {
                    self.save(&trainer)?;
                }
            }
            None if self.params.linear_start => start::linear(&mut trainer, source, progress)?,
            None => {}
        }
        progress.start("training the student", trainer.steps as u64);
        progress.step(trainer.state.step as u64);
        let trained = self.steps(&mut trainer, progress);
        progress.finish();
        trained?;
        MaskedStudent::new(self.params.clone(), trainer.grid.clone(), trainer.statistics.clone(), trainer.result()?)
    }

    fn steps(&self, trainer: &mut Trainer<'_>, progress: &dyn Progress) -> Result<()> {
        let mut smooth: Option<f32> = None;
        let mut saved = (trainer.state.step, trainer.epoch());
        while trainer.state.step < trainer.steps {
            if progress.is_cancelled() {
                self.save(trainer)?;
                return Err(Error::Cancelled.into());
            }
            let loss = trainer.step()?;
            progress.step(1);
            let mean = smooth.map_or(loss, |smooth| 0.95 * smooth + 0.05 * loss);
            smooth = Some(mean);
            let (step, epoch) = (trainer.state.step, trainer.epoch());
            if step.is_multiple_of(NOTE_EVERY) || step == trainer.steps {
                progress.note(&format!("student: epoch {epoch}/{}, loss {mean:.4}", trainer.epochs()));
            }
            if let Some(Checkpoints { every_epochs, .. }) = &self.checkpoints {
                let due = step >= saved.0 + LEAST_STEPS && epoch / every_epochs > saved.1 / every_epochs;
                if due || step == trainer.steps {
                    self.save(trainer)?;
                    saved = (step, epoch);
                }
            }
        }
        Ok(())
    }

    fn save(&self, trainer: &Trainer<'_>) -> Result<()> {
        self.checkpoints.as_ref().map_or(Ok(()), |checkpoints| checkpoint::save(trainer, checkpoints))
    }
}

/// Refuses to replace a checkpoint that training does not go on from: it may be further on.
fn check_free(checkpoints: &Checkpoints) -> Result<()> {
    let (path, from) = (checkpoints.path(), checkpoints.resumed());
    let other = |from| std::fs::canonicalize(from).ok() != std::fs::canonicalize(&path).ok();
    if path.exists() && from.as_deref().is_none_or(other) {
        return Err(DistillError::CheckpointExists { path: path.display().to_string() });
    }
    Ok(())
}

impl Fit for MaskedStudentFit {
    type Scorer = MaskedStudent;

    fn fit(&self, source: &dyn PyramidSource, progress: &dyn Progress) -> masf_core::Result<MaskedStudent> {
        Ok(self.learn(source, progress)?)
    }

    fn is_expensive(&self) -> bool {
        true
    }
}
