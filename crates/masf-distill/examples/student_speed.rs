//! How fast the default student learns and scores features of ResNet-50's size (strides 8 and 16 at 256 x 256), beside the peak that
//! Candle's matrix product reaches in the same process.
//!
//! ```text
//! cargo run --release -p masf-distill --example student_speed -- [STEPS] [IMAGES TO SCORE]
//! ```

use std::sync::Mutex;
use std::time::Instant;

use candle_core::{Device, Tensor};
use masf_core::{FeatureLevel, FeaturePyramid, Fit, LevelSpec, Progress, PyramidSource, Result, Scorer};
use masf_distill::StudentParams;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Channels and side of the levels.
const LEVELS: [(usize, usize, usize); 2] = [(8, 512, 32), (16, 1024, 16)];
/// Tokens of an image, as many as positions of the coarsest level.
const TOKENS: usize = 16 * 16;

/// A few random images.
struct Images(Vec<FeaturePyramid>);

impl Images {
    fn new(count: usize) -> Result<Self> {
        let image = |_| {
            let level = |(stride, channels, side): (usize, usize, usize)| {
                let map = Tensor::rand(0f32, 1f32, (1, side, side, channels), &Device::Cpu)?.permute((0, 3, 1, 2))?;
                Ok(FeatureLevel { spec: LevelSpec { stride, channels }, map })
            };
            FeaturePyramid::new(LEVELS.into_iter().map(level).collect::<Result<_>>()?, (256, 256))
        };
        Ok(Self((0..count).map(image).collect::<Result<_>>()?))
    }
}

impl PyramidSource for Images {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn batch(&self, indices: &[usize]) -> Result<FeaturePyramid> {
        FeaturePyramid::cat(&indices.iter().map(|image| self.0[*image].clone()).collect::<Vec<_>>())
    }
}

/// When each step ended.
#[derive(Default)]
struct Clock(Mutex<Vec<Instant>>);

impl Progress for Clock {
    fn start(&self, _: &str, _: u64) {
        if let Ok(mut times) = self.0.lock() {
            times.clear();
        }
    }
    fn step(&self, _: u64) {
        if let Ok(mut times) = self.0.lock() {
            times.push(Instant::now());
        }
    }
    fn finish(&self) {}
}

/// Values of a token.
fn values() -> usize {
    LEVELS.iter().map(|(_, channels, side)| channels * side * side / TOKENS).sum()
}

/// Multiplications and additions of one image's way through the student.
fn operations(params: &StudentParams) -> f64 {
    let (d, tokens, spectral) = (params.width, TOKENS, 16 * 9);
    let attention = tokens * 2 * d * d + spectral * 4 * d * d + 2 * tokens * spectral * d;
    let block = attention + tokens * 2 * params.mlp_ratio * d * d;
    let products = tokens * d * (2 * values() + 2 * params.bottleneck) + params.depth * block;
    2.0 * products as f64
}

/// The largest rate of Candle's 1024 x 1024 x 1024 product, operations a second.
fn peak() -> Result<f64> {
    let a = Tensor::randn(0f32, 1f32, (1024, 1024), &Device::Cpu)?;
    let mut best = f64::MAX;
    for _ in 0..8 {
        let started = Instant::now();
        a.matmul(&a)?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(2.0 * 1024f64.powi(3) / best)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|text| text.parse::<usize>().ok());
    let (steps, scored) = (numbers.next().unwrap_or(20), numbers.next().unwrap_or(30));
    let images = Images::new(8)?;
    let mut params = StudentParams::default();
    params.passes = steps * params.batch_size;
    let clock = Clock::default();
    let before = peak()?;
    let student = params.clone().check()?.fit(&images, &clock)?;
    let times = clock.0.into_inner().unwrap_or_default();
    let step = median(times.windows(2).skip(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect());
    let score = |image: &FeaturePyramid| -> Result<f64> {
        let started = Instant::now();
        student.score(image)?;
        Ok(started.elapsed().as_secs_f64())
    };
    let single = median((0..scored).map(|index| score(&images.0[index % 8])).collect::<Result<_>>()?);
    let peak = before.max(peak()?);
    // Forward once, backward twice; the gradient of the input is not needed.
    let learned = 3.0 * operations(&params) - 2.0 * (TOKENS * values() * params.width) as f64;
    let rate = learned * params.batch_size as f64 / step;
    println!("peak of Candle's matrix product: {:.0} GFLOP/s", peak * 1e-9);
    println!(
        "step of {} images: {:.0} ms, {:.1} ms an image, {:.0} GFLOP/s, {:.0} % of the peak",
        params.batch_size,
        step * 1e3,
        step * 1e3 / params.batch_size as f64,
        rate * 1e-9,
        100.0 * rate / peak,
    );
    println!("default training ({} images): {:.0} s", StudentParams::default().passes, {
        step / params.batch_size as f64 * StudentParams::default().passes as f64
    });
    let operations = operations(&params);
    println!(
        "score of an image: {:.1} ms, {:.2} GFLOP, {:.0} % of the peak",
        single * 1e3,
        operations * 1e-9,
        100.0 * operations / single / peak,
    );
    println!("{} learned values", student.parameter_count());
    Ok(())
}
