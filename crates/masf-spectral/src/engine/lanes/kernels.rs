//! The passes over a batch of maps: rows through tiles into planes, columns of the planes into the output, or the other way round.

use super::Plan;
use super::real;
use super::stockham::LinePlan;
use super::tile;
use crate::engine::plans::Sample;
use crate::op::Kind;
use pulp::{Simd, WithSimd};

/// Some consecutive maps and the buffers to transform them in.
pub(super) struct Batch<'a, T> {
    pub(super) plan: &'a Plan<'a, T>,
    pub(super) first: usize,
    pub(super) scratch: &'a mut Scratch<T>,
}

/// Buffers of one task.
#[derive(Default)]
pub(super) struct Scratch<T> {
    /// The maps between the passes, side by side: `[H, stride]`.
    planes: [Vec<T>; 2],
    /// Lines of one tile.
    tile: [Vec<T>; 2],
    work: [Vec<T>; 2],
    /// Factor of each column of the planes.
    factors: Vec<T>,
}

impl<T: Sample> Scratch<T> {
    fn resize(&mut self, planes: usize, tile: usize, stride: usize) {
        for buffer in &mut self.planes {
            buffer.resize(planes, T::zero());
        }
        for buffer in self.tile.iter_mut().chain(&mut self.work) {
            buffer.resize(tile, T::zero());
        }
        self.factors.resize(stride, T::zero());
    }
}

pub(super) struct RealToHalfBatch<'a, T>(pub(super) Batch<'a, T>, pub(super) &'a mut [T], pub(super) &'a mut [T]);
pub(super) struct HalfToRealBatch<'a, T>(pub(super) Batch<'a, T>, pub(super) &'a mut [T]);
pub(super) struct ComplexBatch<'a, T>(pub(super) Batch<'a, T>, pub(super) &'a mut [T], pub(super) &'a mut [T]);

impl<T: Sample> WithSimd for RealToHalfBatch<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self(mut batch, re, im) = self;
        let job = batch.plan.job;
        let maps = re.len() / (job.height * job.columns);
        let shape = batch.prepare::<S>(maps);
        let Batch { plan, first, scratch } = &mut batch;
        let (plan, lanes, half) = (*plan, shape.lanes, plan.columns);
        let [tile_re, tile_im] = &mut scratch.tile;
        let [work_re, work_im] = &mut scratch.work;
        let (tile_re, tile_im) = (&mut tile_re[..half * lanes], &mut tile_im[..half * lanes]);
        let rows = maps * job.height;
        for start in (0..rows).step_by(lanes) {
            let count = lanes.min(rows - start);
            for lane in 0..count {
                let (map, row) = ((start + lane) / job.height, (start + lane) % job.height);
                tile::put(plan.source.row(*first + map, 0, row).step_by(2), tile_re, lane, lanes);
                tile::put(plan.source.row(*first + map, 0, row).skip(1).step_by(2), tile_im, lane, lanes);
            }
            transform::<T, S>(simd, &plan.row, false, (tile_re, tile_im), (work_re, work_im));
            real::untangle(simd, T::vectors_mut::<S>(tile_re), T::vectors_mut::<S>(tile_im), &plan.twiddles);
            for lane in 0..count {
                let (map, row) = ((start + lane) / job.height, (start + lane) % job.height);
                let at = row * shape.stride + map * half;
                tile::take(scratch.planes[0][at..at + half].iter_mut(), tile_re, lane, lanes);
                tile::take(scratch.planes[1][at..at + half].iter_mut(), tile_im, lane, lanes);
            }
        }
        for (column, factor) in scratch.factors.iter_mut().enumerate() {
            *factor = T::of(if column % half == 0 { job.scale } else { job.interior });
        }
        batch.columns::<S>(simd, shape, false, (re, im), job.columns);
        let map_len = job.height * job.columns;
        for (re, im) in re.chunks_exact_mut(map_len).zip(im.chunks_exact_mut(map_len)) {
            real::part_columns(re, im, job.columns);
        }
    }
}

impl<T: Sample> WithSimd for ComplexBatch<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self(mut batch, re, im) = self;
        let job = batch.plan.job;
        let inverse = matches!(job.kind, Kind::Complex { inverse: true });
        let maps = re.len() / (job.height * job.width);
        let shape = batch.prepare::<S>(maps);
        let Batch { plan, first, scratch } = &mut batch;
        let (plan, lanes, width) = (*plan, shape.lanes, job.width);
        let [tile_re, tile_im] = &mut scratch.tile;
        let [work_re, work_im] = &mut scratch.work;
        let (tile_re, tile_im) = (&mut tile_re[..width * lanes], &mut tile_im[..width * lanes]);
        let rows = maps * job.height;
        for start in (0..rows).step_by(lanes) {
            let count = lanes.min(rows - start);
            for lane in 0..count {
                let (map, row) = ((start + lane) / job.height, (start + lane) % job.height);
                tile::put(plan.source.row(*first + map, 0, row), tile_re, lane, lanes);
                tile::put(plan.source.row(*first + map, 1, row), tile_im, lane, lanes);
            }
            transform::<T, S>(simd, &plan.row, inverse, (tile_re, tile_im), (work_re, work_im));
            for lane in 0..count {
                let (map, row) = ((start + lane) / job.height, (start + lane) % job.height);
                let at = row * shape.stride + map * width;
                tile::take(scratch.planes[0][at..at + width].iter_mut(), tile_re, lane, lanes);
                tile::take(scratch.planes[1][at..at + width].iter_mut(), tile_im, lane, lanes);
            }
        }
        scratch.factors.fill(T::of(job.scale));
        batch.columns::<S>(simd, shape, inverse, (re, im), width);
    }
}

impl<T: Sample> WithSimd for HalfToRealBatch<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self(mut batch, output) = self;
        let job = batch.plan.job;
        let maps = output.len() / (job.height * job.width);
        let shape = batch.prepare::<S>(maps);
        batch.load_half(shape, maps);
        if let Some(plan) = &batch.plan.column {
            let Scratch { planes: [re, im], tile: [tile_re, tile_im], work: [work_re, work_im], .. } = batch.scratch;
            let len = job.height * shape.lanes;
            let (tile_re, tile_im) = (&mut tile_re[..len], &mut tile_im[..len]);
            for group in (0..shape.stride).step_by(shape.lanes) {
                for (plane, tile) in [(&*re, &mut *tile_re), (&*im, &mut *tile_im)] {
                    for (row, vector) in plane.chunks_exact(shape.stride).zip(tile.chunks_exact_mut(shape.lanes)) {
                        copy::<T, S>(&row[group..group + shape.lanes], vector);
                    }
                }
                transform::<T, S>(simd, plan, true, (tile_re, tile_im), (work_re, work_im));
                for (plane, tile) in [(&mut *re, &*tile_re), (&mut *im, &*tile_im)] {
                    for (row, vector) in plane.chunks_exact_mut(shape.stride).zip(tile.chunks_exact(shape.lanes)) {
                        copy::<T, S>(vector, &mut row[group..group + shape.lanes]);
                    }
                }
            }
        }
        let Batch { plan, scratch, .. } = batch;
        let (lanes, half) = (shape.lanes, plan.columns);
        let [tile_re, tile_im] = &mut scratch.tile;
        let [work_re, work_im] = &mut scratch.work;
        let (tile_re, tile_im) = (&mut tile_re[..half * lanes], &mut tile_im[..half * lanes]);
        let rows = maps * job.height;
        for start in (0..rows).step_by(lanes) {
            let count = lanes.min(rows - start);
            for lane in 0..count {
                let (map, row) = ((start + lane) / job.height, (start + lane) % job.height);
                let at = row * shape.stride + map * half;
                tile::put(scratch.planes[0][at..at + half].iter().copied(), tile_re, lane, lanes);
                tile::put(scratch.planes[1][at..at + half].iter().copied(), tile_im, lane, lanes);
            }
            real::entangle(simd, T::vectors_mut::<S>(tile_re), T::vectors_mut::<S>(tile_im), &plan.twiddles);
            transform::<T, S>(simd, &plan.row, true, (tile_re, tile_im), (work_re, work_im));
            for lane in 0..count {
                let at = (start + lane) * job.width;
                let row = &mut output[at..at + job.width];
                tile::take(row.iter_mut().step_by(2), tile_re, lane, lanes);
                tile::take(row.iter_mut().skip(1).step_by(2), tile_im, lane, lanes);
            }
        }
    }
}

/// The sizes of a batch in its buffers.
#[derive(Clone, Copy)]
struct Shape {
    lanes: usize,
    /// Row stride of the planes: the columns of all maps, filled up to whole vectors.
    stride: usize,
}

impl<T: Sample> Batch<'_, T> {
    #[inline(always)]
    fn prepare<S: Simd>(&mut self, maps: usize) -> Shape {
        let lanes = T::lanes::<S>();
        let stride = (maps * self.plan.columns).next_multiple_of(lanes);
        let height = self.plan.job.height;
        self.scratch.resize(height * stride, height.max(self.plan.columns) * lanes, stride);
        Shape { lanes, stride }
    }

    /// Transforms the columns of the planes and writes them, times their factors, to the output maps `[H, out_columns]`.
    #[inline(always)]
    fn columns<S: Simd>(
        &mut self,
        simd: S,
        shape: Shape,
        inverse: bool,
        (re, im): (&mut [T], &mut [T]),
        out_columns: usize,
    ) {
        let Plan { job, column: plan, columns, .. } = self.plan;
        let Scratch { planes, tile: [tile_re, tile_im], work: [work_re, work_im], factors } = &mut *self.scratch;
        let (height, lanes) = (job.height, shape.lanes);
        let (tile_re, tile_im) = (&mut tile_re[..height * lanes], &mut tile_im[..height * lanes]);
        let map_len = height * out_columns;
        let used = re.len() / map_len * columns;
        for (group, factors) in (0..used).step_by(lanes).zip(factors.chunks_exact(lanes)) {
            let factors = T::vectors::<S>(factors)[0];
            for (plane, tile) in planes.iter().zip([&mut *tile_re, &mut *tile_im]) {
                for (row, vector) in plane.chunks_exact(shape.stride).zip(T::vectors_mut::<S>(tile)) {
                    *vector = T::vmul(simd, T::vectors::<S>(&row[group..group + lanes])[0], factors);
                }
            }
            if let Some(plan) = plan {
                transform::<T, S>(simd, plan, inverse, (tile_re, tile_im), (work_re, work_im));
            }
            for (output, tile) in [(&mut *re, &*tile_re), (&mut *im, &*tile_im)] {
                // The lanes of a vector may belong to several maps.
                let mut lane = 0;
                while lane < lanes && group + lane < used {
                    let (map, column) = ((group + lane) / columns, (group + lane) % columns);
                    let len = (lanes - lane).min(columns - column);
                    let rows = output[map * map_len..(map + 1) * map_len].chunks_exact_mut(out_columns);
                    for (row, vector) in rows.zip(tile.chunks_exact(lanes)) {
                        copy_some(&vector[lane..lane + len], &mut row[column..column + len]);
                    }
                    lane += len;
                }
            }
        }
    }

    /// Reads half spectra into the planes, columns 0 and `columns` joined, with their factors.
    #[inline(always)]
    fn load_half(&mut self, shape: Shape, maps: usize) {
        let Plan { job, source, columns: half, .. } = self.plan;
        let (edge, interior) = (T::of(job.scale), T::of(job.interior / 2.0));
        let [re, im] = &mut self.scratch.planes;
        for map in 0..maps {
            let from = self.first + map;
            for row in 0..job.height {
                let at = row * shape.stride + map * half;
                for (plane, to) in [(0, &mut *re), (1, &mut *im)] {
                    for (to, value) in to[at..at + half].iter_mut().zip(source.row(from, plane, row)) {
                        *to = value * interior;
                    }
                }
            }
            let value = |row, column| (edge * source.at(from, 0, row, column), edge * source.at(from, 1, row, column));
            real::join_columns(
                job.height,
                |row| value(row, 0),
                |row| value(row, *half),
                |row, a, b| {
                    let at = row * shape.stride + map * half;
                    (re[at], im[at]) = (a, b);
                },
            );
        }
    }
}

/// Transforms the lines of a tile.
#[inline(always)]
fn transform<T: Sample, S: Simd>(
    simd: S,
    plan: &LinePlan<T>,
    inverse: bool,
    (re, im): (&mut [T], &mut [T]),
    (work_re, work_im): (&mut [T], &mut [T]),
) {
    let (mut re, mut im) = (T::vectors_mut::<S>(re), T::vectors_mut::<S>(im));
    let (mut work_re, mut work_im) = (T::vectors_mut::<S>(work_re), T::vectors_mut::<S>(work_im));
    if inverse {
        std::mem::swap(&mut re, &mut im);
        std::mem::swap(&mut work_re, &mut work_im);
    }
    let length = plan.length;
    plan.run(simd, (re, im), (&mut work_re[..length], &mut work_im[..length]));
}

/// Copies one vector.
#[inline(always)]
fn copy<T: Sample, S: Simd>(from: &[T], to: &mut [T]) {
    if let ([from], [to]) = (T::vectors::<S>(from), T::vectors_mut::<S>(to)) {
        *to = *from;
    }
}

/// Copies a few values; the usual counts without a call.
#[inline(always)]
fn copy_some<T: Copy>(from: &[T], to: &mut [T]) {
    fn fixed<T: Copy, const N: usize>(from: &[T], to: &mut [T]) {
        if let (Some(from), Some(to)) = (from.first_chunk::<N>(), to.first_chunk_mut::<N>()) {
            *to = *from;
        }
    }
    match from.len() {
        16 => fixed::<T, 16>(from, to),
        8 => fixed::<T, 8>(from, to),
        4 => fixed::<T, 4>(from, to),
        _ => to.copy_from_slice(from),
    }
}
