//! Parts at any angle: an image is inspected at several, and the one at which it looks most normal counts.
//!
//! What the branches learned is upright. A part that lies at another angle is upright again at one of the angles, up to half a step, while a
//! defect is none at any of them.
//!
//! Turning blurs, and a blurred image looks like no other. So images are turned at twice the size that the network sees, and halved afterwards. Of all
//! images, those that are learned from too, the largest disc about the centre alone is seen: what an image shows at every angle.

use candle_core::{Device, Tensor};
use masf_core::{AnomalyMap, Result};

/// How many angles there may be.
pub(crate) const MOST: usize = 36;

/// What the network sees of images `[B, 3, 2N, 2N]`: `[B, 3, N, N]`, on the CPU.
pub(crate) fn upright(images: &Tensor) -> Result<Tensor> {
    Ok(masf_data::halve(&masf_data::disc(images)?)?)
}

/// The same, at angle number `index` of `count`.
pub(crate) fn turned(images: &Tensor, index: usize, count: usize) -> Result<Tensor> {
    upright(&turn(images, index, count)?)
}

/// Images or maps `[B, C, H, W]` at angle number `index` of `count`.
fn turn(images: &Tensor, index: usize, count: usize) -> Result<Tensor> {
    Ok(masf_data::turn(images, 360.0 * index as f64 / count as f64)?)
}

/// Of each image what has the lower image score, `upright` or `other`, which is at angle number `index` of `count`.
pub(crate) fn calmest(upright: AnomalyMap, other: &AnomalyMap, index: usize, count: usize) -> Result<AnomalyMap> {
    let device = upright.map.device().clone();
    let scores = |map: &AnomalyMap| map.image_score.to_device(&Device::Cpu)?.to_vec1::<f32>();
    let is_calmer: Vec<bool> = scores(other)?.iter().zip(scores(&upright)?).map(|(other, own)| *other < own).collect();
    if !is_calmer.contains(&true) {
        return Ok(upright);
    }
    let back = |map: &Tensor| {
        Ok::<_, masf_core::Error>(turn(&map.unsqueeze(1)?, count - index, count)?.squeeze(1)?.to_device(&device)?)
    };
    let chosen = |own: &Tensor, other: &Tensor| {
        let parts =
            is_calmer.iter().enumerate().map(|(image, calmer)| if *calmer { other } else { own }.narrow(0, image, 1));
        Ok::<_, masf_core::Error>(Tensor::cat(&parts.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
    };
    Ok(AnomalyMap {
        map: chosen(&upright.map, &back(&other.map)?)?,
        image_score: chosen(&upright.image_score, &other.image_score)?,
        // Between neighbours cubics may dip below the least of them.
        uncertainty: chosen(&upright.uncertainty, &back(&other.uncertainty)?.relu()?)?,
        image_uncertainty: chosen(&upright.image_uncertainty, &other.image_uncertainty)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(values: [[f32; 4]; 2], scores: [f32; 2]) -> AnomalyMap {
        let map = Tensor::new(&values, &Device::Cpu).unwrap().reshape((2, 2, 2)).unwrap();
        let image_score = Tensor::new(&scores, &Device::Cpu).unwrap();
        AnomalyMap { uncertainty: map.clone(), map, image_uncertainty: image_score.clone(), image_score }
    }

    #[test]
    fn every_image_has_the_calmer_angle_and_its_map_turned_back() {
        let upright = map([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]], [4.0, 8.0]);
        // The first image at 90 degrees, less anomalous there; the second as it is, more anomalous.
        let first = turn(&upright.map.narrow(0, 0, 1).unwrap().unsqueeze(1).unwrap(), 1, 4).unwrap();
        let first: Vec<f32> = first.flatten_all().unwrap().to_vec1().unwrap();
        assert_ne!(first, [1.0, 2.0, 3.0, 4.0]);
        let halved: [f32; 4] = std::array::from_fn(|place| first[place] / 2.0);
        let other = map([halved, [9.0; 4]], [2.0, 9.0]);
        let found = calmest(upright.clone(), &other, 1, 4).unwrap();
        assert_eq!(found.image_score.to_vec1::<f32>().unwrap(), [2.0, 8.0]);
        let values: Vec<f32> = found.map.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(values, [0.5, 1.0, 1.5, 2.0, 5.0, 6.0, 7.0, 8.0]);
        // What is no calmer, and what is no number, changes nothing.
        for scores in [[4.0, 8.0], [f32::NAN; 2]] {
            let same = calmest(upright.clone(), &map([[0.0; 4]; 2], scores), 1, 4).unwrap();
            assert_eq!(same.image_score.to_vec1::<f32>().unwrap(), [4.0, 8.0]);
        }
    }
}
