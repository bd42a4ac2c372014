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

/// Gives every file of a folder to a function, also cut short.
fn replay(target: &str, run: fn(&[u8])) {
    let _turn = turn();
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds")).join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("the seeds") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("a seed");
        bounded(&path.display().to_string(), 64 * MIB, || {
            run(&bytes);
            run(&bytes[..bytes.len() / 2]);
        });
        count += 1;
    }
    assert!(count > 2, "{} has {count} files", folder.display());
}

#[test]
fn seeds_of_models() {
    replay("models", models::run);
}

#[test]
fn seeds_of_weights() {
    replay("weights", weights::run);
}

#[test]
fn seeds_of_images() {
    replay("images", images::run);
}

#[test]
fn seeds_of_configurations() {
    replay("config", config::run);
}

#[test]
fn seeds_of_metrics() {
    replay("metrics", metrics::run);
}
