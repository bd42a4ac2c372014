//! A fixed number of procedural images with the teachers' targets, computed when an image is first needed and kept in a file: a
//! training of many epochs asks the teachers once.
//!
//! The file holds a record for every image: one byte that is 1 when the record is there, the pixels, and the targets in `f16`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Context;
use candle_core::{Device, Tensor};
use half::f16;
use masf::data::procedural::ProceduralImages;
use masf_backbone::train::Teacher;
use rayon::prelude::*;

use crate::input::Input;

/// Images and targets of a batch.
pub(crate) struct Examples {
    /// `[B, 3, H, W]`, normalised.
    pub(crate) images: Tensor,
    /// `[B, h, w, C]`, finest first.
    pub(crate) targets: Vec<Tensor>,
}

pub(crate) struct Pool {
    file: File,
    images: ProceduralImages,
    input: Input,
    /// Height, width and channels of the targets of one image.
    shapes: Vec<[usize; 3]>,
}

impl Pool {
    /// Opens the file of a pool, or begins one.
    pub(crate) fn open(
        path: &Path,
        images: ProceduralImages,
        input: Input,
        shapes: Vec<[usize; 3]>,
    ) -> anyhow::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { file, images, input, shapes })
    }

    fn target_len(&self) -> usize {
        self.shapes.iter().map(|shape| shape.iter().product::<usize>()).sum()
    }

    fn pixels(&self) -> usize {
        3 * self.input.side * self.input.side
    }

    /// Bytes of a record.
    fn record(&self) -> usize {
        1 + self.pixels() + 2 * self.target_len()
    }

    /// The examples of these indices; those that are not there yet are made.
    pub(crate) fn get(&self, indices: &[u64], teacher: &Teacher) -> anyhow::Result<Examples> {
        let length = self.record();
        let mut records: Vec<Vec<u8>> = indices
            .par_iter()
            .map(|index| {
                let mut record = vec![0; length];
                // A record beyond the end is one that is not there.
                match self.file.read_exact_at(&mut record, index * length as u64) {
                    Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Err(error),
                    _ => Ok(record),
                }
            })
            .collect::<std::io::Result<_>>()
            .context("cannot read the pool")?;
        let missing: Vec<usize> = (0..indices.len()).filter(|&at| records[at].first() != Some(&1)).collect();
        if !missing.is_empty() {
            let images: Vec<Vec<u8>> =
                missing.par_iter().map(|&at| self.images.image(indices[at]).into_raw()).collect();
            let targets = teacher.targets(&self.input.tensor(&images)?)?;
            let targets = targets
                .iter()
                .map(|target| Ok(target.flatten_from(1)?.to_vec2()?))
                .collect::<anyhow::Result<Vec<Vec<Vec<f32>>>>>()?;
            for (place, (&at, image)) in missing.iter().zip(images).enumerate() {
                let mut record = vec![0];
                record.extend(image);
                for target in &targets {
                    record.extend(target[place].iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()));
                }
                self.file
                    .write_all_at(&record[1..], indices[at] * length as u64 + 1)
                    .context("cannot write the pool")?;
                record[0] = 1;
                self.file.write_all_at(&[1], indices[at] * length as u64).context("cannot write the pool")?;
                records[at] = record;
            }
        }
        let images: Vec<Vec<u8>> = records.iter().map(|record| record[1..][..self.pixels()].to_vec()).collect();
        let mut start = 1 + self.pixels();
        let mut targets = Vec::with_capacity(self.shapes.len());
        for &[height, width, channels] in &self.shapes {
            let bytes = 2 * height * width * channels;
            let values = records.iter().flat_map(|record| {
                record[start..start + bytes].chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f32())
            });
            let values: Vec<f32> = values.collect();
            targets.push(Tensor::from_vec(values, (indices.len(), height, width, channels), &Device::Cpu)?);
            start += bytes;
        }
        Ok(Examples { images: self.input.tensor(&images)?, targets })
    }
}
