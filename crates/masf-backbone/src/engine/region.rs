//! One parallel region for a whole network: phases of tasks, a barrier between phases, no hand-over per layer.
//!
//! Layers of a small network take tens of microseconds, about what waking a thread takes. So the threads of the pool are called
//! once per run; each takes the next task of the current phase from one shared counter, and whoever finishes the last
//! task of a phase opens the next one. A thread that comes late, or never, costs speed only: the others take its tasks.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Turns of the waiting loop before the processor is offered to other threads: some 20 microseconds, longer than the rest
/// of a task usually takes, short enough not to hurt when the machine is shared.
const SPINS: usize = 1000;

/// The phase and the next task in it, in one word, so that one compare-and-swap claims a task of the right phase.
struct Cursor(AtomicU64);

const TASK_BITS: u32 = 32;

/// Moves the cursor to the end when a task unwinds, so that no other thread waits for it for ever.
struct Abort<'a> {
    cursor: &'a Cursor,
    end: usize,
}

impl Drop for Abort<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.cursor.0.store((self.end as u64) << TASK_BITS, Ordering::Release);
        }
    }
}

/// Runs `task(phase, index)` for every `index < tasks[phase]` of every phase, phases in order, on the threads of the current
/// rayon pool. All of a phase's effects are visible to the next.
pub(crate) fn run(tasks: &[usize], task: &(dyn Fn(usize, usize) + Sync)) {
    let widest = tasks.iter().copied().max().unwrap_or(0);
    let threads = rayon::current_num_threads().min(widest);
    if threads <= 1 {
        return run_alone(tasks, task);
    }
    let first = tasks.iter().position(|&count| count > 0).unwrap_or(tasks.len());
    let (cursor, done) = (Cursor(AtomicU64::new((first as u64) << TASK_BITS)), AtomicUsize::new(0));
    rayon::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|_| work(tasks, task, &cursor, &done));
        }
        work(tasks, task, &cursor, &done);
    });
}

/// The same on the calling thread.
pub(crate) fn run_alone(tasks: &[usize], task: &(dyn Fn(usize, usize) + Sync)) {
    for (phase, &count) in tasks.iter().enumerate() {
        (0..count).for_each(|index| task(phase, index));
    }
}

fn work(tasks: &[usize], task: &(dyn Fn(usize, usize) + Sync), cursor: &Cursor, done: &AtomicUsize) {
    let _abort = Abort { cursor, end: tasks.len() };
    let mut waited = 0;
    loop {
        // Acquire: what the phases before this one wrote is visible.
        let seen = cursor.0.load(Ordering::Acquire);
        let (phase, index) = ((seen >> TASK_BITS) as usize, (seen & ((1 << TASK_BITS) - 1)) as usize);
        let Some(&count) = tasks.get(phase) else { return };
        if index < count {
            if cursor.0.compare_exchange_weak(seen, seen + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            waited = 0;
            task(phase, index);
            // The last one has acquired what all others released, and passes it on with the cursor.
            if done.fetch_add(1, Ordering::AcqRel) + 1 == count {
                done.store(0, Ordering::Relaxed);
                let next = next_phase(tasks, phase);
                cursor.0.store((next as u64) << TASK_BITS, Ordering::Release);
            }
        } else if waited < SPINS {
            waited += 1;
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

/// The next phase that has a task.
fn next_phase(tasks: &[usize], phase: usize) -> usize {
    tasks.iter().enumerate().skip(phase + 1).find(|&(_, &count)| count > 0).map_or(tasks.len(), |(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn every_task_runs_once_and_phases_in_order() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        for round in 0..200 {
            let tasks: Vec<usize> = (0..50).map(|i| 1 + (i * 7 + round) % 9).collect();
            let runs: Vec<AtomicU32> = (0..50 * 16).map(|_| AtomicU32::new(0)).collect();
            let finished = AtomicUsize::new(0);
            pool.install(|| {
                run(&tasks, &|phase, index| {
                    assert!(finished.load(Ordering::SeqCst) >= tasks[..phase].iter().sum());
                    runs[phase * 16 + index].fetch_add(1, Ordering::SeqCst);
                    finished.fetch_add(1, Ordering::SeqCst);
                });
            });
            for (phase, &count) in tasks.iter().enumerate() {
                assert!((0..16).all(|i| runs[phase * 16 + i].load(Ordering::SeqCst) == u32::from(i < count)));
            }
        }
    }

    #[test]
    fn a_panic_in_a_task_ends_the_region() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.install(|| {
                run(&[5, 5, 5], &|phase, index| {
                    assert!((phase, index) != (1, 2), "on purpose");
                });
            });
        }));
        assert!(result.is_err());
    }
}
