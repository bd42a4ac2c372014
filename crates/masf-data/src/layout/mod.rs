//! Folders of images: which are for training, which for testing, what is defective, and where the masks are.
//!
//! Three layouts are recognised, by the names of folders:
//!
//! | layout | training images | test images | masks |
//! |---|---|---|---|
//! | [`Mvtec`](Layout::Mvtec) | `train/good` | `test/good`, `test/<kind>` | `ground_truth/<kind>` |
//! | [`GoodAndBad`](Layout::GoodAndBad) | `good` | `good`, `<kind>` | `ground_truth/<kind>`, if any |
//! | [`Plain`](Layout::Plain) | every image | none | none |
//!
//! The mask of `test/<kind>/<stem>.jpg` is `ground_truth/<kind>/<stem>_mask.png` or `.../<stem>.png`, of any supported format.
//! Files are found recursively; the stem then includes the sub-folders. A defective image may lack a mask.
//!
//! Lists are sorted by path, byte by byte. Links are followed and cycles end. Hidden files are skipped; files without
//! an image's extension ([`EXTENSIONS`]) are reported in [`Dataset::ignored`]. Names need not be UTF-8.

mod collect;
mod masks;
mod walk;

use std::path::{Path, PathBuf};

use crate::error::{DataError, Result};
pub use collect::{Collected, ImageFile, collect_images, collect_readable_images};
pub use walk::EXTENSIONS;

/// The name of the folder of good images.
pub const GOOD: &str = "good";

const GROUND_TRUTH: &str = "ground_truth";

/// Names of folders whose pictures are no images of parts.
const MASKS: [&str; 5] = ["mask", "masks", "groundtruth", "ground_truths", "annotations"];
/// What to do with them.
const MOVE_MASKS: &str =
    "masks belong into ground_truth/KIND beside the images' folders; anything else needs another name";

/// How a folder is organised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// `train/good`, `test/<kind>`, `ground_truth/<kind>`: the layout of MVTec AD.
    Mvtec,
    /// A folder `good`, and a folder for each kind of defect.
    GoodAndBad,
    /// Good images only.
    Plain,
}

/// Whether a part is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Label {
    /// As it should be.
    Good,
    /// With a defect.
    Defective,
}

impl Label {
    /// Whether this is [`Label::Defective`].
    pub fn is_defective(self) -> bool {
        self == Self::Defective
    }
}

/// One image of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Where it is.
    pub path: PathBuf,
    /// The name of its folder: `good` in small letters, or a kind of defect. Bytes that are not UTF-8 are replaced.
    pub kind: String,
    /// Good or defective.
    pub label: Label,
    /// Its mask. `None` for good images, and for defective ones whose defect is not outlined: these count for image
    /// metrics only.
    pub mask: Option<PathBuf>,
}

/// The images of a folder that serve one purpose, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dataset {
    /// How the folder is organised.
    pub layout: Layout,
    /// The images: kind by kind in the order of the folders' names, within a kind in the order of their paths.
    pub samples: Vec<Sample>,
    /// Files that were passed over because they have no image's extension, such as `readme.txt`.
    pub ignored: Vec<PathBuf>,
    /// Masks that belong to no image. Worth a warning: an image is missing or has another name.
    pub stray_masks: Vec<PathBuf>,
}

impl Dataset {
    /// The good images to learn from.
    ///
    /// # Errors
    /// [`DataError::Io`] if a folder cannot be read, [`DataError::Layout`] if there are no images, or the folder looks as if
    /// defects or masks would be learned as good: MVTec AD's layout without `train/good`, several categories at once, or
    /// a folder of bad images without one named `good`.
    pub fn training(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let layout = recognise(root)?;
        let folder = match layout {
            Layout::Mvtec => root.join("train").join(GOOD),
            Layout::GoodAndBad => root.join(GOOD),
            Layout::Plain => root.to_path_buf(),
        };
        if layout == Layout::Mvtec && !folder.is_dir() {
            return Err(DataError::layout(root, "has a folder train or test, but no train/good with the good images"));
        }
        let listing = walk::list(&folder)?;
        if layout == Layout::Plain {
            refuse_suspicious(root, &listing.folders)?;
        }
        if listing.images.is_empty() {
            return Err(no_images(&folder, listing.others.len()));
        }
        let samples = listing
            .images
            .iter()
            .map(|path| Sample { path: folder.join(path), kind: GOOD.into(), label: Label::Good, mask: None })
            .collect();
        Ok(Self { layout, samples, ignored: inside(&folder, listing.others).collect(), stray_masks: Vec::new() })
    }

    /// The labelled images to test with.
    ///
    /// In the layout [`Layout::GoodAndBad`] the good images are also those of [`training`](Self::training).
    ///
    /// # Errors
    /// [`DataError::Io`] if a folder cannot be read. [`DataError::Layout`] if there are no images or no labels, two images or two
    /// masks of a kind with masks share a stem, none of these belongs to any of its images, or a folder of masks stands where a kind does.
    pub fn test(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let layout = recognise(root)?;
        let folder = match layout {
            Layout::Mvtec => root.join("test"),
            Layout::GoodAndBad => root.to_path_buf(),
            Layout::Plain => {
                return Err(DataError::layout(
                    root,
                    "has no labels: expected test/good and test/<kind of defect>, or good and <kind of defect>",
                ));
            }
        };
        if !folder.is_dir() {
            return Err(DataError::layout(root, "has no folder test with the test images"));
        }
        let mut set = Self { layout, samples: Vec::new(), ignored: Vec::new(), stray_masks: Vec::new() };
        for (_, path) in walk::children(&folder)? {
            if walk::is_folder(&path)? {
                continue;
            }
            if walk::has_image_extension(&path) {
                return Err(DataError::layout(
                    path,
                    "an image without a label: move it into the folder good or that of a kind of defect",
                ));
            }
            set.ignored.push(path);
        }
        let is_truth = |path: &PathBuf| path.file_name().is_some_and(|name| name.eq_ignore_ascii_case(GROUND_TRUTH));
        // Of several that differ in capitals the last, whose letters are small.
        let all_masks = walk::subfolders(root)?.into_iter().rfind(is_truth).unwrap_or_else(|| root.join(GROUND_TRUTH));
        let mut used = Vec::new();
        for kind_folder in walk::subfolders(&folder)?.into_iter().filter(|path| !is_truth(path)) {
            let masks = all_masks.join(kind_folder.file_name().unwrap_or_default());
            set.add_kind(&kind_folder, &masks)?;
            if masks.is_dir() {
                used.push(walk::canonical(&masks)?);
            }
        }
        if all_masks.is_dir() {
            for (_, path) in walk::children(&all_masks)? {
                if walk::is_folder(&path)? {
                    if !used.contains(&walk::canonical(&path)?) {
                        set.stray_masks.extend(inside(&path, walk::list(&path)?.images));
                    }
                } else if walk::has_image_extension(&path) {
                    set.stray_masks.push(path);
                } else {
                    set.ignored.push(path);
                }
            }
        }
        if set.samples.is_empty() {
            return Err(no_images(&folder, set.ignored.len()));
        }
        Ok(set)
    }

    /// Adds the images of one kind.
    fn add_kind(&mut self, folder: &Path, mask_folder: &Path) -> Result<()> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        if MASKS.iter().any(|known| name.eq_ignore_ascii_case(known)) {
            return Err(DataError::layout(
                folder,
                format!("its pictures would count as defective images; {MOVE_MASKS}"),
            ));
        }
        // File systems that do not tell capitals apart take `Good` for the folder of good images.
        let (kind, label) = if name.eq_ignore_ascii_case(GOOD) {
            (GOOD.to_owned(), Label::Good)
        } else {
            (name.into_owned(), Label::Defective)
        };
        let listing = walk::list(folder)?;
        self.ignored.extend(inside(folder, listing.others));
        // Good images have no defect to outline, whatever some exporters write beside them.
        let paired = if label.is_defective() && mask_folder.is_dir() {
            masks::refuse_equal_stems(folder, &listing.images)?;
            let paired = masks::pair(folder, &listing.images, mask_folder)?;
            self.stray_masks.extend(paired.stray);
            paired.masks
        } else {
            vec![None; listing.images.len()]
        };
        self.samples.extend(listing.images.iter().zip(paired).map(|(path, mask)| Sample {
            path: folder.join(path),
            kind: kind.clone(),
            label,
            mask,
        }));
        Ok(())
    }

    /// The number of images of each kind, in order.
    pub fn kinds(&self) -> Vec<(&str, usize)> {
        let mut kinds: Vec<(&str, usize)> = Vec::new();
        for sample in &self.samples {
            match kinds.iter_mut().find(|(kind, _)| *kind == sample.kind) {
                Some((_, count)) => *count += 1,
                None => kinds.push((&sample.kind, 1)),
            }
        }
        kinds
    }
}

/// The layout of a folder.
fn recognise(root: &Path) -> Result<Layout> {
    let metadata = std::fs::metadata(root).map_err(|error| walk::absent(root, error, "there is no such folder"))?;
    if !metadata.is_dir() {
        return Err(DataError::layout(root, "is a file; name the folder that holds the images"));
    }
    Ok(if root.join("train").is_dir() || root.join("test").is_dir() {
        Layout::Mvtec
    } else if root.join(GOOD).is_dir() {
        Layout::GoodAndBad
    } else {
        Layout::Plain
    })
}

/// Refuses to take for good images what sub-folders say they are not.
fn refuse_suspicious(root: &Path, folders: &[PathBuf]) -> Result<()> {
    let named = |names: &[&str]| {
        folders.iter().find(|folder| {
            folder.file_name().is_some_and(|name| names.iter().any(|known| name.eq_ignore_ascii_case(known)))
        })
    };
    if let Some(found) = named(&["train", "test", GROUND_TRUTH]) {
        let problem = format!(
            "holds {}, so it seems to be a collection of data sets; name one category, or a folder of good images",
            found.display()
        );
        return Err(DataError::layout(root, problem));
    }
    if let Some(found) = named(&MASKS) {
        return Err(DataError::layout(root, format!("holds {}; {MOVE_MASKS}", found.display())));
    }
    if let Some(found) = named(&["bad", "defect", "defects", "defective", "anomaly", "anomalous", "ng", "nok", GOOD]) {
        let problem = format!(
            "holds {}; name the folder of good images itself, or put them into a folder named good beside the others",
            found.display()
        );
        return Err(DataError::layout(root, problem));
    }
    Ok(())
}

fn no_images(folder: &Path, others: usize) -> DataError {
    let found = match others {
        0 => "holds no files".to_owned(),
        count => format!("holds no image (only {count} other files)"),
    };
    DataError::layout(folder, format!("{found}; expected files with the extensions {}", EXTENSIONS.join(", ")))
}

fn inside(folder: &Path, paths: Vec<PathBuf>) -> impl Iterator<Item = PathBuf> + use<'_> {
    paths.into_iter().map(|path| folder.join(path))
}
