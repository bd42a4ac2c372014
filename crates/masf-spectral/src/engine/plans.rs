//! Plans of RustFFT and RealFFT, made once per length and shared by all threads.

use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use rustfft::{Fft, FftDirection, FftNum, FftPlanner};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The planners of one sample type; both cache the plans they make.
pub(crate) struct Planners<T: FftNum> {
    complex: FftPlanner<T>,
    real: RealFftPlanner<T>,
}

impl<T: FftNum> Planners<T> {
    fn new() -> Self {
        Self { complex: FftPlanner::new(), real: RealFftPlanner::new() }
    }
}

/// A sample type that the engine transforms: f32 or f64.
pub(crate) trait Sample: FftNum + Default {
    /// The process-wide planners of this type.
    fn planners() -> MutexGuard<'static, Planners<Self>>;

    /// Nearest value of this type.
    fn of(value: f64) -> Self;
}

macro_rules! sample {
    ($type:ty) => {
        impl Sample for $type {
            fn planners() -> MutexGuard<'static, Planners<Self>> {
                static PLANNERS: OnceLock<Mutex<Planners<$type>>> = OnceLock::new();
                let mutex = PLANNERS.get_or_init(|| Mutex::new(Planners::new()));
                // A panic while planning leaves at worst an unused entry behind.
                mutex.lock().unwrap_or_else(PoisonError::into_inner)
            }

            fn of(value: f64) -> Self {
                value as $type
            }
        }
    };
}

sample!(f32);
sample!(f64);

pub(super) fn complex<T: Sample>(length: usize, inverse: bool) -> Arc<dyn Fft<T>> {
    let direction = if inverse { FftDirection::Inverse } else { FftDirection::Forward };
    T::planners().complex.plan_fft(length, direction)
}

pub(super) fn real_forward<T: Sample>(length: usize) -> Arc<dyn RealToComplex<T>> {
    T::planners().real.plan_fft_forward(length)
}

pub(super) fn real_inverse<T: Sample>(length: usize) -> Arc<dyn ComplexToReal<T>> {
    T::planners().real.plan_fft_inverse(length)
}
