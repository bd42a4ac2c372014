//! The spans that `tracing` hears of. In a program of its own: whether a span is wanted is decided once for all threads, and tests beside it
//! that nobody listens to could decide first.

use std::sync::{Arc, Mutex};

use masf::data::{Dataset, Label};
use masf::{Detector, ExtendOptions, Result, Silent, Size};
use masf_tests::{dataset, quick_config};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps the names of spans.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<&'static str>>>);

impl Subscriber for Names {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("masf")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut names = self.0.lock().expect("a lock");
        names.push(span.metadata().name());
        Id::from_u64(names.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn work_is_told_in_spans() -> Result<()> {
    let names = Names::default();
    tracing::subscriber::with_default(names.clone(), || -> Result<()> {
        let mut config = quick_config();
        config.input.size = Size::square(64);
        let detector = Detector::builder().config(config).fit_folder(dataset())?;
        let test = Dataset::test(dataset())?.samples;
        detector.inspect(&test[0].path)?;
        detector.evaluate(&test, &Silent)?;
        let folder = tempfile::tempdir().expect("a folder");
        detector.save(folder.path().join("model.masf"))?;
        let mut loaded = Detector::load(folder.path().join("model.masf"))?;
        let good: Vec<_> =
            test.iter().filter(|sample| sample.label == Label::Good).map(|sample| sample.path.clone()).collect();
        let (further, calibration) = good.split_at(good.len() / 2);
        let calibration = calibration.iter().map(Into::into).collect();
        let options = ExtendOptions { calibration, ..ExtendOptions::default() };
        loaded.extend(further, &options)?;
        loaded.merge(&detector, &options)?;
        Ok(())
    })?;
    let names = names.0.lock().expect("a lock");
    let mut rest = names.iter();
    for name in [
        "fit",
        "features",
        "learn",
        "calibrate",
        "inspect",
        "backbone",
        "score",
        "fuse",
        "evaluate",
        "save",
        "load",
        "extend",
        "merge",
    ] {
        assert!(rest.any(|other| *other == name), "{name} is not in its place in {names:?}");
    }
    Ok(())
}
