//! What the student learns: the teachers' features, projected to their principal components.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use masf_core::FeatureExtractor;
use rand_chacha::rand_core::RngCore;

use crate::{Backbone, BackboneError, Result};

/// Multiplications of the basis by the covariance.
const ITERATIONS: usize = 15;

/// The projection at one stride.
#[derive(Debug, Clone)]
struct Projection {
    stride: usize,
    /// `[D]`.
    mean: Tensor,
    /// `[D, C]`, with the scales.
    matrix: Tensor,
}

/// Frozen networks whose features are the student's targets.
#[derive(Debug)]
pub struct Teacher {
    backbones: Vec<Backbone>,
    /// The hashes of their weights.
    identity: Tensor,
    projections: Vec<Projection>,
}

/// Sums over features at one stride.
struct Moments {
    /// Channels of each teacher.
    channels: Vec<usize>,
    count: f64,
    sums: Vec<f64>,
    products: Vec<f64>,
}

impl Teacher {
    /// Learns the projections to `channels[i]` components at `strides[i]` from batches of normalised images `[B, 3, H, W]`.
    ///
    /// # Errors
    /// No teacher, levels that a teacher lacks, teachers with different input normalisations, not as many `channels` as `strides`, and
    /// what [`Backbone::extract`] refuses.
    pub fn fit(
        backbones: Vec<Backbone>,
        (strides, channels): (&[usize], &[usize]),
        batches: impl Iterator<Item = Result<Tensor>>,
        seed: u64,
    ) -> Result<Self> {
        if strides.len() != channels.len() {
            let expected = format!("one number for each of the strides {strides:?}");
            return Err(BackboneError::argument("channels", format!("{channels:?}"), expected));
        }
        check(&backbones, strides)?;
        let mut moments: Vec<Moments> = Vec::new();
        for images in batches {
            let images = images?;
            for (index, parts) in features(&backbones, &images, strides.iter().copied())?.iter().enumerate() {
                if moments.len() == index {
                    moments.push(Moments::new(parts)?);
                }
                moments[index].add(parts)?;
            }
        }
        if moments.len() < strides.len() {
            return Err(BackboneError::argument("number of batches", 0, "at least one"));
        }
        let projections = strides.iter().zip(channels).zip(&moments);
        let projections = projections.map(|((&stride, &channels), moments)| moments.project(stride, channels, seed));
        Ok(Self { projections: projections.collect::<Result<_>>()?, identity: identity(&backbones)?, backbones })
    }

    /// Continues with projections learned earlier, as [`tensors`](Self::tensors) gave them.
    ///
    /// # Errors
    /// As [`fit`](Self::fit), or projections that are not there, or of other teachers or another order of them.
    pub fn restore(backbones: Vec<Backbone>, strides: &[usize], tensors: &BTreeMap<String, Tensor>) -> Result<Self> {
        check(&backbones, strides)?;
        let identity = identity(&backbones)?;
        if let Some(known) = tensors.get("teacher.weights")
            && known.to_vec1::<u8>()? != identity.to_vec1::<u8>()?
        {
            let expected = "the same teachers with the same weights in the same order";
            return Err(BackboneError::argument("choice of teachers", "another one than before", expected));
        }
        let get = |stride: usize, part: &str| -> Result<Tensor> {
            let path = format!("teacher.{stride}.{part}");
            Ok(tensors.get(&path).cloned().ok_or(candle_core::Error::CannotFindTensor { path })?)
        };
        let projection =
            |&stride: &usize| Ok(Projection { stride, mean: get(stride, "mean")?, matrix: get(stride, "matrix")? });
        Ok(Self { projections: strides.iter().map(projection).collect::<Result<_>>()?, identity, backbones })
    }

    /// The projections, and which teachers' they are.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        let both = |projection: &Projection| {
            let name = |part: &str| format!("teacher.{}.{part}", projection.stride);
            [(name("mean"), projection.mean.clone()), (name("matrix"), projection.matrix.clone())]
        };
        let identity = ("teacher.weights".to_owned(), self.identity.clone());
        self.projections.iter().flat_map(both).chain(std::iter::once(identity)).collect()
    }

    /// The targets `[B, h, w, C]` for normalised images `[B, 3, H, W]`, finest first; over the images that the projections were
    /// learned from, channels have mean 0 and, on average, variance 1.
    ///
    /// # Errors
    /// As [`Backbone::extract`].
    pub fn targets(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        let project = |(projection, parts): (&Projection, &Vec<Tensor>)| {
            let all = Tensor::cat(parts, 3)?;
            let (batch, height, width, channels) = all.dims4()?;
            let rows = all.reshape(((), channels))?.broadcast_sub(&projection.mean)?.matmul(&projection.matrix)?;
            Ok(rows.reshape((batch, height, width, ()))?)
        };
        let strides = self.projections.iter().map(|projection| projection.stride);
        let features = features(&self.backbones, images, strides)?;
        self.projections.iter().zip(&features).map(project).collect()
    }
}

fn check(backbones: &[Backbone], strides: &[usize]) -> Result<()> {
    let Some(first) = backbones.first() else {
        return Err(BackboneError::argument("number of teachers", 0, "at least one"));
    };
    if let Some(other) = backbones.iter().find(|other| other.normalisation() != first.normalisation()) {
        let expected = "teachers that normalise images alike";
        return Err(BackboneError::argument("teachers", format!("{} and {}", first.name(), other.name()), expected));
    }
    let mut pairs = backbones.iter().flat_map(|backbone| strides.iter().map(move |&stride| (backbone, stride)));
    pairs.try_for_each(|(backbone, stride)| level(backbone, stride).map(drop))
}

/// SHA-256 of the teachers' weights, in their order.
fn identity(backbones: &[Backbone]) -> Result<Tensor> {
    let hashes: Vec<u8> = backbones.iter().flat_map(|backbone| backbone.weights_sha256().bytes()).collect();
    Ok(Tensor::new(hashes, &Device::Cpu)?)
}

/// Which of a teacher's maps is the one at a stride.
fn level(backbone: &Backbone, stride: usize) -> Result<usize> {
    let strides: Vec<usize> = backbone.levels().iter().map(|level| level.stride).collect();
    let mut found = strides.iter().enumerate().filter(|(_, found)| **found == stride);
    match (found.next(), found.next()) {
        (Some((index, _)), None) => Ok(index),
        _ => {
            let expected = format!("that of one level; `{}` gives {strides:?}", backbone.name());
            Err(BackboneError::argument("stride", stride, expected))
        }
    }
}

/// Every teacher's map, channels last, at every stride.
fn features(backbones: &[Backbone], images: &Tensor, strides: impl Iterator<Item = usize>) -> Result<Vec<Vec<Tensor>>> {
    let maps = backbones.iter().map(|backbone| backbone.maps(images)).collect::<Result<Vec<_>>>()?;
    let at = |stride: usize| {
        let map = |(backbone, maps): (&Backbone, &Vec<Tensor>)| -> Result<Tensor> {
            Ok(maps[level(backbone, stride)?].permute((0, 2, 3, 1))?.contiguous()?)
        };
        backbones.iter().zip(&maps).map(map).collect()
    };
    strides.map(at).collect()
}

impl Moments {
    fn new(parts: &[Tensor]) -> Result<Self> {
        let channels = parts.iter().map(|part| Ok(part.dim(3)?)).collect::<Result<Vec<_>>>()?;
        let total: usize = channels.iter().sum();
        Ok(Self { channels, count: 0.0, sums: vec![0.0; total], products: vec![0.0; total * total] })
    }

    fn add(&mut self, parts: &[Tensor]) -> Result<()> {
        let all = Tensor::cat(parts, 3)?;
        let rows = all.reshape(((), self.sums.len()))?;
        self.count += rows.dim(0)? as f64;
        let sums = rows.sum(0)?.to_vec1::<f32>()?;
        let products = rows.t()?.matmul(&rows)?.flatten_all()?.to_vec1::<f32>()?;
        self.sums.iter_mut().zip(sums).for_each(|(sum, value)| *sum += f64::from(value));
        self.products.iter_mut().zip(products).for_each(|(sum, value)| *sum += f64::from(value));
        Ok(())
    }

    fn project(&self, stride: usize, components: usize, seed: u64) -> Result<Projection> {
        let total = self.sums.len();
        let components = components.min(total);
        let mean: Vec<f64> = self.sums.iter().map(|sum| sum / self.count).collect();
        let covariance = |r: usize, c: usize| self.products[r * total + c] / self.count - mean[r] * mean[c];
        // Every teacher's features get the total variance 1.
        let mut scale = Vec::with_capacity(total);
        for &channels in &self.channels {
            let first = scale.len();
            let variance: f64 = (first..first + channels).map(|c| covariance(c, c)).sum();
            scale.extend(std::iter::repeat_n(1.0 / variance.max(1e-12).sqrt(), channels));
        }
        let scaled =
            (0..total * total).map(|i| (covariance(i / total, i % total) * scale[i / total] * scale[i % total]) as f32);
        let matrix = Tensor::from_iter(scaled, &Device::Cpu)?.reshape((total, total))?;
        // Orthogonal iteration: the dominant subspace, its directions in the order of their variances.
        let mut stream = masf_core::random_stream(seed, &format!("train/projection/{stride}"));
        let start = (0..total * components).map(|_| (stream.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0);
        let mut basis = orthonormal(&Tensor::from_iter(start, &Device::Cpu)?.reshape((total, components))?)?;
        for _ in 0..ITERATIONS {
            basis = orthonormal(&matrix.matmul(&basis)?)?;
        }
        let kept = basis.t()?.matmul(&matrix.matmul(&basis)?)?;
        let kept: f64 =
            (0..components).map(|c| Ok(f64::from(kept.get(c)?.get(c)?.to_scalar::<f32>()?))).sum::<Result<f64>>()?;
        tracing::info!(stride, components, share = kept / self.channels.len() as f64, "variance of the teachers kept");
        let factor = (components as f64 / kept.max(1e-12)).sqrt();
        let rows = Tensor::from_iter(scale.iter().map(|scale| (scale * factor) as f32), &Device::Cpu)?;
        let mean = Tensor::from_iter(mean.iter().map(|mean| *mean as f32), &Device::Cpu)?;
        Ok(Projection { stride, mean, matrix: basis.broadcast_mul(&rows.reshape((total, 1))?)?.contiguous()? })
    }
}

/// Columns made orthonormal one after the other (modified Gram-Schmidt, in `f64`).
fn orthonormal(matrix: &Tensor) -> Result<Tensor> {
    let mut columns = matrix.to_dtype(DType::F64)?.t()?.contiguous()?.to_vec2::<f64>()?;
    for c in 0..columns.len() {
        let (done, rest) = columns.split_at_mut(c);
        let Some(column) = rest.first_mut() else { break };
        for other in &*done {
            let product: f64 = column.iter().zip(other).map(|(a, b)| a * b).sum();
            column.iter_mut().zip(other).for_each(|(a, b)| *a -= product * b);
        }
        let norm = column.iter().map(|a| a * a).sum::<f64>().sqrt().max(1e-30);
        column.iter_mut().for_each(|a| *a /= norm);
    }
    Ok(Tensor::new(columns, &Device::Cpu)?.t()?.contiguous()?.to_dtype(DType::F32)?)
}
