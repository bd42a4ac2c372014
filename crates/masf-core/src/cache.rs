//! Extracted features, kept for repeated reading: in memory up to a budget, in a temporary file beyond it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};

use crate::{Error, FeatureLevel, FeaturePyramid, LevelSpec, PyramidSource, Result};

/// Collects pyramids into a [`FeatureCache`].
///
/// Memory held: at most `budget` bytes of features plus one batch.
pub struct FeatureCacheBuilder {
    budget: usize,
    layout: Option<Layout>,
    memory: Vec<Box<[f32]>>,
    spill: Option<File>,
    length: usize,
}

/// What all pyramids of a cache have in common.
#[derive(Debug, Clone, PartialEq)]
struct Layout {
    /// Specification, height and width of every level.
    levels: Vec<(LevelSpec, usize, usize)>,
    input_size: (usize, usize),
}

impl Layout {
    fn of(pyramid: &FeaturePyramid) -> Self {
        let level = |level: &FeatureLevel| (level.spec, level.map.dims()[2], level.map.dims()[3]);
        Self { levels: pyramid.levels().iter().map(level).collect(), input_size: pyramid.input_size() }
    }

    /// Values of one image.
    fn item_len(&self) -> usize {
        self.levels.iter().map(|(spec, h, w)| spec.channels * h * w).sum()
    }
}

impl FeatureCacheBuilder {
    /// An empty cache that keeps at most `budget` bytes in memory.
    pub fn new(budget: usize) -> Self {
        Self { budget, layout: None, memory: Vec::new(), spill: None, length: 0 }
    }

    /// Appends the images of a pyramid, in order; all of them, or none after an error.
    ///
    /// # Errors
    /// [`Error::Data`] if its levels or sizes differ from those before, [`Error::Io`] if the temporary file cannot be written.
    pub fn push(&mut self, pyramid: &FeaturePyramid) -> Result<()> {
        let layout = Layout::of(pyramid);
        if let Some(expected) = &self.layout
            && *expected != layout
        {
            return Err(Error::data("feature pyramid", format!("is {layout:?}; the first one was {expected:?}")));
        }
        let before = (self.memory.len(), self.length);
        if let Err(error) = self.append(pyramid) {
            self.memory.truncate(before.0);
            self.length = before.1;
            return Err(error);
        }
        self.layout = Some(layout);
        Ok(())
    }

    fn append(&mut self, pyramid: &FeaturePyramid) -> Result<()> {
        for index in 0..pyramid.batch_size() {
            let item = flatten(&pyramid.image(index)?)?;
            if self.spill.is_none() && (self.memory.len() + 1) * item.len() * size_of::<f32>() <= self.budget {
                self.memory.push(item.into_boxed_slice());
            } else {
                self.spill(&item)?;
            }
            self.length += 1;
        }
        Ok(())
    }

    fn spill(&mut self, item: &[f32]) -> Result<()> {
        if self.spill.is_none() {
            self.spill = Some(tempfile::tempfile().map_err(|source| not_kept(self.budget, source))?);
        }
        let Some(file) = &mut self.spill else {
            return Ok(());
        };
        let bytes: Vec<u8> = item.iter().flat_map(|value| value.to_le_bytes()).collect();
        // The place of this item, not where the last write ended: that one may have failed halfway.
        let offset = (self.length - self.memory.len()) as u64 * bytes.len() as u64;
        let written = file.seek(SeekFrom::Start(offset)).and_then(|_| file.write_all(&bytes));
        written.map_err(|source| not_kept(self.budget, source))
    }

    /// The finished cache.
    ///
    /// # Errors
    /// [`Error::Data`] if nothing was pushed.
    pub fn finish(self) -> Result<FeatureCache> {
        let Some(layout) = self.layout else {
            return Err(Error::data("feature cache", "is empty"));
        };
        Ok(FeatureCache { layout, memory: self.memory, spill: self.spill.map(Mutex::new), length: self.length })
    }
}

/// The error of the temporary file, with what to do.
fn not_kept(budget: usize, source: std::io::Error) -> Error {
    let advice = match budget {
        0 => "features are kept here; set TMPDIR to a folder with room",
        _ => "features beyond memory_budget are kept here; raise memory_budget, or set TMPDIR to a folder with room",
    };
    Error::io(std::env::temp_dir(), std::io::Error::new(source.kind(), format!("{source}; {advice}")))
}

/// Extracted features of many images, on the CPU; the spill file has no name and vanishes with the cache.
pub struct FeatureCache {
    layout: Layout,
    memory: Vec<Box<[f32]>>,
    spill: Option<Mutex<File>>,
    length: usize,
}

impl FeatureCache {
    /// The number of images that are in the temporary file rather than in memory.
    pub fn spilled(&self) -> usize {
        self.length - self.memory.len()
    }

    /// Copies one item into `target`.
    fn read(&self, index: usize, target: &mut Vec<f32>) -> Result<()> {
        if let Some(item) = self.memory.get(index) {
            target.extend_from_slice(item);
            return Ok(());
        }
        let Some(spill) = self.spill.as_ref().filter(|_| index < self.length) else {
            return Err(Error::argument("index", index, format!("less than the {} images of the cache", self.length)));
        };
        let mut bytes = vec![0; self.layout.item_len() * size_of::<f32>()];
        let mut file = spill.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let offset = (index - self.memory.len()) as u64 * bytes.len() as u64;
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|source| Error::io(std::env::temp_dir(), source))?;
        drop(file);
        target.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        Ok(())
    }
}

impl PyramidSource for FeatureCache {
    fn len(&self) -> usize {
        self.length
    }

    fn batch(&self, indices: &[usize]) -> Result<FeaturePyramid> {
        if indices.is_empty() {
            return Err(Error::argument("indices", "empty", "at least one"));
        }
        let mut columns: Vec<Vec<f32>> = self
            .layout
            .levels
            .iter()
            .map(|(spec, h, w)| Vec::with_capacity(indices.len() * spec.channels * h * w))
            .collect();
        let mut item = Vec::with_capacity(self.layout.item_len());
        for &index in indices {
            item.clear();
            self.read(index, &mut item)?;
            let mut rest = item.as_slice();
            for (column, (spec, h, w)) in columns.iter_mut().zip(&self.layout.levels) {
                let (level, tail) = rest.split_at(spec.channels * h * w);
                column.extend_from_slice(level);
                rest = tail;
            }
        }
        let mut levels = Vec::with_capacity(columns.len());
        for (values, &(spec, h, w)) in columns.into_iter().zip(&self.layout.levels) {
            let map = Tensor::from_vec(values, (indices.len(), h, w, spec.channels), &Device::Cpu)?;
            levels.push(FeatureLevel { spec, map: map.permute((0, 3, 1, 2))? });
        }
        FeaturePyramid::new(levels, self.layout.input_size)
    }
}

/// All levels of a pyramid of one image, channels last, one after another.
fn flatten(pyramid: &FeaturePyramid) -> Result<Vec<f32>> {
    let mut values = Vec::with_capacity(pyramid.levels().iter().map(|level| level.map.elem_count()).sum());
    for level in pyramid.levels() {
        let map = level.map.permute((0, 2, 3, 1))?.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
        values.extend(map.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pyramid(first: f32, batch: usize, side: usize) -> Result<FeaturePyramid> {
        let mut levels = Vec::new();
        for (stride, channels) in [(8, 3), (16, 5)] {
            let n = side * 16 / stride;
            let count = (batch * channels * n * n) as f32;
            let map = Tensor::arange(first, first + count, &Device::Cpu)?.reshape((batch, channels, n, n))?;
            levels.push(FeatureLevel { spec: LevelSpec { stride, channels }, map });
        }
        FeaturePyramid::new(levels, (side * 16, side * 16))
    }

    fn values(pyramid: &FeaturePyramid) -> Result<Vec<Vec<f32>>> {
        pyramid.levels().iter().map(|level| Ok(level.map.flatten_all()?.to_vec1::<f32>()?)).collect()
    }

    #[test]
    fn any_budget_gives_back_what_was_pushed() -> Result<()> {
        let item = (3 * 16 + 5 * 4) * 4;
        for (budget, spilled) in [(0, 5), (item, 4), (3 * item + 1, 2), (usize::MAX, 0)] {
            let mut builder = FeatureCacheBuilder::new(budget);
            builder.push(&pyramid(0.0, 2, 2)?)?;
            builder.push(&pyramid(1000.0, 3, 2)?)?;
            let cache = builder.finish()?;
            assert_eq!((cache.len(), cache.spilled()), (5, spilled));
            assert_eq!(values(&cache.batch(&[0, 1])?)?, values(&pyramid(0.0, 2, 2)?)?);
            assert_eq!(values(&cache.batch(&[3])?)?, values(&pyramid(1000.0, 3, 2)?.image(1)?)?);
            assert!(cache.batch(&[5]).is_err());
            assert!(cache.batch(&[]).is_err());
        }
        Ok(())
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_said_with_what_to_do() -> Result<()> {
        for budget in [0, 1] {
            let full =
                File::options().write(true).open("/dev/full").map_err(|source| Error::io("/dev/full", source))?;
            let mut builder = FeatureCacheBuilder { spill: Some(full), ..FeatureCacheBuilder::new(budget) };
            let error = builder.push(&pyramid(0.0, 1, 2)?).unwrap_err().to_string();
            let temporary = std::env::temp_dir();
            for part in [&*temporary.to_string_lossy(), "No space left", "TMPDIR"] {
                assert!(error.contains(part), "{error}");
            }
            // Where nothing is to be kept in memory, more of it would not help.
            assert_eq!(error.contains("memory_budget"), budget > 0, "{error}");
            assert!(builder.finish().is_err(), "nothing was kept");
        }
        Ok(())
    }

    #[test]
    fn half_an_item_is_written_over() -> Result<()> {
        let kept = |source| not_kept(0, source);
        let mut spill = tempfile::tempfile().map_err(kept)?;
        spill.write_all(&[1; 7]).map_err(kept)?;
        let mut builder = FeatureCacheBuilder { spill: Some(spill), ..FeatureCacheBuilder::new(0) };
        builder.push(&pyramid(0.0, 2, 2)?)?;
        assert_eq!(values(&builder.finish()?.batch(&[0, 1])?)?, values(&pyramid(0.0, 2, 2)?)?);
        Ok(())
    }

    #[test]
    fn other_shapes_and_emptiness_are_refused() -> Result<()> {
        let mut builder = FeatureCacheBuilder::new(0);
        builder.push(&pyramid(0.0, 1, 2)?)?;
        let error = builder.push(&pyramid(0.0, 1, 3)?).unwrap_err();
        assert!(matches!(error, Error::Data { .. }), "{error}");
        assert!(FeatureCacheBuilder::new(0).finish().is_err());
        Ok(())
    }
}
