//! The sweep of the threshold from the highest score to the lowest, on which every metric rests.
//!
//! A score becomes a `u32` key whose ascending order is the descending order of the scores, so integers are sorted and
//! equal scores are equal keys. Normal items are kept as keys (4 bytes), anomalous ones as key and region number packed
//! into a `u64` (8 bytes). Both are sorted on their own and merged while sweeping, which needs no third array.

use rayon::slice::ParallelSliceMut;

/// The sort key of a finite score: a higher score has a smaller key, and -0.0 has the key of 0.0.
pub(crate) fn key_of(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    // Negative numbers grow with their bits, positive ones shrink: both are put in descending order, positive first.
    if bits >> 31 == 1 { bits } else { !(bits | SIGN) }
}

/// The score that has this key.
pub(crate) fn score_of(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key } else { !key & !SIGN })
}

const SIGN: u32 = 1 << 31;

/// Packs the key of an anomalous item with the region that it belongs to.
pub(crate) fn pack(key: u32, region: u32) -> u64 {
    u64::from(key) << 32 | u64::from(region)
}

/// The region of a packed item.
pub(crate) fn region_of(packed: u64) -> usize {
    (packed & u64::from(u32::MAX)) as usize
}

fn packed_key(packed: u64) -> u32 {
    (packed >> 32) as u32
}

/// The items of both classes, sorted from the highest score to the lowest.
#[derive(Debug, Clone)]
pub(crate) struct Sorted {
    normal: Vec<u32>,
    anomalous: Vec<u64>,
}

impl Sorted {
    /// Sorts in place, on rayon's threads.
    pub(crate) fn new(mut normal: Vec<u32>, mut anomalous: Vec<u64>) -> Self {
        normal.par_sort_unstable();
        anomalous.par_sort_unstable();
        Self { normal, anomalous }
    }

    /// The number of normal items.
    pub(crate) fn normal(&self) -> usize {
        self.normal.len()
    }

    /// The number of anomalous items.
    pub(crate) fn anomalous(&self) -> usize {
        self.anomalous.len()
    }

    /// The steps of the threshold over the distinct scores, highest first.
    pub(crate) fn sweep(&self) -> Sweep<'_> {
        Sweep { normal: &self.normal, anomalous: &self.anomalous, false_positives: 0, true_positives: 0 }
    }
}

/// What one distinct score adds when the threshold comes down to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step<'a> {
    /// The distinct score, which is the threshold.
    pub(crate) threshold: f32,
    /// Normal items of this score.
    pub(crate) normal: usize,
    /// Anomalous items of this score, packed.
    pub(crate) anomalous: &'a [u64],
    /// Normal items of this score or a higher one.
    pub(crate) false_positives: usize,
    /// Anomalous items of this score or a higher one.
    pub(crate) true_positives: usize,
}

/// Iterator over the [`Step`]s of a [`Sorted`].
#[derive(Debug, Clone)]
pub(crate) struct Sweep<'a> {
    normal: &'a [u32],
    anomalous: &'a [u64],
    false_positives: usize,
    true_positives: usize,
}

impl<'a> Iterator for Sweep<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        let key = match (self.normal.first(), self.anomalous.first()) {
            (None, None) => return None,
            (Some(&normal), None) => normal,
            (None, Some(&anomalous)) => packed_key(anomalous),
            (Some(&normal), Some(&anomalous)) => normal.min(packed_key(anomalous)),
        };
        let normal = self.normal.iter().take_while(|&&other| other == key).count();
        let anomalous = self.anomalous.iter().take_while(|&&other| packed_key(other) == key).count();
        let (same, rest) = self.anomalous.split_at(anomalous);
        self.normal = self.normal.split_at(normal).1;
        self.anomalous = rest;
        self.false_positives += normal;
        self.true_positives += anomalous;
        Some(Step {
            threshold: score_of(key),
            normal,
            anomalous: same,
            false_positives: self.false_positives,
            true_positives: self.true_positives,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCENDING: [f32; 11] =
        [f32::MAX, 1.5, 1.0, f32::MIN_POSITIVE, 1e-45, 0.0, -1e-45, -f32::MIN_POSITIVE, -1.0, -1.5, f32::MIN];

    #[test]
    fn keys_ascend_as_scores_descend() {
        for (a, b) in DESCENDING.iter().zip(&DESCENDING[1..]) {
            assert!(key_of(*a) < key_of(*b), "{a} {b}");
        }
    }

    #[test]
    fn keys_give_the_score_back() {
        for score in DESCENDING {
            assert_eq!(score_of(key_of(score)).to_bits(), score.to_bits());
        }
    }

    #[test]
    fn both_zeros_are_one_score() {
        assert_eq!(key_of(-0.0), key_of(0.0));
        assert_eq!(score_of(key_of(-0.0)).to_bits(), 0.0f32.to_bits());
    }

    #[test]
    fn packing_keeps_key_and_region() {
        let packed = pack(key_of(0.25), u32::MAX - 1);
        assert_eq!((packed_key(packed), region_of(packed)), (key_of(0.25), u32::MAX as usize - 1));
    }

    #[test]
    fn equal_scores_are_one_step() {
        let sorted = Sorted::new(
            [0.5, 0.1, 0.5].map(key_of).to_vec(),
            [(0.9, 0), (0.5, 1), (0.05, 0)].map(|(score, region)| pack(key_of(score), region)).to_vec(),
        );
        let steps: Vec<_> = sorted
            .sweep()
            .map(|s| (s.threshold, s.normal, s.anomalous.len(), s.false_positives, s.true_positives))
            .collect();
        assert_eq!(steps, [(0.9, 0, 1, 0, 1), (0.5, 2, 1, 2, 2), (0.1, 1, 0, 3, 2), (0.05, 0, 1, 3, 3)]);
    }
}
