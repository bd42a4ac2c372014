//! The kernel for all lengths: RustFFT and RealFFT, one line at a time, in parallel over maps.

use super::Job;
use super::plans::{self, Sample};
use super::source::Source;
use crate::op::Kind;
use rayon::prelude::*;
use rustfft::num_complex::Complex;
use rustfft::num_traits::Zero;

/// Lines of one-axis transforms are handed out in chunks of about this many points, so that a task outweighs its dispatch.
const POINTS_PER_TASK: usize = 8192;

pub(super) fn run<T: Sample>(job: &Job, source: &Source<T>, output: &mut [T]) {
    let tasks_min = (POINTS_PER_TASK / (job.height * job.width)).max(1);
    match job.kind {
        Kind::Complex { inverse } => {
            let plans = ComplexPlans::new(job.height, job.width, inverse);
            each_planar(job.height * job.width, tasks_min, output, |map, re, im, scratch: &mut Scratch<T>| {
                complex(job, source, map, &plans, scratch);
                let scale = T::of(job.scale);
                for ((re, im), value) in re.iter_mut().zip(im).zip(&scratch.map) {
                    (*re, *im) = (value.re * scale, value.im * scale);
                }
            });
        }
        Kind::RealToHalf { .. } => {
            let rows = plans::real_forward::<T>(job.width);
            let columns = (job.height > 1).then(|| plans::complex::<T>(job.height, false));
            each_planar(job.height * job.columns, tasks_min, output, |map, re, im, scratch: &mut Scratch<T>| {
                scratch.resize(job.height * job.columns, job.width, rows.get_scratch_len());
                for (row, spectrum) in scratch.map.chunks_exact_mut(job.columns).enumerate() {
                    for (to, from) in scratch.real.iter_mut().zip(source.row(map, 0, row)) {
                        *to = from;
                    }
                    // The buffers have the lengths of the plan, which is all that can fail.
                    let _ = rows.process_with_scratch(&mut scratch.real, spectrum, &mut scratch.work);
                }
                if let Some(plan) = &columns {
                    scratch.transform_columns(job.height, job.columns, plan.as_ref());
                }
                let rows = re.chunks_exact_mut(job.columns).zip(im.chunks_exact_mut(job.columns));
                for ((re, im), values) in rows.zip(scratch.map.chunks_exact(job.columns)) {
                    for (column, ((re, im), value)) in re.iter_mut().zip(im).zip(values).enumerate() {
                        let factor = T::of(job.column_factor(column));
                        (*re, *im) = (value.re * factor, value.im * factor);
                    }
                }
            });
        }
        Kind::HalfToReal { .. } => {
            let rows = plans::real_inverse::<T>(job.width);
            let columns = (job.height > 1).then(|| plans::complex::<T>(job.height, true));
            output.par_chunks_exact_mut(job.height * job.width).with_min_len(tasks_min).enumerate().for_each_init(
                Scratch::default,
                |scratch, (map, real)| {
                    scratch.resize(job.height * job.columns, job.width, rows.get_scratch_len());
                    load_half(job, source, map, &mut scratch.map);
                    if let Some(plan) = &columns {
                        scratch.transform_columns(job.height, job.columns, plan.as_ref());
                    }
                    for (spectrum, real) in
                        scratch.map.chunks_exact_mut(job.columns).zip(real.chunks_exact_mut(job.width))
                    {
                        // RealFFT refuses imaginary parts here; by definition they do not count.
                        if let Some(first) = spectrum.first_mut() {
                            first.im = T::zero();
                        }
                        if job.width.is_multiple_of(2)
                            && let Some(last) = spectrum.last_mut()
                        {
                            last.im = T::zero();
                        }
                        let _ = rows.process_with_scratch(spectrum, real, &mut scratch.work);
                    }
                },
            );
        }
    }
}

/// Runs `work` on the two output planes of each map.
fn each_planar<T: Sample>(
    map_len: usize,
    tasks_min: usize,
    output: &mut [T],
    work: impl Fn(usize, &mut [T], &mut [T], &mut Scratch<T>) + Sync,
) {
    let half = output.len() / 2;
    let (re, im) = output.split_at_mut(half);
    re.par_chunks_exact_mut(map_len)
        .zip(im.par_chunks_exact_mut(map_len))
        .with_min_len(tasks_min)
        .enumerate()
        .for_each_init(Scratch::default, |scratch, (map, (re, im))| work(map, re, im, scratch));
}

struct ComplexPlans<T> {
    rows: std::sync::Arc<dyn rustfft::Fft<T>>,
    columns: Option<std::sync::Arc<dyn rustfft::Fft<T>>>,
}

impl<T: Sample> ComplexPlans<T> {
    fn new(height: usize, width: usize, inverse: bool) -> Self {
        Self { rows: plans::complex(width, inverse), columns: (height > 1).then(|| plans::complex(height, inverse)) }
    }
}

fn complex<T: Sample>(job: &Job, source: &Source<T>, map: usize, plans: &ComplexPlans<T>, scratch: &mut Scratch<T>) {
    scratch.resize(job.height * job.width, 0, plans.rows.get_inplace_scratch_len());
    for (row, line) in scratch.map.chunks_exact_mut(job.width).enumerate() {
        for (to, (re, im)) in line.iter_mut().zip(source.row(map, 0, row).zip(source.row(map, 1, row))) {
            *to = Complex { re, im };
        }
        plans.rows.process_with_scratch(line, &mut scratch.work);
    }
    if let Some(plan) = &plans.columns {
        scratch.transform_columns(job.height, job.width, plan.as_ref());
    }
}

/// Reads a half spectrum with its factors: RealFFT doubles the columns between, so these get half their weight.
fn load_half<T: Sample>(job: &Job, source: &Source<T>, map: usize, to: &mut [Complex<T>]) {
    for (row, line) in to.chunks_exact_mut(job.columns).enumerate() {
        let values = source.row(map, 0, row).zip(source.row(map, 1, row));
        for (column, (to, (re, im))) in line.iter_mut().zip(values).enumerate() {
            let edge = column == 0 || 2 * column == job.width;
            let factor = T::of(if edge { job.scale } else { job.interior / 2.0 });
            *to = Complex { re: re * factor, im: im * factor };
        }
    }
}

/// Buffers of one task.
#[derive(Default)]
struct Scratch<T> {
    map: Vec<Complex<T>>,
    real: Vec<T>,
    work: Vec<Complex<T>>,
    column: Vec<Complex<T>>,
}

impl<T: Sample> Scratch<T> {
    fn resize(&mut self, map: usize, real: usize, work: usize) {
        self.map.resize(map, Complex::zero());
        self.real.resize(real, T::zero());
        self.work.resize(work, Complex::zero());
    }

    fn transform_columns(&mut self, height: usize, columns: usize, plan: &dyn rustfft::Fft<T>) {
        let scratch_len = plan.get_inplace_scratch_len();
        if self.work.len() < scratch_len {
            self.work.resize(scratch_len, Complex::zero());
        }
        self.column.resize(height, Complex::zero());
        for column in 0..columns {
            let values = self.map.iter().skip(column).step_by(columns);
            for (to, from) in self.column.iter_mut().zip(values) {
                *to = *from;
            }
            plan.process_with_scratch(&mut self.column, &mut self.work);
            let values = self.map.iter_mut().skip(column).step_by(columns);
            for (to, from) in values.zip(&self.column) {
                *to = *from;
            }
        }
    }
}
