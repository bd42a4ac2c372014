//! Transforms of the sizes that feature pyramids have: forward, inverse, and forward with gradient.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use candle_core::{Device, Tensor, Var};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use masf_spectral::{Norm, Scattering2d, ScatteringConfig, SpectralDecomposition, irfft2, rfft2};

const SIZES: [&[usize]; 6] =
    [&[256, 64, 64], &[512, 32, 32], &[1024, 16, 16], &[1, 3, 256, 256], &[64, 56, 56], &[64, 61, 61]];

fn transforms(criterion: &mut Criterion) {
    for operation in ["rfft2", "irfft2", "rfft2+grad"] {
        let mut group = criterion.benchmark_group(operation);
        for dims in SIZES {
            let input = Var::rand(-1f32, 1f32, dims, &Device::Cpu).expect("input");
            let spectrum = rfft2(&input.as_detached_tensor(), Norm::Ortho).expect("spectrum");
            group.throughput(Throughput::Elements(input.elem_count() as u64));
            let name = dims.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| match operation {
                "rfft2" => bencher.iter(|| rfft2(&input.as_detached_tensor(), Norm::Ortho).expect("rfft2")),
                "irfft2" => bencher.iter(|| irfft2(&spectrum, None).expect("irfft2")),
                _ => bencher.iter(|| {
                    let loss =
                        rfft2(input.as_tensor(), Norm::Ortho).and_then(|s| Ok(s.power()?.sum_all()?)).expect("loss");
                    loss.backward().expect("gradient")
                }),
            });
        }
    }
}

fn tools(criterion: &mut Criterion) {
    let maps = Tensor::rand(0f32, 1f32, (1, 256, 32, 32), &Device::Cpu).expect("maps");
    let split = SpectralDecomposition::fixed(Default::default(), &Device::Cpu).expect("split");
    criterion
        .bench_function("decompose 1x256x32x32", |bencher| bencher.iter(|| split.decompose(&maps).expect("bands")));
    let image = Tensor::rand(0f32, 1f32, (1, 3, 256, 256), &Device::Cpu).expect("image");
    let scattering = Scattering2d::new(ScatteringConfig::default()).expect("scattering");
    criterion.bench_function("scattering J=3 L=8 1x3x256x256", |bencher| {
        bencher.iter(|| scattering.forward(&image).expect("coefficients"));
    });
}

criterion_group!(benches, transforms, tools);
criterion_main!(benches);
