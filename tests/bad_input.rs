//! Bad input gets an error that names the thing; nothing panics, nothing saved is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::{ImageFormat, RgbImage};
use masf::data::Dataset;
use masf::{Config, Detector, Error, Fault, Progress, Result, Silent, Weights};
use masf_tests::{dataset, fitted, quick_config, training_images};
use tempfile::TempDir;

fn folder() -> TempDir {
    TempDir::new().expect("a temporary folder")
}

/// What fitting on a folder says.
fn refusal(path: &Path) -> Error {
    let fit = || -> Result<Detector> {
        let images: Vec<PathBuf> = Dataset::training(path)?.samples.into_iter().map(|sample| sample.path).collect();
        Detector::builder().config(quick_config()).fit(images)
    };
    fit().expect_err("it must be refused")
}

fn assert_names(error: &Error, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "the message lacks {word:?}: {text}");
    }
}

/// A folder with good images, and one more file of the given content.
fn good_images_and(name: &str, content: &[u8]) -> TempDir {
    let target = folder();
    for (index, image) in training_images().expect("a data set").iter().take(4).enumerate() {
        fs::copy(image, target.path().join(format!("good{index}.png"))).expect("a copy");
    }
    fs::write(target.path().join(name), content).expect("a file");
    target
}

/// A good PNG.
fn png() -> Vec<u8> {
    let noise = RgbImage::from_fn(200, 160, |x, y| image::Rgb([(x * 7 + y * 13) as u8, (x * y) as u8, (x ^ y) as u8]));
    let mut bytes = Vec::new();
    noise.write_to(&mut std::io::Cursor::new(&mut bytes), ImageFormat::Png).expect("an image");
    bytes
}

#[test]
fn missing_and_empty_folders() {
    let empty = folder();
    assert_names(&refusal(empty.path()), &[&empty.path().display().to_string()]);
    let missing = empty.path().join("missing");
    assert_names(&refusal(&missing), &["missing"]);
    fs::write(empty.path().join("readme.txt"), "no image").expect("a file");
    assert_names(&refusal(empty.path()), &[&empty.path().display().to_string()]);
}

#[test]
fn files_that_are_no_images() {
    let text = good_images_and("zz.png", b"this is not a picture");
    assert_names(&refusal(text.path()), &["zz.png"]);
    let jpeg = include_bytes!("data/data_images/jpeg_444.jpg");
    for length in [jpeg.len() / 2, jpeg.len() - 2] {
        let truncated = good_images_and("zz.jpg", &jpeg[..length]);
        assert_names(&refusal(truncated.path()), &["zz.jpg"]);
    }
    let png = png();
    let truncated = good_images_and("zz.png", &png[..png.len() / 2]);
    assert_names(&refusal(truncated.path()), &["zz.png"]);
}

#[test]
fn a_header_that_claims_a_huge_image() {
    let mut png = png();
    // Width and height in the IHDR chunk, and its checksum.
    png[16..20].copy_from_slice(&60_000u32.to_be_bytes());
    png[20..24].copy_from_slice(&60_000u32.to_be_bytes());
    let checksum = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.to_be_bytes());
    let huge = good_images_and("zz.png", &png);
    assert_names(&refusal(huge.path()), &["zz.png", "60000"]);
}

/// The checksum of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

#[test]
fn bad_images_can_be_skipped_and_are_listed() -> Result<()> {
    let images = good_images_and("zz.png", b"this is not a picture");
    let paths: Vec<PathBuf> = Dataset::training(images.path())?.samples.into_iter().map(|sample| sample.path).collect();
    let (detector, report) = Detector::builder().config(quick_config()).skip_bad(true).fit_with_report(paths)?;
    assert_eq!((detector.provenance().images, detector.provenance().skipped), (4, 1));
    assert_names(&report.skipped[0], &["zz.png"]);
    Ok(())
}

/// Removes a file as a stage begins.
struct Removes(&'static str, PathBuf);

impl Progress for Removes {
    fn start(&self, stage: &str, _: u64) {
        if stage.starts_with(self.0) {
            fs::remove_file(&self.1).ok();
        }
    }

    fn step(&self, _: u64) {}

    fn finish(&self) {}
}

#[test]
fn an_image_that_vanishes_once_learned_from_sets_no_threshold() -> Result<()> {
    for (stage, noise) in [("thresholds", 0), ("calibration", 1)] {
        let fit = |skip| -> Result<_> {
            let images = good_images_and("zz.png", &png());
            let paths: Vec<PathBuf> =
                Dataset::training(images.path())?.samples.into_iter().map(|sample| sample.path).collect();
            let mut config = quick_config();
            config.input.size = masf::Size::square(64);
            config.views.noise = noise;
            let progress = Arc::new(Removes(stage, images.path().join("good1.png")));
            Detector::builder().config(config).skip_bad(skip).progress(progress).fit_with_report(paths)
        };
        assert_names(&fit(false).expect_err("an image is missing"), &["good1.png"]);
        let (detector, report) = fit(true)?;
        assert_eq!((detector.provenance().images, detector.provenance().skipped, report.skipped.len()), (5, 0, 1));
        assert_names(&report.skipped[0], &["good1.png"]);
        let source = detector.threshold().source;
        assert!(matches!(source, masf::ThresholdSource::Conformal { images: 4, .. }), "{source:?}");
    }
    Ok(())
}

#[test]
fn one_training_image() -> Result<()> {
    let images = training_images()?;
    let error = Detector::builder().config(quick_config()).fit(&images[..1]).expect_err("one image is too few");
    assert_eq!(error.fault(), Fault::Data);
    assert_names(&error, &["at least 2"]);
    let none: [&Path; 0] = [];
    assert_names(&Detector::builder().config(quick_config()).fit(none).expect_err("no image"), &["at least 2"]);
    // Two are enough to fit; the threshold says that it is extrapolated.
    let detector = Detector::builder().config(quick_config()).fit(&images[..2])?;
    assert!(matches!(
        detector.threshold().source,
        masf::ThresholdSource::Conformal { extrapolated: true, images: 2, .. }
    ));
    Ok(())
}

#[test]
fn shares_of_branches_that_do_not_exist() -> Result<()> {
    let mut config = quick_config();
    config.fusion.weights = Weights::Shares([("memroy".to_owned(), 2.0)].into());
    let error = Detector::builder().config(config).fit(training_images()?).expect_err("a name is wrong");
    assert_eq!(error.fault(), Fault::Argument);
    assert_names(&error, &["fusion.weights.shares", "memroy", "memory or student"]);
    Ok(())
}

#[test]
fn damaged_models() -> Result<()> {
    let target = folder();
    let path = target.path().join("model.masf");
    fitted()?.save(&path)?;
    let bytes = fs::read(&path).expect("the model");
    let load = |name: &str, bytes: &[u8]| {
        let path = target.path().join(name);
        fs::write(&path, bytes).expect("a file");
        Detector::load(&path).expect_err("it must be refused")
    };
    for length in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        assert_names(&load("truncated.masf", &bytes[..length]), &["truncated.masf"]);
    }
    for place in [20, 300, bytes.len() / 2, bytes.len() - 1] {
        let mut flipped = bytes.clone();
        flipped[place] ^= 4;
        assert_names(&load("flipped.masf", &flipped), &["flipped.masf"]);
    }
    let mut oversized = bytes.clone();
    oversized[..8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    assert_names(&load("oversized.masf", &oversized), &["oversized.masf"]);
    assert_names(&load("text.masf", b"not a model"), &["text.masf"]);
    let missing = Detector::load(target.path().join("missing.masf")).expect_err("no file");
    assert_eq!(missing.fault(), Fault::Io);
    assert_names(&missing, &["missing.masf"]);
    assert_names(&Detector::load(target.path()).expect_err("a folder"), &["directory"]);
    Ok(())
}

#[test]
fn a_model_of_a_newer_version() {
    let target = folder();
    let path = target.path().join("newer.masf");
    let document = r#"{"format_version":2,"sections":{},"sha256":""}"#;
    let metadata = std::collections::HashMap::from([("masf".to_owned(), document.to_owned())]);
    let tensors: [(&str, candle_core::Tensor); 0] = [];
    let bytes = safetensors::serialize(tensors, Some(metadata)).expect("a container");
    fs::write(&path, bytes).expect("a file");
    let error = Detector::load(&path).expect_err("it is newer");
    assert_eq!(error.fault(), Fault::Model);
    assert_names(&error, &["newer.masf", "version 2", "update"]);
}

#[test]
fn weights_of_another_network_and_weights_that_are_not_finite() {
    let target = folder();
    let path = target.path().join("weights.safetensors");
    let write = |name: &str, value: f32| {
        let tensor = candle_core::Tensor::full(value, (64, 3, 7, 7), &candle_core::Device::Cpu).expect("a tensor");
        fs::write(&path, safetensors::serialize([(name, tensor)], None).expect("a container")).expect("a file");
    };
    let open = |name: &str| {
        let config = Config::from_toml(&format!("backbone.name = '{name}'")).expect("a configuration");
        masf::open_backbone(&config.backbone, Some(&path), &Silent).err().expect("it must be refused")
    };
    write("somebody.elses.weight", 1.0);
    assert_names(&open("resnet18"), &["weights.safetensors", "layer1.0.conv1.weight"]);
    write("conv1.weight", f32::NAN);
    assert_names(&open("resnet18"), &["weights.safetensors", "conv1.weight"]);
    fs::write(&path, b"not a container").expect("a file");
    assert_names(&open("resnet18"), &["weights.safetensors"]);
    fs::remove_file(&path).expect("a file to remove");
    assert_names(&open("resnet18"), &["weights.safetensors"]);
    assert_names(&open("resnet19"), &["resnet19", "resnet18"]);
}

#[test]
fn weights_are_needed_where_a_network_has_them() {
    let config = Config::from_toml("backbone.name = 'resnet18'").expect("a configuration");
    let error = masf::open_backbone(&config.backbone, None, &Silent).err().expect("there are no weights");
    assert_names(&error, &["resnet18", "weights"]);
}

#[test]
fn test_sets_of_one_class_and_masks_of_another_size() -> Result<()> {
    let detector = fitted()?;
    let samples = Dataset::test(dataset())?.samples;
    let (bad, good): (Vec<_>, Vec<_>) = samples.iter().cloned().partition(|sample| sample.label.is_defective());
    assert_names(&detector.evaluate(&good, &Silent).expect_err("no defects"), &["good"]);
    assert_names(&detector.evaluate(&bad, &Silent).expect_err("no good ones"), &["defective"]);
    assert!(detector.evaluate(&[], &Silent).is_err());

    let target = folder();
    let mask = target.path().join("small_mask.png");
    image::GrayImage::from_pixel(8, 8, image::Luma([255])).save(&mask).expect("a mask");
    let mut wrong = samples.clone();
    for sample in &mut wrong {
        if sample.mask.is_some() {
            sample.mask = Some(mask.clone());
        }
    }
    assert_names(&detector.evaluate(&wrong, &Silent).expect_err("the sizes differ"), &["small_mask.png", "8x8"]);
    Ok(())
}

#[test]
fn an_unreadable_image_does_not_stop_a_batch() -> Result<()> {
    let images = good_images_and("zz.png", b"this is not a picture");
    let mut paths: Vec<PathBuf> =
        Dataset::training(images.path())?.samples.into_iter().map(|sample| sample.path).collect();
    paths.insert(1, images.path().join("gone.png"));
    let results = fitted()?.inspect_batch(&paths);
    let failed: Vec<usize> = (0..results.len()).filter(|index| results[*index].is_err()).collect();
    assert_eq!(failed, [1, 5]);
    assert_names(results[1].as_ref().expect_err("missing"), &["gone.png"]);
    Ok(())
}

#[test]
fn unknown_and_impossible_options() {
    for (text, word) in [
        ("sede = 1", "sede"),
        ("[memory]\nprototype = 5", "prototype"),
        ("[memory]\nprototypes = 0", "prototypes"),
        ("[adtr]\nwidth = 100", "[adtr] width"),
        ("[distill]\nneighbourhood = 2", "[distill] neighbourhood"),
        ("backbone.strides = [16, 8]", "backbone.strides"),
        ("[input]\nsize = '0'", "size"),
        ("[input]\nsize = 'large'", "large"),
        ("[threshold]\nfalse_alarm_rate = 1.5", "false_alarm_rate"),
        ("[fusion]\nsmoothing_sigma = -1", "smoothing_sigma"),
        ("memory_budget = 'lots'", "lots"),
        ("seed = 'seven'", "seed"),
        ("not toml", "expected"),
    ] {
        assert_names(&Config::from_toml(text).expect_err(text), &[word]);
    }
}
