//! Whether weights are those that a network needs: every discrepancy is named, not only the first.

use std::collections::BTreeMap;
use std::fmt;

use candle_core::{DType, Tensor};
use masf_core::{all_finite, with_values};

use super::Weights;

/// A tensor that a network needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Requirement {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    /// Values must not be negative (variances).
    pub(crate) non_negative: bool,
}

/// What is wrong with a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// Needed and not there.
    Missing {
        /// The tensor.
        name: String,
        /// The shape needed.
        shape: Vec<usize>,
    },
    /// There and not known.
    Unknown {
        /// The tensor.
        name: String,
    },
    /// Of another shape.
    Shape {
        /// The tensor.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape needed.
        expected: Vec<usize>,
    },
    /// Not `f32`, `f16` or `bf16`.
    Type {
        /// The tensor.
        name: String,
        /// The type in the file.
        found: DType,
    },
    /// Holds NaN or infinity.
    NotFinite {
        /// The tensor.
        name: String,
    },
    /// A variance below zero.
    Negative {
        /// The tensor.
        name: String,
    },
    /// All tensors fit, but the file is that of another network of the same shapes.
    OtherNetwork,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { name, shape } => write!(f, "`{name}` {shape:?} is missing"),
            Self::Unknown { name } => write!(f, "`{name}` is unknown"),
            Self::Shape { name, found, expected } => write!(f, "`{name}` is {found:?} instead of {expected:?}"),
            Self::Type { name, found } => write!(f, "`{name}` is {found:?} instead of F32, F16 or BF16"),
            Self::NotFinite { name } => write!(f, "`{name}` holds NaN or infinity"),
            Self::Negative { name } => write!(f, "`{name}` holds negative variances"),
            Self::OtherNetwork => f.write_str("the file is known as another network's"),
        }
    }
}

/// All discrepancies between weights and a network; displays the first few of them and the number of the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        for (index, problem) in self.0.iter().take(SHOWN).enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            problem.fmt(f)?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// Compares weights with the requirements; `ignored` names tensors that may be there and are not used.
///
/// Missing, unknown and wrongly shaped tensors come first; values are looked at only if there are none.
pub(crate) fn check(weights: &Weights, required: &[Requirement], ignored: impl Fn(&str) -> bool) -> Vec<Problem> {
    let mut problems = structure(weights, required, ignored);
    if problems.is_empty() {
        problems.extend(required.iter().filter_map(|needed| value_problem(&weights.tensors, needed)));
    }
    problems
}

/// Discrepancies of names, shapes and types.
fn structure(weights: &Weights, required: &[Requirement], ignored: impl Fn(&str) -> bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut unknown: BTreeMap<&str, &Tensor> = weights.tensors().collect();
    for Requirement { name, shape, .. } in required {
        match unknown.remove(name.as_str()) {
            None => problems.push(Problem::Missing { name: name.clone(), shape: shape.clone() }),
            Some(tensor) if tensor.dims() != shape => problems.push(Problem::Shape {
                name: name.clone(),
                found: tensor.dims().to_vec(),
                expected: shape.clone(),
            }),
            Some(tensor) if !matches!(tensor.dtype(), DType::F32 | DType::F16 | DType::BF16) => {
                problems.push(Problem::Type { name: name.clone(), found: tensor.dtype() });
            }
            Some(_) => {}
        }
    }
    let unknown = unknown.into_keys().filter(|name| !ignored(name));
    problems.extend(unknown.map(|name| Problem::Unknown { name: name.to_owned() }));
    problems
}

fn value_problem(tensors: &BTreeMap<String, Tensor>, needed: &Requirement) -> Option<Problem> {
    let name = needed.name.clone();
    // Widening keeps NaN, infinity and sign.
    let found = tensors.get(&name).and_then(|tensor| {
        let negative = |values: &[f32]| needed.non_negative && values.iter().any(|value| *value < 0.0);
        with_values(tensor, |values| (all_finite(values), negative(values))).ok()
    });
    match found {
        None => Some(Problem::Missing { name, shape: needed.shape.clone() }),
        Some((false, _)) => Some(Problem::NotFinite { name }),
        Some((true, negative)) => negative.then_some(Problem::Negative { name }),
    }
}
