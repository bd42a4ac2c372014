//! Reports and comparisons as pages of HTML.

use masf::data::Dataset;
use masf::report::{self, Compared, Gallery};
use masf::{ByteSize, Detector, Evaluation, Result, Silent};
use masf_tests::{dataset, quick_config};

/// A detector, and what it makes of the test images.
fn measured() -> Result<(Detector, Evaluation, Gallery)> {
    let detector = Detector::builder()
        .config(quick_config())
        .seed(5)
        .false_alarm_rate(0.2)
        .memory_budget(ByteSize::mib(64))
        .fit_folder(dataset())?;
    let mut gallery = Gallery::new();
    let samples = Dataset::test(dataset())?.samples;
    let evaluation = detector.evaluate_each(&samples, &Silent, |found| gallery.add(&found))?;
    Ok((detector, evaluation, gallery))
}

/// Fails if a page would ask for anything that is not in it.
fn assert_self_contained(page: &str) {
    for outside in ["src=\"http", "href=\"http", "url(", "@import"] {
        assert!(!page.contains(outside), "the page asks for {outside}");
    }
}

#[test]
fn a_report_shows_every_image_and_needs_nothing_else() -> Result<()> {
    let (detector, evaluation, gallery) = measured()?;
    let page = report::html("<Part> & co", &detector, &evaluation, &gallery)?;
    assert_self_contained(&page);
    assert!(page.contains("&lt;Part&gt; &amp; co") && !page.contains("<Part>"));
    assert_eq!(gallery.len(), evaluation.images);
    for index in 0..gallery.len() {
        assert!(page.contains(&format!("<li id=\"image-{index}\"")), "image {index} is missing");
    }
    for (kind, found) in &evaluation.kinds {
        assert!(page.contains(&format!("value=\"kind:{kind}\"")), "{kind} cannot be chosen");
        assert!(page.contains(&format!("{:.1} %", 100.0 * found.anomalous_rate)), "{kind}: {found:?}");
    }
    for told in [
        format!("{:.4}", evaluation.image_auroc),
        format!("{:.4}", evaluation.aupro.expect("masks")),
        detector.provenance().images_sha256.clone(),
        "data:image/jpeg;base64,".into(),
        "data:image/png;base64,".into(),
        "seed = 5".into(),
    ] {
        assert!(page.contains(&told), "the page does not tell {told}");
    }
    assert_eq!(report::html("<Part> & co", &detector, &evaluation, &gallery)?, page);

    let shown = evaluation.to_string();
    assert!(shown.contains(&format!("image AUROC        {:.4}", evaluation.image_auroc)), "{shown}");
    assert!(evaluation.kinds.keys().all(|kind| shown.lines().any(|line| line.starts_with(kind.as_str()))), "{shown}");

    let bare = report::html("Part", &detector, &evaluation, &Gallery::new())?;
    assert!(!bare.contains("<li id=\"image-") && bare.contains("Kinds"));
    Ok(())
}

#[test]
fn a_comparison_has_a_row_and_a_heat_map_for_every_model() -> Result<()> {
    let (_, evaluation, gallery) = measured()?;
    let bank = Compared {
        name: "bank",
        evaluation: &evaluation,
        gallery: &gallery,
        fit_seconds: 1.25,
        fit_memory: Some(12_345_678),
        model_bytes: 2_000_000,
    };
    let other = Compared { name: "other", fit_memory: None, ..bank };
    let table = report::comparison_table(&[bank, other]);
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 4, "{table}");
    assert!(
        rows[2].starts_with("| bank |") && rows[2].contains("1.2 s") && rows[2].contains("12.3 MB, 2.0 MB"),
        "{table}"
    );
    assert!(rows[3].starts_with("| other |") && rows[3].contains("-, 2.0 MB"), "{table}");

    let page = report::comparison("Parts", &[bank, other]);
    assert_self_contained(&page);
    for name in ["bank", "other"] {
        assert_eq!(page.matches(&format!("alt=\"heat map of {name}\"")).count(), gallery.len());
    }
    assert!(report::comparison("Nothing", &[]).contains("Heat maps"));
    Ok(())
}
