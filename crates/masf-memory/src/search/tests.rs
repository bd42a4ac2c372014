use masf_core::random_stream;
use proptest::prelude::*;
use rand::Rng;

use super::*;

/// All direct distances, sorted.
fn naive(prototypes: &[f32], dimensions: usize, queries: &[f32], k: usize) -> Neighbours {
    let mut found = Neighbours { k, ..Neighbours::default() };
    for query in queries.chunks_exact(dimensions) {
        let distance = |(index, row): (usize, &[f32])| (squared_distance(query, row), index as u32);
        let mut all: Vec<_> = prototypes.chunks_exact(dimensions).enumerate().map(distance).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        found.indices.extend(all.iter().take(k).map(|entry| entry.1));
        found.distances.extend(all.iter().take(k).map(|entry| entry.0.sqrt()));
    }
    found
}

fn random(count: usize, seed: u64, offset: f32) -> Vec<f32> {
    let mut stream = random_stream(seed, "test");
    (0..count).map(|_| offset + stream.random_range(-1.0..1.0f32)).collect()
}

#[test]
fn it_is_the_direct_search_bit_for_bit() -> Result<()> {
    // An offset far from zero makes the product cancel badly; the answer must not change.
    for (count, dimensions, offset) in [(1, 1, 0.0), (700, 17, 0.0), (1000, 200, 5.0), (300, 64, 1000.0)] {
        let prototypes = random(count * dimensions, 1, offset);
        let queries = random(150 * dimensions, 2, offset);
        let search = ExactSearch::new(prototypes.clone(), dimensions)?;
        for k in [1, 2, 9, 16] {
            if k > count {
                assert!(search.nearest(&queries, k).is_err());
                continue;
            }
            assert_eq!(search.nearest(&queries, k)?, naive(&prototypes, dimensions, &queries, k));
        }
    }
    Ok(())
}

#[test]
fn batches_and_threads_change_no_bit() -> Result<()> {
    let dimensions = 96;
    let search = ExactSearch::new(random(900 * dimensions, 3, 2.0), dimensions)?;
    let queries = random(131 * dimensions, 4, 2.0);
    let expected = search.nearest(&queries, 3)?;
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for batch in [1, 2, 63, 64, 65, 131] {
            let mut joined = Neighbours { k: 3, ..Neighbours::default() };
            for part in queries.chunks(batch * dimensions) {
                let found = pool.install(|| search.nearest(part, 3))?;
                joined.indices.extend(found.indices);
                joined.distances.extend(found.distances);
            }
            assert_eq!(joined, expected, "{threads} threads, {batch} at a time");
        }
    }
    Ok(())
}

#[test]
fn every_prototype_finds_itself_at_distance_zero() -> Result<()> {
    let prototypes = random(600 * 50, 5, 300.0);
    let found = ExactSearch::new(prototypes.clone(), 50)?.nearest(&prototypes, 1)?;
    assert!(found.distances.iter().all(|distance| *distance == 0.0));
    assert!(found.indices.iter().zip(0..).all(|(index, own)| *index == own));
    Ok(())
}

#[test]
fn duplicates_and_zeros_go_to_the_lowest_index() -> Result<()> {
    let search = ExactSearch::new(vec![0.0; 600 * 4], 4)?;
    let found = search.nearest(&[0.0; 8], 3)?;
    assert_eq!(found.indices, [0, 1, 2, 0, 1, 2]);
    assert_eq!(found.distances, [0.0; 6]);
    Ok(())
}

#[test]
fn bad_arguments_are_named() -> Result<()> {
    let message = |result: Result<Neighbours>| result.map_err(|error| error.to_string()).unwrap_err();
    let search = ExactSearch::new(vec![0.0; 6], 3)?;
    assert!(message(search.nearest(&[0.0; 3], 0)).contains("k is 0"));
    assert!(message(search.nearest(&[0.0; 3], 3)).contains("1 to the 2 prototypes"));
    assert!(message(search.nearest(&[0.0; 4], 1)).contains("4 values"));
    assert!(message(search.nearest(&[0.0, 0.0, 0.0, f32::NAN, 0.0, 0.0], 1)).contains("query 1"));
    assert!(message(search.nearest(&[f32::INFINITY, 0.0, 0.0], 1)).contains("query 0"));
    assert!(message(search.nearest(&[f32::MAX, 0.0, 0.0], 1)).contains("query 0"));
    assert!(search.nearest(&[], 1)?.indices.is_empty());
    assert!(ExactSearch::new(vec![], 3).is_err());
    assert!(ExactSearch::new(vec![0.0; 4], 3).is_err());
    assert!(ExactSearch::new(vec![0.0; 4], 0).is_err());
    assert!(ExactSearch::new(vec![f32::NAN; 3], 3).is_err());
    Ok(())
}

proptest! {
    #[test]
    fn ties_and_large_values_are_ranked_as_by_direct_distances(
        values in proptest::collection::vec(-3i8..4, 2..400), dimensions in 1usize..6, scale in prop::sample::select(vec![1e-20f32, 1.0, 1e6, 1e16])
    ) {
        let rows = values.len() / dimensions;
        prop_assume!(rows >= 2);
        let values: Vec<f32> = values[..rows * dimensions].iter().map(|value| f32::from(*value) * scale).collect();
        let (queries, prototypes) = values.split_at(rows / 2 * dimensions);
        let k = (prototypes.len() / dimensions).min(4);
        let search = ExactSearch::new(prototypes.to_vec(), dimensions).unwrap();
        prop_assert_eq!(search.nearest(queries, k).unwrap(), naive(prototypes, dimensions, queries, k));
    }
}
