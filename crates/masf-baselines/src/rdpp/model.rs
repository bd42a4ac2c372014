//! The learned network, and the score.

use candle_core::{DType, Device, Tensor};
use masf_core::resample::bilinear;
use masf_core::{Artifact, ArtifactReader, ArtifactWriter, FeaturePyramid, Scorer, Scores};

use super::network::Network;
use super::params::RdppParams;
use crate::training::fused::cosine;
use crate::training::{self, Level, Parameters, Settings, features};

/// A learned RD++ model.
///
/// One map named `rdpp` on the grid of the finest level, `[B, h, w]`: the sum over the levels of `1 - cos` of the features and the
/// restored ones, each in `[0, 2]`.
pub struct Rdpp {
    params: RdppParams,
    levels: Vec<Level>,
    parameters: Vec<(String, Tensor)>,
    network: Network,
}

impl std::fmt::Debug for Rdpp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rdpp").field("params", &self.params).field("levels", &self.levels).finish_non_exhaustive()
    }
}

impl Rdpp {
    /// The type tag in model files.
    pub const TAG: &'static str = "masf.rdpp";
    /// The name of the score map.
    pub const MAP: &'static str = "rdpp";

    pub(super) fn new(
        params: RdppParams,
        levels: Vec<Level>,
        parameters: Vec<(String, Tensor)>,
    ) -> masf_core::Result<Self> {
        let network = Network::new(&params, &levels, &mut Parameters::of(parameters.iter().cloned()))?;
        Ok(Self { params, levels, parameters, network })
    }

    /// The number of learned values.
    pub fn parameter_count(&self) -> usize {
        self.parameters.iter().map(|(_, tensor)| tensor.elem_count()).sum()
    }

    /// The map of one image, `[1, h, w]`.
    fn map(&self, image: &FeaturePyramid) -> masf_core::Result<Tensor> {
        let features = features(&self.levels, image)?;
        let project = |(index, x)| self.network.project(index, x);
        let projected = features.iter().enumerate().map(project).collect::<candle_core::Result<Vec<_>>>()?;
        let size = training::grid(self.levels.first());
        let mut sum = Tensor::zeros((1, size.0, size.1), DType::F32, &Device::Cpu)?;
        let restored = self.network.restore(&projected)?;
        for ((features, restored), (_, height, width)) in features.iter().zip(&restored).zip(&self.levels) {
            let distance = cosine(features, restored)?.affine(-1.0, 1.0)?.reshape((1, *height, *width))?;
            sum = (sum + bilinear(&distance, size)?)?;
        }
        Ok(sum)
    }
}

impl Scorer for Rdpp {
    fn score(&self, pyramid: &FeaturePyramid) -> masf_core::Result<Scores> {
        training::image_by_image(Self::MAP, training::grid(self.levels.first()), pyramid, |image| self.map(image))
    }
}

impl Artifact for Rdpp {
    fn tag(&self) -> &'static str {
        Self::TAG
    }

    fn write(&self, writer: &mut ArtifactWriter) -> masf_core::Result<()> {
        writer.section(&Settings { params: self.params.clone(), levels: self.levels.clone() })?;
        training::write(writer, &self.parameters)
    }

    fn read(reader: &ArtifactReader<'_>) -> masf_core::Result<Self> {
        let Settings::<RdppParams> { params, levels } = reader.section()?;
        let checked = params.checked().and_then(|()| training::check_levels(&levels));
        checked.map_err(|error| reader.invalid(error.to_string()))?;
        let mut parameters = Parameters::file(reader);
        Network::new(&params, &levels, &mut parameters)?;
        Self::new(params, levels, parameters.frozen()?)
    }
}
