//! One detector, many threads; one seed, any number of threads: the same bits.

use std::path::PathBuf;
use std::sync::Barrier;

use masf::data::Dataset;
use masf::{Config, Detector, Error, Inspection, Result};
use masf_tests::{dataset, quick_config, training_images};

/// Every bit of an inspection that a user sees.
fn bits(found: &Inspection) -> Vec<u32> {
    let scalars = [found.image_score, found.normalised_score.0, found.uncertainty];
    let maps = found.anomaly_map.iter().chain(found.uncertainty_map.iter());
    let regions = found.regions.iter().flat_map(|region| [region.top as u32, region.left as u32, region.area as u32]);
    scalars.iter().chain(maps).map(|value| value.to_bits()).chain(regions).collect()
}

fn test_images() -> Result<Vec<PathBuf>> {
    Ok(Dataset::test(dataset())?.samples.into_iter().map(|sample| sample.path).collect())
}

fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads").install(work)
}

#[test]
fn eight_threads_share_a_detector() -> Result<()> {
    let detector = Detector::builder().config(quick_config()).fit(training_images()?)?;
    let images = test_images()?;
    let expected =
        images.iter().map(|image| detector.inspect(image).map(|found| bits(&found))).collect::<Result<Vec<_>>>()?;
    const THREADS: usize = 8;
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        let spawn = |thread: usize| {
            let (detector, images, expected, barrier) = (&detector, &images, &expected, &barrier);
            scope.spawn(move || {
                barrier.wait();
                // Half of them one by one, from another place each; half of them all at once.
                if thread.is_multiple_of(2) {
                    for step in 0..images.len() {
                        let index = (step + thread) % images.len();
                        let found = detector.inspect(&images[index]).expect("it can be inspected");
                        assert!(bits(&found) == expected[index], "thread {thread}, image {index}");
                    }
                } else {
                    for (index, found) in detector.inspect_batch(images).into_iter().enumerate() {
                        let found = found.expect("it can be inspected");
                        assert!(bits(&found) == expected[index], "thread {thread}, image {index} of a batch");
                    }
                }
            })
        };
        let threads: Vec<_> = (0..THREADS).map(spawn).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no thread panics"));
    });
    Ok(())
}

/// The file of a model fitted on so many threads.
fn model(config: &Config, threads: usize) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.masf");
    let images = training_images()?;
    with_threads(threads, || Detector::builder().config(config.clone()).fit(&images[..6])?.save(&path))?;
    std::fs::read(&path).map_err(|error| Error::io(path, error))
}

#[test]
fn every_kind_of_model_is_the_same_file_on_one_thread_and_on_two() -> Result<()> {
    // The default bank is in `end_to_end.rs`.
    let kinds = [
        ("student", "branches = ['distill']\n[distill]\nwidth = 32\nbottleneck = 32\ndepth = 1\nepochs = 2"),
        (
            "bank and student, learned weights",
            "branches = ['memory', 'distill']\n[distill]\nwidth = 32\nbottleneck = 32\ndepth = 1\nepochs = 2\n\
             [fusion]\nweights = 'learned'\nsynthetic_defects = 8\ngate = { views = 1.0, disagreement = 1.0 }\n[views]\nnoise = 1\nshifts = 1\nmargin = 8",
        ),
        (
            "turned images, angles, cells",
            "orientations = 3\n[memory]\nturns = 4\nsearch = { cells = { cells = 8, visited = 4, keys = 'both' } }\nanchor_weight = 0.5",
        ),
        (
            "graph, principal components",
            "[memory]\nsearch = { hnsw = {} }\nreduction = { pca = { components = 16, whiten = true } }",
        ),
        ("a bank for each level", "memory.per_level = true\ninput = { tile = 64, tile_overlap = 16 }"),
        (
            "patchcore",
            "method = 'patchcore'\npatchcore = { candidates = 500, prototypes = 50, reweight_neighbours = 3 }",
        ),
        ("padim", "method = 'padim'\npadim.dimensions = 8"),
        ("scattering", "backbone.name = 'scattering'"),
        ("half precision", "backbone.precision = 'bf16'"),
    ];
    for (name, text) in kinds {
        let mut config = Config::from_toml(text)?;
        config.threshold.folds = Some(2);
        let size = masf::Size::square(if name.contains("each level") { 128 } else { 64 });
        (config.input.size, config.memory.candidates, config.memory.prototypes) = (size, 500, 60);
        let first = model(&config, 1)?;
        assert!(first == model(&config, 2)?, "{name}: the number of threads changed the model");
        if name == "student" {
            assert!(first != model(&Config { seed: 1, ..config }, 2)?, "{name}: the seed has no effect");
        }
    }
    Ok(())
}
