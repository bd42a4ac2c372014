//! Images that lie. `crates/masf-data/tests/suite/decoding.rs` cuts and damages good ones at every byte; these are made to break decoders.

use std::fs;
use std::path::PathBuf;

use masf::core::Result;
use masf::data::{Dataset, Limits, decode_image};
use masf::{Detector, Fault};
use masf_tests::{quick_config, training_images};

use crate::assert_says;
use crate::measure::{MIB, bounded, turn};
use crate::pictures::{SIGNATURE, bmp, chunk, header, png, riff, scans, segment, tiff, tiff_data, vp8x, webp, zeros};

/// A file, and what must be said of it; `None` where it has to be read.
struct Attack {
    name: String,
    bytes: Vec<u8>,
    says: Option<&'static str>,
}

/// Tag, type, count and value of what a TIFF file says of its picture.
type Entries = Vec<(u16, u16, u32, u32)>;

fn attack(name: &str, bytes: Vec<u8>, says: impl Into<Option<&'static str>>) -> Attack {
    Attack { name: name.to_owned(), bytes, says: says.into() }
}

const JPEG: &[u8] = include_bytes!("../data/data_images/jpeg_444.jpg");
const WEBP: &[u8] = include_bytes!("../data/data_images/webp_lossless.webp");

fn pngs() -> Vec<Attack> {
    let compressed = |kind: &[u8; 4], before: &[u8], size: u64| chunk(kind, &[before, &zeros(size)].concat());
    let with_pixels =
        |pixels: Vec<u8>| [SIGNATURE, &header(8, 8, 8, 0), &chunk(b"IDAT", &pixels), &chunk(b"IEND", &[])].concat();
    let cut = |claimed: u32| {
        let mut bytes = [SIGNATURE, &header(8, 8, 8, 0)].concat();
        bytes.extend([&claimed.to_be_bytes()[..], b"IDAT", &[0; 64]].concat());
        bytes
    };
    let of_header = |width, height, depth, colour| {
        let pixels = zeros(72);
        [SIGNATURE, &header(width, height, depth, colour), &chunk(b"IDAT", &pixels), &chunk(b"IEND", &[])].concat()
    };
    let mut wrong_checksum = png(8, 8, &[]);
    let place = wrong_checksum.len() - 12 - 2;
    wrong_checksum[place] ^= 1;
    // An EXIF directory whose next directory, and whose sub-directory, is itself.
    let exif = [
        &b"II*\0\x08\0\0\0\x02\0"[..],
        &[0x12, 1, 3, 0, 1, 0, 0, 0, 1, 0, 0, 0],
        &[0x69, 0x87, 4, 0, 1, 0, 0, 0, 8, 0, 0, 0],
        &[8, 0, 0, 0],
    ]
    .concat();
    vec![
        attack("png_profile_bomb.png", png(8, 8, &[compressed(b"iCCP", b"p\0\0", 256 << 20)]), None),
        attack("png_text_bomb.png", png(8, 8, &[compressed(b"zTXt", b"Comment\0\0", 256 << 20)]), None),
        attack("png_text_bombs.png", png(8, 8, &vec![compressed(b"iTXt", b"Comment\0\x01\0\0\0", 16 << 20); 16]), None),
        attack("png_many_chunks.png", png(8, 8, &vec![chunk(b"tEXt", b"k\0v"); 200_000]), None),
        attack("png_exif_loop.png", png(8, 8, &[chunk(b"eXIf", &exif)]), None),
        attack("png_more_pixels_than_declared.png", with_pixels(zeros(64 << 20)), None),
        attack("png_too_few_pixels.png", with_pixels(zeros(30)), "PNG"),
        attack("png_no_pixels.png", [SIGNATURE, &header(8, 8, 8, 0), &chunk(b"IEND", &[])].concat(), "PNG"),
        attack("png_no_header.png", [SIGNATURE, &chunk(b"IDAT", &zeros(72)), &chunk(b"IEND", &[])].concat(), "PNG"),
        attack("png_two_headers.png", png(8, 8, &[header(4096, 4096, 16, 6)]), "PNG"),
        attack("png_chunk_beyond_the_file.png", cut(1 << 20), "truncated"),
        attack("png_chunk_of_2_to_32.png", cut(u32::MAX), "PNG"),
        attack("png_width_zero.png", of_header(0, 8, 8, 0), "corrupt"),
        attack("png_height_zero.png", of_header(8, 0, 8, 0), "corrupt"),
        attack("png_width_of_2_to_31.png", of_header(1 << 31, 1, 8, 0), "PNG"),
        attack("png_width_of_2_to_30.png", of_header(1 << 30, 1, 8, 0), "the limit of 67108864 bytes beside"),
        attack("png_height_of_2_to_30.png", of_header(1, 1 << 30, 8, 0), "height, 1073741824, is above the limit"),
        attack("png_pixels.png", of_header(60_000, 60_000, 1, 0), "number of pixels, 3600000000, is above the limit"),
        attack("png_depth_3.png", of_header(8, 8, 3, 0), "corrupt"),
        attack("png_colour_5.png", of_header(8, 8, 8, 5), "corrupt"),
        attack("png_palette_missing.png", of_header(8, 8, 8, 3), "PNG"),
        attack("png_wrong_checksum.png", wrong_checksum, "CRC error"),
    ]
}

fn jpegs() -> Vec<Attack> {
    let start = |rest: &[Vec<u8>]| [&JPEG[..2], &rest.concat(), &JPEG[2..]].concat();
    // The frame header of a file, changed.
    let framed = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = JPEG.to_vec();
        let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame");
        change(&mut bytes[frame..]);
        bytes
    };
    let exif = |body: &[u8]| segment(0xe1, &[b"Exif\0\0", body].concat());
    let loops = exif(b"II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0");
    let offset = exif(b"II*\0\xff\xff\xff\xff");
    let entries = exif(b"II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\xff\xff\xff\xff\xff\xff\xff\xff");
    let profile = |index: u8, of: u8| segment(0xe2, &[b"ICC_PROFILE\0", &[index, of][..], &[0; 65_000]].concat());
    vec![
        attack("jpeg_exif_loop.jpg", start(&[loops]), None),
        attack("jpeg_exif_offset.jpg", start(&[offset]), None),
        attack("jpeg_exif_entries.jpg", start(&[entries]), None),
        attack(
            "jpeg_profile_of_255_parts.jpg",
            start(&(1..=255).map(|part| profile(part, 255)).collect::<Vec<_>>()),
            None,
        ),
        attack("jpeg_profile_part_0_of_0.jpg", start(&[profile(0, 0), profile(9, 3)]), None),
        attack(
            "jpeg_2_to_32_pixels.jpg",
            framed(&|frame| frame[5..9].fill(0xff)),
            "number of pixels, 4294836225, is above",
        ),
        attack("jpeg_height_zero.jpg", framed(&|frame| frame[5..7].fill(0)), "JPEG"),
        attack("jpeg_width_zero.jpg", framed(&|frame| frame[7..9].fill(0)), "JPEG"),
        attack("jpeg_precision_12.jpg", framed(&|frame| frame[4] = 12), "JPEG"),
        attack("jpeg_components_255.jpg", framed(&|frame| frame[9] = 255), "JPEG"),
        attack("jpeg_sampling_15.jpg", framed(&|frame| frame[11] = 0xff), "JPEG"),
        attack("jpeg_sampling_0.jpg", framed(&|frame| frame[11] = 0), "JPEG"),
        // A picture that ends properly before all of its rows are there is read, the missing rows grey: a limit of the decoder, which the
        // README of masf-data states.
        attack("jpeg_taller_than_its_data.jpg", framed(&|frame| frame[5..7].copy_from_slice(&[0x20, 0])), None),
        attack("jpeg_segment_of_length_1.jpg", start(&[vec![0xff, 0xe5, 0, 1]]), "JPEG"),
        attack("jpeg_20_scans.jpg", scans(1024, 20), None),
        attack("jpeg_20000_scans.jpg", scans(1024, 20_000), "scans"),
        attack("jpeg_100_scans_of_4096.jpg", scans(4096, 100), None),
    ]
}

fn tiffs() -> Vec<Attack> {
    // Width, height, depth, no compression, black is zero, offset, rows of a strip, length.
    let plain = |width: u32, height: u32, change: &dyn Fn(&mut Entries), data: &[u8]| {
        let mut entries = vec![
            (256, 4, 1, width),
            (257, 4, 1, height),
            (258, 3, 1, 8),
            (259, 3, 1, 1),
            (262, 3, 1, 1),
            (273, 4, 1, 0),
            (278, 4, 1, height),
            (279, 4, 1, data.len() as u32),
        ];
        change(&mut entries);
        let begin = tiff_data(entries.len());
        entries.iter_mut().filter(|entry| entry.0 == 273 && entry.2 == 1).for_each(|entry| entry.3 = begin);
        tiff(&entries, data)
    };
    let set = |tag: u16, count: u32, value: u32| {
        move |entries: &mut Entries| {
            entries.iter_mut().filter(|entry| entry.0 == tag).for_each(|entry| (entry.2, entry.3) = (count, value));
        }
    };
    let unchanged = |_: &mut Entries| {};
    let mut again = plain(8, 8, &unchanged, &[7; 64]);
    let next = tiff_data(8) as usize - 4;
    again[next..next + 4].copy_from_slice(&8u32.to_le_bytes());
    // A table of strips that fills the file, named by as many entries as there can be.
    let tables = {
        let (entries, length) = (60_000usize, 1_000_000u32);
        tiff(&vec![(273, 3, length / 2, tiff_data(entries)); entries], &vec![1; length as usize])
    };
    // Both tables the same bytes, as many as the file has.
    let byte_tables = {
        let length = 16u32 << 20;
        let shared = |entries: &mut Entries| {
            for at in [5, 7] {
                (entries[at].1, entries[at].2, entries[at].3) = (1, length, tiff_data(8));
            }
        };
        plain(8, 8, &shared, &vec![1; length as usize])
    };
    let big = |count: u64| {
        let mut bytes = b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0".to_vec();
        bytes.extend(count.to_le_bytes());
        bytes.extend([0; 200]);
        bytes
    };
    // BigTIFF has numbers of 8 bytes: a header of 16, the number of entries, entries of 20, the next directory, the data.
    let big_plain = |strips: u64| {
        let entries: [(u16, u16, u64, u64); 8] = [
            (256, 4, 1, 8),
            (257, 4, 1, 8),
            (258, 3, 1, 8),
            (259, 3, 1, 1),
            (262, 3, 1, 1),
            (273, 16, strips, 16 + 8 + 8 * 20 + 8),
            (278, 4, 1, 8),
            (279, 16, strips, 64),
        ];
        let mut bytes = b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0".to_vec();
        bytes.extend((entries.len() as u64).to_le_bytes());
        for (tag, kind, count, value) in entries {
            bytes.extend(
                [&tag.to_le_bytes()[..], &kind.to_le_bytes(), &count.to_le_bytes(), &value.to_le_bytes()].concat(),
            );
        }
        bytes.extend([0; 8]);
        bytes.extend([7; 64]);
        bytes
    };
    vec![
        attack("tiff_plain.tif", plain(8, 8, &unchanged, &[7; 64]), None),
        attack("tiff_directory_loop.tif", again, "cycle"),
        attack("tiff_60000_tables.tif", tables, "TIFF"),
        attack("tiff_byte_tables.tif", byte_tables, "more than the limit"),
        attack("tiff_2_to_62_pixels.tif", plain(1 << 31, 1 << 31, &unchanged, &[7; 64]), "is above the limit"),
        attack("tiff_width_zero.tif", plain(0, 8, &unchanged, &[7; 64]), "TIFF"),
        attack("tiff_height_zero.tif", plain(8, 0, &unchanged, &[7; 64]), "TIFF"),
        attack("tiff_rows_of_a_strip_zero.tif", plain(8, 8, &set(278, 1, 0), &[7; 64]), "TIFF"),
        attack("tiff_too_few_pixels.tif", plain(4096, 4096, &unchanged, &[7; 64]), "TIFF"),
        attack("tiff_strip_beyond_the_file.tif", plain(8, 8, &set(279, 1, 65), &[7; 64]), "truncated"),
        attack("tiff_2_to_32_strips.tif", plain(8, 8, &set(273, u32::MAX, 8), &[7; 64]), "more than the limit"),
        attack("tiff_depth_64.tif", plain(8, 8, &set(258, 1, 64), &[7; 512]), "TIFF"),
        attack("tiff_depth_65535.tif", plain(8, 8, &set(258, 1, 65_535), &[7; 64]), "TIFF"),
        attack("tiff_depths_of_2_to_32_samples.tif", plain(8, 8, &set(258, u32::MAX, 8), &[7; 64]), "TIFF"),
        attack("tiff_compression_65000.tif", plain(8, 8, &set(259, 1, 65_000), &[7; 64]), "TIFF"),
        attack("tiff_deflate_bomb.tif", plain(8, 8, &set(259, 1, 8), &zeros(256 << 20)), None),
        attack(
            "tiff_samples_60000.tif",
            plain(8, 8, &|entries| entries.insert(6, (277, 3, 1, 60_000)), &[7; 64]),
            "TIFF",
        ),
        attack(
            "tiff_tile_of_2_to_31.tif",
            plain(
                8,
                8,
                &|entries| {
                    let length = entries[7].3;
                    entries.truncate(5);
                    entries.extend([(322, 4, 1, 1 << 31), (323, 4, 1, 1 << 31)]);
                    entries.extend([(324, 4, 1, tiff_data(9)), (325, 4, 1, length)]);
                },
                &[7; 64],
            ),
            "TIFF",
        ),
        attack("tiff_big_plain.tif", big_plain(1), None),
        attack("tiff_big_2_to_60_strips.tif", big_plain(1 << 60), "TIFF"),
        attack("tiff_big_2_to_28_strips.tif", big_plain(1 << 28), "TIFF"),
        attack("tiff_big_2_to_64_entries.tif", big(u64::MAX), "TIFF"),
        attack("tiff_no_entries.tif", tiff(&[], &[]), "TIFF"),
    ]
}

fn others() -> Vec<Attack> {
    // The one chunk of a lossless file, within an extended one.
    let pixels = WEBP[12..].to_vec();
    let extended = |flags, chunks: &[Vec<u8>]| webp(&[vec![vp8x(flags, 20, 14)], chunks.to_vec()].concat());
    let palette = [[0u8; 1024].to_vec(), vec![0; 64]].concat();
    // To the right by 255 and down by 255, many times: outside; and the end.
    let jumps = [[0u8, 2, 255, 255].repeat(1000), vec![0, 1]].concat();
    let lossless = |width: u32, height: u32| {
        let sides = (width - 1) | (height - 1) << 14;
        webp(&[riff(b"VP8L", 9, &[&[0x2f][..], &sides.to_le_bytes(), &[0; 4]].concat())])
    };
    vec![
        attack("webp_plain.webp", WEBP.to_vec(), None),
        attack("webp_extended.webp", extended(0, std::slice::from_ref(&pixels)), None),
        attack(
            "webp_exif_of_3_gib.webp",
            extended(8, &[pixels.clone(), riff(b"EXIF", 3 << 30, b"II*\0")]),
            "truncated",
        ),
        attack("webp_profile_of_3_gib.webp", extended(32, &[riff(b"ICCP", 3 << 30, &[]), pixels.clone()]), "WebP"),
        attack("webp_canvas_of_2_to_48.webp", webp(&[vp8x(0, 1 << 24, 1 << 24), pixels.clone()]), "too large"),
        attack("webp_canvas_of_other_size.webp", webp(&[vp8x(0, 4000, 4000), pixels.clone()]), "WebP"),
        attack("webp_no_pixels.webp", extended(0, &[]), "WebP"),
        attack("webp_longer_than_the_file.webp", riff(b"RIFF", u32::MAX - 1, &WEBP[8..]), "truncated"),
        attack("webp_lossless_of_2_to_28.webp", lossless(16_384, 16_384), "WebP"),
        attack("webp_lossless_of_noise.webp", lossless(2048, 2048), "WebP"),
        attack("bmp_width_zero.bmp", bmp(0, 8, 24, 0, 0, 54, &[0; 256]), "BMP"),
        attack("bmp_height_zero.bmp", bmp(8, 0, 24, 0, 0, 54, &[0; 256]), "BMP"),
        attack("bmp_width_below_zero.bmp", bmp(-8, 8, 24, 0, 0, 54, &[0; 256]), "BMP"),
        attack("bmp_height_of_minus_2_to_31.bmp", bmp(8, i32::MIN, 24, 0, 0, 54, &[0; 256]), "BMP"),
        attack("bmp_2_to_62_pixels.bmp", bmp(i32::MAX, i32::MAX, 24, 0, 0, 54, &[0; 256]), "too large"),
        attack("bmp_2_to_32_colours.bmp", bmp(8, 8, 8, 0, u32::MAX, 54 + 1024, &palette), "BMP"),
        attack("bmp_pixels_beyond_the_file.bmp", bmp(8, 8, 24, 0, 0, u32::MAX, &[0; 256]), "BMP"),
        attack("bmp_too_few_pixels.bmp", bmp(1000, 1000, 24, 0, 0, 54, &[0; 256]), "BMP"),
        attack("bmp_depth_7.bmp", bmp(8, 8, 7, 0, 0, 54, &[0; 256]), "BMP"),
        attack("bmp_compression_99.bmp", bmp(8, 8, 24, 99, 0, 54, &[0; 256]), "BMP"),
        attack(
            "bmp_jumps_outside.bmp",
            bmp(8, 8, 8, 1, 256, 54 + 1024, &[palette[..1024].to_vec(), jumps].concat()),
            "RLE",
        ),
        attack("gif.png", b"GIF89a\x08\0\x08\0\0\0\0;".to_vec(), "not an image that can be read"),
        attack("heif.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic".to_vec(), "not an image that can be read"),
        attack("vector.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec(), "not an image that can be read"),
        attack("zero_bytes.tif", Vec::new(), "the file is empty"),
        attack("png_named_jpg.jpg", png(8, 8, &[]), None),
    ]
}

fn all() -> Vec<Attack> {
    [pngs(), jpegs(), tiffs(), others()].into_iter().flatten().collect()
}

#[test]
fn every_attack_gets_its_answer_in_bounded_memory_and_time() {
    let _turn = turn();
    let mut wrong = Vec::new();
    for Attack { name, bytes, says } in all() {
        // What a decoder of the largest of these pictures needs, or a profile that is unpacked, and a few copies of the file.
        let bound = 128 * MIB + 4 * bytes.len();
        let answer = bounded(&name, bound, || decode_image(name.as_str(), &bytes, &Limits::default()));
        match (answer, says) {
            (Ok(image), None) if image.width() > 0 && image.height() > 0 => {}
            (Ok(image), says) => {
                wrong.push(format!("{name} was read as {}x{}: {says:?}", image.width(), image.height()))
            }
            (Err(error), None) => wrong.push(format!("it had to be read: {error}")),
            (Err(error), Some(says)) => {
                let message = error.to_string();
                // One that is taken for no image never reached the code that it attacks.
                let unknown = "not an image that can be read";
                let reached = says == unknown || !message.contains(unknown);
                if !reached || !message.contains(&name) || !message.contains(says) || error.fault() != Fault::Data {
                    wrong.push(format!("the message lacks {says:?}: {message}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn attacks_among_good_images_are_listed_and_change_nothing() -> Result<()> {
    let _turn = turn();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let good = &training_images()?[..4];
    for (index, image) in good.iter().enumerate() {
        fs::copy(image, folder.path().join(format!("good{index}.png"))).expect("a copy");
    }
    let mut refused: Vec<String> = Vec::new();
    for attack in all().into_iter().filter(|attack| attack.says.is_some() && attack.bytes.len() < MIB) {
        fs::write(folder.path().join(&attack.name), &attack.bytes).expect("a file");
        refused.push(attack.name);
    }
    let images: Vec<PathBuf> =
        Dataset::training(folder.path())?.samples.into_iter().map(|sample| sample.path).collect();
    let fit = |images: &[PathBuf]| Detector::builder().config(quick_config()).skip_bad(true).fit_with_report(images);
    let ((clean, _), (detector, report)) = (fit(good)?, fit(&images)?);
    for name in &refused {
        assert!(report.skipped.iter().any(|error| error.to_string().contains(name.as_str())), "{name} is not listed");
    }
    assert_eq!(report.skipped.len(), refused.len());
    assert_eq!(detector.threshold(), clean.threshold());
    let scores = |detector: &Detector| detector.inspect(&good[0]).map(|found| found.anomaly_map);
    assert_eq!(scores(&detector)?, scores(&clean)?);
    // Inspecting goes on, too.
    let results = detector.inspect_batch(&images);
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), refused.len());
    for (image, result) in images.iter().zip(&results) {
        if let Err(error) = result {
            assert_says(&error.to_string(), &[&image.display().to_string()]);
        }
    }
    Ok(())
}
