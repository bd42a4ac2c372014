//! Learning a memory bank.

use masf_core::{CrossFit, Fit, Progress, PyramidSource};

use crate::candidates::collect;
use crate::folds::FoldedBank;
use crate::patches::Space;
use crate::search::Backend;
use crate::{MemoryBank, MemoryBankParams, MemoryError};

/// Learns a [`MemoryBank`]; made by [`MemoryBankParams::check`].
///
/// One pass over the images samples the candidates; they are standardised and, if wanted, reduced; a greedy k-centre coreset of them, chosen in a
/// random projection, becomes the bank. The result depends on the images, their order and the hyper-parameters, not on the
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
        if source.is_empty() {
            return Err(MemoryError::NoImages.into());
        }
        progress.start("sampling patches", source.len() as u64);
        let candidates = collect(params, source, None, progress);
        progress.finish();
        let (space, patches) = Space::learn(params, candidates?)?;
        let rows = patches.reduce(params, None, progress)?;
        let search = Backend::build(rows, space.columns(), params.search, params.seed, None)?;
        Ok(MemoryBank::new(space, search, params.search, params.reweight_neighbours))
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
