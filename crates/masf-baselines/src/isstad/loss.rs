//! The losses of the second stage. That of the first, and the first term of the second's restoration, is the mean square error.

use candle_core::{Result, Tensor};

use super::network::Decoded;
use super::params::IsstadParams;
use crate::training::tokens::{Resampling, map_positions};

/// Keep the quotients of SSIM finite: the usual 0.01 and 0.03 of the range, squared, for features of deviation 1.
const SSIM: (f64, f64) = (1e-4, 9e-4);

/// The loss of a batch: `labels [B, P, cell]` are 1 where there is a defect, `normal [B, P, C]` is what should be restored, `windows`
/// gives the means over the windows of SSIM.
pub(super) fn defect_loss(
    decoded: &Decoded,
    labels: &Tensor,
    normal: &Tensor,
    windows: &Resampling,
    params: &IsstadParams,
) -> Result<Tensor> {
    let mut total = (square_error(&decoded.restored, normal)? * params.restoration)?;
    for logits in &decoded.logits {
        let part = cross_entropy(logits, labels, params.normal_weight)?;
        total = (total + (part / decoded.logits.len() as f64)?)?;
    }
    let dissimilarity = similarity(&decoded.restored, normal, windows)?.affine(-1.0, 1.0)?;
    total + (dissimilarity * params.similarity)?
}

/// The mean square of the difference.
pub(super) fn square_error(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    (a - b)?.sqr()?.mean_all()
}

/// The cross entropy of two classes, of which the first (normal) weighs `weight` and the second 1, over the sum of weights; `logits` is the second one's less
/// the first one's.
fn cross_entropy(logits: &Tensor, labels: &Tensor, weight: f64) -> Result<Tensor> {
    // -ln p of the second class is ln(1 + exp(-d)), that of the first one larger by d.
    let softplus = (logits.neg()?.relu()? + (logits.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
    let normal = labels.affine(-1.0, 1.0)?;
    let entropy = (softplus + (logits * &normal)?)?;
    let weights = (labels + (normal * weight)?)?;
    (entropy * &weights)?.sum_all()?.div(&weights.sum_all()?)
}

/// The structural similarity of tokens `[B, P, C]` (Wang et al. 2004), the mean over windows and channels.
fn similarity(a: &Tensor, b: &Tensor, windows: &Resampling) -> Result<Tensor> {
    let mean = |x: &Tensor| map_positions(x, windows);
    let (mean_a, mean_b) = (mean(a)?, mean(b)?);
    let product = (&mean_a * &mean_b)?;
    let squares = (mean_a.sqr()? + mean_b.sqr()?)?;
    let covariance = (mean(&(a * b)?)? - &product)?;
    let variances = (mean(&(a.sqr()? + b.sqr()?)?)? - &squares)?;
    let above = ((product * 2.0)? + SSIM.0)?.mul(&((covariance * 2.0)? + SSIM.1)?)?;
    let below = (squares + SSIM.0)?.mul(&(variances + SSIM.1)?)?;
    above.div(&below)?.mean_all()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use candle_core::backprop::GradStore;
    use candle_core::{Device, Var};

    use super::*;
    use crate::isstad::network::{Network, pick};
    use crate::training::tokens::{Grid, cell_means};
    use crate::training::{Parameters, values};

    type Array = (Vec<usize>, Vec<f32>);

    #[derive(serde::Deserialize)]
    struct Reference {
        grid: Grid,
        channels: usize,
        cell: usize,
        width: usize,
        narrow: usize,
        heads: usize,
        ratio: usize,
        visible: usize,
        parameters: BTreeMap<String, Array>,
        tokens: Array,
        normal: Array,
        order: Vec<Vec<u32>>,
        labels: Array,
        /// The loss of the first stage and its gradient by some parameters.
        masked: f32,
        first: BTreeMap<String, Vec<f32>>,
        /// The second stage.
        logits: Vec<f32>,
        restored: Vec<f32>,
        entropy: f32,
        restoration: f32,
        similarity: f32,
        loss: f32,
        second: BTreeMap<String, Vec<f32>>,
    }

    fn close(found: &Tensor, expected: f32) -> Result<()> {
        let found = found.to_scalar::<f32>()?;
        assert!((found - expected).abs() <= 1e-4 * expected.abs().max(0.1), "{found} {expected}");
        Ok(())
    }

    fn all_close(found: &Tensor, expected: &[f32], what: &str) -> Result<()> {
        let scale = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
        let found = values(found)?;
        assert_eq!(found.len(), expected.len(), "{what}");
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= 1e-3 * scale, "{what}: {found} {expected}");
        }
        Ok(())
    }

    /// Against PyTorch's attention, norms and losses; see `tests/reference/baselines_trained.py`.
    #[test]
    fn network_and_losses_are_those_of_pytorch() -> masf_core::Result<()> {
        let cases: serde_json::Value =
            serde_json::from_str(include_str!("../../../../tests/data/baselines_trained.json")).unwrap();
        let reference: Reference = serde_json::from_value(cases["isstad"].clone()).unwrap();
        let tensor = |(shape, values): &Array| Tensor::from_slice(values, shape.as_slice(), &Device::Cpu);
        let mut variables = BTreeMap::new();
        for (name, values) in &reference.parameters {
            variables.insert(name.clone(), Var::from_tensor(&tensor(values)?)?);
        }
        let given = variables.iter().map(|(name, variable)| (name.clone(), variable.as_tensor().clone()));
        let params = IsstadParams {
            width: reference.width,
            decoder_width: reference.narrow,
            depth: 1,
            decoder_depth: 1,
            heads: reference.heads,
            mlp_ratio: reference.ratio,
            ..IsstadParams::default()
        };
        let shape = (reference.channels, reference.cell);
        let network = Network::new(&params, reference.grid, shape, &mut Parameters::of(given))?;
        let gradients = |gradients: GradStore, expected: &BTreeMap<String, Vec<f32>>| -> Result<()> {
            for (name, expected) in expected {
                all_close(gradients.get(&variables[name]).expect("it takes part"), expected, name)?;
            }
            Ok(())
        };

        let (tokens, positions) = (tensor(&reference.tokens)?, reference.grid.0 * reference.grid.1);
        let order = Tensor::new(reference.order.clone(), &Device::Cpu)?;
        let restored = network.restore_hidden(&tokens, &order, reference.visible)?;
        let hidden = order.narrow(1, reference.visible, positions - reference.visible)?;
        let masked = square_error(&restored, &pick(&tokens, &hidden)?)?;
        close(&masked, reference.masked)?;
        gradients(masked.backward()?, &reference.first)?;

        let decoded = network.decode(&tokens)?;
        all_close(&decoded.logits[0], &reference.logits, "logits")?;
        all_close(&decoded.restored, &reference.restored, "restored")?;
        let (labels, normal) = (tensor(&reference.labels)?, tensor(&reference.normal)?);
        close(&cross_entropy(&decoded.logits[0], &labels, 3.0)?, reference.entropy)?;
        close(&square_error(&decoded.restored, &normal)?, reference.restoration)?;
        let windows = cell_means(reference.grid, (1, 2));
        close(&similarity(&decoded.restored, &normal, &windows)?, reference.similarity)?;
        let loss = defect_loss(&decoded, &labels, &normal, &windows, &params)?;
        close(&loss, reference.loss)?;
        let slopes = loss.backward()?;
        assert!(slopes.get(&variables["input"]).is_none(), "the encoder stays as it is");
        gradients(slopes, &reference.second)?;
        Ok(())
    }

    #[test]
    fn what_is_the_same_is_similar_and_far_logits_are_finite() -> Result<()> {
        let a = Tensor::new(&[[[1f32], [-2.0], [3.0], [0.5]]], &Device::Cpu)?;
        let windows = cell_means((2, 2), (1, 1));
        assert!((similarity(&a, &a, &windows)?.to_scalar::<f32>()? - 1.0).abs() < 1e-3);
        assert!(similarity(&a, &a.zeros_like()?, &windows)?.to_scalar::<f32>()? < 0.01);
        let logits = Tensor::new(&[[[200f32, -200.0]]], &Device::Cpu)?;
        let labels = Tensor::new(&[[[0f32, 1.0]]], &Device::Cpu)?;
        assert_eq!(cross_entropy(&logits, &labels, 1.0)?.to_scalar::<f32>()?, 200.0);
        assert_eq!(cross_entropy(&logits.neg()?, &labels, 1.0)?.to_scalar::<f32>()?, 0.0);
        Ok(())
    }
}
