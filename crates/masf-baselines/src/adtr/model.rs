//! The learned transformer, and the score.

use candle_core::{D, Tensor};
use masf_core::{Artifact, ArtifactReader, ArtifactWriter, FeaturePyramid, Scorer, Scores};

use super::network::Network;
use super::params::AdtrParams;
use crate::training::tokens::{Grid, Resampling, cell_means, map_positions};
use crate::training::transformer::check_one_image;
use crate::training::{self, Level, Parameters, Settings, features, grid};

/// Pyramids as the transformer takes them.
pub(super) struct Tokens {
    levels: Vec<Level>,
    /// The deviation of every level's features, which they are divided by.
    deviations: Vec<f32>,
    /// Means over the cells of the coarsest grid, for every level.
    cells: Vec<Resampling>,
}

impl Tokens {
    pub(super) fn new(levels: Vec<Level>, deviations: Vec<f32>) -> Self {
        let coarsest = grid(levels.last());
        let cells = levels.iter().map(|(_, height, width)| cell_means((*height, *width), coarsest)).collect();
        Self { levels, deviations, cells }
    }

    /// `(height, width)` of the grid.
    pub(super) fn grid(&self) -> Grid {
        grid(self.levels.last())
    }

    /// Tokens and channels of an image.
    pub(super) fn shape(&self) -> (usize, usize) {
        let (height, width) = self.grid();
        (height * width, self.levels.iter().map(|(spec, ..)| spec.channels).sum())
    }

    /// The tokens `[B, P, C]` of a batch.
    pub(super) fn of(&self, pyramid: &FeaturePyramid) -> masf_core::Result<Tensor> {
        let parts = features(&self.levels, pyramid)?
            .iter()
            .zip(self.cells.iter().zip(&self.deviations))
            .map(|(features, (cells, deviation))| map_positions(features, cells)? / f64::from(*deviation))
            .collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Tensor::cat(&parts, 2)?)
    }
}

/// A learned ADTR model.
///
/// One map named `adtr` on the grid of the coarsest level, `[B, h, w]`: the Euclidean distance of the scaled features of a position
/// from the restored ones.
pub struct Adtr {
    params: AdtrParams,
    tokens: Tokens,
    parameters: Vec<(String, Tensor)>,
    network: Network,
}

impl std::fmt::Debug for Adtr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adtr")
            .field("params", &self.params)
            .field("levels", &self.tokens.levels)
            .finish_non_exhaustive()
    }
}

impl Adtr {
    /// The type tag in model files.
    pub const TAG: &'static str = "masf.adtr";
    /// The name of the score map.
    pub const MAP: &'static str = "adtr";

    pub(super) fn new(
        params: AdtrParams,
        tokens: Tokens,
        parameters: Vec<(String, Tensor)>,
    ) -> masf_core::Result<Self> {
        let network = Network::new(&params, tokens.shape(), &mut Parameters::of(parameters.iter().cloned()))?;
        Ok(Self { params, tokens, parameters, network })
    }

    /// The map of one image, `[1, h, w]`.
    fn map(&self, image: &FeaturePyramid) -> masf_core::Result<Tensor> {
        let (height, width) = self.tokens.grid();
        let tokens = self.tokens.of(image)?;
        let distance = (self.network.restore(&tokens)? - &tokens)?.sqr()?.sum(D::Minus1)?.sqrt()?;
        Ok(distance.reshape((1, height, width))?)
    }
}

impl Scorer for Adtr {
    fn score(&self, pyramid: &FeaturePyramid) -> masf_core::Result<Scores> {
        training::image_by_image(Self::MAP, self.tokens.grid(), pyramid, |image| self.map(image))
    }
}

impl Artifact for Adtr {
    fn tag(&self) -> &'static str {
        Self::TAG
    }

    fn write(&self, writer: &mut ArtifactWriter) -> masf_core::Result<()> {
        writer.section(&Settings { params: self.params.clone(), levels: self.tokens.levels.clone() })?;
        training::write_deviations(writer, &self.tokens.deviations)?;
        training::write(writer, &self.parameters)
    }

    fn read(reader: &ArtifactReader<'_>) -> masf_core::Result<Self> {
        let Settings::<AdtrParams> { params, levels } = reader.section()?;
        let checked = params.checked().and_then(|()| training::check_levels(&levels));
        let checked = checked.and_then(|()| check_one_image(grid(levels.last()), params.heads));
        checked.map_err(|error| reader.invalid(error.to_string()))?;
        let deviations = training::read_deviations(reader, levels.len())?;
        let tokens = Tokens::new(levels, deviations);
        let mut parameters = Parameters::file(reader);
        Network::new(&params, tokens.shape(), &mut parameters)?;
        Self::new(params, tokens, parameters.frozen()?)
    }
}
