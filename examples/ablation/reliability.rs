//! Whether stated false-alarm rates and uncertainties come true on the test images, as a picture.

use std::fmt::Write;

use masf::{Detector, Evaluation};
use serde_json::{Value, json};

use crate::table::Measured;

/// False-alarm rates that are asked for.
const RATES: [f64; 8] = [0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4];
/// Verdicts are grouped by their uncertainty.
const BINS: usize = 10;

/// For each rate that is asked for the share of good test images above the threshold for it.
pub(crate) fn false_alarms(detector: &Detector, evaluation: &Evaluation) -> anyhow::Result<Value> {
    let rates = RATES.iter().map(|&rate| {
        let threshold = detector.threshold_for(rate)?;
        Ok(json!({ "stated": rate, "measured": evaluation.share_above(&threshold, false) }))
    });
    Ok(Value::Array(rates.collect::<anyhow::Result<_>>()?))
}

/// A point of a plot.
type Point = (f64, f64);

/// A plot of a square, with the line on which points should lie.
struct Panel {
    left: f64,
    horizontal: &'static str,
    vertical: &'static str,
    /// The end of both axes.
    limit: f64,
    /// The height of the line at the end.
    ideal: f64,
}

/// Both plots of a row, over all that was measured of it.
pub(crate) fn svg(row: &str, measured: &[Measured]) -> String {
    let figures: Vec<&Value> = measured.iter().filter(|one| one.row == row).map(|one| &one.figures).collect();
    let mut text = String::from(concat!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 300" width="640" height="300" role="img" "#,
        r#"aria-label="How often stated false-alarm rates and uncertainties come true">"#,
        "\n<style>svg{background:#fff;font:12px sans-serif;fill:#222}path{fill:none;stroke:#888}",
        ".ideal{stroke-dasharray:4}.line{stroke:#1464b4;stroke-width:2}circle{fill:#1464b4}</style>\n"
    ));
    let by_rate = Panel {
        left: 60.0,
        horizontal: "false-alarm rate asked for",
        vertical: "share of good test images above",
        limit: 0.5,
        ideal: 0.5,
    };
    by_rate.draw(&mut text, &rates(&figures));
    let by_uncertainty = Panel {
        left: 390.0,
        horizontal: "uncertainty of the verdict",
        vertical: "share of wrong verdicts",
        limit: 1.0,
        ideal: 0.5,
    };
    by_uncertainty.draw(&mut text, &uncertainties(&figures));
    text.push_str("</svg>\n");
    text
}

impl Panel {
    fn draw(&self, text: &mut String, points: &[Point]) {
        let across = |value: f64| self.left + 220.0 * value / self.limit;
        let up = |value: f64| 240.0 - 220.0 * value / self.limit;
        let (left, right) = (self.left, across(self.limit));
        let _ = writeln!(text, r#"<path d="M{left} 20V240H{right}"/>"#);
        let _ = writeln!(text, r#"<path class="ideal" d="M{left} 240L{right} {}"/>"#, up(self.ideal));
        for step in 0..=5 {
            let value = self.limit * f64::from(step) / 5.0;
            let (x, y, beside) = (across(value), up(value) + 4.0, left - 6.0);
            let _ = writeln!(text, r#"<text x="{x}" y="256" text-anchor="middle">{value:.1}</text>"#);
            let _ = writeln!(text, r#"<text x="{beside}" y="{y}" text-anchor="end">{value:.1}</text>"#);
        }
        let (middle, beside) = (left + 110.0, left - 36.0);
        let _ = writeln!(text, r#"<text x="{middle}" y="280" text-anchor="middle">{}</text>"#, self.horizontal);
        let turned = format!(r#"transform="rotate(-90 {beside} 130)""#);
        let _ = writeln!(text, r#"<text x="{beside}" y="130" text-anchor="middle" {turned}>{}</text>"#, self.vertical);
        let line: Vec<String> = points.iter().map(|(x, y)| format!("{:.1},{:.1}", across(*x), up(*y))).collect();
        let _ = writeln!(text, r#"<path class="line" d="M{}"/>"#, line.join("L"));
        for (x, y) in points {
            let _ = writeln!(text, r#"<circle cx="{:.1}" cy="{:.1}" r="4"/>"#, across(*x), up(*y));
        }
    }
}

/// Means over categories and seeds of the shares above the threshold for each rate.
fn rates(figures: &[&Value]) -> Vec<Point> {
    let mean = |rate: usize| {
        let of_rate: Vec<f64> =
            figures.iter().filter_map(|one| one["false_alarms"][rate]["measured"].as_f64()).collect();
        (!of_rate.is_empty()).then(|| of_rate.iter().sum::<f64>() / of_rate.len() as f64)
    };
    RATES.iter().enumerate().filter_map(|(place, &rate)| Some((rate, mean(place)?))).collect()
}

/// Mean uncertainty and share of wrong verdicts in each group, of all images together.
fn uncertainties(figures: &[&Value]) -> Vec<Point> {
    let mut groups = [(0usize, 0.0, 0usize); BINS];
    for one in figures {
        let threshold = one["threshold"].as_f64().unwrap_or(f64::NAN);
        for score in one["scores"].as_array().into_iter().flatten() {
            let (Some(value), Some(uncertainty)) = (score["image_score"].as_f64(), score["uncertainty"].as_f64())
            else {
                continue;
            };
            let group = &mut groups[((uncertainty * BINS as f64) as usize).min(BINS - 1)];
            group.0 += 1;
            group.1 += uncertainty;
            group.2 += usize::from((value > threshold) != (score["defective"] == true));
        }
    }
    groups
        .iter()
        .filter(|(images, ..)| *images > 0)
        .map(|&(images, sum, wrong)| (sum / images as f64, wrong as f64 / images as f64))
        .collect()
}
