//! Anomaly maps as files for other programs: NumPy's format and 16-bit PNG.
//!
//! Both have the size of the model's input, not of the image; [`Inspection::geometry`](crate::Inspection) says where a pixel of the map lies in the
//! image. For pictures that people look at see [`heatmap`](crate::heatmap).

use std::io::Cursor;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use masf_core::{Error, Result};
use ndarray::ArrayView2;

use crate::Inspection;

/// A map `[H, W]` as the content of a `.npy` file (format 1.0, little-endian `f32`, row-major), which `numpy.load` reads.
///
/// ```
/// let map = ndarray::array![[0.0f32, 1.0, 2.0], [3.0, 4.0, 5.0]];
/// let bytes = masf::maps::npy(map.view());
/// assert!(bytes.starts_with(b"\x93NUMPY\x01\x00"));
/// assert_eq!(bytes.len(), 128 + 4 * 6);
/// ```
pub fn npy(map: ArrayView2<'_, f32>) -> Vec<u8> {
    let (height, width) = map.dim();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({height}, {width}), }}");
    // Magic, version and length of the header take 10 bytes; the data begin at a multiple of 64, after a line break.
    let padded = (10 + header.len() + 1).next_multiple_of(64);
    header.extend(std::iter::repeat_n(' ', padded - 10 - header.len() - 1));
    header.push('\n');
    let mut bytes = Vec::with_capacity(padded + 4 * map.len());
    bytes.extend(b"\x93NUMPY\x01\x00");
    // Two sizes of at most 20 digits keep the header far below 65,536 bytes.
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(map.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// The anomaly map of an inspection as a grey PNG of 16 bits: 65535 times the normalised pixel score, so that 32768 and more lies
/// above the pixel threshold, and the maps of one model compare.
///
/// # Errors
/// A map that PNG cannot hold.
pub fn png16(inspection: &Inspection) -> Result<Vec<u8>> {
    let map = &inspection.anomaly_map;
    let (height, width) = map.dim();
    // The encoder takes samples in the byte order of the machine.
    let samples: Vec<u8> = map
        .iter()
        .map(|score| (f64::from(inspection.pixel_threshold.normalise(*score).0) * 65_535.0).round() as u16)
        .flat_map(u16::to_ne_bytes)
        .collect();
    let failed = |problem: String| Error::data("anomaly map", problem);
    let side = |side: usize| u32::try_from(side).map_err(|error| failed(error.to_string()));
    let mut bytes = Cursor::new(Vec::new());
    PngEncoder::new(&mut bytes)
        .write_image(&samples, side(width)?, side(height)?, ExtendedColorType::L16)
        .map_err(|error| failed(error.to_string()))?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use masf_data::{Resize, Size};
    use ndarray::Array2;

    use super::*;

    /// Written by NumPy (`tests/reference/maps_npy.py`).
    const BY_NUMPY: &[u8] = include_bytes!("../testdata/map.npy");

    #[test]
    fn arrays_are_written_as_numpy_does() {
        let map = Array2::from_shape_fn((3, 5), |(row, column)| row as f32 - 0.37 * column as f32);
        assert!(npy(map.view()) == BY_NUMPY);
        // The header's length is right for any number of digits, and transposed views are written row by row.
        for (height, width) in [(1, 1), (99_999, 1), (1, 1_234_567)] {
            let bytes = npy(Array2::zeros((height, width)).view());
            assert_eq!((bytes.len() - 4 * height * width) % 64, 0);
        }
        assert!(npy(map.t()) == npy(map.t().to_owned().view()));
    }

    #[test]
    fn the_threshold_is_the_middle_of_sixteen_bits() {
        let inspection = crate::heatmap::tests::inspection(Size::square(128), Resize::Exact(Size::square(64)));
        let picture = image::load_from_memory(&png16(&inspection).unwrap()).unwrap();
        let image::DynamicImage::ImageLuma16(picture) = picture else { panic!("{:?}", picture.color()) };
        assert_eq!(picture.dimensions(), (64, 64));
        let expected = |score: f32| (65_535.0 * inspection.pixel_threshold.normalise(score).0).round() as u16;
        assert_eq!(picture.get_pixel(0, 0).0, [expected(0.0)]);
        assert!(picture.get_pixel(30, 30).0[0] > 32_768 && picture.get_pixel(0, 0).0[0] < 32_768);
    }
}
