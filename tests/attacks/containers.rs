//! Containers (safetensors) whose header lies, given to both of their readers: that of model files and that of weights.

use std::fs;

use masf::backbone::Weights;
use masf::{Config, Detector, Fault, Silent};

use crate::assert_says;
use crate::forge::container;
use crate::measure::{MIB, bounded, turn};

/// Header, data, and what the message must say.
fn lies() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let tensor = |name: &str, dtype: &str, shape: &str, begin: u64, end: u64| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
    };
    let header = |entries: &[String]| format!("{{{}}}", entries.join(","));
    let one = |dtype: &str, shape: &str, begin, end| header(&[tensor("a", dtype, shape, begin, end)]);
    let two =
        |second: (u64, u64)| header(&[tensor("a", "F32", "[2]", 0, 8), tensor("b", "F32", "[2]", second.0, second.1)]);
    let deep = format!(r#"{{"__metadata__":{}"#, "[".repeat(100_000));
    let with_length = |length: u64| [&length.to_le_bytes()[..], b"{}"].concat();
    vec![
        ("overlapping tensors", container(&two((4, 12)), &[0; 12]), "offset"),
        ("the same bytes twice", container(&two((0, 8)), &[0; 8]), "offset"),
        ("a gap between tensors", container(&two((12, 20)), &[0; 20]), "offset"),
        ("data that no tensor has", container(&two((8, 16)), &[0; 17]), "not fully covered"),
        ("data that are not there", container(&two((8, 16)), &[0; 15]), "not fully covered"),
        ("an end before the beginning", container(&one("F32", "[2]", 8, 0), &[0; 8]), "offset"),
        ("an offset beyond 64 bits", container(&one("F32", "[2]", 0, u64::MAX), &[0; 8]), "invalid"),
        ("a shape that overflows", container(&one("F32", "[4294967296,4294967296,2]", 0, 8), &[0; 8]), "overflow"),
        ("a shape of other bytes", container(&one("F32", "[3]", 0, 8), &[0; 8]), "invalid shape"),
        ("a shape below zero", container(&one("F32", "[-2]", 0, 8), &[0; 8]), "invalid JSON"),
        ("a type that does not exist", container(&one("F33", "[2]", 0, 8), &[0; 8]), "invalid JSON"),
        ("a type of other bytes", container(&one("F64", "[2]", 0, 8), &[0; 8]), "invalid shape"),
        (
            "a name twice",
            container(&header(&[tensor("a", "F32", "[2]", 0, 8), tensor("a", "F32", "[2]", 8, 16)]), &[0; 16]),
            "offset",
        ),
        ("a header that is no JSON", container("{]", &[]), "invalid JSON"),
        ("a header that is no text", [&2u64.to_le_bytes()[..], &[0xff, 0xfe]].concat(), "UTF-8"),
        ("a header of 100,000 brackets", container(&deep, &[]), "invalid JSON"),
        ("metadata that are no texts", container(r#"{"__metadata__":{"masf":1}}"#, &[]), "invalid JSON"),
        ("a header of 2^64 bytes", with_length(u64::MAX), "header too large"),
        ("a header beyond the limit", with_length(100_000_001), "header too large"),
        ("a header longer than the file", with_length(3), "invalid header length"),
        ("half a length", vec![2, 0, 0], "header too small"),
        ("nothing", Vec::new(), "header too small"),
    ]
}

#[test]
fn both_readers_refuse_every_lie_about_tensors() {
    let _turn = turn();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("lie.safetensors");
    let config = Config::from_toml("backbone.name = 'resnet18'").expect("a configuration");
    for (name, bytes, says) in lies() {
        fs::write(&path, &bytes).expect("a file");
        let model = bounded(name, 4 * MIB, || Detector::load(&path).expect_err(name));
        assert_says(&format!("{name}: {model}"), &["lie.safetensors", "damaged or truncated", says]);
        assert_eq!(model.fault(), Fault::Model, "{name}");
        let open = || masf::open_backbone(&config.backbone, Some(&path), &Silent).err().expect(name);
        let weights = bounded(name, 8 * MIB, open);
        assert_says(&format!("{name}: {weights}"), &["lie.safetensors", says]);
    }
}

#[test]
fn tensors_of_nothing_and_of_unknown_types_are_no_weights() {
    let _turn = turn();
    let header = r#"{"a":{"dtype":"F32","shape":[0,9007199254740993],"data_offsets":[0,0]},
        "b":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}}"#;
    let bytes = container(header, &[1]);
    let weights = Weights::from_bytes(&bytes, "nothing").expect("it is a container");
    let names: Vec<_> = weights.tensors().map(|(name, tensor)| (name.to_owned(), tensor.elem_count())).collect();
    assert_eq!(names, [("a".to_owned(), 0)]);
}

#[test]
fn a_file_that_is_larger_than_the_limit_is_not_read() {
    let _turn = turn();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("sparse.masf");
    let file = fs::File::create(&path).expect("a file");
    if file.set_len(5 << 30).is_err() {
        eprintln!("skipped: this file system has no sparse files");
        return;
    }
    let error = bounded("a sparse file", MIB, || Detector::load(&path).expect_err("it is too large"));
    assert_says(&error.to_string(), &["sparse.masf", "5368709120 bytes", "limit"]);
    let config = Config::from_toml("backbone.name = 'resnet18'").expect("a configuration");
    let open = || masf::open_backbone(&config.backbone, Some(&path), &Silent).err().expect("it is too large");
    assert_says(&bounded("sparse weights", 8 * MIB, open).to_string(), &["sparse.masf", "5368709120"]);
}
