//! The page of a report.

use masf_core::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::gallery::{Entry, Gallery};
use super::plots::{Curve, histogram};
use crate::{Detector, Evaluation};

pub(super) const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Verdicts whose normalised score is nearer to the threshold (0.5) than this are flagged.
const UNSURE: f32 = 0.1;

pub(super) fn render(title: &str, detector: &Detector, evaluation: &Evaluation, gallery: &Gallery) -> Result<Markup> {
    let configuration = detector.config().to_toml()?;
    Ok(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
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
                }
                main {
                    (summary(evaluation))
                    h2 { "Scores and curves" }
                    div.plots { (plots(evaluation)) }
                    h2 { "Kinds" }
                    (kinds(evaluation))
                    @if !gallery.is_empty() { (gallery_section(gallery, evaluation)) }
                    h2 { "Configuration and provenance" }
                    (provenance(detector))
                    details { summary { "All settings" } pre { (configuration) } }
                }
                @if !gallery.is_empty() { script { (PreEscaped(SCRIPT)) } }
            }
        }
    })
}

fn summary(evaluation: &Evaluation) -> Markup {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    let percent = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{:.1} %", value * 100.0));
    let cards = [
        ("image AUROC", number(Some(evaluation.image_auroc))),
        ("image AP", number(Some(evaluation.image_ap))),
        ("image F1-max", number(Some(evaluation.image_f1_max))),
        ("pixel AUROC", number(evaluation.pixel_auroc)),
        ("pixel AP", number(evaluation.pixel_ap)),
        ("AUPRO", number(evaluation.aupro)),
        ("false alarms", percent(evaluation.false_alarm_rate)),
        ("defects found", percent(evaluation.detection_rate)),
    ];
    html! {
        dl.cards { @for (name, value) in cards { div { dt { (name) } dd { (value) } } } }
        @if let Some(reason) = &evaluation.pixel_metrics_missing { p.note { "No pixel metrics: " (reason) } }
    }
}

fn plots(evaluation: &Evaluation) -> Markup {
    let of = |defective: bool| -> Vec<f32> {
        evaluation.scores.iter().filter(|s| s.defective == defective).map(|s| s.image_score).collect()
    };
    let curves = &evaluation.curves;
    let roc = Curve {
        title: "ROC of the images",
        horizontal: "false-positive rate",
        vertical: "true-positive rate",
        limit: 1.0,
        points: curves.roc.iter().map(|p| (p.false_positive_rate, p.true_positive_rate)).collect(),
    };
    let precision_recall = Curve {
        title: "Precision and recall of the images",
        horizontal: "recall",
        vertical: "precision",
        limit: 1.0,
        points: curves.precision_recall.iter().map(|p| (p.recall, p.precision)).collect(),
    };
    let pro = Curve {
        title: "Per-region overlap (PRO) of the pixels",
        horizontal: "false-positive rate",
        vertical: "overlap",
        limit: masf_metrics::AUPRO_FPR_LIMIT,
        points: curves.pro.iter().map(|p| (p.false_positive_rate, p.overlap)).collect(),
    };
    html! {
        (histogram(&of(false), &of(true), evaluation.threshold))
        (roc.draw())
        (precision_recall.draw())
        @if !pro.points.is_empty() { (pro.draw()) }
    }
}

fn kinds(evaluation: &Evaluation) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Kinds" {
            table {
                thead { tr { th scope="col" { "kind" } th scope="col" { "images" } th scope="col" { "image AUROC" }
                    th scope="col" { "called anomalous" } } }
                tbody {
                    @for (kind, found) in &evaluation.kinds {
                        tr {
                            td { (kind) }
                            td { (found.images) }
                            td { (found.image_auroc.map_or("-".to_owned(), |auroc| format!("{auroc:.4}"))) }
                            td { (format!("{:.1} %", found.anomalous_rate * 100.0)) }
                        }
                    }
                }
            }
        }
    }
}

fn gallery_section(gallery: &Gallery, evaluation: &Evaluation) -> Markup {
    html! {
        h2 { "Images" }
        p.note {
            "The slider of a picture goes from the image over its heat map to the mask. Heat maps share one colour scale: its middle is "
            "the pixel threshold, and what lies above is outlined. Verdicts close to the threshold are flagged as uncertain."
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
                    @for kind in evaluation.kinds.keys() { option value=(format!("kind:{kind}")) { (kind) } }
                }
            }
            label { "All pictures: image, heat map, mask" br;
                input #all-layers type="range" min="0" max="2" step="0.05" value="1";
            }
            output #shown aria-live="polite" {}
        }
        ul.gallery { @for entry in gallery.sorted() { (card(entry)) } }
    }
}

fn card(entry: &Entry) -> Markup {
    let right = entry.is_anomalous == entry.defective;
    let unsure = (entry.normalised_score - 0.5).abs() < UNSURE;
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
    html! {
        li data-score=(entry.image_score) data-normalised=(entry.normalised_score) data-kind=(entry.kind)
            data-flags=(flags.join(" ")) {
            div.stack {
                img src=(entry.image) width=(width) height=(height) alt=(format!("{}, {verdict}", entry.name));
                img.heat src=(entry.heat) width=(width) height=(height) alt="";
                @if let Some(mask) = &entry.mask { img.mask src=(mask) width=(width) height=(height) alt=""; }
            }
            label.layer { (layers.1)
                input type="range" min="0" max=(layers.0) step="0.05" value="1" aria-label=(format!("{}: {}", entry.name, layers.1));
            }
            p.name { (entry.name) }
            p.verdict {
                span class=(if right { "right" } else { "wrong" }) { (verdict) @if !right { ", wrong" } }
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

fn provenance(detector: &Detector) -> Markup {
    let provenance = detector.provenance();
    let rows = [
        ("written by", format!("masf {}", provenance.masf_version)),
        ("backbone", detector.backbone().name().to_owned()),
        ("input size", detector.config().input.size.to_string()),
        ("training images", format!("{} ({} left out)", provenance.images, provenance.skipped)),
        ("SHA-256 of the training images", provenance.images_sha256.clone()),
        ("seed", detector.config().seed.to_string()),
        ("threshold", detector.threshold().to_string()),
        ("pixel threshold", detector.pixel_threshold().to_string()),
    ];
    html! {
        div.scroll tabindex="0" role="region" aria-label="Provenance" {
            table { tbody { @for (name, value) in rows { tr { th scope="row" { (name) } td { (value) } } } } }
        }
    }
}
