//! A small inspection task that needs no files: pictures of a machined cover plate, good and defective, with masks.
//!
//! A brushed steel plate with a turned boss and four brass screws lies on a rubber mat. Pose, light, surface texture, the
//! screws' slots and the camera's noise vary from picture to picture. Scratches, stains, dents and missing pieces are
//! small and close to the good parts in colour, so statistics of colour over the whole picture do not find them. It serves
//! examples and tests; it is no substitute for real images when methods are compared.
//!
//! Every picture depends on the seed and its own name alone.

mod defect;
pub(crate) mod noise;
mod part;
mod scene;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use image::codecs::png::PngEncoder;
use image::{DynamicImage, GrayImage, RgbImage};
use masf_core::random_stream;
use rayon::prelude::*;

use crate::error::{DataError, ImageProblem, Result};
use crate::layout::{GOOD, collect_images};
use crate::{Limits, Mask, Size, read_image};
use defect::Defect;
pub use defect::DefectKind;
use noise::Draw;
use scene::Scene;

/// How many pictures, of which size.
///
/// ```
/// use masf_data::synthetic::{SyntheticConfig, SyntheticSet};
/// let set = SyntheticSet::new(SyntheticConfig { train: 4, ..SyntheticConfig::default() })?;
/// let first = set.iter().next().expect("a training image");
/// assert_eq!(first.image.dimensions(), (256, 256));
/// assert!(first.mask.is_none());
/// # Ok::<(), masf_data::DataError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyntheticConfig {
    /// The size of the pictures; 256x256 by default, sides from 64 to 4096.
    pub size: Size,
    /// Good pictures for training; 40 by default.
    pub train: usize,
    /// Good pictures for testing; 12 by default.
    pub test_good: usize,
    /// Defective pictures of each of the four kinds; 8 by default.
    pub test_per_kind: usize,
    /// The seed; 0 by default.
    pub seed: u64,
}

impl Default for SyntheticConfig {
    fn default() -> Self {
        Self { size: Size::square(256), train: 40, test_good: 12, test_per_kind: 8, seed: 0 }
    }
}

/// What a picture is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// Training; good.
    Train,
    /// Testing; good or defective.
    Test,
}

/// A picture of the set.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SyntheticImage {
    /// What it is for.
    pub split: Split,
    /// Its defect, or `None` for a good part.
    pub defect: Option<DefectKind>,
    /// Its number among the pictures of its split and kind, from 0 on.
    pub number: usize,
    /// The picture.
    pub image: RgbImage,
    /// The defective pixels; at least one. `None` for a good part.
    pub mask: Option<Mask>,
}

/// The pictures of a configuration, made when they are asked for.
#[derive(Debug, Clone, Copy)]
pub struct SyntheticSet {
    config: SyntheticConfig,
}

/// A place in the set.
#[derive(Clone, Copy)]
struct Slot {
    split: Split,
    defect: Option<DefectKind>,
    number: usize,
}

impl SyntheticSet {
    /// Checks the configuration.
    ///
    /// # Errors
    /// [`DataError::Argument`] for a side outside of 64 to 4096, or more than 100,000 pictures of a kind.
    pub fn new(config: SyntheticConfig) -> Result<Self> {
        let sides = 64..=4096;
        if !sides.contains(&config.size.height) || !sides.contains(&config.size.width) {
            return Err(DataError::argument("synthetic image size", config.size, "sides from 64 to 4096"));
        }
        let counts = [config.train, config.test_good, config.test_per_kind];
        if let Some(count) = counts.into_iter().find(|count| *count > 100_000) {
            return Err(DataError::argument("number of synthetic images", count, "at most 100000 of a kind"));
        }
        Ok(Self { config })
    }

    /// The pictures: training, good test pictures, then the defects in the order of [`DefectKind::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = SyntheticImage> + '_ {
        self.slots().into_iter().map(|slot| self.render(slot))
    }

    fn slots(&self) -> Vec<Slot> {
        let SyntheticConfig { train, test_good, test_per_kind, .. } = self.config;
        let slots = |split, defect, count| (0..count).map(move |number| Slot { split, defect, number });
        slots(Split::Train, None, train)
            .chain(slots(Split::Test, None, test_good))
            .chain(DefectKind::ALL.into_iter().flat_map(|kind| slots(Split::Test, Some(kind), test_per_kind)))
            .collect()
    }

    fn render(&self, slot: Slot) -> SyntheticImage {
        let mut draw = Draw(random_stream(self.config.seed, &format!("synthetic/{}", slot.path().display())));
        let scene = Scene::draw(&mut draw);
        let defect = slot.defect.map(|kind| Defect::draw(kind, &mut draw));
        let (image, pixels) = scene.render(self.config.size, defect.as_ref());
        let mask = defect.and_then(|_| Mask::new(self.config.size, pixels).ok());
        SyntheticImage { split: slot.split, defect: slot.defect, number: slot.number, image, mask }
    }

    /// What the files of a place hold, in the order of [`Slot::paths`].
    fn pictures(&self, slot: Slot) -> impl Iterator<Item = DynamicImage> {
        let SyntheticImage { image, mask, .. } = self.render(slot);
        let mask = mask.and_then(|mask| {
            let levels = mask.pixels().iter().map(|defective| if *defective { 255 } else { 0 }).collect();
            GrayImage::from_raw(mask.size().width, mask.size().height, levels)
        });
        [Some(DynamicImage::ImageRgb8(image)), mask.map(DynamicImage::ImageLuma8)].into_iter().flatten()
    }
}

impl Slot {
    /// The place of the picture in the layout of MVTec AD, with `/` on every system.
    fn path(self) -> PathBuf {
        let split = match self.split {
            Split::Train => "train",
            Split::Test => "test",
        };
        format!("{split}/{}/{:03}.png", self.defect.map_or(GOOD, DefectKind::name), self.number).into()
    }

    fn mask_path(self) -> Option<PathBuf> {
        self.defect.map(|kind| format!("ground_truth/{}/{:03}_mask.png", kind.name(), self.number).into())
    }

    fn paths(self) -> impl Iterator<Item = PathBuf> {
        [Some(self.path()), self.mask_path()].into_iter().flatten()
    }
}

/// Writes the pictures of a configuration as PNG files in the layout of MVTec AD (`train/good`, `test/<kind>`,
/// `ground_truth/<kind>`), on rayon's threads. Returns the number of pictures.
///
/// Files of an earlier run stay.
///
/// # Errors
/// [`DataError::Argument`] as [`SyntheticSet::new`]; [`DataError::Layout`], before anything is written, if `folder` holds other images,
/// be it under the names of these, as those of another seed are, or one that is cut off; [`DataError::Io`] if a file cannot be read or written.
pub fn write_dataset(folder: impl AsRef<Path>, config: &SyntheticConfig) -> Result<usize> {
    let folder = folder.as_ref();
    let set = SyntheticSet::new(*config)?;
    let slots = set.slots();
    let planned: HashSet<PathBuf> = slots.iter().flat_map(|slot| slot.paths()).collect();
    if folder.exists()
        && let Ok(found) = collect_images(&[folder])
        && let Some(other) = found.images.iter().find(|image| !planned.contains(&image.relative))
    {
        return Err(foreign(&other.path));
    }
    let is_there = |path: PathBuf| folder.join(path).exists();
    slots.par_iter().filter(|slot| slot.paths().any(is_there)).try_for_each(|slot| {
        slot.paths().zip(set.pictures(*slot)).try_for_each(|(path, picture)| check(&folder.join(path), &picture))
    })?;
    slots.par_iter().filter(|slot| !slot.paths().all(is_there)).try_for_each(|slot| {
        slot.paths().zip(set.pictures(*slot)).try_for_each(|(path, picture)| save(&folder.join(path), &picture))
    })?;
    Ok(slots.len())
}

fn foreign(path: &Path) -> DataError {
    DataError::layout(path, "is not part of this data set; write it to an empty folder")
}

/// Refuses a file that holds anything but the picture.
fn check(path: &Path, picture: &DynamicImage) -> Result<()> {
    match read_image(path, &Limits::default()) {
        Ok(found) if Size::of(&found) == Size::of(picture) && found.as_bytes() == picture.as_bytes() => Ok(()),
        Err(DataError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error @ DataError::Io { .. }) => Err(error),
        Err(DataError::Image { problem: ImageProblem::Truncated { .. } | ImageProblem::Empty, .. }) => {
            Err(DataError::layout(path, "is cut off; delete it, or write the data set to an empty folder"))
        }
        _ => Err(foreign(path)),
    }
}

/// Writes the picture, where there is no file.
fn save(path: &Path, picture: &DynamicImage) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|source| DataError::io(parent, source))?;
    }
    let mut bytes = Vec::new();
    picture
        .write_with_encoder(PngEncoder::new(&mut bytes))
        .map_err(std::io::Error::other)
        .and_then(|()| masf_core::replace_file(path, |temporary| std::fs::write(temporary, &bytes)))
        .map_err(|source| DataError::io(path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defective(seed: u64) -> Vec<(SyntheticImage, RgbImage)> {
        let set = SyntheticSet::new(SyntheticConfig { seed, ..SyntheticConfig::default() }).unwrap();
        let slots = set.slots().into_iter().filter(|slot| slot.defect.is_some());
        slots
            .map(|slot| {
                let mut draw = Draw(random_stream(seed, &format!("synthetic/{}", slot.path().display())));
                (set.render(slot), Scene::draw(&mut draw).render(set.config.size, None).0)
            })
            .collect()
    }

    #[test]
    fn a_defect_changes_the_picture_where_its_mask_says() {
        for (picture, good) in defective(0) {
            let name = format!("{:?} {}", picture.defect, picture.number);
            let mask = picture.mask.unwrap();
            let area = mask.area();
            assert!((20..1500).contains(&area), "{name}: {area} pixels");
            let (mut inside, mut outside) = (0_u64, 0_u64);
            for ((a, b), masked) in picture.image.pixels().zip(good.pixels()).zip(mask.pixels()) {
                let change: u64 = a.0.iter().zip(b.0).map(|(a, b)| u64::from(a.abs_diff(b))).sum();
                *if *masked { &mut inside } else { &mut outside } += change;
            }
            let mean_inside = inside as f64 / (3 * area) as f64;
            assert!(mean_inside > 7.0, "{name}: changes by {mean_inside} levels only");
            assert!(inside > outside, "{name}: {inside} inside, {outside} outside");
        }
    }

    #[test]
    fn the_thinnest_scratch_has_a_mask() {
        let set = SyntheticSet { config: SyntheticConfig { size: Size::square(64), ..SyntheticConfig::default() } };
        (0..300).into_par_iter().for_each(|number| {
            let slot = Slot { split: Split::Test, defect: Some(DefectKind::Scratch), number };
            assert!(set.render(slot).mask.unwrap().any(), "{number}");
        });
    }

    #[test]
    fn global_colour_does_not_give_the_defects_away() {
        for seed in [0, 1] {
            let set = SyntheticSet::new(SyntheticConfig { seed, ..SyntheticConfig::default() }).unwrap();
            let histogram = |image: &RgbImage| {
                let mut bins = vec![0.0_f64; 3 * 32];
                for pixel in image.pixels() {
                    for (channel, value) in pixel.0.iter().enumerate() {
                        bins[32 * channel + usize::from(value / 8)] += 1.0 / f64::from(image.width() * image.height());
                    }
                }
                bins
            };
            let pictures: Vec<_> = set.iter().collect();
            let (train, test): (Vec<_>, Vec<_>) = pictures.iter().partition(|picture| picture.split == Split::Train);
            let mut mean = vec![0.0; 3 * 32];
            for picture in &train {
                for (mean, bin) in mean.iter_mut().zip(histogram(&picture.image)) {
                    *mean += bin / train.len() as f64;
                }
            }
            let score = |picture: &&&SyntheticImage| -> f64 {
                histogram(&picture.image).iter().zip(&mean).map(|(bin, mean)| (bin - mean).abs()).sum()
            };
            let good: Vec<f64> = test.iter().filter(|picture| picture.defect.is_none()).map(|p| score(&p)).collect();
            let bad: Vec<f64> = test.iter().filter(|picture| picture.defect.is_some()).map(|p| score(&p)).collect();
            let wins = bad.iter().flat_map(|bad| good.iter().map(move |good| f64::from(bad > good))).sum::<f64>();
            let auroc = wins / (good.len() * bad.len()) as f64;
            assert!(auroc < 0.75, "seed {seed}: a histogram finds the defects, AUROC {auroc:.3}");
        }
    }

    #[test]
    fn depends_on_the_seed_alone() {
        let small = SyntheticConfig { size: Size::new(64, 96), train: 3, test_good: 1, test_per_kind: 1, seed: 5 };
        let pictures = |config| SyntheticSet::new(config).unwrap().iter().collect::<Vec<_>>();
        assert_eq!(pictures(small), pictures(small));
        assert_ne!(pictures(small)[0].image, pictures(SyntheticConfig { seed: 6, ..small })[0].image);
        // More pictures leave the first ones as they were.
        assert_eq!(pictures(SyntheticConfig { train: 4, ..small })[..3], pictures(small)[..3]);
        assert!(SyntheticSet::new(SyntheticConfig { size: Size::square(10), ..small }).is_err());
    }
}
