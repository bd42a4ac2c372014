//! The passes over a batch of maps: rows through tiles into planes, columns of the planes into the output, or the other way round.
//!
//! Code that is dispatched to an instruction set counts indices instead of iterating: iterator adapters are not always inlined into a function of
//! this size, and what is not inlined loses the instruction set.

use super::Plan;
use super::real;
use super::stockham::{LinePlan, Lines};
use super::tile::{self, Rows};
use super::wide::{Kernel, MAX_LANES, Wide};
use crate::engine::plans::Sample;
use crate::op::Kind;
use pulp::Simd;

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
    /// Rows of a source whose columns do not lie side by side.
    gathered: Vec<T>,
}

pub(super) struct RealToHalfBatch<'a, T>(pub(super) Batch<'a, T>, pub(super) &'a mut [T], pub(super) &'a mut [T]);
pub(super) struct HalfToRealBatch<'a, T>(pub(super) Batch<'a, T>, pub(super) &'a mut [T]);
pub(super) struct ComplexBatch<'a, T>(pub(super) Batch<'a, T>, pub(super) &'a mut [T], pub(super) &'a mut [T]);

impl<T: Sample> Kernel for RealToHalfBatch<'_, T> {
    #[inline(always)]
    fn run<S: Wide>(self, simd: S) {
        let Self(mut batch, re, im) = self;
        let (job, half) = (batch.plan.job, batch.plan.columns);
        let maps = re.len() / (job.height * job.columns);
        let shape = batch.prepare::<S>(maps);
        let mut start = 0;
        while start < maps * job.height {
            batch.load_rows::<S, 2>(simd, shape, start, 0);
            batch.transform_rows(simd, shape, false);
            let Scratch { planes: [plane_re, plane_im], tile: [re, im], .. } = &mut *batch.scratch;
            let (re, im) = (&mut re[..half * shape.lanes], &mut im[..half * shape.lanes]);
            real::untangle(simd, T::vectors_mut::<S>(re), T::vectors_mut::<S>(im), &batch.plan.twiddles);
            let rows = shape.plane_rows(start, half);
            tile::store::<T, S, 1>(simd, [re], plane_re, &rows, half);
            tile::store::<T, S, 1>(simd, [im], plane_im, &rows, half);
            start += shape.lanes;
        }
        batch.scratch.factors.fill(T::of(job.interior));
        for map in 0..maps {
            batch.scratch.factors[map * half] = T::of(job.scale);
        }
        batch.store_columns(simd, shape, false, (&mut *re, &mut *im), job.columns);
        let map_len = job.height * job.columns;
        for map in 0..maps {
            let range = map * map_len..(map + 1) * map_len;
            real::part_columns(&mut re[range.clone()], &mut im[range], job.columns);
        }
    }
}

impl<T: Sample> Kernel for ComplexBatch<'_, T> {
    #[inline(always)]
    fn run<S: Wide>(self, simd: S) {
        let Self(mut batch, re, im) = self;
        let (job, width) = (batch.plan.job, batch.plan.columns);
        let inverse = matches!(job.kind, Kind::Complex { inverse: true });
        let maps = re.len() / (job.height * width);
        let shape = batch.prepare::<S>(maps);
        let mut start = 0;
        while start < maps * job.height {
            batch.load_rows::<S, 1>(simd, shape, start, 0);
            batch.load_rows::<S, 1>(simd, shape, start, 1);
            batch.transform_rows(simd, shape, inverse);
            let rows = shape.plane_rows(start, width);
            let Scratch { planes: [plane_re, plane_im], tile: [re, im], .. } = &mut *batch.scratch;
            tile::store::<T, S, 1>(simd, [re], plane_re, &rows, width);
            tile::store::<T, S, 1>(simd, [im], plane_im, &rows, width);
            start += shape.lanes;
        }
        batch.scratch.factors.fill(T::of(job.scale));
        batch.store_columns(simd, shape, inverse, (re, im), width);
    }
}

impl<T: Sample> Kernel for HalfToRealBatch<'_, T> {
    #[inline(always)]
    fn run<S: Wide>(self, simd: S) {
        let Self(mut batch, output) = self;
        let (job, half) = (batch.plan.job, batch.plan.columns);
        let maps = output.len() / (job.height * job.width);
        let shape = batch.prepare::<S>(maps);
        batch.load_half(shape);
        let mut group = 0;
        while batch.plan.column.is_some() && group < shape.stride {
            batch.load_columns(simd, shape, group, T::splat(simd, T::of(1.0)));
            batch.transform_columns(simd, shape, true);
            let Scratch { planes, tile, .. } = &mut *batch.scratch;
            for part in 0..2 {
                for row in 0..job.height {
                    let (from, to) = (row * shape.lanes, row * shape.stride + group);
                    copy::<T, S>(&tile[part][from..from + shape.lanes], &mut planes[part][to..to + shape.lanes]);
                }
            }
            group += shape.lanes;
        }
        let mut start = 0;
        while start < shape.rows {
            let rows = shape.plane_rows(start, half);
            let Scratch { planes: [plane_re, plane_im], tile: [re, im], .. } = &mut *batch.scratch;
            let (re, im) = (&mut re[..half * shape.lanes], &mut im[..half * shape.lanes]);
            tile::load::<T, S, 1>(simd, plane_re, &rows, half, [&mut *re]);
            tile::load::<T, S, 1>(simd, plane_im, &rows, half, [&mut *im]);
            real::entangle(simd, T::vectors_mut::<S>(re), T::vectors_mut::<S>(im), &batch.plan.twiddles);
            batch.transform_rows(simd, shape, true);
            let [re, im] = &batch.scratch.tile;
            let mut rows = rows;
            for lane in 0..rows.count {
                rows.starts[lane] = (start + lane) * job.width;
            }
            tile::store::<T, S, 2>(simd, [re, im], output, &rows, job.width);
            start += shape.lanes;
        }
    }
}

/// The sizes of a batch in its buffers.
#[derive(Clone, Copy)]
struct Shape {
    lanes: usize,
    /// Rows of one map, and of all maps.
    height: usize,
    rows: usize,
    maps: usize,
    /// Row stride of the planes: the columns of all maps, filled up to whole vectors.
    stride: usize,
}

impl Shape {
    /// Where in the planes the rows from `start` of maps with `columns` columns begin.
    #[inline(always)]
    fn plane_rows(&self, start: usize, columns: usize) -> Rows {
        let (count, mut map, mut row) = self.position(start);
        let mut starts = [0; MAX_LANES];
        for lane in 0..count {
            starts[lane] = row * self.stride + map * columns;
            (map, row) = self.next(map, row);
        }
        Rows { starts, count }
    }

    /// How many rows there are from `start` on, at most as many as lanes, and the map and the row where they begin.
    #[inline(always)]
    fn position(&self, start: usize) -> (usize, usize, usize) {
        (self.lanes.min(self.rows - start), start / self.height, start % self.height)
    }

    /// The row after a row. Counting on is much cheaper than a division per row.
    #[inline(always)]
    fn next(&self, map: usize, row: usize) -> (usize, usize) {
        if row + 1 == self.height { (map + 1, 0) } else { (map, row + 1) }
    }
}

impl<T: Sample> Batch<'_, T> {
    #[inline(always)]
    fn prepare<S: Simd>(&mut self, maps: usize) -> Shape {
        let (lanes, height, columns) = (T::lanes::<S>(), self.plan.job.height, self.plan.columns);
        let stride = (maps * columns).next_multiple_of(lanes);
        self.scratch.resize(height * stride, height.max(columns) * lanes, stride);
        Shape { lanes, height, rows: maps * height, maps, stride }
    }

    /// Loads rows of the source into the tile: with two parts the even elements into one and the odd ones into the other, with one
    /// part into that of the plane.
    #[inline(always)]
    fn load_rows<S: Wide, const P: usize>(&mut self, simd: S, shape: Shape, start: usize, plane: usize) {
        let source = self.plan.source;
        let Scratch { tile: [re, im], gathered, .. } = &mut *self.scratch;
        let (count, mut map, mut row) = shape.position(start);
        let mut rows = Rows { starts: [0; MAX_LANES], count };
        for lane in 0..count {
            rows.starts[lane] = source.start(self.first + map, plane, row);
            (map, row) = shape.next(map, row);
        }
        let data = if source.column_stride == 1 {
            source.data
        } else {
            source.gather(&rows.starts[..rows.count], gathered);
            for lane in 0..rows.count {
                rows.starts[lane] = lane * source.width;
            }
            gathered
        };
        if P == 2 {
            tile::load::<T, S, 2>(simd, data, &rows, source.width, [re, im]);
        } else {
            tile::load::<T, S, 1>(simd, data, &rows, source.width, [if plane == 0 { re } else { im }]);
        }
    }

    #[inline(always)]
    fn transform_rows<S: Simd>(&mut self, simd: S, shape: Shape, inverse: bool) {
        self.scratch.transform(simd, shape, &self.plan.row, inverse);
    }

    #[inline(always)]
    fn transform_columns<S: Simd>(&mut self, simd: S, shape: Shape, inverse: bool) {
        if let Some(plan) = &self.plan.column {
            self.scratch.transform(simd, shape, plan, inverse);
        }
    }

    /// Loads a group of columns of the planes into the tile, times a factor per lane.
    #[inline(always)]
    fn load_columns<S: Simd>(&mut self, simd: S, shape: Shape, group: usize, factors: T::Vector<S>) {
        let Scratch { planes, tile, .. } = &mut *self.scratch;
        for part in 0..2 {
            let tile = T::vectors_mut::<S>(&mut tile[part]);
            for row in 0..shape.height {
                let at = row * shape.stride + group;
                tile[row] = T::vmul(simd, T::vectors::<S>(&planes[part][at..at + shape.lanes])[0], factors);
            }
        }
    }

    /// Transforms the columns of the planes and writes them, times their factors, to the output maps `[H, out_columns]`.
    #[inline(always)]
    fn store_columns<S: Simd>(
        &mut self,
        simd: S,
        shape: Shape,
        inverse: bool,
        (re, im): (&mut [T], &mut [T]),
        out_columns: usize,
    ) {
        let columns = self.plan.columns;
        let lanes = shape.lanes;
        let map_len = shape.height * out_columns;
        let used = shape.maps * columns;
        let mut group = 0;
        while group < used {
            let factors = T::vectors::<S>(&self.scratch.factors[group..group + lanes])[0];
            self.load_columns(simd, shape, group, factors);
            self.transform_columns(simd, shape, inverse);
            let [tile_re, tile_im] = &self.scratch.tile;
            // The lanes of a vector may belong to several maps.
            let mut lane = 0;
            while lane < lanes && group + lane < used {
                let (map, column) = ((group + lane) / columns, (group + lane) % columns);
                let len = (lanes - lane).min(columns - column);
                let to = map * map_len + column;
                store_lanes::<T, S>(&tile_re[lane..], &mut re[to..], out_columns, (shape.height, len));
                store_lanes::<T, S>(&tile_im[lane..], &mut im[to..], out_columns, (shape.height, len));
                lane += len;
            }
            group += lanes;
        }
    }

    /// Reads half spectra into the planes, columns 0 and `columns` joined, with their factors.
    #[inline(always)]
    fn load_half(&mut self, shape: Shape) {
        let Plan { job, source, columns: half, .. } = self.plan;
        let (edge, interior) = (T::of(job.scale), T::of(job.interior / 2.0));
        let [re, im] = &mut self.scratch.planes;
        for map in 0..shape.maps {
            let from = self.first + map;
            for row in 0..shape.height {
                let at = row * shape.stride + map * half;
                source.read_scaled(from, 0, row, interior, &mut re[at..at + half]);
                source.read_scaled(from, 1, row, interior, &mut im[at..at + half]);
            }
            real::join_columns(source, from, *half, edge, |row, a, b| {
                let at = row * shape.stride + map * half;
                (re[at], im[at]) = (a, b);
            });
        }
    }
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

    /// Transforms the lines of the tile.
    #[inline(always)]
    fn transform<S: Simd>(&mut self, simd: S, shape: Shape, plan: &LinePlan<T>, inverse: bool) {
        let len = plan.length * shape.lanes;
        let ([re, im], [work_re, work_im]) = (&mut self.tile, &mut self.work);
        let mut data = (T::vectors_mut::<S>(&mut re[..len]), T::vectors_mut::<S>(&mut im[..len]));
        let mut work = (T::vectors_mut::<S>(&mut work_re[..len]), T::vectors_mut::<S>(&mut work_im[..len]));
        if inverse {
            (data, work) = ((data.1, data.0), (work.1, work.0));
        }
        simd.vectorize(Lines { simd, plan, data, work });
        if plan.ends_in_work() {
            std::mem::swap(&mut self.tile, &mut self.work);
        }
    }
}

/// Writes the first `len` of every `lanes` elements of a tile to rows of a map; the usual counts without a call.
#[inline(always)]
fn store_lanes<T: Sample, S: Simd>(tile: &[T], to: &mut [T], row_stride: usize, (height, len): (usize, usize)) {
    let lanes = T::lanes::<S>();
    if len == lanes {
        for row in 0..height {
            copy::<T, S>(&tile[row * lanes..row * lanes + lanes], &mut to[row * row_stride..row * row_stride + lanes]);
        }
    } else if len == 8 {
        for row in 0..height {
            let from: &[T] = &tile[row * lanes..row * lanes + 8];
            to[row * row_stride..row * row_stride + 8].copy_from_slice(from);
        }
    } else {
        for row in 0..height {
            for lane in 0..len {
                to[row * row_stride + lane] = tile[row * lanes + lane];
            }
        }
    }
}

/// Copies one vector.
#[inline(always)]
fn copy<T: Sample, S: Simd>(from: &[T], to: &mut [T]) {
    T::vectors_mut::<S>(to)[0] = T::vectors::<S>(from)[0];
}
