//! The settings of the published methods, and the learners that they make.

use masf_baselines::{
    AdtrFit, AdtrParams, CfaFit, CfaParams, IsstadFit, IsstadParams, PadimFit, PadimParams, PatchCoreFit,
    PatchCoreParams, RdppFit, RdppParams,
};
use masf_core::Result;

use super::Config;

/// The method `patchcore`; levels, seed and memory budget are those of the whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PatchCoreConfig {
    /// Side of the square over which features are averaged around a position, odd.
    pub neighbourhood: usize,
    /// Most patch descriptors that are sampled from the training images; fewer where the memory budget is tighter.
    pub candidates: usize,
    /// Dimensions of the random projection in which the coreset is chosen; 0 is none.
    pub projection: usize,
    /// Size of the coreset.
    pub prototypes: usize,
    /// Neighbours that weigh the image score; 0 takes the largest value of the map.
    pub reweight_neighbours: usize,
}

impl Default for PatchCoreConfig {
    fn default() -> Self {
        let PatchCoreParams { neighbourhood, candidates, projection, prototypes, reweight_neighbours, .. } =
            PatchCoreParams::default();
        Self { neighbourhood, candidates, projection, prototypes, reweight_neighbours }
    }
}

/// The method `padim`; levels, seed and memory budget are those of the whole configuration.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PadimConfig {
    /// Channels that are kept, drawn at random from those of all levels.
    pub dimensions: usize,
    /// What is added to the diagonal of every covariance.
    pub regularisation: f64,
}

impl Default for PadimConfig {
    fn default() -> Self {
        let PadimParams { dimensions, regularisation, .. } = PadimParams::default();
        Self { dimensions, regularisation }
    }
}

impl Config {
    /// The learner of the method `patchcore`.
    pub(crate) fn patchcore(&self) -> Result<PatchCoreFit> {
        let PatchCoreConfig { neighbourhood, candidates, projection, prototypes, reweight_neighbours } = self.patchcore;
        let params = PatchCoreParams {
            levels: self.backbone.strides.clone(),
            neighbourhood,
            candidates,
            projection,
            prototypes,
            reweight_neighbours,
            memory_budget: self.learning_budget(),
            seed: self.seed,
        };
        Ok(params.check()?)
    }

    /// The learner of the method `padim`.
    pub(crate) fn padim(&self) -> Result<PadimFit> {
        let PadimConfig { dimensions, regularisation } = self.padim;
        let params = PadimParams {
            levels: self.backbone.strides.clone(),
            dimensions,
            regularisation,
            memory_budget: self.learning_budget(),
            seed: self.seed,
        };
        Ok(params.check()?)
    }

    /// The learner of the method `cfa`.
    pub(crate) fn cfa(&self) -> Result<CfaFit> {
        let (levels, seed) = (self.backbone.strides.clone(), self.seed);
        Ok(CfaParams { levels, seed, ..self.cfa.clone() }.check()?)
    }

    /// The learner of the method `rdpp`.
    pub(crate) fn rdpp(&self) -> Result<RdppFit> {
        let (levels, seed) = (self.backbone.strides.clone(), self.seed);
        Ok(RdppParams { levels, seed, ..self.rdpp.clone() }.check()?)
    }

    /// The learner of the method `adtr`.
    pub(crate) fn adtr(&self) -> Result<AdtrFit> {
        let (levels, seed) = (self.backbone.strides.clone(), self.seed);
        Ok(AdtrParams { levels, seed, ..self.adtr.clone() }.check()?)
    }

    /// The learner of the method `isstad`.
    pub(crate) fn isstad(&self) -> Result<IsstadFit> {
        let (levels, seed) = (self.backbone.strides.clone(), self.seed);
        Ok(IsstadParams { levels, seed, ..self.isstad.clone() }.check()?)
    }
}
