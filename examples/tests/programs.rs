//! The smaller examples as programs: a watched folder, thresholds, own parts, raw maps.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use masf::data::synthetic::{SyntheticConfig, write_dataset};
use masf::{Config, Detector, Size};
use serde_json::Value;
use tempfile::TempDir;

/// An example that was built with these tests.
fn example(name: &str, folder: &Path) -> Command {
    let tests = std::env::current_exe().expect("the path of this program");
    let built = tests.parent().and_then(Path::parent).expect("the build folder");
    let mut command = Command::new(built.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION));
    command.current_dir(folder);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeed(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// A folder with a small data set, where the examples look for it, and a model of it.
fn fixture() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    let demo = folder.path().join("target/demo");
    let config = SyntheticConfig { train: 8, test_good: 3, test_per_kind: 1, ..SyntheticConfig::default() };
    write_dataset(demo.join("data"), &config).expect("a data set");
    let mut config = Config::default();
    config.memory.candidates = 1000;
    config.memory.prototypes = 100;
    let detector = Detector::builder().config(config).image_size(Size::square(64)).fit_folder(demo.join("data"));
    detector.expect("a model").save(demo.join("model.masf")).expect("a file");
    folder
}

fn test_image(folder: &Path, kind: &str) -> PathBuf {
    folder.join("target/demo/data/test").join(kind).join("000.png")
}

/// Ends the program when a test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_watched_folder_gives_a_line_for_every_whole_image() {
    let folder = fixture();
    let incoming = folder.path().join("incoming");
    fs::create_dir(&incoming).expect("a folder");
    let good = fs::read(test_image(folder.path(), "good")).expect("an image");
    fs::write(incoming.join("old.png"), &good).expect("a file");
    // No heat map takes the place of a folder.
    fs::create_dir_all(folder.path().join("maps/blocked.png.png")).expect("a folder");
    let mut command = example("watch", folder.path());
    command.args(["--interval", "0.05", "--patience", "1.5", "--out", "a/lines.jsonl"]);
    command.args(["--heatmaps", "maps", "incoming"]);
    let mut watch = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the example runs"));
    // It says so once it watches; what was there before is left alone.
    let mut errors = BufReader::new(watch.0.stderr.take().expect("a pipe"));
    let mut said = String::new();
    while !said.contains("watching") {
        assert_ne!(errors.read_line(&mut said).expect("text"), 0, "{said}");
    }
    let mut lines = BufReader::new(watch.0.stdout.take().expect("a pipe")).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON") };

    // Half a file is no reason for a verdict, nor for a complaint; the whole file is inspected.
    fs::write(incoming.join("slow.png"), &good[..good.len() / 2]).expect("a file");
    std::thread::sleep(std::time::Duration::from_millis(400));
    fs::write(incoming.join("slow.png"), &good).expect("a file");
    let line = next();
    assert!(line["path"].as_str().is_some_and(|path| path.ends_with("slow.png")), "{line}");
    assert!(line["is_anomalous"].is_boolean() && line["error"].is_null(), "{line}");
    assert!(line["heatmap_error"].is_null(), "{line}");
    image::open(folder.path().join("maps/slow.png.png")).expect("a heat map");

    // One that stays broken is reported, and inspected when it changes.
    fs::write(incoming.join("broken.png"), &good[..100]).expect("a file");
    fs::write(incoming.join("notes.txt"), "no image").expect("a file");
    let line = next();
    assert!(line["error"].as_str().is_some_and(|error| error.contains("broken.png")), "{line}");
    fs::write(incoming.join("broken.png"), &good).expect("a file");
    assert!(next()["is_anomalous"].is_boolean());

    // One whose heat map cannot be written has its verdict.
    fs::write(incoming.join("blocked.png"), &good).expect("a file");
    let line = next();
    assert!(line["is_anomalous"].is_boolean(), "{line}");
    assert!(line["heatmap_error"].as_str().is_some_and(|error| error.contains("blocked.png.png")), "{line}");

    // Once nobody reads the lines, the file has them.
    drop(lines);
    fs::write(incoming.join("unread.png"), &good).expect("a file");
    let written = || fs::read_to_string(folder.path().join("a/lines.jsonl")).expect("lines");
    while !written().contains("unread.png") {
        assert!(watch.0.try_wait().expect("its state").is_none(), "it ended: {}", written());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }

    #[cfg(unix)]
    {
        Command::new("kill").args(["-INT", &watch.0.id().to_string()]).status().expect("kill runs");
        assert!(watch.0.wait().expect("the example ends").success());
    }
    drop(watch);
    let written = written();
    assert_eq!(written.lines().count(), 5, "{written}");
    let mut rest = String::new();
    errors.read_to_string(&mut rest).expect("text");
    assert!(!rest.contains("error"), "{rest}");
}

#[test]
fn a_threshold_is_chosen_without_fitting_again() {
    let folder = fixture();
    let output = example("threshold", folder.path()).args(["--rate", "0.2", "--out", "new.masf"]).output();
    let said = succeed(&output.expect("the example runs"));
    assert!(said.contains("rate 0.01*") && said.contains("largest F1 score"), "{said}");
    let demo = folder.path().join("target/demo");
    let (old, new) = (Detector::load(demo.join("model.masf")), Detector::load(folder.path().join("new.masf")));
    let (old, new) = (old.expect("a model"), new.expect("a model"));
    assert_eq!(old.calibration_scores(), new.calibration_scores());
    assert_eq!(new.threshold(), &old.threshold_for(0.2).expect("a threshold"));
    assert!(new.threshold().value < old.threshold().value);
    assert!(old.threshold_for(0.0).is_err());
    let both = example("threshold", folder.path()).args(["--rate", "0.2", "--f1"]).output().expect("it runs");
    assert_eq!(both.status.code(), Some(2));
    let nowhere = example("threshold", folder.path()).arg("--f1").output().expect("it runs");
    assert!(nowhere.status.code() == Some(2) && text(&nowhere.stderr).contains("--out"));
    // Before any image is inspected.
    let refused =
        example("threshold", folder.path()).args(["--rate", "2", "--data", "none"]).output().expect("it runs");
    assert!(text(&refused.stderr).contains("false-alarm rate is 2"), "{}", text(&refused.stderr));
}

#[test]
fn own_parts_are_fitted_and_reloaded() {
    let folder = fixture();
    for name in ["own_backbone", "own_scorer"] {
        let said = succeed(&example(name, folder.path()).output().expect("the example runs"));
        assert!(said.contains("image AUROC") && said.contains("the same after reloading"), "{said}");
        // Without the reader of the part the file says what is missing.
        let error = Detector::load(folder.path().join("target/demo").join(name).with_extension("masf"));
        let error = error.expect_err("an unknown part").to_string();
        assert!(error.contains("example."), "{error}");
    }
}

#[test]
fn tiles_are_compared_with_shrunk_images() {
    let folder = TempDir::new().expect("a temporary folder");
    let output = example("tiling", folder.path()).args(["--side", "320", "--tile", "160", "--images", "3"]).output();
    let said = succeed(&output.expect("the example runs"));
    assert_eq!(said.matches("image AUROC").count(), 2 + 2, "{said}");
    assert!(said.contains("tiles at full size"));
}

#[test]
fn spectra_are_drawn_without_an_image() {
    let folder = TempDir::new().expect("a temporary folder");
    assert!(succeed(&example("spectral", folder.path()).output().expect("it runs")).contains("target/spectral"));
    for name in ["input", "band_2", "profile", "feature_residual"] {
        let picture = folder.path().join("target/spectral").join(name).with_extension("png");
        assert!(image::open(&picture).is_ok(), "{}", picture.display());
    }
    let missing = example("spectral", folder.path()).args(["out", "none.png"]).output().expect("it runs");
    assert_eq!(missing.status.code(), Some(1));
    assert_eq!(text(&missing.stderr).lines().count(), 1, "{}", text(&missing.stderr));
    // A JPEG file is read, and too small.
    let small = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/data_images/jpeg_420.jpg");
    let small = example("spectral", folder.path()).args(["out", small]).output().expect("it runs");
    assert!(text(&small.stderr).contains("20 x 14 pixels are too few"), "{}", text(&small.stderr));
    // One that would become too narrow is scaled down less.
    let oblong = image::RgbImage::from_fn(4000, 100, |x, y| image::Rgb([x as u8, (7 * y) as u8, (x * y) as u8]));
    oblong.save(folder.path().join("oblong.png")).expect("a file");
    succeed(&example("spectral", folder.path()).args(["out", "oblong.png"]).output().expect("it runs"));
    let seen = image::image_dimensions(folder.path().join("out/input.png"));
    assert_eq!(seen.expect("a picture"), (1280, 32));
}

#[test]
fn raw_maps_are_written_for_other_programs() {
    let folder = fixture();
    let args = ["--model", "target/demo/model.masf", "--maps", "maps", "target/demo/data/test"];
    let output = example("inspect", folder.path()).args(args).output().expect("the example runs");
    let images = succeed(&output).lines().count();
    let mut maps = 0;
    for kind in fs::read_dir(folder.path().join("maps")).expect("maps") {
        for entry in fs::read_dir(kind.expect("a kind").path()).expect("maps") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "npy") {
                let bytes = fs::read(&path).expect("a file");
                assert!(bytes.starts_with(b"\x93NUMPY\x01\x00") && bytes.len() == 128 + 4 * 64 * 64);
                let values: Vec<f32> =
                    bytes[128..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
                assert!(values.iter().all(|value| value.is_finite()));
                maps += 1;
            } else {
                let picture = image::open(&path).expect("a PNG");
                assert_eq!((picture.color(), picture.width()), (image::ColorType::L16, 64));
                maps += 1;
            }
        }
    }
    assert_eq!(maps, 2 * images);
}
