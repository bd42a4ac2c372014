//! The tables of the ablation, in Markdown and JSON.

use std::fmt::Write;

use serde_json::{Map, Value, json};

/// What was measured of one row on one category with one seed.
pub(crate) struct Measured {
    pub(crate) row: &'static str,
    pub(crate) category: String,
    pub(crate) seed: u64,
    pub(crate) figures: Value,
}

/// The figures of the table: name in the JSON of an evaluation, heading, digits.
const FIGURES: [(&str, &str, usize); 7] = [
    ("image_auroc", "image AUROC", 4),
    ("pixel_auroc", "pixel AUROC", 4),
    ("pixel_ap", "pixel AP", 3),
    ("aupro", "AUPRO", 4),
    ("false_alarm_rate", "false alarms", 3),
    ("error_rate", "wrong verdicts", 3),
    ("error_rate_of_certain", "of the certain 90 %", 3),
];

/// Mean and spread (largest less smallest) over seeds of the mean over categories.
fn summary(measured: &[&Measured], figure: &str) -> Option<(f64, f64)> {
    let mut seeds: Vec<u64> = measured.iter().map(|one| one.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let means: Vec<f64> = seeds
        .iter()
        .filter_map(|seed| {
            let values: Vec<f64> = measured
                .iter()
                .filter(|one| one.seed == *seed)
                .filter_map(|one| one.figures.get(figure)?.as_f64())
                .collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        })
        .collect();
    let largest = means.iter().copied().reduce(f64::max)?;
    let smallest = means.iter().copied().reduce(f64::min)?;
    Some((means.iter().sum::<f64>() / means.len() as f64, largest - smallest))
}

/// The rows as a Markdown table, then every category's image AUROC.
pub(crate) fn markdown(rows: &[(&'static str, &'static str)], measured: &[Measured]) -> String {
    let mut text = String::from("| row | what | seeds |");
    for (_, heading, _) in FIGURES {
        let _ = write!(text, " {heading} |");
    }
    text.push_str("\n|---|---|---|");
    text.push_str(&"---|".repeat(FIGURES.len()));
    text.push('\n');
    for (name, what) in rows {
        let of_row: Vec<&Measured> = measured.iter().filter(|one| one.row == *name).collect();
        let mut seeds: Vec<u64> = of_row.iter().map(|one| one.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
        let _ = write!(text, "| {name} | {what} | {} |", seeds.join(", "));
        for (figure, _, digits) in FIGURES {
            let cell = match summary(&of_row, figure) {
                Some((mean, _)) if seeds.len() < 2 => format!("{mean:.digits$}"),
                Some((mean, spread)) => format!("{mean:.digits$} ({spread:.digits$})"),
                None => "-".to_owned(),
            };
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    let mut categories: Vec<&str> = measured.iter().map(|one| one.category.as_str()).collect();
    categories.sort_unstable();
    categories.dedup();
    let _ =
        write!(text, "\nImage AUROC by category, mean over the seeds:\n\n| row | {} |\n|---|", categories.join(" | "));
    text.push_str(&"---|".repeat(categories.len()));
    text.push('\n');
    for (name, _) in rows {
        let _ = write!(text, "| {name} |");
        for category in &categories {
            let of_cell: Vec<&Measured> =
                measured.iter().filter(|one| one.row == *name && one.category == *category).collect();
            let cell = summary(&of_cell, "image_auroc").map_or("-".to_owned(), |(mean, _)| format!("{mean:.4}"));
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}

/// The same as JSON: per row mean and spread of each figure, and everything measured.
pub(crate) fn json(rows: &[(&'static str, &'static str)], measured: &[Measured]) -> Value {
    let summarised: Vec<Value> = rows
        .iter()
        .map(|(name, what)| {
            let of_row: Vec<&Measured> = measured.iter().filter(|one| one.row == *name).collect();
            let figures: Map<String, Value> = FIGURES
                .iter()
                .map(|(figure, _, _)| {
                    let value =
                        summary(&of_row, figure).map(|(mean, spread)| json!({ "mean": mean, "spread": spread }));
                    ((*figure).to_owned(), value.unwrap_or(Value::Null))
                })
                .collect();
            json!({ "row": name, "what": what, "figures": figures })
        })
        .collect();
    let all: Vec<Value> = measured
        .iter()
        .map(|one| json!({ "row": one.row, "category": one.category, "seed": one.seed, "figures": one.figures }))
        .collect();
    json!({ "rows": summarised, "measured": all })
}
