use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;

use super::*;
use crate::Error;

#[derive(Debug)]
struct Part {
    weights: Tensor,
    threshold: f64,
    inner: Option<Box<Part>>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Settings {
    threshold: f64,
    nested: bool,
}

impl Artifact for Part {
    fn tag(&self) -> &'static str {
        "test.part"
    }

    fn write(&self, writer: &mut ArtifactWriter) -> Result<()> {
        writer.section(&Settings { threshold: self.threshold, nested: self.inner.is_some() })?;
        writer.tensor("weights", &self.weights)?;
        match &self.inner {
            Some(inner) => writer.child("inner", inner.as_ref()),
            None => Ok(()),
        }
    }

    fn read(reader: &ArtifactReader<'_>) -> Result<Self> {
        let settings: Settings = reader.section()?;
        let weights = reader.tensor("weights", DType::F32, &[None, Some(3)])?;
        let inner = settings.nested.then(|| Self::read(&reader.child("inner")?).map(Box::new)).transpose()?;
        Ok(Self { weights, threshold: settings.threshold, inner })
    }
}

fn part() -> Result<Part> {
    let weights = Tensor::arange(0f32, 6f32, &Device::Cpu)?.reshape((2, 3))?;
    let inner = Part { weights: (&weights * 0.1)?, threshold: 0.1 + 0.2, inner: None };
    Ok(Part { weights, threshold: 1.0 / 3.0, inner: Some(Box::new(inner)) })
}

fn saved(part: &Part) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir().map_err(|e| Error::io("temp", e))?;
    let path = folder.path().join("part.masf");
    save(part, &path, SaveOptions::default())?;
    std::fs::read(&path).map_err(|e| Error::io(path, e))
}

fn read(bytes: &[u8]) -> Result<Part> {
    Part::read(&ModelFile::from_bytes(bytes, ReadOptions::default())?.root()?)
}

/// A model file with another metadata document.
fn with_document(document: &str) -> Vec<u8> {
    let metadata = std::collections::HashMap::from([(METADATA_KEY.to_owned(), document.to_owned())]);
    safetensors::serialize(Vec::<(String, Tensor)>::new().iter().map(|(n, t)| (n, t)), Some(metadata)).unwrap()
}

#[test]
fn round_trip_is_exact_and_reproducible() -> Result<()> {
    let part = part()?;
    let bytes = saved(&part)?;
    assert_eq!(bytes, saved(&part)?);
    let again = read(&bytes)?;
    assert_eq!(again.threshold.to_bits(), part.threshold.to_bits());
    let (inner, expected) = (again.inner.unwrap(), part.inner.unwrap());
    assert_eq!(inner.threshold.to_bits(), expected.threshold.to_bits());
    assert_eq!(inner.weights.to_vec2::<f32>()?, expected.weights.to_vec2::<f32>()?);
    Ok(())
}

#[test]
fn every_flipped_byte_and_every_truncation_is_noticed() -> Result<()> {
    let bytes = saved(&part()?)?;
    for position in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[position] ^= 1 << (position % 8);
        // Padding spaces of the header may change without changing the content.
        if let Ok(read) = read(&damaged) {
            assert!(damaged[position] == b'\t' || bytes[position] == b' ', "byte {position} changed {read:?}");
        }
        assert!(read(&bytes[..position]).is_err(), "truncated to {position}");
    }
    Ok(())
}

#[test]
fn newer_versions_are_refused_by_name() {
    let bytes = with_document(r#"{"format_version":99,"something":"else"}"#);
    let error = read(&bytes).unwrap_err();
    assert!(matches!(error, Error::Model(ModelFileError::NewerVersion { found: 99, .. })), "{error}");
}

#[test]
fn other_safetensors_files_are_refused() {
    for document in ["", "null", "{}", r#"{"format_version":1,"sections":{},"sha256":"00"}"#] {
        let error = read(&with_document(document)).unwrap_err();
        let refused = matches!(error, Error::Model(ModelFileError::NotAModel(_) | ModelFileError::Checksum));
        assert!(refused, "{document}: {error}");
    }
    let empty = safetensors::serialize(Vec::<(String, Tensor)>::new().iter().map(|(n, t)| (n, t)), None).unwrap();
    assert!(matches!(read(&empty).unwrap_err(), Error::Model(ModelFileError::NotAModel(_))));
}

#[test]
fn oversized_headers_and_files_are_refused() -> Result<()> {
    let mut bytes = saved(&part()?)?;
    let limited = ReadOptions { max_bytes: 100, ..ReadOptions::default() };
    let error = ModelFile::from_bytes(&bytes, limited).unwrap_err();
    assert!(matches!(error, Error::Model(ModelFileError::TooLarge { limit: 100, .. })), "{error}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    ModelFile::open(file.path(), ReadOptions { max_bytes: u64::MAX, ..ReadOptions::default() })?;
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(read(&bytes).unwrap_err(), Error::Model(ModelFileError::Container(_))));
    Ok(())
}

#[test]
fn wrong_shapes_are_named() -> Result<()> {
    let mut wrong = part()?;
    wrong.weights = Tensor::zeros((2, 4), DType::F32, &Device::Cpu)?;
    let error = read(&saved(&wrong)?).unwrap_err().to_string();
    assert!(error.contains("`weights` is F32 [2, 4]; expected F32 [any, 3]"), "{error}");
    Ok(())
}

#[test]
fn values_that_are_not_finite_cannot_be_saved() -> Result<()> {
    for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut part = part()?;
            part.weights = Tensor::full(value, (1, 3), &Device::Cpu)?.to_dtype(dtype)?;
            let error = saved(&part).unwrap_err();
            assert!(matches!(error, Error::Model(ModelFileError::NotFinite(_))), "{error}");
        }
    }
    Ok(())
}

#[test]
fn eight_bits_can_be_not_finite() {
    use safetensors::Dtype;
    for (dtype, nans) in [(Dtype::F8_E4M3, &[0x7f, 0xff][..]), (Dtype::F8_E8M0, &[0xff][..]), (Dtype::U8, &[][..])] {
        for byte in 0..=u8::MAX {
            assert_eq!(super::reader::is_finite(dtype, &[0, byte]), !nans.contains(&byte), "{dtype:?} {byte}");
        }
    }
}

#[test]
fn settings_that_are_not_finite_cannot_be_saved() -> Result<()> {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut part = part()?;
        part.inner.as_mut().unwrap().threshold = value;
        let error = saved(&part).unwrap_err();
        assert!(matches!(error, Error::Model(ModelFileError::Settings { .. })), "{error}");
        assert!(error.to_string().contains("`inner`") && error.to_string().contains("read back"), "{error}");
    }
    Ok(())
}

#[test]
fn a_failed_save_leaves_the_old_file() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|e| Error::io("temp", e))?;
    let path = folder.path().join("part.masf");
    let mut part = part()?;
    save(&part, &path, SaveOptions::default())?;
    let before = std::fs::read(&path).unwrap();
    part.weights = Tensor::full(f32::NAN, (1, 3), &Device::Cpu)?;
    assert!(save(&part, &path, SaveOptions::default()).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file was left");
    let missing = folder.path().join("missing/part.masf");
    let error = save(&self::part()?, &missing, SaveOptions::default()).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    Ok(())
}

/// Settings of any length.
struct Text(String);

impl Artifact for Text {
    fn tag(&self) -> &'static str {
        "test.text"
    }

    fn write(&self, writer: &mut ArtifactWriter) -> Result<()> {
        writer.section(&self.0)
    }

    fn read(reader: &ArtifactReader<'_>) -> Result<Self> {
        Ok(Self(reader.section()?))
    }
}

#[test]
fn nothing_is_saved_that_would_not_be_read() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|e| Error::io("temp", e))?;
    let path = folder.path().join("text.masf");
    let save = |length| save(&Text("x".repeat(length)), &path, SaveOptions::default());
    save(2_000_000)?;
    let read = || Text::read(&ModelFile::open(&path, ReadOptions::default())?.root()?);
    assert_eq!(read()?.0.len(), 2_000_000);
    let error = save(2_100_000).unwrap_err().to_string();
    assert!(error.contains("text.masf: cannot save: header too large"), "{error}");
    assert_eq!(read()?.0.len(), 2_000_000);
    Ok(())
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read(&bytes).is_err());
    }

    #[test]
    fn canonical_json_is_json_with_sorted_keys(keys in proptest::collection::vec("\\PC{0,8}", 0..8)) {
        let object: serde_json::Map<_, _> = keys.iter().map(|key| (key.clone(), serde_json::json!([key, 1.5]))).collect();
        let value = serde_json::Value::Object(object);
        let mut text = String::new();
        canonical_json(&value, &mut text);
        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
