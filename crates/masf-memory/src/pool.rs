//! The pool that a coreset is chosen from: the patches of all training images, as points of few dimensions.
//!
//! Descriptors are long and patches many, so the pool does not hold descriptors. A first pass over the images learns the space (scales, reduction) from a
//! sample of them; a second one describes every patch and keeps its random projection, in which distances are taken; when the coreset is
//! chosen, a third one describes the chosen patches again, to the same bits. Features come from a cache, so a pass is cheap.

use masf_core::{Progress, PyramidSource, random_stream};
use rand::Rng;
use rayon::prelude::*;

use crate::candidates::{IMAGES_PER_BATCH, SLACK, building, check_budget, choose, projected, searching, share};
use crate::coreset::greedy_k_centre;
use crate::patches::Space;
use crate::{LinearMap, MemoryBankParams, MemoryError, Result};

/// Patches that one task describes.
const ROWS_PER_TASK: usize = 64;

/// Points, image after image.
pub(crate) struct Pool<'a> {
    pub(crate) places: Places<'a>,
    pub(crate) points: Vec<f32>,
    pub(crate) dimensions: usize,
}

/// Where the points of a pool come from.
pub(crate) struct Places<'a> {
    params: &'a MemoryBankParams,
    source: &'a dyn PyramidSource,
    space: &'a Space,
    /// Most patches that are taken, over all images.
    most: usize,
    /// For every image the place of its first point; then that after the last one.
    starts: Vec<usize>,
}

impl<'a> Pool<'a> {
    /// Takes the same number of patches from every image (the quotas differ by at most one), all where there are fewer.
    pub(crate) fn collect(
        params: &'a MemoryBankParams,
        space: &'a Space,
        source: &'a dyn PyramidSource,
        progress: &dyn Progress,
    ) -> masf_core::Result<Self> {
        let columns = space.columns();
        let most = allowed(params, space.embedding.dimensions(), columns.anchor)?;
        let projection = match projected(params, space.embedding.dimensions()) {
            0 => None,
            output => Some(LinearMap::random(columns.descriptor, output, params.seed, "memory.projection")?),
        };
        let dimensions = projection.as_ref().map_or(columns.descriptor, LinearMap::output);
        let places = Places { params, source, space, most, starts: vec![0] };
        let mut pool = Self { places, points: Vec::new(), dimensions };
        progress.start("collecting patches", source.len() as u64);
        let result = pool.fill(projection.as_ref(), progress);
        progress.finish();
        result?;
        match pool.points.is_empty() {
            true => Err(MemoryError::NoImages.into()),
            false => Ok(pool),
        }
    }

    fn fill(&mut self, projection: Option<&LinearMap>, progress: &dyn Progress) -> masf_core::Result<()> {
        let dimensions = self.dimensions;
        let images: Vec<usize> = (0..self.places.source.len()).collect();
        for batch in images.chunks(IMAGES_PER_BATCH) {
            progress.check()?;
            let maps = self.places.space.embedding.open(&self.places.source.batch(batch)?);
            let maps = maps.map_err(|error| error.of(batch))?;
            if self.points.is_empty() {
                // Images of one size give so many.
                let expected = self.places.most.min(images.len().saturating_mul(maps.positions()));
                self.points.reserve_exact(expected * dimensions);
            }
            for (slot, &image) in batch.iter().enumerate() {
                let (positions, space) = (self.places.positions(image, maps.positions()), self.places.space);
                let start = self.points.len();
                self.points.resize(start + positions.len() * dimensions, 0.0);
                self.points[start..]
                    .par_chunks_mut(ROWS_PER_TASK * dimensions)
                    .zip(positions.par_chunks(ROWS_PER_TASK))
                    .try_for_each_init(Vec::new, |rows, (points, positions)| {
                        space.describe(&maps, slot, positions, rows)?;
                        match projection {
                            Some(projection) => projection.apply_to(rows, points)?,
                            None => points.copy_from_slice(rows),
                        }
                        Ok::<_, MemoryError>(())
                    })
                    .map_err(|error| error.in_image(image))?;
                self.places.starts.push(self.count());
            }
            progress.step(batch.len() as u64);
        }
        Ok(())
    }

    /// The number of points.
    pub(crate) fn count(&self) -> usize {
        self.points.len() / self.dimensions
    }

    /// The places of the coreset, in the order of choice; all where there are no more than are wanted.
    pub(crate) fn choose(&self, progress: &dyn Progress) -> masf_core::Result<Vec<usize>> {
        let (total, params) = (self.count(), self.places.params);
        if total <= params.prototypes {
            return Ok((0..total).collect());
        }
        let first = random_stream(params.seed, "memory.coreset").random_range(0..total as u64) as usize;
        progress.start("choosing prototypes", params.prototypes as u64);
        let coreset = greedy_k_centre(&self.points, self.dimensions, params.prototypes, first, progress);
        progress.finish();
        Ok(coreset?.indices)
    }
}

impl Places<'_> {
    /// The positions of an image that are in the pool, ascending.
    fn positions(&self, image: usize, positions: usize) -> Vec<usize> {
        let images = self.source.len();
        let quota = share(image + 1, images, self.most) - share(image, images, self.most);
        choose(self.params.seed, image, positions, quota)
    }

    /// The image that every point comes from.
    pub(crate) fn images(&self) -> impl Iterator<Item = usize> {
        let counts = self.starts.windows(2).map(|ends| ends[1] - ends[0]);
        counts.enumerate().flat_map(|(image, count)| std::iter::repeat_n(image, count))
    }

    /// The rows `[n, all columns]` of some places, in their order.
    pub(crate) fn rows(&self, places: &[usize], progress: &dyn Progress) -> masf_core::Result<Vec<f32>> {
        let mut rows = vec![0.0; places.len() * self.space.columns().all()];
        // Places and their rows, image by image.
        let mut wanted: Vec<(usize, usize)> = places.iter().copied().zip(0..).collect();
        wanted.sort_unstable();
        progress.start("describing prototypes", self.source.len() as u64);
        let result = self.describe(&wanted, &mut rows, progress);
        progress.finish();
        result.map(|()| rows)
    }

    fn describe(
        &self,
        mut wanted: &[(usize, usize)],
        rows: &mut [f32],
        progress: &dyn Progress,
    ) -> masf_core::Result<()> {
        let columns = self.space.columns();
        let mut descriptors = Vec::new();
        for (image, ends) in self.starts.windows(2).enumerate() {
            progress.check()?;
            let (own, rest) = wanted.split_at(wanted.partition_point(|(place, _)| *place < ends[1]));
            wanted = rest;
            if !own.is_empty() {
                let pyramid = self.source.batch(&[image])?;
                let maps = self.space.embedding.open(&pyramid).map_err(|error| error.of(&[image]))?;
                let all = self.positions(image, maps.positions());
                let position = |(place, _): &(usize, usize)| all.get(place - ends[0]).copied();
                let Some(positions) = own.iter().map(position).collect::<Option<Vec<usize>>>() else {
                    let changed = "it has another size than when it was read first";
                    return Err(masf_core::Error::data(format!("image {image}"), changed));
                };
                let described = self.space.describe(&maps, 0, &positions, &mut descriptors);
                described.map_err(|error| error.in_image(image))?;
                let anchors = self.space.describe_anchors(&maps, 0)?;
                for (((_, row), position), descriptor) in
                    own.iter().zip(positions).zip(descriptors.chunks_exact(columns.descriptor))
                {
                    let row = &mut rows[row * columns.all()..][..columns.all()];
                    row[..columns.descriptor].copy_from_slice(descriptor);
                    row[columns.descriptor..].copy_from_slice(&anchors[position * columns.anchor..][..columns.anchor]);
                }
            }
            progress.step(1);
        }
        Ok(())
    }
}

/// What a point takes: its coordinates, and what choosing and replacing note of it.
fn each(point: usize) -> usize {
    point.saturating_add(8).saturating_mul(size_of::<f32>())
}

/// What learning holds beside the points: the projection, row by row and packed, the reduction, and the centres, which are searched for while prototypes are replaced.
fn beside(params: &MemoryBankParams, dimensions: usize, point: usize) -> usize {
    let kept = params.reduction.output().unwrap_or(dimensions);
    let reduction = params.reduction.output().map_or(0, |output| 3 * output * dimensions);
    let projection = 2 * kept * projected(params, dimensions);
    let centres = params.prototypes.saturating_mul(3 * point);
    centres.saturating_add(projection + reduction).saturating_mul(size_of::<f32>()).saturating_add(SLACK)
}

/// The coordinates of a point.
fn point(params: &MemoryBankParams, dimensions: usize) -> usize {
    match projected(params, dimensions) {
        0 => params.reduction.output().unwrap_or(dimensions),
        projected => projected,
    }
}

/// The smallest budget that holds as many patches as prototypes, and the search: for descriptors of some length, anchors of `anchor` entries beside them.
pub(crate) fn least(params: &MemoryBankParams, dimensions: usize, anchor: usize) -> usize {
    let point = point(params, dimensions);
    let points = each(point).saturating_mul(params.prototypes.min(params.candidates));
    points.saturating_add(beside(params, dimensions, point)).max(building(params, dimensions, anchor))
}

/// How many patches the parameters allow.
fn allowed(params: &MemoryBankParams, dimensions: usize, anchor: usize) -> Result<usize> {
    let MemoryBankParams { memory_budget: budget, candidates, .. } = *params;
    check_budget(params, dimensions, |params| least(params, dimensions, anchor))?;
    let point = point(params, dimensions);
    Ok((budget.saturating_sub(beside(params, dimensions, point)) / each(point)).min(candidates))
}

/// What banks without single folds take, when the points are gone: the search of one beside that of another which is being built, and a
/// second set of prototypes.
pub(crate) fn folding(params: &MemoryBankParams, dimensions: usize, anchor: usize) -> usize {
    let kept = params.reduction.output().unwrap_or(dimensions);
    let replacements = params.prototypes.saturating_mul(kept + anchor).saturating_mul(size_of::<f32>());
    searching(params, dimensions, anchor)
        .saturating_add(building(params, dimensions, anchor))
        .saturating_add(replacements)
}
