//! Parts at any angle: an image is inspected at several, and the one at which it looks most normal counts.
//!
//! What the branches learned is upright. A part that lies at another angle is upright again at one of the angles, up to half a step, while a
//! defect is none at any of them.
//!
//! Turning blurs, and a blurred image looks like no other. So images are turned at twice the size that the network sees, and halved afterwards. Of all
//! images, those that are learned from too, the largest disc about the centre alone is seen: what an image shows at every angle. Maps are 0 outside it.

use candle_core::{Device, Tensor};
use masf_core::{AnomalyMap, Result};

/// How many angles there may be.
pub(crate) const MOST: usize = 36;

/// What the network sees of images `[B, 3, 2N, 2N]`: `[B, 3, N, N]`, on the CPU.
pub(crate) fn upright(images: &Tensor) -> Result<Tensor> {
    Ok(masf_data::halve(&masf_data::disc(images)?)?)
}

/// Hands `see` what the network sees at each of `count` angles but the first, which is given ([upright]), with the number of the angle.
///
/// Quarter turns of one another follow each other, as they share their interpolation, and no more than one is held.
pub(crate) fn at_other_angles(
    images: &Tensor,
    first: &Tensor,
    count: usize,
    mut see: impl FnMut(usize, &Tensor) -> Result<()>,
) -> Result<()> {
    let quarters = if count.is_multiple_of(4) { 4 } else { 1 };
    for base in 0..count / quarters {
        let mut seen = if base == 0 { first.clone() } else { upright(&turn(images, base, count)?)? };
        for quarter in 0..quarters {
            if quarter > 0 {
                seen = turn(&seen, 1, 4)?;
            }
            let index = base + quarter * count / 4;
            if index > 0 {
                see(index, &seen)?;
            }
        }
    }
    Ok(())
}

/// Maps `[B, N, N]` with 0, the typical score of normal images, outside the disc that is seen.
pub(crate) fn within_disc(map: &Tensor) -> Result<Tensor> {
    let (_, height, width) = map.dims3()?;
    let inside: Vec<f32> = (0..height * width).map(|pixel| f32::from(is_seen(pixel, (height, width)))).collect();
    Ok(map.broadcast_mul(&Tensor::from_vec(inside, (1, height, width), map.device())?)?)
}

/// Whether a pixel, row by row, has its centre in the largest disc about the centre.
pub(crate) fn is_seen(pixel: usize, (height, width): (usize, usize)) -> bool {
    let from_centre = |place: usize, length: usize| place as f64 + 0.5 - length as f64 / 2.0;
    from_centre(pixel / width, height).hypot(from_centre(pixel % width, width)) <= height.min(width) as f64 / 2.0
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
    use candle_core::DType;

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

    #[test]
    fn all_angles_are_seen_once_whoever_shares_a_turn() {
        let images = Tensor::rand(0f32, 1.0, (2, 3, 24, 24), &Device::Cpu).unwrap();
        for count in [1, 2, 3, 4, 8] {
            let mut found = vec![0];
            let compare = |index: usize, seen: &Tensor| {
                found.push(index);
                let expected = upright(&turn(&images, index, count)?)?;
                let error = (seen - expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
                assert!(error < 1e-5, "{index} of {count}: {error}");
                Ok(())
            };
            at_other_angles(&images, &upright(&images).unwrap(), count, compare).unwrap();
            found.sort_unstable();
            assert_eq!(found, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn maps_end_where_the_disc_does() {
        let map = within_disc(&Tensor::ones((2, 40, 40), DType::F32, &Device::Cpu).unwrap()).unwrap();
        let map: Vec<f32> = map.flatten_all().unwrap().to_vec1().unwrap();
        let (inside, corner) = (map[20], map[0]);
        assert_eq!((inside, corner, map[1600 + 39]), (1.0, 0.0, 0.0));
        let share = map.iter().sum::<f32>() / map.len() as f32;
        assert!((share - std::f32::consts::FRAC_PI_4).abs() < 0.01, "{share}");
    }
}
