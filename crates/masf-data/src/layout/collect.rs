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

/// What [`collect_images`] found.
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
/// [`DataError::Layout`] if the list is empty, something on it does not exist, or there is no image at all;
/// [`DataError::Io`] if a folder cannot be read.
pub fn collect_images<P: AsRef<Path>>(inputs: &[P]) -> Result<Collected> {
    let mut collected = Collected::default();
    let mut origins = Vec::new();
    let mut seen = HashSet::new();
    for (origin, input) in inputs.iter().map(AsRef::as_ref).enumerate() {
        if input.is_dir() {
            let listing = walk::list(input)?;
            for relative in listing.images {
                let path = input.join(&relative);
                if seen.insert(path.clone()) {
                    collected.images.push(ImageFile { path, relative });
                    origins.push(origin);
                }
            }
            collected.ignored.extend(listing.others.into_iter().map(|other| input.join(other)));
        } else if input.exists() {
            if seen.insert(input.to_path_buf()) {
                let relative = input.file_name().map_or_else(|| input.to_path_buf(), PathBuf::from);
                collected.images.push(ImageFile { path: input.to_path_buf(), relative });
                origins.push(origin);
            }
        } else {
            return Err(DataError::layout(input, "there is no such file or folder"));
        }
    }
    if collected.images.is_empty() {
        let first = inputs.first().map(|input| input.as_ref().to_path_buf()).unwrap_or_default();
        let problem = match inputs.len() {
            0 => "no image or folder was named".to_owned(),
            _ => format!("no image found; expected files with the extensions {}", walk::EXTENSIONS.join(", ")),
        };
        return Err(DataError::layout(first, problem));
    }
    let distinct: HashSet<_> = collected.images.iter().map(|image| &image.relative).collect();
    if distinct.len() < collected.images.len() {
        for (image, origin) in collected.images.iter_mut().zip(origins) {
            image.relative = Path::new(&(origin + 1).to_string()).join(&image.relative);
        }
    }
    Ok(collected)
}
