//! The grid of tokens, and how the levels of a pyramid lie on it.
//!
//! The grid has the size of the coarsest level. A finer level of `f` times the size has `f x f` positions in a token's cell; where sizes
//! are no multiples, cells at the lower and right border have positions that do not exist. These count nowhere.

use masf_core::{FeaturePyramid, LevelSpec};

use crate::{DistillError, Result};

/// One level on the grid.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LevelGrid {
    pub(crate) spec: LevelSpec,
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Positions of a cell, down and across.
    pub(crate) cell: (usize, usize),
}

impl LevelGrid {
    /// Positions of a cell.
    pub(crate) fn per_cell(&self) -> usize {
        self.cell.0 * self.cell.1
    }

    /// Values of a token: all channels at all positions of its cell.
    pub(crate) fn values(&self) -> usize {
        self.per_cell() * self.spec.channels
    }
}

/// The grid of tokens and the levels on it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grid {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) levels: Vec<LevelGrid>,
}

impl Grid {
    /// The grid for pyramids like this one.
    pub(crate) fn of(pyramid: &FeaturePyramid) -> Self {
        let sizes: Vec<_> =
            pyramid.levels().iter().map(|level| (level.spec, level.map.dims()[2], level.map.dims()[3])).collect();
        let height = sizes.iter().map(|size| size.1).min().unwrap_or(1);
        let width = sizes.iter().map(|size| size.2).min().unwrap_or(1);
        let level = |(spec, h, w): (LevelSpec, usize, usize)| LevelGrid {
            spec,
            height: h,
            width: w,
            cell: (h.div_ceil(height), w.div_ceil(width)),
        };
        Self { height, width, levels: sizes.into_iter().map(level).collect() }
    }

    /// Whether the sizes are within the limits and the parts, which may come from a file, fit together.
    pub(crate) fn check(&self) -> Result<(), String> {
        const MOST: usize = 1 << 14;
        const LEVELS: usize = 16;
        let sides =
            self.levels.iter().flat_map(|l| [l.height, l.width, l.spec.channels]).chain([self.height, self.width]);
        if !(1..=LEVELS).contains(&self.levels.len()) || sides.into_iter().any(|side| side == 0 || side > MOST) {
            return Err(format!("not 1 to {LEVELS} levels with sides and channels of 1 to {MOST}"));
        }
        let fits = |l: &LevelGrid| l.cell == (l.height.div_ceil(self.height), l.width.div_ceil(self.width));
        match self.levels.iter().all(fits) {
            true => Ok(()),
            false => Err("levels that do not fit the grid".into()),
        }
    }

    /// What levels are called, in their order: the stride, and `.2`, `.3` behind it for further levels of the same stride.
    pub(crate) fn names(&self) -> Vec<String> {
        let stride = |level: &LevelGrid| level.spec.stride;
        let name = |(index, level)| match self.levels[..index].iter().filter(|l| stride(l) == stride(level)).count() {
            0 => stride(level).to_string(),
            earlier => format!("{}.{}", stride(level), earlier + 1),
        };
        self.levels.iter().enumerate().map(name).collect()
    }

    /// Tokens of an image.
    pub(crate) fn tokens(&self) -> usize {
        self.height * self.width
    }

    /// Columns of a half spectrum.
    pub(crate) fn columns(&self) -> usize {
        self.width / 2 + 1
    }

    /// Values of a token over all levels.
    pub(crate) fn values(&self) -> usize {
        self.levels.iter().map(LevelGrid::values).sum()
    }

    /// Whether position `p` of the cell of `token` exists, and where: its index in the level's map.
    pub(crate) fn position(&self, level: &LevelGrid, token: usize, p: usize) -> Option<usize> {
        let y = token / self.width * level.cell.0 + p / level.cell.1;
        let x = token % self.width * level.cell.1 + p % level.cell.1;
        (y < level.height && x < level.width).then_some(y * level.width + x)
    }

    /// [`position`](Self::position) for every token and position of its cell.
    pub(crate) fn positions(&self, level: &LevelGrid) -> Vec<Option<usize>> {
        let per_cell = level.per_cell();
        (0..self.tokens() * per_cell).map(|index| self.position(level, index / per_cell, index % per_cell)).collect()
    }

    /// Errors unless a pyramid has this grid.
    pub(crate) fn expect(&self, pyramid: &FeaturePyramid) -> Result<()> {
        let found = Self::of(pyramid);
        if found == *self {
            return Ok(());
        }
        Err(DistillError::Levels { expected: self.describe(), found: found.describe() })
    }

    fn describe(&self) -> String {
        let level =
            |l: &LevelGrid| format!("stride {} {} x {} x {}", l.spec.stride, l.spec.channels, l.height, l.width);
        self.levels.iter().map(level).collect::<Vec<_>>().join(", ")
    }
}
