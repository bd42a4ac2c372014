//! Coreset and search at the sizes of real categories; features are clustered points of a low inner dimension with noise.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use masf_core::{Silent, random_stream};
use masf_memory::{ExactSearch, LinearMap, PrototypeSearch, greedy_k_centre};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

/// Points on random 8-dimensional sheets around 30 centres of unequal weight, with noise in all dimensions.
fn features(count: usize, dimensions: usize, seed: u64) -> Vec<f32> {
    let mut random = random_stream(seed, "bench");
    let mut normal = move || -> f32 { StandardNormal.sample(&mut random) };
    let centres: Vec<f32> = (0..30 * dimensions).map(|_| normal()).collect();
    let sheets: Vec<f32> = (0..30 * 8 * dimensions).map(|_| 0.3 * normal()).collect();
    let mut pick = random_stream(seed, "bench.pick");
    let mut rows = Vec::with_capacity(count * dimensions);
    for _ in 0..count {
        let share: f32 = pick.random_range(0.0..1.0);
        let cluster = (30.0 * share * share) as usize;
        let place: Vec<f32> = (0..8).map(|_| normal()).collect();
        for axis in 0..dimensions {
            let sheet = (0..8).map(|k| place[k] * sheets[(cluster * 8 + k) * dimensions + axis]).sum::<f32>();
            rows.push(centres[cluster * dimensions + axis] + sheet + 0.1 * normal());
        }
    }
    rows
}

fn coreset(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("coreset");
    group.sample_size(10);
    for (count, dimensions, chosen) in [(60_000, 1536, 4000), (214_016, 384, 2140)] {
        let rows = features(count, dimensions, 1);
        group.bench_function(format!("{chosen} of {count} x {dimensions} projected to 128"), |bencher| {
            bencher.iter(|| -> masf_core::Result<f32> {
                let points = LinearMap::random(dimensions, 128, 0, "bench")?.apply(&rows)?;
                Ok(greedy_k_centre(&points, 128, chosen, 0, &Silent)?.radius)
            });
        });
    }
    group.finish();
}

fn search(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("search");
    group.sample_size(20);
    for (queries, dimensions, prototypes) in [(1024, 1536, 4000), (1024, 128, 4000), (784, 512, 16_384)] {
        let rows = features(queries + prototypes, dimensions, 2);
        let (questions, bank) = rows.split_at(queries * dimensions);
        let Ok(search) = ExactSearch::new(bank.to_vec(), dimensions) else { continue };
        group.throughput(Throughput::Elements(2 * (queries * dimensions * prototypes) as u64));
        group.bench_function(format!("{queries} x {dimensions} x {prototypes}"), |bencher| {
            bencher.iter(|| search.nearest(black_box(questions), 1));
        });
    }
    group.finish();
}

criterion_group!(benches, coreset, search);
criterion_main!(benches);
