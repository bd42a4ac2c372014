//! The transforms on CPU memory: which kernel runs on which maps, in parallel.
//!
//! The unit of work is a map `[H, W]` (`H = 1` for a transform over one axis). Sources may have any strides; outputs are
//! contiguous and planar.

mod lanes;
mod library;
mod plans;
mod source;

pub(crate) use plans::Sample;

use crate::op::{Kind, LinearTransform};
use crate::spectrum::Axes;
use candle_core::Layout;
use source::Source;

/// The numbers of one run, the same for all maps.
#[derive(Debug, Clone, Copy)]
struct Job {
    height: usize,
    /// Width of the signal.
    width: usize,
    /// Columns of the half spectrum.
    columns: usize,
    scale: f64,
    /// Weight of the columns between the zero and the Nyquist column, `scale` included.
    interior: f64,
    kind: Kind,
}

impl Job {
    /// The factor of a column of the half spectrum.
    fn column_factor(&self, column: usize) -> f64 {
        if column == 0 || 2 * column == self.width { self.scale } else { self.interior }
    }
}

/// Transforms all maps of a source and returns the planar, contiguous result.
pub(crate) fn run<T: Sample>(transform: &LinearTransform, data: &[T], layout: &Layout) -> candle_core::Result<Vec<T>> {
    let complex_source = !matches!(transform.kind, Kind::RealToHalf { .. });
    let source = Source::new(data, layout, complex_source, transform.axes == Axes::Two)?;
    let (width, interior) = match transform.kind {
        Kind::Complex { .. } => (source.width, 1.0),
        Kind::RealToHalf { interior } => (source.width, interior),
        Kind::HalfToReal { width, interior } => (width, interior),
    };
    let job = Job {
        height: source.height,
        width,
        columns: width / 2 + 1,
        scale: transform.scale,
        interior: interior * transform.scale,
        kind: transform.kind,
    };
    let per_map = match transform.kind {
        Kind::Complex { .. } => 2 * job.height * job.width,
        Kind::RealToHalf { .. } => 2 * job.height * job.columns,
        Kind::HalfToReal { .. } => job.height * job.width,
    };
    let mut output = vec![T::default(); per_map * source.maps()];
    if !lanes::run(&job, &source, &mut output) {
        library::run(&job, &source, &mut output);
    }
    Ok(output)
}
