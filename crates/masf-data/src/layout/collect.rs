//! Image files from a mixed list of files and folders, as given on a command line.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::walk;
use crate::error::{DataError, Result};

/// An image file and its place below the folder it was found in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its path relative to the folder that was given, or its name where the file itself was. Unique in a list: where two
    /// would be equal, all begin with the position of what was given, from 1 on, such as `2/crack/000.png`.
    pub relative: PathBuf,
}

/// What [`collect_images`] and [`collect_readable_images`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collected {
    /// The images, in the order of the list that was given and sorted within each folder. No path comes twice.
    pub images: Vec<ImageFile>,
    /// Files in the folders that were passed over because they have no image's extension.
    pub ignored: Vec<PathBuf>,
}

/// Collects the image files among `inputs`: files as they are, whatever their extension, and folders recursively.
///
/// # Errors
/// [`DataError::Layout`] if the list is empty, something on it does not exist, or a folder has no image; [`DataError::Io`] if a folder,
/// or one below it, cannot be read.
pub fn collect_images<P: AsRef<Path>>(inputs: &[P]) -> Result<Collected> {
    if inputs.is_empty() {
        return Err(DataError::layout("", "no image or folder was named"));
    }
    let (collected, failed) = collect_readable_images(inputs);
    failed.into_iter().next().map_or(Ok(collected), Err)
}

/// As [`collect_images`], with the errors beside what was found: each names the folder or file that it is about.
pub fn collect_readable_images<P: AsRef<Path>>(inputs: &[P]) -> (Collected, Vec<DataError>) {
    let (mut collected, mut failed) = (Collected::default(), Vec::new());
    let mut origins = Vec::new();
    let mut seen = HashSet::new();
    for (origin, input) in inputs.iter().map(AsRef::as_ref).enumerate() {
        match std::fs::metadata(input) {
            Ok(metadata) if metadata.is_dir() => {
                let (listing, unreadable) = walk::list_readable(input);
                if listing.images.is_empty() && unreadable.is_empty() {
                    failed.push(super::no_images(input, listing.others.len()));
                }
                failed.extend(unreadable);
                for relative in listing.images {
                    let path = input.join(&relative);
                    if seen.insert(path.clone()) {
                        collected.images.push(ImageFile { path, relative });
                        origins.push(origin);
                    }
                }
                collected.ignored.extend(listing.others.into_iter().map(|other| input.join(other)));
            }
            Ok(_) => {
                if seen.insert(input.to_path_buf()) {
                    let relative = input.file_name().map_or_else(|| input.to_path_buf(), PathBuf::from);
                    collected.images.push(ImageFile { path: input.to_path_buf(), relative });
                    origins.push(origin);
                }
            }
            Err(error) => failed.push(walk::absent(input, error, "there is no such file or folder")),
        }
    }
    let distinct: HashSet<_> = collected.images.iter().map(|image| &image.relative).collect();
    if distinct.len() < collected.images.len() {
        for (image, origin) in collected.images.iter_mut().zip(origins) {
            image.relative = Path::new(&(origin + 1).to_string()).join(&image.relative);
        }
    }
    (collected, failed)
}
