//! The reader of weights, and their check against a network.

use masf::backbone::{Backbone, Weights};

/// Reads the bytes as weights of the smallest network. Whether they are weights, be it of another one.
pub(crate) fn run(data: &[u8]) -> bool {
    let Ok(weights) = Weights::from_bytes(data, "input") else { return false };
    if let Ok(builder) = Backbone::builder("masf-nano")
        && let Err(error) = builder.strides(&[8, 16]).build(weights)
    {
        assert!(error.to_string().len() < 20_000, "a message without end");
    }
    true
}
