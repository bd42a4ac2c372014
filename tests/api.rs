//! What the facade is like to use: iterators, thresholds, serialised results.

use std::cell::Cell;

use masf::data::{Dataset, ImageInput};
use masf::{Detector, Fault, Preset, Result, Silent, Size, ThresholdSource};
use masf_tests::{dataset, fitted};

#[test]
fn images_are_taken_as_results_are_asked_for() -> Result<()> {
    let detector = fitted()?;
    let paths: Vec<_> = Dataset::test(dataset())?.samples.into_iter().map(|sample| sample.path).collect();
    let taken = Cell::new(0);
    let endless = (0..).map(|index: usize| {
        taken.set(taken.get() + 1);
        // Every fifth one cannot be read.
        if index % 5 == 4 { "no such file.png".into() } else { paths[index % paths.len()].clone() }
    });
    let mut inspections = detector.inspect_iter(endless);
    assert_eq!(taken.get(), 0);
    for index in 0..40 {
        match inspections.next().expect("it never ends") {
            Ok(found) => assert_eq!(found.image_score, detector.inspect(&paths[index % paths.len()])?.image_score),
            Err(error) => assert!(index % 5 == 4 && error.to_string().contains("no such file"), "{error}"),
        }
    }
    assert_eq!(taken.get(), 64);
    let mut some = detector.inspect_iter(&paths[..3]);
    assert_eq!(some.size_hint(), (3, Some(3)));
    assert!(some.next().is_some());
    assert_eq!((some.size_hint(), some.count()), ((2, Some(2)), 2));
    Ok(())
}

#[test]
fn every_form_of_an_image_gives_the_same_score() -> Result<()> {
    let detector = fitted()?;
    let path = Dataset::test(dataset())?.samples[0].path.clone();
    let image = image::open(&path).expect("an image");
    let rgb = image.to_rgb8();
    let bytes = std::fs::read(&path).expect("a file");
    let tensor =
        candle_core::Tensor::from_slice(rgb.as_raw(), (256, 256, 3), &candle_core::Device::Cpu)?.permute((2, 0, 1))?;
    let expected = detector.inspect(&path)?.image_score;
    let inputs = [
        ImageInput::from(&image),
        ImageInput::from(rgb.clone()),
        ImageInput::rgb8(256, 256, rgb.into_raw())?,
        ImageInput::encoded("upload", bytes),
        ImageInput::from_tensor(&tensor)?,
    ];
    for input in &inputs {
        assert_eq!(detector.inspect(input.clone())?.image_score, expected, "{}", input.name());
    }
    for result in detector.inspect_batch(inputs) {
        assert_eq!(result?.image_score, expected);
    }
    let error = detector.inspect(ImageInput::encoded("upload 7", b"GIF89a".to_vec())).expect_err("no image");
    assert!(error.fault() == Fault::Data && error.to_string().contains("upload 7"), "{error}");
    Ok(())
}

#[test]
fn thresholds_of_other_rates_come_from_the_model() -> Result<()> {
    let detector = fitted()?;
    let scores = detector.calibration_scores().to_vec();
    assert!(scores.len() == 16 && scores.is_sorted());
    assert_eq!(detector.threshold_for(detector.config().threshold.false_alarm_rate)?, *detector.threshold());
    let loose = detector.threshold_for(0.25)?;
    assert!(loose.value < detector.threshold().value);
    assert!(matches!(loose.source, ThresholdSource::Conformal { images: 16, extrapolated: false, .. }));
    // A quarter of the images that it came from may lie above it, no more.
    assert!(scores.iter().filter(|score| loose.is_exceeded_by(**score)).count() <= 4);
    for rate in [0.0, 1.0, f64::NAN] {
        assert_eq!(detector.threshold_for(rate).expect_err("no rate").fault(), Fault::Argument);
    }
    Ok(())
}

#[test]
fn builders_settings_are_those_of_the_configuration() -> Result<()> {
    let built = Detector::builder()
        .preset(Preset::Fast)
        .seed(7)
        .image_size(Size::square(64))
        .false_alarm_rate(0.2)
        .memory_budget("64MiB".parse()?)
        .fit_folder(dataset())?;
    let config = built.config();
    assert_eq!((config.seed, config.input.size, config.threshold.false_alarm_rate), (7, Size::square(64), 0.2));
    assert_eq!(config.memory_budget.to_string(), "64MiB");
    let missing = Detector::builder().fit_folder("no such folder").expect_err("no folder").to_string();
    assert!(missing.contains("no such folder"), "{missing}");
    Ok(())
}

#[test]
fn results_serialise_without_their_maps() -> Result<()> {
    let detector = fitted()?;
    let samples = Dataset::test(dataset())?.samples;
    let defective = samples.iter().find(|sample| sample.kind == "missing_piece").expect("a defective image");
    let found = detector.inspect(&defective.path)?;
    let value = serde_json::to_value(&found).expect("JSON");
    assert_eq!(value["image_score"], serde_json::json!(found.image_score));
    assert_eq!(value["threshold"]["source"]["kind"], "conformal");
    assert_eq!(value["geometry"]["image"]["height"], 256);
    assert_eq!(value["regions"].as_array().map(Vec::len), Some(found.regions.len()));
    assert!(value.get("anomaly_map").is_none() && value.get("uncertainty_map").is_none());
    let evaluation = detector.evaluate(&samples, &Silent)?;
    let scores = serde_json::to_value(&evaluation.scores).expect("JSON");
    assert_eq!(scores[0]["kind"], evaluation.scores[0].kind.as_str());
    // Other systems refuse a name that is not UTF-8.
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut samples = samples;
        let path = folder.path().join(std::ffi::OsStr::from_bytes(b"\xe4.png"));
        std::fs::copy(&samples[0].path, &path).expect("a copy");
        samples[0].path = path;
        let evaluation = serde_json::to_value(detector.evaluate(&samples, &Silent)?).expect("JSON");
        let name = evaluation["scores"][0]["path"].as_str().expect("text");
        assert!(name.ends_with("/\u{fffd}.png"), "{name}");
    }
    Ok(())
}
