//! What `/metrics` tells, in Prometheus's text form.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use masf::Detector;

/// Every way in which a request can end; `gone` is a client that hangs up before its answer.
const OUTCOMES: [&str; 7] = ["inspected", "refused", "too_large", "slow", "busy", "failed", "gone"];
/// Upper ends of the classes of times, in seconds.
const TIMES: [f64; 9] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Counters since the start.
pub(crate) struct Metrics {
    started: Instant,
    outcomes: [AtomicU64; OUTCOMES.len()],
    verdicts: [AtomicU64; 2],
    /// Inspected requests of a class, the last one without an upper end.
    times: [AtomicU64; TIMES.len() + 1],
    microseconds: AtomicU64,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            outcomes: Default::default(),
            verdicts: Default::default(),
            times: Default::default(),
            microseconds: AtomicU64::new(0),
        }
    }

    /// Counts a request that ended so after this time.
    pub(crate) fn count(&self, outcome: &str, time: Duration) {
        if let Some(place) = OUTCOMES.iter().position(|known| *known == outcome) {
            self.outcomes[place].fetch_add(1, Ordering::Relaxed);
        }
        if outcome == "inspected" {
            let class = TIMES.iter().position(|end| time.as_secs_f64() <= *end).unwrap_or(TIMES.len());
            self.times[class].fetch_add(1, Ordering::Relaxed);
            self.microseconds.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
        }
    }

    pub(crate) fn count_verdict(&self, anomalous: bool) {
        self.verdicts[usize::from(anomalous)].fetch_add(1, Ordering::Relaxed);
    }

    /// All of it as text; `free` is the number of further requests that would be taken now.
    pub(crate) fn text(&self, detector: &Detector, free: usize) -> String {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut text = String::new();
        let head = |text: &mut String, name: &str, kind: &str, help: &str| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        };
        head(&mut text, "masf_requests_total", "counter", "Requests to inspect, by how they ended.");
        for (outcome, counter) in OUTCOMES.iter().zip(&self.outcomes) {
            let _ = writeln!(text, "masf_requests_total{{outcome=\"{outcome}\"}} {}", read(counter));
        }
        head(&mut text, "masf_verdicts_total", "counter", "Inspected images, by verdict.");
        for (verdict, counter) in ["normal", "anomalous"].iter().zip(&self.verdicts) {
            let _ = writeln!(text, "masf_verdicts_total{{verdict=\"{verdict}\"}} {}", read(counter));
        }
        head(
            &mut text,
            "masf_request_seconds",
            "histogram",
            "Time from a request to its verdict, upload and waiting included.",
        );
        let mut sum = 0;
        let ends = TIMES.iter().map(ToString::to_string).chain(std::iter::once("+Inf".to_owned()));
        for (end, counter) in ends.zip(&self.times) {
            sum += read(counter);
            let _ = writeln!(text, "masf_request_seconds_bucket{{le=\"{end}\"}} {sum}");
        }
        let seconds = read(&self.microseconds) as f64 / 1e6;
        let _ = writeln!(text, "masf_request_seconds_sum {seconds}\nmasf_request_seconds_count {sum}");
        head(&mut text, "masf_free_requests", "gauge", "Further requests that would be taken now.");
        let _ = writeln!(text, "masf_free_requests {free}");
        head(&mut text, "masf_threshold", "gauge", "The image threshold of the model.");
        let _ = writeln!(text, "masf_threshold {}", detector.threshold().value);
        head(&mut text, "masf_uptime_seconds", "gauge", "Seconds since the start.");
        let _ = writeln!(text, "masf_uptime_seconds {}", self.started.elapsed().as_secs_f64());
        text
    }
}
