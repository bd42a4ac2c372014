//! Feature pyramids: what a backbone gives for a batch of images.

use candle_core::{Device, Tensor};

use crate::{Error, Result};

/// One level that a backbone offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct LevelSpec {
    /// Input pixels per step of the map, in both directions.
    pub stride: usize,
    /// Channels of the map.
    pub channels: usize,
}

/// The feature map of one level for a batch.
#[derive(Debug, Clone)]
pub struct FeatureLevel {
    /// Stride and channel count.
    pub spec: LevelSpec,
    /// The features, `[B, C, h, w]`, `f32`, finite; often strided (channels-last memory).
    pub map: Tensor,
}

/// The feature maps of a batch of images, finest level first.
///
/// All levels have the same batch size, and at least one level exists. Several levels may have one stride (the blocks of a
/// vision transformer); these are told apart by their order, which is the network's.
#[derive(Debug, Clone)]
pub struct FeaturePyramid {
    levels: Vec<FeatureLevel>,
    input_size: (usize, usize),
}

impl FeaturePyramid {
    /// Checks the levels (`[B, C, h, w]` each, strides positive and not descending, one batch size) against their specifications.
    ///
    /// `input_size` is the `(height, width)` of the images in pixels.
    ///
    /// # Errors
    /// [`Error::Data`] names the level and what is wrong with it. Values are not inspected.
    pub fn new(levels: Vec<FeatureLevel>, input_size: (usize, usize)) -> Result<Self> {
        let Some(first) = levels.first() else {
            return Err(Error::data("feature pyramid", "has no levels"));
        };
        let batch = first.map.dims().first().copied().unwrap_or(0);
        let mut last_stride = 0;
        for level in &levels {
            let spec = level.spec;
            let name = || format!("feature level at stride {}", spec.stride);
            match *level.map.dims() {
                [b, c, h, w] if b == batch && c == spec.channels && c > 0 && h > 0 && w > 0 => {}
                ref dims => {
                    let expected = format!("[{batch}, {}, h, w] with no empty axis", spec.channels);
                    return Err(Error::data(name(), format!("has shape {dims:?} instead of {expected}")));
                }
            }
            if spec.stride < last_stride.max(1) {
                return Err(Error::data(name(), "is out of order; strides must be positive and not descend"));
            }
            last_stride = spec.stride;
        }
        Ok(Self { levels, input_size })
    }

    /// The levels, finest first; never empty.
    pub fn levels(&self) -> &[FeatureLevel] {
        &self.levels
    }

    /// The level of a stride, or an error that lists the strides there are.
    ///
    /// # Errors
    /// [`Error::Argument`] if the pyramid has no such level, or several.
    pub fn level(&self, stride: usize) -> Result<&FeatureLevel> {
        let mut found = self.levels.iter().filter(|level| level.spec.stride == stride);
        match (found.next(), found.next()) {
            (Some(level), None) => Ok(level),
            (first, _) => {
                let strides: Vec<_> = self.levels.iter().map(|level| level.spec.stride).collect();
                let expected = match first {
                    Some(_) => format!("a stride of one level; the backbone gives {strides:?}"),
                    None => format!("one of {strides:?}, which the backbone gives"),
                };
                Err(Error::argument("stride", stride, expected))
            }
        }
    }

    /// The number of images.
    pub fn batch_size(&self) -> usize {
        self.levels[0].map.dims()[0]
    }

    /// `(height, width)` of the images that the features were computed from, in pixels.
    pub fn input_size(&self) -> (usize, usize) {
        self.input_size
    }

    /// The pyramid of one image of the batch.
    ///
    /// # Errors
    /// [`Error::Backend`] if `index` is not less than the batch size.
    pub fn image(&self, index: usize) -> Result<Self> {
        let mut levels = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            levels.push(FeatureLevel { spec: level.spec, map: level.map.narrow(0, index, 1)? });
        }
        Ok(Self { levels, input_size: self.input_size })
    }

    /// The images of several pyramids, in their order, as one batch.
    ///
    /// # Errors
    /// [`Error::Argument`] without any pyramid, [`Error::Data`] for pyramids of other levels or image sizes than the first.
    pub fn cat(parts: &[Self]) -> Result<Self> {
        let Some(first) = parts.first() else {
            return Err(Error::argument("number of pyramids", 0, "at least 1"));
        };
        let shape = |part: &Self| -> Vec<(LevelSpec, Vec<usize>)> {
            part.levels.iter().map(|level| (level.spec, level.map.dims()[1..].to_vec())).collect()
        };
        if let Some(other) =
            parts.iter().find(|part| shape(part) != shape(first) || part.input_size != first.input_size)
        {
            let of = |part: &Self| format!("{:?} of images of {:?}", shape(part), part.input_size);
            let problem = format!("has levels {} where the first has {}", of(other), of(first));
            return Err(Error::data("feature pyramid", problem));
        }
        let mut levels = Vec::with_capacity(first.levels.len());
        for (index, level) in first.levels.iter().enumerate() {
            let maps: Vec<&Tensor> = parts.iter().map(|part| &part.levels[index].map).collect();
            levels.push(FeatureLevel { spec: level.spec, map: Tensor::cat(&maps, 0)? });
        }
        Ok(Self { levels, input_size: first.input_size })
    }

    /// The same pyramid on another device.
    ///
    /// # Errors
    /// [`Error::Backend`] if the maps cannot be copied there.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let mut levels = self.levels.clone();
        for level in &mut levels {
            level.map = level.map.to_device(device)?;
        }
        Ok(Self { levels, input_size: self.input_size })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    fn pyramid(strides: &[usize]) -> Result<FeaturePyramid> {
        let level = |&stride: &usize| -> Result<FeatureLevel> {
            let map = Tensor::zeros((2, 3, 4, 5), DType::F32, &Device::Cpu)?;
            Ok(FeatureLevel { spec: LevelSpec { stride, channels: 3 }, map })
        };
        FeaturePyramid::new(strides.iter().map(level).collect::<Result<_>>()?, (56, 70))
    }

    #[test]
    fn strides_may_repeat_and_do_not_descend() -> Result<()> {
        assert_eq!(pyramid(&[8, 14, 14])?.levels().len(), 3);
        for strides in [&[0][..], &[16, 8], &[]] {
            assert!(pyramid(strides).is_err(), "{strides:?}");
        }
        let map = Tensor::zeros((2, 0, 4, 5), DType::F32, &Device::Cpu)?;
        let empty = FeatureLevel { spec: LevelSpec { stride: 8, channels: 0 }, map };
        assert!(FeaturePyramid::new(vec![empty], (32, 40)).is_err());
        Ok(())
    }

    #[test]
    fn batches_are_joined_if_they_are_alike() -> Result<()> {
        let (two, three) = (pyramid(&[8, 16])?, pyramid(&[8, 16])?.image(1)?);
        assert_eq!(FeaturePyramid::cat(&[two.clone(), three, two.clone()])?.batch_size(), 5);
        let other = FeaturePyramid::new(two.levels().to_vec(), (56, 71))?;
        for (parts, said) in [
            (&[][..], "at least 1"),
            (&[two.clone(), pyramid(&[8, 14])?], "stride: 14"),
            (&[two.clone(), other], "(56, 71)"),
        ] {
            let error = FeaturePyramid::cat(parts).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        Ok(())
    }

    #[test]
    fn a_level_is_found_by_a_stride_that_is_its_own() -> Result<()> {
        let pyramid = pyramid(&[8, 14, 14])?;
        assert_eq!(pyramid.level(8)?.spec.stride, 8);
        assert!(pyramid.level(14).unwrap_err().to_string().contains("a stride of one level"));
        assert!(pyramid.level(16).unwrap_err().to_string().contains("one of [8, 14, 14]"));
        Ok(())
    }
}
