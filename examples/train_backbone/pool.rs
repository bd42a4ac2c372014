//! A fixed number of procedural images with the teachers' targets, computed when an image is first needed and kept in a file: a
//! training of many epochs asks the teachers once.
//!
//! The file holds a record for every image: one byte that tells whether the record is there, the pixels, and the targets in
//! `f16`.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::Context;
use candle_core::{Device, Tensor};
use half::f16;
use masf::data::procedural::ProceduralImages;
use masf_backbone::train::Teacher;
use rayon::prelude::*;

use crate::input::Input;

/// The first byte of a record that is there.
const THERE: u8 = 1;

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
    /// Opens the file of a side and a seed in the folder of a training that goes on, or begins it: what other teachers left is lost.
    pub(crate) fn open(
        folder: &Path,
        seed: u64,
        goes_on: bool,
        images: ProceduralImages,
        input: Input,
        shapes: Vec<[usize; 3]>,
    ) -> anyhow::Result<Self> {
        if !goes_on {
            clear(folder).with_context(|| format!("cannot clear {}", folder.display()))?;
        }
        let path = folder.join(format!("pool-{}-{seed}.bin", input.side));
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { file, images, input, shapes })
    }

    fn pixels(&self) -> usize {
        3 * self.input.side * self.input.side
    }

    /// Bytes of a record.
    fn record(&self) -> usize {
        let targets: usize = self.shapes.iter().map(|shape| shape.iter().product::<usize>()).sum();
        1 + self.pixels() + 2 * targets
    }

    /// The record of an index; zeros if it is not there.
    fn read(&self, index: u64) -> std::io::Result<Vec<u8>> {
        let mut record = vec![0; self.record()];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(index * record.len() as u64))?;
        match file.read_exact(&mut record) {
            // The file ends before the record does.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(vec![0; self.record()]),
            read => read.map(|()| record),
        }
    }

    /// Writes a record, its first byte last.
    fn write(&self, index: u64, record: &mut [u8]) -> std::io::Result<()> {
        let start = SeekFrom::Start(index * record.len() as u64);
        let mut file = &self.file;
        file.seek(start)?;
        file.write_all(record)?;
        file.seek(start)?;
        file.write_all(&[THERE])?;
        record[0] = THERE;
        Ok(())
    }

    /// The examples of these indices; those that are not there yet are made.
    pub(crate) fn get(&self, indices: &[u64], teacher: &Teacher) -> anyhow::Result<Examples> {
        let records = indices.iter().map(|index| self.read(*index)).collect::<std::io::Result<Vec<_>>>();
        let mut records = records.context("cannot read the pool")?;
        let missing: Vec<usize> = (0..indices.len()).filter(|&at| records[at].first() != Some(&THERE)).collect();
        if !missing.is_empty() {
            let made = self.make(missing.iter().map(|&at| indices[at]).collect(), teacher)?;
            for (at, mut record) in missing.into_iter().zip(made) {
                self.write(indices[at], &mut record).context("cannot write the pool")?;
                records[at] = record;
            }
        }
        let images: Vec<Vec<u8>> = records.iter().map(|record| record[1..][..self.pixels()].to_vec()).collect();
        let mut start = 1 + self.pixels();
        let mut targets = Vec::with_capacity(self.shapes.len());
        for &[height, width, channels] in &self.shapes {
            let bytes = 2 * height * width * channels;
            let numbers = records.iter().flat_map(|record| record[start..start + bytes].chunks_exact(2));
            let numbers: Vec<f32> = numbers.map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f32()).collect();
            targets.push(Tensor::from_vec(numbers, (indices.len(), height, width, channels), &Device::Cpu)?);
            start += bytes;
        }
        Ok(Examples { images: self.input.tensor(&images)?, targets })
    }

    /// The records of images, not yet marked as there.
    fn make(&self, indices: Vec<u64>, teacher: &Teacher) -> anyhow::Result<Vec<Vec<u8>>> {
        let images: Vec<Vec<u8>> = indices.into_par_iter().map(|index| self.images.image(index).into_raw()).collect();
        let mut records: Vec<Vec<u8>> = images.iter().map(|image| [&[0], image.as_slice()].concat()).collect();
        for target in teacher.targets(&self.input.tensor(&images)?)? {
            for (record, numbers) in records.iter_mut().zip(target.flatten_from(1)?.to_vec2::<f32>()?) {
                record.extend(numbers.into_iter().flat_map(|number| f16::from_f32(number).to_le_bytes()));
            }
        }
        Ok(records)
    }
}

/// Removes the pools of a folder.
fn clear(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("pool-") && name.ends_with(".bin") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
