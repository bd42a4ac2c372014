//! Mean and variance of calibrated maps over the views.

use candle_core::{DType, Tensor};
use masf_core::{CalibratedMap, Result, values};

use crate::ViewError;

/// Collects the calibrated maps of the views, the image's own first.
///
/// Sums are of differences from the first view, in f64: equal views have variance zero exactly, and the first view alone
/// comes back as it was, bit for bit.
#[derive(Debug)]
pub struct ViewAverage {
    first: Vec<CalibratedMap>,
    sums: Vec<Sums>,
    views: usize,
}

/// What is summed of one map.
#[derive(Debug)]
struct Sums {
    first: Vec<f32>,
    difference: Vec<f64>,
    square: Vec<f64>,
    count: Vec<u32>,
}

impl ViewAverage {
    /// Begins with the maps of the image itself.
    pub fn new(first: Vec<CalibratedMap>) -> Self {
        Self { first, sums: Vec::new(), views: 1 }
    }

    /// Adds the maps of another view, realigned, and the places where each counts (`[h, w]`, `u8`; `None`: all).
    ///
    /// # Errors
    /// Other maps than those of the first view, or of another shape.
    pub fn add(&mut self, maps: &[CalibratedMap], valid: &[Option<Tensor>]) -> Result<()> {
        let view = self.views;
        let wrong = |name: &str, problem: String| ViewError::Map { name: name.to_owned(), view, problem };
        if maps.len() != self.first.len() || valid.len() != self.first.len() {
            let (maps, places, first) = (maps.len(), valid.len(), self.first.len());
            let problem =
                format!("there are {maps} maps and {places} entries for places; the first view has {first} maps");
            return Err(wrong("all", problem).into());
        }
        let mut masks = Vec::with_capacity(maps.len());
        for ((map, valid), first) in maps.iter().zip(valid).zip(&self.first) {
            if map.name != first.name || map.mean.dims() != first.mean.dims() {
                let problem = format!(
                    "it has shape {:?}; the first view has `{}` of shape {:?}",
                    map.mean.dims(),
                    first.name,
                    first.mean.dims()
                );
                return Err(wrong(&map.name, problem).into());
            }
            masks.push(match valid {
                None => None,
                Some(mask) if mask.dims() == first.mean.dims().get(1..).unwrap_or_default() => {
                    Some(mask.to_dtype(DType::U8)?.flatten_all()?.to_vec1::<u8>()?)
                }
                Some(mask) => {
                    return Err(wrong(&map.name, format!("its mask has shape {:?}", mask.dims())).into());
                }
            });
        }
        // Nothing is added of a view that is refused.
        let found = maps.iter().map(|map| Ok(values(&map.mean)?)).collect::<Result<Vec<_>>>()?;
        if self.sums.is_empty() {
            self.sums = self.first.iter().map(|map| Sums::of(&map.mean)).collect::<Result<_>>()?;
        }
        for ((values, mask), sums) in found.iter().zip(masks).zip(&mut self.sums) {
            sums.add(values, mask.as_deref());
        }
        self.views += 1;
        Ok(())
    }

    /// Mean and (population) variance over the views that count, at every position.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn finish(self) -> Result<Vec<CalibratedMap>> {
        if self.sums.is_empty() {
            return Ok(self.first);
        }
        self.first
            .into_iter()
            .zip(self.sums)
            .map(|(map, sums)| {
                let (mean, variance) = sums.finish();
                let (shape, device) = (map.mean.shape(), map.mean.device());
                Ok(CalibratedMap {
                    mean: Tensor::from_vec(mean, shape, device)?,
                    variance: Tensor::from_vec(variance, shape, device)?,
                    name: map.name,
                })
            })
            .collect()
    }
}

impl Sums {
    fn of(map: &Tensor) -> Result<Self> {
        let first = values(map)?;
        let length = first.len();
        Ok(Self { first, difference: vec![0.0; length], square: vec![0.0; length], count: vec![1; length] })
    }

    /// `mask` covers one image of the batch.
    fn add(&mut self, values: &[f32], mask: Option<&[u8]>) {
        let sums = self.difference.iter_mut().zip(&mut self.square).zip(&mut self.count);
        for (index, ((value, first), ((difference, square), count))) in
            values.iter().zip(&self.first).zip(sums).enumerate()
        {
            let counts = mask.is_none_or(|mask| mask.get(index % mask.len().max(1)).is_some_and(|counts| *counts != 0));
            if counts {
                let change = f64::from(*value) - f64::from(*first);
                *difference += change;
                *square += change * change;
                *count += 1;
            }
        }
    }

    fn finish(self) -> (Vec<f32>, Vec<f32>) {
        let sums = self.difference.into_iter().zip(self.square).zip(self.count);
        self.first
            .into_iter()
            .zip(sums)
            .map(|(first, ((difference, square), count))| {
                let count = f64::from(count);
                let change = difference / count;
                let variance = (square / count - change * change).max(0.0);
                ((f64::from(first) + change) as f32, variance as f32)
            })
            .unzip()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn map(name: &str, values: &[f32]) -> CalibratedMap {
        let mean = Tensor::from_slice(values, (1, 2, values.len() / 2), &Device::Cpu).unwrap();
        CalibratedMap { name: name.into(), variance: mean.zeros_like().unwrap(), mean }
    }

    fn flat(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn mean_and_variance_are_those_of_numpy() -> Result<()> {
        // numpy.mean and numpy.var over [[1, 2], [4, 2], [7, 5]] where the last view does not count at the second place.
        let mut average = ViewAverage::new(vec![map("a", &[1.0, 2.0])]);
        average.add(&[map("a", &[4.0, 2.0])], &[None])?;
        let mask = Tensor::from_slice(&[1u8, 0], (2, 1), &Device::Cpu)?;
        average.add(&[map("a", &[7.0, 5.0])], &[Some(mask)])?;
        let found = average.finish()?;
        assert_eq!((flat(&found[0].mean), flat(&found[0].variance)), (vec![4.0, 2.0], vec![6.0, 0.0]));
        Ok(())
    }

    #[test]
    fn nothing_is_added_of_a_view_that_is_refused() -> Result<()> {
        let mut average = ViewAverage::new(vec![map("a", &[1.0, 2.0]), map("b", &[3.0, 4.0])]);
        let refused = average.add(&[map("a", &[9.0, 9.0]), map("other", &[9.0, 9.0])], &[None, None]).unwrap_err();
        assert!(refused.to_string().contains("other"), "{refused}");
        let refused = average.add(&[map("a", &[9.0, 9.0]), map("b", &[9.0, 9.0])], &[None]).unwrap_err();
        assert!(refused.to_string().contains("2 maps and 1 entries for places"), "{refused}");
        average.add(&[map("a", &[3.0, 2.0]), map("b", &[3.0, 4.0])], &[None, None])?;
        assert_eq!(flat(&average.finish()?[0].mean), [2.0, 2.0]);
        Ok(())
    }

    #[test]
    fn one_view_comes_back_as_it_was() -> Result<()> {
        let values = [0.1f32, -0.0, 1e-30, 3e7];
        let found = ViewAverage::new(vec![map("a", &values)]).finish()?;
        assert_eq!(flat(&found[0].mean).map_bits(), values.to_vec().map_bits());
        // A second view that counts nowhere changes nothing either.
        let mut average = ViewAverage::new(vec![map("a", &values)]);
        average.add(&[map("a", &[9.0; 4])], &[Some(Tensor::zeros((2, 2), DType::U8, &Device::Cpu)?)])?;
        let found = average.finish()?;
        assert_eq!(flat(&found[0].mean), values);
        assert_eq!(flat(&found[0].variance), [0.0; 4]);
        Ok(())
    }

    trait Bits {
        fn map_bits(self) -> Vec<u32>;
    }

    impl Bits for Vec<f32> {
        fn map_bits(self) -> Vec<u32> {
            self.into_iter().map(f32::to_bits).collect()
        }
    }

    #[test]
    fn a_mask_holds_for_every_image_of_the_batch() -> Result<()> {
        let of = |values: &[f32]| -> Result<CalibratedMap> {
            let mean = Tensor::from_slice(values, (2, 1, 2), &Device::Cpu)?;
            Ok(CalibratedMap { name: "a".into(), variance: mean.zeros_like()?, mean })
        };
        let mut average = ViewAverage::new(vec![of(&[0.0; 4])?]);
        let mask = Tensor::from_slice(&[0u8, 1], (1, 2), &Device::Cpu)?;
        average.add(&[of(&[2.0, 4.0, 6.0, 8.0])?], &[Some(mask)])?;
        assert_eq!(flat(&average.finish()?[0].mean), [0.0, 2.0, 0.0, 4.0]);
        Ok(())
    }

    #[test]
    fn other_maps_are_refused() {
        let average = || ViewAverage::new(vec![map("a", &[1.0, 2.0])]);
        assert!(average().add(&[map("b", &[1.0, 2.0])], &[None]).unwrap_err().to_string().contains("`b`"));
        assert!(average().add(&[map("a", &[1.0, 2.0, 3.0, 4.0])], &[None]).is_err());
        assert!(average().add(&[], &[]).is_err());
        let mask = Tensor::zeros((1, 2), DType::U8, &Device::Cpu).unwrap();
        assert!(average().add(&[map("a", &[1.0, 2.0])], &[Some(mask)]).is_err());
    }
}
