//! Progress of long work, and its cancellation.

use crate::{Error, Result};

/// Receives the progress of long work, and may ask it to stop.
///
/// Work is reported as a sequence of named stages: [`start`](Self::start), any number of [`step`](Self::step)s,
/// [`finish`](Self::finish). Calls may come from any thread.
pub trait Progress: Send + Sync {
    /// A stage of `total` steps begins.
    fn start(&self, stage: &str, total: u64);
    /// `count` more steps of the stage are done.
    fn step(&self, count: u64);
    /// The stage is over.
    fn finish(&self);
    /// How the stage goes, such as `epoch 3/24, loss 0.21`, for people; may come often.
    fn note(&self, _text: &str) {}
    /// Whether the work should stop as soon as it can; it then returns [`Error::Cancelled`].
    fn is_cancelled(&self) -> bool {
        false
    }
    /// [`Error::Cancelled`] once cancellation was asked for.
    ///
    /// # Errors
    /// Exactly then.
    fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// Reports nothing, cancels nothing: the default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _stage: &str, _total: u64) {}
    fn step(&self, _count: u64) {}
    fn finish(&self) {}
}

#[cfg(feature = "progress")]
pub use terminal::TerminalProgress;

#[cfg(feature = "progress")]
mod terminal {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

    use indicatif::{ProgressBar, ProgressStyle};

    use super::Progress;

    /// A progress bar on standard error when that is a terminal, nothing otherwise; cancelled through a shared flag.
    #[derive(Debug, Default)]
    pub struct TerminalProgress {
        bar: Mutex<Option<ProgressBar>>,
        cancelled: Arc<AtomicBool>,
    }

    impl TerminalProgress {
        /// A bar that `cancelled` stops, for example from a Ctrl-C handler.
        pub fn new(cancelled: Arc<AtomicBool>) -> Self {
            Self { bar: Mutex::default(), cancelled }
        }

        fn with_bar(&self, action: impl FnOnce(&mut Option<ProgressBar>)) {
            action(&mut self.bar.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        }
    }

    impl Progress for TerminalProgress {
        fn start(&self, stage: &str, total: u64) {
            let bar = ProgressBar::new(total).with_message(stage.to_owned());
            if let Ok(style) = ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} {eta:>5}") {
                bar.set_style(style);
            }
            self.with_bar(|slot| *slot = Some(bar));
        }

        fn step(&self, count: u64) {
            self.with_bar(|slot| {
                if let Some(bar) = slot {
                    bar.inc(count);
                }
            });
        }

        fn finish(&self) {
            self.with_bar(|slot| {
                if let Some(bar) = slot.take() {
                    bar.finish_and_clear();
                }
            });
        }

        fn note(&self, text: &str) {
            self.with_bar(|slot| {
                if let Some(bar) = slot {
                    bar.set_message(text.to_owned());
                }
            });
        }

        fn is_cancelled(&self) -> bool {
            self.cancelled.load(Ordering::Relaxed)
        }
    }
}
