use masf_core::{Silent, random_stream};
use proptest::prelude::*;
use rand::Rng;

use super::*;
use crate::lanes::squared_distance;

/// The obvious algorithm.
fn naive(points: &[f32], dimensions: usize, count: usize, first: usize) -> Coreset {
    let rows: Vec<&[f32]> = points.chunks_exact(dimensions).collect();
    let mut distances = vec![f32::INFINITY; rows.len()];
    let mut indices = vec![first];
    loop {
        let newest = indices[indices.len() - 1];
        let mut farthest = (-1.0, 0);
        for (index, row) in rows.iter().enumerate() {
            distances[index] = distances[index].min(squared_distance(row, rows[newest]));
            if distances[index] > farthest.0 {
                farthest = (distances[index], index);
            }
        }
        if indices.len() == count || farthest.0 == 0.0 {
            return Coreset { indices, radius: farthest.0.sqrt() };
        }
        indices.push(farthest.1);
    }
}

fn greedy(points: &[f32], dimensions: usize, count: usize, first: usize) -> masf_core::Result<Coreset> {
    greedy_k_centre(points, dimensions, count, first, &Silent)
}

/// Clustered points of a low inner dimension, as features are.
fn clustered(count: usize, dimensions: usize, seed: u64) -> Vec<f32> {
    let mut random = random_stream(seed, "test");
    let centres: Vec<f32> = (0..20 * dimensions).map(|_| random.random_range(-4.0..4.0)).collect();
    let mut points = Vec::with_capacity(count * dimensions);
    for _ in 0..count {
        let (from, share) = (random.random_range(0..19), random.random_range(0.0..1.0f32));
        for axis in 0..dimensions {
            let (a, b) = (centres[from * dimensions + axis], centres[(from + 1) * dimensions + axis]);
            points.push(a + share * (b - a) + random.random_range(-0.5..0.5));
        }
    }
    points
}

#[test]
fn larger_sets_give_the_sequence_of_the_obvious_algorithm_on_any_number_of_threads() -> masf_core::Result<()> {
    for (count, dimensions, chosen) in [(10_000, 24, 700), (5_000, 128, 300), (3000, 3, 2500)] {
        let points = clustered(count, dimensions, 1);
        let expected = naive(&points, dimensions, chosen, 17);
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let found = pool.install(|| greedy(&points, dimensions, chosen, 17))?;
            assert_eq!(found, expected, "{count} points, {threads} threads");
        }
    }
    Ok(())
}

#[test]
fn duplicates_are_chosen_once() -> masf_core::Result<()> {
    let points: Vec<f32> = (0..6000).map(|index| (index % 7) as f32).collect();
    let found = greedy(&points, 1, 100, 0)?;
    assert_eq!(found.indices.len(), 7);
    assert_eq!(found.radius, 0.0);
    let zeros = greedy(&vec![0.0; 5000], 2, 10, 3)?;
    assert_eq!(zeros, Coreset { indices: vec![3], radius: 0.0 });
    Ok(())
}

#[test]
fn bad_arguments_are_named() {
    let message = |points: &[f32], dimensions, count, first| match greedy(points, dimensions, count, first) {
        Ok(found) => panic!("accepted: {found:?}"),
        Err(error) => error.to_string(),
    };
    assert!(message(&[], 2, 1, 0).contains("number of points is 0"));
    assert!(message(&[1.0; 3], 2, 1, 0).contains("3 values"));
    assert!(message(&[1.0; 4], 0, 1, 0).contains("0-dimensional"));
    assert!(message(&[1.0; 4], 2, 0, 0).contains("number of centres is 0"));
    assert!(message(&[1.0; 4], 2, 1, 2).contains("first centre is 2"));
    assert!(message(&[1.0, 2.0, f32::NAN, 0.0], 2, 1, 0).contains("point 1"));
    assert!(message(&[1.0, 2.0, f32::MAX, 0.0], 2, 1, 0).contains("point 1"));
}

#[test]
fn cancellation_stops_it() {
    struct Cancelled;
    impl Progress for Cancelled {
        fn start(&self, _: &str, _: u64) {}
        fn step(&self, _: u64) {}
        fn finish(&self) {}
        fn is_cancelled(&self) -> bool {
            true
        }
    }
    let result = greedy_k_centre(&clustered(500, 4, 0), 4, 100, 0, &Cancelled);
    assert!(matches!(result, Err(masf_core::Error::Cancelled)));
}

proptest! {
    #[test]
    fn small_sets_with_ties_give_the_sequence_of_the_obvious_algorithm(
        values in proptest::collection::vec(-2i8..3, 1..300), dimensions in 1usize..5, count in 1usize..60, first in 0usize..300
    ) {
        let total = values.len() / dimensions;
        prop_assume!(total > 0);
        let points: Vec<f32> = values[..total * dimensions].iter().map(|value| f32::from(*value)).collect();
        let found = greedy(&points, dimensions, count, first % total).unwrap();
        prop_assert_eq!(found, naive(&points, dimensions, count, first % total));
    }
}
