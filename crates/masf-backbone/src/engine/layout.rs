//! Where activations lie: channels-last maps with a zero halo, placed in one arena by when they are needed.

use super::kernels::{Origin, Steps};
use super::memory::LINE;

/// Zero pixels around a map, enough for every convolution that reads it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Halo {
    pub(crate) top: usize,
    pub(crate) left: usize,
    pub(crate) bottom: usize,
    pub(crate) right: usize,
}

impl Halo {
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self {
            top: self.top.max(other.top),
            left: self.left.max(other.left),
            bottom: self.bottom.max(other.bottom),
            right: self.right.max(other.right),
        }
    }
}

/// A map `[top + height + bottom, left + width + right, channels]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Map {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    pub(crate) halo: Halo,
}

impl Map {
    /// Distance between rows.
    pub(crate) fn pitch(&self) -> usize {
        (self.halo.left + self.width + self.halo.right).saturating_mul(self.channels)
    }

    pub(crate) fn len(&self) -> usize {
        (self.halo.top + self.height + self.halo.bottom).saturating_mul(self.pitch())
    }

    /// Pixel `(-up, -left)`, and the steps to the pixels `stride` further.
    ///
    /// The halo is at least that wide.
    pub(crate) fn origin(&self, up: usize, left: usize, stride: usize) -> Origin {
        let start = (self.halo.top - up) * self.pitch() + (self.halo.left - left) * self.channels;
        Origin { start, steps: Steps { row: stride * self.pitch(), pixel: stride * self.channels } }
    }
}

/// Hands out places of an arena; a place that is given back is used again (first fit).
#[derive(Debug, Default)]
pub(crate) struct Arranger {
    /// Taken places, ascending and disjoint: start and length.
    taken: Vec<(usize, usize)>,
    size: usize,
}

impl Arranger {
    pub(crate) fn take(&mut self, len: usize) -> usize {
        let len = len.div_ceil(LINE) * LINE;
        let mut start = 0;
        let mut index = self.taken.len();
        for (i, &(other, other_len)) in self.taken.iter().enumerate() {
            if start + len <= other {
                index = i;
                break;
            }
            start = other + other_len;
        }
        self.taken.insert(index, (start, len));
        self.size = self.size.max(start + len);
        start
    }

    pub(crate) fn give_back(&mut self, start: usize) {
        self.taken.retain(|&(taken, _)| taken != start);
    }

    /// Numbers that the arena needs.
    pub(crate) fn size(&self) -> usize {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_disjoint_and_reused() {
        let mut arranger = Arranger::default();
        let (a, b, c) = (arranger.take(17), arranger.take(16), arranger.take(1));
        assert_eq!((a, b, c), (0, 32, 48));
        arranger.give_back(b);
        assert_eq!(arranger.take(40), 64);
        assert_eq!(arranger.take(3), 32);
        assert_eq!(arranger.size(), 112);
    }
}
