//! The masked autoencoder and its head for defects.

use candle_core::{Device, Result, Tensor};

use super::params::IsstadParams;
use crate::training::tokens::{Grid, layer_norm, linear};
use crate::training::transformer::{Attention, Mlp};
use crate::training::{FrozenLinear, Parameters, Start};

/// A layer of a transformer with its norms before attention and MLP.
struct Layer(Attention, Mlp);

impl Layer {
    fn new(
        params: &IsstadParams,
        width: usize,
        parameters: &mut Parameters<'_>,
        name: &str,
    ) -> masf_core::Result<Self> {
        let attention = Attention::new(width, params.heads, parameters, name)?;
        Ok(Self(attention, Mlp::new(width, params.mlp_ratio, parameters, name)?))
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let normal = layer_norm(x)?;
        let x = (x + self.0.attend(&normal, &normal)?)?;
        &x + self.1.apply(&layer_norm(&x)?)?
    }
}

/// What the decoder gives for whole images.
pub(super) struct Decoded {
    /// The restored tokens, `[B, P, C]`.
    pub(super) restored: Tensor,
    /// After every layer, how much larger the logit of "defective" is than that of "normal", `[B, P, cell]`.
    pub(super) logits: Vec<Tensor>,
}

/// The network with its parameters.
pub(super) struct Network {
    input: (Tensor, Tensor),
    positions: Tensor,
    encoder: Vec<Layer>,
    middle: (Tensor, Tensor),
    mask: Tensor,
    decoder_positions: Tensor,
    decoder: Vec<Layer>,
    output: (Tensor, Tensor),
    head: (Tensor, Tensor),
}

impl Network {
    /// A network for tokens of `channels` and `cell` scores on a grid, with parameters as they are taken.
    pub(super) fn new(
        params: &IsstadParams,
        grid: Grid,
        (channels, cell): (usize, usize),
        parameters: &mut Parameters<'_>,
    ) -> masf_core::Result<Self> {
        let (width, decoder_width) = (params.width, params.decoder_width);
        let affine = |parameters: &mut Parameters<'_>, name: &str, input: usize, output: usize| {
            let start = Start::Normal(1.0 / (input as f64).sqrt());
            let weight = parameters.take(name, &[input, output], start)?;
            let bias = parameters.take(&format!("{name}.bias"), &[output], Start::Constant(0.0))?;
            Ok::<_, masf_core::Error>((weight, bias))
        };
        let input = affine(parameters, "input", channels, width)?;
        let encoder = (0..params.depth)
            .map(|layer| Layer::new(params, width, parameters, &format!("encoder{layer}")))
            .collect::<masf_core::Result<_>>()?;
        let middle = affine(parameters, "middle", width, decoder_width)?;
        let mask = parameters.take("mask", &[decoder_width], Start::Normal(0.02))?;
        let decoder = (0..params.decoder_depth)
            .map(|layer| Layer::new(params, decoder_width, parameters, &format!("decoder{layer}")))
            .collect::<masf_core::Result<_>>()?;
        let output = affine(parameters, "output", decoder_width, channels)?;
        let head = affine(parameters, "head", decoder_width, 2 * cell)?;
        let (positions, decoder_positions) = (waves(grid, width)?, waves(grid, decoder_width)?);
        Ok(Self { input, positions, encoder, middle, mask, decoder_positions, decoder, output, head })
    }

    /// The code of tokens `[B, V, C]` at positions of the grid, `B V` indices.
    fn encode(&self, tokens: &Tensor, places: &Tensor) -> Result<Tensor> {
        let (batch, count, channels) = tokens.dims3()?;
        let x = FrozenLinear::apply(&tokens.reshape((batch * count, channels))?, &self.input.0)?;
        let x = (x.broadcast_add(&self.input.1)? + self.positions.index_select(places, 0)?)?;
        let mut x = x.reshape((batch, count, ()))?;
        for layer in &self.encoder {
            x = layer.apply(&x)?;
        }
        layer_norm(&x)
    }

    /// What is hidden as it is restored from the rest, `[B, H, C]`; `order` has for every image first the `visible` positions, then the others.
    pub(super) fn restore_hidden(&self, tokens: &Tensor, order: &Tensor, visible: usize) -> Result<Tensor> {
        let (batch, positions, _) = tokens.dims3()?;
        let places = order.narrow(1, 0, visible)?.contiguous()?.flatten_all()?;
        let code = self.encode(&pick(tokens, &order.narrow(1, 0, visible)?)?, &places)?;
        let seen = linear(&code, &self.middle.0, Some(&self.middle.1))?;
        let hidden = positions - visible;
        let mask = self.mask.reshape((1, 1, ()))?.broadcast_as((batch, hidden, self.mask.dim(0)?))?.contiguous()?;
        let places = self.decoder_positions.index_select(&order.flatten_all()?, 0)?.reshape((batch, positions, ()))?;
        let mut x = (Tensor::cat(&[seen, mask], 1)? + places)?;
        for layer in &self.decoder {
            x = layer.apply(&x)?;
        }
        let x = layer_norm(&x.narrow(1, visible, hidden)?.contiguous()?)?;
        linear(&x, &self.output.0, Some(&self.output.1))
    }

    /// Whole images; no gradient reaches the encoder.
    pub(super) fn decode(&self, tokens: &Tensor) -> Result<Decoded> {
        let (batch, positions, _) = tokens.dims3()?;
        let places: Vec<u32> = (0..batch * positions).map(|index| (index % positions) as u32).collect();
        let code = self.encode(tokens, &Tensor::new(places, &Device::Cpu)?)?.detach();
        let mut x = linear(&code, &self.middle.0, Some(&self.middle.1))?.broadcast_add(&self.decoder_positions)?;
        let mut logits = Vec::with_capacity(self.decoder.len());
        for layer in &self.decoder {
            x = layer.apply(&x)?;
            let both = linear(&x, &self.head.0, Some(&self.head.1))?;
            let cell = both.dim(2)? / 2;
            logits.push((both.narrow(2, cell, cell)? - both.narrow(2, 0, cell)?)?);
        }
        let restored = linear(&layer_norm(&x)?, &self.output.0, Some(&self.output.1))?;
        Ok(Decoded { restored, logits })
    }
}

/// The tokens `[B, V, C]` at the positions `[B, V]`.
pub(super) fn pick(tokens: &Tensor, positions: &Tensor) -> Result<Tensor> {
    let chosen =
        (0..tokens.dim(0)?).map(|image| tokens.get(image)?.index_select(&positions.get(image)?.contiguous()?, 0));
    Tensor::stack(&chosen.collect::<Result<Vec<_>>>()?, 0)
}

/// Positions as sines and cosines, `[positions, width]`: half of the channels for the row, half for the column.
fn waves(grid: Grid, width: usize) -> Result<Tensor> {
    let quarter = width / 4;
    let mut values = Vec::with_capacity(grid.0 * grid.1 * width);
    for (row, column) in (0..grid.0 * grid.1).map(|position| (position / grid.1, position % grid.1)) {
        for place in [row, column] {
            let angle = |index: usize| place as f64 / 10_000f64.powf(index as f64 / quarter as f64);
            values.extend((0..quarter).map(|index| angle(index).sin() as f32));
            values.extend((0..quarter).map(|index| angle(index).cos() as f32));
        }
    }
    Tensor::from_vec(values, (grid.0 * grid.1, width), &Device::Cpu)
}
