//! What the settings of masf's own parts come to.

use masf_distill::StudentParams;
use masf_fusion::{Detail, FineScale, FusionParams, ImageScore};
use masf_memory::MemoryBankParams;

use super::{Branch, Config};
use crate::Method;

/// What the student's bottleneck drops where a memory bank stands beside it: both together locate better with it, the student alone
/// is better without.
const DROPOUT_BESIDE_A_BANK: f64 = 0.2;

/// The memory budget of which so many bytes are the part for learning.
pub(crate) fn whole_budget(learning: usize) -> usize {
    learning.div_ceil(3).saturating_mul(4)
}

impl Config {
    /// The part of the memory budget for the cache of extracted features.
    pub(crate) fn cache_budget(&self) -> usize {
        self.memory_budget.0 / 16
    }

    /// The settings of the student, whose dropout depends on what stands beside it where it is left out.
    pub(crate) fn student_params(&self) -> StudentParams {
        let beside_a_bank = self.branches.contains(&Branch::Memory).then_some(DROPOUT_BESIDE_A_BANK);
        StudentParams { seed: self.seed, dropout: self.distill.dropout.or(beside_a_bank), ..self.distill.clone() }
    }

    /// The part of the memory budget for learning.
    pub(super) fn learning_budget(&self) -> usize {
        self.memory_budget.0 / 4 * 3
    }

    /// The settings of the fusion; the baselines take the largest value of the map, and the map as it is, as published.
    pub(crate) fn fusion_params(&self) -> FusionParams {
        let mut params = self.fusion.clone();
        if self.method != Method::Masf {
            params.image_score = ImageScore::Max;
            (params.fine_scale, params.detail) = (FineScale::OFF, Detail::OFF);
        }
        params
    }

    /// The settings of the memory banks, which share the budget for learning: one over all strides, or one for each.
    pub(crate) fn memory_banks(&self) -> Vec<MemoryBankParams> {
        let strides = &self.backbone.strides;
        let of_banks = match self.memory.per_level {
            true => strides.iter().map(|stride| vec![*stride]).collect(),
            false => vec![strides.clone()],
        };
        let budget = self.learning_budget() / of_banks.len().max(1);
        of_banks.into_iter().map(|levels| self.memory_params(levels, budget)).collect()
    }

    /// The settings of a memory bank over some levels.
    fn memory_params(&self, levels: Vec<usize>, memory_budget: usize) -> MemoryBankParams {
        let memory = &self.memory;
        MemoryBankParams {
            levels,
            neighbourhood: memory.neighbourhood,
            standardise: memory.standardise,
            reduction: memory.reduction,
            candidates: memory.candidates,
            memory_budget,
            projection: memory.projection,
            prototypes: memory.prototypes,
            search: memory.search,
            anchor_channels: memory.anchor_channels,
            anchor_weight: memory.anchor_weight,
            seed: self.seed,
            ..MemoryBankParams::default()
        }
    }
}
