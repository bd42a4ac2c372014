//! The fitted student: score maps of a pyramid, and its place in a model file.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use masf_core::{Artifact, ArtifactReader, ArtifactWriter, FeaturePyramid, ScoreMap, Scorer, Scores, in_pool};

use crate::features::{Batch, ChannelStatistics, with_map};
use crate::grid::Grid;
use crate::network::{Network, parameters};
use crate::ops::{self, Mode, PackedLinear};
use crate::smooth::smooth;
use crate::{Result, StudentParams, Targets};

/// A student that restores the features of normal images, learned by [`MaskedStudentFit`](crate::MaskedStudentFit).
///
/// As a [`Scorer`] it gives one map per level and kind of target on that level's grid, of the restored features of a position and the backbone's:
///
/// - `student.STRIDE.raw`: `1 - cos`, in `[0, 2]`;
/// - `student.STRIDE.standardised`: `1 - cos` of standardised features, times the square root of the root mean square of the raw ones, 0 or more.
pub struct MaskedStudent {
    params: StudentParams,
    grid: Grid,
    statistics: Vec<Arc<ChannelStatistics>>,
    tensors: Vec<Tensor>,
    network: Network,
    embedding: PackedLinear,
    heads: Vec<PackedLinear>,
}

impl std::fmt::Debug for MaskedStudent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MaskedStudent").field("params", &self.params).field("grid", &self.grid).finish_non_exhaustive()
    }
}

impl MaskedStudent {
    /// The type tag in model files.
    pub const TAG: &'static str = "masf.masked-student";

    pub(crate) fn new(
        params: StudentParams,
        grid: Grid,
        statistics: Vec<Arc<ChannelStatistics>>,
        tensors: Vec<Tensor>,
    ) -> Result<Self> {
        let network = Network::new(&params, &grid, &tensors)?;
        let heads = network.levels.iter().map(PackedLinear::new).collect::<candle_core::Result<_>>()?;
        let embedding = PackedLinear::new(network.embedding())?;
        let network = network.packed()?;
        Ok(Self { params, grid, statistics, tensors, network, embedding, heads })
    }

    /// The hyper-parameters it was learned with.
    pub fn params(&self) -> &StudentParams {
        &self.params
    }

    /// The number of learned values.
    pub fn parameter_count(&self) -> usize {
        self.tensors.iter().map(Tensor::elem_count).sum()
    }

    /// The distances of one image, raw and standardised, per level and position `[h w]`.
    fn distances(&self, image: &FeaturePyramid) -> Result<Vec<[Vec<f32>; 2]>> {
        let tokens = Batch::tokens(image, &self.grid, &self.statistics)?;
        let x = self.network.body(&self.embedding.apply(&tokens)?, None, Mode::Inference)?;
        let mut all = Vec::with_capacity(self.grid.levels.len());
        for (index, level) in self.grid.levels.iter().enumerate() {
            let positions = self.grid.positions(level);
            let found = ops::with_slice(&x, |x| {
                with_map(image, index, |map| self.heads[index].distances(x, map, &positions, &self.statistics[index]))
                    .map_err(candle_core::Error::wrap)?
            })?;
            let mut maps = [(); 2].map(|()| vec![0f32; level.height * level.width]);
            for (position, distances) in positions.into_iter().zip(found) {
                let Some(position) = position else { continue };
                for (map, distance) in maps.iter_mut().zip(distances) {
                    map[position] = distance;
                }
            }
            all.push(maps);
        }
        Ok(all)
    }
}

impl Scorer for MaskedStudent {
    fn score(&self, pyramid: &FeaturePyramid) -> masf_core::Result<Scores> {
        in_pool(|| self.scores(pyramid))
    }
}

impl MaskedStudent {
    fn scores(&self, pyramid: &FeaturePyramid) -> masf_core::Result<Scores> {
        self.grid.expect(pyramid)?;
        let mut values = vec![[(); 2].map(|()| Vec::new()); self.grid.levels.len()];
        // Image by image: the rounding of a matrix product may depend on how many rows it has.
        for index in 0..pyramid.batch_size() {
            let image = smooth(pyramid.image(index)?, self.params.neighbourhood)?;
            for (values, distances) in values.iter_mut().zip(self.distances(&image)?) {
                for (values, distances) in values.iter_mut().zip(distances) {
                    values.extend(distances);
                }
            }
        }
        let kinds: &[(usize, &str)] = match self.params.targets {
            Targets::Raw => &[(0, "raw")],
            Targets::Standardised => &[(1, "standardised")],
            Targets::Both => &[(0, "raw"), (1, "standardised")],
        };
        let mut maps = Vec::new();
        for ((values, level), of_level) in values.into_iter().zip(&self.grid.levels).zip(self.grid.names()) {
            for (kind, name) in kinds {
                let shape = (pyramid.batch_size(), level.height, level.width);
                let values = Tensor::from_slice(&values[*kind], shape, &Device::Cpu)?;
                maps.push(ScoreMap { name: format!("student.{of_level}.{name}"), values });
            }
        }
        Ok(Scores { maps, image: None })
    }
}

/// What a model file says of a student beside its tensors.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    params: StudentParams,
    grid: Grid,
}

impl Artifact for MaskedStudent {
    fn tag(&self) -> &'static str {
        Self::TAG
    }

    fn write(&self, writer: &mut ArtifactWriter) -> masf_core::Result<()> {
        writer.section(&Settings { params: self.params.clone(), grid: self.grid.clone() })?;
        for (name, statistics) in self.grid.names().iter().zip(&self.statistics) {
            let vector = |values: &[f32]| Tensor::from_slice(values, values.len(), &Device::Cpu);
            writer.tensor(&format!("mean{name}"), &vector(&statistics.mean)?)?;
            writer.tensor(&format!("deviation{name}"), &vector(&statistics.deviation)?)?;
        }
        for (spec, tensor) in parameters(&self.params, &self.grid).iter().zip(&self.tensors) {
            writer.tensor(&spec.name, tensor)?;
        }
        Ok(())
    }

    fn read(reader: &ArtifactReader<'_>) -> masf_core::Result<Self> {
        let Settings { params, grid } = reader.section()?;
        params.checked().map_err(|error| reader.invalid(error.to_string()))?;
        grid.check().map_err(|problem| reader.invalid(problem))?;
        let mut statistics = Vec::with_capacity(grid.levels.len());
        for (of_level, level) in grid.names().iter().zip(&grid.levels) {
            let vector = |name: &str| -> masf_core::Result<Vec<f32>> {
                let name = format!("{name}{of_level}");
                Ok(reader.tensor(&name, DType::F32, &[Some(level.spec.channels)])?.to_vec1::<f32>()?)
            };
            let read = ChannelStatistics { mean: vector("mean")?, deviation: vector("deviation")? };
            if read.deviation.iter().any(|deviation| *deviation <= 0.0) {
                return Err(reader.invalid("a deviation is not positive"));
            }
            statistics.push(Arc::new(read));
        }
        let read = |spec: &crate::network::ParameterSpec| {
            let shape: Vec<_> = spec.shape.iter().map(|length| Some(*length)).collect();
            reader.tensor(&spec.name, DType::F32, &shape)
        };
        let tensors = parameters(&params, &grid).iter().map(read).collect::<masf_core::Result<Vec<_>>>()?;
        Ok(Self::new(params, grid, statistics, tensors)?)
    }
}
