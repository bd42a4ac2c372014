//! Memory of this process: what it has, where the system tells it (on Linux), and giving back what is free.

unsafe extern "C" {
    /// Of the allocator that the examples are linked with (`mimalloc.h`).
    safe fn mi_collect(force: bool);
}

/// Gives freed memory back to the system at once.
pub fn give_back() {
    mi_collect(true);
}

/// Resident memory in bytes.
pub fn resident() -> Option<u64> {
    of_status("VmRSS:")
}

/// Peak resident memory in bytes, since [`forget_peak`] if that was called.
pub fn peak() -> Option<u64> {
    of_status("VmHWM:")
}

/// Starts the measurement of the peak anew.
pub fn forget_peak() {
    // Elsewhere there is no such file, and no measurement.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn of_status(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
