//! Whole descriptors, sampled evenly from images in one pass, within a byte budget: what scales and reduction are learned from, and what a bank is
//! extended with. What a new bank is chosen from, more patches with less of each, is [`Pool`](crate::pool::Pool).

use masf_core::{Progress, PyramidSource, random_stream};
use rand::seq::index::sample;
use rayon::prelude::*;

use crate::coreset::check_rows;
use crate::panels::WIDTH;
use crate::patches::Space;
use crate::{MemoryBankParams, MemoryError, PatchEmbedding, PatchMaps, Result, Search, SpectralAnchors};

/// Images that are read at once.
pub(crate) const IMAGES_PER_BATCH: usize = 4;
/// Descriptors that one task computes.
const ROWS_PER_TASK: usize = 32;
/// Patches that scales and reduction are learned from: more change them little and cost memory.
const SAMPLE: usize = 20_000;

/// Sampled descriptors, row after row.
#[derive(Debug)]
pub(crate) struct Candidates {
    pub(crate) embedding: PatchEmbedding,
    /// Where the parameters ask for anchors.
    pub(crate) anchors: Option<SpectralAnchors>,
    pub(crate) rows: Vec<f32>,
    /// Anchors beside the rows; empty without.
    pub(crate) anchor_rows: Vec<f32>,
}

/// What learning holds at most, in bytes, with `candidates` descriptors in the pool and anchors of `anchor` entries; the
/// formula of the crate's first page.
pub(crate) fn memory(params: &MemoryBankParams, dimensions: usize, anchor: usize, candidates: usize) -> usize {
    let each = candidates.saturating_mul(each(params, dimensions, anchor));
    each.saturating_add(fixed(params, dimensions, anchor)).max(building(params, dimensions, anchor))
}

/// The bytes of a candidate: its descriptor, its projection or reduction, its anchor, its place in the coreset.
fn each(params: &MemoryBankParams, dimensions: usize, anchor: usize) -> usize {
    let reduced = params.reduction.output().unwrap_or(0);
    let values = dimensions.saturating_add(projected(params, dimensions).max(reduced)).saturating_add(anchor);
    values.saturating_add(8).saturating_mul(size_of::<f32>())
}

/// The share of [`memory`] that does not depend on the number of candidates: the prototypes beside the pool (or, before,
/// the centres in the projection, which are no larger), the projection, row by row and packed, and the reduction.
fn fixed(params: &MemoryBankParams, dimensions: usize, anchor: usize) -> usize {
    let kept = params.reduction.output().unwrap_or(dimensions);
    let projection = 2 * kept * projected(params, dimensions);
    let reduction = params.reduction.memory(dimensions);
    let prototypes = params.prototypes.saturating_mul(kept + anchor);
    prototypes
        .saturating_add(projection)
        .saturating_add(reduction)
        .saturating_mul(size_of::<f32>())
        .saturating_add(SLACK)
}

/// What a search holds: the prototypes, plain and packed (twice where distances leave the anchors out), short keys, and what its kind adds.
pub(crate) fn searching(params: &MemoryBankParams, dimensions: usize, anchor: usize) -> usize {
    let kept = params.reduction.output().unwrap_or(dimensions) + anchor;
    let prototype = if anchor > 0 { 4 * kept } else { 2 * kept } + 200 + of_kind(params.search, kept);
    let values = params.prototypes.saturating_mul(prototype).saturating_add(padding(params, kept));
    values.saturating_mul(size_of::<f32>())
}

/// What a kind of search holds of a prototype beyond all others, in 4-byte values.
fn of_kind(search: Search, kept: usize) -> usize {
    match search {
        Search::Exact | Search::Shortlist { .. } => 0,
        // While they are learned, a copy of the keys and one of the sample; then the centres.
        Search::Cells { .. } => 2 * kept,
        // 16 lists of 24 bytes, and 40 bytes for an edge, of which the lowest layer has twice as many.
        Search::Hnsw { connections, .. } => 96 + 20 * connections,
    }
}

/// Places of panels that stay empty, as every cell begins a panel of its own, in 4-byte values: key, squared norm and number.
fn padding(params: &MemoryBankParams, kept: usize) -> usize {
    let Search::Cells { cells, .. } = params.search else { return 0 };
    let cells = if cells == 0 { params.prototypes.isqrt() } else { cells.min(params.prototypes) };
    cells.saturating_mul((WIDTH - 1) * (kept + 2))
}

/// What it takes to build the search when the pool is gone: what it holds, and the directions that short keys are made with.
pub(crate) fn building(params: &MemoryBankParams, dimensions: usize, anchor: usize) -> usize {
    let kept = params.reduction.output().unwrap_or(dimensions) + anchor;
    // Descriptors at most twice as long are searched exactly.
    let directions = match params.search {
        Search::Shortlist { directions, .. } if directions.saturating_mul(2) < kept => directions,
        _ => 0,
    };
    let rows = (2048 + 4 * directions).max(3000);
    let learning = rows.saturating_mul(kept).saturating_mul(size_of::<f32>());
    searching(params, dimensions, anchor).saturating_add(learning).saturating_add(SLACK)
}

/// Room for what is small or fixed: the buffers of the threads, the descriptors' positions.
pub(crate) const SLACK: usize = 1 << 20;

/// Descriptors this many times as long as the projection, or shorter, are not projected: there is little time to save, and the coreset
/// covers a few per cent worse (`docs/benchmarks.md`).
const LEAST_SAVING: usize = 3;

/// Dimensions of the projection in which the coreset is chosen; 0 where there is none.
pub(crate) fn projected(params: &MemoryBankParams, dimensions: usize) -> usize {
    let kept = params.reduction.output().unwrap_or(dimensions);
    if LEAST_SAVING.saturating_mul(params.projection) < kept { params.projection } else { 0 }
}

/// Refuses a budget that does not hold the `held` patches of banks, some `more`, and what is made of them.
pub(crate) fn check_held(
    params: &MemoryBankParams,
    dimensions: usize,
    anchor: usize,
    held: usize,
    more: usize,
) -> Result<()> {
    let needed = |params: &MemoryBankParams| memory(params, dimensions, anchor, held.saturating_add(more));
    check_budget(params, dimensions, needed).map_err(|error| match error {
        MemoryError::LeastBudget { budget, least, dimensions, .. } => {
            MemoryError::Held { budget, least, held, dimensions }
        }
        other => other,
    })
}

/// Refuses a budget below what is `needed`, and says whether fewer prototypes would help.
pub(crate) fn check_budget(
    params: &MemoryBankParams,
    dimensions: usize,
    needed: impl Fn(&MemoryBankParams) -> usize,
) -> Result<()> {
    let MemoryBankParams { memory_budget: budget, prototypes, .. } = *params;
    let least = needed(params);
    if least <= budget {
        return Ok(());
    }
    match needed(&MemoryBankParams { prototypes: 1, ..params.clone() }) {
        of_one if of_one > budget => Err(MemoryError::LeastBudget { budget, least, prototypes, dimensions }),
        _ => Err(MemoryError::Budget { budget, least, prototypes, dimensions }),
    }
}

/// How many candidates the parameters allow for descriptors of some length beside `held` patches of a bank. Without any they are the
/// sample that a new bank is learned from, and the budget has to do for all that comes after it, too.
fn allowed(params: &MemoryBankParams, dimensions: usize, anchor: usize, held: usize) -> Result<usize> {
    let MemoryBankParams { memory_budget: budget, candidates, .. } = *params;
    let most = if held == 0 { candidates.min(SAMPLE) } else { candidates };
    if held == 0 {
        check_budget(params, dimensions, |params| {
            let sample = memory(params, dimensions, anchor, params.prototypes.min(most));
            sample.max(crate::pool::least(params, dimensions, anchor))
        })?;
    } else {
        check_held(params, dimensions, anchor, held, 1)?;
    }
    let room = budget.saturating_sub(fixed(params, dimensions, anchor));
    Ok((room / each(params, dimensions, anchor).max(1)).saturating_sub(held).min(most))
}

/// Samples the same number of positions from every image (the quotas differ by at most one), all where there are fewer.
///
/// For a bank that holds patches already: in its space, beside so many, and with room for them. Otherwise at most [`SAMPLE`].
pub(crate) fn collect(
    params: &MemoryBankParams,
    source: &dyn PyramidSource,
    bank: Option<(&Space, usize)>,
    progress: &dyn Progress,
) -> masf_core::Result<Candidates> {
    let images = source.len();
    let mut pool: Option<(Candidates, usize)> = None;
    let indices: Vec<usize> = (0..images).collect();
    for batch in indices.chunks(IMAGES_PER_BATCH) {
        progress.check()?;
        let pyramid = source.batch(batch)?;
        let (candidates, most) = match &mut pool {
            Some(pool) => pool,
            None => {
                let embedding = PatchEmbedding::of_pyramid(&pyramid, &params.levels, params.neighbourhood)?;
                let dimensions = embedding.dimensions();
                params.reduction.check_input(dimensions)?;
                let (anchors, held) = match bank {
                    Some((space, held)) => {
                        if embedding != space.embedding {
                            let found = format!("{:?}", embedding.levels());
                            let own = format!("{:?}", space.embedding.levels());
                            return Err(
                                MemoryError::Unlike(format!("the images have levels {found}, the bank {own}")).into()
                            );
                        }
                        (space.anchors.as_ref().map(|anchors| anchors.maps.clone()), held)
                    }
                    None if params.uses_anchors() => {
                        (Some(SpectralAnchors::random(&embedding, params.anchor_channels, params.seed)?), 0)
                    }
                    None => (None, 0),
                };
                let anchor = anchors.as_ref().map_or(0, SpectralAnchors::dimensions);
                let most = allowed(params, dimensions, anchor, held)?;
                // Images of one size give so many; reserving more would only look like use.
                let expected = most.min(images.saturating_mul(embedding.open(&pyramid)?.positions()));
                let rows = Vec::with_capacity((expected + held) * dimensions);
                let anchor_rows = Vec::with_capacity((expected + held) * anchor);
                pool.insert((Candidates { embedding, anchors, rows, anchor_rows }, most))
            }
        };
        let maps = candidates.embedding.open(&pyramid).map_err(|error| error.of(batch))?;
        for (slot, &image) in batch.iter().enumerate() {
            let quota = share(image + 1, images, *most) - share(image, images, *most);
            let positions = choose(params.seed, image, maps.positions(), quota);
            let (dimensions, start) = (candidates.embedding.dimensions(), candidates.rows.len());
            describe(&maps, slot, &positions, dimensions, &mut candidates.rows)?;
            let own = &candidates.rows[start..];
            check_rows("the descriptor at position", own, dimensions, positions.iter().copied())
                .map_err(|error| error.in_image(image))?;
            if let Some(anchors) = &candidates.anchors {
                let (all, length) = (anchors.of_maps(&maps, slot)?, anchors.dimensions());
                for position in &positions {
                    candidates.anchor_rows.extend_from_slice(&all[position * length..][..length]);
                }
            }
        }
        progress.step(batch.len() as u64);
    }
    match pool {
        Some((candidates, _)) if !candidates.rows.is_empty() => Ok(candidates),
        _ => Err(MemoryError::NoImages.into()),
    }
}

/// `floor(total * part / parts)`.
pub(crate) fn share(part: usize, parts: usize, total: usize) -> usize {
    (part as u128 * total as u128 / parts as u128) as usize
}

/// `count` of the positions of an image, ascending; all of them if there are no more.
pub(crate) fn choose(seed: u64, image: usize, positions: usize, count: usize) -> Vec<usize> {
    if count >= positions {
        return (0..positions).collect();
    }
    let mut random = random_stream(seed, &format!("memory.candidates.{image}"));
    let mut chosen = sample(&mut random, positions, count).into_vec();
    chosen.sort_unstable();
    chosen
}

/// Appends the descriptors of some positions.
fn describe(maps: &PatchMaps, image: usize, positions: &[usize], dimensions: usize, rows: &mut Vec<f32>) -> Result<()> {
    let start = rows.len();
    rows.resize(start + positions.len() * dimensions, 0.0);
    rows[start..]
        .par_chunks_mut(ROWS_PER_TASK * dimensions)
        .zip(positions.par_chunks(ROWS_PER_TASK))
        .try_for_each(|(rows, positions)| maps.describe(image, positions, rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CellKeys;

    #[test]
    fn every_search_has_its_share_of_the_budget() {
        let (prototypes, dimensions) = (4000, 1536);
        let values = |search| {
            let params = MemoryBankParams { search, prototypes, ..MemoryBankParams::default() };
            building(&params, dimensions, 0).saturating_sub(SLACK) / size_of::<f32>()
        };
        let exact = prototypes * (2 * dimensions + 200) + 3000 * dimensions;
        assert_eq!(values(Search::Exact), exact);
        let shortlist = |directions| values(Search::Shortlist { directions, candidates: 8 });
        assert_eq!(shortlist(128), exact);
        assert_eq!(shortlist(500), exact + (2048 + 4 * 500 - 3000) * dimensions);
        assert_eq!(shortlist(768), exact, "descriptors of at most twice as many dimensions are searched exactly");
        // Every cell may leave nearly a panel of places empty; there are no more cells than prototypes.
        for (cells, made) in [(0, 63), (9, 9), (prototypes, prototypes), (9 * prototypes, prototypes)] {
            let search = Search::Cells { cells, visited: 16, keys: CellKeys::Descriptors };
            assert_eq!(values(search), exact + prototypes * 2 * dimensions + made * 63 * (dimensions + 2));
        }
        let graph = Search::Hnsw { connections: 32, construction: 200, search: 64 };
        assert_eq!(values(graph), exact + prototypes * (96 + 20 * 32));
    }
}
