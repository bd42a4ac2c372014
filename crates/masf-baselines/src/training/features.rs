//! Features of pyramids as tokens, and their spread.

use candle_core::{DType, Device, Tensor};
use masf_core::{
    ArtifactReader, ArtifactWriter, FeaturePyramid, LevelSpec, Progress, PyramidSource, ScoreMap, Scores, all_finite,
    variance, with_values,
};

use super::tokens::Grid;
use super::values;
use crate::{BaselineError, Result};

/// A level, and height and width of its map.
pub(crate) type Level = (LevelSpec, usize, usize);

/// The grid of a level; a single position where there is none.
pub(crate) fn grid(level: Option<&Level>) -> Grid {
    level.map_or((1, 1), |(_, height, width)| (*height, *width))
}

/// Images that are read at once in a pass over a source.
const IMAGES_PER_BATCH: usize = 4;

/// All levels of some strides as the images of a source have them.
pub(crate) fn levels_of(source: &dyn PyramidSource, strides: &[usize]) -> masf_core::Result<Vec<Level>> {
    if source.is_empty() {
        return Err(BaselineError::NoImages.into());
    }
    let first = source.batch(&[0])?;
    let all = || first.levels().iter().map(|level| (level.spec, level.map.dims()[2], level.map.dims()[3]));
    for stride in strides {
        if all().all(|level| level.0.stride != *stride) {
            // The error names the strides that there are.
            first.level(*stride)?;
        }
    }
    Ok(all().filter(|level| strides.contains(&level.0.stride)).collect())
}

/// The features of levels as tokens, `[B, P, C]` each; refuses pyramids of other levels or sizes, and values that are not finite.
pub(crate) fn features(levels: &[Level], pyramid: &FeaturePyramid) -> Result<Vec<Tensor>> {
    let mut all = Vec::with_capacity(levels.len());
    for (index, &(spec, height, width)) in levels.iter().enumerate() {
        // Equal levels are those of the pyramid in its order.
        let earlier = levels[..index].iter().filter(|level| **level == levels[index]).count();
        let shape = [pyramid.batch_size(), spec.channels, height, width];
        let mut found = pyramid.levels().iter().filter(|level| level.spec == spec && level.map.dims() == shape);
        let Some(level) = found.nth(earlier) else {
            let found: Vec<_> =
                pyramid.levels().iter().map(|level| (level.spec.stride, level.map.dims().to_vec())).collect();
            let expected = format!("{} x {height} x {width} at stride {}", spec.channels, spec.stride);
            return Err(BaselineError::Levels { expected, found: format!("(stride, [B, C, h, w]) {found:?}") });
        };
        let map = level.map.permute((0, 2, 3, 1))?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
        let map = map.reshape((pyramid.batch_size(), height * width, spec.channels))?;
        if !with_values(&map, all_finite)?
            && let Some((index, value)) = values(&map)?.into_iter().enumerate().find(|(_, value)| !value.is_finite())
        {
            let position = index / spec.channels % (height * width);
            let image = index / (spec.channels * height * width);
            return Err(BaselineError::NonFinite { image, row: position / width, column: position % width, value });
        }
        all.push(map);
    }
    Ok(all)
}

/// Calls `action` with all images of a source, some at a time. That is a stage of the progress, and errors name images as the source does.
pub(crate) fn each_batch(
    source: &dyn PyramidSource,
    stage: &str,
    progress: &dyn Progress,
    mut action: impl FnMut(&FeaturePyramid) -> masf_core::Result<()>,
) -> masf_core::Result<()> {
    progress.start(stage, source.len() as u64);
    let indices: Vec<usize> = (0..source.len()).collect();
    let read = indices.chunks(IMAGES_PER_BATCH).try_for_each(|batch| {
        progress.check()?;
        action(&source.batch(batch)?).map_err(|error| BaselineError::of(error, batch))?;
        progress.step(batch.len() as u64);
        Ok::<(), masf_core::Error>(())
    });
    progress.finish();
    read
}

/// The deviation of the features of every level over all images, around the means of their channels; 1 where there is none.
pub(crate) fn deviations(
    levels: &[Level],
    source: &dyn PyramidSource,
    progress: &dyn Progress,
) -> masf_core::Result<Vec<f32>> {
    let mut sums: Vec<(Vec<f64>, f64)> = levels.iter().map(|(spec, ..)| (vec![0f64; spec.channels], 0.0)).collect();
    each_batch(source, "feature statistics", progress, |pyramid| {
        for (features, (sums, squares)) in features(levels, pyramid)?.iter().zip(&mut sums) {
            with_values(features, |values| {
                for token in values.chunks_exact(sums.len()) {
                    for (sum, value) in sums.iter_mut().zip(token) {
                        *sum += f64::from(*value);
                        *squares += f64::from(*value) * f64::from(*value);
                    }
                }
            })?;
        }
        Ok(())
    })?;
    let deviation = |((sums, squares), (spec, height, width)): (&(Vec<f64>, f64), &Level)| {
        let count = (source.len() * height * width) as f64;
        let means: f64 = sums.iter().map(|sum| (sum / count).powi(2)).sum();
        let deviation = (variance(squares / count, means) / spec.channels as f64).sqrt();
        if deviation > 1e-12 { deviation as f32 } else { 1.0 }
    };
    Ok(sums.iter().zip(levels).map(deviation).collect())
}

/// Writes the deviations of levels.
pub(crate) fn write_deviations(writer: &mut ArtifactWriter, deviations: &[f32]) -> masf_core::Result<()> {
    writer.tensor("deviations", &Tensor::from_slice(deviations, deviations.len(), &Device::Cpu)?)
}

/// Reads what [`write_deviations`] wrote for so many levels.
pub(crate) fn read_deviations(reader: &ArtifactReader<'_>, levels: usize) -> masf_core::Result<Vec<f32>> {
    let deviations = reader.tensor("deviations", DType::F32, &[Some(levels)])?.to_vec1::<f32>()?;
    if deviations.iter().any(|deviation| *deviation <= 0.0) {
        return Err(reader.invalid("a deviation is not positive"));
    }
    Ok(deviations)
}

/// The scores of a batch as one map, `[B, h, w]`, from the map `[1, h, w]` of each image by itself: the rounding of a matrix product may
/// depend on how many rows it has. Scores that are not finite are an error.
pub(crate) fn image_by_image(
    name: &str,
    (height, width): Grid,
    pyramid: &FeaturePyramid,
    map: impl Fn(&FeaturePyramid) -> masf_core::Result<Tensor>,
) -> masf_core::Result<Scores> {
    let mut scores = Vec::with_capacity(pyramid.batch_size() * height * width);
    for image in 0..pyramid.batch_size() {
        let own = map(&pyramid.image(image)?).map_err(|error| BaselineError::of(error, &[image]))?;
        let own = values(&own)?;
        if let Some(position) = own.iter().position(|value| !value.is_finite()) {
            let (row, column, value) = (position / width, position % width, own[position]);
            return Err(BaselineError::NonFinite { image, row, column, value }.into());
        }
        scores.extend(own);
    }
    let values = Tensor::from_vec(scores, (pyramid.batch_size(), height, width), &Device::Cpu)?;
    Ok(Scores { maps: vec![ScoreMap { name: name.to_owned(), values }], image: None })
}
