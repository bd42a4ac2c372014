use masf_core::{Silent, random_stream};
use rand::Rng;

use super::*;

#[derive(serde::Deserialize)]
struct Reference {
    rows: Vec<f32>,
    components: Vec<f32>,
    variances: Vec<f64>,
}

fn learn(rows: &[f32], dimensions: usize, components: usize, whiten: bool) -> Result<(LinearMap, Vec<f64>)> {
    principal_components(rows.chunks_exact(dimensions), dimensions, components, whiten, 0, &Silent)
}

#[test]
fn components_and_variances_are_those_of_scikit_learn() -> Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/memory_pca.json");
    let reference: Reference = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (map, variances) = learn(&reference.rows, 10, 4, false)?;
    for (found, expected) in map.matrix().iter().zip(&reference.components) {
        assert!((found - expected).abs() < 1e-4, "{found} instead of {expected}");
    }
    for (found, expected) in variances.iter().zip(&reference.variances) {
        assert!((found - expected).abs() < 1e-5 * expected, "{found} instead of {expected}");
    }
    Ok(())
}

/// Rows whose variance along axis `i` is `decay^i`, turned by nothing: the components are the axes.
fn decaying(count: usize, dimensions: usize, decay: f32) -> Vec<f32> {
    let mut random = random_stream(4, "test.pca");
    let mut rows = Vec::with_capacity(count * dimensions);
    for _ in 0..count {
        for axis in 0..dimensions {
            rows.push(7.0 + decay.powf(axis as f32 / 2.0) * random.random_range(-1.732f32..1.732));
        }
    }
    rows
}

#[test]
fn a_narrow_block_finds_the_largest_variances() -> Result<()> {
    let (dimensions, rows) = (200, decaying(3000, 200, 0.9));
    let (_, all) = learn(&rows, dimensions, 190, false)?;
    let (map, variances) = learn(&rows, dimensions, 20, false)?;
    for (found, exact) in variances.iter().zip(&all) {
        assert!((found - exact).abs() < 1e-3 * exact, "{found} instead of {exact}");
    }
    // The map is orthonormal.
    for a in 0..20 {
        for b in 0..20 {
            let dot: f32 = map.matrix().chunks_exact(20).map(|row| row[a] * row[b]).sum();
            assert!((dot - f32::from(u8::from(a == b))).abs() < 1e-5, "{a} {b}: {dot}");
        }
    }
    Ok(())
}

#[test]
fn whitening_gives_unit_variances_and_spares_empty_directions() -> Result<()> {
    let mut rows = decaying(2000, 12, 0.8);
    for row in rows.chunks_exact_mut(12) {
        row[11] = 1.0;
        row[10] = row[9];
    }
    let (map, _) = learn(&rows, 12, 12, true)?;
    let (mapped, count) = (map.apply(&rows)?, 2000.0);
    for column in 0..12 {
        let values = mapped.chunks_exact(12).map(|row| f64::from(row[column]));
        let mean = values.clone().sum::<f64>() / count;
        let variance = values.map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        let expected = if column < 10 { 1.0 } else { 0.0 };
        assert!((variance - expected).abs() < 1e-2, "{column}: {variance}");
    }
    Ok(())
}

#[test]
fn constant_rows_give_finite_maps() -> Result<()> {
    for whiten in [false, true] {
        let (map, variances) = learn(&[2.5; 40 * 6], 6, 3, whiten)?;
        assert_eq!(variances, [0.0; 3]);
        assert!(map.matrix().iter().all(|value| value.is_finite()));
    }
    Ok(())
}

#[test]
fn a_single_direction_has_the_same_bits_on_any_number_of_threads() -> Result<()> {
    let dimensions = 1536;
    let mut random = random_stream(5, "test.pca");
    let rows: Vec<f32> = (0..300 * dimensions).map(|_| random.random_range(-1f32..1.0)).collect();
    let mean = mean(&rows, dimensions);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| leading_directions(&rows, &mean, spread(&rows, &mean), 1, 300))
    };
    let expected = with(1)?;
    assert_eq!(expected.len(), dimensions);
    for threads in [5, 10] {
        assert_eq!(with(threads)?, expected, "{threads} threads");
    }
    Ok(())
}
