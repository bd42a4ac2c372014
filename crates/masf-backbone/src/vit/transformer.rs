//! The computation of a vision transformer, one image at a time, on Candle's operations.

use candle_core::Tensor;
use candle_nn::{LayerNorm, Linear, Module, ops::softmax_last_dim};

use super::Config;
use super::positions::Positions;
use crate::Result;

/// The constant that is added to variances in layer norms.
const LAYER_NORM_EPS: f64 = 1e-6;

/// A network with its weights.
#[derive(Debug)]
pub(crate) struct Transformer {
    config: Config,
    /// `[width, 3 * patch * patch]`.
    patches: Linear,
    /// Class token and registers, with their positions, `[prefix, width]`.
    prefix: Tensor,
    positions: Positions,
    blocks: Vec<Block>,
    norm: Option<LayerNorm>,
    /// The maps: the block, and whether the last layer norm follows.
    taps: Vec<(usize, bool)>,
}

/// `x + proj(attention(norm1(x)))`, then `x + fc2(gelu(fc1(norm2(x))))`; the layer scales are folded into `proj` and `fc2`.
#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
}

impl Transformer {
    /// From tensors by name, in timm's order and shapes. `taps` name blocks below `config.depth`, and the last layer norm
    /// only with `norm`.
    pub(super) fn new(
        config: Config,
        norm: bool,
        taps: Vec<(usize, bool)>,
        get: impl Fn(&str) -> Result<Tensor>,
    ) -> Result<Self> {
        let layer_norm = |name: &str| -> Result<LayerNorm> {
            Ok(LayerNorm::new(get(&format!("{name}.weight"))?, get(&format!("{name}.bias"))?, LAYER_NORM_EPS))
        };
        let linear = |name: &str| -> Result<Linear> {
            Ok(Linear::new(get(&format!("{name}.weight"))?, Some(get(&format!("{name}.bias"))?)))
        };
        // The layer followed by a factor for every channel.
        let scaled = |name: &str, factors: &str| -> Result<Linear> {
            let factors = get(factors)?;
            let weight = get(&format!("{name}.weight"))?.broadcast_mul(&factors.unsqueeze(1)?)?;
            Ok(Linear::new(weight, Some((get(&format!("{name}.bias"))? * factors)?)))
        };
        let block = |index: usize| -> Result<Block> {
            let name = |part: &str| format!("blocks.{index}.{part}");
            Ok(Block {
                norm1: layer_norm(&name("norm1"))?,
                qkv: linear(&name("attn.qkv"))?,
                proj: scaled(&name("attn.proj"), &name("ls1.gamma"))?,
                norm2: layer_norm(&name("norm2"))?,
                fc1: linear(&name("mlp.fc1"))?,
                fc2: scaled(&name("mlp.fc2"), &name("ls2.gamma"))?,
                heads: config.heads,
            })
        };
        let positions = get("pos_embed")?.squeeze(0)?;
        let mut class = get("cls_token")?.squeeze(0)?;
        if config.prefix_positions() > 0 {
            class = (class + positions.narrow(0, 0, 1)?)?;
        }
        let prefix = match config.registers {
            0 => class,
            _ => Tensor::cat(&[class, get("reg_token")?.squeeze(0)?], 0)?,
        };
        let of_patches = positions.narrow(0, config.prefix_positions(), config.grid * config.grid)?;
        let filters = get("patch_embed.proj.weight")?.flatten_from(1)?;
        Ok(Self {
            patches: Linear::new(filters, Some(get("patch_embed.proj.bias")?)),
            prefix,
            positions: Positions::new(&of_patches, config.grid)?,
            blocks: (0..config.depth).map(block).collect::<Result<_>>()?,
            norm: norm.then(|| layer_norm("norm")).transpose()?,
            taps,
            config,
        })
    }

    /// The maps `[1, width, H / patch, W / patch]` (channels-last in memory) of an image `[1, 3, H, W]` whose sides are multiples of
    /// the patch.
    pub(crate) fn run(&self, image: &Tensor) -> Result<Vec<Tensor>> {
        let Config { patch, width, .. } = self.config;
        let (_, _, height, columns) = image.dims4()?;
        let (rows, columns) = (height / patch, columns / patch);
        // A convolution whose windows do not overlap is a product of pixels in patches with the filters.
        let pixels = image.reshape(&[3, rows, patch, columns, patch])?.permute([1, 3, 0, 2, 4])?;
        let pixels = pixels.reshape((rows * columns, 3 * patch * patch))?;
        let patches = (self.patches.forward(&pixels)? + self.positions.resized(rows, columns)?)?;
        let mut tokens = Tensor::cat(&[&self.prefix, &patches], 0)?;
        let mut maps = vec![None; self.taps.len()];
        for (index, block) in self.blocks.iter().enumerate() {
            tokens = block.forward(&tokens)?;
            for (map, (_, norm)) in maps.iter_mut().zip(&self.taps).filter(|(_, (tapped, _))| *tapped == index) {
                let of_patches = tokens.narrow(0, self.config.prefix(), rows * columns)?.contiguous()?;
                let values = match &self.norm {
                    Some(layer_norm) if *norm => layer_norm.forward(&of_patches)?,
                    _ => of_patches,
                };
                *map = Some(values.reshape((1, rows, columns, width))?.permute((0, 3, 1, 2))?);
            }
        }
        let maps: Option<Vec<Tensor>> = maps.into_iter().collect();
        Ok(maps.ok_or_else(|| candle_core::Error::Msg("a map names no block".into()))?)
    }
}

impl Block {
    /// Tokens `[T, width]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        let head = width / self.heads;
        // [T, 3 * width] to [3, heads, T, width / heads].
        let qkv = self.qkv.forward(&self.norm1.forward(x)?)?.reshape((tokens, 3, self.heads, head))?;
        let qkv = qkv.permute((1, 2, 0, 3))?.contiguous()?;
        let (q, k, v) = (qkv.get(0)?, qkv.get(1)?, qkv.get(2)?);
        let q = (q * (1.0 / (head as f64).sqrt()))?;
        // The weights, `[T, T]`, are those of one head at a time.
        let mut mixed = Vec::with_capacity(self.heads);
        for index in 0..self.heads {
            let (q, k, v) = (q.get(index)?, k.get(index)?, v.get(index)?);
            mixed.push(softmax_last_dim(&q.matmul(&k.t()?)?)?.matmul(&v)?);
        }
        let mixed = Tensor::cat(&mixed, 1)?;
        let x = (x + self.proj.forward(&mixed)?)?;
        let hidden = self.fc1.forward(&self.norm2.forward(&x)?)?.gelu_erf()?;
        Ok((&x + self.fc2.forward(&hidden)?)?)
    }
}
