//! Decoding and preprocessing of images.

use masf_data::{Limits, Preprocess, Size, decode_image};

/// Decodes the bytes, and brings what comes out to a small tensor. Whether there is one.
pub(crate) fn run(data: &[u8]) -> bool {
    let limits = Limits { max_pixels: 1 << 20, max_alloc: 1 << 24, ..Limits::default() };
    let Ok(image) = decode_image("input", data, &limits) else { return false };
    assert!(image.width() > 0 && image.height() > 0);
    let normalisation = masf_core::Normalisation::IMAGENET;
    let tensor = Preprocess::new(Size::square(16), normalisation).and_then(|preprocess| preprocess.tensor(&image));
    if let Ok(tensor) = &tensor {
        assert_eq!(tensor.dims(), [3, 16, 16]);
    }
    tensor.is_ok()
}
