//! One parallel region for a whole network: phases of tasks, a barrier between phases, no hand-over per layer.
//!
//! Layers of a small network take tens of microseconds, about what waking a thread takes. So the threads of the pool are called
//! once per run; each takes the tasks of its own share of the current phase, then those of others, and whoever finishes the
//! last task of a phase opens the next one. A thread that comes late, or never, costs speed only: the others take its tasks.
//!
//! A share is a run of neighbouring tasks. Where these are pixels, a thread finds in its own cache most of what it reads, as it
//! wrote that in the phase before; with one counter for all, half would lie in another core's (docs/benchmarks.md).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Turns of the waiting loop before the processor is offered to other threads: some 20 microseconds, longer than the rest
/// of a task usually takes, short enough not to hurt when the machine is shared.
const SPINS: usize = 1000;

/// The phase and the next task of one share of it, in one word, so that one compare-and-swap claims a task of the right phase. A line of
/// its own, as each is mostly one thread's.
#[repr(align(128))]
struct Cursor(AtomicU64);

const TASK_BITS: u32 = 32;

/// Moves the cursors to the end when a task unwinds, so that no other thread waits for it for ever.
struct Abort<'a> {
    cursors: &'a [Cursor],
    end: usize,
}

impl Drop for Abort<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for cursor in self.cursors {
                cursor.0.store((self.end as u64) << TASK_BITS, Ordering::Release);
            }
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
    let cursors: Vec<Cursor> = (0..threads).map(|_| Cursor(AtomicU64::new(0))).collect();
    let done = AtomicUsize::new(0);
    open(tasks, tasks.iter().position(|&count| count > 0).unwrap_or(tasks.len()), &cursors);
    rayon::scope(|scope| {
        for own in 1..threads {
            let (cursors, done) = (&cursors, &done);
            scope.spawn(move |_| work(tasks, task, cursors, done, own));
        }
        work(tasks, task, &cursors, &done, 0);
    });
}

/// The tasks that are a thread's to begin with: neighbours, so that what it reads is mostly what it wrote in the phase before.
fn share(count: usize, own: usize, threads: usize) -> std::ops::Range<usize> {
    own * count / threads..(own + 1) * count / threads
}

/// Opens a phase. Shares with tasks come last: when the last of them is open there is nothing left to write, as another thread may
/// then end the phase and open the next.
fn open(tasks: &[usize], phase: usize, cursors: &[Cursor]) {
    let count = tasks.get(phase).copied().unwrap_or(0);
    for with_tasks in [false, true] {
        for (own, cursor) in cursors.iter().enumerate() {
            let share = share(count, own, cursors.len());
            if share.is_empty() != with_tasks {
                cursor.0.store((phase as u64) << TASK_BITS | share.start as u64, Ordering::Release);
            }
        }
    }
}

/// The same on the calling thread.
pub(crate) fn run_alone(tasks: &[usize], task: &(dyn Fn(usize, usize) + Sync)) {
    for (phase, &count) in tasks.iter().enumerate() {
        (0..count).for_each(|index| task(phase, index));
    }
}

fn work(tasks: &[usize], task: &(dyn Fn(usize, usize) + Sync), cursors: &[Cursor], done: &AtomicUsize, own: usize) {
    let threads = cursors.len();
    let _abort = Abort { cursors, end: tasks.len() };
    let mut waited = 0;
    loop {
        // The own share first, then those of others.
        let claimed = (0..threads).map(|i| (own + i) % threads).find_map(|owner| {
            let cursor = &cursors[owner].0;
            // Acquire: what the phases before this one wrote is visible.
            let mut seen = cursor.load(Ordering::Acquire);
            loop {
                let (phase, index) = ((seen >> TASK_BITS) as usize, (seen & ((1 << TASK_BITS) - 1)) as usize);
                let Some(&count) = tasks.get(phase) else { return Some(None) };
                if index >= share(count, owner, threads).end {
                    return None;
                }
                match cursor.compare_exchange_weak(seen, seen + 1, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => return Some(Some((phase, index, count))),
                    Err(now) => seen = now,
                }
            }
        });
        match claimed {
            Some(None) => return,
            Some(Some((phase, index, count))) => {
                waited = 0;
                task(phase, index);
                // The last one has acquired what all others released, and passes it on with the cursors.
                if done.fetch_add(1, Ordering::AcqRel) + 1 == count {
                    done.store(0, Ordering::Relaxed);
                    open(tasks, next_phase(tasks, phase), cursors);
                }
            }
            None if waited < SPINS => {
                waited += 1;
                std::hint::spin_loop();
            }
            None => std::thread::yield_now(),
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
