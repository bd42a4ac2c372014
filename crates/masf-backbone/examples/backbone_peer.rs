//! Our side of `benches/peers/run backbone`: runs networks on request, so that another process can alternate with it.
//!
//! Reads requests from standard input and answers each with one number:
//!
//! - `open NAME WEIGHTS STRIDES FOLDER` loads a backbone of the registry, and unless FOLDER is `-` the same in bf16 and `FOLDER/image.safetensors`;
//! - `ours BATCH`, `bf16 BATCH`: milliseconds of one run;
//! - `save`: writes our maps of the image to `FOLDER/ours.safetensors`, and those with rounded factors to `FOLDER/bf16.safetensors`;
//! - `gemm`: GFLOP/s of a 1024 x 1024 x 1024 matrix product;
//! - `memory`: peak resident memory of this process in MB (Linux).

use candle_core::{DType, Device, Tensor, safetensors};
use masf_backbone::{Backbone, Precision};
use masf_core::FeatureExtractor;
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
    image: Tensor,
    folder: PathBuf,
}

impl Open {
    fn rounded(&self) -> AnyResult<&Backbone> {
        Ok(self.rounded.as_ref().ok_or("opened without a folder")?)
    }
}

fn main() -> AnyResult<()> {
    let mut open = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words[..] {
            ["open", name, weights, strides, folder] => {
                open = Some(load(name, weights, strides, Path::new(folder))?);
                0.0
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

fn load(name: &str, weights: &str, strides: &str, folder: &Path) -> AnyResult<Open> {
    let strides = strides.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    let builder = Backbone::builder(name)?.strides(&strides);
    let backbone = builder.clone().load(Path::new(weights))?;
    let (mut rounded, mut image) = (None, Tensor::rand(0f32, 1f32, (1, 3, SIZE, SIZE), &Device::Cpu)?);
    if folder != Path::new("-") {
        image = safetensors::load(folder.join("image.safetensors"), &Device::Cpu)?["image"].clone();
        rounded = Some(builder.precision(Precision::Bf16).load(Path::new(weights))?);
    }
    Ok(Open { backbone, rounded, image, folder: folder.to_owned() })
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
