//! The one place that chooses how a network is run: convolutional ones on the engine on the CPU and on Candle elsewhere,
//! transformers on Candle.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Device, Tensor};
use masf_core::with_values;

use crate::engine::{Engine, Precision};
use crate::graph::Graph;
use crate::networks::Network;
use crate::weights::Weights;
use crate::{Result, candle};

#[derive(Debug)]
pub(super) enum Executor {
    Engine(Engine),
    Candle(Graph),
    #[cfg(feature = "vit")]
    Transformer(crate::vit::Transformer),
}

/// The executor of a network, which can be freed and made again.
#[derive(Debug)]
pub(super) struct Prepared {
    network: Network,
    executor: Mutex<Option<Arc<Executor>>>,
}

impl Prepared {
    /// Prepares a network with weights that have been checked; [`get`](Self::get) is to be asked with the same ones.
    pub(super) fn new(network: Network, weights: &Weights, device: &Device, precision: Precision) -> Result<Self> {
        let executor = Executor::new(&network, weights, device, precision)?;
        Ok(Self { network, executor: Mutex::new(Some(Arc::new(executor))) })
    }

    /// The executor, made again if it was freed.
    pub(super) fn get(&self, weights: &Weights, device: &Device, precision: Precision) -> Result<Arc<Executor>> {
        let lock = || self.executor.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(executor) = &*lock() {
            return Ok(executor.clone());
        }
        // Without the lock: a thread that waits for parts may take up another extraction, which needs the lock, too. So several threads
        // may make one each at first; one of them is kept.
        let executor = Arc::new(Executor::new(&self.network, weights, device, precision)?);
        Ok(lock().get_or_insert(executor).clone())
    }

    /// Frees the executor once no thread uses it; one that is being made meanwhile is kept.
    pub(super) fn release(&self) {
        *self.executor.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Executor {
    /// Prepares a network with weights that have been checked.
    pub(super) fn new(network: &Network, weights: &Weights, device: &Device, precision: Precision) -> Result<Self> {
        match network {
            Network::Convolutional(blueprint) => {
                Self::of_graph(blueprint.assemble(weights, device)?, device, precision)
            }
            #[cfg(feature = "vit")]
            Network::Transformer(blueprint) => Ok(Self::Transformer(blueprint.assemble(weights, device)?)),
        }
    }

    /// Prepares a graph whose weights are on `device`; the precision is the engine's.
    pub(super) fn of_graph(graph: Graph, device: &Device, precision: Precision) -> Result<Self> {
        let engine = |graph| Engine::with_precision(graph, precision);
        Ok(if device.is_cpu() { Self::Engine(engine(&graph)?) } else { Self::Candle(graph) })
    }

    /// The taps' maps `[B, C, h, w]` of images `[B, 3, H, W]`; each image's are the same bits in any batch.
    pub(super) fn run(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        match self {
            Self::Engine(engine) => run_engine(engine, images),
            Self::Candle(graph) => one_by_one(images, |image| candle::run(graph, image)),
            #[cfg(feature = "vit")]
            Self::Transformer(transformer) => one_by_one(images, |image| transformer.run(image)),
        }
    }
}

/// The maps lie channels-last in memory.
fn run_engine(engine: &Engine, images: &Tensor) -> Result<Vec<Tensor>> {
    let (batch, _, height, width) = images.dims4()?;
    let maps = with_values(images, |pixels| engine.run(pixels, batch, height, width))??;
    let tensor = |map: crate::engine::TapMap| {
        let shape = (batch, map.height, map.width, map.channels);
        Tensor::from_vec(map.data, shape, &Device::Cpu)?.permute((0, 3, 1, 2))
    };
    Ok(maps.into_iter().map(tensor).collect::<Result<_, _>>()?)
}

/// One image `[1, 3, H, W]` at a time: libraries may choose another algorithm for another batch size.
fn one_by_one(images: &Tensor, run: impl Fn(&Tensor) -> Result<Vec<Tensor>>) -> Result<Vec<Tensor>> {
    let mut maps: Vec<Vec<Tensor>> = Vec::new();
    for image in 0..images.dim(0)? {
        for (index, map) in run(&images.narrow(0, image, 1)?)?.into_iter().enumerate() {
            match maps.get_mut(index) {
                Some(maps) => maps.push(map),
                None => maps.push(vec![map]),
            }
        }
    }
    let join = |maps: &Vec<Tensor>| match maps.as_slice() {
        [map] => Ok(map.clone()),
        maps => Ok(Tensor::cat(maps, 0)?),
    };
    maps.iter().map(join).collect()
}
