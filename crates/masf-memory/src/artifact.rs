//! Banks in model files.
//!
//! The prototypes are stored row by row, with the centres of the cells where there are cells; packed copies and graphs are
//! made again on loading, which gives the same search.

use candle_core::{DType, Device, Tensor};
use masf_core::{Artifact, ArtifactReader, ArtifactWriter, LevelSpec, Silent};

use crate::coreset::MOST_SQUARED_NORM;
use crate::params::{check_neighbours, check_weight};
use crate::patches::{Anchors, Space};
use crate::search::{Backend, Search};
use crate::standardise::Standardiser;
use crate::{LinearMap, MemoryBank, PatchEmbedding, SpectralAnchors};

/// What a model file says of a bank beside its tensors. Files of version 0.1.0 end with `reweight_neighbours`.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    levels: Vec<LevelSpec>,
    neighbourhood: usize,
    standardised: bool,
    reduced: Option<usize>,
    reweight_neighbours: usize,
    #[serde(default = "exact")]
    search: Search,
    #[serde(default)]
    anchors: Option<AnchorSettings>,
}

/// How banks were searched before there was a choice.
fn exact() -> Search {
    Search::Exact
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct AnchorSettings {
    channels: usize,
    weight: f64,
}

fn matrix(values: &[f32], columns: usize) -> masf_core::Result<Tensor> {
    Ok(Tensor::from_slice(values, (values.len() / columns, columns), &Device::Cpu)?)
}

impl Artifact for MemoryBank {
    fn tag(&self) -> &'static str {
        Self::TAG
    }

    fn write(&self, writer: &mut ArtifactWriter) -> masf_core::Result<()> {
        let Space { embedding, standardiser, reduction, anchors } = &self.space;
        let channels = |anchors: &Anchors| anchors.maps.projections().first().map_or(0, LinearMap::output);
        writer.section(&Settings {
            levels: embedding.levels().to_vec(),
            neighbourhood: embedding.neighbourhood(),
            standardised: standardiser.is_some(),
            reduced: reduction.as_ref().map(LinearMap::output),
            reweight_neighbours: self.reweight_neighbours,
            search: self.choice,
            anchors: anchors.as_ref().map(|a| AnchorSettings { channels: channels(a), weight: a.weight }),
        })?;
        writer.tensor("prototypes", &matrix(self.search().prototypes(), self.search().dimensions())?)?;
        if let Some(reduction) = reduction {
            writer.tensor("reduction", &matrix(reduction.matrix(), reduction.output())?)?;
        }
        if let Some(Standardiser { mean, factor }) = standardiser {
            writer.tensor("mean", &Tensor::from_slice(mean, mean.len(), &Device::Cpu)?)?;
            writer.tensor("factor", &Tensor::from_slice(factor, factor.len(), &Device::Cpu)?)?;
        }
        if let Some(anchors) = anchors {
            let all: Vec<f32> = anchors.maps.projections().iter().flat_map(LinearMap::matrix).copied().collect();
            writer.tensor("anchor_projection", &matrix(&all, channels(anchors))?)?;
            let factors = Tensor::from_slice(&anchors.factors, anchors.factors.len(), &Device::Cpu)?;
            writer.tensor("anchor_factor", &factors)?;
        }
        if let Backend::Cells(cells) = &self.search {
            writer.tensor("centres", &matrix(cells.centres(), cells.key_dimensions())?)?;
        }
        Ok(())
    }

    fn read(reader: &ArtifactReader<'_>) -> masf_core::Result<Self> {
        let settings: Settings = reader.section()?;
        let invalid = |error: crate::MemoryError| reader.invalid(error.to_string());
        let embedding = PatchEmbedding::new(settings.levels, settings.neighbourhood).map_err(invalid)?;
        check_neighbours(settings.reweight_neighbours).map_err(invalid)?;
        settings.search.check().map_err(invalid)?;
        let dimensions = embedding.dimensions();
        let values = |name, shape: &[Option<usize>]| -> masf_core::Result<Vec<f32>> {
            Ok(reader.tensor(name, DType::F32, shape)?.flatten_all()?.to_vec1::<f32>()?)
        };
        let standardiser = match settings.standardised {
            true => {
                let vector = |name| values(name, &[Some(dimensions)]);
                Some(Standardiser { mean: vector("mean")?, factor: vector("factor")? })
            }
            false => None,
        };
        if let Some(standardiser) = &standardiser {
            if standardiser.factor.iter().any(|factor| *factor <= 0.0) {
                return Err(reader.invalid("a factor of the standardisation is not positive"));
            }
            if standardiser.mean.iter().any(|mean| mean.abs() > MOST_SQUARED_NORM) {
                return Err(reader.invalid("a mean of the standardisation is out of range"));
            }
        }
        let reduction = match settings.reduced {
            Some(output) => {
                let matrix = values("reduction", &[Some(dimensions), Some(output)])?;
                Some(LinearMap::new(matrix, dimensions, output).map_err(invalid)?)
            }
            None => None,
        };
        let mut space = Space { embedding, standardiser, reduction, anchors: None };
        if let Some(AnchorSettings { channels, weight }) = settings.anchors {
            crate::anchors::check_channels(channels).map_err(invalid)?;
            check_weight(weight).map_err(invalid)?;
            if weight == 0.0 && !settings.search.uses_anchors() {
                return Err(reader.invalid("there are anchors that nothing uses"));
            }
            let all = values("anchor_projection", &[Some(dimensions), Some(channels)])?;
            let mut rest = all.as_slice();
            let mut projections = Vec::new();
            for level in space.embedding.levels() {
                let (own, tail) = rest.split_at(level.channels * channels);
                rest = tail;
                projections.push(LinearMap::new(own.to_vec(), level.channels, channels).map_err(invalid)?);
            }
            let factors = values("anchor_factor", &[Some(projections.len())])?;
            if factors.iter().any(|factor| *factor <= 0.0) {
                return Err(reader.invalid("a factor of the anchors is not positive"));
            }
            let maps = SpectralAnchors::new(&space.embedding, projections);
            space.anchors = Some(Anchors { maps, factors, weight });
        } else if settings.search.uses_anchors() {
            return Err(reader.invalid("the cells are keyed by anchors, but there are none"));
        }
        let columns = space.columns();
        let prototypes = values("prototypes", &[None, Some(columns.all())])?;
        let centres = match settings.search {
            Search::Cells { keys, .. } => Some(values("centres", &[None, Some(columns.key(keys).len())])?),
            _ => None,
        };
        // Each takes a panel; learning makes no more.
        if let (Some(centres), Search::Cells { keys, .. }) = (&centres, settings.search)
            && centres.len() / columns.key(keys).len() > prototypes.len() / columns.all()
        {
            return Err(reader.invalid("there are more cells than prototypes"));
        }
        let search = Backend::build(prototypes, columns, settings.search, 0, centres, &Silent).map_err(invalid)?;
        Ok(Self::new(space, search, settings.search, settings.reweight_neighbours)?)
    }
}
