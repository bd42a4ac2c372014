//! What a backbone promises: features of an image do not depend on its company, a read-back backbone gives the same bits,
//! and whatever is wrong is named.

use crate::common;

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use masf_backbone::{Backbone, BackboneError, Precision, Problem, ScatteringBackbone, Weights};
use masf_core::artifact::{ModelFile, ReadOptions, Registry, SaveOptions, save};
use masf_core::{Artifact, Error, Fault, FeatureExtractor, FeaturePyramid, Normalisation, Result};

fn bits(pyramid: &FeaturePyramid) -> Vec<Vec<u32>> {
    let values = |map: &Tensor| map.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    pyramid.levels().iter().map(|level| values(&level.map).into_iter().map(f32::to_bits).collect()).collect()
}

fn backbone(name: &str, strides: &[usize]) -> Result<Backbone> {
    Ok(Backbone::builder(name)?.strides(strides).build(common::weights(name))?)
}

/// Every kind of network, small sizes.
fn extractors() -> Result<Vec<Box<dyn FeatureExtractor>>> {
    Ok(vec![
        Box::new(backbone("resnet18", &[4, 16])?),
        Box::new(backbone("resnet50-v2", &[8])?),
        Box::new(backbone("mobilenet-v2", &[4, 8, 16, 32])?),
        Box::new(backbone("mobilenet-v2-tf", &[8, 16])?),
        Box::new(ScatteringBackbone::new(&[4, 8, 16])?),
    ])
}

#[test]
fn features_do_not_depend_on_batch_or_threads() -> Result<()> {
    let images = common::images(5, 65, 96);
    for extractor in extractors()? {
        let batch = extractor.extract(&images)?;
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for image in 0..5 {
                let alone = pool.install(|| extractor.extract(&images.narrow(0, image, 1)?))?;
                let name = extractor.name();
                assert_eq!(bits(&alone), bits(&batch.image(image)?), "{name}, image {image}, {threads} threads");
            }
            assert_eq!(bits(&pool.install(|| extractor.extract(&images))?), bits(&batch));
        }
    }
    Ok(())
}

#[test]
fn levels_say_what_is_extracted() -> Result<()> {
    for extractor in extractors()? {
        let pyramid = extractor.extract(&common::images(1, 70, 33))?;
        let levels: Vec<_> = pyramid.levels().iter().map(|level| level.spec).collect();
        assert_eq!(levels, extractor.levels());
        for level in pyramid.levels() {
            let (_, _, height, width) = level.map.dims4()?;
            let stride = level.spec.stride;
            assert_eq!((height, width), (70usize.div_ceil(stride), 33usize.div_ceil(stride)), "{}", extractor.name());
        }
    }
    Ok(())
}

#[test]
fn selected_maps_are_those_of_the_whole_network() -> Result<()> {
    let images = common::images(1, 64, 64);
    for name in ["resnet18", "mobilenet-v2"] {
        let whole = Backbone::builder(name)?.build(common::weights(name))?.extract(&images)?;
        for stride in [4, 8, 16, 32] {
            let alone = backbone(name, &[stride])?.extract(&images)?;
            let expected = FeaturePyramid::new(vec![whole.level(stride)?.clone()], (64, 64))?;
            assert_eq!(bits(&alone), bits(&expected), "{name}, stride {stride}");
        }
    }
    Ok(())
}

#[test]
fn raw_and_activated_maps_of_resnet50_v2_can_be_chosen() -> Result<()> {
    let images = common::images(1, 64, 64);
    let minimum = |layers: &[&str]| -> Result<f32> {
        let backbone = Backbone::builder("resnet50-v2")?.layers(layers).build(common::weights("resnet50-v2"))?;
        assert_eq!(backbone.layers(), layers);
        Ok(backbone.extract(&images)?.level(8)?.map.flatten_all()?.min(0)?.to_scalar()?)
    };
    assert_eq!(minimum(&["layer2.out"])?, 0.0);
    assert!(minimum(&["layer2.3"])? < 0.0);
    Ok(())
}

#[test]
fn bf16_is_part_of_the_model_and_near_f32() -> Result<()> {
    let images = common::images(2, 64, 96);
    for name in ["resnet50-v2", "mobilenet-v2"] {
        let build = |precision| {
            let builder = Backbone::builder(name)?.strides(&[8, 16]).precision(precision);
            builder.build(common::weights(name))
        };
        let (whole, rounded) = (build(Precision::F32)?, build(Precision::Bf16)?);
        let (expected, found) = (whole.extract(&images)?, rounded.extract(&images)?);
        for (expected, found) in expected.levels().iter().zip(found.levels()) {
            let scale: f32 = expected.map.abs()?.max_all()?.to_scalar()?;
            let gap: f32 = (&expected.map - &found.map)?.abs()?.max_all()?.to_scalar()?;
            assert!(gap > 0.0 && gap < 0.05 * scale, "{name}, stride {}: {gap} of {scale}", expected.spec.stride);
        }
        let saved = saved(&rounded, false)?;
        assert_eq!(bits(&read(&saved.path, None)?.extract(&images)?), bits(&found));
    }
    Ok(())
}

struct Saved {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn saved(artifact: &dyn Artifact, reference_weights: bool) -> Result<Saved> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backbone.masf");
    save(artifact, &path, SaveOptions { reference_weights })?;
    Ok(Saved { _folder: folder, path })
}

fn read(path: &Path, weights: Option<&Path>) -> Result<Box<dyn FeatureExtractor>> {
    let registry = Registry::new()
        .with_backbone::<Backbone>(Backbone::TAG)
        .with_backbone::<ScatteringBackbone>(ScatteringBackbone::TAG);
    let options = ReadOptions { weights: weights.map(Path::to_path_buf), ..ReadOptions::default() };
    registry.backbone(&ModelFile::open(path, options)?.root()?)
}

/// Weights of a network in a type, as a file.
fn stored(name: &str, dtype: DType) -> Result<Vec<u8>> {
    let convert = |(name, tensor): (String, Tensor)| Ok((name, tensor.to_dtype(dtype)?));
    Ok(common::file(&common::tensors(name).into_iter().map(convert).collect::<Result<_>>()?))
}

#[test]
fn a_read_back_backbone_gives_the_same_bits() -> Result<()> {
    let images = common::images(1, 64, 64);
    let mut sizes = Vec::new();
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let weights = Weights::from_bytes(&stored("resnet18", dtype)?, "generated")?;
        let normalisation = Normalisation { mean: [0.1, 0.2, 0.3], std: [0.5, 0.6, 0.7] };
        let backbone = Backbone::builder("resnet18")?.strides(&[8]).normalisation(normalisation).build(weights)?;
        let saved = saved(&backbone, false)?;
        let again = read(&saved.path, None)?;
        assert_eq!(bits(&again.extract(&images)?), bits(&backbone.extract(&images)?), "{dtype:?}");
        assert_eq!(again.normalisation(), normalisation);
        assert_eq!((again.name(), again.levels()), ("resnet18", backbone.levels()));
        sizes.push(std::fs::metadata(&saved.path).unwrap().len());
    }
    // Stages 3 and 4 are not needed and not stored: 684992 numbers remain, batch norms included; half types stay half.
    let header = |index: usize, bytes: u64| sizes[index].checked_sub(684_992 * bytes).is_some_and(|rest| rest < 10_000);
    assert!(header(0, 4) && header(1, 2) && header(2, 2), "{sizes:?}");
    Ok(())
}

#[test]
fn a_scattering_backbone_is_read_back() -> Result<()> {
    let backbone = ScatteringBackbone::new(&[16, 4])?;
    let images = common::images(2, 48, 64);
    let again = read(&saved(&backbone, true)?.path, None)?;
    assert_eq!(bits(&again.extract(&images)?), bits(&backbone.extract(&images)?));
    Ok(())
}

#[test]
fn weights_may_be_referred_to_by_hash() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let (file, other) = (folder.path().join("weights"), folder.path().join("other"));
    std::fs::write(&file, stored("mobilenet-v2", DType::F32)?).unwrap();
    std::fs::write(&other, stored("mobilenet-v2", DType::F16)?).unwrap();
    let backbone = Backbone::builder("mobilenet-v2")?.strides(&[8]).load(&file)?;
    let saved = saved(&backbone, true)?;
    assert!(std::fs::metadata(&saved.path).unwrap().len() < 2000);
    let images = common::images(1, 64, 64);
    let again = read(&saved.path, Some(&file))?;
    assert_eq!(bits(&again.extract(&images)?), bits(&backbone.extract(&images)?));

    // Other weights of a network than the embedded ones.
    let other_nano = Backbone::builder("masf-nano")?.strides(&[8]).build(common::weights("masf-nano"))?;
    let path = folder.path().join("nano.masf");
    save(&other_nano, &path, SaveOptions { reference_weights: true })?;
    let error = read(&path, None).err().unwrap().to_string();
    assert!(error.contains("give their file"), "{error}");

    let hash = backbone.weights_sha256().to_owned();
    for (weights, part) in [(None, "give their file"), (Some(other.as_path()), "but the model was fitted with")] {
        let error = read(&saved.path, weights).err().unwrap();
        let message = error.to_string();
        assert!(message.contains(part) && message.contains(&hash), "{message}");
        assert_eq!(error.fault(), Fault::Model);
    }
    let missing = folder.path().join("missing");
    assert_eq!(read(&saved.path, Some(&missing)).err().unwrap().fault(), Fault::Io);
    Ok(())
}

/// The error of making `mobilenet-v2` from changed weights.
fn refused(change: impl FnOnce(&mut std::collections::HashMap<String, Tensor>)) -> (Vec<Problem>, String) {
    let mut tensors = common::tensors("mobilenet-v2");
    change(&mut tensors);
    let weights = Weights::from_bytes(&common::file(&tensors), "FILE").unwrap();
    let error = Backbone::builder("mobilenet-v2").unwrap().strides(&[4]).build(weights).unwrap_err();
    assert_eq!(error.fault(), Fault::Model);
    let message = error.to_string();
    let BackboneError::Weights { problems, .. } = error else { panic!("{message}") };
    assert!(message.starts_with("FILE does not fit `mobilenet-v2`: "), "{message}");
    (problems.0, message)
}

#[test]
fn every_unfit_tensor_is_named() {
    let cpu = Device::Cpu;
    let (problems, message) = refused(|tensors| {
        tensors.remove("features.17.project.bias");
        tensors.insert("features.5.expand.bias".into(), Tensor::zeros(7, DType::F32, &cpu).unwrap());
        tensors.insert("features.6.expand.bias".into(), Tensor::zeros(192, DType::F64, &cpu).unwrap());
        tensors.insert("surplus".into(), Tensor::zeros(1, DType::F32, &cpu).unwrap());
        tensors.insert("classifier.bias".into(), Tensor::zeros(1000, DType::F32, &cpu).unwrap());
    });
    let expected = [
        Problem::Shape { name: "features.5.expand.bias".into(), found: vec![7], expected: vec![192] },
        Problem::Type { name: "features.6.expand.bias".into(), found: DType::F64 },
        Problem::Missing { name: "features.17.project.bias".into(), shape: vec![320] },
        Problem::Unknown { name: "surplus".into() },
    ];
    assert_eq!(problems, expected, "{message}");
    assert!(message.contains("`features.5.expand.bias` is [7] instead of [192]"), "{message}");
}

#[test]
fn values_that_are_not_finite_are_named() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let (problems, message) = refused(|tensors| {
                // Of a layer that the chosen map does not need.
                let name = "features.17.project.bias";
                let mut values = vec![0f32; 320];
                values[319] = value;
                let tensor = Tensor::new(values, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
                tensors.insert(name.into(), tensor);
            });
            assert_eq!(problems, [Problem::NotFinite { name: "features.17.project.bias".into() }], "{message}");
        }
    }
}

#[test]
fn negative_variances_are_named() -> Result<()> {
    let mut tensors = common::tensors("resnet18");
    tensors.insert("layer2.0.bn1.running_var".into(), Tensor::full(-1f32, 128, &Device::Cpu)?);
    let weights = Weights::from_bytes(&common::file(&tensors), "FILE")?;
    let message = Backbone::builder("resnet18")?.build(weights).unwrap_err().to_string();
    assert!(message.contains("`layer2.0.bn1.running_var` holds negative variances"), "{message}");
    Ok(())
}

#[test]
fn weights_of_another_network_are_recognised() -> Result<()> {
    for (asked, given) in [("resnet50", "resnet18"), ("resnet18", "resnet34"), ("mobilenet-v2", "resnet50-v2")] {
        let message = Backbone::builder(asked)?.build(common::weights(given)).unwrap_err().to_string();
        assert!(message.ends_with(&format!("; these are the weights of `{given}`")), "{message}");
        assert!(message.contains("more"), "only the first few are listed: {message}");
    }
    Ok(())
}

#[test]
fn files_that_are_no_weights_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let load = |path: &Path| Backbone::builder("resnet18").unwrap().load(path).unwrap_err();
    let whole = common::file(&common::tensors("mobilenet-v2"));
    let hostile = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
    for bytes in [&[][..], b"text, no tensors", &whole[..whole.len() - 1], &whole[..100], &hostile] {
        std::fs::write(&path, bytes).unwrap();
        let error = load(&path);
        assert!(matches!(error, BackboneError::Container { .. }), "{error}");
        assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
        assert_eq!(error.fault(), Fault::Model);
    }
    // Sparse: nothing is allocated on disk, and nothing may be allocated in memory.
    std::fs::File::create(&path).unwrap().set_len(Weights::MAX_BYTES + 1).unwrap();
    assert!(matches!(load(&path), BackboneError::TooLarge { .. }));
    assert_eq!(load(&folder.path().join("missing")).fault(), Fault::Io);
    assert_eq!(load(folder.path()).fault(), Fault::Io);
}

#[test]
fn choices_that_cannot_be_are_refused_with_the_possible_ones() -> Result<()> {
    let message = Backbone::builder("resnet19").unwrap_err().to_string();
    assert!(message.contains("`resnet19`") && message.contains("wide-resnet101-2"), "{message}");
    assert!(Backbone::builder("scattering").is_err());
    let resnet = || Backbone::builder("resnet50-v2").unwrap();
    let nan = Normalisation { mean: [f32::NAN; 3], std: [1.0; 3] };
    let zero = Normalisation { mean: [0.0; 3], std: [1.0, 0.0, 1.0] };
    for (builder, what, part) in [
        (resnet().strides(&[]), "strides", "at least one"),
        (resnet().layers(&[]), "layers", "at least one"),
        (resnet().strides(&[8, 32]), "stride", "one of [4, 8, 16]"),
        (resnet().strides(&[8, 8]), "strides", "`layer2.out` twice"),
        (resnet().layers(&["layer2.3", "layer2.out", "layer2.3"]), "layers", "`layer2.3` twice"),
        (resnet().layers(&["layer5"]), "layer", "layer3.out"),
        (resnet().normalisation(nan), "normalisation", "finite"),
        (resnet().normalisation(zero), "normalisation", "positive"),
    ] {
        // The choices are looked at before the file is.
        let error = builder.load(Path::new("missing")).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{what} is ")), "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(error.fault(), Fault::Argument);
    }
    for strides in [&[][..], &[8, 8], &[2], &[32]] {
        assert_eq!(ScatteringBackbone::new(strides).unwrap_err().fault(), Fault::Argument);
    }
    Ok(())
}

#[test]
fn images_that_cannot_be_are_refused() -> Result<()> {
    let cpu = &Device::Cpu;
    let spoilt = |value: f32| -> Result<Tensor> {
        let mut pixels = vec![0f32; 3 * 64 * 64];
        pixels[3 * 64 * 64 - 1] = value;
        Ok(Tensor::from_vec(pixels, (1, 3, 64, 64), cpu)?)
    };
    for extractor in extractors()? {
        for (images, part) in [
            (Tensor::zeros((3, 64, 64), DType::F32, cpu)?, "four axes"),
            (Tensor::zeros((0, 3, 64, 64), DType::F32, cpu)?, "at least one image"),
            (Tensor::zeros((1, 1, 64, 64), DType::F32, cpu)?, "3 channels"),
            (Tensor::zeros((1, 3, 31, 64), DType::F32, cpu)?, "at least 32"),
            (Tensor::zeros((1, 3, 64, 0), DType::F32, cpu)?, "at least 32"),
            (Tensor::zeros((1, 3, 64, 64), DType::F64, cpu)?, "expected F32"),
            (spoilt(f32::NAN)?, "NaN or infinite"),
            (spoilt(f32::INFINITY)?, "NaN or infinite"),
        ] {
            let error = extractor.extract(&images).unwrap_err();
            assert!(error.to_string().contains(part), "{}: {error}", extractor.name());
            assert!(matches!(error, Error::Component { part: "masf-backbone", fault: Fault::Data, .. }), "{error}");
        }
        // Strided images are images.
        let wide = common::images(2, 64, 80);
        let narrow = wide.narrow(0, 1, 1)?.narrow(3, 5, 64)?;
        assert_eq!(bits(&extractor.extract(&narrow)?), bits(&extractor.extract(&narrow.contiguous()?)?));
    }
    Ok(())
}

#[test]
fn features_that_overflow_are_refused() -> Result<()> {
    let images = (common::images(1, 64, 64) * 1e38)?;
    let error = backbone("resnet18", &[8])?.extract(&images).unwrap_err();
    assert!(error.to_string().contains("resnet18: features at stride 8 are not finite"), "{error}");
    Ok(())
}

#[test]
fn public_types_cross_threads() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<Backbone>();
    check::<ScatteringBackbone>();
    check::<BackboneError>();
    check::<Weights>();
}
