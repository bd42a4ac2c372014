//! Aligned buffers, and the spans through which the tasks of a phase share one.
#![allow(unsafe_code)]

/// 64 bytes: a cache line, and the widest vector.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// Numbers per cache line; arena places are multiples of it.
pub(crate) const LINE: usize = 16;

/// A buffer of numbers that begins at a multiple of 64 bytes, zero at first.
#[derive(Clone, Default)]
pub(crate) struct Aligned {
    lines: Vec<Line>,
    len: usize,
}

impl std::fmt::Debug for Aligned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{} numbers]", self.len)
    }
}

impl Aligned {
    pub(crate) fn zeros(len: usize) -> Self {
        Self { lines: vec![Line([0.0; LINE]); len.div_ceil(LINE)], len }
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        // SAFETY: `Line` is exactly `LINE` numbers (repr(C), size 64), and there are at least `len` of them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// A stretch of numbers that several threads access, each at its own places.
///
/// Making and moving one is safe; the unsafe kernels that use it say who may write where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    start: *mut f32,
    len: usize,
}

// SAFETY: a span is an address and a length; every access through it is an unsafe operation with its own proof.
unsafe impl Send for Span {}
// SAFETY: as above.
unsafe impl Sync for Span {}

impl Span {
    /// The whole slice; it must outlive the accesses.
    pub(crate) fn of(slice: &mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len() }
    }

    pub(crate) fn len(self) -> usize {
        self.len
    }

    /// `len` numbers from `start` on.
    ///
    /// # Panics
    ///
    /// If they are not all in the span, which the planner excludes.
    pub(crate) fn part(self, start: usize, len: usize) -> Self {
        assert!(start <= self.len && len <= self.len - start);
        Self { start: self.start.wrapping_add(start), len }
    }

    /// The address of element `at`.
    pub(crate) fn at(self, at: usize) -> *mut f32 {
        self.start.wrapping_add(at)
    }

    /// The numbers, to read.
    ///
    /// # Safety
    ///
    /// The buffer lives for `'a` and nobody writes this span meanwhile.
    pub(crate) unsafe fn read<'a>(self) -> &'a [f32] {
        // SAFETY: a span covers `len` numbers of one buffer; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    /// The numbers, to write.
    ///
    /// # Safety
    ///
    /// The buffer lives for `'a` and nobody else accesses this span meanwhile.
    pub(crate) unsafe fn write<'a>(self) -> &'a mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}
