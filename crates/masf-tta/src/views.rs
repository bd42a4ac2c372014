//! Views of an image in the spectrum: phase noise and phase ramps.
//!
//! Phase noise: every bin of the half spectrum turns by a random angle in `[-limit, limit]` ([`PhaseNoise`]), the same for
//! all images and channels. Phase ramps: `X[k] exp(-2 pi i k d / N)` is the circular shift by `d` (shift theorem); for whole
//! `d` it is done by moving rows and columns, which is the same thing without rounding.

use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use masf_core::{RealignedScores, Result, ScoreMap, Scores, Views, random_stream};
use masf_spectral::{ComplexTensor, Norm, PhaseNoise, irfft2, rfft2};
use rand_chacha::rand_core::RngCore;

use crate::{ViewError, ViewParams, ViewValidParams};

/// Directions of the shifts, as multiples of the largest stride down and right.
const DIRECTIONS: [(i64, i64); 8] = [(0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1)];

/// The image itself, views with phase noise, and shifted views, in this order.
///
/// Made by [`ViewValidParams::build`]. The noise of a view depends on the seed, the view and the image size alone.
#[derive(Debug)]
pub struct SpectralViews {
    params: ViewParams,
    stride: usize,
    noise: PhaseNoise,
    seeds: Vec<u64>,
    /// Transfer functions of the noise for the size last seen, on the CPU.
    transfers: Mutex<Option<Transfers>>,
}

/// Transfer functions `exp(i phase)`, one a view, and the image size that they are for.
type Transfers = ((usize, usize), Vec<ComplexTensor>);

impl SpectralViews {
    pub(crate) fn new(params: ViewValidParams, stride: usize, seed: u64) -> Result<Self, ViewError> {
        let ViewValidParams(params) = params;
        if !(1..=1024).contains(&stride) {
            let (value, expected) = (stride.to_string(), "1 to 1024 pixels".to_owned());
            return Err(ViewError::Parameter { name: "largest stride", value, expected });
        }
        let noise = PhaseNoise::new(params.limit, params.band)?;
        let mut random = random_stream(seed, "phase noise of views");
        let seeds = (0..params.noise).map(|_| random.next_u64()).collect();
        Ok(Self { params, stride, noise, seeds, transfers: Mutex::new(None) })
    }

    /// The pixels that view `view` is shifted by, down and right; `None` for a view that there is not.
    fn shift(&self, view: usize) -> Option<(i64, i64)> {
        if view <= self.params.noise {
            return Some((0, 0));
        }
        let index = view - self.params.noise - 1;
        let stride = self.stride as i64;
        let (down, right) = DIRECTIONS.get(index).filter(|_| index < self.params.shifts)?;
        Some((down * stride, right * stride))
    }

    /// `exp(i phase)` of every view with noise, on the half spectrum of `size`.
    fn transfers(&self, size: (usize, usize), device: &Device) -> Result<Vec<ComplexTensor>, ViewError> {
        let mut cached = self.transfers.lock().unwrap_or_else(PoisonError::into_inner);
        let on_cpu = match cached.as_ref() {
            Some((of, transfers)) if *of == size => transfers.clone(),
            _ => {
                let made: Vec<_> =
                    self.seeds.iter().map(|seed| self.transfer(size, *seed)).collect::<Result<_, _>>()?;
                *cached = Some((size, made.clone()));
                made
            }
        };
        drop(cached);
        let moved =
            on_cpu.into_iter().map(|transfer| Ok(ComplexTensor::from_planes(transfer.planes().to_device(device)?)?));
        moved.collect()
    }

    fn transfer(&self, (height, width): (usize, usize), seed: u64) -> Result<ComplexTensor, ViewError> {
        let phases = self.noise.phases(height, width, seed)?;
        let shape = (height, width / 2 + 1);
        let plane = |part: fn(f64) -> f64| {
            Tensor::from_vec(phases.iter().map(|phase| part(*phase) as f32).collect(), shape, &Device::Cpu)
        };
        Ok(ComplexTensor::new(&plane(f64::cos)?, &plane(f64::sin)?)?)
    }
}

impl Views for SpectralViews {
    fn views(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        let size = check_images(images, self.stride, self.params.shifts > 0)?;
        let mut views = vec![images.clone()];
        if self.params.noise > 0 {
            let batch = images.dim(0)?;
            // Image by image, so that no rounding depends on the batch.
            let spectra = (0..batch)
                .map(|index| Ok(rfft2(&images.get(index)?.contiguous()?, Norm::Ortho)?))
                .collect::<Result<Vec<_>, ViewError>>()?;
            for transfer in self.transfers(size, images.device())? {
                let noisy = spectra
                    .iter()
                    .map(|spectrum| Ok(irfft2(&spectrum.filter(&transfer)?, None)?))
                    .collect::<Result<Vec<_>, ViewError>>()?;
                views.push(Tensor::stack(&noisy, 0)?);
            }
        }
        for index in 0..self.params.shifts {
            if let Some((down, right)) = self.shift(1 + self.params.noise + index) {
                views.push(images.roll(down as i32, 2)?.roll(right as i32, 3)?);
            }
        }
        Ok(views)
    }

    fn realign(&self, view: usize, scores: Scores, input_size: (usize, usize)) -> Result<RealignedScores> {
        let Some((down, right)) = self.shift(view) else {
            let expected = format!("less than the {} views", 1 + self.params.noise + self.params.shifts);
            return Err(ViewError::Parameter { name: "view", value: view.to_string(), expected }.into());
        };
        if (down, right) == (0, 0) {
            let valid = vec![None; scores.maps.len()];
            return Ok(RealignedScores { scores, valid });
        }
        let mut maps = Vec::with_capacity(scores.maps.len());
        let mut valid = Vec::with_capacity(scores.maps.len());
        for map in scores.maps {
            let (_, height, width) = map.values.dims3()?;
            let stride = self.map_stride((height, width), input_size).ok_or_else(|| ViewError::Map {
                name: map.name.clone(),
                view,
                problem: format!(
                    "its grid of {height}x{width} is not that of a stride that divides {} on {}x{} pixels",
                    self.stride, input_size.0, input_size.1
                ),
            })?;
            let steps = |pixels: i64| (pixels / stride as i64) as i32;
            let back = map.values.roll(-steps(down), 1)?.roll(-steps(right), 2)?;
            let rows = counted(height, stride, input_size.0, down, self.params.margin);
            let columns = counted(width, stride, input_size.1, right, self.params.margin);
            let both =
                rows.iter().flat_map(|row| columns.iter().map(move |column| u8::from(*row && *column))).collect();
            valid.push(Some(Tensor::from_vec(both, (height, width), &Device::Cpu)?));
            maps.push(ScoreMap { name: map.name, values: back });
        }
        Ok(RealignedScores { scores: Scores { maps, image: scores.image }, valid })
    }
}

impl SpectralViews {
    /// Pixels per step of a map: the stride, a divisor of the largest, whose grid covers the input.
    fn map_stride(&self, grid: (usize, usize), input: (usize, usize)) -> Option<usize> {
        (1..=self.stride)
            .rev()
            .filter(|stride| self.stride.is_multiple_of(*stride))
            .find(|stride| grid == (input.0.div_ceil(*stride), input.1.div_ceil(*stride)))
    }
}

/// Which of `length` positions, in the places of the image, count in a view that was shifted by `shift` pixels.
///
/// In the image the seam lies at its border, and the border of the view where the shift cut the image.
fn counted(length: usize, stride: usize, pixels: usize, shift: i64, margin: usize) -> Vec<bool> {
    let margin = margin as f64;
    let pixels = pixels as f64;
    // What was kept in one piece: [0, pixels - shift] if the image moved down, [-shift, pixels] if it moved up.
    let (first, last) = if shift >= 0 { (0.0, pixels - shift as f64) } else { (-shift as f64, pixels) };
    (0..length)
        .map(|index| {
            let centre = (index as f64 + 0.5) * stride as f64;
            shift == 0 || (centre >= first + margin && centre <= last - margin)
        })
        .collect()
}

/// `(H, W)` of images `[B, 3, H, W]`; larger than one shift in both directions where there are shifts.
fn check_images(images: &Tensor, stride: usize, shifted: bool) -> Result<(usize, usize), ViewError> {
    let least = if shifted { stride + 1 } else { 1 };
    match *images.dims() {
        [batch, 3, height, width] if batch > 0 && height >= least && width >= least && images.dtype() == DType::F32 => {
            Ok((height, width))
        }
        ref dims => Err(ViewError::Images {
            found: dims.to_vec(),
            expected: format!("f32 images [B, 3, H, W] with B at least 1 and sides of at least {least}"),
        }),
    }
}
