//! The examples as programs: what they print, write and return.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use masf::data::synthetic::{SyntheticConfig, write_dataset};
use serde_json::{Value, json};
use tempfile::TempDir;

/// An example that was built with these tests.
fn example(name: &str) -> Command {
    let tests = std::env::current_exe().expect("the path of this program");
    let folder = tests.parent().and_then(Path::parent).expect("the build folder");
    Command::new(folder.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION))
}

fn run(name: &str, args: &[&str]) -> Output {
    example(name).args(args).output().expect("the example runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A small data set and settings that fit quickly.
struct Fixture {
    folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let config = SyntheticConfig { train: 8, test_good: 2, test_per_kind: 1, ..SyntheticConfig::default() };
        write_dataset(folder.path().join("data"), &config).expect("a data set");
        let settings = "input.size = 128\nmemory = { candidates = 1000, prototypes = 100 }\n";
        fs::write(folder.path().join("quick.toml"), settings).expect("a file");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn train(&self, more: &[&str]) -> Output {
        let (data, out, config) = (self.path("data"), self.path("model.masf"), self.path("quick.toml"));
        let fixed = ["--data", path(&data), "--out", path(&out), "--config", path(&config)];
        run("train", &[&fixed, more].concat())
    }
}

#[test]
fn train_evaluate_and_inspect() {
    let fixture = Fixture::new();
    let trained = fixture.train(&[]);
    assert!(trained.status.success(), "{}", text(&trained.stderr));
    assert!(trained.stderr.is_empty(), "a progress bar was drawn into a pipe: {}", text(&trained.stderr));
    let (model, data) = (fixture.path("model.masf"), fixture.path("data"));

    let json = fixture.path("metrics.json");
    let report = fixture.path("report");
    let args = ["--model", path(&model), "--data", path(&data), "--json", path(&json), "--report", path(&report)];
    let measured = run("evaluate", &args);
    assert!(measured.status.success(), "{}", text(&measured.stderr));
    let page = fs::read_to_string(report.join("report.html")).expect("a page");
    let images = fs::read_dir(data.join("test"))
        .expect("kinds")
        .map(|kind| fs::read_dir(kind.expect("a kind").path()).expect("images").count());
    assert_eq!(page.matches("<li id=\"image-").count(), images.sum::<usize>());
    assert!(page.contains("Histogram") && page.contains("PRO") && page.contains("data:image/jpeg;base64,"));
    let weights = masf::backbone::Weights::embedded("masf-nano").expect("weights").expect("a known name");
    for told in ["6 (2 good, 4 defective)", weights.sha256()] {
        assert!(page.contains(told), "the page does not tell {told}");
    }
    for outside in ["src=\"http", "href=\"http", "url(", "@import"] {
        assert!(!page.contains(outside), "the page asks for {outside}");
    }
    assert!(text(&measured.stdout).contains("image AUROC"));
    let metrics: Value = serde_json::from_slice(&fs::read(&json).expect("JSON")).expect("JSON");
    for key in
        ["image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "aupro", "images", "seconds_per_image"]
    {
        assert!(metrics[key].is_number(), "{key} is {}", metrics[key]);
    }
    assert!(metrics["kinds"]["good"]["image_auroc"].is_null());

    let (heatmaps, json) = (fixture.path("maps"), fixture.path("found.json"));
    let test = data.join("test");
    let args = ["--model", path(&model), "--heatmaps", path(&heatmaps), "--json", path(&json), path(&test)];
    let inspected = run("inspect", &args);
    assert!(inspected.status.success(), "{}", text(&inspected.stderr));
    let found: Value = serde_json::from_slice(&fs::read(&json).expect("JSON")).expect("JSON");
    let images = found["images"].as_array().expect("a list");
    assert_eq!(images.len(), text(&inspected.stdout).lines().count());
    assert!(found["model"].is_string());
    assert_eq!(found["drift"]["images"].as_u64(), Some(images.len() as u64));
    for image in images {
        assert!(image["path"].is_string() && image["is_anomalous"].is_boolean() && image["regions"].is_array());
        assert!(image["uncertainty"].as_f64().is_some_and(|uncertainty| (0.0..=1.0).contains(&uncertainty)));
        let [score, normalised, threshold] =
            ["image_score", "normalised_score", "threshold"].map(|key| image[key].as_f64().expect(key));
        assert_eq!(image["is_anomalous"], Value::Bool(score > threshold));
        assert!((0.0..=1.0).contains(&normalised) && (normalised > 0.5) == (score > threshold));
    }
    // Sub-folders are kept, so images of the same name do not collide.
    let drawn = fs::read_dir(&heatmaps).expect("heat maps").count();
    assert_eq!(drawn, fs::read_dir(&test).expect("test images").count());
    for entry in fs::read_dir(heatmaps.join("good")).expect("heat maps") {
        image::open(entry.expect("an entry").path()).expect("a PNG");
    }
}

#[test]
fn a_student_is_trained_and_goes_on_from_its_checkpoint() {
    let fixture = Fixture::new();
    let settings = "input.size = 128\nmemory = { candidates = 1000, prototypes = 100 }\n\
                    distill = { width = 32, bottleneck = 32, depth = 1 }\n";
    fs::write(fixture.path("quick.toml"), settings).expect("a file");
    let folder = fixture.path("checkpoints");
    let trained = fixture.train(&["--branches", "memory,distill", "--epochs", "2", "--checkpoint-dir", path(&folder)]);
    assert!(trained.status.success(), "{}", text(&trained.stderr));
    let model = fs::read(fixture.path("model.masf")).expect("a model");
    let resume = || fixture.train(&["--branches", "memory,distill", "--epochs", "2", "--resume", path(&folder)]);
    // After both trainings, and after the one for the thresholds alone.
    for second_began in [true, false] {
        if !second_began {
            fs::remove_file(folder.join("student.checkpoint")).expect("the checkpoint of the second training");
        }
        let resumed = resume();
        assert!(resumed.status.success(), "{}", text(&resumed.stderr));
        assert!(fs::read(fixture.path("model.masf")).expect("a model") == model);
    }
    let other = fixture.train(&["--branches", "distill", "--epochs", "3", "--resume", path(&folder)]);
    assert_eq!(other.status.code(), Some(1));
    assert!(text(&other.stderr).contains("does not fit"), "{}", text(&other.stderr));
    fs::remove_file(folder.join("student-calibration.checkpoint")).expect("the checkpoint of the first training");
    let missing = resume();
    assert!(!missing.status.success() && text(&missing.stderr).contains("student-calibration.checkpoint"));
    let wrong = fixture.train(&["--branches", "samb"]);
    assert!(!wrong.status.success() && text(&wrong.stderr).contains("samb"));
}

#[test]
fn inspect_goes_on_after_a_failure_and_says_so_in_its_exit_code() {
    let fixture = Fixture::new();
    assert!(fixture.train(&[]).status.success());
    let (model, good) = (fixture.path("model.masf"), fixture.path("data/test/good"));
    let broken = fixture.path("broken.png");
    fs::write(&broken, "not a picture").expect("a file");
    let missing = fixture.path("missing.png");
    let (maps, json) = (fixture.path("maps"), fixture.path("found.json"));
    // No heat map takes the place of a folder.
    fs::create_dir_all(maps.join("000.png.png")).expect("a folder");
    let outputs = ["--model", path(&model), "--heatmaps", path(&maps), "--json", path(&json)];
    let inspected = run("inspect", &[outputs.as_slice(), &[path(&broken), path(&missing), path(&good)]].concat());
    assert_eq!(inspected.status.code(), Some(1));
    let complaints = text(&inspected.stderr);
    for name in ["broken.png", "missing.png", "000.png.png"] {
        assert!(complaints.contains(name), "{complaints}");
    }
    assert_eq!(text(&inspected.stdout).lines().count(), 2);
    let found: Value = serde_json::from_slice(&fs::read(&json).expect("JSON")).expect("JSON");
    let images = found["images"].as_array().expect("a list");
    for image in images {
        let blocked = image["path"].as_str().is_some_and(|path| path.ends_with("000.png"));
        let error = image["output_error"].as_str();
        assert_eq!(error.is_some_and(|error| error.contains("000.png.png")), blocked, "{image}");
    }
    let failed = images.iter().filter(|image| image["error"].is_string()).count();
    let inspected = images.iter().filter(|image| image["is_anomalous"].is_boolean()).count();
    assert_eq!((failed, inspected), (2, 2), "{found}");
    assert_eq!(found["complete"], Value::Bool(true));
    // A folder without images takes the place of what was found before.
    let empty = fixture.path("empty");
    fs::create_dir(&empty).expect("a folder");
    let inspected = run("inspect", &["--model", path(&model), "--json", path(&json), path(&empty)]);
    assert_eq!(inspected.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&fs::read(&json).expect("JSON")).expect("JSON");
    assert_eq!(found["images"].as_array().map(Vec::len), Some(1), "{found}");
    assert_eq!(found["images"][0]["path"], path(&empty));
    assert!(found["images"][0]["error"].is_string(), "{found}");
    // Beside others it is said, too.
    let inspected = run("inspect", &["--model", path(&model), "--json", path(&json), path(&empty), path(&good)]);
    assert_eq!(inspected.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&fs::read(&json).expect("JSON")).expect("JSON");
    let rows = found["images"].as_array().expect("a list");
    assert!(rows.iter().any(|row| row["path"] == path(&empty) && row["error"].is_string()), "{found}");
    assert!(rows.iter().any(|row| row["is_anomalous"].is_boolean()), "{found}");
    let no_model = run("inspect", &["--model", path(&missing), path(&good)]);
    assert_eq!(no_model.status.code(), Some(1));
    assert!(text(&no_model.stderr).contains("missing.png"));
}

#[test]
fn wrong_usage_is_exit_code_2_and_help_is_there() {
    let names = ["quickstart", "train", "evaluate", "inspect", "ablation", "extend", "watch", "threshold", "tiling"];
    let others =
        ["own_backbone", "own_scorer", "spectral", "compare", "descriptors", "rotation", "growth", "soak", "cost"];
    for name in names.into_iter().chain(others) {
        let help = run(name, &["--help"]);
        assert!(help.status.success() && text(&help.stdout).contains("Usage"), "{name}");
        let wrong = run(name, &["--no-such-option"]);
        assert_eq!(wrong.status.code(), Some(2), "{name}");
        assert!(text(&wrong.stderr).contains("--no-such-option"));
    }
    assert_eq!(run("inspect", &["--model", "m.masf"]).status.code(), Some(2));
    let size = run("train", &["--data", "d", "--out", "m", "--image-size", "wide"]);
    assert_eq!(size.status.code(), Some(2));
    assert!(text(&size.stderr).contains("wide"));
}

#[cfg(not(any(feature = "cuda", feature = "metal")))]
#[test]
fn a_device_that_is_not_built_in_is_refused_with_its_feature() {
    let fixture = Fixture::new();
    let refused = fixture.train(&["--device", "cuda:1"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("feature `cuda`"), "{}", text(&refused.stderr));
    assert!(fixture.train(&["--device", "cpu"]).status.success());
    let (model, data) = (fixture.path("model.masf"), fixture.path("data"));
    for (name, rest) in [("evaluate", ["--data", path(&data)].as_slice()), ("inspect", &[path(&data)])] {
        let refused = run(name, &[["--model", path(&model), "--device", "metal"].as_slice(), rest].concat());
        assert_eq!(refused.status.code(), Some(1), "{name}");
        assert!(text(&refused.stderr).contains("feature `metal`"), "{name}: {}", text(&refused.stderr));
    }
    let unknown = run("inspect", &["--model", path(&model), "--device", "gpu", path(&data)]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("cuda:INDEX"));
}

#[test]
fn train_stops_at_a_bad_file_unless_told_to_skip_it() {
    let fixture = Fixture::new();
    fs::write(fixture.path("data/train/good/zz.png"), "not a picture").expect("a file");
    fs::write(fixture.path("data/train/good/notes.txt"), "of the day").expect("a file");
    let stopped = fixture.train(&[]);
    assert_eq!(stopped.status.code(), Some(1));
    assert!(text(&stopped.stderr).contains("zz.png"));
    assert!(text(&stopped.stderr).contains("passed over 1") && text(&stopped.stderr).contains("notes.txt"));
    assert!(!fixture.path("model.masf").exists());
    let (data, out) = (fixture.path("data"), fixture.path("rows.safetensors"));
    for (name, more) in [("descriptors", ["--out", path(&out)]), ("growth", ["--backbone", "masf-nano"])] {
        let stopped = run(name, &[["--data", path(&data)], more].concat());
        assert_eq!(stopped.status.code(), Some(1), "{name}");
        assert!(text(&stopped.stderr).contains("zz.png"), "{name}: {}", text(&stopped.stderr));
    }
    assert!(!out.exists());
    let skipped = fixture.train(&["--skip-bad"]);
    assert!(skipped.status.success());
    assert!(text(&skipped.stderr).contains("zz.png") && text(&skipped.stdout).contains("1 left out"));
    assert!(fixture.path("model.masf").exists());
}

#[test]
fn nobody_reads_the_output_and_the_files_are_written_all_the_same() {
    let fixture = Fixture::new();
    assert!(fixture.train(&[]).status.success());
    let (model, data) = (fixture.path("model.masf"), fixture.path("data"));
    let (json, report) = (fixture.path("metrics.json"), fixture.path("report"));
    let args = ["--model", path(&model), "--data", path(&data), "--json", path(&json), "--report", path(&report)];
    let images = data.join("test");
    for (name, args) in [("evaluate", &args[..]), ("inspect", &["--model", path(&model), path(&images)])] {
        let mut child =
            example(name).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        // As `head` does when it has seen enough, and with a reader of errors that is gone as well.
        drop((child.stdout.take(), child.stderr.take()));
        assert!(child.wait().expect("it ends").success(), "{name}");
    }
    fs::write(fixture.path("ordinary"), "").expect("a file");
    let ordinary = fs::metadata(fixture.path("ordinary")).expect("a file").permissions();
    for file in [json, report.join("report.html"), model] {
        assert_eq!(fs::metadata(&file).expect("it was written").permissions(), ordinary, "{}", file.display());
    }
}

#[test]
fn what_cannot_be_written_is_refused_before_the_work() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("file");
    fs::write(&file, b"kept").expect("a file");
    let out = file.join("model.masf");
    // The data are not even looked for.
    let refused = run("train", &["--data", "no/such/folder", "--out", path(&out)]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("cannot write") && text(&refused.stderr).contains("model.masf"));
    // Folders on the way are made.
    let out = folder.path().join("models/line 1/model.masf");
    let refused = run("train", &["--data", "no/such/folder", "--out", path(&out)]);
    assert!(text(&refused.stderr).contains("no/such/folder"), "{}", text(&refused.stderr));
    assert!(fs::read_dir(out.parent().expect("a folder")).expect("the folder").next().is_none());
    // Heat maps among images would be inspected the next time; the model is not even looked for.
    let images = folder.path().join("images");
    fs::create_dir(&images).expect("a folder");
    for (option, into) in [("--heatmaps", images.clone()), ("--maps", images.join("new/maps"))] {
        let refused = run("inspect", &["--model", "none.masf", option, path(&into), path(&images)]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused.stderr).contains("taken for images"), "{}", text(&refused.stderr));
    }
    assert!(fs::read_dir(&images).expect("the folder").next().is_none());
    let hidden = images.join(".maps");
    let allowed = run("inspect", &["--model", "none.masf", "--maps", path(&hidden), path(&images)]);
    assert!(text(&allowed.stderr).contains("none.masf"), "{}", text(&allowed.stderr));
}

#[cfg(unix)]
#[test]
fn a_device_is_written_to_and_not_replaced() {
    let fixture = Fixture::new();
    assert!(fixture.train(&[]).status.success());
    let (model, data) = (fixture.path("model.masf"), fixture.path("data"));
    let image = data.join("test/good/000.png");
    let found = run("inspect", &["--model", path(&model), "--json", "/dev/stdout", path(&image)]);
    assert!(found.status.success(), "{}", text(&found.stderr));
    assert!(text(&found.stdout).contains("\"image_score\""), "{}", text(&found.stdout));
    // What standard output is led to may be a file, which keeps what it has.
    let log = fixture.path("log.txt");
    fs::write(&log, "kept\n").expect("a file");
    let into_log = example("inspect")
        .args(["--model", path(&model), "--json", "/dev/stdout", path(&image)])
        .stdout(fs::OpenOptions::new().append(true).open(&log).expect("a file"))
        .output()
        .expect("it runs");
    let logged = fs::read_to_string(&log).expect("text");
    assert!(into_log.status.success() && logged.starts_with("kept\n"), "{logged}");
    assert!(logged.contains("000.png\t") && logged.contains("\"image_score\""), "{logged}");
    let full = run("inspect", &["--model", path(&model), "--json", "/dev/full", path(&image)]);
    assert_eq!(full.status.code(), Some(1));
    assert!(text(&full.stderr).contains("cannot write /dev/full"), "{}", text(&full.stderr));
    // Models replace what is there, which a device does not allow: neither data nor models are looked for.
    for (name, more) in [
        ("train", ["--data", "none", "--out", "/dev/null"].as_slice()),
        ("extend", &["--model", "none", "--data", "none", "--out", "/dev/null"]),
        ("threshold", &["--model", "none", "--out", "/dev/null"]),
        ("descriptors", &["--data", "none", "--out", "/dev/null"]),
        ("evaluate", &["--model", "none", "--data", "none", "--adopt-f1-threshold", "/dev/null"]),
    ] {
        let refused = run(name, more);
        assert_eq!(refused.status.code(), Some(1), "{name}");
        assert!(text(&refused.stderr).contains("cannot write /dev/null"), "{name}: {}", text(&refused.stderr));
    }
    let into_full = example("inspect")
        .args(["--model", path(&model), path(&image)])
        .stdout(fs::OpenOptions::new().write(true).open("/dev/full").expect("a device"))
        .output()
        .expect("it runs");
    assert_eq!(into_full.status.code(), Some(1));
    assert!(text(&into_full.stderr).contains("standard output"), "{}", text(&into_full.stderr));
}

#[test]
fn a_threshold_from_labels_is_adopted() {
    let fixture = Fixture::new();
    assert!(fixture.train(&[]).status.success());
    let (model, data, adopted) = (fixture.path("model.masf"), fixture.path("data"), fixture.path("adopted.masf"));
    let args = ["--model", path(&model), "--data", path(&data), "--adopt-f1-threshold", path(&adopted)];
    let measured = run("evaluate", &args);
    assert!(measured.status.success(), "{}", text(&measured.stderr));
    let detector = masf::Detector::load(&adopted).expect("a model");
    assert!(matches!(detector.threshold().source, masf::ThresholdSource::F1Max { images: 6 }));
}

#[test]
fn a_model_saved_again_holds_weights_where_it_did_and_other_weights_are_refused() {
    let fixture = Fixture::new();
    let weights = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/weights/masf-nano.safetensors");
    let others = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/weights/few.safetensors");
    let [model, referring, new, data, good] =
        ["model.masf", "referring.masf", "new.masf", "data", "data/test/good"].map(|name| fixture.path(name));
    let size = |path: &Path| fs::metadata(path).expect("a model").len();
    let given = ["--model", path(&model), "--weights", weights];
    for options in [["--reference-weights"].as_slice(), &[]] {
        let trained = fixture.train(options);
        assert!(trained.status.success(), "{}", text(&trained.stderr));
        for (name, more) in [
            ("evaluate", ["--data", path(&data), "--adopt-f1-threshold", path(&new)].as_slice()),
            ("threshold", &["--data", path(&data), "--f1", "--out", path(&new)]),
            ("extend", &["--data", path(&data), "--out", path(&new)]),
        ] {
            let saved = run(name, &[given.as_slice(), more].concat());
            assert!(saved.status.success(), "{name}: {}", text(&saved.stderr));
            // The weights have 1.1 MB, all else little.
            assert!(size(&new).abs_diff(size(&model)) < 300_000, "{name}: {} and {}", size(&new), size(&model));
        }
        for (wrong, told) in [(others, "but the model was fitted with"), ("none.safetensors", "none.safetensors")] {
            let refused = run("inspect", &["--model", path(&model), "--weights", wrong, path(&good)]);
            assert_eq!(refused.status.code(), Some(1), "{wrong}");
            assert!(text(&refused.stderr).contains(told), "{}", text(&refused.stderr));
        }
        if !options.is_empty() {
            fs::copy(&model, &referring).expect("a copy");
        }
    }
    assert!(size(&model) > size(&referring) + 500_000);
    let both = ["--merge", path(&referring), "--calibration", path(&good), "--out", path(&new)];
    let merged = run("extend", &[given.as_slice(), &both].concat());
    assert!(merged.status.success(), "{}", text(&merged.stderr));
}

#[test]
fn options_of_what_does_not_learn_are_refused() {
    for options in [
        ["--turns", "4", "--method", "patchcore"],
        ["--turns", "4", "--branches", "distill"],
        ["--epochs", "2", "--preset", "fast"],
        ["--epochs", "2", "--method", "padim"],
        ["--preset", "accurate", "--method", "patchcore"],
        ["--checkpoint-dir", "none", "--method", "rdpp"],
    ] {
        let refused = run("train", &[["--data", "none", "--out", "none.masf"].as_slice(), &options].concat());
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains(options[0]) && said.contains("leave it out"), "{said}");
    }
    let folder = TempDir::new().expect("a temporary folder");
    let config = folder.path().join("patchcore.toml");
    fs::write(&config, "method = 'patchcore'\n").expect("a file");
    let refused = run("rotation", &["--data", "none", "--config", path(&config)]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("--turns 0"), "{}", text(&refused.stderr));
}

#[test]
fn figures_of_learned_images_are_refused_or_said_to_flatter() {
    let fixture = Fixture::new();
    let good_and_bad = fixture.path("data/test");
    let refused = run("rotation", &["--data", path(&good_and_bad)]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("train/good"), "{}", text(&refused.stderr));
    assert!(fixture.train(&[]).status.success());
    let model = fixture.path("model.masf");
    for name in ["evaluate", "threshold"] {
        let measured = run(name, &["--model", path(&model), "--data", path(&good_and_bad)]);
        assert!(measured.status.success(), "{}", text(&measured.stderr));
        assert!(text(&measured.stderr).contains("flatter"), "{name}: {}", text(&measured.stderr));
    }
}

#[test]
fn the_ablation_measures_its_rows_once() {
    let fixture = Fixture::new();
    let (all, out, config) = (fixture.path(""), fixture.path("ablation"), fixture.path("quick.toml"));
    let fixed = ["--data", path(&all), "--out", path(&out), "--config", path(&config), "--seeds", "0"];
    let rows = ["--rows", "full,bank-per-level"];
    let ablation = |more: &[&str]| run("ablation", &[&fixed, &rows[..], more].concat());
    let first = ablation(&[]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let table = fs::read_to_string(out.join("table.md")).expect("a table");
    assert!(
        table.contains("| full | the settings as they are | 0 |") && table.contains("| bank-per-level |"),
        "{table}"
    );
    let document: Value = serde_json::from_slice(&fs::read(out.join("table.json")).expect("JSON")).expect("JSON");
    assert_eq!(document["measured"].as_array().map(Vec::len), Some(2));
    assert!(document["rows"][0]["figures"]["image_auroc"]["mean"].is_number(), "{document}");
    // At the rate of the model's own threshold, 0.05, the picture shows its false alarms.
    let figures = &document["measured"][0]["figures"];
    assert_eq!(figures["false_alarms"][2], json!({ "stated": 0.05, "measured": figures["false_alarm_rate"] }));
    let picture = fs::read_to_string(out.join("reliability.svg")).expect("a picture");
    assert!(picture.matches("<circle").count() > 8 && !picture.contains("NaN"), "{picture}");
    // What is there is not measured again: nothing is said of it.
    let again = ablation(&[]);
    assert!(again.status.success() && again.stderr.is_empty(), "{}", text(&again.stderr));
    assert_eq!(text(&again.stdout), text(&first.stdout));
    let wrong = run("ablation", &[&fixed[..], &["--rows", "no-such-row"]].concat());
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("no-such-row") && text(&wrong.stderr).contains("learned-weights"));
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_no_half_written_file() {
    use std::time::Duration;
    let fixture = Fixture::new();
    let (data, out) = (fixture.path("data"), fixture.path("model.masf"));
    // The default size takes long enough to be interrupted; should it finish first, the model must be whole.
    let mut child = example("train")
        .args(["--data", path(&data), "--out", path(&out), "--threads", "1"])
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the example runs");
    std::thread::sleep(Duration::from_millis(300));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    let status = child.wait().expect("the example ends");
    if status.success() {
        masf::Detector::load(&out).expect("a whole model");
    } else {
        assert_eq!(status.code(), Some(130));
        assert!(!out.exists());
    }
    let left: Vec<_> = fs::read_dir(fixture.folder.path())
        .expect("the folder")
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter(|name| name.starts_with(".masf-"))
        .collect();
    assert!(left.is_empty(), "temporary files were left: {left:?}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_was_inspected() {
    use std::io::{BufRead, BufReader};
    const COUNT: usize = 200;
    let fixture = Fixture::new();
    assert!(fixture.train(&[]).status.success());
    let (model, many, json) = (fixture.path("model.masf"), fixture.path("many"), fixture.path("found.json"));
    fs::create_dir(&many).expect("a folder");
    for number in 0..COUNT {
        fs::copy(fixture.path("data/test/good/000.png"), many.join(format!("{number:03}.png"))).expect("a copy");
    }
    let mut child = example("inspect")
        .args(["--model", path(&model), "--json", path(&json), "--threads", "1", path(&many)])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the example runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    lines.next().expect("a line").expect("text");
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    let printed = 1 + lines.count();
    let status = child.wait().expect("the example ends");
    let found: Value = serde_json::from_slice(&fs::read(&json).expect("JSON")).expect("JSON");
    assert_eq!(found["images"].as_array().map(Vec::len), Some(printed));
    // Should it finish first, all are there.
    assert_eq!(status.code(), Some(if printed < COUNT { 130 } else { 0 }));
    assert_eq!(found["complete"], Value::Bool(printed == COUNT));
}

/// The embedded backbone teaches a student of its own kind for a few steps.
#[test]
fn train_backbone_stops_resumes_and_writes_weights() {
    let folder = TempDir::new().expect("a temporary folder");
    let teacher = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/weights/masf-nano.safetensors");
    let (out, run_folder) = (folder.path().join("weights/student.safetensors"), folder.path().join("run"));
    let train = |side: &str, more: &[&str]| {
        let fixed = ["--teacher", "masf-nano", "--teacher-weights", teacher, "--side", side, "--images", "8"];
        let places = ["--batch", "4", "--out", path(&out), "--checkpoint-dir", path(&run_folder)];
        run("train_backbone", &[&fixed[..], &places, more].concat())
    };
    let first = train("32", &["--steps", "45"]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let weights = fs::read(&out).expect("the weights");
    let again = train("32", &["--steps", "50"]);
    assert!(!again.status.success() && text(&again.stderr).contains("--resume"), "{}", text(&again.stderr));
    let resumed = train("32", &["--steps", "50", "--resume"]);
    assert!(resumed.status.success(), "{}", text(&resumed.stderr));
    // The mean of the five steps since; divided by fifty it would be a tenth of that.
    let said = text(&resumed.stderr);
    let line = said.lines().find(|line| line.starts_with("step 50,")).unwrap_or_else(|| panic!("no line: {said}"));
    let (_, shares) = line.rsplit_once('[').expect("shares");
    let shares: Vec<f32> =
        shares.trim_end_matches(']').split(", ").map(|share| share.parse().expect("a number")).collect();
    assert!(shares.len() == 3 && shares.iter().all(|share| *share > 0.15), "{line}");
    assert_ne!(fs::read(&out).expect("the weights"), weights);
    let student = masf::backbone::Backbone::builder("masf-nano").expect("a known name").load(&out);
    assert!(student.is_ok(), "{:?}", student.err());
    // Records of another size are in another file.
    let pool = || fs::read(run_folder.join("pool-32-0.bin")).expect("a pool");
    let kept = pool();
    let larger = train("48", &["--steps", "51", "--resume"]);
    assert!(larger.status.success(), "{}", text(&larger.stderr));
    assert!(pool() == kept);
    let odd = train("40", &["--steps", "4", "--resume"]);
    assert!(!odd.status.success() && text(&odd.stderr).contains("multiple of 16"), "{}", text(&odd.stderr));
}
