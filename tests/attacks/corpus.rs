//! The seeds of the fuzz targets, and what fuzzing found with them, go through the same functions again.

use std::path::Path;

use crate::measure::{MIB, bounded, turn};

#[path = "../../fuzz/bodies/config.rs"]
mod config;
#[path = "../../fuzz/bodies/images.rs"]
mod images;
#[path = "../../fuzz/bodies/metrics.rs"]
mod metrics;
#[path = "../../fuzz/bodies/models.rs"]
mod models;
#[path = "../../fuzz/bodies/weights.rs"]
mod weights;

/// Gives every file of a folder to a function, also cut short; whole it must be accepted, unless it is among those that are `refused`.
fn replay(target: &str, run: fn(&[u8]) -> bool, refused: &[&str]) {
    let _turn = turn();
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds")).join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("the seeds") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("a seed");
        let accepted = bounded(&path.display().to_string(), 64 * MIB, || {
            run(&bytes[..bytes.len() / 2]);
            run(&bytes)
        });
        let expected = !refused.iter().any(|name| path.ends_with(name));
        assert_eq!(accepted, expected, "{}: whether it is accepted", path.display());
        count += 1;
    }
    assert!(count > 2, "{} has {count} files", folder.display());
}

#[test]
fn seeds_of_models() {
    replay("models", models::run, &["cut"]);
}

#[test]
fn seeds_of_weights() {
    replay("weights", weights::run, &[]);
}

#[test]
fn seeds_of_images() {
    replay("images", images::run, &[]);
}

#[test]
fn seeds_of_configurations() {
    replay("config", config::run, &[]);
}

#[test]
fn seeds_of_metrics() {
    replay("metrics", metrics::run, &["not_finite"]);
}
