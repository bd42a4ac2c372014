//! Connected components of a mask, 8-connected: pixels that touch at a side or a corner are of one component.
//!
//! Two passes with a union-find forest of provisional labels (Rosenfeld and Pfaltz, J. ACM 13, 1966), looking at each
//! pixel's earlier neighbours only as far as needed (Wu, Otoo and Suzuki, Pattern Analysis and Applications 12, 2009).

use ndarray::{Array2, ArrayView2};

use crate::error::{Error, Result};

/// The connected components of a mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Components {
    /// `[H, W]`: 0 for the background, `i + 1` for the pixels of `components[i]`.
    pub labels: Array2<u32>,
    /// The components, in the order of their first pixels from left to right and top to bottom.
    pub components: Vec<Component>,
}

/// One connected component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Component {
    /// The smallest box that contains it.
    pub bounding_box: BoundingBox,
    /// The number of its pixels, at least 1.
    pub area: usize,
}

/// A box in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BoundingBox {
    /// The topmost row.
    pub top: usize,
    /// The leftmost column.
    pub left: usize,
    /// The number of rows, at least 1.
    pub height: usize,
    /// The number of columns, at least 1.
    pub width: usize,
}

/// Labels the 8-connected components of `mask`, `[H, W]`, in time and memory linear in its pixels.
///
/// An empty mask has no components.
///
/// # Errors
///
/// [`Error::TooMany`] for a mask of more than `u32::MAX` pixels.
///
/// ```
/// # use masf_metrics::label_components;
/// # use ndarray::array;
/// let found = label_components(array![[true, false, false], [false, true, false], [false, false, false]].view())?;
/// assert_eq!(found.components.len(), 1); // the two pixels touch at a corner
/// assert_eq!(found.components[0].area, 2);
/// # Ok::<(), masf_metrics::Error>(())
/// ```
pub fn label_components(mask: ArrayView2<'_, bool>) -> Result<Components> {
    if u32::try_from(mask.len()).is_err() {
        return Err(Error::TooMany { count: mask.len(), items: "pixels of a mask" });
    }
    let mut labels = Array2::<u32>::zeros(mask.raw_dim());
    let mut forest = provisional_labels(mask, &mut labels);
    let count = forest.number();

    let mut extents = vec![Extent::EMPTY; count];
    for ((row, column), label) in labels.indexed_iter_mut() {
        *label = forest.0[*label as usize];
        if let Some(extent) = (*label as usize).checked_sub(1).and_then(|index| extents.get_mut(index)) {
            extent.grow(row, column);
        }
    }
    Ok(Components { labels, components: extents.iter().map(Extent::component).collect() })
}

/// The first pass: labels every pixel from its west, north-west, north and north-east neighbours and returns which
/// labels belong together.
fn provisional_labels(mask: ArrayView2<'_, bool>, labels: &mut Array2<u32>) -> Forest {
    let mut forest = Forest(vec![0]);
    let width = mask.ncols();
    let mut above = vec![0; width];
    let mut current = vec![0; width];
    for (mask_row, mut label_row) in mask.rows().into_iter().zip(labels.rows_mut()) {
        for (column, &set) in mask_row.iter().enumerate() {
            current[column] = if !set {
                0
            } else {
                let west = if column > 0 { current[column - 1] } else { 0 };
                let north_west = if column > 0 { above[column - 1] } else { 0 };
                let north = above[column];
                let north_east = above.get(column + 1).copied().unwrap_or(0);
                // West, north-west and north touch one another, and so do north and north-east: only north-east and
                // one of the western two can meet here for the first time.
                let western = if north_west != 0 { north_west } else { west };
                match (north, north_east, western) {
                    (0, 0, 0) => forest.add(),
                    (0, 0, label) | (0, label, 0) => label,
                    (0, label, other) => forest.unite(label, other),
                    (label, _, _) => label,
                }
            };
        }
        label_row.iter_mut().zip(&current).for_each(|(label, &found)| *label = found);
        std::mem::swap(&mut above, &mut current);
    }
    forest
}

/// Union-find over provisional labels: each entry is the label of its parent, and a root is its own parent. A parent is
/// never greater than its child, so the root of a component is its first label. Label 0 is the background.
struct Forest(Vec<u32>);

impl Forest {
    fn add(&mut self) -> u32 {
        // The caller has made sure that there are no more than `u32::MAX` pixels, and so labels.
        let label = self.0.len() as u32;
        self.0.push(label);
        label
    }

    fn root(&mut self, mut label: u32) -> u32 {
        while self.0[label as usize] != label {
            let grandparent = self.0[self.0[label as usize] as usize];
            self.0[label as usize] = grandparent; // path halving
            label = grandparent;
        }
        label
    }

    fn unite(&mut self, a: u32, b: u32) -> u32 {
        let (a, b) = (self.root(a), self.root(b));
        let (root, child) = (a.min(b), a.max(b));
        self.0[child as usize] = root;
        root
    }

    /// Replaces every entry by the number of its component, from 1, and returns how many there are.
    fn number(&mut self) -> usize {
        let mut count = 0;
        for label in 1..self.0.len() {
            let parent = self.0[label] as usize;
            self.0[label] = if parent == label {
                count += 1;
                count
            } else {
                self.0[parent] // a parent comes before its child and has its number already
            };
        }
        count as usize
    }
}

/// The growing extent of a component, rows and columns inclusive.
#[derive(Clone)]
struct Extent {
    top: usize,
    bottom: usize,
    left: usize,
    right: usize,
    area: usize,
}

impl Extent {
    const EMPTY: Self = Self { top: usize::MAX, bottom: 0, left: usize::MAX, right: 0, area: 0 };

    fn grow(&mut self, row: usize, column: usize) {
        self.top = self.top.min(row);
        self.bottom = self.bottom.max(row);
        self.left = self.left.min(column);
        self.right = self.right.max(column);
        self.area += 1;
    }

    fn component(&self) -> Component {
        let bounding_box = BoundingBox {
            top: self.top,
            left: self.left,
            height: self.bottom - self.top + 1,
            width: self.right - self.left + 1,
        };
        Component { bounding_box, area: self.area }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mask from lines of `#` and `.`.
    fn mask(lines: &[&str]) -> Array2<bool> {
        let width = lines.first().map_or(0, |line| line.len());
        let pixels = lines.iter().flat_map(|line| line.chars().map(|c| c == '#')).collect();
        Array2::from_shape_vec((lines.len(), width), pixels).unwrap()
    }

    fn labels(lines: &[&str]) -> Vec<Vec<u32>> {
        let found = label_components(mask(lines).view()).unwrap();
        found.labels.rows().into_iter().map(|row| row.to_vec()).collect()
    }

    #[test]
    fn corners_connect() {
        assert_eq!(labels(&["#..#", ".##.", "#..#"]), [[1, 0, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1]]);
    }

    #[test]
    fn numbers_follow_the_first_pixels() {
        assert_eq!(labels(&["..#.#", "#....", "#.#.#"]), [[0, 0, 1, 0, 2], [3, 0, 0, 0, 0], [3, 0, 4, 0, 5]]);
    }

    #[test]
    fn arms_that_meet_late_are_one() {
        assert_eq!(labels(&["#.#.#", "#.#.#", ".#.#."]), [[1, 0, 1, 0, 1], [1, 0, 1, 0, 1], [0, 1, 0, 1, 0]]);
    }

    #[test]
    fn boxes_and_areas() {
        let found = label_components(mask(&[".....", ".##..", "..##.", "#...."]).view()).unwrap();
        let expected = [(1, 1, 2, 3, 4), (3, 0, 1, 1, 1)].map(|(top, left, height, width, area)| Component {
            bounding_box: BoundingBox { top, left, height, width },
            area,
        });
        assert_eq!(found.components, expected);
    }

    #[test]
    fn nothing_set_and_nothing_there() {
        assert!(label_components(Array2::from_elem((4, 5), false).view()).unwrap().components.is_empty());
        for shape in [(0, 0), (0, 3), (3, 0)] {
            let found = label_components(Array2::from_elem(shape, true).view()).unwrap();
            assert!(found.components.is_empty());
            assert_eq!(found.labels.dim(), shape);
        }
    }

    #[test]
    fn more_pixels_than_labels_are_refused_before_allocation() {
        // One element, seen as 2^33.
        let one = Array2::from_elem((1, 1), true);
        let huge = one.broadcast((1 << 17, 1 << 16)).unwrap();
        assert_eq!(label_components(huge), Err(Error::TooMany { count: 1 << 33, items: "pixels of a mask" }));
    }

    #[test]
    fn any_memory_layout() {
        let upright = mask(&["##.", "...", ".##"]);
        let turned = upright.t();
        let found = label_components(turned).unwrap();
        assert_eq!(found, label_components(turned.as_standard_layout().view()).unwrap());
        assert_eq!(found.components.len(), 2);
    }
}
