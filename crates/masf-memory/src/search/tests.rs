use masf_core::random_stream;
use proptest::prelude::*;
use rand::Rng;

use super::*;
use crate::lanes::squared_distance;

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

/// Clustered rows of a low inner dimension, with some noise everywhere: short keys rule out most of them.
fn clustered(count: usize, dimensions: usize, seed: u64) -> Vec<f32> {
    let mut shapes = random_stream(7, "test");
    let sheets: Vec<f32> = (0..6 * 4 * dimensions).map(|_| shapes.random_range(-1f32..1.0)).collect();
    let centres: Vec<f32> = (0..6 * dimensions).map(|_| shapes.random_range(-3f32..3.0)).collect();
    let mut stream = random_stream(seed, "test");
    let mut rows = Vec::with_capacity(count * dimensions);
    for _ in 0..count {
        let cluster = stream.random_range(0..6);
        let place: [f32; 4] = std::array::from_fn(|_| stream.random_range(-2.0..2.0));
        for axis in 0..dimensions {
            let sheet: f32 = (0..4).map(|k| place[k] * sheets[(cluster * 4 + k) * dimensions + axis]).sum();
            rows.push(centres[cluster * dimensions + axis] + sheet + stream.random_range(-0.1..0.1));
        }
    }
    rows
}

#[test]
fn a_shortlist_of_all_is_the_exact_search() -> Result<()> {
    let dimensions = 80;
    let prototypes = clustered(300, dimensions, 1);
    let queries = clustered(150, dimensions, 2);
    let expected = naive(&prototypes, dimensions, &queries, 3);
    for (directions, candidates) in [(8, 300), (40, 2), (1000, 1)] {
        let search = ShortlistSearch::new(prototypes.clone(), dimensions, directions, candidates)?;
        assert_eq!(search.nearest(&queries, 3)?, expected);
    }
    // All but one is as good, where that one is far away.
    let search = ShortlistSearch::new(prototypes, dimensions, 8, 299)?;
    assert_eq!(search.nearest(&queries, 3)?, expected);
    Ok(())
}

#[test]
fn a_shortlist_finds_true_distances_and_mostly_the_nearest() -> Result<()> {
    let dimensions = 80;
    let prototypes = clustered(3000, dimensions, 1);
    let mut queries = clustered(400, dimensions, 2);
    // Defects: something that no prototype has, outside of the leading directions.
    for query in queries.chunks_exact_mut(dimensions).step_by(4) {
        query[17] += 8.0;
    }
    let search = ShortlistSearch::new(prototypes.clone(), dimensions, 32, 8)?;
    let found = search.nearest(&queries, 1)?;
    let expected = naive(&prototypes, dimensions, &queries, 1);
    let mut same = 0;
    for (query, row) in queries.chunks_exact(dimensions).enumerate() {
        let prototype = &prototypes[found.indices[query] as usize * dimensions..][..dimensions];
        assert_eq!(found.distances[query], squared_distance(row, prototype).sqrt());
        assert!(found.distances[query] <= 1.05 * expected.distances[query], "query {query}");
        same += usize::from(found.indices[query] == expected.indices[query]);
    }
    assert!(same >= 380, "{same} of 400");
    // Prototypes find themselves, and batches and threads change no bit.
    assert!(search.nearest(&prototypes, 1)?.distances.iter().all(|distance| *distance == 0.0));
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut joined = Neighbours { k: 1, ..Neighbours::default() };
        for part in queries.chunks(37 * dimensions) {
            let found = pool.install(|| search.nearest(part, 1))?;
            joined.indices.extend(found.indices);
            joined.distances.extend(found.distances);
        }
        assert_eq!(joined, found);
    }
    Ok(())
}

#[test]
fn like_queries_find_true_distances_and_mostly_the_nearest() -> Result<()> {
    let dimensions = 80;
    let prototypes = clustered(3000, dimensions, 1);
    // Groups of 1 to 4 patches that differ a little, some of them of a defect.
    let groups: Vec<usize> = (0..160).map(|group| 1 + group % 4).collect();
    let mut random = random_stream(3, "test.alike");
    let mut queries = Vec::new();
    for (group, centre) in groups.iter().zip(clustered(160, dimensions, 2).chunks_exact(dimensions)) {
        for _ in 0..*group {
            queries.extend(centre.iter().map(|value| value + random.random_range(-0.3f32..0.3)));
        }
        if group % 3 == 0 {
            let last = queries.len() - dimensions;
            queries[last + 17] += 8.0;
        }
    }
    let search = ShortlistSearch::new(prototypes.clone(), dimensions, 32, 8)?;
    for k in [1, 3] {
        let found = search.nearest_alike(&queries, &groups, k)?;
        let expected = naive(&prototypes, dimensions, &queries, k);
        let mut same = 0;
        for (query, row) in queries.chunks_exact(dimensions).enumerate() {
            for place in query * k..(query + 1) * k {
                let prototype = &prototypes[found.indices[place] as usize * dimensions..][..dimensions];
                assert_eq!(found.distances[place], squared_distance(row, prototype).sqrt());
                assert!(found.distances[place] <= 1.1 * expected.distances[place], "query {query}");
                same += usize::from(found.indices[place] == expected.indices[place]);
            }
        }
        assert!(same * 100 >= found.indices.len() * 90, "{same} of {}", found.indices.len());
        // What lies before and after a group changes no bit.
        let mut joined = Neighbours { k, ..Neighbours::default() };
        let mut rest = &queries[..];
        for groups in groups.chunks(7) {
            let (part, others) = rest.split_at(groups.iter().sum::<usize>() * dimensions);
            let found = search.nearest_alike(part, groups, k)?;
            joined.indices.extend(found.indices);
            joined.distances.extend(found.distances);
            rest = others;
        }
        assert_eq!(joined, found);
    }
    // Fewer prototypes than like queries may choose from.
    for count in [9, 20, 31] {
        let few = prototypes[..count * dimensions].to_vec();
        let found = ShortlistSearch::new(few.clone(), dimensions, 32, 8)?.nearest_alike(&queries, &groups, 1)?;
        let expected = naive(&few, dimensions, &queries, 1);
        for (found, expected) in found.distances.iter().zip(expected.distances) {
            assert!(*found <= 1.1 * expected, "{count} prototypes: {found}, expected {expected}");
        }
    }
    // Groups that are not those of the queries, in this search and in one that needs none.
    let exact = ExactSearch::new(prototypes, dimensions)?;
    assert_eq!(exact.nearest_alike(&queries, &groups, 2)?, exact.nearest(&queries, 2)?);
    for groups in [&[][..], &[400, 1], &[0, 400], &[usize::MAX, usize::MAX]] {
        assert!(search.nearest_alike(&queries, groups, 1).is_err());
        assert!(exact.nearest_alike(&queries, groups, 1).is_err());
    }
    Ok(())
}

#[test]
fn a_shortlist_refuses_what_it_cannot_search() -> Result<()> {
    let rows = clustered(50, 40, 1);
    assert!(ShortlistSearch::new(rows.clone(), 40, 0, 4).is_err());
    assert!(ShortlistSearch::new(rows.clone(), 40, 4, 0).is_err());
    assert!(ShortlistSearch::new(vec![f32::NAN; 80], 40, 4, 1).is_err());
    let search = ShortlistSearch::new(rows, 40, 4, 4)?;
    assert!(search.nearest(&[f32::NAN; 40], 1).is_err());
    assert!(search.nearest(&[0.0; 40], 51).is_err());
    assert_eq!(search.nearest(&[0.0; 40], 50)?.indices.len(), 50);
    // Equal prototypes leave no direction of variance.
    let equal = ShortlistSearch::new(vec![2.0; 100 * 40], 40, 4, 4)?;
    assert_eq!(equal.nearest(&[2.0; 40], 1)?, Neighbours { k: 1, indices: vec![0], distances: vec![0.0] });
    Ok(())
}

#[test]
fn short_keys_change_no_bit() -> Result<()> {
    for (dimensions, scale, offset) in [(192, 1.0, 0.0), (320, 1e-12, 0.0), (130, 1e14, 0.0), (256, 1.0, 500.0)] {
        let rows = |count, seed| clustered(count, dimensions, seed).into_iter().map(|x| scale * x + offset).collect();
        let (prototypes, mut queries): (Vec<f32>, Vec<f32>) = (rows(1500, 1), rows(90, 2));
        // Some equal a prototype, some lie far from all: the second kind is searched for by the plain product.
        queries[..dimensions].copy_from_slice(&prototypes[7 * dimensions..8 * dimensions]);
        for (index, value) in queries.iter_mut().enumerate().skip(80 * dimensions) {
            *value = offset + scale * 40.0 * ((index * 37 % 101) as f32 / 50.0 - 1.0);
        }
        let search = ExactSearch::new(prototypes.clone(), dimensions)?;
        assert!(search.has_short_keys(), "{dimensions}");
        for k in [1, 5] {
            assert_eq!(search.nearest(&queries, k)?, naive(&prototypes, dimensions, &queries, k), "{dimensions}, {k}");
        }
    }
    Ok(())
}

fn cells(cells: usize, visited: usize, distance: std::ops::Range<usize>, key: std::ops::Range<usize>) -> CellParams {
    CellParams { cells, visited, distance, key, seed: 3 }
}

#[test]
fn all_cells_visited_is_the_exact_search_bit_for_bit() -> Result<()> {
    let dimensions = 96;
    let (prototypes, queries) = (clustered(1200, dimensions, 1), clustered(150, dimensions, 2));
    let expected = ExactSearch::new(prototypes.clone(), dimensions)?.nearest(&queries, 3)?;
    for key in [0..96, 80..96, 3..9] {
        let search = CellSearch::new(prototypes.clone(), dimensions, cells(20, 20, 0..96, key))?;
        assert_eq!(search.nearest(&queries, 3)?, expected);
    }
    // Distances of a part of the rows: the search in that part alone.
    let part = |rows: &[f32]| rows.chunks_exact(dimensions).flat_map(|row| row[..80].to_vec()).collect::<Vec<f32>>();
    let expected = ExactSearch::new(part(&prototypes), 80)?.nearest(&part(&queries), 2)?;
    let search = CellSearch::new(prototypes.clone(), dimensions, cells(9, 100, 0..80, 80..96))?;
    assert_eq!(search.nearest(&queries, 2)?, expected);
    assert_eq!(search.prototypes(), prototypes);
    Ok(())
}

#[test]
fn few_cells_find_most_and_batches_and_threads_change_no_bit() -> Result<()> {
    let dimensions = 64;
    let (prototypes, queries) = (clustered(3000, dimensions, 1), clustered(200, dimensions, 2));
    let expected = ExactSearch::new(prototypes.clone(), dimensions)?.nearest(&queries, 1)?;
    let search = CellSearch::new(prototypes.clone(), dimensions, cells(0, 6, 0..64, 0..64))?;
    assert_eq!(search.cells(), 54);
    let found = search.nearest(&queries, 1)?;
    assert_eq!(search.nearest_alike(&queries, &[1; 200], 1)?, found);
    assert!(search.nearest_alike(&queries, &[1; 199], 1).is_err());
    let equal = found.indices.iter().zip(&expected.indices).filter(|(a, b)| a == b).count();
    assert!(equal >= 190, "{equal} of 200");
    assert!(found.distances.iter().zip(&expected.distances).all(|(a, b)| a >= b));
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let again = pool.install(|| CellSearch::new(prototypes.clone(), dimensions, cells(0, 6, 0..64, 0..64)))?;
        for batch in [1, 7, 64] {
            let parts = queries.chunks(batch * dimensions).map(|part| pool.install(|| again.nearest(part, 1)));
            assert_eq!(
                Neighbours::join(1, parts.collect::<Result<_>>()?),
                found,
                "{threads} threads, {batch} at a time"
            );
        }
    }
    // More cells find no fewer.
    let mut before = 0;
    for visited in [1, 3, 12, 54] {
        let found =
            CellSearch::new(prototypes.clone(), dimensions, cells(0, visited, 0..64, 0..64))?.nearest(&queries, 1)?;
        let equal = found.indices.iter().zip(&expected.indices).filter(|(a, b)| a == b).count();
        assert!(equal >= before);
        before = equal;
    }
    assert_eq!(before, 200);
    Ok(())
}

#[test]
fn empty_cells_and_large_k_are_answered_in_full() -> Result<()> {
    // Equal prototypes leave all cells but one empty.
    let search = CellSearch::new(vec![2.0; 40 * 3], 3, cells(8, 1, 0..3, 0..3))?;
    let found = search.nearest(&[2.0, 2.0, 2.0, 9.0, 9.0, 9.0], 40)?;
    assert_eq!(found.indices[..40], (0..40).collect::<Vec<u32>>());
    assert_eq!(found.indices[..40], found.indices[40..]);
    // One visited cell holds fewer prototypes than are asked for.
    let prototypes = clustered(500, 8, 4);
    let search = CellSearch::new(prototypes.clone(), 8, cells(50, 1, 0..8, 0..8))?;
    let found = search.nearest(&prototypes[..80], 400)?;
    assert_eq!(found.indices.len(), 4000);
    assert!(found.distances.chunks(400).all(|d| d[0] == 0.0 && d.windows(2).all(|pair| pair[0] <= pair[1])));
    assert!(search.nearest(&prototypes[..8], 501).is_err());
    // A bank of one prototype.
    let single = CellSearch::new(vec![1.0, 2.0], 2, cells(0, 5, 0..2, 0..1))?;
    assert_eq!(single.nearest(&[1.0, 2.0], 1)?.distances, [0.0]);
    Ok(())
}

#[test]
fn cells_name_bad_arguments() {
    let message = |params| CellSearch::new(vec![1.0; 12], 3, params).unwrap_err().to_string();
    assert!(message(cells(2, 0, 0..3, 0..3)).contains("visited is 0"));
    assert!(message(cells(2, 1, 0..4, 0..3)).contains("distance is 0..4"));
    assert!(message(cells(2, 1, 0..3, 2..2)).contains("key is 2..2"));
    assert!(CellSearch::new(vec![f32::NAN; 3], 3, cells(1, 1, 0..3, 0..3)).is_err());
    let search = CellSearch::new(vec![1.0; 12], 3, cells(2, 1, 0..3, 0..3)).unwrap();
    assert!(search.nearest(&[f32::NAN, 0.0, 0.0], 1).unwrap_err().to_string().contains("query 0"));
    assert!(search.nearest(&[0.0; 4], 1).is_err());
    assert!(search.nearest(&[0.0; 3], 0).is_err());
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
