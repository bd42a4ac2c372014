//! A report that people look at: one HTML file with metrics, curves and a gallery, which needs no network and no other file.
//!
//! ```no_run
//! # fn main() -> masf::Result<()> {
//! # let detector = masf::Detector::load("bottle.masf")?;
//! # let dataset = masf::data::Dataset::test("bottle")?;
//! let mut gallery = masf::report::Gallery::new();
//! let evaluation = detector.evaluate_each(&dataset.samples, &masf::Silent, |found| gallery.add(&found))?;
//! let html = masf::report::html("bottle", &detector, &evaluation, &gallery)?;
//! # std::fs::write("report.html", html).ok();
//! # Ok(())
//! # }
//! ```

mod compare;
mod gallery;
mod page;
mod plots;

pub use compare::{Compared, comparison, comparison_table};
pub use gallery::Gallery;

use masf_core::Result;

use crate::{Detector, Evaluation};

/// The report as one self-contained HTML page: summary, histogram of the scores, ROC, precision-recall and PRO curves, a
/// table of the kinds, the gallery sorted by score, configuration and provenance.
///
/// `title` names what was inspected. The same input gives the same bytes.
///
/// # Errors
/// A configuration that cannot be written as TOML.
pub fn html(title: &str, detector: &Detector, evaluation: &Evaluation, gallery: &Gallery) -> Result<String> {
    Ok(page::render(title, detector, evaluation, gallery)?.into_string())
}
