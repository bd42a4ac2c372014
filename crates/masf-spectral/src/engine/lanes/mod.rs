//! The kernel for lengths with the prime factors 2, 3, 5 and 7: several lines at once, one per lane of a vector register.
//!
//! Rows are transposed into tiles of one row per lane and transformed; columns lie side by side already. Real maps of even width take the
//! packed form of `real`. Maps narrower than a register are transformed in batches, side by side.
#![allow(
    clippy::needless_range_loop,
    reason = "iterator adapters that are not inlined into a dispatch lose its instruction set: measured 10 times slower"
)]

mod butterfly;
mod kernels;
mod real;
mod stockham;
mod tile;
mod vector;
mod wide;

pub(crate) use stockham::LinePlan;
pub(crate) use wide::{MAX_LANES, Wide};

use super::Job;
use super::plans::{self, Sample};
use super::source::Source;
use crate::op::Kind;
use kernels::{Batch, ComplexBatch, HalfToRealBatch, RealToHalfBatch, Scratch};
use rayon::prelude::*;
use std::sync::Arc;

/// Batches of small maps are handed out in tasks of at least this many points, so that a task outweighs its dispatch.
const POINTS_PER_TASK: usize = 16384;

/// Everything that the batches of one run share.
struct Plan<'a, T> {
    job: &'a Job,
    source: &'a Source<'a, T>,
    row: Arc<LinePlan<T>>,
    column: Option<Arc<LinePlan<T>>>,
    /// For real maps, see [`real::twiddles`].
    twiddles: Vec<(T, T)>,
    /// Complex columns of a map between its row and its column pass.
    columns: usize,
}

/// Points of a line up to which fewer lines than lanes are transformed here.
const LONGEST_OF_FEW: usize = 1 << 16;

/// Runs the job if the lengths allow; `false` leaves the output as it was.
pub(super) fn run<T: Sample>(job: &Job, source: &Source<T>, output: &mut [T]) -> bool {
    if !wide::available() {
        // RustFFT has kernels for older instruction sets; this one would run on scalars.
        return false;
    }
    let real = !matches!(job.kind, Kind::Complex { .. });
    if real && !job.width.is_multiple_of(2) {
        return false;
    }
    let columns = if real { job.width / 2 } else { job.width };
    // Every lane takes space for a line, also where there is none for it: a few lines of millions would take many times their own space.
    let lanes = 64 / size_of::<T>();
    let lines = source.maps() * job.height.min(columns);
    if lines < lanes && columns.max(job.height) > LONGEST_OF_FEW {
        return false;
    }
    let Some(row) = plans::lines::<T>(columns) else { return false };
    let column = if job.height > 1 {
        let Some(column) = plans::lines::<T>(job.height) else { return false };
        Some(column)
    } else {
        None
    };
    let twiddles = if real { real::twiddles(columns) } else { Vec::new() };
    let plan = Plan { job, source, row, column, twiddles, columns };

    // Enough maps side by side to fill the lanes of either pass; the widest registers hold 64 bytes.
    let batch = (lanes / columns).max(lanes / job.height).clamp(1, source.maps());
    let tasks_min = (POINTS_PER_TASK / (batch * job.height * job.width)).max(1);
    match job.kind {
        Kind::HalfToReal { .. } => {
            output.par_chunks_mut(batch * job.height * job.width).with_min_len(tasks_min).enumerate().for_each_init(
                Scratch::default,
                |scratch, (index, output)| {
                    wide::dispatch(HalfToRealBatch(Batch { plan: &plan, first: index * batch, scratch }, output));
                },
            );
        }
        Kind::RealToHalf { .. } => {
            each_planar(output, batch * job.height * job.columns, tasks_min, |index, re, im, scratch| {
                wide::dispatch(RealToHalfBatch(Batch { plan: &plan, first: index * batch, scratch }, re, im));
            });
        }
        Kind::Complex { .. } => {
            each_planar(output, batch * job.height * job.width, tasks_min, |index, re, im, scratch| {
                wide::dispatch(ComplexBatch(Batch { plan: &plan, first: index * batch, scratch }, re, im));
            });
        }
    }
    true
}

/// Runs `work` on the two output planes of each batch, in parallel.
fn each_planar<T: Sample>(
    output: &mut [T],
    batch_len: usize,
    tasks_min: usize,
    work: impl Fn(usize, &mut [T], &mut [T], &mut Scratch<T>) + Sync,
) {
    let half = output.len() / 2;
    let (re, im) = output.split_at_mut(half);
    re.par_chunks_mut(batch_len)
        .zip(im.par_chunks_mut(batch_len))
        .with_min_len(tasks_min)
        .enumerate()
        .for_each_init(Scratch::default, |scratch, (index, (re, im))| work(index, re, im, scratch));
}
