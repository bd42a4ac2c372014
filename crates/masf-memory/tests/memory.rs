//! What learning allocates at its peak, against the budget. One test alone: the count is of the whole process.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{batch, image};
use masf_core::{FeaturePyramid, Fit, PyramidSource, Result, Silent};
use masf_memory::{CellKeys, MemoryBankParams, Reduction, Search};

/// Counts the bytes that are allocated.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Images that are made when they are read, so that they take no memory of their own.
struct Made(usize);

/// 160 channels at stride 8 and 240 at stride 16: 400 dimensions.
const CHANNELS: (usize, usize) = (160, 240);
const SIDE: usize = 15;

impl PyramidSource for Made {
    fn len(&self) -> usize {
        self.0
    }

    fn batch(&self, indices: &[usize]) -> Result<FeaturePyramid> {
        batch(&indices.iter().map(|index| image(CHANNELS, SIDE, *index as u64)).collect::<Result<Vec<_>>>()?)
    }
}

#[test]
fn the_peak_stays_within_the_budget() -> Result<()> {
    // 255 positions an image; every image is given twice while it is made, and the batch of four once more.
    let image_bytes = 4 * (CHANNELS.0 * SIDE * (SIDE + 2) + CHANNELS.1 * 8 * 9);
    let batches = 4 * image_bytes * 4;
    let source = Made(90);
    // The buffers that the matrix product keeps for every thread are no part of a bank: this thread has its own now, and every thread of the pool, busy or not.
    let fit = MemoryBankParams { prototypes: 1200, ..MemoryBankParams::default() }.check()?;
    drop(fit.fit(&source, &Silent)?);
    rayon::broadcast(|_| fit.fit(&source, &Silent).map(drop)).into_iter().collect::<Result<()>>()?;
    for (memory_budget, projection) in [(20 << 20, 64), (40 << 20, 64), (24 << 20, 0)] {
        let params = MemoryBankParams { prototypes: 1200, memory_budget, projection, ..MemoryBankParams::default() };
        let fit = params.check()?;
        let before = HELD.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let bank = fit.fit(&source, &Silent)?;
        let peak = PEAK.load(Ordering::Relaxed) - before;
        let held = HELD.load(Ordering::Relaxed) - before;
        assert_eq!(bank.search().count(), 1200);
        assert!(peak <= memory_budget + batches, "{peak} bytes with a budget of {memory_budget}");
        assert!(peak * 5 > memory_budget * 4, "{peak} bytes of {memory_budget}: the budget is not used");
        // The bank itself: twice its prototypes (packed ones are padded to whole panels), and small things.
        let expected = 8 * 1200 * 400;
        assert!(held < expected + (256 << 10), "the bank holds {held} bytes instead of {expected}");
        let before = HELD.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        assert_eq!(bank.extend(&fit, &source, &Silent)?.search().count(), 1200);
        let peak = PEAK.load(Ordering::Relaxed) - before;
        assert!(peak <= memory_budget + batches, "extending: {peak} bytes with a budget of {memory_budget}");
        drop(bank);
        let before = HELD.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let fold_of: Vec<usize> = (0..source.len()).map(|image| image % 5).collect();
        let folded = fit.cross_fit(&source, &fold_of, &Silent)?.expect("room for further prototypes");
        assert_eq!(folded.without(3, &Silent)?.search().count(), 1200);
        drop(folded.whole(&Silent)?);
        let peak = PEAK.load(Ordering::Relaxed) - before;
        assert!(peak <= memory_budget + batches, "cross-fitting: {peak} bytes with a budget of {memory_budget}");
    }
    let pca = Reduction::Pca { components: 48, whiten: true };
    for reduction in [pca, Reduction::Projection { dimensions: 96 }] {
        let memory_budget = 36 << 20;
        let params = MemoryBankParams { prototypes: 1200, memory_budget, reduction, ..MemoryBankParams::default() };
        let fit = params.check()?;
        let before = HELD.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let bank = fit.fit(&source, &Silent)?;
        let peak = PEAK.load(Ordering::Relaxed) - before;
        assert_eq!(bank.search().count(), 1200);
        assert!(peak <= memory_budget + batches, "{reduction:?}: {peak} bytes with a budget of {memory_budget}");
        assert!(peak * 3 > memory_budget * 2, "{reduction:?}: {peak} bytes of {memory_budget}");
    }
    // With as many cells as prototypes nearly all places of the panels are empty.
    let search = Search::Cells { cells: 300, visited: 4, keys: CellKeys::Descriptors };
    let params = MemoryBankParams { prototypes: 300, search, ..MemoryBankParams::default() };
    let with = |memory_budget| MemoryBankParams { memory_budget, ..params.clone() }.check();
    let text = with(1 << 20)?.fit(&source, &Silent).unwrap_err().to_string();
    let least: usize = text.split("at least ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    assert_eq!(with(least)?.fit(&source, &Silent)?.search().count(), 300);
    let peak = PEAK.load(Ordering::Relaxed) - before;
    assert!(peak <= least + batches, "cells: {peak} bytes with a budget of {least}");
    Ok(())
}
