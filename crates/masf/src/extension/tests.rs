use masf_memory::MemoryBankParams;

use super::*;
use crate::ByteSize;
use crate::detector::tests::{config, images};

#[test]
fn images_that_are_learned_from_set_no_thresholds() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (inner, path) = (folder.path().join("inner"), folder.path().join("a.png"));
    std::fs::create_dir(&inner).expect("a folder");
    std::fs::write(&path, b"not read").expect("a file");
    let [one, other]: [ImageInput; 2] = images(0, 2).try_into().expect("two images");
    let copy = one.decode(&Limits::default()).expect("an image");
    let same: [(ImageInput, ImageInput); 3] = [
        (path.into(), inner.join("..").join("a.png").into()),
        (ImageInput::encoded("a", vec![1u8, 2, 3]), ImageInput::encoded("b", vec![1u8, 2, 3])),
        (one.clone(), copy.into()),
    ];
    for (learned, calibration) in same {
        let calibration = [ImageInput::from("no/such/image.png"), calibration];
        let error = refuse_repeated(&[other.clone(), learned], &calibration).unwrap_err().to_string();
        assert!(error.contains("(number 2 of them); expected none that is learned from"), "{error}");
    }
    refuse_repeated(&[one], &[other]).unwrap();
}

#[test]
fn the_setting_that_differs_is_named() {
    let table = |text: &str| toml::from_str::<toml::Table>(text).unwrap();
    let own = table("seed = 1\n[threshold]\nfalse_alarm_rate = 0.05\n[fusion.gate]\nviews = 1.0");
    let found = |text: &str| difference("", &own, &table(text));
    let expected = |own: &str, other: &str| Some((own.to_owned(), other.to_owned()));
    assert_eq!(found("seed = 1\n[fusion.gate]\nviews = 1.0\n[threshold]\nfalse_alarm_rate = 0.05"), None);
    // A key that one side alone has does not shift the others.
    assert_eq!(
        found("seed = 1\n[threshold]\nfalse_alarm_rate = 0.05\nfolds = 5\n[fusion.gate]\nviews = 1.0"),
        expected("`[threshold] folds` left out", "`[threshold] folds = 5`")
    );
    assert_eq!(
        found("seed = 1\n[threshold]\nfalse_alarm_rate = 0.05\n[fusion.gate]\nviews = 2.0"),
        expected("`[fusion.gate] views = 1.0`", "`[fusion.gate] views = 2.0`")
    );
    assert_eq!(
        found("[threshold]\nfalse_alarm_rate = 0.05\n[fusion.gate]\nviews = 1.0"),
        expected("`seed = 1`", "`seed` left out")
    );
}

#[test]
fn budgets_that_are_too_small_are_told_as_a_whole() -> Result<()> {
    let tight = |seed| -> Result<Detector> {
        let mut detector = Detector::builder().config(config()).fit(images(seed, 4))?;
        detector.config.memory_budget = ByteSize::mib(1);
        detector.config.memory.prototypes = 100_000;
        Ok(detector)
    };
    let (mut own, other) = (tight(0)?, tight(1)?);
    let refused = |result: Result<()>| {
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with("memory_budget is 1MiB; expected at least "), "{error}");
    };
    refused(own.extend(images(2, 3), &ExtendOptions::default()));
    let held = ExtendOptions { calibration: images(3, 2), ..ExtendOptions::default() };
    refused(own.extend(images(2, 3), &held));
    refused(own.merge(&other, &held));
    Ok(())
}

#[test]
fn banks_that_were_given_keep_their_prototypes() -> Result<()> {
    let fit = |seed, prototypes| -> Result<Detector> {
        let bank = MemoryBankParams { prototypes, ..MemoryBankParams::default() }.check()?;
        let mut config = config();
        // Branches that are given do not learn from turned images, so they are not extended with them either.
        config.memory.turns = 4;
        Detector::builder().config(config).branch(bank).fit(images(seed, 4))
    };
    let (mut own, other) = (fit(0, 80)?, fit(1, 100)?);
    assert_eq!(own.config().memory.turns, 0);
    let count = |detector: &Detector| Ok::<_, Error>(detector.banks()?[0].search().count());
    assert!(config().memory.prototypes < 80);
    assert_eq!((count(&own)?, count(&other)?), (80, 100));
    let held = ExtendOptions { calibration: images(3, 4), ..ExtendOptions::default() };
    own.extend(images(2, 3), &held)?;
    assert_eq!(count(&own)?, 80);
    own.merge(&other, &held)?;
    assert_eq!(count(&own)?, 100);
    Ok(())
}
