//! The page of a report.

use std::collections::BTreeMap;

use masf_core::Result;
use masf_core::artifact::{SaveOptions, fingerprint};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::gallery::{Entry, Gallery};
use super::plots::{Curve, histogram};
use crate::evaluation::{KindEvaluation, SampleScore, number, percent};
use crate::{Detector, Evaluation, heatmap};

pub(super) const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Verdicts at least as uncertain as this are flagged: a score within about a fifth of the way from the threshold to the typical score.
const UNSURE: f32 = 0.75;
/// Most wrong verdicts that are listed before the gallery.
const LISTED: usize = 60;

pub(super) fn render(title: &str, detector: &Detector, evaluation: &Evaluation, gallery: &Gallery) -> Result<Markup> {
    let configuration = detector.config().to_toml()?;
    let cards = gallery.sorted();
    Ok(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " - masf" }
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    p.lead {
                        (evaluation.images) " images inspected with the backbone " (detector.backbone().name())
                        ", learned from " (detector.provenance().images) " good images"
                    }
                    nav aria-label="Sections" {
                        a href="#summary" { "Summary" }
                        a href="#curves" { "Curves" }
                        a href="#kinds" { "Kinds" }
                        @if !cards.is_empty() { a href="#images" { "Images" } }
                        a href="#provenance" { "Provenance" }
                    }
                }
                main {
                    section #summary aria-label="Summary" { (summary(evaluation)) }
                    section #curves {
                        h2 { "Scores and curves" }
                        div.plots { (plots(evaluation)) }
                    }
                    section #kinds { h2 { "Kinds" } (kinds(evaluation, !cards.is_empty())) }
                    @if !cards.is_empty() {
                        section #images { (images(&cards, &evaluation.kinds, gallery.has_masks())) }
                    }
                    section #provenance {
                        h2 { "Configuration and provenance" }
                        (provenance(detector, evaluation))
                        details { summary { "All settings" } pre tabindex="0" { (configuration) } }
                    }
                }
                @if !cards.is_empty() { script { (PreEscaped(SCRIPT)) } }
            }
        }
    })
}

fn summary(evaluation: &Evaluation) -> Markup {
    let cards = [
        ("image AUROC", number(Some(evaluation.image_auroc))),
        ("image AP", number(Some(evaluation.image_ap))),
        ("image F1-max", number(Some(evaluation.image_f1_max))),
        ("pixel AUROC", number(evaluation.pixel_auroc)),
        ("pixel AP", number(evaluation.pixel_ap)),
        ("AUPRO", number(evaluation.aupro)),
        ("false alarms", percent(evaluation.false_alarm_rate)),
        ("defects found", percent(evaluation.detection_rate)),
        ("wrong verdicts", percent(evaluation.error_rate)),
        ("wrong, without the most uncertain tenth", percent(evaluation.error_rate_of_certain)),
    ];
    html! {
        dl.cards { @for (name, value) in cards { div { dt { (name) } dd { (value) } } } }
        @if let Some(reason) = &evaluation.pixel_metrics_missing { p.note { "No pixel metrics: " (reason) } }
        @if let Some(warning) = &evaluation.drift.warning { p.note role="alert" { strong { "Drift: " } (warning) } }
    }
}

/// What the threshold does to the images: where it lies on the curves.
struct AtThreshold {
    false_positive_rate: f64,
    recall: f64,
    precision: Option<f64>,
}

impl AtThreshold {
    fn new(evaluation: &Evaluation) -> Self {
        let is_found = |score: &&SampleScore| score.image_score > evaluation.threshold;
        let found = evaluation.scores.iter().filter(is_found).count();
        let right = evaluation.scores.iter().filter(is_found).filter(|score| score.defective).count();
        Self {
            false_positive_rate: evaluation.false_alarm_rate,
            recall: evaluation.detection_rate,
            precision: (found > 0).then(|| right as f64 / found as f64),
        }
    }
}

fn plots(evaluation: &Evaluation) -> Markup {
    let of = |defective: bool| -> Vec<f32> {
        evaluation.scores.iter().filter(|s| s.defective == defective).map(|s| s.image_score).collect()
    };
    let curves = &evaluation.curves;
    let at = AtThreshold::new(evaluation);
    let roc = Curve {
        title: format!("ROC of the images, area {:.4}", evaluation.image_auroc),
        horizontal: "false-positive rate",
        vertical: "true-positive rate",
        limit: 1.0,
        points: curves.roc.iter().map(|p| (p.false_positive_rate, p.true_positive_rate)).collect(),
        chance: true,
        mark: Some((at.false_positive_rate, at.recall)),
    };
    let precision_recall = Curve {
        title: format!("Precision and recall of the images, average {:.4}", evaluation.image_ap),
        horizontal: "recall",
        vertical: "precision",
        limit: 1.0,
        points: curves.precision_recall.iter().map(|p| (p.recall, p.precision)).collect(),
        chance: false,
        mark: at.precision.map(|precision| (at.recall, precision)),
    };
    let pro = Curve {
        title: format!("Overlap with the regions of the masks (PRO), area {}", number(evaluation.aupro)),
        horizontal: "false-positive rate of the pixels",
        vertical: "overlap",
        limit: masf_metrics::AUPRO_FPR_LIMIT,
        points: curves.pro.iter().map(|p| (p.false_positive_rate, p.overlap)).collect(),
        chance: false,
        mark: None,
    };
    html! {
        (histogram(&of(false), &of(true), evaluation.threshold))
        (roc.draw())
        (precision_recall.draw())
        @if !pro.points.is_empty() { (pro.draw()) }
    }
}

fn kinds(evaluation: &Evaluation, linked: bool) -> Markup {
    let found = |kind: &str| {
        let of_kind = evaluation.scores.iter().filter(|score| score.kind == kind);
        of_kind.filter(|score| score.image_score > evaluation.threshold).count()
    };
    html! {
        div.scroll tabindex="0" role="region" aria-label="Table of the kinds" {
            table {
                thead { tr { th scope="col" { "kind" } th scope="col" { "images" } th scope="col" { "image AUROC" }
                    th scope="col" { "called anomalous" } th scope="col" { "share" } } }
                tbody {
                    @for (kind, of_kind) in &evaluation.kinds {
                        tr {
                            th scope="row" {
                                @if linked { a href="#images" data-filter=(format!("kind:{kind}")) { (kind) } } @else { (kind) }
                            }
                            td { (of_kind.images) }
                            td { (number(of_kind.image_auroc)) }
                            td { (found(kind)) }
                            td { (percent(of_kind.anomalous_rate)) }
                        }
                    }
                }
            }
        }
        p.note { "Image AUROC of a kind: its images against all good ones." }
    }
}

fn images(cards: &[&Entry], kinds: &BTreeMap<String, KindEvaluation>, masks: bool) -> Markup {
    let wrong: Vec<(usize, &&Entry)> =
        cards.iter().enumerate().filter(|(_, entry)| entry.is_anomalous != entry.defective).collect();
    html! {
        h2 { "Images" }
        p.note {
            "The slider of a picture goes from the image over its heat map " @if masks { "to the mask. " } @else { "and back. " }
            "Heat maps share one colour scale: its middle is the pixel threshold, and what lies above is outlined. Verdicts close to the "
            "threshold are flagged as uncertain."
        }
        (legend())
        @if !wrong.is_empty() {
            details.wrong-list {
                summary { (wrong.len()) " wrong verdicts" }
                ul {
                    @for (place, entry) in wrong.iter().take(LISTED) {
                        li {
                            a href=(format!("#image-{place}")) { (entry.name) }
                            ": " (if entry.defective { "missed" } else { "false alarm" }) (format!(", {:.3}", entry.normalised_score))
                        }
                    }
                    @if wrong.len() > LISTED { li { "and " (wrong.len() - LISTED) " more" } }
                }
            }
        }
        div.controls {
            label { "Order" br;
                select #order {
                    option value="falling" { "most anomalous first" }
                    option value="rising" { "most normal first" }
                    option value="unsure" { "most uncertain first" }
                }
            }
            label { "Show" br;
                select #filter {
                    option value="all" { "all" }
                    option value="missed" { "missed defects" }
                    option value="false-alarm" { "false alarms" }
                    option value="uncertain" { "uncertain" }
                    @for kind in kinds.keys() { option value=(format!("kind:{kind}")) { (kind) } }
                }
            }
            label { "All pictures: image, heat map" @if masks { ", mask" } br;
                input #all-layers type="range" min="0" max=(if masks { "2" } else { "1" }) step="0.1" value="1";
            }
            output #shown aria-live="polite" { (cards.len()) " images" }
        }
        ul.gallery { @for (place, entry) in cards.iter().enumerate() { (card(place, entry)) } }
    }
}

/// The colour scale of the heat maps.
fn legend() -> Markup {
    let stops: Vec<String> = (0..=16)
        .map(|step| {
            let [r, g, b] = heatmap::colour(f64::from(step) / 16.0).0;
            format!("rgb({r} {g} {b})")
        })
        .collect();
    html! {
        div.legend role="img" aria-label="Colour scale of the heat maps: dark is normal, the middle is the threshold, bright is anomalous" {
            span { "0 normal" }
            div.bar style=(format!("background:linear-gradient(90deg,{})", stops.join(","))) { i {} }
            span { "1 anomalous" }
            span.middle { "0.5 threshold" }
        }
    }
}

fn card(place: usize, entry: &Entry) -> Markup {
    let right = entry.is_anomalous == entry.defective;
    let unsure = entry.uncertainty >= UNSURE;
    let mut flags = Vec::new();
    if !right {
        flags.push(if entry.defective { "missed" } else { "false-alarm" });
    }
    if unsure {
        flags.push("uncertain");
    }
    let verdict = if entry.is_anomalous { "anomalous" } else { "normal" };
    let (width, height) = entry.size;
    let layers = if entry.mask.is_some() { ("2", "image, heat map, mask") } else { ("1", "image, heat map") };
    let id = format!("image-{place}");
    html! {
        li id=(id) data-score=(entry.image_score) data-uncertainty=(entry.uncertainty) data-kind=(entry.kind)
            data-flags=(flags.join(" ")) {
            div.stack {
                img src=(entry.image) width=(width) height=(height) decoding="async" alt=(format!("{}, {verdict}", entry.name));
                img.heat src=(entry.heat) width=(width) height=(height) decoding="async" alt="its heat map";
                @if let Some(mask) = &entry.mask {
                    img.mask src=(mask) width=(width) height=(height) decoding="async" alt="its mask";
                }
            }
            label.layer { (layers.1)
                input type="range" min="0" max=(layers.0) step="0.1" value="1" aria-label=(format!("{}: {}", entry.name, layers.1));
            }
            p.name { a href=(format!("#{id}")) { (file_name(&entry.name)) } }
            p.verdict {
                span class=(if right { "right" } else { "wrong" }) {
                    (verdict) @if !right { (if entry.defective { ", but defective" } else { ", but good" }) }
                }
                " " (format!("{:.3}", entry.normalised_score)) " "
                @if unsure { span.tag.unsure { "uncertain" } }
            }
            p.verdict {
                @match entry.regions.as_slice() {
                    [] => { "no region above the threshold" }
                    [first, rest @ ..] => {
                        (first.height) " x " (first.width) " at row " (first.top) ", column " (first.left)
                        @if !rest.is_empty() { " and " (rest.len()) " more" }
                    }
                }
            }
        }
    }
}

/// A name that breaks after its folder rather than in its extension.
fn file_name(name: &str) -> Markup {
    let (folder, file) = name.split_at(name.rfind('/').map_or(0, |slash| slash + 1));
    let (stem, extension) = file.split_at(file.rfind('.').filter(|dot| file.len() - dot <= 5).unwrap_or(file.len()));
    html! { (folder) wbr; (stem) span.whole { (extension) } }
}

fn provenance(detector: &Detector, evaluation: &Evaluation) -> Markup {
    let provenance = detector.provenance();
    let defective = evaluation.scores.iter().filter(|score| score.defective).count();
    let good = evaluation.scores.len() - defective;
    let mut rows = vec![
        ("written by", format!("masf {}", provenance.masf_version)),
        ("backbone", detector.backbone().name().to_owned()),
    ];
    rows.extend(weights_sha256(detector).map(|sha256| ("SHA-256 of its weights", sha256)));
    rows.extend([
        ("input size", detector.config().input.size.to_string()),
        ("training images", format!("{} ({} left out)", provenance.images, provenance.skipped)),
        ("SHA-256 of the training images", provenance.images_sha256.clone()),
        ("test images", format!("{} ({good} good, {defective} defective)", evaluation.images)),
        ("seed", detector.config().seed.to_string()),
        ("threshold", detector.threshold().to_string()),
        ("pixel threshold", detector.pixel_threshold().to_string()),
    ]);
    html! {
        div.scroll tabindex="0" role="region" aria-label="Table of the provenance" {
            table.facts { tbody { @for (name, value) in rows { tr { th scope="row" { (name) } td { (value) } } } } }
        }
    }
}

/// The checksum of the backbone's weights, as a model file that refers to them records it; `None` for backbones without such weights.
fn weights_sha256(detector: &Detector) -> Option<String> {
    let document = fingerprint(detector.backbone(), SaveOptions { reference_weights: true }).ok()?;
    let document: serde_json::Value = serde_json::from_str(&document).ok()?;
    Some(document.pointer("/sections//data/weights_sha256")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, uncertainty: f32) -> Entry {
        Entry {
            name: name.to_owned(),
            kind: "good".to_owned(),
            defective: false,
            is_anomalous: false,
            normalised_score: 0.4,
            image_score: 1.0,
            uncertainty,
            regions: Vec::new(),
            size: (1, 1),
            image: String::new(),
            heat: String::new(),
            mask: None,
        }
    }

    #[test]
    fn uncertain_verdicts_are_flagged_and_found_by_the_filter() {
        let tagged = |uncertainty| {
            let card = card(0, &entry("good/000.png", uncertainty)).into_string();
            let flagged = card.contains("data-flags=\"uncertain\"");
            assert_eq!(card.contains("<span class=\"tag unsure\">uncertain</span>"), flagged, "{card}");
            flagged
        };
        assert!(tagged(0.9) && tagged(UNSURE) && !tagged(0.1));
        let [sure, unsure] = [entry("good/000.png", 0.1), entry("good/001.png", 0.9)];
        let page = images(&[&sure, &unsure], &BTreeMap::new(), false).into_string();
        assert!(page.contains("<option value=\"uncertain\">"), "{page}");
        assert_eq!(page.matches("data-flags=\"uncertain\"").count(), 1, "{page}");
    }

    #[test]
    fn wrong_verdicts_can_be_uncertain_too() {
        let missed = Entry { defective: true, ..entry("crack/000.png", 0.9) };
        let card = card(0, &missed).into_string();
        assert!(card.contains("data-flags=\"missed uncertain\"") && card.contains("normal, but defective"), "{card}");
    }

    #[test]
    fn names_break_after_the_folder() {
        let shown = |name| file_name(name).into_string();
        assert_eq!(shown("crack/000.png"), "crack/<wbr>000<span class=\"whole\">.png</span>");
        assert_eq!(shown("a.b/plain"), "a.b/<wbr>plain<span class=\"whole\"></span>");
        assert_eq!(shown("v1.of-the-left-side"), "<wbr>v1.of-the-left-side<span class=\"whole\"></span>");
    }
}
