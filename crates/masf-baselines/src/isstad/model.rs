//! The learned autoencoder, and the score.

use candle_core::{DType, Device, Tensor};
use masf_core::{Artifact, ArtifactReader, ArtifactWriter, FeaturePyramid, Scorer, Scores};

use super::network::Network;
use super::params::IsstadParams;
use super::patches::Patches;
use crate::training::transformer::check_one_image;
use crate::training::{self, Parameters, Settings, features, grid};

/// A learned ISSTAD model.
///
/// One map named `isstad` on the grid of the finest level, `[B, h, w]`: the mean square of what a position's normalised features differ from
/// the restored ones, times 1 + its probability to be defective, which is in `[0, 1]`.
pub struct Isstad {
    params: IsstadParams,
    patches: Patches,
    parameters: Vec<(String, Tensor)>,
    network: Network,
}

impl std::fmt::Debug for Isstad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Isstad")
            .field("params", &self.params)
            .field("levels", &self.patches.levels())
            .finish_non_exhaustive()
    }
}

impl Isstad {
    /// The type tag in model files.
    pub const TAG: &'static str = "masf.isstad";
    /// The name of the score map.
    pub const MAP: &'static str = "isstad";

    pub(super) fn new(
        params: IsstadParams,
        patches: Patches,
        parameters: Vec<(String, Tensor)>,
    ) -> masf_core::Result<Self> {
        let mut taken = Parameters::of(parameters.iter().cloned());
        let network = Network::new(&params, patches.grid(), (patches.channels(), patches.cell()), &mut taken)?;
        Ok(Self { params, patches, parameters, network })
    }

    /// The map of one image, `[1, h, w]`.
    fn map(&self, image: &FeaturePyramid) -> masf_core::Result<Tensor> {
        let tokens = self.patches.join(&features(self.patches.levels(), image)?)?;
        let decoded = self.network.decode(&tokens)?;
        let mut probability = Tensor::zeros((1, tokens.dim(1)?, self.patches.cell()), DType::F32, &Device::Cpu)?;
        for logits in &decoded.logits {
            let defective = (logits.neg()?.exp()? + 1.0)?.recip()?;
            probability = (probability + (defective / decoded.logits.len() as f64)?)?;
        }
        let difference = self.patches.mean_squares(&(decoded.restored - tokens)?)?;
        let probability = self.patches.map(&probability)?;
        Ok(((probability + 1.0)? * difference)?)
    }
}

impl Scorer for Isstad {
    fn score(&self, pyramid: &FeaturePyramid) -> masf_core::Result<Scores> {
        training::image_by_image(Self::MAP, self.patches.finest(), pyramid, |image| self.map(image))
    }
}

impl Artifact for Isstad {
    fn tag(&self) -> &'static str {
        Self::TAG
    }

    fn write(&self, writer: &mut ArtifactWriter) -> masf_core::Result<()> {
        writer.section(&Settings { params: self.params.clone(), levels: self.patches.levels().to_vec() })?;
        training::write_deviations(writer, self.patches.deviations())?;
        training::write(writer, &self.parameters)
    }

    fn read(reader: &ArtifactReader<'_>) -> masf_core::Result<Self> {
        let Settings::<IsstadParams> { params, levels } = reader.section()?;
        let checked = params.checked().and_then(|()| training::check_levels(&levels));
        let checked = checked.and_then(|()| check_one_image(grid(levels.last()), params.heads));
        checked.map_err(|error| reader.invalid(error.to_string()))?;
        let deviations = training::read_deviations(reader, levels.len())?;
        let patches = Patches::new(levels, deviations)?;
        let mut parameters = Parameters::file(reader);
        Network::new(&params, patches.grid(), (patches.channels(), patches.cell()), &mut parameters)?;
        Self::new(params, patches, parameters.frozen()?)
    }
}
