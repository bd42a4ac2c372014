//! Learning a memory bank.

use masf_core::{Fit, Progress, PyramidSource, random_stream};
use rand::Rng;

use crate::candidates::{Candidates, collect};
use crate::coreset::{check_magnitude, greedy_k_centre};
use crate::standardise::Standardiser;
use crate::{ExactSearch, LinearMap, MemoryBank, MemoryBankParams, MemoryError};

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
        let candidates = collect(params, source, progress);
        progress.finish();
        let Candidates { embedding, mut rows } = candidates?;
        let dimensions = embedding.dimensions();
        check_magnitude("descriptor", &rows, dimensions)?;
        let standardiser = Standardiser::learn(params.standardise, &rows, embedding.levels());
        if let Some(standardiser) = &standardiser {
            standardiser.apply(&mut rows);
            check_magnitude("standardised descriptor", &rows, dimensions)?;
        }
        let reduction = params.reduction.learn(&rows, dimensions, params.seed)?;
        let mut kept = dimensions;
        if let Some(reduction) = &reduction {
            rows = reduction.apply(&rows)?;
            kept = reduction.output();
            check_magnitude("reduced descriptor", &rows, kept)?;
        }
        let prototypes = choose(params, rows, kept, progress)?;
        let search = ExactSearch::new(prototypes, kept)?;
        Ok(MemoryBank::new(embedding, standardiser, reduction, search, params.reweight_neighbours))
    }
}

/// The rows of the coreset, in the order of choice; all rows where there are no more than are wanted.
fn choose(
    params: &MemoryBankParams,
    rows: Vec<f32>,
    dimensions: usize,
    progress: &dyn Progress,
) -> masf_core::Result<Vec<f32>> {
    let total = rows.len() / dimensions;
    if total <= params.prototypes {
        return Ok(rows);
    }
    let first = random_stream(params.seed, "memory.coreset").random_range(0..total as u64) as usize;
    progress.start("choosing prototypes", params.prototypes as u64);
    let coreset = if (1..dimensions).contains(&params.projection) {
        let projection = LinearMap::random(dimensions, params.projection, params.seed, "memory.projection")?;
        let points = projection.apply(&rows)?;
        greedy_k_centre(&points, projection.output(), params.prototypes, first, progress)
    } else {
        greedy_k_centre(&rows, dimensions, params.prototypes, first, progress)
    };
    progress.finish();
    let indices = coreset?.indices;
    let mut prototypes = Vec::with_capacity(indices.len() * dimensions);
    for index in indices {
        prototypes.extend_from_slice(&rows[index * dimensions..(index + 1) * dimensions]);
    }
    Ok(prototypes)
}
