//! Parameters by name: drawn at random to be learned, or read to be used.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use masf_core::{ArtifactReader, ArtifactWriter, Result, random_stream};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

/// The first values of a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Start {
    /// Even in `[-limit, limit]`.
    Uniform(f64),
    /// Normal with this deviation.
    Normal(f64),
    /// Everywhere the same.
    Constant(f32),
}

enum Origin<'a> {
    Random { seed: u64, method: &'static str },
    Values(BTreeMap<String, Tensor>),
    File(&'a ArtifactReader<'a>),
}

/// Where a network takes its parameters from. A network asks for each by name and shape, so the same code makes one to learn and
/// one to use.
pub(crate) struct Parameters<'a> {
    origin: Origin<'a>,
    taken: Vec<(String, Tensor)>,
    variables: Vec<Var>,
}

impl<'a> Parameters<'a> {
    /// Random ones, as variables; every parameter has a random stream of its own.
    pub(crate) fn random(seed: u64, method: &'static str) -> Self {
        Self::new(Origin::Random { seed, method })
    }

    /// Those that another network took.
    pub(crate) fn of(values: impl IntoIterator<Item = (String, Tensor)>) -> Self {
        Self::new(Origin::Values(values.into_iter().collect()))
    }

    /// Those of a model file.
    pub(crate) fn file(reader: &'a ArtifactReader<'a>) -> Self {
        Self::new(Origin::File(reader))
    }

    fn new(origin: Origin<'a>) -> Self {
        Self { origin, taken: Vec::new(), variables: Vec::new() }
    }

    /// The parameter of a name, of the shape asked for.
    ///
    /// # Errors
    /// A model file without it, or with one of another shape.
    pub(crate) fn take(&mut self, name: &str, shape: &[usize], start: Start) -> Result<Tensor> {
        let tensor = match &self.origin {
            Origin::Random { seed, method } => {
                let mut random = random_stream(*seed, &format!("{method}.start.{name}"));
                let count = shape.iter().product();
                let values: Vec<f32> = match start {
                    Start::Constant(value) => vec![value; count],
                    Start::Uniform(limit) => (0..count).map(|_| random.random_range(-limit..=limit) as f32).collect(),
                    Start::Normal(deviation) => (0..count)
                        .map(|_| (Distribution::<f64>::sample(&StandardNormal, &mut random) * deviation) as f32)
                        .collect(),
                };
                let variable = Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?)?;
                let tensor = variable.as_tensor().clone();
                self.variables.push(variable);
                tensor
            }
            Origin::Values(values) => match values.get(name).filter(|tensor| tensor.dims() == shape) {
                Some(tensor) => tensor.clone(),
                None => {
                    return Err(masf_core::Error::data(name, format!("there is no such parameter of shape {shape:?}")));
                }
            },
            Origin::File(reader) => {
                let shape: Vec<_> = shape.iter().map(|length| Some(*length)).collect();
                reader.tensor(name, DType::F32, &shape)?
            }
        };
        self.taken.push((name.to_owned(), tensor.clone()));
        Ok(tensor)
    }

    /// The variables, in the order in which they were taken; none where parameters are not learned.
    pub(crate) fn variables(&self) -> &[Var] {
        &self.variables
    }

    /// Their present values, by name, apart from any gradient.
    pub(crate) fn frozen(&self) -> Result<Vec<(String, Tensor)>> {
        let frozen = |(name, tensor): &(String, Tensor)| Ok((name.clone(), tensor.copy()?.detach()));
        self.taken.iter().map(frozen).collect()
    }
}

/// Writes parameters under their names.
pub(crate) fn write(writer: &mut ArtifactWriter, parameters: &[(String, Tensor)]) -> Result<()> {
    parameters.iter().try_for_each(|(name, tensor)| writer.tensor(name, tensor))
}
