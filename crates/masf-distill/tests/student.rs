//! Learning, scoring, saving and going on after an interruption.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use candle_core::{Device, Tensor};
use masf_core::artifact::{ModelFile, ReadOptions, SaveOptions, save};
use masf_core::{
    Artifact, Error, Fault, FeatureLevel, FeaturePyramid, Fit, LevelSpec, Progress, PyramidSource, Result, Scorer,
    Silent, random_stream,
};
use masf_distill::{Checkpoints, DistillError, MaskedStudent, StudentParams, Targets};
use rand::Rng;

/// Images of a smooth pattern with a random phase and some noise: levels of 12 channels on `side` and 20 on half of it.
struct Images(Vec<FeaturePyramid>);

fn image(seed: u64, side: usize) -> Result<FeaturePyramid> {
    let mut random = random_stream(seed, "test.image");
    let phase: f32 = random.random_range(0.0..6.0);
    let mut level = |stride: usize, channels: usize, height: usize, width: usize| {
        let mut values = Vec::with_capacity(channels * height * width);
        for channel in 0..channels {
            for y in 0..height {
                for x in 0..width {
                    let (y, x) = ((y * stride) as f32 / 16.0, (x * stride) as f32 / 16.0);
                    let wave = (phase + channel as f32 + 0.9 * x).sin() * (0.7 * y + 0.3 * channel as f32).cos();
                    values.push(wave.max(-0.3) + random.random_range(-0.05..0.05));
                }
            }
        }
        let map = Tensor::from_vec(values, (1, channels, height, width), &Device::Cpu)?;
        Result::<_, Error>::Ok(FeatureLevel { spec: LevelSpec { stride, channels }, map })
    };
    let (height, width) = (side, side + 2);
    let levels = vec![level(8, 12, height, width)?, level(16, 20, height.div_ceil(2), width.div_ceil(2))?];
    FeaturePyramid::new(levels, (height * 8, width * 8))
}

fn images(count: u64, side: usize) -> Result<Images> {
    Ok(Images((0..count).map(|seed| image(seed, side)).collect::<Result<_>>()?))
}

impl PyramidSource for Images {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn batch(&self, indices: &[usize]) -> Result<FeaturePyramid> {
        FeaturePyramid::cat(&indices.iter().map(|index| self.0[*index].clone()).collect::<Vec<_>>())
    }
}

fn small() -> StudentParams {
    StudentParams {
        width: 16,
        depth: 1,
        heads: 2,
        bottleneck: 16,
        frequency_mask: 0.5,
        dropout: Some(0.2),
        passes: 48,
        batch_size: 4,
        ..StudentParams::default()
    }
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

fn bytes(student: &MaskedStudent) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("student.masf");
    save(student, &path, SaveOptions::default()).unwrap();
    std::fs::read(path).unwrap()
}

fn maps(student: &MaskedStudent, pyramid: &FeaturePyramid) -> Result<Vec<Vec<u32>>> {
    let bits = |values: Tensor| -> Result<Vec<u32>> {
        Ok(values.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
    };
    student.score(pyramid)?.maps.into_iter().map(|map| bits(map.values)).collect()
}

#[test]
fn one_image_is_learned_by_heart() -> Result<()> {
    let images = images(1, 8)?;
    let params = StudentParams {
        width: 32,
        passes: 400,
        batch_size: 1,
        targets: Targets::Raw,
        token_mask: 0.0,
        frequency_mask: 0.0,
        dropout: Some(0.0),
        ..small()
    };
    let student = params.check()?.fit(&images, &Silent)?;
    for map in student.score(&images.0[0])?.maps {
        let mean = map.values.mean_all()?.to_scalar::<f32>()?;
        assert!(mean < 0.01, "{}: cosine {}", map.name, 1.0 - mean);
    }
    Ok(())
}

/// Images whose features are a linear function of `rank` random values of each token.
fn linear_images(count: usize, rank: usize) -> Result<Images> {
    const SIDE: usize = 6;
    let mut random = random_stream(11, "test.linear");
    let mut normal = |rows: usize, columns: usize| -> Result<Tensor> {
        let values: Vec<f32> = (0..rows * columns).map(|_| random.random_range(-1.0..1.0)).collect();
        Ok(Tensor::from_vec(values, (rows, columns), &Device::Cpu)?)
    };
    let (channels, fine, coarse) = ([12, 20], normal(rank, 4 * 12)?, normal(rank, 20)?);
    let mut images = Vec::new();
    for _ in 0..count {
        let tokens = normal(SIDE * SIDE, rank)?;
        let map = tokens.matmul(&fine)?.reshape((SIDE, SIDE, 2, 2, channels[0]))?.permute((4, 0, 2, 1, 3))?;
        let fine = map.reshape((1, channels[0], 2 * SIDE, 2 * SIDE))?;
        let coarse = tokens.matmul(&coarse)?.t()?.reshape((1, channels[1], SIDE, SIDE))?;
        let level = |stride, channels, map| FeatureLevel { spec: LevelSpec { stride, channels }, map };
        let levels = vec![level(8, channels[0], fine), level(16, channels[1], coarse)];
        images.push(FeaturePyramid::new(levels, (96, 96))?);
    }
    Ok(Images(images))
}

#[test]
fn a_linear_start_restores_what_is_linear() -> Result<()> {
    let images = linear_images(12, 6)?;
    let loss = |linear_start, bottleneck| -> Result<f32> {
        let params = StudentParams {
            // A single step, too short to learn anything.
            passes: 1,
            learning_rate: 1e-9,
            depth: 0,
            token_mask: 0.0,
            frequency_mask: 0.0,
            dropout: Some(0.0),
            linear_start,
            bottleneck,
            ..small()
        };
        let maps = params.check()?.fit(&images, &Silent)?.score(&images.0[0])?.maps;
        Ok(maps.iter().map(|map| map.values.mean_all()?.to_scalar::<f32>()).sum::<Result<f32, _>>()?
            / maps.len() as f32)
    };
    let (linear, narrow, random) = (loss(true, 32)?, loss(true, 6)?, loss(false, 32)?);
    assert!(linear < 1e-3, "{linear}");
    assert!(linear < narrow && narrow < random, "{linear} {narrow} {random}");
    Ok(())
}

#[test]
fn what_was_not_learned_scores_higher() -> Result<()> {
    let learned = images(8, 8)?;
    let student = StudentParams { passes: 800, ..small() }.check()?.fit(&learned, &Silent)?;
    let normal = image(100, 8)?;
    let mut odd = Vec::new();
    for level in normal.levels() {
        // The channels of a few positions, turned round.
        let (_, _, h, w) = level.map.dims4()?;
        let corner = level.map.narrow(2, 0, h / 2)?.narrow(3, 0, w / 2)?;
        let reversed: Vec<u32> = (0..level.spec.channels as u32).rev().collect();
        let turned = corner.contiguous()?.index_select(&Tensor::new(reversed, &Device::Cpu)?, 1)?;
        let map = level.map.slice_assign(&[0..1, 0..level.spec.channels, 0..h / 2, 0..w / 2], &turned)?;
        odd.push(FeatureLevel { spec: level.spec, map });
    }
    let odd = FeaturePyramid::new(odd, normal.input_size())?;
    let (before, after) = (student.score(&normal)?, student.score(&odd)?);
    for (before, after) in before.maps.iter().zip(&after.maps) {
        let (h, w) = (before.values.dim(1)? / 2, before.values.dim(2)? / 2);
        let mean = |map: &Tensor| map.narrow(1, 0, h)?.narrow(2, 0, w)?.mean_all()?.to_scalar::<f32>();
        assert!(mean(&after.values)? > 3.0 * mean(&before.values)?, "{}", before.name);
    }
    Ok(())
}

#[test]
fn threads_batches_and_reloading_change_no_bit() -> Result<()> {
    let images = images(5, 7)?;
    let params = StudentParams { average_decay: 0.9, ..small() };
    let student = pool(1).install(|| params.clone().check()?.fit(&images, &Silent))?;
    let other = pool(2).install(|| params.clone().check()?.fit(&images, &Silent))?;
    let written = bytes(&student);
    assert_eq!(written, bytes(&other));
    assert_ne!(written, bytes(&StudentParams { seed: 1, ..params }.check()?.fit(&images, &Silent)?));
    let reloaded = MaskedStudent::read(&ModelFile::from_bytes(&written, ReadOptions::default())?.root()?)?;
    assert_eq!(bytes(&reloaded), written);
    let queries: Vec<FeaturePyramid> = (50..54).map(|seed| image(seed, 7)).collect::<Result<_>>()?;
    let together = maps(&student, &FeaturePyramid::cat(&queries)?)?;
    let mut alone: Vec<Vec<u32>> = vec![Vec::new(); together.len()];
    for query in &queries {
        for (all, map) in alone.iter_mut().zip(pool(2).install(|| maps(&reloaded, query))?) {
            all.extend(map);
        }
    }
    assert_eq!(alone, together);
    Ok(())
}

#[test]
fn every_part_can_be_turned_off() -> Result<()> {
    let images = images(3, 6)?;
    let base = StudentParams { passes: 12, ..small() };
    let variants = [
        StudentParams { neighbourhood: 3, ..base.clone() },
        StudentParams { patch: 2, ..base.clone() },
        StudentParams { patch: 2, neighbourhood: 3, ..base.clone() },
        StudentParams { token_mask: 0.0, ..base.clone() },
        StudentParams { frequency_mask: 0.0, ..base.clone() },
        StudentParams { token_mask: 0.0, frequency_mask: 0.0, dropout: Some(0.0), ..base.clone() },
        StudentParams { spectral_attention: false, ..base.clone() },
        StudentParams { global_filter: false, ..base.clone() },
        StudentParams { global_filter: false, spectral_attention: false, ..base.clone() },
        StudentParams { band_loss: 0.0, ..base.clone() },
        StudentParams { map_loss: 0.0, ..base.clone() },
        StudentParams { easy_weight: 1.0, ..base.clone() },
        StudentParams { depth: 0, ..base.clone() },
        StudentParams { positions: masf_distill::Positions::Learned, ..base.clone() },
        StudentParams { targets: Targets::Raw, ..base.clone() },
        StudentParams { targets: Targets::Standardised, ..base.clone() },
        StudentParams { epochs: Some(5), ..base.clone() },
    ];
    let usual = bytes(&base.check()?.fit(&images, &Silent)?);
    for params in variants {
        let student = params.clone().check()?.fit(&images, &Silent)?;
        assert_ne!(bytes(&student), usual, "{params:?}");
        let kinds = if params.targets == Targets::Both { 2 } else { 1 };
        assert_eq!(student.score(&images.0[0])?.maps.len(), 2 * kinds);
    }
    Ok(())
}

/// As the levels of a transformer are, which differ in depth alone.
#[test]
fn levels_of_one_stride_are_told_apart() -> Result<()> {
    let twins = |seed: u64| {
        let levels = [image(seed, 8)?, image(seed + 100, 8)?].map(|image| image.levels()[0].clone());
        FeaturePyramid::new(levels.to_vec(), (64, 80))
    };
    let images = Images((0..3).map(twins).collect::<Result<_>>()?);
    let folder = tempfile::tempdir().unwrap();
    let params = StudentParams { token_mask: 0.0, frequency_mask: 0.0, dropout: Some(0.0), passes: 120, ..small() };
    let fit = || {
        let checkpoints = Checkpoints::new(folder.path()).resume_from(folder.path()).resume_if_present();
        params.clone().check()?.with_checkpoints(checkpoints)
    };
    let student = fit()?.fit(&images, &Silent)?;
    let found = student.score(&images.0[0])?;
    let names: Vec<_> = found.maps.iter().map(|map| map.name.as_str()).collect();
    assert_eq!(names, ["student.8.raw", "student.8.standardised", "student.8.2.raw", "student.8.2.standardised"]);
    for map in &found.maps {
        let mean = map.values.mean_all()?.to_scalar::<f32>()?;
        assert!(mean < 0.2, "{}: {mean}", map.name);
    }
    let loaded = MaskedStudent::read(&ModelFile::from_bytes(&bytes(&student), ReadOptions::default())?.root()?)?;
    assert_eq!(maps(&loaded, &images.0[1])?, maps(&student, &images.0[1])?);
    assert_eq!(bytes(&fit()?.fit(&images, &Silent)?), bytes(&student));
    Ok(())
}

/// Cancels after some steps of the training, and keeps the notes.
struct Stop {
    after: usize,
    training: AtomicBool,
    seen: AtomicUsize,
    notes: Mutex<Vec<String>>,
}

impl Stop {
    fn after(after: usize) -> Self {
        Self { after, training: AtomicBool::new(false), seen: AtomicUsize::new(0), notes: Mutex::default() }
    }
}

impl Progress for Stop {
    fn start(&self, stage: &str, _: u64) {
        self.training.store(stage.contains("training"), Ordering::Relaxed);
    }
    fn step(&self, count: u64) {
        let counted = if self.training.load(Ordering::Relaxed) { count as usize } else { 0 };
        self.seen.fetch_add(counted, Ordering::Relaxed);
    }
    fn finish(&self) {}
    fn note(&self, text: &str) {
        self.notes.lock().unwrap().push(text.to_owned());
    }
    fn is_cancelled(&self) -> bool {
        self.seen.load(Ordering::Relaxed) >= self.after
    }
}

#[test]
fn an_interrupted_training_ends_with_the_same_bits() -> Result<()> {
    let images = images(5, 6)?;
    let params = StudentParams { passes: 80, average_decay: 0.9, ..small() };
    let whole = bytes(&params.clone().check()?.fit(&images, &Silent)?);
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path());
    let fit = params.clone().check()?.with_checkpoints(checkpoints.clone())?;
    let stopped = fit.fit(&images, &Stop::after(7)).unwrap_err();
    assert!(matches!(stopped, Error::Cancelled), "{stopped}");
    // Neither does the same learner a second time.
    let twice = fit.fit(&images, &Silent).unwrap_err().to_string();
    assert!(twice.contains("student.checkpoint"), "{twice}");
    let forgotten = params.clone().check()?.with_checkpoints(checkpoints.clone()).unwrap_err();
    assert!(matches!(forgotten, DistillError::CheckpointExists { .. }), "{forgotten}");
    let resumed = params.clone().check()?.with_checkpoints(checkpoints.clone().resume_from(folder.path()))?;
    let progress = Stop::after(usize::MAX);
    assert_eq!(bytes(&resumed.fit(&images, &progress)?), whole);
    let notes = progress.notes.lock().unwrap().join("\n");
    assert!(notes.contains("epoch 16/16, loss "), "{notes}");
    // A checkpoint of the end gives the student at once, and goes along to another folder; one of another training is refused.
    let elsewhere = Checkpoints::new(folder.path().join("elsewhere")).resume_from(folder.path());
    let moved = params.clone().check()?.with_checkpoints(elsewhere.clone())?;
    assert_eq!(bytes(&moved.fit(&images, &Silent)?), whole);
    let state = |path: &str| std::fs::read(folder.path().join(path)).unwrap();
    assert_eq!(state("elsewhere/student.checkpoint"), state("student.checkpoint"));
    // Once more it would replace what may be further on; another spelling of one folder is the same folder.
    let again = params.clone().check()?.with_checkpoints(elsewhere.clone()).unwrap_err();
    assert!(matches!(again, DistillError::CheckpointExists { .. }), "{again}");
    let same = elsewhere.resume_from(folder.path().join("elsewhere/../elsewhere"));
    params.clone().check()?.with_checkpoints(same)?;
    for params in [StudentParams { seed: 3, ..params.clone() }, StudentParams { width: 32, ..params.clone() }] {
        let other = params.check()?.with_checkpoints(checkpoints.clone().resume_from(folder.path()))?;
        let error = other.fit(&images, &Silent).unwrap_err();
        assert_eq!(error.fault(), Fault::Argument);
        assert!(error.to_string().contains("does not fit"), "{error}");
    }
    // Each name has its own file; a training that has none begins at its start.
    let named = checkpoints.named("other").resume_from(folder.path()).resume_if_present();
    assert_eq!(bytes(&params.check()?.with_checkpoints(named)?.fit(&images, &Silent)?), whole);
    assert!(folder.path().join("other.checkpoint").is_file());
    let others = Images((60..65).map(|seed| image(seed, 6)).collect::<Result<_>>()?);
    assert!(resumed.fit(&others, &Silent).unwrap_err().to_string().contains("other images"));
    let mut older = state("student.checkpoint");
    let rules = older.windows(8).position(|part| part == b"rules\\\":").unwrap() + 8;
    older[rules] -= 1;
    std::fs::write(folder.path().join("student.checkpoint"), older).unwrap();
    let error = resumed.fit(&images, &Silent).unwrap_err();
    assert!(error.to_string().contains("another version") && error.fault() == Fault::Argument, "{error}");
    std::fs::write(folder.path().join("student.checkpoint"), b"nothing").unwrap();
    assert!(resumed.fit(&images, &Silent).unwrap_err().to_string().contains("does not fit"));
    Ok(())
}

/// Counts the checkpoints that it sees from step to step.
struct Watch {
    path: PathBuf,
    found: Mutex<Vec<Vec<u8>>>,
}

impl Progress for Watch {
    fn start(&self, _: &str, _: u64) {}
    fn step(&self, _: u64) {
        let mut found = self.found.lock().unwrap();
        found.extend(std::fs::read(&self.path));
        found.dedup();
    }
    fn finish(&self) {}
}

#[test]
fn few_images_do_not_make_for_many_checkpoints() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let watch = Watch { path: folder.path().join("student.checkpoint"), found: Mutex::default() };
    let params = StudentParams { passes: 400, ..small() };
    params.check()?.with_checkpoints(Checkpoints::new(folder.path()))?.fit(&images(1, 6)?, &watch)?;
    // Each of the 100 steps is four epochs.
    let found = watch.found.lock().unwrap().len();
    assert!((1..=5).contains(&found), "{found}");
    Ok(())
}

/// The child of the next test: trains a student whose products are large enough to be split among threads.
#[test]
#[ignore = "run by `the_number_of_threads_of_a_process_changes_no_bit`"]
fn train_and_write() {
    let params = StudentParams { width: 96, bottleneck: 64, passes: 12, ..small() };
    let student = params.check().unwrap().fit(&images(4, 16).unwrap(), &Silent).unwrap();
    std::fs::write(std::env::var_os("MASF_TEST_STUDENT").unwrap(), bytes(&student)).unwrap();
}

#[test]
fn the_number_of_threads_of_a_process_changes_no_bit() {
    let folder = tempfile::tempdir().unwrap();
    // Candle takes its number of threads from the environment, once.
    let [one, two] = ["1", "2"].map(|threads| {
        let path = folder.path().join(threads);
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "train_and_write"])
            .env("RAYON_NUM_THREADS", threads)
            .env("MASF_TEST_STUDENT", &path)
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        std::fs::read(path).unwrap()
    });
    assert!(one == two, "the weights differ");
}

/// The child of the next test: trains with a checkpoint after every epoch until it is killed.
#[test]
#[ignore = "run by `killing_the_process_loses_no_bit`"]
fn train_until_killed() {
    let folder = std::env::var_os("MASF_TEST_CHECKPOINTS").unwrap();
    let checkpoints = Checkpoints { every_epochs: 1, ..Checkpoints::new(folder) };
    let params = StudentParams { passes: 100_000, epochs: Some(60), ..small() };
    params.check().unwrap().with_checkpoints(checkpoints).unwrap().fit(&images(5, 6).unwrap(), &Silent).unwrap();
}

#[cfg(unix)]
#[test]
fn killing_the_process_loses_no_bit() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "train_until_killed"])
        .env("MASF_TEST_CHECKPOINTS", folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let path = folder.path().join("student.checkpoint");
    while !path.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    // SIGKILL: nothing can be tidied up.
    child.kill().unwrap();
    child.wait().unwrap();
    let params = StudentParams { passes: 100_000, epochs: Some(60), ..small() };
    let images = images(5, 6)?;
    let fit = params.clone().check()?.with_checkpoints(Checkpoints::new(folder.path()).resume_from(folder.path()))?;
    assert_eq!(bytes(&fit.fit(&images, &Silent)?), bytes(&params.check()?.fit(&images, &Silent)?));
    Ok(())
}

#[test]
fn bad_input_is_refused_with_a_reason() -> Result<()> {
    let fit = small().check()?;
    let none = fit.fit(&Images(Vec::new()), &Silent).unwrap_err();
    assert!(none.to_string().contains("no images") && none.fault() == Fault::Data);
    let good = images(3, 6)?;
    let student = fit.fit(&good, &Silent)?;
    let other = student.score(&image(0, 8)?).unwrap_err();
    assert!(other.to_string().contains("stride 8 12 x 6 x 8"), "{other}");
    let mixed = Images(vec![image(0, 6)?, image(1, 6)?, image(2, 8)?]);
    assert!(fit.fit(&mixed, &Silent).is_err());
    for bad in [f32::NAN, f32::INFINITY] {
        let mut levels = image(0, 6)?.levels().to_vec();
        levels[1].map = (levels[1].map.clone() + f64::from(bad))?;
        let bad = FeaturePyramid::new(levels, (48, 64))?;
        let error = student.score(&bad).unwrap_err();
        assert!(error.to_string().contains("stride 16") && error.fault() == Fault::Data, "{error}");
        assert!(fit.fit(&Images(vec![bad]), &Silent).is_err());
    }
    // As many levels as a model file may have, and one more.
    let levels = |count: u64| -> Result<Images> {
        let levels = (0..count).map(|seed| Ok(image(seed, 6)?.levels()[0].clone()));
        Ok(Images(vec![FeaturePyramid::new(levels.collect::<Result<_>>()?, (48, 64))?]))
    };
    let most = bytes(&fit.fit(&levels(16)?, &Silent)?);
    MaskedStudent::read(&ModelFile::from_bytes(&most, ReadOptions::default())?.root()?)?;
    let error = fit.fit(&levels(17)?, &Silent).unwrap_err();
    assert!(error.to_string().contains("1 to 16 levels") && error.fault() == Fault::Data, "{error}");
    let wild = StudentParams { learning_rate: 1.0, clip_norm: 1e30, passes: 400, ..small() };
    match wild.check()?.fit(&good, &Silent) {
        Ok(student) => {
            for map in student.score(&good.0[0])?.maps {
                let values = map.values.flatten_all()?.to_vec1::<f32>()?;
                assert!(values.iter().all(|value| value.is_finite()), "{}", map.name);
            }
        }
        Err(error) => assert!(error.to_string().contains("diverged"), "{error}"),
    }
    // Their squares are beyond single precision.
    let mut levels = image(0, 6)?.levels().to_vec();
    for level in &mut levels {
        level.map = (level.map.clone() * 1e20)?;
    }
    let error = fit.fit(&Images(vec![FeaturePyramid::new(levels, (48, 64))?]), &Silent).unwrap_err();
    assert!(error.to_string().contains("diverged") && error.fault() == Fault::Data, "{error}");
    assert!(matches!(
        StudentParams::default().check()?.with_checkpoints(Checkpoints { every_epochs: 0, ..Checkpoints::new("x") }),
        Err(DistillError::Parameter { .. })
    ));
    Ok(())
}

#[test]
fn single_positions_and_single_levels_work() -> Result<()> {
    for (height, width) in [(1, 1), (1, 5), (3, 1)] {
        let level = |seed: u64| {
            let mut random = random_stream(seed, "test.tiny");
            let values: Vec<f32> = (0..4 * height * width).map(|_| random.random_range(0.0..1.0)).collect();
            let map = Tensor::from_vec(values, (1, 4, height, width), &Device::Cpu)?;
            FeaturePyramid::new(vec![FeatureLevel { spec: LevelSpec { stride: 16, channels: 4 }, map }], (64, 64))
        };
        let images = Images((0..3).map(level).collect::<Result<_>>()?);
        for patch in [1, 2, 16] {
            let student = StudentParams { patch, ..small() }.check()?.fit(&images, &Silent)?;
            let together = maps(&student, &images.batch(&[0, 1, 2])?)?;
            let last = maps(&student, &images.0[2])?;
            assert_eq!(together[0][2 * height * width..], last[0][..]);
        }
    }
    Ok(())
}
