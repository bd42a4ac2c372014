//! Pairs masks with images by stem.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::walk;
use crate::error::{DataError, Result};

/// The masks of a kind.
pub(super) struct Paired {
    /// For each image its mask.
    pub(super) masks: Vec<Option<PathBuf>>,
    /// Masks without an image.
    pub(super) stray: Vec<PathBuf>,
}

/// Finds the mask of each image (paths relative to `folder`), `<stem>_mask` or `<stem>`, in `mask_folder`.
///
/// # Errors
/// [`DataError::Layout`] if two masks claim one image, or masks exist and none belongs to any image.
pub(super) fn pair(folder: &Path, images: &[PathBuf], mask_folder: &Path) -> Result<Paired> {
    let listing = walk::list(mask_folder)?;
    refuse_equal_stems(mask_folder, &listing.images)?;
    let by_stem: HashMap<PathBuf, &PathBuf> = listing.images.iter().map(|mask| (stem(mask), mask)).collect();
    let mut claimed: HashMap<&Path, &Path> = HashMap::new();
    let mut masks = Vec::with_capacity(images.len());
    for image in images {
        let bare = stem(image);
        let mask = match (by_stem.get(&with_suffix(&bare)), by_stem.get(&bare)) {
            (Some(first), Some(second)) => {
                let problem = format!(
                    "two masks for {}: {} and {}; keep one",
                    folder.join(image).display(),
                    first.display(),
                    second.display()
                );
                return Err(DataError::layout(mask_folder, problem));
            }
            (first, second) => first.or(second).copied(),
        };
        if let Some(mask) = mask
            && let Some(other) = claimed.insert(mask, image)
        {
            let problem = format!("is the mask of {} and of {}; rename one", other.display(), image.display());
            return Err(DataError::layout(mask_folder.join(mask), problem));
        }
        masks.push(mask.map(|mask| mask_folder.join(mask)));
    }
    let stray: Vec<_> = listing
        .images
        .iter()
        .filter(|mask| !claimed.contains_key(mask.as_path()))
        .map(|mask| mask_folder.join(mask))
        .collect();
    if claimed.is_empty()
        && let Some(example) = stray.first()
        && let Some(image) = images.first()
    {
        let problem = format!(
            "no mask here belongs to an image of {}; the mask of {} must be named {}_mask.png, but there is {}",
            folder.display(),
            image.display(),
            stem(image).display(),
            example.display()
        );
        return Err(DataError::layout(mask_folder, problem));
    }
    Ok(Paired { masks, stray })
}

/// Refuses files that differ in their extension only: masks are paired by the name without it.
pub(super) fn refuse_equal_stems(folder: &Path, files: &[PathBuf]) -> Result<()> {
    let mut seen: HashMap<PathBuf, &PathBuf> = HashMap::with_capacity(files.len());
    for file in files {
        if let Some(other) = seen.insert(stem(file), file) {
            let problem = format!(
                "{} and {} differ in the extension only, so their masks cannot be told apart; keep one",
                other.display(),
                file.display()
            );
            return Err(DataError::layout(folder, problem));
        }
    }
    Ok(())
}

/// The path without the extension, sub-folders included.
fn stem(path: &Path) -> PathBuf {
    path.with_extension("")
}

fn with_suffix(stem: &Path) -> PathBuf {
    let mut name = OsString::from(stem);
    name.push("_mask");
    name.into()
}
