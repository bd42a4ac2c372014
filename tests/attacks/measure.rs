//! How much memory and time a piece of work takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// The tests of this program run one at a time.
static TURN: Mutex<()> = Mutex::new(());

/// The system's allocator, which also counts. What is asked for counts, whether it is touched or not.
pub(crate) struct Counting;

fn grown(by: usize) {
    let live = LIVE.fetch_add(by, Ordering::Relaxed) + by;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grown(size);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The bytes that are allocated now.
pub(crate) fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// One mebibyte.
pub(crate) const MIB: usize = 1 << 20;

/// No attack takes a noticeable part of this; what does not end takes more.
const TIME: Duration = Duration::from_secs(20);

/// Every test begins by waiting for its turn and keeps it to its end: what another test allocates would be counted as well.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Does the work and asserts that it asked for no more than `bytes` at any moment, beyond what was there before, and that it came to an
/// end.
pub(crate) fn bounded<T>(name: &str, bytes: usize, work: impl FnOnce() -> T) -> T {
    assert!(TURN.try_lock().is_err(), "{name}: the test has not waited for its turn");
    let (before, started) = (live(), Instant::now());
    PEAK.store(before, Ordering::Relaxed);
    let result = work();
    let used = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    let took = started.elapsed();
    if std::env::var_os("MASF_SHOW_ATTACKS").is_some() {
        eprintln!("{name}: {used} bytes, {took:?}");
    }
    assert!(used <= bytes, "{name}: {used} bytes were asked for; the bound is {bytes}");
    assert!(took <= TIME, "{name} took {took:?}");
    result
}
