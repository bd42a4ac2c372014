//! Files that are whole at any moment: written beside the old one, synced, and renamed over it.

use std::fs::{self, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::path::Path;

/// Replaces a file in one step, or makes it: `write` fills a temporary file in the same folder, whose path it is given; what it wrote is
/// synced and renamed to `path`. After a failure or an interruption at any point `path` holds what it held before; an interruption
/// may leave a hidden temporary file behind.
///
/// The new file has the permissions of the one it replaces, or those of any new file. Where `path` is a link, the file that it leads to
/// is replaced, or made.
///
/// ```
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("scores.json");
/// masf_core::replace_file(&path, |temporary| std::fs::write(temporary, "{}"))?;
/// assert_eq!(std::fs::read_to_string(&path)?, "{}");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// Those of `write` and of the file system; a `path` that is a folder, a device or a pipe.
pub fn replace_file(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if path.is_symlink() {
        let target = match fs::canonicalize(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                path.parent().unwrap_or(Path::new("")).join(fs::read_link(path)?)
            }
            found => found?,
        };
        return replace_file(&target, write);
    }
    let old = match fs::metadata(path) {
        Ok(old) if old.is_dir() => return Err(ErrorKind::IsADirectory.into()),
        // The rename would put an ordinary file in the place of `/dev/null`.
        Ok(old) if !old.is_file() => return Err(Error::new(ErrorKind::InvalidInput, "not a regular file")),
        Ok(old) => Some(old),
        Err(_) => None,
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        // Temporary files are private by default; this leaves it to the user's mask, as for any new file.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let temporary = builder.prefix(".masf-").tempfile_in(folder)?;
    let permissions = old.unwrap_or(temporary.as_file().metadata()?).permissions();
    // Closed: `write` may put another file in its place, which Windows refuses where one is open.
    let temporary = temporary.into_temp_path();
    write(&temporary)?;
    let written = OpenOptions::new().write(true).open(&temporary)?;
    written.set_permissions(permissions)?;
    written.sync_all()?;
    drop(written);
    temporary.persist(path).map_err(|error| error.error)?;
    #[cfg(unix)]
    if let Ok(folder) = fs::File::open(folder) {
        // The rename itself reaches the disk with the folder; not every file system can do this, so a refusal is no error.
        let _ = folder.sync_all();
    }
    Ok(())
}

/// Makes sure, before long work, that [`replace_file`] will be able to write a file, and makes its folder where it is missing. The file stays as it is.
///
/// # Errors
/// Those that [`replace_file`] would have, and those of making the folder.
pub fn check_replaceable(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    let mut possible = false;
    let tried = replace_file(path, |_| {
        possible = true;
        Err(ErrorKind::Interrupted.into())
    });
    if possible { Ok(()) } else { tried }
}

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn another_file_may_take_the_place_of_the_temporary_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for text in ["1", "2"] {
            let rename = |temporary: &Path| {
                // Windows alone would refuse this where it is open.
                #[cfg(target_os = "linux")]
                for open in fs::read_dir("/proc/self/fd")? {
                    let open = fs::read_link(open?.path()).unwrap_or_default();
                    assert_ne!(open.file_name(), temporary.file_name());
                }
                let other = folder.path().join("other");
                fs::write(&other, text)?;
                fs::rename(&other, temporary)
            };
            replace_file(&path, rename).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file was left");
    }

    #[cfg(unix)]
    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    #[cfg(unix)]
    fn new_files_have_the_permissions_of_any_file_and_old_ones_keep_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let (ordinary, path) = (folder.path().join("ordinary"), folder.path().join("replaced"));
        fs::write(&ordinary, "").unwrap();
        replace_file(&path, |temporary| fs::write(temporary, "1")).unwrap();
        assert_eq!(mode(&path), mode(&ordinary));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        // A writer that makes a file of its own, as safetensors does.
        let rename = |temporary: &Path| {
            let other = folder.path().join("other");
            fs::write(&other, "2")?;
            fs::set_permissions(&other, fs::Permissions::from_mode(0o600))?;
            fs::rename(&other, temporary)
        };
        replace_file(&path, rename).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("2", 0o640));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "a temporary file was left");
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "old").unwrap();
        let fail = |temporary: &Path| {
            fs::write(temporary, "half")?;
            Err(ErrorKind::StorageFull.into())
        };
        assert_eq!(replace_file(&path, fail).unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    #[cfg(unix)]
    fn links_are_followed_and_what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&path, "old").unwrap();
        symlink(&path, &link).unwrap();
        replace_file(&link, |temporary| fs::write(temporary, "new")).unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        let write = |temporary: &Path| fs::write(temporary, "new");
        let dangling = folder.path().join("dangling");
        symlink("missing", &dangling).unwrap();
        replace_file(&dangling, write).unwrap();
        assert!(dangling.is_symlink() && dangling.exists());
        assert_eq!(replace_file(folder.path(), write).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(replace_file(Path::new("/dev/null"), write).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
