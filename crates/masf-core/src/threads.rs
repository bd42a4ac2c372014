//! The threads of a pool.

/// Runs `work` on a thread of the current rayon pool; at once where the caller is one.
///
/// Parallel loops that another thread calls wake the pool and are waited for asleep, each of them: some 50 microseconds, which for many short loops
/// is more than they take.
pub fn in_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    match rayon::current_thread_index() {
        Some(_) => work(),
        None => rayon::scope(|_| work()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_runs_on_a_thread_of_the_callers_pool() {
        assert!(rayon::current_thread_index().is_none());
        assert!(in_pool(rayon::current_thread_index).is_some());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(pool.install(|| in_pool(rayon::current_num_threads)), 3);
    }
}
