//! Banks without the patches of some images, made from one bank of all.
//!
//! Thresholds come from images that a bank has not learned from, so it has to be known what a bank would be without each fold of the images. Learning
//! again for every fold samples, projects and chooses again. Here the coreset is chosen once. For each fold its prototypes are taken out, and as many
//! others are chosen in their place, greedily as ever: the farthest from those that are left, among the candidates of the other
//! images. A prototype is out of one fold alone, so all replacements together are one more set of prototypes, whatever the number of folds.
//!
//! Scale of levels and random projections are those of all images: one number for a level, which a fold hardly moves. What fits single directions
//! to the images, principal components and the spread of single channels, is learned again for every fold instead.

use masf_core::{CrossFit, Error, Progress, PyramidSource, vectorised};
use rayon::prelude::*;

use crate::coreset::LazyGreedy;
use crate::lanes::squared_distance;
use crate::patches::Space;
use crate::pool::{Pool, folding};
use crate::{
    ExactSearch, MemoryBank, MemoryBankParams, MemoryError, PrototypeSearch, Reduction, Result, Standardisation,
};

/// A bank of all images, and what its prototypes of each fold are replaced with.
pub(crate) struct FoldedBank<'a> {
    params: &'a MemoryBankParams,
    whole: MemoryBank,
    /// The fold of every prototype.
    fold_of: Vec<usize>,
    /// The rows in place of the prototypes of each fold, fold after fold, and how many there are.
    replacements: Vec<f32>,
    counts: Vec<usize>,
}

impl<'a> FoldedBank<'a> {
    /// `None` where each fold has to be learned by itself: for scales of single channels, for principal components, and where the budget does not
    /// hold a second set of prototypes.
    pub(crate) fn learn(
        params: &'a MemoryBankParams,
        source: &dyn PyramidSource,
        fold_of: &[usize],
        progress: &dyn Progress,
    ) -> masf_core::Result<Option<Self>> {
        if fold_of.len() != source.len() {
            let expected = format!("one for each of the {} items", source.len());
            return Err(Error::argument("number of folds of items", fold_of.len(), expected));
        }
        if let Some(fold) = fold_of.iter().find(|fold| **fold >= source.len()) {
            return Err(Error::argument("fold", fold, format!("less than the number of items, {}", source.len())));
        }
        if params.standardise == Standardisation::Channel || matches!(params.reduction, Reduction::Pca { .. }) {
            return Ok(None);
        }
        let space = Space::of_images(params, source, progress)?;
        let columns = space.columns();
        if folding(params, space.embedding.dimensions(), columns.anchor) > params.memory_budget {
            return Ok(None);
        }
        let pool = Pool::collect(params, &space, source, progress)?;
        let prototypes = pool.choose(progress)?;
        let folds = fold_of.iter().max().map_or(0, |last| last + 1);
        let of_points: Vec<u32> = pool.places.images().map(|image| fold_of[image] as u32).collect();
        progress.start("replacing prototypes", folds as u64);
        let replaced = replacements(&pool.points, pool.dimensions, &of_points, folds, &prototypes, progress);
        progress.finish();
        let replaced = replaced?;
        let Pool { places, points, .. } = pool;
        drop(points);
        let all: Vec<usize> = std::iter::once(&prototypes).chain(&replaced).flatten().copied().collect();
        let mut rows = places.rows(&all, progress)?;
        let replacements = rows.split_off(prototypes.len() * columns.all());
        rows.shrink_to_fit();
        Ok(Some(Self {
            params,
            whole: MemoryBank::of_rows(space, rows, params, progress)?,
            fold_of: prototypes.iter().map(|place| of_points[*place] as usize).collect(),
            replacements,
            counts: replaced.iter().map(Vec::len).collect(),
        }))
    }
}

impl CrossFit<MemoryBank> for FoldedBank<'_> {
    fn without(&self, fold: usize, progress: &dyn Progress) -> masf_core::Result<MemoryBank> {
        let columns = self.whole.space.columns();
        let all = self.whole.search().prototypes().chunks_exact(columns.all());
        let left = all.zip(&self.fold_of).filter(|(_, own)| **own != fold).flat_map(|(row, _)| row);
        let first: usize = self.counts.iter().take(fold).sum();
        let count = self.counts.get(fold).copied().unwrap_or(0);
        let replacements = &self.replacements[first * columns.all()..][..count * columns.all()];
        let rows: Vec<f32> = left.chain(replacements).copied().collect();
        if rows.is_empty() {
            return Err(MemoryError::NoImages.into());
        }
        Ok(MemoryBank::of_rows(self.whole.space.clone(), rows, self.params, progress)?)
    }

    fn whole(self: Box<Self>, _: &dyn Progress) -> masf_core::Result<MemoryBank> {
        Ok(self.whole)
    }
}

/// For every fold, as many points of the other folds as it has centres, chosen greedily after the centres of the others.
fn replacements(
    points: &[f32],
    dimensions: usize,
    fold_of: &[u32],
    folds: usize,
    centres: &[usize],
    progress: &dyn Progress,
) -> masf_core::Result<Vec<Vec<usize>>> {
    let mut of_fold = vec![Vec::new(); folds];
    for &centre in centres {
        of_fold[fold_of[centre] as usize].push(centre);
    }
    let nearest = Nearest::of(points, dimensions, &of_fold)?;
    let mut all = Vec::with_capacity(folds);
    for (fold, own) in of_fold.iter().enumerate() {
        progress.check()?;
        // Points of the fold are nearer than any centre: they are never the farthest.
        let bounds = nearest.iter().zip(fold_of).map(|(nearest, of)| match *of as usize == fold {
            true => -1.0,
            false => nearest.without(fold),
        });
        all.push(LazyGreedy::going_on(points, dimensions, bounds.collect()).choose(own.len()));
        progress.step(1);
    }
    Ok(all)
}

/// The squared distance of a point to the nearest centre, the fold of that, and the squared distance to the nearest centre of another fold.
#[derive(Debug, Clone, Copy)]
struct Nearest {
    distance: f32,
    fold: u32,
    other: f32,
}

/// Points whose nearest centres are looked for at once.
const POINTS_PER_SEARCH: usize = 8192;

impl Nearest {
    const NONE: Self = Self { distance: f32::INFINITY, fold: u32::MAX, other: f32::INFINITY };

    fn of(points: &[f32], dimensions: usize, of_fold: &[Vec<usize>]) -> Result<Vec<Self>> {
        let row = |place: usize| &points[place * dimensions..][..dimensions];
        let mut all = vec![Self::NONE; points.len() / dimensions];
        for (fold, centres) in of_fold.iter().enumerate().filter(|(_, centres)| !centres.is_empty()) {
            let rows = centres.iter().flat_map(|centre| row(*centre)).copied().collect();
            let search = ExactSearch::new(rows, dimensions)?;
            let parts = all.chunks_mut(POINTS_PER_SEARCH).zip(points.chunks(POINTS_PER_SEARCH * dimensions));
            for (nearest, rows) in parts {
                let found = search.nearest(rows, 1)?;
                // The distances that the choice of centres takes, to the bit.
                nearest.par_iter_mut().zip(rows.par_chunks(dimensions)).zip(&found.indices).with_min_len(512).for_each(
                    |((nearest, point), centre)| {
                        let centre = row(centres[*centre as usize]);
                        let distance = vectorised(
                            #[inline(always)]
                            || squared_distance(point, centre),
                        );
                        nearest.see(fold, distance);
                    },
                );
            }
        }
        Ok(all)
    }

    /// Takes in the nearest centre of a fold that was not seen before.
    fn see(&mut self, fold: usize, distance: f32) {
        if distance < self.distance {
            *self = Self { distance, fold: fold as u32, other: self.distance };
        } else {
            self.other = self.other.min(distance);
        }
    }

    /// The squared distance to the nearest centre that is not of a fold.
    fn without(self, fold: usize) -> f32 {
        if self.fold as usize == fold { self.other } else { self.distance }
    }
}

#[cfg(test)]
mod tests {
    use masf_core::{Silent, random_stream};
    use rand::Rng;

    use super::*;

    /// The obvious way: every distance, for every new centre.
    fn naive(points: &[f32], dimensions: usize, fold_of: &[u32], centres: &[usize], fold: u32) -> Vec<usize> {
        let row = |place: usize| &points[place * dimensions..][..dimensions];
        let mut kept: Vec<usize> = centres.iter().copied().filter(|centre| fold_of[*centre] != fold).collect();
        let left = kept.len();
        while kept.len() < centres.len() {
            let mut farthest = (0.0, None);
            for place in (0..fold_of.len()).filter(|place| fold_of[*place] != fold) {
                let distances = kept.iter().map(|centre| squared_distance(row(place), row(*centre)));
                let distance = distances.fold(f32::INFINITY, f32::min);
                if distance > farthest.0 {
                    farthest = (distance, Some(place));
                }
            }
            match farthest.1 {
                Some(place) => kept.push(place),
                None => break,
            }
        }
        kept.split_off(left)
    }

    /// Points on a grid, so that there are ties and duplicates, or anywhere.
    fn points(count: usize, dimensions: usize, grid: bool, seed: u64) -> Vec<f32> {
        let mut random = random_stream(seed, "points");
        let value = |random: &mut dyn rand::RngCore| match grid {
            true => f32::from(random.random_range(0..4u8)),
            false => random.random_range(-1.0..1.0),
        };
        (0..count * dimensions).map(|_| value(&mut random)).collect()
    }

    #[test]
    fn replacements_are_those_of_the_obvious_algorithm() -> masf_core::Result<()> {
        for (seed, (count, dimensions, chosen, folds, grid)) in [
            (300, 3, 40, 5, false),
            (300, 3, 60, 5, true),
            (3000, 2, 50, 3, false),
            (60, 40, 20, 20, false),
            (40, 2, 39, 2, false),
            (40, 2, 30, 1, false),
            (9, 1, 4, 9, true),
        ]
        .into_iter()
        .enumerate()
        {
            let rows = points(count, dimensions, grid, seed as u64);
            let mut random = random_stream(seed as u64, "folds");
            let fold_of: Vec<u32> = (0..count).map(|_| random.random_range(0..folds as u32)).collect();
            let centres = crate::greedy_k_centre(&rows, dimensions, chosen, 1, &Silent)?.indices;
            let found = replacements(&rows, dimensions, &fold_of, folds, &centres, &Silent)?;
            for (fold, found) in found.iter().enumerate() {
                let expected = naive(&rows, dimensions, &fold_of, &centres, fold as u32);
                assert_eq!(*found, expected, "case {seed}, fold {fold}");
            }
        }
        Ok(())
    }

    #[test]
    fn where_all_centres_are_of_one_fold_the_choice_begins_anew() -> masf_core::Result<()> {
        let rows = [0.0, 1.0, 5.0, 9.0, 2.0];
        let found = replacements(&rows, 1, &[1, 1, 0, 0, 0], 2, &[0, 1], &Silent)?;
        assert_eq!(found, [vec![], vec![2, 3]]);
        Ok(())
    }
}
