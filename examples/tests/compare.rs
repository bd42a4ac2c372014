//! The example `compare` as a program: every method on a small synthetic set.

use std::path::Path;
use std::process::{Command, Output};

use masf::Method;
use masf::data::synthetic::{SyntheticConfig, write_dataset};

/// The example that was built with these tests.
fn compare(args: &[&str]) -> Output {
    let tests = std::env::current_exe().expect("the path of this program");
    let folder = tests.parent().and_then(Path::parent).expect("the build folder");
    let program = folder.join("examples").join("compare").with_extension(std::env::consts::EXE_EXTENSION);
    Command::new(program).args(args).output().expect("the example runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_method_has_a_row_and_a_column_of_heat_maps() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let config = SyntheticConfig { train: 8, test_good: 2, test_per_kind: 1, ..SyntheticConfig::default() };
    write_dataset(folder.path().join("data"), &config).expect("a data set");
    let settings = "input.size = 128\nmemory = { candidates = 1000, prototypes = 100 }\n\
                    patchcore = { candidates = 1000, prototypes = 100 }\npadim.dimensions = 10\n\
                    cfa.passes = 8\nrdpp = { passes = 4, batch_size = 2, width = 16 }\nadtr = { passes = 4, width = 16 }\n\
                    isstad = { passes = 4, width = 16, decoder_width = 8 }\n";
    std::fs::write(path("quick.toml"), settings).expect("a file");
    let (data, quick, page) = (path("data"), path("quick.toml"), path("page.html"));
    let found = compare(&["--data", &data, "--config", &quick, "--html", &page, "--images", "4"]);
    assert!(found.status.success(), "{}", text(&found.stderr));

    let table = text(&found.stdout);
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 2 + Method::ALL.len(), "{table}");
    let columns = rows[0].matches('|').count();
    for (row, method) in rows[2..].iter().zip(Method::ALL) {
        assert!(row.starts_with(&format!("| {method} | ")) && row.matches('|').count() == columns, "{table}");
    }
    let page = std::fs::read_to_string(page).expect("a page");
    assert_eq!(page.matches("<img").count() - page.matches("alt=\"mask\"").count(), 4 * (1 + Method::ALL.len()));
    assert_eq!(page.matches("heat map of rdpp").count(), 4);
    for outside in ["src=\"http", "href=\"http", "url(", "@import", "<script src"] {
        assert!(!page.contains(outside), "the page asks for {outside}");
    }

    let unknown = compare(&["--data", &data, "--methods", "masf,fastflow"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(
        text(&unknown.stderr).contains("one of masf, patchcore, padim, cfa, rdpp, adtr, isstad"),
        "{}",
        text(&unknown.stderr)
    );
}

#[test]
fn a_method_that_cannot_be_measured_does_not_stop_the_others() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let config = SyntheticConfig { train: 6, test_good: 1, test_per_kind: 1, ..SyntheticConfig::default() };
    write_dataset(folder.path().join("data"), &config).expect("a data set");
    // 256 Gaussians of 100 dimensions do not fit into that.
    let settings = "memory_budget = '6MiB'\ninput.size = 128\npadim.dimensions = 100\npatchcore.prototypes = 50\n";
    std::fs::write(path("small.toml"), settings).expect("a file");
    let (data, small, page) = (path("data"), path("small.toml"), path("page.html"));
    let args = ["--data", &data, "--config", &small, "--html", &page, "--methods", "padim,patchcore"];
    let found = compare(&args);
    assert_eq!(found.status.code(), Some(1));
    assert!(text(&found.stderr).contains("error: padim: ") && text(&found.stderr).contains("memory_budget"));
    assert_eq!(text(&found.stdout).lines().count(), 3, "{}", text(&found.stdout));

    // Where nothing is measured, the page of before stays.
    let (before, missing) = (std::fs::read(&page).expect("a page"), path("none.safetensors"));
    // Its good images would be learned and measured.
    let good_and_bad = path("data/test");
    let common = ["--config", &small, "--html", &page];
    for (from, more, told) in [
        (data.as_str(), ["--weights", missing.as_str()], "none.safetensors"),
        (data.as_str(), ["--methods", "padim"], "no method could be measured"),
        (good_and_bad.as_str(), ["--methods", "patchcore"], "train/good"),
    ] {
        let found = compare(&[&common[..], &["--data", from], &more].concat());
        assert_eq!(found.status.code(), Some(1));
        assert!(text(&found.stderr).contains(told) && found.stdout.is_empty(), "{}", text(&found.stderr));
        assert!(std::fs::read(&page).expect("a page") == before);
    }
}
