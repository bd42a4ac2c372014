//! The one place that chooses how a graph is run: the engine on the CPU, Candle elsewhere.

use candle_core::{Device, Storage, Tensor};

use crate::engine::Engine;
use crate::graph::Graph;
use crate::{Result, candle};

#[derive(Debug)]
pub(super) enum Executor {
    Engine(Engine),
    Candle(Graph),
}

impl Executor {
    /// Prepares a graph whose weights are on `device`.
    pub(super) fn new(graph: Graph, device: &Device) -> Result<Self> {
        Ok(if device.is_cpu() { Self::Engine(Engine::new(&graph)?) } else { Self::Candle(graph) })
    }

    /// The taps' maps `[B, C, h, w]` of images `[B, 3, H, W]`; each image's are the same bits in any batch.
    pub(super) fn run(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        match self {
            Self::Engine(engine) => run_engine(engine, images),
            Self::Candle(graph) => run_candle(graph, images),
        }
    }
}

/// The maps lie channels-last in memory.
fn run_engine(engine: &Engine, images: &Tensor) -> Result<Vec<Tensor>> {
    let (batch, _, height, width) = images.dims4()?;
    let images = images.contiguous()?;
    let (storage, layout) = images.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Err(candle_core::Error::Msg("the images are not in host memory".into()).into());
    };
    let (start, end) = layout.contiguous_offsets().unwrap_or_default();
    let pixels = storage.as_slice::<f32>()?.get(start..end).unwrap_or_default();
    let maps = engine.run(pixels, batch, height, width)?;
    let tensor = |map: crate::engine::TapMap| {
        let shape = (batch, map.height, map.width, map.channels);
        Tensor::from_vec(map.data, shape, &Device::Cpu)?.permute((0, 3, 1, 2))
    };
    Ok(maps.into_iter().map(tensor).collect::<Result<_, _>>()?)
}

/// One image at a time: libraries may choose another algorithm for another batch size.
fn run_candle(graph: &Graph, images: &Tensor) -> Result<Vec<Tensor>> {
    let mut maps: Vec<Vec<Tensor>> = vec![Vec::new(); graph.taps.len()];
    for image in 0..images.dim(0)? {
        let of_image = candle::run(graph, &images.narrow(0, image, 1)?)?;
        maps.iter_mut().zip(of_image).for_each(|(maps, map)| maps.push(map));
    }
    maps.iter().map(|maps| Ok(Tensor::cat(maps, 0)?)).collect()
}
