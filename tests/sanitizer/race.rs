//! The control of `scripts/thread-sanitizer`: `race` counts without a lock, which must be reported; without an argument it counts with one, which
//! must not.

use std::cell::UnsafeCell;
use std::sync::Mutex;

struct Shared(UnsafeCell<u64>);
// SAFETY: none; this is the race that the sanitiser has to find.
unsafe impl Sync for Shared {}

fn main() {
    let racy = std::env::args().nth(1).as_deref() == Some("race");
    let (plain, locked) = (Shared(UnsafeCell::new(0)), Mutex::new(0u64));
    std::thread::scope(|scope| {
        let count = || {
            for _ in 0..10_000 {
                if racy {
                    let plain = &plain;
                    // SAFETY: as above.
                    unsafe { *plain.0.get() += 1 }
                } else {
                    *locked.lock().expect("no thread panics") += 1;
                }
            }
        };
        let threads = [scope.spawn(count), scope.spawn(count)];
        threads.into_iter().for_each(|thread| thread.join().expect("no thread panics"));
    });
    println!("{} {}", plain.0.into_inner(), locked.into_inner().expect("no thread panics"));
}
