//! Patches in the space that a bank measures in: how they get there, and how some of them become its prototypes.

use std::borrow::Cow;

use masf_core::{Progress, random_stream};
use rand::Rng;

use crate::anchors::{column_variances, factors};
use crate::candidates::{Candidates, projected};
use crate::coreset::{check_magnitude, check_rows, greedy_k_centre};
use crate::search::Columns;
use crate::standardise::Standardiser;
use crate::{LinearMap, MemoryBankParams, PatchEmbedding, Result, SpectralAnchors};

/// From features to the rows of a bank: everything about it but its prototypes.
#[derive(Debug, Clone)]
pub(crate) struct Space {
    pub(crate) embedding: PatchEmbedding,
    pub(crate) standardiser: Option<Standardiser>,
    pub(crate) reduction: Option<LinearMap>,
    pub(crate) anchors: Option<Anchors>,
}

/// Anchors as a part of a row.
#[derive(Debug, Clone)]
pub(crate) struct Anchors {
    pub(crate) maps: SpectralAnchors,
    /// One for each level; the square root of the weight is not in them.
    pub(crate) factors: Vec<f32>,
    /// The weight of squared distances; 0 where anchors only key cells.
    pub(crate) weight: f64,
}

impl Anchors {
    /// Scales anchors as they stand in a row: by their factors and, where they count, the weight.
    pub(crate) fn scale(&self, anchors: &mut [f32]) {
        let weight = if self.weight > 0.0 { self.weight.sqrt() as f32 } else { 1.0 };
        for row in anchors.chunks_exact_mut(self.maps.dimensions()) {
            for (values, factor) in row.chunks_exact_mut(self.maps.of_level()).zip(&self.factors) {
                values.iter_mut().for_each(|value| *value *= factor * weight);
            }
        }
    }
}

impl Anchors {
    /// Whether others are made of the same features in the same way.
    pub(crate) fn same_maps(&self, other: &Self) -> bool {
        let matrices =
            |anchors: &Self| anchors.maps.projections().iter().map(|map| map.matrix().to_vec()).collect::<Vec<_>>();
        self.weight == other.weight && matrices(self) == matrices(other)
    }
}

impl Space {
    pub(crate) fn columns(&self) -> Columns {
        let descriptor = self.reduction.as_ref().map_or(self.embedding.dimensions(), LinearMap::output);
        let anchor = self.anchors.as_ref().map_or(0, |anchors| anchors.maps.dimensions());
        let anchors_count = self.anchors.as_ref().is_some_and(|anchors| anchors.weight > 0.0);
        Columns { descriptor, anchor, anchors_count }
    }

    /// Learns from candidates, which it brings to its space.
    pub(crate) fn learn(params: &MemoryBankParams, candidates: Candidates) -> Result<(Self, Patches)> {
        let Candidates { embedding, anchors: maps, rows, anchor_rows: anchors, .. } = candidates;
        let dimensions = embedding.dimensions();
        check_magnitude("descriptor", &rows, dimensions)?;
        let standardiser = Standardiser::learn(params.standardise, &rows, embedding.levels());
        let mut space = Self { embedding, standardiser, reduction: None, anchors: None };
        let rows = space.standardised(rows)?;
        space.reduction = params.reduction.learn(&rows, dimensions, params.seed)?;
        let rows = space.reduced(rows)?;
        let mut patches = Patches { columns: space.columns(), rows, anchors };
        if let Some(maps) = maps {
            check_magnitude("anchor", &patches.anchors, maps.dimensions())?;
            let variance = column_variances(&patches.rows, patches.columns.descriptor).iter().sum();
            let levels = space.embedding.levels().len();
            let factors = factors(&patches.anchors, maps.of_level(), levels, variance);
            let anchors = Anchors { maps, factors, weight: params.anchor_weight };
            anchors.scale(&mut patches.anchors);
            space.anchors = Some(anchors);
            patches.columns = space.columns();
        }
        Ok((space, patches))
    }

    /// Brings candidates, whose embedding and anchors are those of this space, into it.
    pub(crate) fn enter(&self, candidates: Candidates) -> Result<Patches> {
        let Candidates { rows, anchor_rows: mut anchors, .. } = candidates;
        check_magnitude("descriptor", &rows, self.embedding.dimensions())?;
        let rows = self.standardised(rows)?;
        let rows = self.reduced(rows)?;
        if let Some(own) = &self.anchors {
            own.scale(&mut anchors);
        }
        Ok(Patches { columns: self.columns(), rows, anchors })
    }

    fn standardised(&self, mut rows: Vec<f32>) -> Result<Vec<f32>> {
        if let Some(standardiser) = &self.standardiser {
            standardiser.apply(&mut rows);
            check_magnitude("standardised descriptor", &rows, self.embedding.dimensions())?;
        }
        Ok(rows)
    }

    fn reduced(&self, rows: Vec<f32>) -> Result<Vec<f32>> {
        let Some(reduction) = &self.reduction else { return Ok(rows) };
        let rows = reduction.apply(&rows)?;
        check_magnitude("reduced descriptor", &rows, reduction.output())?;
        Ok(rows)
    }

    /// Brings a few raw descriptors, counted from `first` on, into the space, on this thread; without their anchors.
    pub(crate) fn enter_descriptors(&self, rows: &mut Vec<f32>, first: usize) -> Result<()> {
        let dimensions = self.embedding.dimensions();
        if let Some(standardiser) = &self.standardiser {
            standardiser.apply(rows);
        }
        if let Some(reduction) = &self.reduction {
            check_rows("the descriptor at position", rows, dimensions, first)?;
            let mut reduced = vec![0.0; rows.len() / dimensions * reduction.output()];
            reduction.apply_to(rows, &mut reduced)?;
            *rows = reduced;
        }
        check_rows("the descriptor at position", rows, self.columns().descriptor, first)
    }
}

/// Patches in a space: descriptors and anchors apart.
#[derive(Debug)]
pub(crate) struct Patches {
    pub(crate) columns: Columns,
    pub(crate) rows: Vec<f32>,
    pub(crate) anchors: Vec<f32>,
}

impl Patches {
    /// The patches that rows of a bank stand for.
    pub(crate) fn of_rows(rows: &[f32], columns: Columns) -> Self {
        let parts = || rows.chunks_exact(columns.all()).map(|row| row.split_at(columns.descriptor));
        Self {
            columns,
            rows: parts().flat_map(|(descriptor, _)| descriptor).copied().collect(),
            anchors: parts().flat_map(|(_, anchor)| anchor).copied().collect(),
        }
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.rows.append(&mut other.rows);
        self.anchors.append(&mut other.anchors);
    }

    pub(crate) fn count(&self) -> usize {
        self.rows.len() / self.columns.descriptor
    }

    /// The rows `[n, all columns]` of a coreset of the descriptors, in the order of choice; of all where there are no more
    /// than are wanted.
    pub(crate) fn reduce(
        self,
        params: &MemoryBankParams,
        first: Option<usize>,
        progress: &dyn Progress,
    ) -> masf_core::Result<Vec<f32>> {
        if self.count() <= params.prototypes {
            if self.columns.anchor == 0 {
                return Ok(self.rows);
            }
            return Ok(self.gather(0..self.count()));
        }
        let chosen = self.points(params)?.choose(params, first, progress)?;
        Ok(self.gather(chosen.into_iter()))
    }

    /// What a coreset is chosen by: the descriptors, or a projection of them.
    pub(crate) fn points(&self, params: &MemoryBankParams) -> Result<Points<'_>> {
        let dimensions = self.columns.descriptor;
        Ok(match projected(params, dimensions) {
            0 => Points { dimensions, rows: Cow::Borrowed(&self.rows) },
            output => {
                let projection = LinearMap::random(dimensions, output, params.seed, "memory.projection")?;
                Points { dimensions: output, rows: Cow::Owned(projection.apply(&self.rows)?) }
            }
        })
    }

    /// The rows `[n, all columns]` of some patches.
    pub(crate) fn gather(&self, indices: impl ExactSizeIterator<Item = usize>) -> Vec<f32> {
        let Columns { descriptor, anchor, .. } = self.columns;
        let mut rows = Vec::with_capacity(indices.len() * (descriptor + anchor));
        for index in indices {
            rows.extend_from_slice(&self.rows[index * descriptor..][..descriptor]);
            rows.extend_from_slice(&self.anchors[index * anchor..][..anchor]);
        }
        rows
    }
}

/// Points that a coreset is chosen among.
pub(crate) struct Points<'a> {
    pub(crate) dimensions: usize,
    pub(crate) rows: Cow<'a, [f32]>,
}

impl Points<'_> {
    /// The places of a coreset of `prototypes` points, in the order of choice.
    pub(crate) fn choose(
        &self,
        params: &MemoryBankParams,
        first: Option<usize>,
        progress: &dyn Progress,
    ) -> masf_core::Result<Vec<usize>> {
        let total = (self.rows.len() / self.dimensions) as u64;
        let random = || random_stream(params.seed, "memory.coreset").random_range(0..total) as usize;
        progress.start("choosing prototypes", params.prototypes as u64);
        let first = first.unwrap_or_else(random);
        let coreset = greedy_k_centre(&self.rows, self.dimensions, params.prototypes, first, progress);
        progress.finish();
        Ok(coreset?.indices)
    }
}
