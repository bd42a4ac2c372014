//! Lists the image files below a folder, in one order on every machine.

use std::collections::{HashSet, VecDeque};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{DataError, Result};

/// File-name extensions of images, in lower case; compared without regard to case.
pub const EXTENSIONS: [&str; 10] = ["png", "jpg", "jpeg", "jpe", "jfif", "bmp", "dib", "tif", "tiff", "webp"];

/// What lies below a folder. Paths are sorted by their components, byte by byte.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Files with the extension of an image, relative to the folder.
    pub(super) images: Vec<PathBuf>,
    /// Other files that are not hidden, relative to the folder.
    pub(super) others: Vec<PathBuf>,
    /// Folders, relative to the folder, itself excluded.
    pub(super) folders: Vec<PathBuf>,
}

/// Whether a path has the extension of an image.
pub(super) fn has_image_extension(path: &Path) -> bool {
    path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

/// Everything below `root`. Hidden files and folders (names that begin with a dot) are left out. Links are followed; a
/// folder that several ways lead to is listed once, by the shortest way and then the first by name, so cycles end.
pub(super) fn list(root: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    let mut visited = HashSet::from([canonical(root)?]);
    let mut pending = VecDeque::from([PathBuf::new()]);
    while let Some(folder) = pending.pop_front() {
        for (name, path) in children(&root.join(&folder))? {
            let relative = folder.join(name);
            if is_folder(&path)? {
                if visited.insert(canonical(&path)?) {
                    listing.folders.push(relative.clone());
                    pending.push_back(relative);
                }
            } else if has_image_extension(&path) {
                listing.images.push(relative);
            } else {
                listing.others.push(relative);
            }
        }
    }
    for paths in [&mut listing.images, &mut listing.others, &mut listing.folders] {
        paths.sort();
    }
    Ok(listing)
}

/// The folders directly in `root`, sorted, hidden ones left out.
pub(super) fn subfolders(root: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for (_, path) in children(root)? {
        if is_folder(&path)? {
            folders.push(path);
        }
    }
    Ok(folders)
}

/// The entries of a folder, sorted by name, hidden ones left out.
pub(super) fn children(folder: &Path) -> Result<Vec<(std::ffi::OsString, PathBuf)>> {
    let io = |source| DataError::io(folder, source);
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        if !is_hidden(&entry.file_name()) {
            entries.push((entry.file_name(), entry.path()));
        }
    }
    entries.sort();
    Ok(entries)
}

/// Whether this is a folder or a link to one. A link that leads nowhere counts as a file, so that reading it says so.
pub(super) fn is_folder(path: &Path) -> Result<bool> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(_) if path.is_symlink() => Ok(false),
        Err(source) => Err(DataError::io(path, source)),
    }
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().first() == Some(&b'.')
}

pub(super) fn canonical(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(|source| DataError::io(path, source))
}
