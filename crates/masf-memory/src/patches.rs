//! Patches in the space that a bank measures in: how they get there, and how some of them become its prototypes.

use masf_core::{Progress, PyramidSource};

use crate::anchors::{column_variances, factors};
use crate::candidates::{Candidates, collect, projected};
use crate::coreset::{check_magnitude, check_rows, greedy_k_centre};
use crate::search::Columns;
use crate::standardise::Standardiser;
use crate::{LinearMap, MemoryBankParams, MemoryError, PatchEmbedding, PatchMaps, Result, SpectralAnchors};

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

    /// Learns from a sample of the patches of normal images.
    pub(crate) fn of_images(
        params: &MemoryBankParams,
        source: &dyn PyramidSource,
        progress: &dyn Progress,
    ) -> masf_core::Result<Self> {
        if source.is_empty() {
            return Err(MemoryError::NoImages.into());
        }
        progress.start("sampling patches", source.len() as u64);
        let candidates = collect(params, source, None, progress);
        progress.finish();
        Ok(Self::learn(params, candidates?, progress)?)
    }

    fn learn(params: &MemoryBankParams, candidates: Candidates, progress: &dyn Progress) -> Result<Self> {
        let Candidates { embedding, anchors: maps, rows, anchor_rows: anchors } = candidates;
        let dimensions = embedding.dimensions();
        let standardiser = Standardiser::learn(params.standardise, &rows, embedding.levels());
        let mut space = Self { embedding, standardiser, reduction: None, anchors: None };
        let rows = space.standardised(rows)?;
        space.reduction = params.reduction.learn(&rows, dimensions, params.seed, progress)?;
        let rows = space.reduced(rows)?;
        if let Some(maps) = maps {
            check_magnitude("anchor", &anchors, maps.dimensions())?;
            let variance = column_variances(&rows, space.columns().descriptor).iter().sum();
            let factors = factors(&anchors, maps.of_level(), space.embedding.levels().len(), variance);
            space.anchors = Some(Anchors { maps, factors, weight: params.anchor_weight });
        }
        Ok(space)
    }

    /// Brings candidates, whose embedding and anchors are those of this space, into it.
    pub(crate) fn enter(&self, candidates: Candidates) -> Result<Patches> {
        let Candidates { rows, anchor_rows: mut anchors, .. } = candidates;
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

    /// Describes some positions of an image in this space, on this thread; without their anchors.
    pub(crate) fn describe(
        &self,
        maps: &PatchMaps,
        image: usize,
        positions: &[usize],
        rows: &mut Vec<f32>,
    ) -> Result<()> {
        let dimensions = self.embedding.dimensions();
        let check = |rows: &[f32], dimensions, positions: &[usize]| {
            check_rows("the descriptor at position", rows, dimensions, positions.iter().copied())
        };
        rows.resize(positions.len() * dimensions, 0.0);
        maps.describe(image, positions, rows)?;
        if let Some(standardiser) = &self.standardiser {
            standardiser.apply(rows);
        }
        check(rows, dimensions, positions)?;
        if let Some(reduction) = &self.reduction {
            let mut reduced = vec![0.0; positions.len() * reduction.output()];
            reduction.apply_to(rows, &mut reduced)?;
            check(&reduced, reduction.output(), positions)?;
            *rows = reduced;
        }
        Ok(())
    }

    /// The scaled anchors of all positions of an image; none where there are none.
    pub(crate) fn describe_anchors(&self, maps: &PatchMaps, image: usize) -> Result<Vec<f32>> {
        let Some(anchors) = &self.anchors else { return Ok(Vec::new()) };
        let mut rows = anchors.maps.of_maps(maps, image)?;
        anchors.scale(&mut rows);
        Ok(rows)
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
    /// The patches that rows of a bank stand for, with room for further ones.
    pub(crate) fn of_rows(rows: &[f32], columns: Columns, further: usize) -> Self {
        let count = rows.len() / columns.all() + further;
        let mut patches = Self {
            columns,
            rows: Vec::with_capacity(count * columns.descriptor),
            anchors: Vec::with_capacity(count * columns.anchor),
        };
        for row in rows.chunks_exact(columns.all()) {
            let (descriptor, anchor) = row.split_at(columns.descriptor);
            patches.rows.extend_from_slice(descriptor);
            patches.anchors.extend_from_slice(anchor);
        }
        patches
    }

    /// Puts others before these, in place where there is room for them.
    pub(crate) fn prepend(&mut self, other: &Self) {
        for (own, other) in [(&mut self.rows, &other.rows), (&mut self.anchors, &other.anchors)] {
            own.extend_from_slice(other);
            own.rotate_right(other.len());
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.rows.len() / self.columns.descriptor
    }

    /// The rows `[n, all columns]` of a coreset of the descriptors that begins with the first one, in the order of choice; of all where there are no more
    /// than are wanted.
    pub(crate) fn reduce(self, params: &MemoryBankParams, progress: &dyn Progress) -> masf_core::Result<Vec<f32>> {
        let total = self.count();
        if total <= params.prototypes {
            return Ok(self.gather(0..total));
        }
        let dimensions = self.columns.descriptor;
        progress.start("choosing prototypes", params.prototypes as u64);
        let projected = projected(params, dimensions);
        let coreset = if projected > 0 {
            let projection = LinearMap::random(dimensions, projected, params.seed, "memory.projection")?;
            let points = projection.apply(&self.rows)?;
            greedy_k_centre(&points, projection.output(), params.prototypes, 0, progress)
        } else {
            greedy_k_centre(&self.rows, dimensions, params.prototypes, 0, progress)
        };
        progress.finish();
        Ok(self.gather(coreset?.indices.into_iter()))
    }

    fn gather(&self, indices: impl ExactSizeIterator<Item = usize>) -> Vec<f32> {
        let Columns { descriptor, anchor, .. } = self.columns;
        let mut rows = Vec::with_capacity(indices.len() * (descriptor + anchor));
        for index in indices {
            rows.extend_from_slice(&self.rows[index * descriptor..][..descriptor]);
            rows.extend_from_slice(&self.anchors[index * anchor..][..anchor]);
        }
        rows
    }
}
