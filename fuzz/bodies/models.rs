//! The reader of model files, past its checksum too.

use std::collections::HashMap;

use masf::Detector;
use masf::core::Artifact;
use masf::core::artifact::{ModelFile, ReadOptions};
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

/// Reads the bytes as they are, and with a checksum that is right. Whether they are a model as they are.
pub(crate) fn run(data: &[u8]) -> bool {
    let accepted = read(data);
    if let Some(repaired) = repaired(data) {
        read(&repaired);
    }
    accepted
}

fn read(bytes: &[u8]) -> bool {
    let options = ReadOptions { max_bytes: 1 << 24, ..ReadOptions::default() };
    let detector = ModelFile::from_bytes(bytes, options).and_then(|file| Detector::read(&file.root()?));
    if let Ok(detector) = &detector
        && detector.preprocess().size().pixels() <= 1 << 14
        && let Ok(found) = detector.inspect(image::RgbImage::from_pixel(24, 20, image::Rgb([90, 120, 150])))
    {
        assert!(found.image_score.is_finite() && found.anomaly_map.iter().all(|value| value.is_finite()));
    }
    detector.is_ok()
}

fn repaired(data: &[u8]) -> Option<Vec<u8>> {
    let (_, metadata) = SafeTensors::read_metadata(data).ok()?;
    let text = metadata.metadata().as_ref()?.get("masf")?;
    let document: serde_json::Value = serde_json::from_str(text).ok()?;
    let sections = document.get("sections")?.to_string();
    let mut views = SafeTensors::deserialize(data).ok()?.tensors();
    views.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    field(sections.as_bytes());
    for (name, view) in &views {
        field(name.as_bytes());
        field(format!("{:?} {:?}", view.dtype(), view.shape()).as_bytes());
        field(view.data());
    }
    let sha256: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let document = format!(r#"{{"format_version":1,"sections":{sections},"sha256":"{sha256}"}}"#);
    safetensors::serialize(views, Some(HashMap::from([("masf".to_owned(), document)]))).ok()
}
