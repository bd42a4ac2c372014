//! Decoding against Pillow's pixels (`tests/reference/data_images.py`), and everything that must be refused.

use std::path::{Path, PathBuf};

use image::DynamicImage;
use masf_core::{Fault, Normalisation};
use masf_data::{DataError, ImageProblem, Limits, Preprocess, Size, decode_image, read_image};

/// Kinds that are refused, and a word of the message that says why.
const REFUSED: [(&str, &str); 6] = [
    ("jpeg_cmyk.jpg", "CMYK"),
    ("tiff_cmyk.tif", "CMYK"),
    ("tiff_float.tif", "not supported"),
    ("tiff_jpeg.tif", "JPEG compression"),
    ("tiff_palette.tif", "not supported"),
    ("not_an_image.png", "not an image"),
];

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/data_images"))
}

fn is_refused(name: &str) -> bool {
    REFUSED.iter().any(|(refused, _)| *refused == name)
}

/// Names and contents of the fixtures, sorted.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    assert!(files.len() >= 38, "the fixtures are gone");
    files
}

/// The RGB pixels, through the preprocessing that everything goes through (at the image's own size: no resize).
fn rgb(image: &DynamicImage) -> image::RgbImage {
    Preprocess::new(Size::new(image.height(), image.width()), Normalisation::IMAGENET).unwrap().view(image).unwrap()
}

fn problem(error: DataError) -> ImageProblem {
    match error {
        DataError::Image { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

#[test]
fn agrees_with_pillow() {
    for (name, bytes) in files().iter().filter(|(name, _)| !is_refused(name)) {
        let decoded = rgb(&decode_image(name.as_str(), bytes, &Limits::default()).unwrap());
        let stem = Path::new(name).file_stem().unwrap().to_str().unwrap();
        let expected = image::open(folder().join(format!("expected/{stem}.png"))).unwrap().to_rgb8();
        assert_eq!(decoded.dimensions(), expected.dimensions(), "{name}");
        // The lossy formats leave rounding and the interpolation of colour open.
        let tolerance = match name.as_str() {
            "jpeg_420.jpg" | "webp_lossy.webp" => 6,
            _ if name.ends_with(".jpg") => 2,
            _ => 0,
        };
        let worst = decoded.iter().zip(expected.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(worst <= tolerance, "{name}: differs by {worst}");
    }
}

#[test]
fn the_eight_orientations_are_one_image() {
    let upright = rgb(&read_image(folder().join("exif_1.jpg"), &Limits::default()).unwrap());
    // Pillow stored the same pixels under each tag; undoing the tag's transformation must give them back.
    for orientation in 1..=8_u8 {
        let path = folder().join(format!("exif_{orientation}.jpg"));
        let mut image = DynamicImage::ImageRgb8(rgb(&read_image(&path, &Limits::default()).unwrap()));
        let inverse = match orientation {
            6 => 8,
            8 => 6,
            other => other,
        };
        image.apply_orientation(image::metadata::Orientation::from_exif(inverse).unwrap());
        assert_eq!(image.into_rgb8(), upright, "orientation {orientation}");
    }
}

#[test]
fn an_orientation_behind_the_pixels_counts() {
    let bytes = std::fs::read(folder().join("exif_png_6.png")).unwrap();
    let place = |kind: &[u8]| bytes.windows(4).position(|window| window == kind).unwrap() - 4;
    let (exif, pixels, end) = (place(b"eXIf"), place(b"IDAT"), place(b"IEND"));
    let moved = [&bytes[..exif], &bytes[pixels..end], &bytes[exif..pixels], &bytes[end..]].concat();
    let upright = |bytes: &[u8]| rgb(&decode_image("exif", bytes, &Limits::default()).unwrap());
    assert_eq!(upright(&moved), upright(&bytes));
}

#[test]
fn refuses_kinds_without_a_rule() {
    for (name, word) in REFUSED.into_iter().filter(|(name, _)| *name != "not_an_image.png") {
        let error = read_image(folder().join(name), &Limits::default()).unwrap_err();
        assert_eq!(error.fault(), Fault::Data);
        let message = error.to_string();
        assert!(message.contains(word) && message.contains(name), "{message}");
    }
}

#[test]
fn refuses_jpeg_in_tiff_in_any_type_and_byte_order() {
    // A picture of one pixel: tag, type, count and value of each entry.
    let tiff = |big_endian: bool, (kind, value): (u16, [u8; 4])| {
        let short = |value: u16| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let long = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let entries = [
            (256, 4, long(1)),
            (257, 4, long(1)),
            (258, 4, long(8)),
            (259, kind, value),
            (262, 4, long(1)),
            (273, 4, long(8)),
            (278, 4, long(1)),
            (279, 4, long(1)),
        ];
        let mut bytes = if big_endian { b"MM\0*".to_vec() } else { b"II*\0".to_vec() };
        bytes.extend(long(12));
        bytes.extend([99, 0, 0, 0]);
        bytes.extend(short(entries.len() as u16));
        for (tag, kind, value) in entries {
            bytes.extend([&short(tag)[..], &short(kind), &long(1), &value].concat());
        }
        bytes.extend([0; 4]);
        bytes
    };
    for big_endian in [false, true] {
        for compression in [1_u8, 6, 7] {
            let (byte, short, long) = if big_endian {
                ([compression, 0, 0, 0], [0, compression, 0, 0], [0, 0, 0, compression])
            } else {
                ([compression, 0, 0, 0], [compression, 0, 0, 0], [compression, 0, 0, 0])
            };
            // Byte, undefined (which the decoder reads as a byte), short and long.
            for (kind, value) in [(1, byte), (7, byte), (3, short), (4, long)] {
                let name = format!("{compression} of type {kind}, big-endian {big_endian}");
                match decode_image(name.as_str(), &tiff(big_endian, (kind, value)), &Limits::default()) {
                    Ok(image) => assert!(compression == 1 && rgb(&image).into_raw() == [99; 3], "{name}"),
                    Err(error) => {
                        assert!(compression != 1 && error.to_string().contains("JPEG compression"), "{error}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_content_decides_not_the_name() {
    let folder_of_lies = tempfile::tempdir().unwrap();
    let lie = folder_of_lies.path().join("photo.bmp");
    std::fs::copy(folder().join("jpeg_444.jpg"), &lie).unwrap();
    assert_eq!(read_image(&lie, &Limits::default()).unwrap().width(), 20);

    let text = folder_of_lies.path().join("not_an_image.png");
    std::fs::write(&text, "This is a text file.\n").unwrap();
    let error = read_image(&text, &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("not_an_image.png: not an image"), "{error}");
    assert_eq!(problem(error), ImageProblem::Unrecognised);

    std::fs::write(&text, "").unwrap();
    assert_eq!(problem(read_image(&text, &Limits::default()).unwrap_err()), ImageProblem::Empty);
    assert_eq!(read_image(folder_of_lies.path(), &Limits::default()).unwrap_err().fault(), Fault::Io);
    assert_eq!(read_image(folder_of_lies.path().join("none.png"), &Limits::default()).unwrap_err().fault(), Fault::Io);
}

#[test]
fn refuses_every_truncation() {
    for (name, bytes) in files() {
        let whole = decode_image(name.as_str(), &bytes, &Limits::default()).ok();
        for length in 0..bytes.len() {
            let Ok(image) = decode_image(name.as_str(), &bytes[..length], &Limits::default()) else { continue };
            // What may be missing is what is no part of the image: metadata at the end of a TIFF file, and the padding of a
            // bitmap's last row.
            assert!(
                name.ends_with(".tif") || name.ends_with(".bmp"),
                "{name} cut to {length} of {} bytes was accepted",
                bytes.len()
            );
            assert_eq!(Some(image), whole, "{name} cut to {length} of {} bytes changed", bytes.len());
        }
    }
}

#[test]
fn damage_never_panics() {
    for (name, bytes) in files() {
        for position in 0..bytes.len() {
            for flip in [0xff, 0x01, 0x80] {
                let mut damaged = bytes.clone();
                damaged[position] ^= flip;
                // Any answer will do, within limits that keep a claimed giant from being allocated.
                let _ = decode_image(name.as_str(), &damaged, &Limits { max_alloc: 1 << 22, ..Limits::default() });
            }
        }
    }
}

#[test]
fn a_giant_header_is_refused_before_decoding() {
    // A PNG whose header claims 60000 x 60000 pixels.
    let mut bytes = std::fs::read(folder().join("png_rgb.png")).unwrap();
    bytes[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    bytes[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    let crc = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    let error = decode_image("giant.png", &bytes, &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("3600000000"), "{error}");
    assert!(matches!(problem(error), ImageProblem::Limit { value: 3_600_000_000, .. }));
}

#[test]
fn every_limit_holds() {
    let none = Limits::default();
    let cases = [
        (Limits { max_width: 19, ..none }, "width, 20,"),
        (Limits { max_height: 13, ..none }, "height, 14,"),
        (Limits { max_pixels: 279, ..none }, "number of pixels, 280,"),
        (Limits { max_alloc: 839, ..none }, ""),
        (Limits { max_file_bytes: 100, ..none }, "file size"),
    ];
    for (name, bytes) in files().iter().filter(|(name, _)| !is_refused(name) && !name.starts_with("exif")) {
        for (limits, word) in cases {
            let from_memory = decode_image(name.as_str(), bytes, &limits);
            let from_file = read_image(folder().join(name), &limits);
            // A grey image needs only 280 bytes.
            let small = limits.max_alloc == 839;
            for error in [from_memory.err(), from_file.err()].into_iter().flatten() {
                assert!(error.to_string().contains(word), "{name}: {error}");
                assert!(
                    matches!(problem(error), ImageProblem::Limit { .. } | ImageProblem::Unsupported { .. }),
                    "{name}"
                );
            }
            assert!(small || decode_image(name.as_str(), bytes, &limits).is_err(), "{name} {limits:?}");
        }
        decode_image(name.as_str(), bytes, &none).unwrap();
    }
    let rgb = std::fs::read(folder().join("png_rgb.png")).unwrap();
    assert!(decode_image("rgb", &rgb, &Limits { max_alloc: 839, ..none }).is_err());
    // Decoding TIFF holds the pixels twice.
    let rgb = std::fs::read(folder().join("tiff_rgb.tif")).unwrap();
    decode_image("tiff", &rgb, &Limits { max_alloc: 1680, ..none }).unwrap();
    let error = decode_image("tiff", &rgb, &Limits { max_alloc: 1679, ..none }).unwrap_err();
    assert!(matches!(problem(error), ImageProblem::Limit { value: 1680, .. }));
}

/// CRC-32 as PNG defines it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}
