//! Banks that learn more without starting again, and banks that become one.
//!
//! Both are a step of merge-reduce (Har-Peled and Mazumdar, STOC 2004): the coreset of a union of coresets covers what
//! they covered, with a radius of at most the sum of theirs and that of the step.

use masf_core::{Progress, PyramidSource};

use crate::candidates::{check_held, collect};
use crate::patches::{Patches, Space};
use crate::search::Backend;
use crate::{LinearMap, MemoryBank, MemoryBankFit, MemoryError, Result, Standardisation};

impl MemoryBank {
    /// This bank with the patches of further normal images; scales and reduction stay as they were learned.
    ///
    /// The prototypes and the candidates of the new images, sampled as in learning and as many as the budget allows
    /// beside them, are reduced to `prototypes` of the parameters. The result depends on the bank, the images, their order
    /// and the parameters alone. Thresholds that were set for the old bank do not hold for the new one: scores fall.
    ///
    /// # Errors
    /// No images, images whose features differ from the bank's, [`MemoryError::Unlike`] for parameters that
    /// describe patches otherwise than the bank does, [`MemoryError::Budget`] and [`MemoryError::Held`], features that are not finite, or
    /// cancellation.
    pub fn extend(
        &self,
        fit: &MemoryBankFit,
        source: &dyn PyramidSource,
        progress: &dyn Progress,
    ) -> masf_core::Result<Self> {
        let params = fit.params();
        if source.is_empty() {
            return Err(MemoryError::NoImages.into());
        }
        self.check_params(fit)?;
        progress.start("sampling patches", source.len() as u64);
        let candidates = collect(params, source, Some((&self.space, self.search().count())), progress);
        progress.finish();
        let mut patches = self.space.enter(candidates?)?;
        patches.prepend(&self.patches(0));
        self.rebuilt(patches, fit, progress)
    }

    /// One bank of this one and another, learned with the same settings on features of the same backbone, for example at
    /// two sites: prototypes of both, reduced to `prototypes` of the parameters, in the scale of this bank.
    ///
    /// Thresholds that were set for either do not hold for the result.
    ///
    /// # Errors
    /// [`MemoryError::Unlike`] where the banks, or the parameters, describe patches differently. Banks with a reduction
    /// must share it, as those do that were extended from one: principal components of different images cannot be turned
    /// into each other. [`MemoryError::Budget`] and [`MemoryError::Held`], or cancellation.
    pub fn merge(&self, other: &Self, fit: &MemoryBankFit, progress: &dyn Progress) -> masf_core::Result<Self> {
        self.check_params(fit)?;
        let total = self.search().count() + other.search().count();
        let (dimensions, anchor) = (self.space.embedding.dimensions(), self.space.columns().anchor);
        check_held(fit.params(), dimensions, anchor, total, 0)?;
        let mut patches = self.translate(other)?;
        patches.prepend(&self.patches(0));
        self.rebuilt(patches, fit, progress)
    }

    /// Its prototypes, with room for further patches.
    fn patches(&self, further: usize) -> Patches {
        Patches::of_rows(self.search().prototypes(), self.space.columns(), further)
    }

    fn rebuilt(&self, patches: Patches, fit: &MemoryBankFit, progress: &dyn Progress) -> masf_core::Result<Self> {
        let params = fit.params();
        let rows = patches.reduce(params, progress)?;
        let search = Backend::build(rows, self.space.columns(), self.choice, params.seed, None, progress)?;
        Ok(Self::new(self.space.clone(), search, self.choice, self.reweight_neighbours)?)
    }

    /// Whether the parameters describe patches as this bank does.
    fn check_params(&self, fit: &MemoryBankFit) -> Result<()> {
        let params = fit.params();
        let embedding = &self.space.embedding;
        let mut strides: Vec<usize> = embedding.levels().iter().map(|level| level.stride).collect();
        // A stride names all of its levels.
        strides.dedup();
        let unlike = |what: &str, own: String, other: String| {
            Err(MemoryError::Unlike(format!("{what} is {own} in the bank and {other} in the parameters")))
        };
        if strides != params.levels {
            return unlike("levels", format!("{strides:?}"), format!("{:?}", params.levels));
        }
        let (own, other) = (embedding.neighbourhood(), params.neighbourhood);
        if own != other {
            return unlike("neighbourhood", own.to_string(), other.to_string());
        }
        let own = self.space.standardiser.is_some();
        if own != (params.standardise != Standardisation::None) {
            let own = if own { "on" } else { "off" };
            return unlike("standardise", own.to_owned(), format!("{:?}", params.standardise));
        }
        let (own, other) = (self.reweight_neighbours, params.reweight_neighbours);
        if own != other {
            return unlike("reweight_neighbours", own.to_string(), other.to_string());
        }
        let own = self.space.reduction.as_ref().map(LinearMap::output);
        if own != params.reduction.output() {
            return unlike("reduction", format!("{own:?}"), format!("{:?}", params.reduction));
        }
        if self.choice != params.search {
            return unlike("search", format!("{:?}", self.choice), format!("{:?}", params.search));
        }
        let own = self.space.anchors.as_ref().map_or(0.0, |anchors| anchors.weight);
        if own != params.anchor_weight {
            return unlike("anchor_weight", own.to_string(), params.anchor_weight.to_string());
        }
        Ok(())
    }

    /// The patches of another bank in the space of this one.
    fn translate(&self, other: &Self) -> Result<Patches> {
        let (own, its) = (&self.space, &other.space);
        let unlike = |what: &str| Err(MemoryError::Unlike(format!("they differ in {what}")));
        if own.embedding != its.embedding {
            return unlike("the levels or the neighbourhood");
        }
        if self.choice != other.choice || self.reweight_neighbours != other.reweight_neighbours {
            return unlike("the way of searching or scoring");
        }
        if own.standardiser.is_some() != its.standardiser.is_some() {
            return unlike("standardisation");
        }
        let matrix = |space: &Space| space.reduction.as_ref().map(|reduction| reduction.matrix().to_vec());
        let same_scale = own.standardiser == its.standardiser;
        match (matrix(own), matrix(its)) {
            (None, None) => {}
            (Some(a), Some(b)) if a == b && same_scale => {}
            _ => return unlike("what their reduction learned (extend both from one bank instead)"),
        }
        let mut patches = other.patches(self.search().count());
        if let (Some(from), Some(to), false) = (&its.standardiser, &own.standardiser, same_scale) {
            from.undo(&mut patches.rows);
            to.apply(&mut patches.rows);
        }
        match (&own.anchors, &its.anchors) {
            (None, None) => {}
            (Some(a), Some(b)) if a.same_maps(b) => {
                for row in patches.anchors.chunks_exact_mut(a.maps.dimensions()) {
                    let factors = a.factors.iter().zip(&b.factors);
                    for (values, (to, from)) in row.chunks_exact_mut(a.maps.of_level()).zip(factors) {
                        values.iter_mut().for_each(|value| *value *= to / from);
                    }
                }
            }
            _ => return unlike("the spectral anchors, which the seed draws"),
        }
        crate::coreset::check_magnitude("prototype", &patches.rows, patches.columns.descriptor)?;
        Ok(patches)
    }
}
