//! Resizing against Pillow and torchvision (`tests/reference/data_resize.py`).

use std::path::PathBuf;

use masf_core::Normalisation;
use masf_data::{Limits, Mask, Preprocess, Resize, Size, read_image};

fn file(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/data_resize")).join(name)
}

/// The sizes in the names of the files `PREFIX_HxW.png`.
fn sizes(prefix: &str) -> Vec<(Size, PathBuf)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(file("")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if let Some(size) = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_')) {
            found.push((size.parse().unwrap(), path));
        }
    }
    assert!(found.len() >= 9, "the reference images of {prefix} are gone");
    found
}

fn largest_difference(a: &image::RgbImage, b: &image::RgbImage) -> u8 {
    assert_eq!(a.dimensions(), b.dimensions());
    a.iter().zip(b.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn bilinear_is_pillows_to_within_a_level() {
    let source = read_image(file("source.png"), &Limits::default()).unwrap();
    for (size, path) in sizes("bilinear") {
        let expected = image::open(&path).unwrap().to_rgb8();
        let view = Preprocess::new(size, Normalisation::IMAGENET).unwrap().view(&source).unwrap();
        let worst = largest_difference(&view, &expected);
        assert!(worst <= 1, "{size}: differs by {worst}");
    }
}

#[test]
fn resize_and_centre_crop_are_torchvisions() {
    let source = read_image(file("source.png"), &Limits::default()).unwrap();
    let expected = image::open(file("torchvision_32_24x28.png")).unwrap().to_rgb8();
    let preprocess = Preprocess::new(Size::new(24, 28), Normalisation::IMAGENET)
        .and_then(|stretch| stretch.with_crop_from(Resize::ShorterSide(32)))
        .unwrap();
    assert!(largest_difference(&preprocess.view(&source).unwrap(), &expected) <= 1);
}

#[test]
fn masks_are_resized_as_pillow_does() {
    let mask = Mask::read(file("mask.png"), &Limits::default()).unwrap();
    assert_eq!(mask.size(), Size::new(53, 37));
    for (size, path) in sizes("nearest") {
        let resized = Preprocess::new(size, Normalisation::IMAGENET).unwrap().mask(&mask).unwrap();
        assert_eq!(resized, Mask::read(&path, &Limits::default()).unwrap(), "{size}");
    }
}

#[test]
fn nearest_neighbours_are_pillows_for_many_lengths() {
    let lines = std::fs::read_to_string(file("nearest.txt")).unwrap();
    for line in lines.lines() {
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        let [length, target, checksum] = numbers[..] else { panic!("{line}") };
        let preprocess = Preprocess::new(Size::new(1, target as u32), Normalisation::IMAGENET).unwrap();
        // A mask shows one bit of each index; all bits together are the index.
        let mut indices = vec![0_u64; target as usize];
        for bit in 0..10 {
            let pixels = (0..length).map(|index| index >> bit & 1 == 1).collect();
            let mask = Mask::new(Size::new(1, length as u32), pixels).unwrap();
            for (index, set) in indices.iter_mut().zip(preprocess.mask(&mask).unwrap().pixels()) {
                *index |= u64::from(*set) << bit;
            }
        }
        let sum: u64 = (1..).zip(&indices).map(|(place, index)| place * index).sum();
        assert_eq!(sum, checksum, "{length} to {target}");
    }
}
