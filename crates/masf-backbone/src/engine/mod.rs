//! Inference on the CPU: runs a [`Graph`] at the speed of matrix products.
//!
//! Candle's CPU convolutions unfold images into matrices and reach about a tenth of what the processor can do; its
//! depthwise convolution far less. A frozen backbone needs no gradients, so this engine compiles it once:
//!
//! - `pack`: weights are packed for the vector width at hand, once per network;
//! - `plan`: per image size, values get places in one arena, channels-last and with a zero halo;
//! - `kernels`: convolution reads its windows in place and finishes bias, residual and activation in registers;
//! - `region`: all layers run in one parallel region.
//!
//! Every output is computed by the same chain of operations however the work is cut, so the numbers are the same bits for
//! any batch size and any number of threads. They may differ in the last bits between instruction sets.

mod error;
mod execute;
mod kernels;
mod layout;
mod memory;
mod pack;
mod plan;
mod precision;
mod region;

pub use error::EngineError;
pub use precision::Precision;

use crate::graph::Graph;
use kernels::InstructionSet;
use memory::Aligned;
use pack::PackedGraph;
use plan::Plan;
use rayon::prelude::*;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Plans that are kept, most recently used last; views and tiles of one data set share a few sizes.
const KEPT_PLANS: usize = 4;

/// A tap's values for a batch of images.
#[derive(Debug, Clone)]
pub struct TapMap {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels.
    pub channels: usize,
    /// `[B, height, width, channels]`.
    pub data: Vec<f32>,
}

/// A network compiled for this processor.
#[derive(Debug)]
pub struct Engine {
    graph: PackedGraph,
    sized: Mutex<Vec<Arc<SizedPlan>>>,
}

/// A plan and the arenas of its finished runs.
#[derive(Debug)]
struct SizedPlan {
    size: (usize, usize),
    plan: Plan,
    arenas: Mutex<Vec<Aligned>>,
}

/// The lock, whatever happened to another holder: the guarded lists are valid at every point.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// Checks the graph and packs its weights.
    ///
    /// # Errors
    ///
    /// [`EngineError::Graph`] if an operation does not fit its inputs, [`EngineError::Weights`] if a tensor is not `f32` or
    /// cannot be read.
    pub fn new(graph: &Graph) -> Result<Self, EngineError> {
        Self::with_precision(graph, Precision::F32)
    }

    /// As [`new`](Self::new), with another precision.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_precision(graph: &Graph, precision: Precision) -> Result<Self, EngineError> {
        Self::with_instructions(graph, InstructionSet::best(), precision)
    }

    fn with_instructions(graph: &Graph, set: InstructionSet, precision: Precision) -> Result<Self, EngineError> {
        Ok(Self { graph: PackedGraph::new(graph, set, precision)?, sized: Mutex::default() })
    }

    /// Computes the taps of `batch` images `[B, 3, height, width]` on the threads of the current rayon pool.
    ///
    /// # Errors
    ///
    /// [`EngineError::ImageData`] if `images` has another length, [`EngineError::ImageSize`] if the network cannot take
    /// the size.
    pub fn run(&self, images: &[f32], batch: usize, height: usize, width: usize) -> Result<Vec<TapMap>, EngineError> {
        let sized = self.sized(height, width)?;
        let plane = 3 * height * width;
        if images.len() != batch.saturating_mul(plane) {
            return Err(EngineError::ImageData { len: images.len(), batch, height, width });
        }
        let mut maps: Vec<TapMap> = sized
            .plan
            .taps
            .iter()
            .map(|&[height, width, channels]| TapMap {
                height,
                width,
                channels,
                data: vec![0.0; batch * height * width * channels],
            })
            .collect();
        // One list of tap slices per image.
        let mut outputs: Vec<Vec<&mut [f32]>> = (0..batch).map(|_| Vec::with_capacity(maps.len())).collect();
        for map in &mut maps {
            let len = map.height * map.width * map.channels;
            for (image, slice) in outputs.iter_mut().zip(map.data.chunks_exact_mut(len)) {
                image.push(slice);
            }
        }
        let mut jobs: Vec<_> = images.chunks_exact(plane).zip(outputs).collect();
        // Whole images per thread need no barriers; what does not fill all threads is shared layer by layer.
        let threads = rayon::current_num_threads();
        let left = if threads > 1 { jobs.split_off(batch - batch % threads) } else { Vec::new() };
        jobs.into_par_iter()
            .with_max_len(1)
            .for_each(|(image, mut taps)| self.run_one(&sized, image, &mut taps, false));
        left.into_iter().for_each(|(image, mut taps)| self.run_one(&sized, image, &mut taps, true));
        Ok(maps)
    }

    /// Multiply-adds of one image.
    ///
    /// # Errors
    ///
    /// [`EngineError::ImageSize`] if the network cannot take the size.
    pub fn multiply_adds(&self, height: usize, width: usize) -> Result<u64, EngineError> {
        Ok(self.sized(height, width)?.plan.multiply_adds)
    }

    fn run_one(&self, sized: &SizedPlan, image: &[f32], taps: &mut [&mut [f32]], shared: bool) {
        let arena = lock(&sized.arenas).pop();
        let mut arena = arena.unwrap_or_else(|| Aligned::zeros(sized.plan.arena));
        execute::run(&self.graph, &sized.plan, image, &mut arena, taps, shared);
        lock(&sized.arenas).push(arena);
    }

    /// The plan for a size, compiled on first use.
    fn sized(&self, height: usize, width: usize) -> Result<Arc<SizedPlan>, EngineError> {
        let size = (height, width);
        let mut kept = lock(&self.sized);
        let found = match kept.iter().position(|sized| sized.size == size) {
            Some(index) => kept.remove(index),
            None => {
                let plan = Plan::new(&self.graph, height, width)?;
                Arc::new(SizedPlan { size, plan, arenas: Mutex::default() })
            }
        };
        if kept.len() == KEPT_PLANS {
            kept.remove(0);
        }
        kept.push(Arc::clone(&found));
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
