//! Patch descriptors: locally averaged features of several pyramid levels on one grid.
//!
//! As in PatchCore (Roth et al., CVPR 2022): at every level the mean over a square neighbourhood with stride 1, coarser
//! levels resized bilinearly (half-pixel centres) to the grid of the finest one, channels concatenated. Beyond the border
//! features count as zero. That marks the border: its patches have near neighbours among border patches only. With means
//! over the positions that exist instead, defects show less among the border's false alarms (`docs/decisions.md`).
//!
//! Both steps are linear and separable, so a descriptor is a weighted sum over a few columns of weighted sums over a few rows. Any
//! set of positions can be computed alone, with the same bits as in a full map.

use candle_core::{DType, Device, Tensor};
use masf_core::{FeatureLevel, FeaturePyramid, LevelSpec, all_finite, vectorised, with_values};
use rayon::prelude::*;

use crate::params::check_neighbourhood;
use crate::{LinearMap, MemoryError, Result};

/// Which levels make up a descriptor, and over which neighbourhood they are averaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchEmbedding {
    levels: Vec<LevelSpec>,
    neighbourhood: usize,
}

impl PatchEmbedding {
    /// Descriptors of the levels given, finest first, averaged over `neighbourhood` x `neighbourhood` positions. Equal levels
    /// are those of a pyramid in its order.
    ///
    /// # Errors
    /// [`MemoryError::Parameter`] for no levels, strides that descend, levels without channels, or a neighbourhood
    /// that is even or above 15.
    pub fn new(levels: Vec<LevelSpec>, neighbourhood: usize) -> Result<Self> {
        check_neighbourhood(neighbourhood)?;
        let ascending = levels.windows(2).all(|pair| pair[0].stride <= pair[1].stride);
        let positive = levels.iter().all(|level| level.stride > 0 && level.channels > 0);
        let total = levels.iter().try_fold(0usize, |sum, level| sum.checked_add(level.channels));
        if levels.is_empty() || !ascending || !positive || total.is_none() {
            let expected = "at least one level, strides positive and not descending, channels positive";
            return Err(MemoryError::parameter("levels", format!("{levels:?}"), expected));
        }
        Ok(Self { levels, neighbourhood })
    }

    /// Descriptors of some strides of a backbone: all levels that `pyramid` has there, with their channels.
    ///
    /// # Errors
    /// [`MemoryError::Parameter`] if the pyramid lacks a stride, and the errors of [`new`](Self::new).
    pub fn of_pyramid(pyramid: &FeaturePyramid, strides: &[usize], neighbourhood: usize) -> Result<Self> {
        let found = || pyramid.levels().iter().map(|level| level.spec);
        let mut specs = Vec::new();
        for stride in strides {
            let before = specs.len();
            specs.extend(found().filter(|spec| spec.stride == *stride));
            if specs.len() == before {
                let found: Vec<_> = found().map(|spec| spec.stride).collect();
                let expected = format!("some of the backbone's {found:?}");
                return Err(MemoryError::parameter("levels", format!("{strides:?}"), expected));
            }
        }
        Self::new(specs, neighbourhood)
    }

    /// The levels, finest first.
    pub fn levels(&self) -> &[LevelSpec] {
        &self.levels
    }

    /// The side of the neighbourhood.
    pub fn neighbourhood(&self) -> usize {
        self.neighbourhood
    }

    /// The length of a descriptor.
    pub fn dimensions(&self) -> usize {
        self.levels.iter().map(|level| level.channels).sum()
    }

    /// The maps of a batch, ready to be read position by position; channels-last CPU maps are not copied.
    ///
    /// # Errors
    /// [`MemoryError::Level`] if the pyramid lacks a level, [`MemoryError::NonFinite`] names the first feature that is NaN
    /// or infinite.
    pub fn open(&self, pyramid: &FeaturePyramid) -> Result<PatchMaps> {
        let mut levels: Vec<LevelMap> = Vec::with_capacity(self.levels.len());
        let mut grid = (0, 0);
        for (index, &spec) in self.levels.iter().enumerate() {
            let level = level_of(pyramid, &self.levels, index).ok_or_else(|| {
                let found: Vec<_> = pyramid.levels().iter().map(|l| (l.spec.stride, l.spec.channels)).collect();
                let found = format!("(stride, channels) {found:?}");
                MemoryError::Level { stride: spec.stride, channels: spec.channels, found }
            })?;
            let map = level.map.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.permute((0, 2, 3, 1))?.contiguous()?;
            let (_, height, width, _) = map.dims4()?;
            if levels.is_empty() {
                grid = (height, width);
            }
            let map = LevelMap {
                spec,
                map,
                size: (height, width),
                rows: taps(height, grid.0, self.neighbourhood),
                columns: taps(width, grid.1, self.neighbourhood),
            };
            map.check_finite()?;
            levels.push(map);
        }
        Ok(PatchMaps { levels, grid, batch: pyramid.batch_size(), dimensions: self.dimensions() })
    }
}

/// The level of a pyramid that is number `index` of `levels`; of equal ones, the one that comes as late.
fn level_of<'a>(pyramid: &'a FeaturePyramid, levels: &[LevelSpec], index: usize) -> Option<&'a FeatureLevel> {
    let earlier = levels[..index].iter().filter(|level| **level == levels[index]).count();
    pyramid.levels().iter().filter(|level| level.spec == levels[index]).nth(earlier)
}

/// The input positions that one output position reads along an axis: `weights.len()` from `start` on.
#[derive(Debug, Clone, PartialEq)]
struct Taps {
    start: usize,
    weights: Vec<f32>,
}

/// For every position of the output axis: bilinear sampling of the neighbourhood means of the input axis,
/// which is zero beyond its ends.
fn taps(input: usize, output: usize, neighbourhood: usize) -> Vec<Taps> {
    let reach = neighbourhood / 2;
    let window = |centre: usize| centre.saturating_sub(reach)..(centre + reach + 1).min(input);
    let scale = input as f64 / output as f64;
    (0..output)
        .map(|index| {
            let position = ((index as f64 + 0.5) * scale - 0.5).clamp(0.0, (input - 1) as f64);
            let left = position.floor() as usize;
            let fraction = position - left as f64;
            let right = if fraction > 0.0 { (left + 1).min(input - 1) } else { left };
            let (start, end) = (window(left).start, window(right).end);
            let share = |window: std::ops::Range<usize>, tap| {
                if window.contains(&tap) { 1.0 / neighbourhood as f64 } else { 0.0 }
            };
            let weight = |tap| (1.0 - fraction) * share(window(left), tap) + fraction * share(window(right), tap);
            Taps { start, weights: (start..end).map(|tap| weight(tap) as f32).collect() }
        })
        .collect()
}

/// One level of a batch.
#[derive(Debug)]
struct LevelMap {
    spec: LevelSpec,
    /// `[B, h, w, C]`, contiguous.
    map: Tensor,
    size: (usize, usize),
    rows: Vec<Taps>,
    columns: Vec<Taps>,
}

impl LevelMap {
    fn check_finite(&self) -> Result<()> {
        with_values(&self.map, |values| {
            if values.par_chunks(1 << 16).all(all_finite) {
                return Ok(());
            }
            let Some(index) = values.iter().position(|value| !value.is_finite()) else {
                return Ok(());
            };
            let (height, width) = self.size;
            let position = index / self.spec.channels;
            Err(MemoryError::NonFinite {
                image: position / (height * width),
                stride: self.spec.stride,
                row: position / width % height,
                column: position % width,
                channel: index % self.spec.channels,
                value: values[index],
            })
        })?
    }
}

/// The feature maps of a batch, from which descriptors are computed.
#[derive(Debug)]
pub struct PatchMaps {
    levels: Vec<LevelMap>,
    grid: (usize, usize),
    batch: usize,
    dimensions: usize,
}

impl PatchMaps {
    /// `(height, width)` of the grid of positions.
    pub fn grid(&self) -> (usize, usize) {
        self.grid
    }

    /// Positions of one image.
    pub fn positions(&self) -> usize {
        self.grid.0 * self.grid.1
    }

    /// The number of images.
    pub fn batch_size(&self) -> usize {
        self.batch
    }

    /// One image with the features of every level projected: descriptors are those of the projections, level by level.
    pub(crate) fn projected(&self, projections: &[LinearMap], image: usize) -> Result<Self> {
        let mut levels = Vec::with_capacity(self.levels.len());
        for (level, projection) in self.levels.iter().zip(projections) {
            let channels = projection.output();
            let (height, width) = level.size;
            let len = height * width * level.spec.channels;
            let features = with_values(&level.map, |values| projection.apply(&values[image * len..][..len]))??;
            levels.push(LevelMap {
                spec: LevelSpec { channels, ..level.spec },
                map: Tensor::from_vec(features, (1, height, width, channels), &Device::Cpu)?,
                size: level.size,
                rows: level.rows.clone(),
                columns: level.columns.clone(),
            });
        }
        let dimensions = levels.iter().map(|level| level.spec.channels).sum();
        Ok(Self { levels, grid: self.grid, batch: 1, dimensions })
    }

    /// Writes the descriptors of some positions of an image to `out`, row after row.
    ///
    /// A position is `row * width + column` of the grid; `out` takes `positions x dimensions` values.
    ///
    /// # Errors
    /// [`MemoryError::Parameter`] for an image or position that does not exist, or `out` of another length.
    pub fn describe(&self, image: usize, positions: &[usize], out: &mut [f32]) -> Result<()> {
        if image >= self.batch {
            return Err(MemoryError::parameter("image", image, format!("less than the {} of the batch", self.batch)));
        }
        if let Some(position) = positions.iter().find(|position| **position >= self.positions()) {
            let expected = format!("less than the {} of the grid", self.positions());
            return Err(MemoryError::parameter("position", position, expected));
        }
        if Some(out.len()) != positions.len().checked_mul(self.dimensions) {
            let expected = format!("{} x {}", positions.len(), self.dimensions);
            return Err(MemoryError::parameter("length of out", out.len(), expected));
        }
        // Row by row of the grid: positions of a row share their sums over rows of features.
        let mut slots: Vec<usize> = (0..positions.len()).collect();
        slots.sort_by_key(|slot| positions[*slot] / self.grid.1);
        let runs = || slots.chunk_by(|a, b| positions[*a] / self.grid.1 == positions[*b] / self.grid.1);
        let mut offset = 0;
        let mut sums = ColumnSums::default();
        for level in &self.levels {
            let channels = level.spec.channels;
            let image_len = level.size.0 * level.size.1 * channels;
            with_values(&level.map, |values| {
                let values = &values[image * image_len..(image + 1) * image_len];
                vectorised(
                    #[inline(always)]
                    || {
                        for run in runs() {
                            sums.begin(level);
                            for slot in run {
                                let place = (positions[*slot] / self.grid.1, positions[*slot] % self.grid.1);
                                let start = slot * self.dimensions + offset;
                                sums.describe(values, level, place, &mut out[start..start + channels]);
                            }
                        }
                    },
                );
            })?;
            offset += channels;
        }
        Ok(())
    }
}

/// The sums over the rows of features that positions of one row of the grid read, column by column as they are needed: a position's bits do
/// not depend on what else is asked for.
#[derive(Default)]
struct ColumnSums {
    /// `[w, C]`; what is not `known` is left over.
    sums: Vec<f32>,
    known: Vec<bool>,
}

impl ColumnSums {
    /// For another row of the grid.
    #[inline(always)]
    fn begin(&mut self, level: &LevelMap) {
        self.sums.resize(level.size.1 * level.spec.channels, 0.0);
        self.known.clear();
        self.known.resize(level.size.1, false);
    }

    /// The descriptor at a place of the grid, on one level.
    #[inline(always)]
    fn describe(&mut self, values: &[f32], level: &LevelMap, (row, column): (usize, usize), out: &mut [f32]) {
        let (width, channels) = (level.size.1, level.spec.channels);
        let (rows, columns) = (&level.rows[row], &level.columns[column]);
        for column in columns.start..columns.start + columns.weights.len() {
            if !self.known[column] {
                self.known[column] = true;
                let sum = &mut self.sums[column * channels..(column + 1) * channels];
                weighted_sum(|tap| &values[((rows.start + tap) * width + column) * channels..], &rows.weights, sum);
            }
        }
        weighted_sum(|tap| &self.sums[(columns.start + tap) * channels..], &columns.weights, out);
    }
}

/// The sum of the beginnings of some lines.
#[inline(always)]
fn weighted_sum<'a>(line: impl Fn(usize) -> &'a [f32], weights: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    let (threes, rest) = weights.as_chunks::<3>();
    for (index, weights) in threes.iter().enumerate() {
        add_lines(std::array::from_fn(|tap| line(3 * index + tap)), weights, out);
    }
    for (weight, tap) in rest.iter().zip(3 * threes.len()..) {
        add_lines([line(tap)], &[*weight], out);
    }
}

#[inline(always)]
fn add_lines<const N: usize>(lines: [&[f32]; N], weights: &[f32; N], out: &mut [f32]) {
    let lines = lines.map(|line| &line[..out.len()]);
    for (index, sum) in out.iter_mut().enumerate() {
        for (line, weight) in lines.iter().zip(weights) {
            *sum += weight * line[index];
        }
    }
}
