//! Our side of `benches/peers/run distill`: learns a student from feature maps in a file and writes its score maps.
//!
//! ```text
//! distill_peer TRAIN.safetensors TEST.safetensors MAPS.safetensors
//! ```
//!
//! Both inputs hold `maps8 [N, C, h, w]`, `maps16` and so on, as the example `descriptors --maps` writes them. The output holds
//! `train.NAME` and `test.NAME`, `[N, h, w]`. Prints the seconds that learning took.

use std::error::Error;
use std::time::Instant;

use candle_core::{DType, Device, Tensor, safetensors};
use masf_core::{FeatureLevel, FeaturePyramid, Fit, LevelSpec, PyramidSource, Result, Scorer, Silent};
use masf_distill::StudentParams;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Feature maps `[N, C, h, w]` by their strides.
struct Maps(Vec<(usize, Tensor)>);

impl Maps {
    fn read(path: &str) -> std::result::Result<Self, Box<dyn Error>> {
        let mut maps = Vec::new();
        for (name, tensor) in safetensors::load(path, &Device::Cpu)? {
            if let Some(stride) = name.strip_prefix("maps") {
                maps.push((stride.parse()?, tensor));
            }
        }
        maps.sort_by_key(|(stride, _)| *stride);
        Ok(Self(maps))
    }
}

impl PyramidSource for Maps {
    fn len(&self) -> usize {
        self.0.first().map_or(0, |(_, maps)| maps.dims()[0])
    }

    fn batch(&self, indices: &[usize]) -> Result<FeaturePyramid> {
        let (first, maps) = &self.0[0];
        let size = (maps.dims()[2] * first, maps.dims()[3] * first);
        let indices = Tensor::from_iter(indices.iter().map(|index| *index as u32), &Device::Cpu)?;
        let level = |(stride, maps): &(usize, Tensor)| {
            let spec = LevelSpec { stride: *stride, channels: maps.dims()[1] };
            Ok(FeatureLevel { spec, map: maps.index_select(&indices, 0)?.to_dtype(DType::F32)? })
        };
        FeaturePyramid::new(self.0.iter().map(level).collect::<Result<_>>()?, size)
    }
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [train, test, out] = arguments.as_slice() else { return Err("distill_peer TRAIN TEST MAPS".into()) };
    let train = Maps::read(train)?;
    let start = Instant::now();
    let student = StudentParams::default().check()?.fit(&train, &Silent)?;
    println!("{:.1}", start.elapsed().as_secs_f64());
    let mut maps = std::collections::HashMap::new();
    for (part, images) in [("train", &train), ("test", &Maps::read(test)?)] {
        let scores = (0..images.len()).map(|index| student.score(&images.batch(&[index])?));
        let scores = scores.collect::<Result<Vec<_>>>()?;
        for (index, map) in scores[0].maps.iter().enumerate() {
            let values: Vec<&Tensor> = scores.iter().map(|scores| &scores.maps[index].values).collect();
            maps.insert(format!("{part}.{}", map.name), Tensor::cat(&values, 0)?);
        }
    }
    safetensors::save(&maps, out)?;
    Ok(())
}
