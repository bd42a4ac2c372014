//! The transformer.

use candle_core::Tensor;
use masf_core::Result;

use super::params::AdtrParams;
use crate::training::tokens::{layer_norm, linear};
use crate::training::transformer::{Attention, Mlp};
use crate::training::{Parameters, Start};

/// The network with its parameters.
pub(super) struct Network {
    input: Tensor,
    positions: Tensor,
    encoder: Vec<(Attention, Mlp)>,
    queries: Tensor,
    decoder: Vec<(Attention, Attention, Mlp)>,
    output: Tensor,
    bias: Tensor,
}

impl Network {
    /// A network for `positions` tokens of `channels`, with parameters as they are taken.
    pub(super) fn new(
        params: &AdtrParams,
        (positions, channels): (usize, usize),
        parameters: &mut Parameters<'_>,
    ) -> Result<Self> {
        let width = params.width;
        let normal = |input: usize| Start::Normal(1.0 / (input as f64).sqrt());
        let input = parameters.take("input", &[channels, width], normal(channels))?;
        let places = parameters.take("positions", &[positions, width], Start::Normal(0.1))?;
        let encoder = (0..params.depth)
            .map(|layer| {
                let attention = Attention::new(width, params.heads, parameters, &format!("encoder{layer}.self"))?;
                Ok((attention, Mlp::new(width, params.mlp_ratio, parameters, &format!("encoder{layer}"))?))
            })
            .collect::<Result<Vec<_>>>()?;
        let queries = parameters.take("queries", &[positions, width], Start::Normal(1.0))?;
        let decoder = (0..params.depth)
            .map(|layer| {
                let own = Attention::new(width, params.heads, parameters, &format!("decoder{layer}.self"))?;
                let cross = Attention::new(width, params.heads, parameters, &format!("decoder{layer}.cross"))?;
                Ok((own, cross, Mlp::new(width, params.mlp_ratio, parameters, &format!("decoder{layer}"))?))
            })
            .collect::<Result<Vec<_>>>()?;
        let output = parameters.take("output", &[width, channels], normal(width))?;
        let bias = parameters.take("bias", &[channels], Start::Constant(0.0))?;
        Ok(Self { input, positions: places, encoder, queries, decoder, output, bias })
    }

    /// The tokens `[B, P, C]` as they are restored.
    pub(super) fn restore(&self, tokens: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = linear(tokens, &self.input, None)?.broadcast_add(&self.positions)?;
        for (attention, mlp) in &self.encoder {
            x = layer_norm(&(&x + attention.attend(&x, &x)?)?)?;
            x = layer_norm(&(&x + mlp.apply(&x)?)?)?;
        }
        let (batch, positions, width) = x.dims3()?;
        let mut q = self.queries.unsqueeze(0)?.broadcast_as((batch, positions, width))?.contiguous()?;
        for (own, cross, mlp) in &self.decoder {
            q = layer_norm(&(&q + own.attend(&q, &q)?)?)?;
            q = layer_norm(&(&q + cross.attend(&q, &x)?)?)?;
            q = layer_norm(&(&q + mlp.apply(&q)?)?)?;
        }
        linear(&q, &self.output, Some(&self.bias))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use candle_core::{Device, Var};

    use super::*;
    use crate::training::values;

    #[derive(serde::Deserialize)]
    struct Reference {
        parameters: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
        tokens: (Vec<usize>, Vec<f32>),
        loss: f32,
        restored: Vec<f32>,
        /// By autograd, of some parameters.
        gradients: BTreeMap<String, Vec<f32>>,
    }

    /// Against PyTorch's attention, layer norm and mean square error; see `tests/reference/baselines_trained.py`.
    #[test]
    fn network_and_loss_are_those_of_pytorch() -> Result<()> {
        let cases: serde_json::Value =
            serde_json::from_str(include_str!("../../../../tests/data/baselines_trained.json")).unwrap();
        let reference: Reference = serde_json::from_value(cases["adtr"].clone()).unwrap();
        let tensor =
            |(shape, values): &(Vec<usize>, Vec<f32>)| Tensor::from_slice(values, shape.as_slice(), &Device::Cpu);
        let mut variables = BTreeMap::new();
        for (name, values) in &reference.parameters {
            variables.insert(name.clone(), Var::from_tensor(&tensor(values)?)?);
        }
        let given = variables.iter().map(|(name, variable)| (name.clone(), variable.as_tensor().clone()));
        let params = AdtrParams { width: 8, heads: 2, depth: 1, mlp_ratio: 2, ..AdtrParams::default() };
        let network = Network::new(&params, (4, 5), &mut Parameters::of(given))?;
        let tokens = tensor(&reference.tokens)?;
        let restored = network.restore(&tokens)?;
        for (found, expected) in values(&restored)?.iter().zip(&reference.restored) {
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
        let loss = (restored - tokens)?.sqr()?.mean_all()?;
        assert!((loss.to_scalar::<f32>()? - reference.loss).abs() < 1e-5 * reference.loss.max(1.0));
        let gradients = loss.backward()?;
        for (name, expected) in &reference.gradients {
            let found = values(gradients.get(&variables[name]).expect("it takes part"))?;
            let scale = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-3 * scale, "{name}: {found} {expected}");
            }
        }
        Ok(())
    }
}
