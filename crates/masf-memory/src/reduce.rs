//! Reduction of the descriptors' dimensions, which makes banks smaller and searches faster.

use masf_core::{Progress, random_stream};
use rand::Rng;

use crate::pca::{ITERATIONS, memory, principal_components};
use crate::{LinearMap, MemoryError, Result};

/// How the dimensions of standardised descriptors are reduced before the coreset is chosen.
///
/// In TOML: `reduction = "none"`, `reduction = { projection = { dimensions = 128 } }` or
/// `reduction = { pca = { components = 128, whiten = false } }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Reduction {
    /// Descriptors as they are.
    #[default]
    None,
    /// A seeded Gaussian random projection.
    Projection {
        /// Dimensions kept.
        dimensions: usize,
    },
    /// The first principal components of (at most 20,000 of) the candidates.
    Pca {
        /// Components kept.
        components: usize,
        /// Whether components are divided by their standard deviation (at least 1 % of the largest).
        #[serde(default)]
        whiten: bool,
    },
}

/// Rows that principal components are learned from: more change them little and cost time.
const ROWS: usize = 20_000;
/// Most dimensions after a reduction: the eigenvalues of a matrix of this size are found densely.
pub(crate) const MOST_REDUCED: usize = 1024;

impl Reduction {
    /// Dimensions after the reduction, if there is one.
    pub(crate) fn output(self) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Projection { dimensions: output } | Self::Pca { components: output, .. } => Some(output),
        }
    }

    pub(crate) fn check(self) -> Result<()> {
        match self.output() {
            Some(output) if output == 0 || output > MOST_REDUCED => {
                Err(MemoryError::parameter("reduction", format!("{self:?}"), format!("1 to {MOST_REDUCED} dimensions")))
            }
            _ => Ok(()),
        }
    }

    /// Whether descriptors of some length can be reduced.
    pub(crate) fn check_input(self, dimensions: usize) -> Result<()> {
        match self.output() {
            Some(output) if output >= dimensions => {
                let expected = format!("fewer than the {dimensions} dimensions of a descriptor");
                Err(MemoryError::parameter("reduction", format!("{self:?}"), expected))
            }
            _ => Ok(()),
        }
    }

    /// What learning and holding the map takes, in 4-byte values.
    pub(crate) fn memory(self, dimensions: usize) -> usize {
        let learning = match self {
            Self::Pca { components, .. } => memory(dimensions, components).saturating_add(ROWS),
            _ => 0,
        };
        self.output().map_or(0, |output| 3 * output * dimensions).saturating_add(learning)
    }

    /// Learns the map from standardised descriptors, row after row.
    pub(crate) fn learn(
        self,
        rows: &[f32],
        dimensions: usize,
        seed: u64,
        progress: &dyn Progress,
    ) -> Result<Option<LinearMap>> {
        self.check_input(dimensions)?;
        Ok(match self {
            Self::None => None,
            Self::Projection { dimensions: output } => {
                Some(LinearMap::random(dimensions, output, seed, "memory.reduction")?)
            }
            Self::Pca { components, whiten } => {
                let rows = subset(rows.len() / dimensions, seed).map(|index| &rows[index * dimensions..][..dimensions]);
                progress.start("principal components", ITERATIONS as u64);
                let learned = principal_components(rows, dimensions, components, whiten, seed, progress);
                progress.finish();
                Some(learned?.0)
            }
        })
    }
}

/// Indices of at most [`ROWS`] rows: one of each stretch of equal length, drawn at random.
fn subset(total: usize, seed: u64) -> impl Iterator<Item = usize> + Clone {
    let kept = total.min(ROWS);
    let mut random = random_stream(seed, "memory.pca.rows");
    (0..kept).map(move |part| {
        let (start, end) = (part * total / kept, (part + 1) * total / kept);
        if end - start > 1 { random.random_range(start as u64..end as u64) as usize } else { start }
    })
}
