//! The hyper-parameters of a memory bank, and their check.

use crate::anchors::check_channels;
use crate::{MemoryBankFit, MemoryError, Reduction, Result, Search, Standardisation};

/// Hyper-parameters of a [`MemoryBank`](crate::MemoryBank), not yet checked; [`check`](Self::check) makes them fit to learn with.
///
/// ```
/// use masf_memory::MemoryBankParams;
/// let fit = MemoryBankParams { prototypes: 2000, ..MemoryBankParams::default() }.check()?;
/// assert_eq!(fit.params().candidates, 1_000_000);
/// assert!(MemoryBankParams { prototypes: 0, ..MemoryBankParams::default() }.check().is_err());
/// # Ok::<(), masf_memory::MemoryError>(())
/// ```
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryBankParams {
    /// Strides of the pyramid levels that make up a descriptor, ascending; the first gives the grid. All levels of a stride
    /// are taken. Default `[8, 16]`.
    pub levels: Vec<usize>,
    /// Side of the square over which features are averaged around a position, odd, 1 to 15; 1 is no averaging. Default 3.
    pub neighbourhood: usize,
    /// How channels are scaled before distances are taken. Default per level.
    pub standardise: Standardisation,
    /// How the dimensions of standardised descriptors are reduced. Default none.
    pub reduction: Reduction,
    /// Most patches of the training images that prototypes are chosen among, in equal shares. Default 1,000,000.
    pub candidates: usize,
    /// Most bytes that learning may hold, see the crate's first page for the formula; fewer candidates are taken where
    /// it is the tighter limit. Default 512 MiB.
    pub memory_budget: usize,
    /// Dimensions of the random projection in which the coreset is chosen; 0 is none. Descriptors (reduced ones, where there is a
    /// reduction) that are at most three times as long are not projected. Default 128.
    pub projection: usize,
    /// Most descriptors that the bank keeps. Default 4000.
    pub prototypes: usize,
    /// Neighbours of the nearest prototype that weigh the image score as in PatchCore; 0 gives no image score of the
    /// bank's own, otherwise 2 to 64. Default 0.
    pub reweight_neighbours: usize,
    /// How the nearest prototype is found. Default a shortlist by 128 directions, which is exact for descriptors of at most 256 dimensions.
    pub search: Search,
    /// Random channels of each level that spectral anchors are made of, 1 to 64. Default 4. Anchors are made only where
    /// `anchor_weight` is above 0 or cells are keyed by them.
    pub anchor_channels: usize,
    /// The weight of squared distances of anchors beside squared distances of descriptors, 0 to 1000; at 1 both vary alike.
    /// Default 0.
    pub anchor_weight: f64,
    /// The seed of all random choices. Not part of the serialised form: a program has one seed for all its parts.
    #[serde(skip)]
    pub seed: u64,
}

impl Default for MemoryBankParams {
    fn default() -> Self {
        Self {
            levels: vec![8, 16],
            neighbourhood: 3,
            standardise: Standardisation::default(),
            reduction: Reduction::default(),
            candidates: 1_000_000,
            memory_budget: 512 << 20,
            projection: 128,
            prototypes: 4000,
            reweight_neighbours: 0,
            search: Search::default(),
            anchor_channels: 4,
            anchor_weight: 0.0,
            seed: 0,
        }
    }
}

/// Most candidates and prototypes: their indices are kept in 32 bits.
pub(crate) const MOST_ROWS: usize = 1 << 30;
/// Most dimensions of the random projection.
const MOST_PROJECTED: usize = 4096;
/// Widest neighbourhood.
pub(crate) const MOST_NEIGHBOURHOOD: usize = 15;
/// Most neighbours for re-weighting.
pub(crate) const MOST_NEIGHBOURS: usize = 64;

impl MemoryBankParams {
    /// The learner with these hyper-parameters.
    ///
    /// # Errors
    /// [`MemoryError::Parameter`] names the first one that is out of range.
    pub fn check(self) -> Result<MemoryBankFit> {
        let ascending = self.levels.windows(2).all(|pair| pair[0] < pair[1]);
        if self.levels.is_empty() || self.levels[0] == 0 || !ascending {
            let value = format!("{:?}", self.levels);
            return Err(MemoryError::parameter(
                "levels",
                value,
                "positive strides in ascending order, such as [8, 16]",
            ));
        }
        check_neighbourhood(self.neighbourhood)?;
        check_neighbours(self.reweight_neighbours)?;
        let range = |name, value: usize, least: usize, most: usize| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(MemoryError::parameter(name, value, format!("{least} to {most}")))
            }
        };
        range("candidates", self.candidates, 1, MOST_ROWS)?;
        range("prototypes", self.prototypes, 1, MOST_ROWS)?;
        range("memory_budget", self.memory_budget, 1, usize::MAX)?;
        range("projection", self.projection, 0, MOST_PROJECTED)?;
        self.reduction.check()?;
        self.search.check()?;
        check_channels(self.anchor_channels)?;
        check_weight(self.anchor_weight)?;
        Ok(MemoryBankFit::new(self))
    }
}

impl MemoryBankParams {
    /// Whether descriptors come with anchors.
    pub(crate) fn uses_anchors(&self) -> bool {
        self.anchor_weight > 0.0 || self.search.uses_anchors()
    }
}

pub(crate) fn check_weight(weight: f64) -> Result<()> {
    if (0.0..=1000.0).contains(&weight) {
        return Ok(());
    }
    Err(MemoryError::parameter("anchor_weight", weight, "0 (off) to 1000"))
}

pub(crate) fn check_neighbourhood(side: usize) -> Result<()> {
    if side % 2 == 1 && side <= MOST_NEIGHBOURHOOD {
        return Ok(());
    }
    Err(MemoryError::parameter("neighbourhood", side, format!("an odd number, 1 to {MOST_NEIGHBOURHOOD}")))
}

pub(crate) fn check_neighbours(count: usize) -> Result<()> {
    if count == 0 || (2..=MOST_NEIGHBOURS).contains(&count) {
        return Ok(());
    }
    Err(MemoryError::parameter("reweight_neighbours", count, format!("0 (off) or 2 to {MOST_NEIGHBOURS}")))
}
