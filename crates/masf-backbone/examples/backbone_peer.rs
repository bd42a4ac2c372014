//! Our side, and stock Candle, of `benches/peers/run backbone`: runs networks on request, so that another process can alternate with it.
//!
//! Reads requests from standard input and answers each with one number:
//!
//! - `open NAME WEIGHTS STRIDES FOLDER CASE` loads a backbone of the registry, and unless FOLDER is `-` the same in bf16 and as a list of
//!   operations for Candle (`FOLDER/CASE.json`, `FOLDER/CASE.folded.safetensors`) and the image; answers with its multiply-adds;
//! - `ours BATCH`, `bf16 BATCH`, `candle`: milliseconds of one run;
//! - `save`: writes our maps of the image to `FOLDER/ours.safetensors`, and those with rounded factors to `FOLDER/bf16.safetensors`;
//! - `gemm`: GFLOP/s of a 1024 x 1024 x 1024 matrix product;
//! - `memory`: peak resident memory of this process in MB (Linux).

use candle_core::{DType, Device, Tensor, safetensors};
use masf_backbone::{Backbone, Precision};
use masf_core::FeatureExtractor;
use serde_json::Value;
use std::collections::HashMap;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

type AnyResult<T> = Result<T, Box<dyn std::error::Error>>;

const SIZE: usize = 256;

/// An open network.
struct Open {
    backbone: Backbone,
    /// The same with rounded factors.
    rounded: Option<Backbone>,
    stock: Option<Stock>,
    image: Tensor,
    folder: PathBuf,
}

impl Open {
    fn rounded(&self) -> AnyResult<&Backbone> {
        Ok(self.rounded.as_ref().ok_or("opened without a folder")?)
    }
}

/// The network as Candle's users write it: one call per operation.
struct Stock {
    ops: Vec<Value>,
    taps: Vec<usize>,
    tensors: HashMap<String, Tensor>,
}

fn main() -> AnyResult<()> {
    let mut open = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words[..] {
            ["open", name, weights, strides, folder, case] => {
                let (network, products) = load(name, weights, strides, Path::new(folder), case)?;
                open = Some(network);
                products
            }
            ["gemm"] => gemm()?,
            ["memory"] => peak_memory()?,
            _ => run(&words, open.as_ref().ok_or("nothing is open")?)?,
        };
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn load(name: &str, weights: &str, strides: &str, folder: &Path, case: &str) -> AnyResult<(Open, f64)> {
    let strides = strides.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    let builder = Backbone::builder(name)?.strides(&strides);
    let backbone = builder.clone().load(Path::new(weights))?;
    let (mut rounded, mut stock, mut products) = (None, None, 0.0);
    let mut image = Tensor::rand(0f32, 1f32, (1, 3, SIZE, SIZE), &Device::Cpu)?;
    if folder != Path::new("-") {
        let list: Value = serde_json::from_str(&std::fs::read_to_string(folder.join(format!("{case}.json")))?)?;
        let taps = list["taps"].as_array().ok_or("taps")?.iter().filter_map(Value::as_u64).map(|tap| tap as usize);
        let tensors = safetensors::load(folder.join(format!("{case}.folded.safetensors")), &Device::Cpu)?;
        let network = Stock { ops: list["ops"].as_array().ok_or("ops")?.clone(), taps: taps.collect(), tensors };
        image = safetensors::load(folder.join("image.safetensors"), &Device::Cpu)?["image"].clone();
        products = network.run(&image)?.1;
        stock = Some(network);
        rounded = Some(builder.precision(Precision::Bf16).load(Path::new(weights))?);
    }
    Ok((Open { backbone, rounded, stock, image, folder: folder.to_owned() }, products))
}

fn run(words: &[&str], open: &Open) -> AnyResult<f64> {
    let start = Instant::now();
    match words {
        [kind @ ("ours" | "bf16"), batch] => {
            let backbone = if *kind == "ours" { &open.backbone } else { open.rounded()? };
            let images = open.image.repeat((batch.parse::<usize>()?, 1, 1, 1))?;
            let start = Instant::now();
            black_box(backbone.extract(&images)?);
            return Ok(start.elapsed().as_secs_f64() * 1e3);
        }
        ["candle"] => {
            black_box(open.stock.as_ref().ok_or("opened without a folder")?.run(&open.image)?);
        }
        ["save"] => {
            for (backbone, file) in [(&open.backbone, "ours.safetensors"), (open.rounded()?, "bf16.safetensors")] {
                let maps = backbone.extract(&open.image)?;
                let levels = maps.levels().iter().enumerate();
                let named = levels.map(|(i, level)| Ok((i.to_string(), level.map.contiguous()?)));
                let named: HashMap<String, Tensor> = named.collect::<candle_core::Result<_>>()?;
                safetensors::save(&named, open.folder.join(file))?;
            }
        }
        _ => return Err(format!("unknown request {words:?}").into()),
    }
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

impl Stock {
    /// The maps, and the multiply-adds of the convolutions.
    fn run(&self, image: &Tensor) -> AnyResult<(Vec<Tensor>, f64)> {
        let (mut values, mut products) = (vec![image.clone()], 0.0);
        for op in &self.ops {
            let number = |key: &str| op[key].as_u64().map(|n| n as usize).ok_or_else(|| format!("{key} of {op}"));
            let tensor = |key: &str| op[key].as_str().and_then(|name| self.tensors.get(name));
            let channelwise = |x: &Tensor| x.reshape((1, (), 1, 1));
            let x = &values[number("input")?];
            let mut y = match op["op"].as_str() {
                // The values are not negative, so that zeros do for padding.
                Some("pool") => x.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?.max_pool2d_with_stride(3, 2)?,
                Some("affine") => {
                    let (scale, shift) = (tensor("scale").ok_or("scale")?, tensor("shift").ok_or("shift")?);
                    x.broadcast_mul(&channelwise(scale)?)?.broadcast_add(&channelwise(shift)?)?
                }
                _ => {
                    let weight = tensor("weight").ok_or("weight")?;
                    let y = x.conv2d(weight, number("pad")?, number("stride")?, 1, number("groups")?)?;
                    let (_, per_group, kernel, _) = weight.dims4()?;
                    products += (y.elem_count() * per_group * kernel * kernel) as f64;
                    match tensor("bias") {
                        Some(bias) => y.broadcast_add(&channelwise(bias)?)?,
                        None => y,
                    }
                }
            };
            if let Some(residual) = op.get("residual").and_then(Value::as_u64) {
                y = (y + &values[residual as usize])?;
            }
            values.push(match op["act"].as_str() {
                Some("relu") => y.relu()?,
                Some("relu6") => y.clamp(0f32, 6f32)?,
                _ => y,
            });
        }
        Ok((self.taps.iter().map(|&tap| values[tap].clone()).collect(), products))
    }
}

/// The best of ten, in GFLOP/s.
fn gemm() -> AnyResult<f64> {
    let a = Tensor::ones((1024, 1024), DType::F32, &Device::Cpu)?;
    let mut least = f64::INFINITY;
    for _ in 0..10 {
        let start = Instant::now();
        black_box(a.matmul(&a)?);
        least = least.min(start.elapsed().as_secs_f64());
    }
    Ok(2.0 * 1024f64.powi(3) / least / 1e9)
}

fn peak_memory() -> AnyResult<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
}
