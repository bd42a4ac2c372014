//! Lists the image files below a folder, in one order on every machine.

use std::collections::{HashSet, VecDeque};
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
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
    let (listing, failed) = list_readable(root);
    failed.into_iter().next().map_or(Ok(listing), Err)
}

/// As [`list`]; what cannot be read does not hide the rest. What goes away meanwhile was never there.
pub(super) fn list_readable(root: &Path) -> (Listing, Vec<DataError>) {
    let (mut listing, mut failed) = (Listing::default(), Vec::new());
    let mut visited = HashSet::new();
    let mut pending = VecDeque::from([PathBuf::new()]);
    while let Some(folder) = pending.pop_front() {
        let place = root.join(&folder);
        let is_root = folder.as_os_str().is_empty();
        let entries = canonical(&place).and_then(|way| visited.insert(way).then(|| children(&place)).transpose());
        match entries {
            // Another way to a folder that is listed already.
            Ok(None) => {}
            Ok(Some(entries)) => {
                for (name, path) in entries {
                    let relative = folder.join(name);
                    match is_folder(&path) {
                        Ok(true) => pending.push_back(relative),
                        Ok(false) if has_image_extension(&path) => listing.images.push(relative),
                        Ok(false) => listing.others.push(relative),
                        Err(error) => failed.extend(still_there(error)),
                    }
                }
                if !is_root {
                    listing.folders.push(folder);
                }
            }
            Err(error) if is_root => failed.push(error),
            Err(error) => failed.extend(still_there(error)),
        }
    }
    for paths in [&mut listing.images, &mut listing.others, &mut listing.folders] {
        paths.sort();
    }
    (listing, failed)
}

/// An error that is not the absence of what was just listed.
fn still_there(error: DataError) -> Option<DataError> {
    let gone = matches!(&error, DataError::Io { source, .. } if source.kind() == ErrorKind::NotFound);
    (!gone).then_some(error)
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

/// What is to be said of a path that was named and cannot be looked at: nothing is there, or a link that leads nowhere, or the system refuses.
pub(super) fn absent(path: &Path, error: std::io::Error, nothing: &str) -> DataError {
    match error.kind() {
        ErrorKind::NotFound if path.is_symlink() => DataError::layout(path, "is a link that leads nowhere"),
        ErrorKind::NotFound => DataError::layout(path, nothing),
        _ => DataError::io(path, error),
    }
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().first() == Some(&b'.')
}

pub(super) fn canonical(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(|source| DataError::io(path, source))
}
