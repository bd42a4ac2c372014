//! The compute kernels behind bounds-checked entry points, for the best instruction set of the processor at run time.
//!
//! All unsafe arithmetic on pointers lives below this module. Its functions check that everything a kernel touches lies
//! inside the spans it is given; what they cannot check, and so demand of the caller, is that no other thread
//! accesses what they write.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512bf16;
mod conv;
mod dense;
mod depthwise;
mod pointwise;
mod portable;
mod rounding;
mod rows;
mod simd;
mod winograd;

pub(super) use conv::Steps;
pub(super) use dense::{ConvGeometry, Spans, WinogradGeometry, conv, winograd};
pub(super) use rows::{DepthwiseGeometry, PoolGeometry, affine, depthwise, max_pool};
pub(super) use winograd::{PATCH, PRODUCTS, TILE, transform_filter};

use super::memory::Span;
use super::precision::Precision;
use simd::Simd;

/// An instruction set that this processor has; values come from [`InstructionSet::best`] and
/// [`InstructionSet::available`] only, which is what makes calling the kernels sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InstructionSet(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

/// Runs `$body` with `$simd` naming the instruction set's type.
macro_rules! dispatch {
    ($set:expr, $simd:ident => $body:expr) => {
        match $set.0 {
            #[cfg(target_arch = "x86_64")]
            crate::engine::kernels::Kind::Avx512 => {
                type $simd = crate::engine::kernels::avx512::Avx512;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            crate::engine::kernels::Kind::Avx2 => {
                type $simd = crate::engine::kernels::avx2::Avx2;
                $body
            }
            crate::engine::kernels::Kind::Portable => {
                type $simd = crate::engine::kernels::portable::Portable;
                $body
            }
        }
    };
}

use dispatch;

impl InstructionSet {
    /// All that this processor has, fastest first.
    pub(crate) fn available() -> Vec<Self> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                sets.push(Self(Kind::Avx512));
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                sets.push(Self(Kind::Avx2));
            }
        }
        sets.push(Self(Kind::Portable));
        sets
    }

    /// The fastest that this processor has.
    pub(crate) fn best() -> Self {
        Self::available().first().copied().unwrap_or(Self(Kind::Portable))
    }

    /// Numbers per vector.
    pub(crate) fn lanes(self) -> usize {
        dispatch!(self, S => S::LANES)
    }

    /// Most vectors of output channels that a convolution tile has.
    pub(crate) fn panel_vectors(self) -> usize {
        dispatch!(self, S => S::TILE_PIXELS.iter().filter(|&&pixels| pixels > 0).count())
    }
}

/// What the products of a dense convolution are made of; values that need AVX512-BF16 come from [`Operands::new`] only, for an
/// [`InstructionSet`] of a processor that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operands(Kept);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// `f32`.
    Whole,
    /// Rounded to `bf16`, kept as `f32`.
    Rounded,
    /// Pairs of `bf16` in the place of one `f32`.
    #[cfg(target_arch = "x86_64")]
    Pairs,
}

impl Operands {
    /// The form that is fastest for a precision.
    pub(crate) fn new(set: InstructionSet, precision: Precision) -> Self {
        Self(match (precision, set.0) {
            (Precision::F32, _) => Kept::Whole,
            #[cfg(target_arch = "x86_64")]
            (Precision::Bf16, Kind::Avx512) if is_x86_feature_detected!("avx512bf16") => Kept::Pairs,
            (Precision::Bf16, _) => Kept::Rounded,
        })
    }

    /// Elements that hold so many numbers.
    pub(crate) fn elements(self, numbers: usize) -> usize {
        match self.0 {
            Kept::Whole | Kept::Rounded => numbers,
            #[cfg(target_arch = "x86_64")]
            Kept::Pairs => numbers.div_ceil(2),
        }
    }

    /// Converts numbers to elements; a pair without a second number has zero in its place.
    pub(crate) fn convert(self, numbers: &[f32], elements: &mut [f32]) {
        let rounded = |x: f32| f32::from_bits(u32::from(rounding::bits(x)) << 16);
        match self.0 {
            Kept::Whole => elements.copy_from_slice(numbers),
            Kept::Rounded => elements.iter_mut().zip(numbers).for_each(|(element, x)| *element = rounded(*x)),
            #[cfg(target_arch = "x86_64")]
            Kept::Pairs => {
                for (element, pair) in elements.iter_mut().zip(numbers.chunks(2)) {
                    let second = pair.get(1).map_or(0, |x| rounding::bits(*x));
                    *element = f32::from_bits(u32::from(rounding::bits(pair[0])) | u32::from(second) << 16);
                }
            }
        }
    }
}

/// Where something begins in its span, and how pixels follow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) start: usize,
    pub(crate) steps: Steps,
}

impl Origin {
    /// One past the last of `len` numbers at the last of `height x width` pixels.
    fn end(&self, height: usize, width: usize, len: usize) -> usize {
        self.start + (height - 1) * self.steps.row + (width - 1) * self.steps.pixel + len
    }
}

/// Where an operation reads and writes, and the bounds of its results.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    /// Window of the first output pixel, and the steps to those of the others.
    pub(crate) input: Origin,
    pub(crate) output: Origin,
    /// What is added before the bounds are applied, pixel by pixel.
    pub(crate) residual: Option<Origin>,
    /// Output pixels.
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) low: f32,
    pub(crate) high: f32,
}

impl Frame {
    /// Panics unless all windows of `window` numbers lie inside the input.
    fn check_input(&self, window: usize, input: Span) {
        assert!(self.input.end(self.height, self.width, window) <= input.len());
    }

    /// Panics unless `channels` numbers of all output pixels, and residuals, lie inside their spans.
    fn check_output(&self, channels: usize, residual: Option<Span>, output: Span) {
        assert!(self.output.end(self.height, self.width, channels) <= output.len());
        assert_eq!(self.residual.is_some(), residual.is_some());
        if let (Some(origin), Some(span)) = (self.residual, residual) {
            assert!(origin.end(self.height, self.width, channels) <= span.len());
        }
    }

    /// The residual of pixel `(y, x)` and channel `channel`, and the steps to those of other pixels; null where there is none.
    fn residual(&self, span: Option<Span>, (y, x): (usize, usize), channel: usize) -> (*const f32, Steps) {
        match (self.residual, span) {
            (Some(origin), Some(span)) => {
                (span.at(origin.start + origin.steps.at(y, x) + channel).cast_const(), origin.steps)
            }
            _ => (std::ptr::null(), Steps { row: 0, pixel: 0 }),
        }
    }
}
