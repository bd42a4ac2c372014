//! Many images at once: order, errors, masks, cancellation, and the synthetic set on disk.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use image::RgbImage;
use masf_core::{Fault, Normalisation, Progress, Silent};
use masf_data::synthetic::{SyntheticConfig, write_dataset};
use masf_data::{
    DataError, Dataset, Failed, ImageInput, Limits, LoadItem, LoadOptions, Loaded, Loader, Preprocess, Resize, Size,
};
use tempfile::TempDir;

fn preprocess() -> Preprocess {
    Preprocess::new(Size::square(16), Normalisation::IMAGENET).unwrap()
}

/// Images of one grey level each, and sizes that take unequal time.
fn folder(count: u8) -> (TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let paths = (0..count)
        .map(|index| {
            let path = folder.path().join(format!("{index}.png"));
            let side = if index % 3 == 0 { 400 } else { 20 };
            RgbImage::from_pixel(side, side, image::Rgb([index; 3])).save(&path).unwrap();
            path
        })
        .collect();
    (folder, paths)
}

fn bits(results: impl Iterator<Item = Result<Loaded, Failed>>) -> Vec<(usize, Vec<u32>)> {
    results
        .map(|result| {
            let loaded = result.unwrap();
            let values = loaded.tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            (loaded.index, values.into_iter().map(f32::to_bits).collect())
        })
        .collect()
}

#[test]
fn order_and_bits_do_not_depend_on_threads_or_window() {
    let (_folder, paths) = folder(23);
    let reference: Vec<_> = paths
        .iter()
        .map(|path| ImageInput::from(path).tensor(&preprocess(), &Limits::default()).unwrap())
        .map(|tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect())
        .collect::<Vec<Vec<u32>>>();
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for in_flight in [0, 1, 4, 100] {
            let options = LoadOptions { in_flight, ..LoadOptions::default() };
            // Inside the pool: with one thread the loader has to do the work itself.
            let loaded = pool.install(|| bits(Loader::new(&paths, preprocess(), options, &Silent)));
            assert_eq!(loaded.len(), reference.len());
            for (position, ((index, values), expected)) in loaded.iter().zip(&reference).enumerate() {
                assert_eq!((position, values), (*index, expected));
            }
        }
    }
    assert_eq!(bits(Loader::new(&paths, preprocess(), LoadOptions::default(), &Silent)).len(), 23);
}

#[test]
fn batches_hold_what_was_asked_for() {
    let images: Vec<_> = (0..7).map(|level| RgbImage::from_pixel(9, 5, image::Rgb([level; 3]))).collect();
    let mut loader = Loader::new(images, preprocess(), LoadOptions::default(), &Silent);
    let mut sizes = Vec::new();
    while let Some(batch) = loader.next_batch(3).unwrap() {
        assert!(batch.failed.is_empty());
        sizes.push(batch.tensor.unwrap().dim(0).unwrap());
        assert!(batch.images.iter().all(|loaded| loaded.size == Size::new(5, 9)));
    }
    assert_eq!(sizes, [3, 3, 1]);
    assert!(loader.next_batch(0).is_err());
}

#[test]
fn one_bad_file_does_not_stop_the_others() {
    let (folder, mut paths) = folder(5);
    let bad = folder.path().join("bad.png");
    std::fs::write(&bad, "no image").unwrap();
    paths.insert(2, bad);
    let mut loader = Loader::new(&paths, preprocess(), LoadOptions::default(), &Silent);
    let batch = loader.next_batch(6).unwrap().unwrap();
    assert_eq!(batch.tensor.unwrap().dims(), [5, 3, 16, 16]);
    let [failed] = &batch.failed[..] else { panic!("{:?}", batch.failed) };
    assert_eq!(failed.index, 2);
    assert!(failed.error.to_string().contains("bad.png"));
    let error = masf_core::Error::from(Failed { index: 2, error: DataError::Cancelled }.error);
    assert_eq!(error.fault(), Fault::Cancelled);

    let only_bad =
        Loader::new([&paths[2]], preprocess(), LoadOptions::default(), &Silent).next_batch(4).unwrap().unwrap();
    assert!(only_bad.tensor.is_none() && only_bad.failed.len() == 1);
}

#[test]
fn masks_come_along_and_must_fit() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    RgbImage::new(30, 20).save(at("image.png")).unwrap();
    image::GrayImage::from_fn(30, 20, |x, _| image::Luma([if x < 15 { 255 } else { 0 }])).save(at("mask.png")).unwrap();
    image::GrayImage::new(20, 30).save(at("turned.png")).unwrap();
    image::GrayImage::from_pixel(30, 20, image::Luma([1])).save(at("ones.png")).unwrap();
    for (name, value) in [("ones16.png", 1_u16), ("hundreds16.png", 100)] {
        let labels = image::ImageBuffer::from_fn(30, 20, |x, _| image::LumaA([if x < 15 { value } else { 0 }, 65_535]));
        labels.save(at(name)).unwrap();
    }
    image::ImageBuffer::from_pixel(30, 20, image::LumaA([0_u16, 65_535])).save(at("none16.png")).unwrap();
    let load_by = |preprocess, mask: &str| {
        let item = LoadItem { image: at("image.png").into(), mask: Some(at(mask)) };
        Loader::new([item], preprocess, LoadOptions::default(), &Silent).next().unwrap()
    };
    let load = |mask: &str| load_by(preprocess(), mask);
    let mask = load("mask.png").unwrap().mask.unwrap();
    assert_eq!((mask.size(), mask.area()), (Size::square(16), 128));
    let error = load("turned.png").unwrap_err().error;
    assert!(matches!(error, DataError::MaskSize { .. }));
    let text = error.to_string();
    assert!(["turned.png", "30x20", "image.png", "20x30"].iter().all(|part| text.contains(part)), "{text}");
    for name in ["ones.png", "ones16.png", "hundreds16.png"] {
        let text = load(name).unwrap_err().error.to_string();
        assert!(text.contains(name) && text.contains("above 127"), "{text}");
    }
    assert!(load("none16.png").unwrap_err().error.to_string().contains("none16.png: an empty mask"));
    let mut dot = image::GrayImage::new(30, 20);
    dot.save(at("dot.png")).unwrap();
    assert!(load("dot.png").unwrap_err().error.to_string().contains("dot.png: an empty mask"));
    // Nearest neighbour passes over column 1.
    dot.put_pixel(1, 0, image::Luma([255]));
    dot.save(at("dot.png")).unwrap();
    let mask = load("dot.png").unwrap().mask.unwrap();
    assert!(mask.area() == 1 && mask.pixels()[0]);
    let dot = masf_data::Mask::read(at("dot.png"), &Limits::default()).unwrap();
    assert!(!preprocess().mask(&dot).unwrap().any());
    let large = preprocess().with_crop_from(Resize::ShorterSide(16_384)).unwrap();
    assert!(load_by(large, "mask.png").unwrap_err().error.to_string().contains("image.png"));
}

/// Cancels after some questions.
struct Impatient(AtomicUsize);

impl Progress for Impatient {
    fn start(&self, _stage: &str, _total: u64) {}
    fn step(&self, _count: u64) {}
    fn finish(&self) {}
    fn is_cancelled(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) >= 3
    }
}

#[test]
fn stops_when_told() {
    let (_folder, paths) = folder(10);
    for in_flight in [1, 2, 16] {
        let impatient = Impatient(AtomicUsize::new(0));
        let options = LoadOptions { in_flight, ..LoadOptions::default() };
        let results: Vec<_> = Loader::new(&paths, preprocess(), options, &impatient).collect();
        assert_eq!(results.len(), 4);
        assert!(matches!(results[3], Err(Failed { index: 3, error: DataError::Cancelled })), "{in_flight} in flight");
    }
    let impatient = Impatient(AtomicUsize::new(0));
    let stopped = Loader::new(&paths, preprocess(), LoadOptions::default(), &impatient).next_batch(8);
    assert!(matches!(stopped, Err(DataError::Cancelled)));
}

#[test]
fn the_synthetic_set_is_a_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let config = SyntheticConfig { size: Size::new(96, 128), train: 3, test_good: 2, test_per_kind: 2, seed: 1 };
    assert_eq!(write_dataset(&folder, &config).unwrap(), 13);
    // Again, over the files of the first run.
    assert_eq!(write_dataset(&folder, &config).unwrap(), 13);
    assert_eq!(Dataset::training(&folder).unwrap().samples.len(), 3);
    let test = Dataset::test(&folder).unwrap();
    assert_eq!(test.kinds(), [("dent", 2), ("good", 2), ("missing_piece", 2), ("scratch", 2), ("spot", 2)]);
    assert!(test.stray_masks.is_empty());
    for result in Loader::new(&test.samples, preprocess(), LoadOptions::default(), &Silent) {
        let loaded = result.unwrap();
        assert_eq!(loaded.mask.is_some(), test.samples[loaded.index].label.is_defective());
        assert_eq!(loaded.size, config.size);
    }
    // A smaller set would leave images of the larger one behind.
    let error = write_dataset(&folder, &SyntheticConfig { train: 2, ..config }).unwrap_err();
    assert!(error.to_string().contains("002.png"), "{error}");
    let (own, missing) = (folder.path().join("train/good/001.png"), folder.path().join("test/good/000.png"));
    let whole = std::fs::read(&own).unwrap();
    for length in [whole.len() / 2, 0] {
        std::fs::write(&own, &whole[..length]).unwrap();
        let error = write_dataset(&folder, &config).unwrap_err();
        assert!(error.to_string().contains("001.png: is cut off"), "{error}");
    }
    // A picture of the user's under a name of the set, before a file that is missing.
    RgbImage::new(128, 96).save(&own).unwrap();
    std::fs::remove_file(&missing).unwrap();
    let before = std::fs::read(&own).unwrap();
    let error = write_dataset(&folder, &config).unwrap_err();
    assert!(error.to_string().contains("001.png: is not part"), "{error}");
    assert!(std::fs::read(&own).unwrap() == before && !missing.exists());
}

#[test]
fn public_types_cross_threads() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<DataError>();
    check::<ImageInput>();
    check::<Loaded>();
    check::<Preprocess>();
    check::<Dataset>();
    check::<masf_data::Mask>();
    check::<masf_data::synthetic::SyntheticSet>();
}
