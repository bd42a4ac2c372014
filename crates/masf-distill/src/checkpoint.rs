//! Checkpoints: the state of a training in one safetensors file, replaced atomically.
//!
//! A training that goes on from a checkpoint ends with the same bits as one that was never interrupted, on the same machine. The file
//! says what it belongs to: the rules of training, the hyper-parameters, the sizes of the features, the number of images, and the
//! statistics of their channels, which two sets of images hardly share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use masf_core::{Error, all_finite};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::grid::Grid;
use crate::network::parameters;
use crate::trainer::Trainer;
use crate::{DistillError, Result, StudentParams};

/// The metadata key of the JSON document.
const KEY: &str = "masf-checkpoint";
/// Largest file that is read.
const MOST_BYTES: u64 = 8 << 30;
/// Raised whenever the same settings make another start or other steps than before.
const RULES: u32 = 1;

/// Where checkpoints go, and whether training goes on from one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoints {
    /// The folder; made if it does not exist.
    pub folder: PathBuf,
    /// The name of the training: its file is `NAME.checkpoint`. Several trainings of one run have a name each.
    pub name: String,
    /// Passes over the images between two checkpoints, at least 1, and at least 25 steps. One more is written when training ends or
    /// is cancelled.
    pub every_epochs: usize,
    /// The folder whose checkpoint, which must then exist, training goes on from.
    pub resume: Option<PathBuf>,
}

impl Checkpoints {
    /// Checkpoints in a folder after every 5 epochs.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), name: "student".into(), every_epochs: 5, resume: None }
    }

    /// Sets the name of the training, `student` by default.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the folder whose checkpoint training goes on from.
    #[must_use]
    pub fn resume_from(mut self, folder: impl Into<PathBuf>) -> Self {
        self.resume = Some(folder.into());
        self
    }

    /// Leaves the folder to go on from out if it holds no checkpoint of this name: training then starts at its beginning.
    #[must_use]
    pub fn resume_if_present(mut self) -> Self {
        if !self.resumed().is_some_and(|path| path.is_file()) {
            self.resume = None;
        }
        self
    }

    /// The file that training goes on from.
    pub(crate) fn resumed(&self) -> Option<PathBuf> {
        self.resume.as_deref().map(|folder| self.path_in(folder))
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.path_in(&self.folder)
    }

    fn path_in(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.checkpoint", self.name))
    }
}

/// What a checkpoint belongs to, and how far it has come.
#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    rules: u32,
    params: StudentParams,
    seed: u64,
    grid: Grid,
    images: usize,
    steps: usize,
    step: usize,
}

impl Document {
    fn of(trainer: &Trainer<'_>) -> Self {
        Self {
            rules: RULES,
            params: trainer.params.clone(),
            seed: trainer.params.seed,
            grid: trainer.grid.clone(),
            images: trainer.image_count(),
            steps: trainer.steps,
            step: trainer.state.step,
        }
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Writes the state of a training.
pub(crate) fn save(trainer: &Trainer<'_>, checkpoints: &Checkpoints) -> Result<()> {
    let document =
        serde_json::to_string(&Document::of(trainer)).map_err(|error| unfit(&checkpoints.path(), error.to_string()))?;
    let mut parts: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (name, statistics) in trainer.grid.names().iter().zip(&trainer.statistics) {
        parts.insert(format!("statistics.mean{name}"), bytes(&statistics.mean));
        parts.insert(format!("statistics.deviation{name}"), bytes(&statistics.deviation));
    }
    let values = crate::trainer::values(&trainer.state.variables)?;
    for (index, spec) in parameters(&trainer.params, &trainer.grid).iter().enumerate() {
        parts.insert(format!("value.{}", spec.name), bytes(&values[index]));
        parts.insert(format!("mean.{}", spec.name), bytes(&trainer.state.moments[index].mean));
        parts.insert(format!("square.{}", spec.name), bytes(&trainer.state.moments[index].square));
        if let Some(average) = &trainer.state.average {
            parts.insert(format!("average.{}", spec.name), bytes(&average[index]));
        }
    }
    let path = checkpoints.path();
    let views = parts
        .iter()
        .map(|(name, bytes)| Ok((name, TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
    let refused = |source| Error::io(&path, source);
    std::fs::create_dir_all(&checkpoints.folder).map_err(refused)?;
    let views = views.map_err(|error| unfit(&path, error.to_string()))?;
    masf_core::replace_file(&path, |temporary| {
        safetensors::serialize_to_file(views, Some(HashMap::from([(KEY.into(), document)])), temporary).map_err(
            |error| match error {
                safetensors::SafeTensorError::IoError(source) => source,
                other => std::io::Error::other(other),
            },
        )
    })
    .map_err(refused)?;
    Ok(())
}

/// The bytes of a file of at most `most`.
fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let refused = |source| Error::io(path, source);
    let file = std::fs::File::open(path).map_err(refused)?;
    let claimed = file.metadata().map_err(refused)?.len();
    if claimed <= most {
        let content = masf_core::read_within(file, claimed, most).map_err(refused)?;
        if content.len() as u64 <= most {
            return Ok(content);
        }
    }
    Err(unfit(path, format!("it is larger than {most} bytes")))
}

/// Brings a training to the state of the checkpoint.
pub(crate) fn load(trainer: &mut Trainer<'_>, path: &Path) -> Result<()> {
    let content = read(path, MOST_BYTES)?;
    let damaged = |error: safetensors::SafeTensorError| unfit(path, error.to_string());
    masf_core::artifact::check_header(&content).map_err(|problem| unfit(path, problem))?;
    let (_, metadata) = SafeTensors::read_metadata(&content).map_err(damaged)?;
    let document = metadata.metadata().as_ref().and_then(|entries| entries.get(KEY));
    let mut document: Document = document
        .ok_or_else(|| "it is no checkpoint of a student".to_owned())
        .and_then(|text| serde_json::from_str(text).map_err(|error| error.to_string()))
        .map_err(|problem| unfit(path, problem))?;
    document.params.seed = document.seed;
    let expected = Document { step: document.step, ..Document::of(trainer) };
    if document != expected || document.step > document.steps {
        return Err(unfit(path, difference(&document, &expected)));
    }
    let tensors = SafeTensors::deserialize(&content).map_err(damaged)?;
    let values = |name: String, count: usize| -> Result<Vec<f32>> {
        let view = tensors.tensor(&name).map_err(damaged)?;
        if view.dtype() != Dtype::F32 || view.data().len() != count * 4 {
            return Err(unfit(path, format!("`{name}` has {} bytes instead of {}", view.data().len(), count * 4)));
        }
        let values: Vec<f32> =
            view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        match all_finite(&values) {
            true => Ok(values),
            false => Err(unfit(path, format!("`{name}` holds values that are not finite"))),
        }
    };
    for (name, statistics) in trainer.grid.names().iter().zip(&trainer.statistics) {
        let count = statistics.mean.len();
        let same = values(format!("statistics.mean{name}"), count)? == statistics.mean
            && values(format!("statistics.deviation{name}"), count)? == statistics.deviation;
        if !same {
            return Err(unfit(path, "it was learned from other images or features".into()));
        }
    }
    for (index, spec) in parameters(&trainer.params, &trainer.grid).iter().enumerate() {
        let state = &mut trainer.state;
        let variable = &state.variables[index];
        let count = variable.elem_count();
        let value = values(format!("value.{}", spec.name), count)?;
        variable.set(&Tensor::from_vec(value, variable.shape(), &Device::Cpu)?)?;
        state.moments[index].mean = values(format!("mean.{}", spec.name), count)?;
        let square = values(format!("square.{}", spec.name), count)?;
        if square.iter().any(|square| *square < 0.0) {
            return Err(unfit(path, format!("`square.{}` holds negative values", spec.name)));
        }
        state.moments[index].square = square;
        if let Some(average) = &mut state.average {
            average[index] = values(format!("average.{}", spec.name), count)?;
        }
    }
    trainer.state.step = document.step;
    Ok(())
}

fn difference(found: &Document, expected: &Document) -> String {
    if found.rules != expected.rules {
        return "another version of masf, which trains differently, began it; start anew".into();
    }
    if found.images != expected.images {
        return format!("it was learned from {} images; now there are {}", found.images, expected.images);
    }
    if found.grid != expected.grid {
        return "its features have other levels or sizes".into();
    }
    if found.seed != expected.seed {
        return format!("its seed is {}; now it is {}", found.seed, expected.seed);
    }
    let differing = differing(&found.params, &expected.params);
    if !differing.is_empty() {
        return differing.join("; ");
    }
    if found.steps != expected.steps {
        return format!("it has {} steps in all; now there are {}", found.steps, expected.steps);
    }
    format!("it is at step {} of {}", found.step, found.steps)
}

/// The settings that differ, by their names in the serialised form.
fn differing(found: &StudentParams, expected: &StudentParams) -> Vec<String> {
    let settings = |params: &StudentParams| match serde_json::to_value(params) {
        Ok(serde_json::Value::Object(settings)) => settings,
        _ => serde_json::Map::new(),
    };
    let (found, expected) = (settings(found), settings(expected));
    let names: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    let text = |value: Option<&serde_json::Value>| value.map_or("left out".to_owned(), ToString::to_string);
    let difference = |name: &String| {
        let (found, expected) = (found.get(name), expected.get(name));
        (found != expected).then(|| format!("`{name}` is {}, now {}", text(found), text(expected)))
    };
    names.into_iter().filter_map(difference).collect()
}

fn unfit(path: &Path, problem: String) -> DistillError {
    DistillError::Checkpoint { path: path.display().to_string(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_differ_are_named() {
        let found = StudentParams { epochs: Some(5), ..StudentParams::default() };
        let expected = StudentParams { width: 128, ..StudentParams::default() };
        assert_eq!(differing(&found, &expected), ["`epochs` is 5, now left out", "`width` is 256, now 128"]);
        assert!(differing(&found, &found).is_empty());
    }

    #[test]
    fn a_file_beyond_the_limit_is_refused_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("student.checkpoint");
        std::fs::write(&path, b"four").unwrap();
        assert_eq!(read(&path, 4).unwrap(), b"four");
        assert!(read(&path, 3).unwrap_err().to_string().contains("larger than 3 bytes"));
    }
}
