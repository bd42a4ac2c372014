//! Errors of the other crates as errors of the facade.

use std::path::Path;

use masf_core::{Error, Fault};

/// A metric's error.
pub(crate) fn metrics(error: masf_metrics::Error) -> Error {
    let fault = match error.fault() {
        masf_metrics::Fault::Argument => Fault::Argument,
        _ => Fault::Data,
    };
    Error::Component { part: "masf-metrics", fault, source: Box::new(error) }
}

/// An error that happened while a file was read, with the file's name.
pub(crate) fn in_file(path: &Path, error: Error) -> Error {
    if matches!(error, Error::Io { .. }) {
        return error;
    }
    let fault = error.fault();
    Error::Component { part: "masf", fault, source: format!("{}: {error}", path.display()).into() }
}
