//! Plots as SVG, drawn in the colours of the page, so that they follow its dark mode and print well.

use maud::{Markup, html};

const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 44.0;
const BOTTOM: f64 = 34.0;
const TOP: f64 = 10.0;
const RIGHT: f64 = 16.0;
/// Bars of a histogram.
const BINS: usize = 32;

/// A curve over the unit square, or over a part of its horizontal axis.
pub(super) struct Curve<'a> {
    pub(super) title: String,
    pub(super) horizontal: &'a str,
    pub(super) vertical: &'a str,
    /// The largest horizontal value shown.
    pub(super) limit: f64,
    /// Horizontal and vertical value, in the order in which they are joined.
    pub(super) points: Vec<(f64, f64)>,
    /// Whether to draw the diagonal, where guesses lie.
    pub(super) chance: bool,
    /// The place of the threshold on the curve.
    pub(super) mark: Option<(f64, f64)>,
}

impl Curve<'_> {
    pub(super) fn draw(&self) -> Markup {
        let path: Vec<String> = clipped(&self.points, self.limit)
            .iter()
            .map(|&(x, y)| format!("{:.1},{:.1}", across(x / self.limit), up(y)))
            .collect();
        let label = match self.mark {
            Some((x, y)) => {
                format!("{}; at the threshold {} {x:.3}, {} {y:.3}", self.title, self.horizontal, self.vertical)
            }
            None => self.title.clone(),
        };
        html! {
            figure.plot {
                svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(label) {
                    (axes(self.horizontal, self.vertical, |t| tick(t * self.limit), tick))
                    @if self.chance {
                        line.chance x1=(across(0.0)) y1=(up(0.0)) x2=(across(1.0)) y2=(up(1.0)) {}
                    }
                    polyline.curve points=(path.join(" ")) {}
                    @if let Some((x, y)) = self.mark {
                        circle.mark cx=(format!("{:.1}", across(x / self.limit))) cy=(format!("{:.1}", up(y))) r="4" {
                            title { "at the threshold: " (self.horizontal) " " (tick(x)) ", " (self.vertical) " " (tick(y)) }
                        }
                    }
                }
                figcaption { (self.title) @if self.mark.is_some() { " " span.key.mark { "threshold" } } }
            }
        }
    }
}

/// The points up to `limit`, with one interpolated there.
fn clipped(points: &[(f64, f64)], limit: f64) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = Vec::with_capacity(points.len());
    for &(x, y) in points {
        if x > limit {
            if let Some(&(x0, y0)) = kept.last() {
                kept.push((limit, y0 + (y - y0) * (limit - x0) / (x - x0)));
            }
            break;
        }
        kept.push((x, y));
    }
    kept
}

/// Scores of good and of defective images, with the threshold.
pub(super) fn histogram(good: &[f32], defective: &[f32], threshold: f32) -> Markup {
    let all = || good.iter().chain(defective).chain(std::iter::once(&threshold)).copied();
    let low = f64::from(all().fold(f32::INFINITY, f32::min));
    let high = f64::from(all().fold(f32::NEG_INFINITY, f32::max));
    let span = if high > low { high - low } else { 1.0 };
    let counts = |scores: &[f32]| {
        let mut counts = [0usize; BINS];
        for score in scores {
            let place = (f64::from(*score) - low) / span * BINS as f64;
            counts[(place as usize).min(BINS - 1)] += 1;
        }
        counts
    };
    let (good, defective) = (counts(good), counts(defective));
    let highest = good.iter().chain(&defective).copied().max().unwrap_or(0).max(1) as f64;
    let bar = (WIDTH - LEFT - RIGHT) / BINS as f64;
    let bars = |counts: &[usize; BINS], class: &'static str| {
        html! {
            @for (bin, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                @let y = up(count as f64 / highest);
                rect class=(class) x=(format!("{:.1}", across(bin as f64 / BINS as f64) + 0.5)) y=(format!("{y:.1}"))
                    width=(format!("{:.1}", bar - 1.0)) height=(format!("{:.1}", up(0.0) - y)) {
                    title { (count) " " (class) }
                }
            }
        }
    };
    let line = format!("{:.1}", across((f64::from(threshold) - low) / span));
    let label = format!(
        "Histogram of the image scores of {} good and {} defective images, from {low:.2} to {high:.2}; threshold {threshold:.2}",
        good.iter().sum::<usize>(),
        defective.iter().sum::<usize>()
    );
    html! {
        figure.plot {
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(label) {
                (axes("image score", "images", |t| format!("{:.2}", low + t * span), |t| whole(t * highest)))
                (bars(&good, "good"))
                (bars(&defective, "defective"))
                line.threshold x1=(line) x2=(line) y1=(up(0.0)) y2=(up(1.0)) { title { "threshold" } }
            }
            figcaption {
                "Histogram: "
                span.key.good { "good" } " " span.key.defective { "defective" } " " span.key.threshold { "threshold" }
            }
        }
    }
}

/// A count at a grid line, where it is one.
fn whole(value: f64) -> String {
    if (value - value.round()).abs() < 1e-9 { format!("{value:.0}") } else { String::new() }
}

fn across(t: f64) -> f64 {
    LEFT + t.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
}

fn up(t: f64) -> f64 {
    HEIGHT - BOTTOM - t.clamp(0.0, 1.0) * (HEIGHT - BOTTOM - TOP)
}

fn tick(value: f64) -> String {
    let text = format!("{value:.3}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Grid, numbers and names of both axes; the functions write the number at a part `0..=1` of an axis.
fn axes(
    horizontal: &str,
    vertical: &str,
    across_text: impl Fn(f64) -> String,
    up_text: impl Fn(f64) -> String,
) -> Markup {
    let middle = (LEFT + WIDTH - RIGHT) / 2.0;
    let centre = (TOP + HEIGHT - BOTTOM) / 2.0;
    html! {
        @for step in 0..=4 {
            @let t = f64::from(step) / 4.0;
            line.grid x1=(across(t)) x2=(across(t)) y1=(up(0.0)) y2=(up(1.0)) {}
            line.grid x1=(across(0.0)) x2=(across(1.0)) y1=(up(t)) y2=(up(t)) {}
            text.tick x=(across(t)) y=(up(0.0) + 13.0) text-anchor="middle" { (across_text(t)) }
            text.tick x=(LEFT - 5.0) y=(up(t) + 3.0) text-anchor="end" { (up_text(t)) }
        }
        text.axis x=(middle) y=(HEIGHT - 4.0) text-anchor="middle" { (horizontal) }
        text.axis x="10" y=(centre) text-anchor="middle" transform=(format!("rotate(-90 10 {centre})")) { (vertical) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_end_at_the_limit() {
        let points = [(0.0, 0.0), (0.2, 0.5), (0.4, 1.0), (1.0, 1.0)];
        let kept = clipped(&points, 0.3);
        assert_eq!(kept.len(), 3);
        assert!((kept[2].0 - 0.3).abs() < 1e-12 && (kept[2].1 - 0.75).abs() < 1e-12);
        assert_eq!(clipped(&points, 1.0), points);
    }

    #[test]
    fn every_score_is_in_a_bar() {
        let page = histogram(&[0.0, 1.0, 1.0], &[5.0], 2.0).into_string();
        assert_eq!(page.matches("class=\"good\"").count(), 2, "{page}");
        assert_eq!(page.matches("class=\"defective\"").count(), 1);
        // All scores alike, or none of one class, are drawn too.
        assert!(histogram(&[1.0], &[], 1.0).into_string().contains("class=\"good\""));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([tick(0.0), tick(0.075), tick(1.0), tick(100.0), tick(-0.5)], ["0", "0.075", "1", "100", "-0.5"]);
    }
}
