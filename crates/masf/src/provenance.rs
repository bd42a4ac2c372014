//! Where a model comes from.

use candle_core::{DType, Tensor};
use masf_core::Result;
use sha2::{Digest, Sha256};

/// Where a model comes from; part of the model file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Provenance {
    /// The version of masf that fitted it.
    pub masf_version: String,
    /// The number of images that it learned from.
    pub images: usize,
    /// The number of images that were left out because they could not be read.
    pub skipped: usize,
    /// SHA-256 over the preprocessed images in their order, in hexadecimal.
    pub images_sha256: String,
}

/// Where a model comes from that was extended or merged; its checksum is that of the two checksums.
pub(crate) fn joined(first: &Provenance, second: &Provenance) -> Provenance {
    let mut digest = ImageDigest::default();
    digest.0.update(&first.images_sha256);
    digest.0.update(&second.images_sha256);
    Provenance {
        masf_version: env!("CARGO_PKG_VERSION").to_owned(),
        images: first.images.saturating_add(second.images),
        skipped: first.skipped.saturating_add(second.skipped),
        images_sha256: digest.finish(),
    }
}

/// The checksum of the images that a model learns from.
#[derive(Default)]
pub(crate) struct ImageDigest(Sha256);

impl ImageDigest {
    /// Adds preprocessed images `[B, 3, H, W]`.
    pub(crate) fn update(&mut self, images: &Tensor) -> Result<()> {
        let values = images.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.0.update(&bytes);
        Ok(())
    }

    pub(crate) fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_a_file_that_lies_do_not_overflow() {
        let of =
            |images| Provenance { masf_version: String::new(), images, skipped: images, images_sha256: String::new() };
        let found = joined(&of(usize::MAX), &of(7));
        assert_eq!((found.images, found.skipped), (usize::MAX, usize::MAX));
        let found = joined(&of(5), &of(7));
        assert_eq!((found.images, found.skipped), (12, 12));
    }
}
