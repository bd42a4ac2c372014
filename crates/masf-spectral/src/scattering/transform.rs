//! The scattering transform of image tensors.

use super::config::ScatteringConfig;
use super::filters;
use crate::complex::ComplexTensor;
use crate::error::{Error, Result};
use crate::frequency::constant;
use crate::norm::Norm;
use crate::spectrum::Spectrum;
use crate::transform::{fft2, ifft2};
use candle_core::{DType, Tensor};
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Keeps the modulus differentiable at zero; shifts it by at most 1e-7.
const MODULUS_EPS: f64 = 1e-14;

/// How many image sizes keep their filters at hand.
const CACHED_SIZES: usize = 4;

/// How many averaging matrices a bank keeps at hand.
const CACHED_AVERAGES: usize = 64;

/// Which first-order maps [`Scattering2d::wavelet_maps`] makes: `|x * psi_{scale, l}|`, averaged and subsampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WaveletMaps {
    /// Scale `j` of the wavelets, 0 to `J - 1`.
    pub scale: usize,
    /// Distance of the samples in pixels, a power of two from 1 to `2^J`. The averaging Gaussian has `sigma = 0.4 * stride` (none at stride 1); at
    /// strides up to `2^scale` it is cut at the highest frequencies, and averages may be a little below 0.
    pub stride: usize,
}

/// Two-dimensional wavelet scattering with a Morlet bank.
///
/// Takes f32 or f64 images `[B, C, H, W]` of any size with both sides at least `2^J`; borders are reflected. Filters are made at the first
/// use of a size and kept for the last few sizes.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use masf_spectral::{Scattering2d, ScatteringConfig, WaveletMaps};
///
/// let scattering = Scattering2d::new(ScatteringConfig::default().scales(3).angles(8))?;
/// let images = Tensor::rand(0f32, 1f32, (2, 3, 64, 64), &Device::Cpu)?;
/// assert_eq!(scattering.forward(&images)?.dims(), [2, 3, 25, 8, 8]);
/// let pyramid = scattering.wavelet_maps(
///     &images,
///     &[WaveletMaps { scale: 1, stride: 4 }, WaveletMaps { scale: 2, stride: 8 }],
/// )?;
/// assert_eq!(pyramid[0].dims(), [2, 3, 8, 16, 16]);
/// assert_eq!(pyramid[1].dims(), [2, 3, 8, 8, 8]);
/// # Ok::<(), masf_spectral::Error>(())
/// ```
#[derive(Debug)]
pub struct Scattering2d {
    config: ScatteringConfig,
    banks: Mutex<Vec<(BankKey, Arc<Bank>)>>,
}

type BankKey = (usize, usize, DType, candle_core::DeviceLocation);

/// Wavelets on one padded size: by scale, angle and resolution; and the matrices of [`average`].
#[derive(Debug)]
struct Bank {
    wavelets: HashMap<(usize, usize, usize), Tensor>,
    averages: Mutex<Vec<([usize; 5], Tensor)>>,
}

/// How an image lies in its padded frame.
#[derive(Debug, Clone, Copy)]
struct Frame {
    height: usize,
    width: usize,
    top: usize,
    left: usize,
}

impl Scattering2d {
    /// A transform with a checked configuration.
    ///
    /// # Errors
    /// If a field of the configuration is outside its range.
    pub fn new(config: ScatteringConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { config, banks: Mutex::new(Vec::new()) })
    }

    /// The configuration.
    pub fn config(&self) -> &ScatteringConfig {
        &self.config
    }

    /// The coefficients of all orders up to `max_order`, `[B, C, K, H / 2^J, W / 2^J]` (rounded down), in Kymatio's order: the average, then order 1
    /// by scale and angle, then order 2 by the first wavelet and the second. `K` is
    /// [`ScatteringConfig::coefficients`]. Equal to Kymatio's `Scattering2D` up to rounding.
    ///
    /// # Errors
    /// If the images are not `[B, C, H, W]` of f32 or f64 with sides of at least `2^J`, or on failure of the backend.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        self.coefficients(images, self.config.max_order)
    }

    /// As [`forward`](Self::forward), but only the orders 0 and 1: `[B, C, 1 + J L, H / 2^J, W / 2^J]`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn first_order(&self, images: &Tensor) -> Result<Tensor> {
        self.coefficients(images, 1)
    }

    /// First-order maps by scale, each at its own stride: for every request a tensor `[B, C, L, ceil(H / stride), ceil(W / stride)]`.
    ///
    /// Sample `(r, c)` of a map lies at the pixel `(r * stride, c * stride)`, so maps of several strides form a pyramid. The Fourier transform of the
    /// images is computed once for all requests, and a modulus, subsampled by the smaller of `stride` and `2^scale`, once for those that share it.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), or if a scale or stride is outside its range.
    pub fn wavelet_maps(&self, images: &Tensor, requests: &[WaveletMaps]) -> Result<Vec<Tensor>> {
        let (batch, channels, height, width) = self.check(images)?;
        let scales = self.config.scales;
        for request in requests {
            if request.scale >= scales {
                return Err(Error::argument("scale", request.scale, "use a scale below the number of scales"));
            }
            if !request.stride.is_power_of_two() || request.stride > 1 << scales {
                return Err(Error::argument("stride", request.stride, "use a power of two from 1 to 2^scales"));
            }
        }
        let margin = 1usize << scales;
        let frame = Frame {
            height: height.div_ceil(margin) * margin + 2 * margin,
            width: width.div_ceil(margin) * margin + 2 * margin,
            top: margin,
            left: margin,
        };
        let spectrum = fft2(&ComplexTensor::from_real(&pad(images, frame)?)?, Norm::Backward)?;
        let bank = self.bank(frame, images)?;
        let mut maps: Vec<Option<Tensor>> = vec![None; requests.len()];
        for scale in 0..scales {
            for factor in (0..=scale).map(|power| 1 << power) {
                let here = |request: &WaveletMaps| request.scale == scale && request.stride.min(1 << scale) == factor;
                if !requests.iter().any(here) {
                    continue;
                }
                let mut moduli = Vec::with_capacity(self.config.angles);
                for angle in 0..self.config.angles {
                    moduli.push(bank.modulus(&spectrum, (scale, angle, 0), factor)?);
                }
                let moduli = Tensor::stack(&moduli, 1)?;
                for (request, map) in requests.iter().zip(&mut maps).filter(|(request, _)| here(request)) {
                    let size = (height.div_ceil(request.stride), width.div_ceil(request.stride));
                    let averaged = average(&bank, &moduli, frame, factor, request.stride, size)?;
                    *map = Some(averaged.reshape((batch, channels, self.config.angles, size.0, size.1))?);
                }
            }
        }
        Ok(maps.into_iter().flatten().collect())
    }

    fn coefficients(&self, images: &Tensor, max_order: usize) -> Result<Tensor> {
        let (batch, channels, height, width) = self.check(images)?;
        let scales = self.config.scales;
        let stride = 1usize << scales;
        let padded = |side: usize| ((side + stride) / stride + 1) * stride;
        let frame = Frame {
            height: padded(height),
            width: padded(width),
            top: (padded(height) - height) / 2,
            left: (padded(width) - width) / 2,
        };
        // The averages are sampled at every 2^J of the frame, and the outermost samples dropped: the grid is that of the frame.
        let grid = Frame { top: stride, left: stride, ..frame };
        let size = (frame.height / stride - 2, frame.width / stride - 2);

        let signal = pad(images, frame)?;
        let bank = self.bank(frame, images)?;
        let spectrum = fft2(&ComplexTensor::from_real(&signal)?, Norm::Backward)?;
        let mut first = vec![average(&bank, &signal, grid, 1, stride, size)?];
        let mut second = Vec::new();
        for (scale, angle) in self.wavelets() {
            let modulus = bank.modulus(&spectrum, (scale, angle, 0), 1 << scale)?;
            first.push(average(&bank, &modulus, grid, 1 << scale, stride, size)?);
            if max_order < 2 || scale + 1 == scales {
                continue;
            }
            let inner = fft2(&ComplexTensor::from_real(&modulus)?, Norm::Backward)?;
            for (next, turn) in self.wavelets().filter(|(next, _)| *next > scale) {
                let modulus = bank.modulus(&inner, (next, turn, scale), 1 << (next - scale))?;
                second.push(average(&bank, &modulus, grid, 1 << next, stride, size)?);
            }
        }
        first.append(&mut second);
        let count = first.len();
        Ok(Tensor::stack(&first, 1)?.reshape((batch, channels, count, size.0, size.1))?)
    }

    fn wavelets(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let ScatteringConfig { scales, angles, .. } = self.config;
        (0..scales).flat_map(move |scale| (0..angles).map(move |angle| (scale, angle)))
    }

    fn check(&self, images: &Tensor) -> Result<(usize, usize, usize, usize)> {
        const OPERATION: &str = "Scattering2d";
        if !matches!(images.dtype(), DType::F32 | DType::F64) {
            return Err(Error::argument("images", images.dtype(), "use f32 or f64"));
        }
        let &[batch, channels, height, width] = images.dims() else {
            return Err(Error::shape(OPERATION, images.dims(), "expected [B, C, H, W]"));
        };
        if images.dims().contains(&0) {
            return Err(Error::shape(OPERATION, images.dims(), "an axis is empty"));
        }
        if height.min(width) < 1 << self.config.scales {
            return Err(Error::shape(OPERATION, images.dims(), "expected sides of at least 2^scales pixels"));
        }
        Ok((batch, channels, height, width))
    }

    /// The bank of a size, made if it is not at hand.
    fn bank(&self, frame: Frame, like: &Tensor) -> Result<Arc<Bank>> {
        let key = (frame.height, frame.width, like.dtype(), like.device().location());
        let lock = || self.banks.lock().unwrap_or_else(PoisonError::into_inner);
        let find =
            |banks: &[(BankKey, Arc<Bank>)]| banks.iter().find(|(have, _)| *have == key).map(|(_, bank)| bank.clone());
        if let Some(bank) = find(&lock()) {
            return Ok(bank);
        }
        // Without the lock: a thread that waits for parts of a bank may take up other work, which needs the lock, too.
        let bank = Arc::new(Bank::new(&self.config, frame, like)?);
        let mut banks = lock();
        if let Some(bank) = find(&banks) {
            return Ok(bank);
        }
        if banks.len() == CACHED_SIZES {
            banks.remove(0);
        }
        banks.push((key, bank.clone()));
        Ok(bank)
    }
}

impl Bank {
    fn new(config: &ScatteringConfig, frame: Frame, like: &Tensor) -> Result<Self> {
        let (height, width) = (frame.height, frame.width);
        let mut wavelets = HashMap::new();
        for scale in 0..config.scales {
            let angles = (0..config.angles).into_par_iter();
            let made: Vec<_> =
                angles.map(|angle| filters::morlet(height, width, scale, angle, config.angles)).collect();
            for (angle, filter) in made.iter().enumerate() {
                // Order 2 filters maps that are already subsampled by the scale of their first wavelet.
                let resolutions = if config.max_order >= 2 { scale.max(1) } else { 1 };
                for resolution in 0..resolutions {
                    let factor = 1 << resolution;
                    let values = filters::restrict(filter, height, width, factor);
                    let tensor = constant(values, (height / factor, width / factor), like)?;
                    wavelets.insert((scale, angle, resolution), tensor);
                }
            }
        }
        Ok(Self { wavelets, averages: Mutex::default() })
    }

    /// `|x * psi|` subsampled by `factor`, from the spectrum of `x`: `[N, H / factor, W / factor]`.
    fn modulus(&self, spectrum: &Spectrum, wavelet: (usize, usize, usize), factor: usize) -> Result<Tensor> {
        let filter = self.wavelets.get(&wavelet).ok_or_else(|| {
            Error::argument("wavelet", wavelet, "the bank holds no such filter (scale, angle, resolution)")
        })?;
        let product = spectrum.scale(filter)?;
        let folded = fold(&product, factor)?;
        ifft2(&folded)?.magnitude(MODULUS_EPS)
    }
}

/// Subsampling in space by `factor` is the mean of the `factor^2` translates in frequency.
fn fold(spectrum: &Spectrum, factor: usize) -> Result<Spectrum> {
    if factor == 1 {
        return Ok(spectrum.clone());
    }
    let planes = spectrum.values().planes();
    let (parts, maps, height, width) = planes.dims4()?;
    let (rows, columns) = (height / factor, width / factor);
    let tall = planes.reshape((parts * maps, factor, rows, width))?.sum(1)?;
    let small = tall.reshape((parts * maps, rows, factor, columns))?.sum(2)?;
    let mean = small.affine(1.0 / (factor * factor) as f64, 0.0)?;
    spectrum.with_values(ComplexTensor::from_planes(mean.reshape((parts, maps, rows, columns))?)?)
}

/// Averages maps `[..., H / factor, W / factor]` of the frame and samples them at `stride` from the frame's origin.
fn average(
    bank: &Bank,
    maps: &Tensor,
    frame: Frame,
    factor: usize,
    stride: usize,
    size: (usize, usize),
) -> Result<Tensor> {
    let matrix = |length: usize, first: usize, outputs: usize| -> Result<Tensor> {
        let key = [length, factor, first, stride, outputs];
        let mut averages = bank.averages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, matrix)) = averages.iter().find(|(have, _)| *have == key) {
            return Ok(matrix.clone());
        }
        // At stride 1 the low-pass of width 0 passes everything.
        let values = if stride == 1 {
            selection(length, first, outputs)
        } else {
            filters::averaging(length, factor, 0.4 * stride as f64, first, stride, outputs)
        };
        let matrix = constant(values, (outputs, length / factor), maps)?;
        if averages.len() == CACHED_AVERAGES {
            averages.remove(0);
        }
        averages.push((key, matrix.clone()));
        Ok(matrix)
    };
    let rows = matrix(frame.height, frame.top, size.0)?;
    let columns = matrix(frame.width, frame.left, size.1)?.t()?.contiguous()?;
    let (height, width) = (frame.height / factor, frame.width / factor);
    let narrow = maps.reshape(((), width))?.matmul(&columns)?.reshape(((), height, size.1))?;
    let mut dims = maps.dims().to_vec();
    dims.truncate(dims.len() - 2);
    dims.extend([size.0, size.1]);
    Ok(rows.broadcast_matmul(&narrow)?.reshape(dims)?)
}

/// The matrix `[outputs, length]` that picks samples `first ..`.
fn selection(length: usize, first: usize, outputs: usize) -> Vec<f64> {
    let mut matrix = vec![0.0; outputs * length];
    for (output, row) in matrix.chunks_exact_mut(length).enumerate() {
        if let Some(value) = row.get_mut(first + output) {
            *value = 1.0;
        }
    }
    matrix
}

/// Reflects the borders (the border pixel itself not repeated): `[B, C, H, W]` to `[B C, frame.height, frame.width]`.
fn pad(images: &Tensor, frame: Frame) -> Result<Tensor> {
    let (batch, channels, height, width) = images.dims4()?;
    let indices = |length: usize, before: usize, total: usize| -> Result<Tensor> {
        let period = (2 * length - 2).max(1) as i64;
        let indices: Vec<u32> = (0..total as i64)
            .map(|index| {
                let phase = (index - before as i64).rem_euclid(period);
                phase.min(period - phase) as u32 % length as u32
            })
            .collect();
        Ok(Tensor::new(indices, images.device())?)
    };
    let maps = images.reshape((batch * channels, height, width))?;
    let tall = maps.index_select(&indices(height, frame.top, frame.height)?, 1)?;
    Ok(tall.index_select(&indices(width, frame.left, frame.width)?, 2)?)
}
