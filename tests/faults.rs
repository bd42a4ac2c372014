//! Faults of the machine and of the folder: full disks, folders that cannot be written, files that vanish, processes that are killed,
//! thousands of bad files. Nothing already saved is damaged, and what went wrong is said.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use masf::data::Dataset;
use masf::{Checkpoints, Config, Detector, Result};
use masf_tests::{quick_config, training_images};
use tempfile::TempDir;

fn folder() -> TempDir {
    TempDir::new().expect("a temporary folder")
}

fn small_config() -> Config {
    let mut config = quick_config();
    config.input.size = masf::Size::square(64);
    config
}

fn fitted(seed: u64) -> Result<Detector> {
    Detector::builder().config(Config { seed, ..small_config() }).fit(&training_images()?[..4])
}

/// The files of a folder, hidden ones too.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_that_vanishes_after_listing_is_named() -> Result<()> {
    let images = folder();
    for (index, image) in training_images()?.iter().take(5).enumerate() {
        fs::copy(image, images.path().join(format!("{index}.png"))).expect("a copy");
    }
    let listed: Vec<PathBuf> =
        Dataset::training(images.path())?.samples.into_iter().map(|sample| sample.path).collect();
    fs::remove_file(&listed[2]).expect("a file to remove");
    fs::write(&listed[4], "cut short by whoever writes it").expect("a file");
    let fit = |skip| Detector::builder().config(small_config()).skip_bad(skip).fit_with_report(&listed);
    let stopped = fit(false).expect_err("an image is missing").to_string();
    assert!(stopped.contains("2.png") && stopped.contains("No such file"), "{stopped}");
    let (detector, report) = fit(true)?;
    let skipped: Vec<String> = report.skipped.iter().map(ToString::to_string).collect();
    assert!(skipped.len() == 2 && skipped[0].contains("2.png") && skipped[1].contains("4.png"), "{skipped:?}");
    // Now the whole folder goes.
    fs::remove_dir_all(images.path()).expect("a folder to remove");
    let results = detector.inspect_batch(&listed);
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 5);
    let stopped = fit(true).expect_err("all images are missing").to_string();
    assert!(stopped.contains("0 can be used") && stopped.contains("5 images: No such file"), "{stopped}");
    Ok(())
}

#[test]
fn ten_thousand_bad_files_are_summed_up() -> Result<()> {
    let images = folder();
    for (index, image) in training_images()?.iter().take(10).enumerate() {
        fs::copy(image, images.path().join(format!("good{index}.png"))).expect("a copy");
    }
    let empty_png = b"\x89PNG\r\n\x1a\n";
    for index in 0..10_000 {
        let content: &[u8] = match index % 10 {
            0 => b"",
            1..=3 => empty_png,
            _ => b"this is not a picture",
        };
        fs::write(images.path().join(format!("bad{index:05}.png")), content).expect("a file");
    }
    let listed: Vec<PathBuf> =
        Dataset::training(images.path())?.samples.into_iter().map(|sample| sample.path).collect();
    assert_eq!(listed.len(), 10_010);
    let started = Instant::now();
    let (detector, report) = Detector::builder().config(small_config()).skip_bad(true).fit_with_report(&listed)?;
    assert_eq!((detector.provenance().images, detector.provenance().skipped), (10, 10_000));
    // A tenth of this would do; what grows with the square of the files takes more.
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    assert_eq!(report.skipped.len(), 10_000);
    let summary = report.skipped_summary();
    assert_eq!(summary.len(), 3, "{summary:?}");
    for (line, words) in summary.iter().zip([
        ["6000 images", "not an image that can be read", "bad00004.png"],
        ["3000 images", "PNG", "bad00001.png"],
        ["1000 images", "the file is empty", "bad00000.png"],
    ]) {
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
        assert!(line.len() < 1000, "{line}");
    }
    Ok(())
}

#[test]
fn duplicates_and_the_order_of_files() -> Result<()> {
    let images = &training_images()?[..6];
    let mut shuffled: Vec<&PathBuf> = images.iter().rev().collect();
    shuffled.swap(1, 4);
    let fit = |images: &[&PathBuf]| Detector::builder().config(small_config()).fit(images.iter().copied());
    // The order of the list is part of what a fit depends on, and no order is better; that of a folder is by name.
    let (first, second) = (fit(&images.iter().collect::<Vec<_>>())?, fit(&shuffled)?);
    let ratio = second.threshold().value / first.threshold().value;
    assert!((0.5..2.0).contains(&ratio), "{ratio}");
    let copies = folder();
    for (index, image) in images.iter().enumerate().rev() {
        fs::copy(image, copies.path().join(format!("{index}.png"))).expect("a copy");
    }
    let listed: Vec<PathBuf> =
        Dataset::training(copies.path())?.samples.into_iter().map(|sample| sample.path).collect();
    let of_folder = Detector::builder().config(small_config()).fit(&listed)?;
    assert_eq!(of_folder.threshold(), first.threshold());
    // Every image thrice, and one image only: nothing is divided by zero.
    let tripled: Vec<&PathBuf> = images.iter().cycle().take(18).collect();
    for list in [tripled, vec![&images[0]; 5]] {
        let detector = fit(&list)?;
        for image in images {
            let found = detector.inspect(image)?;
            assert!(found.image_score.is_finite() && (0.0..=1.0).contains(&found.normalised_score.0));
        }
    }
    // Inspecting in another order, or an image twice, changes no bit.
    let forth = first.inspect_batch(images);
    let twice: Vec<&PathBuf> = images.iter().rev().chain(images).collect();
    for (index, result) in first.inspect_batch(twice).into_iter().enumerate() {
        let same = if index < 6 { 5 - index } else { index - 6 };
        let (result, expected) = (result?, forth[same].as_ref().expect("it was inspected"));
        assert_eq!(result.image_score.to_bits(), expected.image_score.to_bits());
        assert_eq!(result.anomaly_map, expected.anomaly_map);
    }
    Ok(())
}

#[cfg(unix)]
mod processes {
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use super::*;

    /// This program again, as one of the children below, working on a folder.
    fn child(name: &str, folder: &Path) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
        command.args(["--exact", &format!("processes::{name}"), "--ignored", "--nocapture"]);
        command
            .env("MASF_FAULT_FOLDER", folder)
            .env("RAYON_NUM_THREADS", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn given_folder() -> PathBuf {
        std::env::var_os("MASF_FAULT_FOLDER").expect("a child of another test").into()
    }

    /// Waits until the file is there and has been written since.
    fn wait_for(path: &Path, child: &mut Child) {
        let started = Instant::now();
        while !path.exists() {
            assert!(started.elapsed() < Duration::from_secs(60), "{} never came", path.display());
            assert!(child.try_wait().expect("a child").is_none(), "the child ended");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    #[ignore = "is killed by another test"]
    fn child_that_saves() {
        let folder = given_folder();
        let models = ["a.masf", "b.masf"].map(|name| Detector::load(folder.join(name)).expect("a model"));
        fs::write(folder.join("ready"), "").expect("a file");
        loop {
            for model in &models {
                model.save(folder.join("model.masf")).expect("it can be saved");
            }
        }
    }

    #[test]
    fn a_process_killed_while_saving_leaves_a_whole_model() -> Result<()> {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        for (name, seed) in [("a.masf", 1), ("b.masf", 2)] {
            fitted(seed)?.save(at(name))?;
        }
        fs::copy(at("a.masf"), at("model.masf")).expect("a copy");
        let whole = ["a.masf", "b.masf"].map(|name| fs::read(at(name)).expect("a model"));
        let mut left_over = 0;
        for round in 0u64..12 {
            let _ = fs::remove_file(at("ready"));
            let mut killed = child("child_that_saves", folder.path()).spawn().expect("a child");
            wait_for(&at("ready"), &mut killed);
            // From the first moments of a save to several saves later, by steps that are not in time with it.
            std::thread::sleep(Duration::from_micros(300 + 1777 * round * round % 40_000));
            killed.kill().expect("a child to kill");
            killed.wait().expect("a child");
            let found = fs::read(at("model.masf")).expect("a model");
            assert!(whole.contains(&found), "round {round}: {} bytes that were never saved", found.len());
            Detector::load(at("model.masf"))?;
            left_over += names(folder.path()).iter().filter(|name| name.starts_with('.')).count();
        }
        // What a killed process leaves behind is hidden, so no listing of a folder takes it for a model.
        let visible: Vec<String> = names(folder.path()).into_iter().filter(|name| !name.starts_with('.')).collect();
        assert_eq!(visible, ["a.masf", "b.masf", "model.masf", "ready"]);
        assert!(left_over > 0, "no save was interrupted: the test does not test");
        Ok(())
    }

    fn student(folder: &Path) -> masf::DetectorBuilder {
        let mut config = Config { branches: vec![masf::Branch::Distill], ..small_config() };
        (config.distill.width, config.distill.bottleneck, config.distill.depth) = (16, 16, 1);
        config.distill.epochs = Some(40);
        let mut checkpoints = Checkpoints::new(folder);
        checkpoints.every_epochs = 1;
        if folder.join("student.checkpoint").exists() {
            checkpoints = checkpoints.resume_from(folder);
        }
        Detector::builder().config(config).checkpoints(checkpoints)
    }

    #[test]
    #[ignore = "is killed by another test"]
    fn child_that_trains() {
        let folder = given_folder();
        let images: Vec<PathBuf> =
            Dataset::training(folder.join("images")).expect("images").samples.into_iter().map(|s| s.path).collect();
        let detector = student(&folder).fit(images).expect("it can be fitted");
        detector.save(folder.join("model.masf")).expect("it can be saved");
    }

    #[test]
    fn a_killed_training_goes_on_and_ends_with_the_same_model() -> Result<()> {
        let (folder, other) = (folder(), super::folder());
        fs::create_dir(folder.path().join("images")).expect("a folder");
        for (index, image) in training_images()?.iter().take(6).enumerate() {
            fs::copy(image, folder.path().join(format!("images/{index}.png"))).expect("a copy");
        }
        let mut kills = 0;
        for round in 0u64.. {
            let mut killed = child("child_that_trains", folder.path()).spawn().expect("a child");
            if round < 4 {
                wait_for(&folder.path().join("student.checkpoint"), &mut killed);
                std::thread::sleep(Duration::from_millis(7 * round));
                kills += usize::from(killed.try_wait().expect("a child").is_none());
                killed.kill().expect("a child to kill");
                killed.wait().expect("a child");
            } else {
                assert!(killed.wait().expect("a child").success(), "the last run failed");
                break;
            }
        }
        assert!(kills > 0, "no training was interrupted: the test does not test");
        let images: Vec<PathBuf> =
            Dataset::training(folder.path().join("images"))?.samples.into_iter().map(|s| s.path).collect();
        student(other.path()).fit(images)?.save(other.path().join("model.masf"))?;
        let [resumed, whole] = [folder.path(), other.path()].map(|f| fs::read(f.join("model.masf")).expect("a model"));
        assert!(resumed == whole, "the kills changed the model");
        Ok(())
    }

    #[test]
    #[ignore = "runs under limits set by another test"]
    fn child_whose_save_fails() {
        let folder = given_folder();
        let model = Detector::load(folder.join("new.masf")).expect("a model");
        let said =
            model.save(folder.join("model.masf")).err().map_or("it was saved".to_owned(), |error| error.to_string());
        fs::write(std::env::var_os("MASF_FAULT_REPORT").expect("a file"), said).expect("a report");
    }

    /// Saves over an old model in a child that `prepare` has put under a limit; the message, after checking that the old model is whole.
    fn failed_save(at: &Path, command: &mut Command, before: &[u8]) -> String {
        let report = folder();
        let report = report.path().join("said.txt");
        fs::write(&report, "").expect("a file");
        fs::set_permissions(&report, fs::Permissions::from_mode(0o666)).expect("a file");
        fs::set_permissions(report.parent().expect("a folder"), fs::Permissions::from_mode(0o777)).expect("a folder");
        // What it prints could end in a file, too, and meet the limit there.
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        let status = quiet.env("MASF_FAULT_REPORT", &report).status().expect("a child");
        let said = fs::read_to_string(&report).expect("a report");
        assert!(status.success() && !said.is_empty(), "the child failed: {status}");
        assert!(fs::read(at.join("model.masf")).expect("the old model") == before, "the old model was damaged");
        assert_eq!(names(at).iter().filter(|name| name.starts_with('.')).count(), 0, "a temporary file was left");
        said
    }

    fn old_and_new(at: &Path) -> Result<Vec<u8>> {
        fitted(1)?.save(at.join("model.masf"))?;
        fs::copy(at.join("model.masf"), at.join("new.masf")).expect("a copy");
        Ok(fs::read(at.join("model.masf")).expect("a model"))
    }

    #[test]
    fn a_limit_on_file_sizes_stops_a_save_and_spares_the_old_model() -> Result<()> {
        let folder = folder();
        let before = old_and_new(folder.path())?;
        // A file may grow to 64 blocks of 512 bytes; with the signal ignored, what goes beyond is an error of the write.
        let inner = child("child_whose_save_fails", folder.path());
        let mut command = Command::new("sh");
        command
            .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""])
            .arg(inner.get_program())
            .args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let said = failed_save(folder.path(), &mut command, &before);
        assert!(said.contains("model.masf: cannot save") && said.contains("File too large"), "{said}");
        Ok(())
    }

    #[test]
    fn a_full_disk_stops_a_save_and_spares_the_old_model() -> Result<()> {
        let folder = folder();
        let disk = folder.path().join("disk");
        fs::create_dir(&disk).expect("a folder");
        let mount = |args: &[&str]| Command::new(args[0]).args(&args[1..]).arg(&disk).stderr(Stdio::null()).status();
        let mounted = mount(&["mount", "-t", "tmpfs", "-o", "size=4m", "masf-test"]);
        if !mounted.is_ok_and(|status| status.success()) {
            eprintln!("skipped: no small file system can be mounted here");
            return Ok(());
        }
        let outcome = std::panic::catch_unwind(|| -> Result<()> {
            let before = old_and_new(&disk)?;
            let filler = fs::write(disk.join("filler"), vec![1; 4 << 20]);
            assert!(filler.is_err(), "the disk is not full");
            let said = failed_save(&disk, &mut child("child_whose_save_fails", &disk), &before);
            assert!(said.contains("model.masf: cannot save") && said.contains("No space left"), "{said}");
            fs::remove_file(disk.join("filler")).expect("a file to remove");
            fitted(2)?.save(disk.join("model.masf"))
        });
        mount(&["umount"]).expect("it was mounted");
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    #[test]
    fn a_folder_that_cannot_be_written_spares_the_old_model() -> Result<()> {
        let folder = folder();
        let before = old_and_new(folder.path())?;
        let readable =
            |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
        readable(folder.path(), 0o555);
        let inner = child("child_whose_save_fails", folder.path());
        let superuser = fs::write(folder.path().join("probe"), "").is_ok();
        let (mut command, possible) = if superuser {
            // Permissions do not bind the superuser: as nobody, then, who must be able to run this program.
            fs::remove_file(folder.path().join("probe")).expect("a file to remove");
            let nobody = || {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(inner.get_program());
                command.stdout(Stdio::null()).stderr(Stdio::null());
                command
            };
            let possible = nobody().arg("--list").status().is_ok_and(|status| status.success());
            let mut command = nobody();
            command.args(inner.get_args());
            command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
            (command, possible)
        } else {
            (inner, true)
        };
        if possible {
            let said = failed_save(folder.path(), &mut command, &before);
            assert!(said.contains("model.masf: cannot save") && said.contains("Permission denied"), "{said}");
        } else {
            eprintln!("skipped: there is no other user to run as");
        }
        readable(folder.path(), 0o755);
        Ok(())
    }

    #[test]
    fn what_is_no_file_is_not_replaced() -> Result<()> {
        let detector = fitted(1)?;
        for place in ["/dev/full", "/dev/null"] {
            let error = detector.save(place).expect_err("it is a device").to_string();
            assert!(error.contains(place) && error.contains("not a regular file"), "{error}");
            assert!(!fs::metadata(place).expect("the device").is_file());
        }
        Ok(())
    }

    #[test]
    fn models_and_checkpoints_have_the_permissions_of_any_file() -> Result<()> {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        let mode = |name: &str| fs::metadata(at(name)).expect("a file").permissions().mode() & 0o777;
        fs::write(at("ordinary"), "").expect("a file");
        student(folder.path()).fit(&training_images()?[..4])?.save(at("model.masf"))?;
        assert_eq!(mode("model.masf"), mode("ordinary"));
        assert_eq!(mode("student.checkpoint"), mode("ordinary"));
        // One that was made private stays private.
        fs::set_permissions(at("model.masf"), fs::Permissions::from_mode(0o600)).expect("permissions");
        fitted(1)?.save(at("model.masf"))?;
        assert_eq!(mode("model.masf"), 0o600);
        Ok(())
    }
}
