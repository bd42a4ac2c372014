//! Several models on the same labelled images: a table of metrics and costs, and their heat maps side by side.

use std::fmt::Write;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::gallery::Gallery;
use super::page::STYLE;
use crate::Evaluation;
use crate::evaluation::{number, percent};

/// One of the models of a [`comparison`].
#[derive(Debug, Clone, Copy)]
pub struct Compared<'a> {
    /// What it is called.
    pub name: &'a str,
    /// Its metrics.
    pub evaluation: &'a Evaluation,
    /// Some of the images, the same ones in the same order for all models.
    pub gallery: &'a Gallery,
    /// Wall time of fitting, in seconds.
    pub fit_seconds: f64,
    /// Peak resident memory while fitting, in bytes, where the system tells it.
    pub fit_memory: Option<u64>,
    /// Size of the model file in bytes.
    pub model_bytes: u64,
}

const COLUMNS: [&str; 11] = [
    "method",
    "image AUROC",
    "image AP",
    "pixel AUROC",
    "pixel AP",
    "AUPRO",
    "false alarms",
    "defects found",
    "fit",
    "per image",
    "memory, model",
];

impl Compared<'_> {
    /// The cells of its row.
    fn cells(&self) -> [String; COLUMNS.len()] {
        let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        let found = self.evaluation;
        [
            self.name.to_owned(),
            number(Some(found.image_auroc)),
            number(Some(found.image_ap)),
            number(found.pixel_auroc),
            number(found.pixel_ap),
            number(found.aupro),
            percent(found.false_alarm_rate),
            percent(found.detection_rate),
            format!("{:.1} s", self.fit_seconds),
            format!("{:.1} ms", found.seconds_per_image * 1e3),
            format!("{}, {}", self.fit_memory.map_or("-".to_owned(), megabytes), megabytes(self.model_bytes)),
        ]
    }
}

/// The metrics and costs of models as a Markdown table, a row for each.
pub fn comparison_table(compared: &[Compared<'_>]) -> String {
    let mut table = format!("| {} |\n|{}\n", COLUMNS.join(" | "), "---|".repeat(COLUMNS.len()));
    for model in compared {
        // Writing to a string does not fail.
        let _ = writeln!(table, "| {} |", model.cells().join(" | "));
    }
    table
}

/// Models side by side as one self-contained HTML page: the table of [`comparison_table`], and for every image of the galleries the
/// image, its mask, and the heat map and verdict of every model. `title` names what was inspected.
///
/// The same input gives the same bytes.
pub fn comparison(title: &str, compared: &[Compared<'_>]) -> String {
    page(title, compared).into_string()
}

fn page(title: &str, compared: &[Compared<'_>]) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) ": methods compared - masf" }
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) ": methods compared" }
                    p.lead {
                        "All methods learned from the same good images with the same backbone, and inspected the same images. Memory is the "
                        "peak while fitting."
                    }
                }
                main {
                    div.scroll tabindex="0" role="region" aria-label="Metrics" {
                        table {
                            thead { tr { @for column in COLUMNS { th scope="col" { (column) } } } }
                            tbody { @for model in compared { tr { @for cell in model.cells() { td { (cell) } } } } }
                        }
                    }
                    h2 { "Heat maps" }
                    p.note { "The middle of each colour scale is the method's own pixel threshold. Numbers are normalised scores; 0.5 is the threshold." }
                    (pictures(compared))
                }
            }
        }
    }
}

fn pictures(compared: &[Compared<'_>]) -> Markup {
    let Some(first) = compared.first() else { return html! {} };
    html! {
        div.scroll tabindex="0" role="region" aria-label="Heat maps" {
            table {
                thead { tr {
                    th scope="col" { "image" } th scope="col" { "picture" } th scope="col" { "mask" }
                    @for model in compared { th scope="col" { (model.name) } }
                } }
                tbody {
                    @for (index, entry) in first.gallery.entries().iter().enumerate() {
                        @let (width, height) = entry.size;
                        tr {
                            th scope="row" { (entry.name) }
                            td { img src=(entry.image) width=(width) height=(height) loading="lazy" alt=(entry.name); }
                            td { @if let Some(mask) = &entry.mask { img src=(mask) width=(width) height=(height) loading="lazy" alt="mask"; } }
                            @for model in compared {
                                td {
                                    @if let Some(found) = model.gallery.entries().get(index) {
                                        img src=(found.heat) width=(width) height=(height) loading="lazy" alt=(format!("heat map of {}", model.name));
                                        p.verdict {
                                            @let right = found.is_anomalous == found.defective;
                                            span class=(if right { "right" } else { "wrong" }) {
                                                (if found.is_anomalous { "anomalous" } else { "normal" }) @if !right { ", wrong" }
                                            }
                                            " " (format!("{:.3}", found.normalised_score))
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
