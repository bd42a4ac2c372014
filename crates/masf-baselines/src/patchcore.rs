//! PatchCore (Roth et al., "Towards total recall in industrial anomaly detection", CVPR 2022).
//!
//! Levels at strides 8 and 16, averaged over 3 x 3 positions and laid on the grid of the finer one, without any scaling of
//! channels; a greedy coreset of the sampled patches, chosen in a random projection; the Euclidean distance to the nearest
//! prototype, as a [shortlist](masf_memory::Search::Shortlist) finds it among descriptors of more than 256 dimensions. The image score is the
//! largest value of the map, or the paper's re-weighted one (equation 7).

use masf_core::{
    Artifact, ArtifactReader, ArtifactWriter, CrossFit, FeaturePyramid, Fit, Progress, PyramidSource, Scorer, Scores,
};
use masf_memory::{MemoryBank, MemoryBankFit, MemoryBankParams, Reduction, Standardisation};

/// Hyper-parameters of [`PatchCore`], not yet checked; [`check`](Self::check) makes them fit to learn with.
///
/// ```
/// use masf_baselines::PatchCoreParams;
/// assert!(PatchCoreParams::default().check().is_ok());
/// assert!(PatchCoreParams { prototypes: 0, ..PatchCoreParams::default() }.check().is_err());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PatchCoreParams {
    /// Strides of the pyramid levels that make up a descriptor, ascending; the first gives the grid. Default `[8, 16]`.
    pub levels: Vec<usize>,
    /// Side of the square over which features are averaged around a position, odd, 1 to 15. Default 3.
    pub neighbourhood: usize,
    /// Most patches that are sampled from the training images, in equal shares. Default 60,000.
    pub candidates: usize,
    /// Dimensions of the random projection in which the coreset is chosen; 0 is none. Default 128.
    pub projection: usize,
    /// Size of the coreset. Default 4000.
    pub prototypes: usize,
    /// Neighbours of the nearest prototype that weigh the image score, 2 to 64 (the paper: 9); 0 takes the largest value of
    /// the map instead. Default 0.
    pub reweight_neighbours: usize,
    /// Most bytes that learning may hold; fewer patches are sampled where it is the tighter limit. Default 512 MiB.
    pub memory_budget: usize,
    /// The seed of all random choices.
    pub seed: u64,
}

impl Default for PatchCoreParams {
    fn default() -> Self {
        Self {
            levels: vec![8, 16],
            neighbourhood: 3,
            candidates: 60_000,
            projection: 128,
            prototypes: 4000,
            reweight_neighbours: 0,
            memory_budget: 512 << 20,
            seed: 0,
        }
    }
}

impl PatchCoreParams {
    /// The learner with these hyper-parameters.
    ///
    /// # Errors
    /// [`masf_memory::MemoryError::Parameter`] names the first one that is out of range.
    pub fn check(self) -> masf_memory::Result<PatchCoreFit> {
        let Self {
            levels,
            neighbourhood,
            candidates,
            projection,
            prototypes,
            reweight_neighbours,
            memory_budget,
            seed,
        } = self;
        let params = MemoryBankParams {
            levels,
            neighbourhood,
            standardise: Standardisation::None,
            reduction: Reduction::None,
            candidates,
            memory_budget,
            projection,
            prototypes,
            reweight_neighbours,
            seed,
            ..MemoryBankParams::default()
        };
        Ok(PatchCoreFit(params.check()?))
    }
}

/// Learns a [`PatchCore`]; made by [`PatchCoreParams::check`].
#[derive(Debug, Clone, PartialEq)]
pub struct PatchCoreFit(MemoryBankFit);

impl Fit for PatchCoreFit {
    type Scorer = PatchCore;

    fn fit(&self, source: &dyn PyramidSource, progress: &dyn Progress) -> masf_core::Result<PatchCore> {
        Ok(PatchCore { bank: self.0.fit(source, progress)? })
    }

    fn cross_fit<'a>(
        &'a self,
        source: &'a dyn PyramidSource,
        fold_of: &[usize],
        progress: &dyn Progress,
    ) -> masf_core::Result<Option<Box<dyn CrossFit<PatchCore> + 'a>>> {
        let banks = self.0.cross_fit(source, fold_of, progress)?;
        Ok(banks.map(|banks| banks.map(|bank| PatchCore { bank })))
    }
}

/// A learned PatchCore model.
///
/// One map named `patchcore`, the distance to the nearest prototype `[B, h, w]`; image scores of its own where
/// [`reweight_neighbours`](PatchCoreParams::reweight_neighbours) is not 0.
#[derive(Debug)]
pub struct PatchCore {
    bank: MemoryBank,
}

impl PatchCore {
    /// The type tag in model files.
    pub const TAG: &'static str = "masf.patchcore";
    /// The name of the score map.
    pub const MAP: &'static str = "patchcore";

    /// The bank of prototypes.
    pub fn bank(&self) -> &MemoryBank {
        &self.bank
    }
}

impl Scorer for PatchCore {
    fn score(&self, pyramid: &FeaturePyramid) -> masf_core::Result<Scores> {
        let mut scores = self.bank.score(pyramid)?;
        for map in &mut scores.maps {
            map.name = Self::MAP.to_owned();
        }
        Ok(scores)
    }
}

impl Artifact for PatchCore {
    fn tag(&self) -> &'static str {
        Self::TAG
    }

    fn write(&self, writer: &mut ArtifactWriter) -> masf_core::Result<()> {
        writer.child("bank", &self.bank)
    }

    fn read(reader: &ArtifactReader<'_>) -> masf_core::Result<Self> {
        let bank = reader.child("bank")?;
        if bank.tag() != MemoryBank::TAG {
            return Err(bank.invalid(format!("`{}` is no memory bank", bank.tag())));
        }
        Ok(Self { bank: MemoryBank::read(&bank)? })
    }
}
