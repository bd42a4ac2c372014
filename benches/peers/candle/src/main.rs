//! Runs networks with stock Candle, one call per operation, as asked for on standard input, line by line:
//!
//! - `open FOLDER CASE`: loads `CASE.json` (operations), `CASE.folded.safetensors` and `image.safetensors`, and answers with the
//!   multiply-adds of the convolutions;
//! - `candle`: milliseconds of one run.

use std::collections::HashMap;
use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use candle_core::{Device, Tensor, safetensors};
use serde_json::Value;

type AnyResult<T> = Result<T, Box<dyn Error>>;

struct Network {
    ops: Vec<Value>,
    taps: Vec<usize>,
    tensors: HashMap<String, Tensor>,
    image: Tensor,
}

fn main() -> AnyResult<()> {
    let mut open = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let answer = match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["open", folder, case] => open.insert(Network::load(Path::new(folder), case)?).run()?.1,
            ["candle"] => {
                let network = open.as_ref().ok_or("nothing is open")?;
                let start = Instant::now();
                black_box(network.run()?);
                start.elapsed().as_secs_f64() * 1e3
            }
            _ => return Err(format!("unknown request {line:?}").into()),
        };
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

impl Network {
    fn load(folder: &Path, case: &str) -> AnyResult<Self> {
        let list: Value = serde_json::from_str(&std::fs::read_to_string(folder.join(format!("{case}.json")))?)?;
        let taps = list["taps"].as_array().ok_or("taps")?.iter().filter_map(Value::as_u64).map(|tap| tap as usize);
        let tensors = safetensors::load(folder.join(format!("{case}.folded.safetensors")), &Device::Cpu)?;
        let image = safetensors::load(folder.join("image.safetensors"), &Device::Cpu)?["image"].clone();
        Ok(Self { ops: list["ops"].as_array().ok_or("ops")?.clone(), taps: taps.collect(), tensors, image })
    }

    /// The maps, and the multiply-adds of the convolutions.
    fn run(&self) -> AnyResult<(Vec<Tensor>, f64)> {
        let (mut values, mut products) = (vec![self.image.clone()], 0.0);
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
