//! Read access to the maps of a strided tensor.

use candle_core::Layout;

/// Maps `[H, W]` of a tensor with any strides; for complex tensors `[2, ..., H, W]`, both planes.
pub(super) struct Source<'a, T> {
    pub(super) data: &'a [T],
    /// Offset of each map's first element (of its real plane).
    pub(super) offsets: Vec<usize>,
    /// Distance from the real to the imaginary plane.
    pub(super) plane_stride: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl<'a, T: Copy> Source<'a, T> {
    pub(super) fn new(data: &'a [T], layout: &Layout, complex: bool, two_axes: bool) -> candle_core::Result<Self> {
        let (mut dims, mut strides) = (layout.dims(), layout.stride());
        let mut plane_stride = 0;
        if complex {
            let ([2, rest @ ..], [stride, strides_rest @ ..]) = (dims, strides) else {
                candle_core::bail!("fft: expected a planar tensor [2, ...], got {dims:?}");
            };
            (dims, strides, plane_stride) = (rest, strides_rest, *stride);
        }
        let mut take_last = || -> Option<(usize, usize)> {
            let ((dim, dims_rest), (stride, strides_rest)) = (dims.split_last()?, strides.split_last()?);
            (dims, strides) = (dims_rest, strides_rest);
            Some((*dim, *stride))
        };
        let last = take_last();
        let second = if two_axes { take_last() } else { Some((1, 0)) };
        let (Some((width, column_stride)), Some((height, row_stride))) = (last, second) else {
            candle_core::bail!("fft: too few axes in {:?}", layout.dims());
        };
        let mut offsets = vec![layout.start_offset()];
        for (&dim, &stride) in dims.iter().zip(strides) {
            offsets = offsets.iter().flat_map(|&offset| (0..dim).map(move |index| offset + index * stride)).collect();
        }
        Ok(Self { data, offsets, plane_stride, row_stride, column_stride, height, width })
    }

    pub(super) fn maps(&self) -> usize {
        self.offsets.len()
    }

    /// One row of a map's real (`plane = 0`) or imaginary (`plane = 1`) part, as an iterator over its elements.
    pub(super) fn row(&self, map: usize, plane: usize, row: usize) -> impl Iterator<Item = T> + '_ {
        let start = self.offsets[map] + plane * self.plane_stride + row * self.row_stride;
        let span = (self.width - 1) * self.column_stride + 1;
        // A column stride of zero (a broadcast axis) repeats the first element.
        let step = self.column_stride.max(1);
        let repeat = self.column_stride == 0;
        let slice = &self.data[start..start + span];
        (0..self.width).map(move |column| slice[if repeat { 0 } else { column * step }])
    }

    /// One element.
    pub(super) fn at(&self, map: usize, plane: usize, row: usize, column: usize) -> T {
        self.data[self.offsets[map] + plane * self.plane_stride + row * self.row_stride + column * self.column_stride]
    }

    /// Where a row begins in the data.
    #[inline(always)]
    pub(super) fn start(&self, map: usize, plane: usize, row: usize) -> usize {
        self.offsets[map] + plane * self.plane_stride + row * self.row_stride
    }

    /// Copies the rows that begin at `starts` into a buffer, one after the other.
    pub(super) fn gather(&self, starts: &[usize], buffer: &mut Vec<T>) {
        buffer.clear();
        for start in starts {
            buffer.extend((0..self.width).map(|column| self.data[start + column * self.column_stride]));
        }
    }

    /// Copies the beginning of a row, times a factor.
    pub(super) fn read_scaled(&self, map: usize, plane: usize, row: usize, factor: T, to: &mut [T])
    where
        T: std::ops::Mul<Output = T>,
    {
        let start = self.start(map, plane, row);
        if self.column_stride == 1 {
            for (to, from) in to.iter_mut().zip(&self.data[start..]) {
                *to = *from * factor;
            }
        } else {
            for (column, to) in to.iter_mut().enumerate() {
                *to = self.data[start + column * self.column_stride] * factor;
            }
        }
    }
}
