//! How long a training is, and which images its steps see.

use rand::seq::SliceRandom;

use crate::random_stream;

/// The number of steps for so many images, at least 1: `epochs` whole passes, or as many as make up `passes` images.
pub fn steps(images: usize, epochs: Option<usize>, passes: usize, batch_size: usize) -> usize {
    epochs.map_or(passes, |epochs| epochs.saturating_mul(images)).div_ceil(batch_size.max(1)).max(1)
}

/// Shuffled epochs that follow on each other; batches go on from one to the next.
///
/// The order of an epoch is drawn from the [stream](random_stream) `NAME.order.EPOCH` of the seed, so that a training that goes on at
/// some step sees what it would have seen.
#[derive(Debug, Clone)]
pub struct ShuffledEpochs {
    seed: u64,
    name: String,
    images: usize,
    batch_size: usize,
    /// The epoch that the last batch ended in.
    epoch: Option<usize>,
    order: Vec<usize>,
}

impl ShuffledEpochs {
    /// Those of a training of this name.
    pub fn new(seed: u64, name: impl Into<String>, images: usize, batch_size: usize) -> Self {
        Self { seed, name: name.into(), images, batch_size, epoch: None, order: Vec::new() }
    }

    /// The images of a step, counted from 0: as many indices as the batch size; none if there are no images.
    pub fn batch(&mut self, step: usize) -> Vec<usize> {
        let count = self.images.max(1);
        let places = step * self.batch_size..(step + 1) * self.batch_size;
        let image = |place: usize| {
            let epoch = place / count;
            if self.epoch != Some(epoch) {
                self.order = (0..self.images).collect();
                self.order.shuffle(&mut random_stream(self.seed, &format!("{}.order.{epoch}", self.name)));
                self.epoch = Some(epoch);
            }
            self.order.get(place % count).copied()
        };
        places.filter_map(image).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_count_before_passes() {
        assert_eq!(steps(30, None, 100, 8), 13);
        assert_eq!(steps(30, Some(3), 100, 8), 12);
        assert_eq!(steps(1, None, 1, 8), 1);
    }

    #[test]
    fn every_epoch_sees_every_image_once_and_the_seed_orders_them() {
        let all = |seed| {
            let mut epochs = ShuffledEpochs::new(seed, "test", 5, 3);
            (0..10).flat_map(|step| epochs.batch(step)).collect::<Vec<_>>()
        };
        for (index, epoch) in all(0).chunks(5).enumerate() {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
            // The streams have the names that models were learned with.
            sorted.shuffle(&mut random_stream(0, &format!("test.order.{index}")));
            assert_eq!(epoch, sorted);
        }
        assert_eq!(all(0), all(0));
        assert_ne!(all(0), all(1));
        assert_eq!(ShuffledEpochs::new(0, "test", 5, 3).batch(7), all(0)[21..24]);
        assert!(ShuffledEpochs::new(0, "test", 0, 3).batch(1).is_empty());
    }
}
