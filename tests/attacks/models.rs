//! Model files with a right checksum and wrong content. The checksum proves that a file is what was written, not who wrote it: every part
//! has to check what it reads.

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::RgbImage;
use masf::core::Result;
use masf::{Config, Detector, Size};
use masf_tests::quick_config;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::assert_says;
use crate::forge::{Model, Stored, load};
use crate::measure::{MIB, bounded, turn};

/// What all models here have in common: they are small.
const SMALL: &str = "
    input.size = 64
    padim.dimensions = 6
    [memory]
    candidates = 200
    prototypes = 20
    [patchcore]
    candidates = 200
    prototypes = 20
    [distill]
    width = 16
    bottleneck = 16
    depth = 1
    epochs = 1
    [cfa]
    epochs = 1
    [rdpp]
    width = 8
    epochs = 1
    [adtr]
    width = 16
    depth = 1
    epochs = 1
    [isstad]
    width = 16
    depth = 1
    decoder_width = 16
    decoder_depth = 1
    epochs = 1
";

/// What sets each apart; between them they have every kind of part.
const KINDS: [(&str, &str); 10] = [
    ("nano", ""),
    ("scattering", "backbone.name = 'scattering'"),
    (
        "cells and anchors",
        "[memory]
        search = { cells = { cells = 3, visited = 2, keys = 'both' } }
        anchor_weight = 0.5
        standardise = 'channel'
        reduction = { projection = { dimensions = 16 } }
        per_level = true
        [views]
        noise = 1
        shifts = 1
        margin = 8
        [fusion]
        weights = 'learned'
        synthetic_defects = 8
        gate = { views = 1.0, disagreement = 1.0 }",
    ),
    ("student", "branches = ['distill']"),
    ("patchcore", "method = 'patchcore'\norientations = 2\npatchcore.reweight_neighbours = 3"),
    ("padim", "method = 'padim'\ninput.tile = 32\ninput.tile_overlap = 16"),
    ("cfa", "method = 'cfa'\nbackbone.strides = [8]"),
    ("rdpp", "method = 'rdpp'"),
    ("adtr", "method = 'adtr'"),
    ("isstad", "method = 'isstad'"),
];

/// The part of the configuration that an inspection uses, and the model in which each is on; the rest is only written down.
const USED: [(&str, &str); 3] = [
    ("//data/config/views", "cells and anchors"),
    ("//data/config/orientations", "patchcore"),
    ("//data/config/input", "padim"),
];

fn small(kind: &str) -> Config {
    // The tables of both texts are merged.
    let (mut small, kind) = (toml::from_str::<toml::Table>(SMALL), toml::from_str::<toml::Table>(kind));
    let (small, kind) = (small.as_mut().expect("TOML"), kind.expect("TOML"));
    for (key, value) in kind {
        match (small.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => old.extend(new),
            (_, value) => drop(small.insert(key, value)),
        }
    }
    Config::from_toml(&toml::to_string(small).expect("TOML")).expect("a configuration")
}

fn models() -> Vec<(&'static str, Model)> {
    KINDS.map(|(name, kind)| (name, Model::fitted(small(kind), 4).expect("it can be fitted"))).to_vec()
}

/// The pointers of all values of a document, inner ones too.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| pointers(value, &format!("{at}/{}", escaped(key)), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| pointers(item, &format!("{at}/{index}"), found));
        }
        _ => {}
    }
}

/// What to put in the place of a value.
fn replacements(value: &Value) -> Vec<Value> {
    let mut others = vec![Value::Null, json!({})];
    match value {
        Value::Number(_) => others.extend([json!(-1), json!(0), json!(u64::MAX), json!(1e308), json!(1e-45)]),
        Value::String(text) => others.extend([json!(""), json!(format!("{text}x")), json!("x".repeat(10_000))]),
        Value::Bool(value) => others.push(json!(!value)),
        Value::Array(items) => {
            others.push(Value::Array([items.as_slice(), items.as_slice()].concat()));
            others.push(Value::Array(items.iter().rev().cloned().collect()));
            others.push(Value::Array(items.iter().skip(1).cloned().collect()));
        }
        Value::Object(map) => {
            let mut more = map.clone();
            more.insert("unheard of".into(), json!(1));
            others.push(Value::Object(more));
        }
        Value::Null => others.extend([json!(0), json!(2), json!("x")]),
    }
    others.retain(|other| other != value);
    others
}

/// Loads a forged model, and looks at a picture with it, if there is one and it loads; any answer will do but a panic, a number
/// that is not finite, or a great deal of memory.
fn survives(name: &str, model: &Model, picture: Option<&RgbImage>) -> std::result::Result<bool, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| -> Result<bool> {
        let detector = model.load()?;
        let Some(picture) = picture else { return Ok(true) };
        let Size { height, width } = detector.preprocess().size();
        if height.max(width) > 512 {
            // A large input is the user's choice, and its cost is known.
            return Ok(true);
        }
        let found = detector.inspect(picture.clone())?;
        let finite = found.image_score.is_finite() && found.anomaly_map.iter().all(|value| value.is_finite());
        Ok(finite)
    }));
    match outcome {
        Ok(Ok(true)) => Ok(true),
        Ok(Ok(false)) => Err(format!("{name}: a score that is not finite")),
        Ok(Err(_)) => Ok(false),
        Err(_) => Err(format!("{name}: panic")),
    }
}

fn picture() -> RgbImage {
    RgbImage::from_fn(40, 40, |x, y| image::Rgb([(x * 7 + y * 13) as u8, (x * y) as u8, (x ^ y) as u8]))
}

#[test]
fn no_setting_of_a_model_file_can_break_its_reader() {
    let _turn = turn();
    let picture = picture();
    let mut broken = Vec::new();
    let (mut tried, mut accepted) = (0, Vec::new());
    let used = |place: &str| USED.iter().find(|(part, _)| place.starts_with(part)).map(|(_, kind)| *kind);
    for (index, (kind, model)) in models().into_iter().enumerate() {
        assert!(survives(kind, &model, Some(&picture)) == Ok(true), "{kind} cannot be forged");
        let mut places = Vec::new();
        pointers(&model.sections, "", &mut places);
        // The configuration has the same form in all models, and there are two backbones, two fusions that differ and a bank in the
        // first: one look at each is enough.
        let skip = |place: &str| {
            (index != 0 && place.starts_with("//data/") && used(place) != Some(kind))
                || (index > 1 && place.starts_with("/backbone/"))
                || (!matches!(index, 0 | 2) && place.starts_with("/fusion/"))
                || (index == 1 && place.starts_with("/branch0/"))
        };
        for place in places.iter().filter(|place| !skip(place)) {
            let Some(value) = model.sections.pointer(place) else { panic!("{place} is gone") };
            let mut others = replacements(value);
            if used(place).is_some() {
                // In the range of most of them, the latter at the end of that of angles.
                others.extend([json!(8), json!(36)]);
            }
            for other in others {
                let mut forged = model.clone();
                let shown: String = other.to_string().chars().take(40).collect();
                *forged.sections.pointer_mut(place).expect("it is there") = other;
                let name = format!("{kind}: {place} = {shown}");
                tried += 1;
                let written_down = place.starts_with("//data/config/") || place.starts_with("//data/provenance");
                let looked_at = used(place).is_some() || !written_down;
                match bounded(&name, 96 * MIB, || survives(&name, &forged, looked_at.then_some(&picture))) {
                    Ok(true) => accepted.push(name),
                    Ok(false) => {}
                    Err(problem) => broken.push(problem),
                }
            }
        }
    }
    if std::env::var_os("MASF_SHOW_ATTACKS").is_some() {
        eprintln!("{tried} forged settings, {} accepted:\n{}", accepted.len(), accepted.join("\n"));
    }
    assert!(broken.is_empty(), "{} of {tried}:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn no_tensor_of_a_model_file_can_break_its_reader() {
    let _turn = turn();
    let picture = picture();
    let mut broken = Vec::new();
    for (kind, model) in models() {
        for (place, stored) in &model.tensors {
            // One tensor of the network stands for all of them.
            if place.starts_with("backbone.") && !(kind == "nano" && place.ends_with("map1.conv.bias")) {
                continue;
            }
            for (what, other) in forged_tensors(stored) {
                let name = format!("{kind}: {place} {what}");
                let mut forged = model.clone();
                match other {
                    Some(other) => forged.tensors.insert(place.clone(), other),
                    None => forged.tensors.remove(place),
                };
                match bounded(&name, 96 * MIB, || survives(&name, &forged, Some(&picture))) {
                    Ok(true) if !what.starts_with("with") => broken.push(format!("{name} was accepted")),
                    Ok(_) => {}
                    Err(problem) => broken.push(problem),
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}:\n{}", broken.len(), broken.join("\n"));
}

/// Other tensors in the place of one. Those whose name begins with `with` may be taken for values like any others.
fn forged_tensors(stored: &Stored) -> Vec<(&'static str, Option<Stored>)> {
    let count = stored.shape.iter().product::<usize>();
    let mut longer = stored.clone();
    longer.shape.push(1);
    let mut empty = stored.clone();
    empty.shape[0] = 0;
    empty.data.clear();
    let doubles = Stored { dtype: Dtype::F64, shape: stored.shape.clone(), data: vec![0; 8 * count] };
    let integers = Stored { dtype: Dtype::I64, shape: stored.shape.clone(), data: vec![0; 8 * count] };
    let mut others = vec![
        ("missing", None),
        ("of another rank", Some(longer)),
        ("of sides beyond counting", Some(Stored { shape: vec![0, 1 << 40, 1 << 40], ..empty.clone() })),
        ("of no values", Some(empty)),
        ("of 64 bits", Some(doubles)),
        ("of integers", Some(integers)),
    ];
    if stored.dtype == Dtype::F32 {
        let all = |value: f32| Stored { data: value.to_le_bytes().repeat(count), ..stored.clone() };
        others.extend([
            ("of NaN", Some(stored.with_value(count / 2, f32::NAN))),
            ("of infinity", Some(stored.with_value(count - 1, f32::NEG_INFINITY))),
            ("with the largest value", Some(stored.with_value(0, f32::MAX))),
            ("with the least value", Some(stored.with_value(count - 1, f32::MIN))),
            ("with zeros", Some(all(0.0))),
            ("with the smallest values", Some(all(f32::from_bits(1)))),
            ("with the largest values", Some(all(f32::MAX))),
            ("with negative values", Some(all(-1.0))),
        ]);
    }
    others
}

#[test]
fn what_is_wrong_is_named() -> Result<()> {
    let _turn = turn();
    let model = Model::fitted(quick_config(), 4)?;
    let refusal =
        |forged: &Model| bounded("a refusal", 96 * MIB, || forged.load().err()).map(|error| error.to_string());
    let changed = |place: &str, value: Value| {
        let mut forged = model.clone();
        *forged.sections.pointer_mut(place).unwrap_or_else(|| panic!("no {place}")) = value;
        refusal(&forged).unwrap_or_else(|| panic!("{place} was accepted"))
    };
    assert_says(&changed("//data/branches", json!(1_000_000)), &["settings of ``", "1000000 branches"]);
    assert_says(
        &changed("//data/config/threshold/false_alarm_rate", json!(2.0)),
        &["false_alarm_rate", "between 0 and 1"],
    );
    assert_says(&changed("//data/preprocess/size/height", json!(4_000_000_000u32)), &["image size", "16384"]);
    assert_says(&changed("//data/preprocess/size/height", json!(64)), &["preprocessing", "configuration"]);
    assert_says(&changed("//data/image_threshold/value", json!(-1e30)), &["threshold", "finite and not below"]);
    assert_says(
        &changed("//data/calibration_images", json!(u64::MAX)),
        &["calibration_scores", "18446744073709551615"],
    );
    assert_says(&changed("//tag", json!("someone.elses")), &["someone.elses", "not a detector"]);
    assert_says(&changed("/branch0/tag", json!("someone.elses")), &["someone.elses", "known: masf"]);
    assert_says(&changed("/branch0/data/neighbourhood", json!(4)), &["settings of `branch0`", "neighbourhood"]);
    assert_says(&changed("/branch0/data/levels/0/channels", json!(u64::MAX)), &["settings of `branch0`", "levels"]);
    assert_says(&changed("/backbone/data/layers", json!(["layer99"])), &["settings of `backbone`", "layer99"]);
    assert_says(
        &changed("/backbone/data/name", json!("../../etc/passwd")),
        &["settings of `backbone`", "../../etc/passwd"],
    );
    assert_says(&changed("/fusion/data/calibrations", json!([])), &["settings of `fusion`", "no calibrations"]);
    assert_says(&changed("/fusion", json!({"tag": "masf.calibrated-fusion"})), &["not a masf model", "data"]);

    let with = |name: &str, change: &dyn Fn(&mut Stored)| {
        let mut forged = model.clone();
        change(forged.tensors.get_mut(name).unwrap_or_else(|| panic!("no {name}")));
        refusal(&forged).unwrap_or_else(|| panic!("{name} was accepted"))
    };
    let prototypes = "branch0.prototypes";
    assert_says(&with(prototypes, &|t| *t = t.with_value(3, f32::NAN)), &[prototypes, "not finite"]);
    assert_says(&with(prototypes, &|t| t.shape.reverse()), &[prototypes, "expected F32 [any"]);
    assert_says(&with(prototypes, &|t| t.dtype = Dtype::I32), &[prototypes, "I32", "expected F32"]);
    assert_says(&with(prototypes, &|t| *t = t.with_value(3, f32::MAX)), &["branch0", "prototype 0 has squared norm"]);
    assert_says(&with("calibration_scores", &|t| *t = t.with_value(0, f32::MAX)), &["calibration", "ascend"]);

    // Attention over so many positions would take 80 GiB, while no tensor of this model grows with them.
    let mut larger = Model::fitted(small("method = 'isstad'\nbackbone.strides = [16]\nisstad.heads = 16"), 4)?;
    for place in ["/branch0/data/levels/0/1", "/branch0/data/levels/0/2"] {
        *larger.sections.pointer_mut(place).unwrap_or_else(|| panic!("no {place}")) = json!(128);
    }
    assert_says(&refusal(&larger).expect("it is too large"), &["settings of `branch0`", "levels", "attentions"]);

    let mut nested = model.clone();
    nested.tensors.remove(prototypes);
    assert_says(&refusal(&nested).expect("it lacks a tensor"), &[prototypes, "missing"]);
    // A document so deep that reading it without a limit would overflow the stack.
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let mut text = model.bytes_with(1, "");
    let document = format!(r#"{{"format_version":1,"sections":{deep},"sha256":""}}"#);
    let metadata = std::collections::HashMap::from([("masf".to_owned(), document)]);
    text.clear();
    text.extend(safetensors::serialize(&model.tensors, Some(metadata)).expect("a container"));
    let error = bounded("a deep document", 64 * MIB, || load(&text).expect_err("it is too deep"));
    assert_says(&error.to_string(), &["not a masf model", "recursion"]);
    // As values, each of these takes 660 bytes.
    let document = format!(r#"{{"format_version":1,"sections":[{}0],"sha256":""}}"#, r#"{"":0},"#.repeat(500_000));
    let metadata = std::collections::HashMap::from([("masf".to_owned(), document)]);
    let long = safetensors::serialize(&model.tensors, Some(metadata)).expect("a container");
    let error = bounded("a long document", 32 * MIB, || load(&long).expect_err("it is too long"));
    assert_says(&error.to_string(), &["not a valid model file", "header too large"]);
    Ok(())
}

#[test]
fn versions_and_checksums() -> Result<()> {
    let _turn = turn();
    let model = Model::fitted(quick_config(), 2)?;
    let refusal = |bytes: &[u8]| bounded("a refusal", 96 * MIB, || load(bytes).expect_err("it lies")).to_string();
    model.load()?;
    let sha256 = model.checksum();
    assert_says(&refusal(&model.bytes_with(2, &sha256)), &["version 2 is newer", "update"]);
    assert_says(&refusal(&model.bytes_with(u64::from(u32::MAX), &sha256)), &["4294967295", "update"]);
    assert_says(&refusal(&model.bytes_with(1 << 40, &sha256)), &["not a masf model"]);
    for wrong in ["", "00", &sha256[1..], &sha256.to_uppercase(), &format!("{sha256} ")] {
        assert_says(&refusal(&model.bytes_with(1, wrong)), &["checksum mismatch"]);
    }
    // A tensor that nobody asks for changes the checksum, too.
    let mut more = model.clone();
    more.tensors.insert("stowaway".into(), Stored { dtype: Dtype::U8, shape: vec![1], data: vec![0] });
    assert_says(&refusal(&more.bytes_with(1, &sha256)), &["checksum mismatch"]);
    Ok(())
}

#[test]
fn cut_at_every_section() -> Result<()> {
    let _turn = turn();
    let bytes = Model::fitted(quick_config(), 2)?.bytes();
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let text: Value = serde_json::from_slice(&bytes[8..8 + header]).expect("a header");
    let mut cuts = vec![0, 1, 7, 8, 9, 8 + header / 2, 8 + header - 1, 8 + header, bytes.len() - 1];
    for (name, tensor) in text.as_object().expect("an object") {
        if name != "__metadata__" {
            let at = |index: usize| tensor["data_offsets"][index].as_u64().expect("an offset") as usize;
            cuts.extend([8 + header + at(0), 8 + header + at(0) + 1, (8 + header + at(1)).min(bytes.len() - 1)]);
        }
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("cut.masf");
    for cut in cuts {
        std::fs::write(&path, &bytes[..cut]).expect("a file");
        let error = bounded("a cut file", 8 * MIB, || Detector::load(&path).expect_err("it is cut"));
        assert_says(&error.to_string(), &["cut.masf", "damaged or truncated"]);
    }
    Ok(())
}

/// Thresholds of such a model come from maps without detail, so that its maps must stay without.
#[test]
fn a_model_of_before_detail_keeps_its_maps() -> Result<()> {
    let _turn = turn();
    let mut older = Model::fitted(small(""), 4)?;
    let image = RgbImage::from_fn(64, 64, |x, y| image::Rgb([(x * 3) as u8, (y * 4) as u8, (x * y) as u8]));
    let present = older.load()?.inspect(image.clone())?;
    let section = older.sections["fusion"]["data"].as_object_mut().expect("a section");
    assert!(section.remove("detail").is_some());
    assert!(section["params"].as_object_mut().expect("parameters").remove("detail").is_some());
    let found = older.load()?.inspect(image)?;
    assert_eq!(found.image_score.to_bits(), present.image_score.to_bits());
    assert_ne!(found.anomaly_map, present.anomaly_map);
    Ok(())
}
