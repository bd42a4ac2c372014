//! Spectral decomposition: maps split into radial frequency bands that add up to the map.

use crate::bands;
use crate::complex::widened;
use crate::error::{Error, Result};
use crate::frequency::{constant, constant_of, map_size};
use crate::norm::Norm;
use crate::transform::{irfft2, rfft2};
use candle_core::{D, DType, Device, Tensor};
use candle_nn::{Init, Module, VarBuilder};

/// What a [`SpectralDecomposition`] does. The default has three bands of equal width and learns nothing.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DecompositionConfig {
    /// Number of bands, 1 to 64.
    pub bands: usize,
    /// Inner edges, `bands - 1` strictly increasing radii in `(0, 1)`, where 1 is the Nyquist frequency. `None` spaces them evenly.
    pub edges: Option<Vec<f64>>,
    /// Width of the transition at an edge, in the same unit, above 0 and at most 2. `None` is `1 / bands`.
    pub softness: Option<f64>,
    /// Whether the edges are a variable.
    pub learn_edges: bool,
    /// Whether every band has a gain that is a variable, 1 at first.
    pub learn_gains: bool,
}

impl Default for DecompositionConfig {
    fn default() -> Self {
        Self { bands: 3, edges: None, softness: None, learn_edges: false, learn_gains: false }
    }
}

impl DecompositionConfig {
    /// Sets the number of bands.
    pub fn bands(mut self, bands: usize) -> Self {
        self.bands = bands;
        self
    }

    /// Sets the inner edges, and the number of bands to one more.
    pub fn edges(mut self, edges: &[f64]) -> Self {
        self.bands = edges.len() + 1;
        self.edges = Some(edges.to_vec());
        self
    }

    /// Sets the width of the transitions.
    pub fn softness(mut self, softness: f64) -> Self {
        self.softness = Some(softness);
        self
    }

    /// Sets whether edges are learned.
    pub fn learn_edges(mut self, learn: bool) -> Self {
        self.learn_edges = learn;
        self
    }

    /// Sets whether gains are learned.
    pub fn learn_gains(mut self, learn: bool) -> Self {
        self.learn_gains = learn;
        self
    }

    /// Errors if a field is outside its range; else the edges and the softness.
    fn checked(&self) -> Result<(Vec<f64>, f64)> {
        if !(1..=64).contains(&self.bands) {
            return Err(Error::argument("bands", self.bands, "use 1 to 64"));
        }
        let even = || (1..self.bands).map(|band| band as f64 / self.bands as f64).collect();
        let edges = self.edges.clone().unwrap_or_else(even);
        if edges.len() + 1 != self.bands {
            return Err(Error::argument("edges", edges, "give one edge less than bands"));
        }
        bands::check_edges(&edges)?;
        let softness = self.softness.unwrap_or(1.0 / self.bands as f64);
        if !(softness > 0.0 && softness <= 2.0) {
            return Err(Error::argument("softness", softness, "use a width above 0 and at most 2"));
        }
        Ok((edges, softness))
    }
}

/// Splits maps into radial bands of their spectrum: `x_k = g_k irfft2(B_k rfft2(x))`, with `sum_k x_k = x` while the gains are 1.
///
/// Works on maps of any size (odd and prime ones too); the bands follow the relative frequency. Differentiable in the maps, and in the edges and
/// gains where these are learned. Learned edges stay in order: a variable, zero at first, is added to the logarithms of the band widths, and a softmax and a
/// running sum make edges of them.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use masf_spectral::{DecompositionConfig, SpectralDecomposition};
///
/// let split = SpectralDecomposition::fixed(DecompositionConfig::default().bands(4), &Device::Cpu)?;
/// let maps = Tensor::rand(0f32, 1f32, (2, 8, 28, 28), &Device::Cpu)?;
/// let bands = split.decompose(&maps)?;
/// assert_eq!((bands.len(), bands[0].dims()), (4, maps.dims()));
/// let energies = split.energies(&maps, 3)?;
/// assert_eq!(energies[3].dims(), maps.dims());
/// # Ok::<(), masf_spectral::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SpectralDecomposition {
    config: DecompositionConfig,
    softness: f64,
    edges: Edges,
    gains: Option<Tensor>,
    device: Device,
}

/// Learned edges: the logarithms of the first band widths, and the variable, an offset, as a VarBuilder knows no arbitrary initial values. The two are
/// added at every use, since an optimiser changes a variable in place.
#[derive(Debug, Clone)]
enum Edges {
    Fixed(Vec<f64>),
    Learned { initial: Tensor, offset: Tensor },
}

impl SpectralDecomposition {
    /// A decomposition whose variables, if the configuration asks for any, come from `vb`: `band_widths` and `band_gains`, both `[bands]`.
    ///
    /// # Errors
    /// If a field of the configuration is outside its range, or a stored variable has another shape.
    pub fn new(config: DecompositionConfig, vb: VarBuilder) -> Result<Self> {
        let (fixed, softness) = config.checked()?;
        let bands = config.bands;
        let edges = if config.learn_edges {
            let widths = std::iter::once(0.0).chain(fixed.iter().copied()).zip(fixed.iter().copied().chain([1.0]));
            let logits = widths.map(|(from, to)| (to - from).ln()).collect();
            let initial = constant_of(logits, bands, vb.dtype(), vb.device())?;
            Edges::Learned { initial, offset: vb.get_with_hints(bands, "band_widths", Init::Const(0.0))? }
        } else {
            Edges::Fixed(fixed)
        };
        let gains = match config.learn_gains {
            true => Some(vb.get_with_hints(bands, "band_gains", Init::Const(1.0))?),
            false => None,
        };
        Ok(Self { config, softness, edges, gains, device: vb.device().clone() })
    }

    /// A decomposition without variables.
    ///
    /// # Errors
    /// If a field of the configuration is outside its range, or it asks for variables.
    pub fn fixed(config: DecompositionConfig, device: &Device) -> Result<Self> {
        if config.learn_edges || config.learn_gains {
            return Err(Error::argument(
                "config",
                config,
                "variables need a VarBuilder; use SpectralDecomposition::new",
            ));
        }
        let (edges, softness) = config.checked()?;
        Ok(Self { config, softness, edges: Edges::Fixed(edges), gains: None, device: device.clone() })
    }

    /// The configuration.
    pub fn config(&self) -> &DecompositionConfig {
        &self.config
    }

    /// The inner edges as they are now, `bands - 1` radii.
    ///
    /// # Errors
    /// On failure of the backend.
    pub fn edges(&self) -> Result<Vec<f64>> {
        let dtype = match &self.edges {
            Edges::Learned { offset, .. } if offset.dtype() != DType::F64 => DType::F32,
            _ => DType::F64,
        };
        // Widened on the host: Metal has no f64.
        Ok(self.edge_tensor(dtype)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1()?)
    }

    /// The band responses, gains included, on the half spectrum of `[height, width]` maps: `[bands, height, width / 2 + 1]`.
    ///
    /// # Errors
    /// If a size is zero, or on failure of the backend.
    pub fn responses(&self, height: usize, width: usize, dtype: DType) -> Result<Tensor> {
        if height == 0 || width == 0 {
            return Err(Error::argument("size", (height, width), "use sizes of at least 1"));
        }
        // The edges in f32 at least: a softmax in half precision would move them.
        let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let mut responses = bands::responses(&self.edge_tensor(wide)?, self.softness, height, width)?;
        if let Some(gains) = &self.gains {
            let gains = gains.to_dtype(wide)?.reshape((self.config.bands, 1, 1))?;
            responses = responses.broadcast_mul(&gains)?;
        }
        Ok(responses.to_dtype(dtype)?)
    }

    /// The band maps, lowest band first, each of the shape of `maps` `[..., H, W]`.
    ///
    /// # Errors
    /// If the maps have fewer than two axes, an empty one, no float dtype or another device, or on failure of the backend.
    pub fn decompose(&self, maps: &Tensor) -> Result<Vec<Tensor>> {
        let (height, width) = map_size("SpectralDecomposition", maps)?;
        // In half precision the zero frequency of bright maps would be infinite.
        let wide = widened(maps)?;
        let spectrum = rfft2(&wide, Norm::Ortho)?;
        let responses = self.responses(height, width, wide.dtype())?;
        let band = |index| -> Result<Tensor> {
            Ok(irfft2(&spectrum.scale(&responses.get(index)?)?, None)?.to_dtype(maps.dtype())?)
        };
        (0..self.config.bands).map(band).collect()
    }

    /// Local energy of each band: the mean of the squared band map over a `window x window` square around the position, cut off
    /// at the borders. `window` is odd; 1 gives the squares themselves.
    ///
    /// # Errors
    /// If the window is even, or as [`decompose`](Self::decompose).
    pub fn energies(&self, maps: &Tensor, window: usize) -> Result<Vec<Tensor>> {
        if window.is_multiple_of(2) {
            return Err(Error::argument("window", window, "use an odd width"));
        }
        let (height, width) = map_size("SpectralDecomposition", maps)?;
        // An infinite square would make a NaN of every mean.
        let wide = widened(maps)?;
        let rows = box_mean(height, window, &wide)?;
        let columns = box_mean(width, window, &wide)?.t()?.contiguous()?;
        let local = |band: Tensor| -> Result<Tensor> {
            let squares = band.sqr()?;
            if window == 1 {
                return Ok(squares.to_dtype(maps.dtype())?);
            }
            let flat = squares.reshape(((), width))?.matmul(&columns)?.reshape(((), height, width))?;
            Ok(rows.broadcast_matmul(&flat)?.reshape(maps.shape())?.to_dtype(maps.dtype())?)
        };
        self.decompose(&wide)?.into_iter().map(local).collect()
    }

    fn edge_tensor(&self, dtype: DType) -> Result<Tensor> {
        match &self.edges {
            Edges::Fixed(edges) => constant_of(edges.clone(), edges.len(), dtype, &self.device),
            Edges::Learned { initial, offset } => {
                let widths = candle_nn::ops::softmax(&initial.add(offset)?.to_dtype(dtype)?, D::Minus1)?;
                Ok(widths.cumsum(0)?.narrow(0, 0, self.config.bands - 1)?)
            }
        }
    }
}

impl Module for SpectralDecomposition {
    /// Band maps side by side as channels: `[B, C, H, W]` to `[B, bands * C, H, W]`, lowest band first.
    fn forward(&self, maps: &Tensor) -> candle_core::Result<Tensor> {
        if maps.rank() != 4 {
            return Err(Error::shape("SpectralDecomposition", maps.dims(), "expected [B, C, H, W]").into());
        }
        Tensor::cat(&self.decompose(maps)?, 1)
    }
}

/// The matrix `[length, length]` of means over a window, cut off at the borders.
fn box_mean(length: usize, window: usize, like: &Tensor) -> Result<Tensor> {
    let reach = window / 2;
    let mut values = vec![0.0; length * length];
    for (centre, row) in values.chunks_exact_mut(length).enumerate() {
        let (from, to) = (centre.saturating_sub(reach), (centre + reach + 1).min(length));
        for value in row.iter_mut().take(to).skip(from) {
            *value = 1.0 / (to - from) as f64;
        }
    }
    constant(values, (length, length), like)
}
