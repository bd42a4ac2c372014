//! Data sets on disk, the well-formed and the others.

use std::fs;
use std::path::{Path, PathBuf};

use masf_core::Fault;
use masf_data::{DataError, Dataset, Label, Layout, collect_images, collect_readable_images};
use tempfile::TempDir;

/// A folder with these (empty) files; layouts go by name and never open one.
fn tree(files: &[&str]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for file in files {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, []).unwrap();
    }
    root
}

fn relative(root: &TempDir, paths: impl IntoIterator<Item = PathBuf>) -> Vec<String> {
    let inside = |path: PathBuf| path.strip_prefix(root.path()).unwrap().to_str().unwrap().to_owned();
    paths.into_iter().map(inside).collect()
}

fn message(result: Result<Dataset, DataError>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error.fault(), Fault::Data | Fault::Io), "{error}");
    error.to_string()
}

const MVTEC: [&str; 13] = [
    "train/good/002.png",
    "train/good/000.png",
    "train/good/001.JPG",
    "train/good/.hidden.png",
    "train/good/Thumbs.db",
    "test/good/000.png",
    "test/crack/000.png",
    "test/crack/001.png",
    "test/crack/002.png",
    "test/stain/x.bmp",
    "ground_truth/crack/000_mask.png",
    "ground_truth/crack/002.png",
    "readme.txt",
];

#[test]
fn mvtec() {
    let root = tree(&MVTEC);
    let training = Dataset::training(&root).unwrap();
    assert_eq!(training.layout, Layout::Mvtec);
    assert!(training.samples.iter().all(|sample| sample.label == Label::Good && sample.mask.is_none()));
    let paths = training.samples.iter().map(|sample| sample.path.clone());
    assert_eq!(relative(&root, paths), ["train/good/000.png", "train/good/001.JPG", "train/good/002.png"]);
    assert_eq!(relative(&root, training.ignored), ["train/good/Thumbs.db"]);

    let test = Dataset::test(&root).unwrap();
    assert_eq!(test.kinds(), [("crack", 3), ("good", 1), ("stain", 1)]);
    let masks: Vec<_> = test.samples.iter().map(|sample| sample.mask.is_some()).collect();
    assert_eq!(masks, [true, false, true, false, false]);
    let labels: Vec<_> = test.samples.iter().map(|sample| sample.label.is_defective()).collect();
    assert_eq!(labels, [true, true, true, false, true]);
    assert!(test.stray_masks.is_empty());
    assert_eq!(
        relative(&root, test.samples.into_iter().filter_map(|sample| sample.mask)),
        ["ground_truth/crack/000_mask.png", "ground_truth/crack/002.png"]
    );
}

#[test]
fn good_and_bad() {
    let root = tree(&["good/b.png", "good/a.png", "scratched/a.png", "dented/c.png", "ground_truth/dented/c_mask.png"]);
    let training = Dataset::training(&root).unwrap();
    assert_eq!(training.layout, Layout::GoodAndBad);
    assert_eq!(relative(&root, training.samples.into_iter().map(|sample| sample.path)), ["good/a.png", "good/b.png"]);
    let test = Dataset::test(&root).unwrap();
    assert_eq!(test.kinds(), [("dented", 1), ("good", 2), ("scratched", 1)]);
    assert!(test.samples[0].mask.is_some());
}

#[test]
fn capitals_make_no_defect_of_good() {
    let root = tree(&["train/good/0.png", "test/Good/0.png", "test/crack/0.png"]);
    let test = Dataset::test(&root).unwrap();
    assert_eq!(test.kinds(), [("good", 1), ("crack", 1)]);
    assert_eq!(test.samples[0].label, Label::Good);
}

#[test]
fn capitals_make_no_defects_of_masks() {
    let root = tree(&["good/0.png", "crack/0.png", "Ground_Truth/crack/0_mask.png"]);
    let test = Dataset::test(&root).unwrap();
    assert_eq!(test.kinds(), [("crack", 1), ("good", 1)]);
    assert!(test.samples[0].mask.is_some() && test.stray_masks.is_empty(), "{test:?}");
}

#[test]
fn plain_folders_are_read_recursively() {
    let root = tree(&["b/2.png", "b/1.png", "a.png", "b-c.png", "licence.txt", ".git/x.png"]);
    let training = Dataset::training(&root).unwrap();
    assert_eq!(training.layout, Layout::Plain);
    let paths = training.samples.into_iter().map(|sample| sample.path);
    assert_eq!(relative(&root, paths), ["a.png", "b/1.png", "b/2.png", "b-c.png"]);
    assert_eq!(relative(&root, training.ignored), ["licence.txt"]);
    assert!(message(Dataset::test(&root)).contains("no labels"));
}

#[test]
fn missing_and_empty_folders_say_so() {
    let root = tree(&["file.png"]);
    assert!(message(Dataset::training(root.path().join("none"))).contains("no such folder"));
    assert!(message(Dataset::training(root.path().join("file.png"))).contains("is a file"));
    let empty = tree(&[]);
    assert!(message(Dataset::training(&empty)).contains("holds no files"));
    let without_images = tree(&["notes.txt", "film.mp4"]);
    let text = message(Dataset::training(&without_images));
    assert!(text.contains("2 other files") && text.contains("webp"), "{text}");
    assert!(message(Dataset::training(tree(&["test/good/0.png"]))).contains("train/good"));
    assert!(message(Dataset::training(tree(&["train/good/notes.txt"]))).contains("no image"));
    assert!(message(Dataset::test(tree(&["train/good/0.png"]))).contains("no folder test"));
    assert!(message(Dataset::test(tree(&["test/good/a.txt"]))).contains("no image"));
}

#[test]
fn defects_are_not_learned_by_accident() {
    let several =
        tree(&["bottle/train/good/0.png", "bottle/test/broken/0.png", "bottle/ground_truth/broken/0_mask.png"]);
    assert!(
        message(Dataset::training(&several)).contains("several")
            || message(Dataset::training(&several)).contains("collection")
    );
    assert!(message(Dataset::training(tree(&["Bad/0.png", "fine/0.png"]))).contains("good"));
    assert!(message(Dataset::test(tree(&["test/0.png", "test/good/1.png"]))).contains("without a label"));
}

#[test]
fn ambiguous_names_are_refused() {
    let add = |more: &[&str]| tree(&[&MVTEC[..], more].concat());
    let text = message(Dataset::test(add(&["ground_truth/crack/000.png"])));
    assert!(text.contains("two masks") && text.contains("000_mask.png"), "{text}");
    assert!(message(Dataset::test(add(&["ground_truth/crack/000_mask.bmp"]))).contains("extension only"));
    assert!(message(Dataset::test(add(&["test/crack/000.jpg"]))).contains("000.jpg"));
    // Where there are no masks, nothing is ambiguous.
    let root = add(&["train/good/000.jpg", "test/good/000.jpg", "test/stain/x.png"]);
    assert_eq!(Dataset::training(&root).unwrap().samples.len(), 4);
    assert_eq!(Dataset::test(&root).unwrap().kinds(), [("crack", 3), ("good", 2), ("stain", 2)]);
    // `000_mask.png` would be the mask of 000 and of 000_mask.
    assert!(message(Dataset::test(add(&["test/crack/000_mask.png"]))).contains("is the mask of"));
}

#[test]
fn masks_without_an_image() {
    let add = |more: &[&str]| tree(&[&MVTEC[..], more].concat());
    let strays = ["ground_truth/crack/009_mask.png", "ground_truth/000_mask.png", "ground_truth/hole/000_mask.png"];
    let root = add(&[&strays[..], &["ground_truth/list.txt"]].concat());
    let test = Dataset::test(&root).unwrap();
    assert_eq!(relative(&root, test.stray_masks), strays);
    assert_eq!(relative(&root, test.ignored), ["ground_truth/list.txt"]);
    // If no mask of a kind fits, the names follow another rule.
    let text = message(Dataset::test(add(&["ground_truth/stain/x_gt.png"])));
    assert!(text.contains("x_mask.png") && text.contains("x_gt.png"), "{text}");
    // Masks of good images have no meaning.
    assert!(Dataset::test(add(&["ground_truth/good/000_mask.png"])).unwrap().stray_masks.is_empty());
}

#[test]
fn collects_files_and_folders() {
    let root = tree(&["a/good/0.png", "a/crack/0.png", "a/notes.txt", "b/good/0.png", "photo.dat"]);
    let at = |name: &str| root.path().join(name);
    let relatives = |inputs: &[PathBuf]| -> Vec<PathBuf> {
        collect_images(inputs).unwrap().images.into_iter().map(|image| image.relative).collect()
    };
    assert_eq!(relatives(&[at("a"), at("photo.dat")]), ["crack/0.png", "good/0.png", "photo.dat"].map(PathBuf::from));
    assert_eq!(relatives(&[at("a"), at("b")]), ["1/crack/0.png", "1/good/0.png", "2/good/0.png"].map(PathBuf::from));
    assert_eq!(relatives(&[at("photo.dat"), at("photo.dat")]), [Path::new("photo.dat")]);
    assert_eq!(relative(&root, collect_images(&[at("a")]).unwrap().ignored), ["a/notes.txt"]);
    assert!(collect_images(&[at("none.png")]).unwrap_err().to_string().contains("none.png"));
    assert!(collect_images::<PathBuf>(&[]).is_err());
    let no_images = tree(&["a.txt"]);
    assert!(collect_images(&[no_images.path()]).unwrap_err().to_string().contains("extensions"));
    // What has no images does not hide what has.
    let (found, failed) = collect_readable_images(&[at("none.png"), no_images.path().to_path_buf(), at("b")]);
    assert_eq!(found.images.iter().map(|image| image.relative.clone()).collect::<Vec<_>>(), [Path::new("good/0.png")]);
    let failed: Vec<String> = failed.iter().map(ToString::to_string).collect();
    assert!(failed[0].contains("none.png: there is no such") && failed[1].contains("extensions"), "{failed:?}");
    assert_eq!(failed.len(), 2);
    assert!(collect_images(&[no_images.path().to_path_buf(), at("b")]).is_err());
}

#[test]
fn pictures_of_masks_are_no_images() {
    for plain in ["images/0.png", "images/masks/0.png"] {
        let root = tree(&[plain, "Masks/0.png"]);
        let problem = Dataset::training(root.path()).unwrap_err().to_string();
        assert!(problem.contains("asks; masks belong into ground_truth/KIND"), "{problem}");
    }
    let root = tree(&["good/0.png", "scratch/0.png", "masks/scratch/0.png"]);
    let problem = Dataset::test(root.path()).unwrap_err().to_string();
    assert!(problem.contains("masks: its pictures would count as defective images"), "{problem}");
    // A folder of that name is one's own to name.
    let root = tree(&["masks/0.png"]);
    assert_eq!(Dataset::training(root.path().join("masks")).unwrap().samples.len(), 1);
}

#[cfg(unix)]
mod unix {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn cycles_of_links_end_and_folders_are_read_once() {
        let root = tree(&["a/0.png", "z/1.png"]);
        symlink(root.path(), root.path().join("a/up")).unwrap();
        symlink(root.path().join("z"), root.path().join("a/link")).unwrap();
        symlink(root.path().join("z/1.png"), root.path().join("file.png")).unwrap();
        let paths = Dataset::training(&root).unwrap().samples.into_iter().map(|sample| sample.path);
        assert_eq!(relative(&root, paths), ["a/0.png", "file.png", "z/1.png"]);
    }

    #[test]
    fn masks_that_are_used_are_not_stray_under_another_name() {
        let root = tree(&["test/Crack/0.png", "ground_truth/crack/0_mask.png"]);
        // As a file system has it that does not tell capitals apart; there the link is neither possible nor needed.
        let _ = symlink("crack", root.path().join("ground_truth/Crack"));
        let test = Dataset::test(&root).unwrap();
        assert!(test.samples[0].mask.is_some() && test.stray_masks.is_empty(), "{test:?}");
    }

    #[test]
    fn a_link_to_nowhere_is_reported_when_it_is_read() {
        let root = tree(&["0.png"]);
        symlink("nowhere", root.path().join("1.png")).unwrap();
        let samples = Dataset::training(&root).unwrap().samples;
        assert_eq!(samples.len(), 2);
        let error = masf_data::read_image(&samples[1].path, &masf_data::Limits::default()).unwrap_err();
        assert!(error.to_string().contains("1.png"), "{error}");
    }

    #[test]
    fn a_folder_that_cannot_be_read_does_not_hide_the_others() {
        use std::os::unix::fs::PermissionsExt;
        let root = tree(&["a/0.png", "a/locked/1.png", "b/2.png"]);
        let locked = root.path().join("a/locked");
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
        if fs::read_dir(&locked).is_ok() {
            println!("skipped: this user may read every folder");
            return;
        }
        let (found, failed) = collect_readable_images(&[root.path()]);
        assert_eq!(found.images.len(), 2);
        assert!(failed.len() == 1 && failed[0].to_string().contains("a/locked: "), "{failed:?}");
        assert!(Dataset::training(&root).unwrap_err().to_string().contains("a/locked: "));
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn names_need_not_be_utf8() {
        let root = tree(&["train/good/0.png", "test/good/0.png"]);
        let kind = root.path().join("test").join(OsStr::from_bytes(b"kr\xe4tz"));
        let masks = root.path().join("ground_truth").join(OsStr::from_bytes(b"kr\xe4tz"));
        fs::create_dir_all(&kind).unwrap();
        fs::create_dir_all(&masks).unwrap();
        fs::write(kind.join(OsStr::from_bytes(b"\xff.png")), []).unwrap();
        fs::write(masks.join(OsStr::from_bytes(b"\xff_mask.png")), []).unwrap();
        let test = Dataset::test(&root).unwrap();
        let sample = test.samples.iter().find(|sample| sample.label.is_defective()).unwrap();
        assert!(sample.path.exists() && sample.mask.as_ref().is_some_and(|mask| mask.exists()));
        assert_eq!(sample.kind, "kr\u{fffd}tz");
    }

    #[test]
    fn pipes_are_not_opened() {
        let root = tempfile::tempdir().unwrap();
        let pipe = root.path().join("pipe.png");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success());
        assert!(made, "mkfifo");
        let error = masf_data::read_image(&pipe, &masf_data::Limits::default()).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }
}
