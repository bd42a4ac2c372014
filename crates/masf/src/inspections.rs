//! Inspecting many images, a few at a time.

use std::collections::VecDeque;

use masf_core::Result;
use masf_data::ImageInput;

use crate::{Detector, Inspection};

/// Images that are decoded together: enough that decoding goes on while others are inspected.
const AHEAD: usize = 32;

/// The inspections of images, in their order; made by [`Detector::inspect_iter`].
#[must_use = "images are inspected as the results are asked for"]
pub struct Inspections<'a, I> {
    detector: &'a Detector,
    images: I,
    ready: VecDeque<Result<Inspection>>,
}

impl<'a, I> Inspections<'a, I> {
    pub(crate) fn new(detector: &'a Detector, images: I) -> Self {
        Self { detector, images, ready: VecDeque::new() }
    }
}

impl<I: Iterator<Item: Into<ImageInput>>> Iterator for Inspections<'_, I> {
    type Item = Result<Inspection>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() {
            let some: Vec<ImageInput> = self.images.by_ref().take(AHEAD).map(Into::into).collect();
            if !some.is_empty() {
                self.ready.extend(self.detector.inspect_some(some));
            }
        }
        self.ready.pop_front()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (low, high) = self.images.size_hint();
        let ready = self.ready.len();
        (low.saturating_add(ready), high.and_then(|high| high.checked_add(ready)))
    }
}
