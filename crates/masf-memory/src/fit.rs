//! Learning a memory bank.

use masf_core::{CrossFit, Fit, Progress, PyramidSource};

use crate::folds::FoldedBank;
use crate::patches::Space;
use crate::pool::Pool;
use crate::{MemoryBank, MemoryBankParams};

/// Learns a [`MemoryBank`]; made by [`MemoryBankParams::check`].
///
/// Scales and reduction are learned from a sample of the patches; a greedy k-centre coreset of all of them (as many as the budget allows), chosen in a
/// random projection, becomes the bank. The images are read three times. The result depends on the images, their order and the hyper-parameters, not on the
/// number of threads.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryBankFit(MemoryBankParams);

impl MemoryBankFit {
    pub(crate) fn new(params: MemoryBankParams) -> Self {
        Self(params)
    }

    /// The hyper-parameters, all within their ranges.
    pub fn params(&self) -> &MemoryBankParams {
        &self.0
    }
}

impl Fit for MemoryBankFit {
    type Scorer = MemoryBank;

    fn fit(&self, source: &dyn PyramidSource, progress: &dyn Progress) -> masf_core::Result<MemoryBank> {
        let params = &self.0;
        let space = Space::of_images(params, source, progress)?;
        let pool = Pool::collect(params, &space, source, progress)?;
        let chosen = pool.choose(progress)?;
        let Pool { places, points, .. } = pool;
        drop(points);
        let rows = places.rows(&chosen, progress)?;
        Ok(MemoryBank::of_rows(space, rows, params, progress)?)
    }

    fn cross_fit<'a>(
        &'a self,
        source: &'a dyn PyramidSource,
        fold_of: &[usize],
        progress: &dyn Progress,
    ) -> masf_core::Result<Option<Box<dyn CrossFit<MemoryBank> + 'a>>> {
        let folded = FoldedBank::learn(&self.0, source, fold_of, progress)?;
        Ok(folded.map(|folded| Box::new(folded) as Box<dyn CrossFit<MemoryBank>>))
    }
}
