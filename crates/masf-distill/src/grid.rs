//! The grid of tokens, and how the levels of a pyramid lie on it.
//!
//! A token covers `patch x patch` positions of the coarsest level. A finer level of `f` times the size has `f x f` times as many positions in
//! a token's cell; where sizes are no multiples, cells at the lower and right border have positions that do not exist. These count nowhere.

use masf_core::{FeaturePyramid, LevelSpec};

use crate::{DistillError, Result, StudentParams};

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
    /// Positions of the coarsest level that a token covers, down and across. Files of before there was a choice have none.
    #[serde(default = "one")]
    patch: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) levels: Vec<LevelGrid>,
}

fn one() -> usize {
    1
}

/// A level and its size.
type Size = (LevelSpec, usize, usize);

impl Grid {
    /// The grid for pyramids like this one, of tokens that cover so many positions of the coarsest level, down and across.
    pub(crate) fn of(pyramid: &FeaturePyramid, patch: usize) -> Self {
        Self::new(&sizes(pyramid), patch)
    }

    fn new(sizes: &[Size], patch: usize) -> Self {
        let height = sizes.iter().map(|size| size.1).min().unwrap_or(1);
        let width = sizes.iter().map(|size| size.2).min().unwrap_or(1);
        let level = |&(spec, h, w): &Size| LevelGrid {
            spec,
            height: h,
            width: w,
            cell: (patch * h.div_ceil(height), patch * w.div_ceil(width)),
        };
        let levels = sizes.iter().map(level).collect();
        Self { patch, height: height.div_ceil(patch), width: width.div_ceil(patch), levels }
    }

    fn sizes(&self) -> Vec<Size> {
        self.levels.iter().map(|level| (level.spec, level.height, level.width)).collect()
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
        let patches = 1..=StudentParams::MOST_PATCH;
        match patches.contains(&self.patch) && *self == Self::new(&self.sizes(), self.patch) {
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
        let (expected, found) = (self.sizes(), sizes(pyramid));
        if found == expected {
            return Ok(());
        }
        Err(DistillError::Levels { expected: describe(&expected), found: describe(&found) })
    }
}

fn sizes(pyramid: &FeaturePyramid) -> Vec<Size> {
    pyramid.levels().iter().map(|level| (level.spec, level.map.dims()[2], level.map.dims()[3])).collect()
}

fn describe(sizes: &[Size]) -> String {
    let level = |(spec, h, w): &Size| format!("stride {} {} x {h} x {w}", spec.stride, spec.channels);
    sizes.iter().map(level).collect::<Vec<_>>().join(", ")
}
