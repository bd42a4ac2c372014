//! Pixel metrics at the size of a large category: 578 maps of 256 x 256 (38 million pixels), two thirds with a mask.
//!
//! `cargo bench -p masf-metrics`

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use masf_metrics::{AUPRO_FPR_LIMIT, PixelEvaluator, label_components};
use ndarray::Array2;

const IMAGES: usize = 578;
const SIDE: usize = 256;

/// Uniform numbers in `[0, 1)` of a linear congruential generator.
struct Uniform(u64);

impl Uniform {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1 << 24) as f32
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() * end as f32) as usize
    }
}

/// A map of skewed noise, raised in three rectangles if the image is defective.
fn image(random: &mut Uniform, defective: bool) -> (Array2<f32>, Option<Array2<bool>>) {
    let mask = defective.then(|| {
        let mut mask = Array2::from_elem((SIDE, SIDE), false);
        for _ in 0..3 {
            let (top, left) = (random.below(SIDE - 40), random.below(SIDE - 40));
            let (height, width) = (1 + random.below(40), 1 + random.below(40));
            mask.slice_mut(ndarray::s![top..top + height, left..left + width]).fill(true);
        }
        mask
    });
    let map = Array2::from_shape_fn((SIDE, SIDE), |index| {
        let raised = if mask.as_ref().is_some_and(|mask| mask[index]) { 0.4 } else { 0.0 };
        let noise = random.next();
        noise * noise + raised * random.next()
    });
    (map, mask)
}

fn benchmarks(criterion: &mut Criterion) {
    let mut random = Uniform(1);
    let images: Vec<_> = (0..IMAGES).map(|i| image(&mut random, i % 3 != 0)).collect();
    let gather = || {
        let mut evaluator = PixelEvaluator::with_capacity(IMAGES * SIDE * SIDE);
        for (map, mask) in &images {
            evaluator.add(map.view(), mask.as_ref().map(|mask| mask.view())).expect("the maps are valid");
        }
        evaluator
    };

    let mut group = criterion.benchmark_group("578x256x256");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(10));
    group.bench_function("add", |bencher| bencher.iter_with_large_drop(gather));
    group.bench_function("finish (sort)", |bencher| {
        bencher.iter_batched(gather, |evaluator| evaluator.finish(), BatchSize::PerIteration);
    });
    let pixels = gather().finish().expect("both classes occur");
    group.bench_function("auroc", |bencher| bencher.iter(|| black_box(&pixels).auroc()));
    group.bench_function("average precision", |bencher| bencher.iter(|| black_box(&pixels).average_precision()));
    group.bench_function("f1 max", |bencher| bencher.iter(|| black_box(&pixels).f1_max()));
    group.bench_function("aupro", |bencher| bencher.iter(|| black_box(&pixels).aupro(AUPRO_FPR_LIMIT)));
    group.bench_function("roc curve, 1000 points", |bencher| bencher.iter(|| pixels.roc_curve(Some(1000))));
    drop(pixels);
    group.bench_function("all", |bencher| {
        bencher.iter(|| {
            let pixels = gather().finish().expect("both classes occur");
            (pixels.auroc(), pixels.average_precision(), pixels.f1_max(), pixels.aupro(AUPRO_FPR_LIMIT))
        });
    });
    group.finish();

    let noise = Array2::from_shape_simple_fn((2048, 2048), || random.next() < 0.4);
    criterion
        .bench_function("components of 2048x2048 noise", |bencher| bencher.iter(|| label_components(noise.view())));
}

criterion_group!(benches, benchmarks);
criterion_main!(benches);
