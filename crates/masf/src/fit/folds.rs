//! Folds for cross-fitting, with like images kept together.
//!
//! Several pictures of one part, or of neighbouring ones on a line, look alike. If one of them is held out and another one
//! is learned from, the held-out score is too good, and the threshold too low. So every image goes into the fold of the
//! image that is most like it (nearest in the space of mean features); the groups that this makes are spread over the folds
//! so that these are about equally large.

use masf_core::{Progress, Result, random_stream};
use rand::Rng;
use rayon::prelude::*;

/// Dimensions that signatures are projected to before they are compared.
const PROJECTED: usize = 64;

/// Collects one signature an image: the mean of every channel over all positions.
#[derive(Default)]
pub(crate) struct Signatures {
    rows: Vec<Vec<f32>>,
}

impl Signatures {
    /// Adds the images of a pyramid.
    pub(crate) fn push(&mut self, pyramid: &masf_core::FeaturePyramid) -> Result<()> {
        let mut rows = vec![Vec::new(); pyramid.batch_size()];
        for level in pyramid.levels() {
            let means = level.map.mean((2, 3))?.to_vec2::<f32>()?;
            for (row, mean) in rows.iter_mut().zip(means) {
                row.extend(mean);
            }
        }
        self.rows.append(&mut rows);
        Ok(())
    }

    /// The number of images.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The fold of every image: `folds` of them, as equal in size as the groups of like images permit.
    ///
    /// Deterministic in the images, their order and the seed.
    pub(crate) fn folds(&self, folds: usize, seed: u64, progress: &dyn Progress) -> Result<Vec<usize>> {
        self.folds_of_groups(folds, 2, seed, progress)
    }

    /// As [`folds`](Self::folds) where one of them alone is held out, and has to stand for all images: of many small groups, so that it
    /// lacks none of the ways that the images differ, and neither do the others.
    pub(crate) fn mixed_folds(&self, folds: usize, seed: u64, progress: &dyn Progress) -> Result<Vec<usize>> {
        self.folds_of_groups(folds, 16, seed, progress)
    }

    /// Folds of at least `least` groups, or of pairs if these would be smaller.
    fn folds_of_groups(&self, folds: usize, least: usize, seed: u64, progress: &dyn Progress) -> Result<Vec<usize>> {
        let nearest = nearest_neighbours(&self.projected(seed), progress)?;
        let images = self.rows.len() / folds.max(1);
        // At most half a fold, so that a chain of neighbours cannot swallow the set, and every fold gets a group.
        let largest = (images / least).max(2).min(images / 2).max(1);
        Ok(assign(groups(&nearest, largest), self.rows.len(), folds))
    }

    /// Signatures with every channel standardised, projected to a few dimensions.
    fn projected(&self, seed: u64) -> Vec<Vec<f32>> {
        let channels = self.rows.first().map_or(0, Vec::len);
        let count = self.rows.len().max(1) as f64;
        let mut mean = vec![0f64; channels];
        let mut square = vec![0f64; channels];
        for row in &self.rows {
            for ((value, mean), square) in row.iter().zip(&mut mean).zip(&mut square) {
                *mean += f64::from(*value) / count;
                *square += f64::from(*value).powi(2) / count;
            }
        }
        let deviation = |channel: usize| (square[channel] - mean[channel].powi(2)).max(0.0).sqrt().max(1e-6);
        let mut random = random_stream(seed, "fold signatures");
        // Random signs preserve distances as well as Gaussian weights do (Achlioptas 2003).
        let signs: Vec<f32> =
            (0..channels * PROJECTED).map(|_| if random.random::<bool>() { 1.0 } else { -1.0 }).collect();
        let project = |row: &Vec<f32>| {
            let mut projected = vec![0f32; PROJECTED];
            for (channel, (value, signs)) in row.iter().zip(signs.chunks_exact(PROJECTED)).enumerate() {
                let value = ((f64::from(*value) - mean[channel]) / deviation(channel)) as f32;
                for (sum, sign) in projected.iter_mut().zip(signs) {
                    *sum += value * sign;
                }
            }
            projected
        };
        self.rows.par_iter().map(project).collect()
    }
}

/// For every row the nearest other row and its squared distance; ties go to the lower index. All pairs are compared, which
/// takes minutes where images are many.
fn nearest_neighbours(rows: &[Vec<f32>], progress: &dyn Progress) -> Result<Vec<(f32, usize)>> {
    let nearest = |(i, row): (usize, &Vec<f32>)| -> Result<(f32, usize)> {
        progress.check()?;
        let mut best = (f32::INFINITY, i);
        for (j, other) in rows.iter().enumerate() {
            let distance: f32 = row.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum();
            if j != i && distance < best.0 {
                best = (distance, j);
            }
        }
        progress.step(1);
        Ok(best)
    };
    progress.start("grouping like images", rows.len() as u64);
    let found = rows.par_iter().enumerate().map(nearest).collect();
    progress.finish();
    found
}

/// Joins images with their nearest neighbours, closest pairs first, into groups of at most `largest`.
fn groups(nearest: &[(f32, usize)], largest: usize) -> Vec<Vec<usize>> {
    let mut group_of: Vec<usize> = (0..nearest.len()).collect();
    let mut members: Vec<Vec<usize>> = (0..nearest.len()).map(|i| vec![i]).collect();
    let mut order: Vec<usize> = (0..nearest.len()).collect();
    order.sort_by(|a, b| nearest[*a].0.total_cmp(&nearest[*b].0).then(a.cmp(b)));
    for i in order {
        let (a, b) = (group_of[i], group_of[nearest[i].1]);
        if a == b || members[a].len() + members[b].len() > largest {
            continue;
        }
        let (into, from) = (a.min(b), a.max(b));
        for member in std::mem::take(&mut members[from]) {
            group_of[member] = into;
            members[into].push(member);
        }
    }
    members.retain(|group| !group.is_empty());
    members
}

/// Puts groups into folds, largest group first, always into the smallest fold.
fn assign(mut groups: Vec<Vec<usize>>, count: usize, folds: usize) -> Vec<usize> {
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    let mut sizes = vec![0usize; folds.max(1)];
    let mut fold_of = vec![0; count];
    for group in groups {
        let fold = (0..sizes.len()).min_by_key(|fold| sizes[*fold]).unwrap_or(0);
        sizes[fold] += group.len();
        for member in group {
            fold_of[member] = fold;
        }
    }
    fold_of
}

#[cfg(test)]
mod tests {
    use masf_core::{Error, Silent};

    use super::*;

    fn signatures(rows: Vec<Vec<f32>>) -> Signatures {
        Signatures { rows }
    }

    #[test]
    fn pictures_of_one_part_share_a_fold() {
        // 40 parts of three nearly equal pictures each.
        let part = |p: usize| -> Vec<f32> { (0..20).map(|c| ((p * 37 + c * 101) % 83) as f32).collect() };
        let rows = (0..120).map(|i| part(i % 40).iter().map(|v| v + 0.01 * (i / 40) as f32).collect()).collect();
        let folds = signatures(rows).folds(5, 0, &Silent).unwrap();
        for i in 0..40 {
            assert!(folds[i] == folds[i + 40] && folds[i] == folds[i + 80], "part {i}");
        }
    }

    #[test]
    fn folds_are_balanced_and_none_is_empty() {
        for count in [2, 3, 5, 10, 31, 200] {
            let rows = (0..count).map(|i| vec![(i * i % 17) as f32, i as f32]).collect();
            let folds = count.min(5);
            let signatures = signatures(rows);
            for fold_of in [signatures.folds(folds, 7, &Silent), signatures.mixed_folds(folds, 7, &Silent)] {
                let mut sizes = vec![0usize; folds];
                for fold in fold_of.unwrap() {
                    sizes[fold] += 1;
                }
                let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
                assert!(*least > 0 && most - least <= count / folds + 1, "{count}: {sizes:?}");
            }
        }
    }

    #[test]
    fn mixed_folds_have_images_of_all_clusters_and_keep_pairs_together() {
        // Eight clusters of ten pairs.
        let row =
            |i: usize| vec![(i / 20) as f32 * 100.0, (i / 2 % 10) as f32 + 0.01 * (i % 2) as f32, (i / 2 % 7) as f32];
        let folds = signatures((0..160).map(row).collect()).mixed_folds(5, 3, &Silent).unwrap();
        for pair in 0..80 {
            assert_eq!(folds[2 * pair], folds[2 * pair + 1], "pair {pair}");
        }
        for cluster in 0..8 {
            let held_out = (0..20).filter(|i| folds[cluster * 20 + i] == 0).count();
            assert!((1..20).contains(&held_out), "cluster {cluster}: {held_out}");
        }
    }

    #[test]
    fn equal_images_are_no_problem() {
        let folds = signatures(vec![vec![1.0; 8]; 50]).folds(5, 0, &Silent).unwrap();
        assert_eq!(folds.len(), 50);
        assert!((0..5).all(|fold| folds.contains(&fold)));
    }

    #[test]
    fn grouping_can_be_cancelled() {
        struct Cancelled;

        impl Progress for Cancelled {
            fn start(&self, _: &str, _: u64) {}
            fn step(&self, _: u64) {}
            fn finish(&self) {}
            fn is_cancelled(&self) -> bool {
                true
            }
        }

        let found = signatures(vec![vec![1.0]; 4]).folds(2, 0, &Cancelled);
        assert!(matches!(found, Err(Error::Cancelled)), "{found:?}");
    }
}
