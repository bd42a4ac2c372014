//! Synthetic defects on normal images, each with its mask: what a fusion is trained on when no real defects are at hand.
//!
//! Five kinds, after the literature: pasted patches and scars (C.-L. Li et al., "CutPaste", CVPR 2021), noise in a region of
//! irregular outline (V. Zavrtanik et al., "DRAEM", ICCV 2021), the texture of another place or image (H. M. Schlüter et al.,
//! "Natural Synthetic Anomalies", ECCV 2022), and a patch whose phases and amplitudes are disturbed.
//!
//! A defect depends on the seed, its number and the images alone. Sizes and strengths are drawn from ranges that
//! [`AnomalyParams`] state. They are no real defects: use them to compare scorers, not to promise detection rates.

mod draw;
mod spectral;

use image::RgbImage;
use masf_core::random_stream;

use crate::error::{DataError, Result};
use crate::synthetic::noise::Draw;
use crate::{Mask, Size};

/// The kinds of synthetic defects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AnomalyKind {
    /// A rectangle cut out elsewhere and pasted.
    CutPaste,
    /// A thin line, darker or lighter than its surroundings.
    Scar,
    /// Coloured noise in a region of irregular outline.
    NoiseBlob,
    /// Another place, turned, in a region of irregular outline.
    TextureSwap,
    /// A patch whose phases are shuffled and whose bands are amplified or damped.
    SpectralNoise,
}

impl AnomalyKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::CutPaste, Self::Scar, Self::NoiseBlob, Self::TextureSwap, Self::SpectralNoise];

    /// The name, as in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::CutPaste => "cut-paste",
            Self::Scar => "scar",
            Self::NoiseBlob => "noise-blob",
            Self::TextureSwap => "texture-swap",
            Self::SpectralNoise => "spectral-noise",
        }
    }
}

/// Ranges that defects are drawn from, unchecked.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnomalyParams {
    /// The kinds, taken in turn. Default all.
    pub kinds: Vec<AnomalyKind>,
    /// Least and largest share of the image that a defect covers, `0 < least <= largest <= 0.25`; drawn uniformly in its
    /// logarithm. Default 0.001 to 0.02. At least about 12 pixels are covered whatever the share, and by scars, which
    /// are thin, at most about a fiftieth of a square image, less of an oblong one.
    pub area: (f64, f64),
    /// Least and largest strength, `0 < least <= largest <= 1`: opacity of what is pasted, contrast of lines and noise (1 is 80 of
    /// 255 levels), share of the phase that is shuffled. Default 0.2 to 1.
    pub strength: (f64, f64),
}

impl Default for AnomalyParams {
    fn default() -> Self {
        Self { kinds: AnomalyKind::ALL.to_vec(), area: (0.001, 0.02), strength: (0.2, 1.0) }
    }
}

/// A normal image with a defect.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SyntheticAnomaly {
    /// What was done to it.
    pub kind: AnomalyKind,
    /// The image.
    pub image: RgbImage,
    /// The defective pixels, at least one; nearly all that changes lies inside.
    pub mask: Mask,
}

/// Makes defects; see the [module](self).
///
/// ```
/// use image::RgbImage;
/// use masf_data::anomaly::{Anomalies, AnomalyParams};
///
/// let normal = RgbImage::from_fn(64, 48, |x, y| image::Rgb([(x * 3) as u8, (y * 5) as u8, 90]));
/// let anomalies = Anomalies::new(AnomalyParams::default(), 0)?;
/// let defective = anomalies.make(0, &normal, &normal)?;
/// assert_eq!(defective.image.dimensions(), (64, 48));
/// assert!(defective.mask.any());
/// # Ok::<(), masf_data::DataError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Anomalies {
    params: AnomalyParams,
    seed: u64,
}

/// Draws of place, size and strength before a kind is given up on an image.
const TRIES: usize = 24;
/// Least mean change inside the mask, in levels of 255 per channel: less is not visible.
const LEAST_CHANGE: f64 = 5.0;

impl Anomalies {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`DataError::Argument`] for a range that is out of bounds, or no kinds.
    pub fn new(params: AnomalyParams, seed: u64) -> Result<Self> {
        let within = |(least, largest): (f64, f64), limit: f64| least > 0.0 && least <= largest && largest <= limit;
        let range = |(least, largest): (f64, f64)| format!("{least} to {largest}");
        if params.kinds.is_empty() {
            return Err(DataError::argument("kinds of synthetic defects", "empty", "at least one"));
        }
        if !within(params.area, 0.25) {
            let expected = "two shares in ascending order, above 0 and at most 0.25";
            return Err(DataError::argument("area of synthetic defects", range(params.area), expected));
        }
        if !within(params.strength, 1.0) {
            let expected = "two numbers in ascending order, above 0 and at most 1";
            return Err(DataError::argument("strength of synthetic defects", range(params.strength), expected));
        }
        Ok(Self { params, seed })
    }

    /// The kind of the defect of a number.
    pub fn kind(&self, number: usize) -> AnomalyKind {
        self.params.kinds.get(number % self.params.kinds.len().max(1)).copied().unwrap_or(AnomalyKind::NoiseBlob)
    }

    /// Puts defect `number` on a normal image; what is pasted comes from `source`, another normal image or the same.
    ///
    /// Where a kind changes nothing that can be seen (a patch of plain background pasted on plain background), place and
    /// size are drawn again; an image on which that never succeeds gets a noise blob, and `kind` says so.
    ///
    /// # Errors
    /// [`DataError::Argument`] for images with a side below 8 or above 16,384 pixels, or of different sizes.
    pub fn make(&self, number: usize, image: &RgbImage, source: &RgbImage) -> Result<SyntheticAnomaly> {
        let size = Size::new(image.height(), image.width());
        let sides = 8..=16_384;
        if !sides.contains(&size.height) || !sides.contains(&size.width) {
            return Err(DataError::argument("size of the normal image", size, "sides from 8 to 16384"));
        }
        if source.dimensions() != image.dimensions() {
            let found = Size::new(source.height(), source.width());
            return Err(DataError::argument("size of the source image", found, format!("{size}, as the normal image")));
        }
        let wanted = self.kind(number);
        let mut draw = Draw(random_stream(self.seed, &format!("anomaly/{}/{number}", wanted.name())));
        for attempt in 0..2 * TRIES {
            let kind = if attempt < TRIES { wanted } else { AnomalyKind::NoiseBlob };
            let area = self.area(&mut draw, size);
            let strength = draw.between(self.params.strength.0, self.params.strength.1);
            let layer = draw::layer(kind, &mut draw, image, source, area, strength);
            if let Some((defective, mask)) = layer.apply(image)
                && mean_change(image, &defective, &mask) >= LEAST_CHANGE
            {
                return Ok(SyntheticAnomaly { kind, image: defective, mask: Mask::new(size, mask)? });
            }
        }
        // Noise of the least strength may stay invisible; full strength does not.
        let area = self.area(&mut draw, size);
        let layer = draw::layer(AnomalyKind::NoiseBlob, &mut draw, image, source, area.max(64.0), 1.0);
        let (defective, mask) = layer
            .apply(image)
            .ok_or_else(|| DataError::argument("size of the normal image", size, "room for a synthetic defect"))?;
        Ok(SyntheticAnomaly { kind: AnomalyKind::NoiseBlob, image: defective, mask: Mask::new(size, mask)? })
    }

    /// Pixels that a defect covers, uniform in the logarithm.
    fn area(&self, draw: &mut Draw, size: Size) -> f64 {
        let (least, largest) = self.params.area;
        (size.pixels() as f64 * draw.between(least.ln(), largest.ln()).exp()).max(12.0)
    }
}

/// The mean absolute change per channel inside a mask, in levels.
fn mean_change(before: &RgbImage, after: &RgbImage, mask: &[bool]) -> f64 {
    let (mut sum, mut count) = (0u64, 0u64);
    for ((before, after), _) in before.pixels().zip(after.pixels()).zip(mask).filter(|(_, masked)| **masked) {
        sum += before.0.iter().zip(after.0).map(|(a, b)| u64::from(a.abs_diff(b))).sum::<u64>();
        count += 3;
    }
    sum as f64 / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// A textured surface with a bright bar.
    fn normal(height: u32, width: u32, shift: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            let bar = if (x + shift) % 40 < 12 { 70 } else { 0 };
            let grain = ((x * 73 + y * 151 + shift * 19) ^ (x * y)) % 23;
            Rgb([(60 + bar + grain) as u8, (80 + bar / 2 + grain) as u8, (100 + grain) as u8])
        })
    }

    fn only(kind: AnomalyKind, params: AnomalyParams) -> Anomalies {
        Anomalies::new(AnomalyParams { kinds: vec![kind], ..params }, 3).unwrap()
    }

    #[test]
    fn every_kind_changes_what_its_mask_says_in_any_size() {
        for (height, width) in [(256, 256), (97, 301), (32, 20), (8, 8), (9, 400)] {
            let (image, source) = (normal(height, width, 0), normal(height, width, 7));
            for kind in AnomalyKind::ALL {
                for number in 0..6 {
                    let made = only(kind, AnomalyParams::default()).make(number, &image, &source).unwrap();
                    let name = format!("{} {number} on {height}x{width}", kind.name());
                    let mask = made.mask.pixels();
                    assert_eq!(mask.len(), (height * width) as usize);
                    assert!(made.mask.any(), "{name}: empty mask");
                    let inside = mean_change(&image, &made.image, mask);
                    assert!(inside >= LEAST_CHANGE, "{name}: changes by {inside}");
                    let outside: Vec<bool> = mask.iter().map(|masked| !masked).collect();
                    let total = |mask: &[bool]| {
                        mean_change(&image, &made.image, mask) * mask.iter().filter(|m| **m).count() as f64
                    };
                    assert!(total(&outside) <= 0.5 * total(mask), "{name}: changes outside of its mask");
                    if height == 256 {
                        assert_eq!(made.kind, kind, "{name}");
                    }
                }
            }
        }
    }

    #[test]
    fn areas_and_strengths_keep_to_their_ranges() {
        let (image, source) = (normal(256, 256, 0), normal(256, 256, 7));
        for kind in AnomalyKind::ALL {
            let mean = |params: &AnomalyParams, measure: &dyn Fn(&SyntheticAnomaly) -> f64| {
                let anomalies = only(kind, params.clone());
                (0..16).map(|number| measure(&anomalies.make(number, &image, &source).unwrap())).sum::<f64>() / 16.0
            };
            let area = |made: &SyntheticAnomaly| made.mask.area() as f64 / 65_536.0;
            for (least, largest) in [(0.002_f64, 0.004_f64), (0.02, 0.04), (0.1, 0.2)] {
                let params = AnomalyParams { area: (least, largest), ..AnomalyParams::default() };
                let found = mean(&params, &area);
                let bound = if kind == AnomalyKind::Scar { 0.02 } else { 1.0 };
                let (least, largest) = (least.min(bound), largest.min(bound));
                // Outlines are irregular, and image borders cut: a factor of two either way.
                assert!((least / 2.0..largest * 2.0).contains(&found), "{}: {found}", kind.name());
            }
            let change = |made: &SyntheticAnomaly| mean_change(&image, &made.image, made.mask.pixels());
            let with = |low, high| AnomalyParams { strength: (low, high), ..AnomalyParams::default() };
            let (weak, strong) = (mean(&with(0.2, 0.3), &change), mean(&with(0.9, 1.0), &change));
            assert!(strong > 1.3 * weak, "{}: {weak} and {strong}", kind.name());
        }
    }

    #[test]
    fn it_depends_on_seed_and_number_alone() {
        let (image, source) = (normal(64, 48, 0), normal(64, 48, 7));
        let make = |seed, number| Anomalies::new(AnomalyParams::default(), seed).unwrap().make(number, &image, &source);
        for number in 0..5 {
            assert_eq!(make(1, number).unwrap(), make(1, number).unwrap());
            assert_ne!(make(1, number).unwrap(), make(2, number).unwrap());
            assert_ne!(make(1, number).unwrap(), make(1, number + 5).unwrap());
        }
        let anomalies = Anomalies::new(AnomalyParams::default(), 1).unwrap();
        let kinds: Vec<_> = (0..6).map(|number| anomalies.kind(number)).collect();
        assert_eq!(kinds[..5], AnomalyKind::ALL);
        assert_eq!(kinds[5], AnomalyKind::CutPaste);
    }

    #[test]
    fn an_image_where_nothing_can_be_pasted_gets_noise() {
        // On black, neither a patch nor its colour jitter leaves a trace.
        let plain = RgbImage::from_pixel(40, 40, Rgb([0, 0, 0]));
        let made = only(AnomalyKind::CutPaste, AnomalyParams::default()).make(0, &plain, &plain).unwrap();
        assert_eq!(made.kind, AnomalyKind::NoiseBlob);
        assert!(mean_change(&plain, &made.image, made.mask.pixels()) >= LEAST_CHANGE);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let new = |params| Anomalies::new(params, 0).map(|_| ());
        let default = AnomalyParams::default();
        assert!(new(AnomalyParams { kinds: vec![], ..default.clone() }).is_err());
        for area in [(0.0, 0.1), (0.2, 0.1), (0.1, 0.5), (f64::NAN, 0.1)] {
            assert!(new(AnomalyParams { area, ..default.clone() }).unwrap_err().to_string().contains("area"));
        }
        for strength in [(0.0, 1.0), (0.5, 1.5)] {
            assert!(new(AnomalyParams { strength, ..default.clone() }).unwrap_err().to_string().contains("strength"));
        }
        let anomalies = Anomalies::new(default, 0).unwrap();
        let image = normal(16, 16, 0);
        assert!(anomalies.make(0, &image, &normal(16, 17, 0)).unwrap_err().to_string().contains("16x17"));
        assert!(anomalies.make(0, &normal(7, 16, 0), &normal(7, 16, 0)).unwrap_err().to_string().contains("7x16"));
    }
}
