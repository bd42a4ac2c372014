//! The student: tokens of the pyramid, a noisy bottleneck, blocks that mix in the spectrum, heads that restore the levels.
//!
//! ```text
//! x = E t                                  tokens t of the standardised levels; frequencies and tokens masked in training
//! x = U drop(gelu(D drop(x)))              noisy bottleneck
//! x = x + irfft2(G . rfft2(n(x)))          global filter (Rao et al. 2021), G complex per channel and frequency
//!       + O attend(Q n(x), KV s)           SSCA: queries are spatial tokens, keys and values spectral tokens s
//! x = x + W2 gelu(W1 n(x))                 MLP
//! z_l = H_l n(x)                           head of level l; a token restores all positions of its cell (pixel shuffle)
//! ```
//!
//! `n` is layer normalisation; filter and attention share one spectrum. Spectral tokens are real and imaginary parts of all channels
//! at a frequency, normalised, plus a learned vector per frequency.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use masf_core::random_stream;
use masf_spectral::{ComplexTensor, Norm, irfft2, rfft2};
use rand_distr::{Distribution, StandardNormal};

use crate::grid::Grid;
use crate::mask::radius;
use crate::ops::{self, AttentionShape, Mode, PackedLinear};
use crate::{Positions, Result, StudentParams};

/// How a parameter starts.
#[derive(Debug, Clone, Copy)]
enum Start {
    /// Normal with this deviation; the last row, the bias, zero.
    Weight(f64),
    /// Normal with this deviation.
    Normal(f64),
    /// Low-pass filters of widths spread over the channels.
    LowPass,
}

/// A parameter of the network.
pub(crate) struct ParameterSpec {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    start: Start,
}

/// The parameters of a network, in their fixed order.
pub(crate) fn parameters(params: &StudentParams, grid: &Grid) -> Vec<ParameterSpec> {
    let (width, hidden) = (params.width, params.width * params.mlp_ratio);
    let mut specs = Vec::new();
    let mut add = |name: String, shape: &[usize], start| {
        specs.push(ParameterSpec { name, shape: shape.to_vec(), start });
    };
    let weight = |input: usize, gain: f64| Start::Weight(gain / (input as f64).sqrt());
    add("embedding".into(), &[grid.values() + 1, width], weight(grid.values(), 1.0));
    add("mask_token".into(), &[width], Start::Normal(0.02));
    if params.positions == Positions::Learned {
        add("positions".into(), &[grid.tokens(), width], Start::Normal(0.02));
    }
    add("bottleneck.down".into(), &[width + 1, params.bottleneck], weight(width, 1.4));
    add("bottleneck.up".into(), &[params.bottleneck + 1, width], weight(params.bottleneck, 1.4));
    // What blocks add starts small, the smaller the more of them.
    let residual = 0.5 / (params.depth.max(1) as f64).sqrt();
    let frequencies = grid.height * grid.columns();
    for block in 0..params.depth {
        if params.global_filter {
            add(format!("block{block}.gains"), &[2, width * frequencies], Start::LowPass);
        }
        if params.spectral_attention {
            add(format!("block{block}.query"), &[width + 1, width], weight(width, 1.0));
            add(format!("block{block}.frequencies"), &[frequencies, 2 * width], Start::Normal(0.2));
            add(format!("block{block}.key_value"), &[2 * width + 1, 2 * width], weight(2 * width, 1.0));
            add(format!("block{block}.mix"), &[width + 1, width], weight(width, residual));
        }
        add(format!("block{block}.up"), &[width + 1, hidden], weight(width, 1.0));
        add(format!("block{block}.down"), &[hidden + 1, width], weight(hidden, residual));
    }
    for (name, level) in grid.names().iter().zip(&grid.levels) {
        add(format!("head{name}"), &[width + 1, level.values()], weight(width, 0.5));
    }
    specs
}

impl ParameterSpec {
    /// The first values; every parameter has a stream of its own.
    pub(crate) fn initial(&self, grid: &Grid, seed: u64) -> Result<Tensor> {
        let count: usize = self.shape.iter().product();
        let mut random = random_stream(seed, &format!("distill.start.{}", self.name));
        let mut normal = |count: usize, deviation: f64| -> Vec<f32> {
            (0..count).map(|_| (Distribution::<f64>::sample(&StandardNormal, &mut random) * deviation) as f32).collect()
        };
        let values = match self.start {
            Start::Normal(deviation) => normal(count, deviation),
            Start::Weight(deviation) => {
                let bias = self.shape.last().copied().unwrap_or(0);
                let mut values = normal(count - bias, deviation);
                values.resize(count, 0.0);
                values
            }
            Start::LowPass => low_pass(count / 2, grid),
        };
        Ok(Tensor::from_vec(values, self.shape.as_slice(), &Device::Cpu)?)
    }
}

/// Gaussian low-pass gains, real parts then imaginary ones (zero); from channel to channel the cut-off goes from a narrow one to all frequencies.
fn low_pass(count: usize, grid: &Grid) -> Vec<f32> {
    let (height, columns) = (grid.height, grid.columns());
    let channels = count / (height * columns);
    let mut values = Vec::with_capacity(2 * count);
    for channel in 0..channels {
        let cut = 0.08 * 25f64.powf((channel as f64 + 0.5) / channels as f64);
        for bin in 0..height * columns {
            let radius = radius(bin / columns, bin % columns, grid) / cut;
            values.push((0.5 * (-0.5 * radius * radius).exp()) as f32);
        }
    }
    values.resize(2 * count, 0.0);
    values
}

/// What one training step hides.
pub(crate) struct Masks {
    pub(crate) tokens: Vec<bool>,
    pub(crate) frequencies: Option<Arc<Vec<f32>>>,
    /// Factors before and inside the bottleneck.
    pub(crate) dropout: Option<[Arc<Vec<f32>>; 2]>,
}

struct Filter {
    gains: Tensor,
}

/// An affine map.
enum Affine {
    /// Its weight `[I + 1, O]`.
    Learned(Tensor),
    /// Ready for scoring.
    Packed(PackedLinear),
}

impl Affine {
    fn packed(self) -> Result<Self> {
        match self {
            Self::Learned(weight) => Ok(Self::Packed(PackedLinear::new(&weight)?)),
            packed => Ok(packed),
        }
    }

    /// `x W + b`.
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Learned(weight) => Ok(ops::linear(x, weight, true)?),
            Self::Packed(map) => Ok(map.apply(x)?),
        }
    }

    /// `gelu(x W + b)`.
    fn apply_gelu(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Learned(_) => Ok(ops::gelu(&self.apply(x)?)?),
            Self::Packed(map) => Ok(map.apply_gelu(x)?),
        }
    }

    /// `y + x W + b`.
    fn add_to(&self, y: &Tensor, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Learned(_) => Ok(ops::add(y, &self.apply(x)?)?),
            Self::Packed(map) => Ok(map.add_to(y, x)?),
        }
    }
}

struct SpectralAttention {
    query: Affine,
    frequencies: Tensor,
    key_value: Affine,
    mix: Affine,
}

struct Block {
    filter: Option<Filter>,
    attention: Option<SpectralAttention>,
    up: Affine,
    down: Affine,
}

/// The network with its parameters.
pub(crate) struct Network {
    grid: Grid,
    heads: usize,
    width: usize,
    embedding: Tensor,
    mask_token: Tensor,
    positions: Option<Tensor>,
    bottleneck: (Affine, Affine),
    blocks: Vec<Block>,
    /// One weight per level, finest first.
    pub(crate) levels: Vec<Tensor>,
}

impl Network {
    /// A network of parameters in the order of [`parameters`], whose shapes the caller has checked.
    pub(crate) fn new(params: &StudentParams, grid: &Grid, tensors: &[Tensor]) -> Result<Self> {
        let mut rest = tensors.iter().cloned();
        let mut next = || rest.next().ok_or_else(|| candle_core::Error::Msg("a parameter is missing".into()));
        let embedding = next()?;
        let mask_token = next()?;
        let positions = (params.positions == Positions::Learned).then(&mut next).transpose()?;
        let bottleneck = (Affine::Learned(next()?), Affine::Learned(next()?));
        let mut blocks = Vec::with_capacity(params.depth);
        for _ in 0..params.depth {
            let filter = match params.global_filter {
                true => Some(Filter { gains: next()? }),
                false => None,
            };
            let attention = match params.spectral_attention {
                true => Some(SpectralAttention {
                    query: Affine::Learned(next()?),
                    frequencies: next()?,
                    key_value: Affine::Learned(next()?),
                    mix: Affine::Learned(next()?),
                }),
                false => None,
            };
            let (up, down) = (Affine::Learned(next()?), Affine::Learned(next()?));
            blocks.push(Block { filter, attention, up, down });
        }
        let levels = grid.levels.iter().map(|_| next()).collect::<Result<_, _>>()?;
        Ok(Self {
            grid: grid.clone(),
            heads: params.heads,
            width: params.width,
            embedding,
            mask_token,
            positions,
            bottleneck,
            blocks,
            levels,
        })
    }

    /// The same for scoring alone: the affine maps of the body are packed.
    pub(crate) fn packed(self) -> Result<Self> {
        let block = |block: Block| -> Result<Block> {
            let attention = |attention: SpectralAttention| -> Result<SpectralAttention> {
                let SpectralAttention { query, frequencies, key_value, mix } = attention;
                let (query, key_value, mix) = (query.packed()?, key_value.packed()?, mix.packed()?);
                Ok(SpectralAttention { query, frequencies, key_value, mix })
            };
            let Block { filter, attention: own, up, down } = block;
            Ok(Block { filter, attention: own.map(attention).transpose()?, up: up.packed()?, down: down.packed()? })
        };
        let bottleneck = (self.bottleneck.0.packed()?, self.bottleneck.1.packed()?);
        let blocks = self.blocks.into_iter().map(block).collect::<Result<_>>()?;
        Ok(Self { bottleneck, blocks, ..self })
    }

    /// The weight of the embedding, `[I + 1, D]`.
    pub(crate) fn embedding(&self) -> &Tensor {
        &self.embedding
    }

    /// Tokens `[B N, I]` as embedded ones `[B N, D]`.
    pub(crate) fn embed(&self, tokens: &Tensor) -> Result<Tensor> {
        Ok(ops::linear(tokens, &self.embedding, false)?)
    }

    /// What the heads take, `[B N, D]`, for embedded tokens.
    pub(crate) fn body(&self, embedded: &Tensor, masks: Option<Masks>, mode: Mode) -> Result<Tensor> {
        let mut x = embedded.clone();
        let mut dropout = None;
        if let Some(masks) = masks {
            if let Some(responses) = &masks.frequencies {
                let spectrum = rfft2(&self.to_maps(&x)?, Norm::Ortho)?;
                let planes = self.flat(spectrum.values().planes())?;
                let planes = ops::mask_frequencies(&planes, responses)?.reshape(spectrum.values().planes().shape())?;
                let spectrum = spectrum.with_values(ComplexTensor::from_planes(planes)?)?;
                x = self.to_tokens(&irfft2(&spectrum, None)?)?;
            }
            x = ops::mask_rows(&x, &self.mask_token, masks.tokens)?;
            dropout = masks.dropout;
        }
        if let Some(positions) = &self.positions {
            x = ops::add_rows(&x, positions)?;
        }
        if let Some([before, _]) = &dropout {
            x = ops::scale(&x, before)?;
        }
        x = self.bottleneck.0.apply_gelu(&x)?;
        if let Some([_, inside]) = &dropout {
            x = ops::scale(&x, inside)?;
        }
        x = self.bottleneck.1.apply(&x)?;
        for block in &self.blocks {
            x = self.block(block, &x, mode)?;
        }
        Ok(ops::layer_norm(&x)?)
    }

    fn block(&self, block: &Block, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let mut y = x.clone();
        if block.filter.is_some() || block.attention.is_some() {
            let normal = ops::layer_norm(x)?;
            let spectrum = rfft2(&self.to_maps(&normal)?, Norm::Ortho)?;
            let planes = spectrum.values().planes();
            let batch = planes.dim(1)?;
            if let Some(Filter { gains }) = &block.filter {
                let filtered = ops::gains(&planes.reshape((2, batch, ()))?, gains)?.reshape(planes.shape())?;
                let filtered = spectrum.with_values(ComplexTensor::from_planes(filtered)?)?;
                y = ops::add(&y, &self.to_tokens(&irfft2(&filtered, None)?)?)?;
            }
            if let Some(attention) = &block.attention {
                let spectral = ops::layer_norm(&ops::spectral_tokens(&self.flat(planes)?)?)?;
                let spectral = ops::add_rows(&spectral, &attention.frequencies)?;
                let key_value = attention.key_value.apply(&spectral)?;
                let query = attention.query.apply(&normal)?;
                let shape = AttentionShape {
                    queries: self.grid.tokens(),
                    keys: self.grid.height * self.grid.columns(),
                    width: self.width,
                    heads: self.heads,
                };
                let attended = ops::attend(&query, &key_value, shape)?;
                y = attention.mix.add_to(&y, &attended)?;
            }
        }
        match (&block.up, &block.down) {
            (Affine::Learned(up), Affine::Learned(down)) => Ok(ops::mlp(&y, up, down, mode)?),
            (up, down) => down.add_to(&y, &up.apply_gelu(&ops::layer_norm(&y)?)?),
        }
    }

    /// Planes `[2, B, D, H, W']` as `[2, B, D, H W']`.
    fn flat(&self, planes: &Tensor) -> Result<Tensor> {
        let (batch, width) = (planes.dim(1)?, planes.dim(2)?);
        Ok(planes.reshape((2, batch, width, ()))?)
    }

    /// Tokens `[B N, D]` as maps `[B, D, H, W]`.
    fn to_maps(&self, tokens: &Tensor) -> Result<Tensor> {
        let width = tokens.dim(1)?;
        let maps = ops::swap(&tokens.reshape(((), self.grid.tokens(), width))?)?;
        Ok(maps.reshape(((), width, self.grid.height, self.grid.width))?)
    }

    /// Maps `[B, D, H, W]` as tokens `[B N, D]`.
    fn to_tokens(&self, maps: &Tensor) -> Result<Tensor> {
        let (batch, width, height, columns) = maps.dims4()?;
        let tokens = ops::swap(&maps.reshape((batch, width, height * columns))?)?;
        Ok(tokens.reshape((batch * height * columns, width))?)
    }
}
