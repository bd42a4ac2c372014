//! Our side of `benches/peers/run fft`: times transforms on request, so that another process can alternate with it.
//!
//! Reads lines `SIDE CASE` from standard input, such as `ours rfft2 256x64x64` or `realfft rfft2 256x64x64`, and answers each with
//! the milliseconds of the fastest of some calls. `realfft` is the plain use of RealFFT and RustFFT with rayon over the maps.

use candle_core::{Device, Tensor, Var};
use masf_spectral::{Norm, irfft2, rfft2};
use rayon::prelude::*;
use realfft::RealFftPlanner;
use rustfft::num_complex::Complex;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

type AnyResult<T> = Result<T, Box<dyn std::error::Error>>;

/// Calls are repeated for this long, and at least three times.
const BUDGET: Duration = Duration::from_millis(25);

fn main() -> AnyResult<()> {
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut words = line.split_whitespace();
        let (Some(side), Some(operation), Some(size)) = (words.next(), words.next(), words.next()) else {
            return Err(format!("expected SIDE OPERATION SIZE, got {line:?}").into());
        };
        let dims = size.split('x').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
        let milliseconds = match side {
            "ours" => ours(operation, &dims)?,
            "realfft" => bare(operation, &dims)?,
            _ => return Err(format!("unknown side {side}").into()),
        };
        println!("{milliseconds}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn ours(operation: &str, dims: &[usize]) -> AnyResult<f64> {
    let input = Tensor::rand(-1f32, 1f32, dims, &Device::Cpu)?;
    match operation {
        "rfft2" => fastest(|| Ok(rfft2(&input, Norm::Backward)?)),
        "irfft2" => {
            let spectrum = rfft2(&input, Norm::Backward)?;
            fastest(|| Ok(irfft2(&spectrum, None)?))
        }
        "rfft2+grad" => {
            let input = Var::from_tensor(&input)?;
            fastest(|| {
                let loss = rfft2(input.as_tensor(), Norm::Backward)?.values().planes().sqr()?.sum_all()?;
                Ok(loss.backward()?)
            })
        }
        _ => Err(format!("unknown operation {operation}").into()),
    }
}

/// What one writes by hand with RealFFT: rows, then gathered columns, interleaved complex output.
fn bare(operation: &str, dims: &[usize]) -> AnyResult<f64> {
    let &[.., height, width] = dims else { return Err("expected at least two axes".into()) };
    let columns = width / 2 + 1;
    let maps = dims.iter().product::<usize>() / (height * width);
    let mut planner = RealFftPlanner::<f32>::new();
    let (forward, inverse) = (planner.plan_fft_forward(width), planner.plan_fft_inverse(width));
    let mut complex = rustfft::FftPlanner::<f32>::new();
    let (down, up) = (complex.plan_fft_forward(height), complex.plan_fft_inverse(height));
    let input: Vec<f32> =
        (0..maps * height * width).map(|index| ((index * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
    let zero = Complex::new(0f32, 0f32);

    let by_columns = |map: &mut [Complex<f32>],
                      plan: &dyn rustfft::Fft<f32>,
                      line: &mut [Complex<f32>],
                      work: &mut [Complex<f32>]| {
        for column in 0..columns {
            for (row, value) in line.iter_mut().enumerate() {
                *value = map[row * columns + column];
            }
            plan.process_with_scratch(line, work);
            for (row, value) in line.iter().enumerate() {
                map[row * columns + column] = *value;
            }
        }
    };
    let run_forward = || {
        let mut output = vec![zero; maps * height * columns];
        output.par_chunks_exact_mut(height * columns).zip(input.par_chunks_exact(height * width)).for_each_init(
            || {
                (
                    vec![0f32; width],
                    vec![zero; height],
                    vec![zero; down.get_inplace_scratch_len().max(forward.get_scratch_len())],
                )
            },
            |(real, line, work), (map, input)| {
                for (spectrum, row) in map.chunks_exact_mut(columns).zip(input.chunks_exact(width)) {
                    real.copy_from_slice(row);
                    let _ = forward.process_with_scratch(real, spectrum, work);
                }
                by_columns(map, down.as_ref(), line, work);
            },
        );
        output
    };
    match operation {
        "rfft2" => fastest(|| Ok(run_forward())),
        "irfft2" => {
            let spectra = run_forward();
            fastest(|| {
                let mut output = vec![0f32; maps * height * width];
                output
                    .par_chunks_exact_mut(height * width)
                    .zip(spectra.par_chunks_exact(height * columns))
                    .for_each_init(
                        || {
                            (
                                vec![zero; height * columns],
                                vec![zero; height],
                                vec![zero; up.get_inplace_scratch_len().max(inverse.get_scratch_len())],
                            )
                        },
                        |(map, line, work), (output, spectrum)| {
                            map.copy_from_slice(spectrum);
                            by_columns(map, up.as_ref(), line, work);
                            for (spectrum, row) in map.chunks_exact_mut(columns).zip(output.chunks_exact_mut(width)) {
                                spectrum[0].im = 0.0;
                                spectrum[columns - 1].im = 0.0;
                                let _ = inverse.process_with_scratch(spectrum, row, work);
                            }
                        },
                    );
                Ok(output)
            })
        }
        _ => Err(format!("unknown operation {operation}").into()),
    }
}

/// Time of the fastest call, dropping its result included: the one that other processes disturbed least.
fn fastest<R>(mut call: impl FnMut() -> AnyResult<R>) -> AnyResult<f64> {
    drop(call()?);
    let start = Instant::now();
    let (mut calls, mut best) = (0, f64::INFINITY);
    while calls < 3 || start.elapsed() < BUDGET {
        let begin = Instant::now();
        drop(call()?);
        best = best.min(begin.elapsed().as_secs_f64() * 1e3);
        calls += 1;
    }
    Ok(best)
}
