//! The choice among the ways to search, and the search of a bank.

use masf_core::Progress;

use super::{CellParams, CellSearch, ExactSearch, PrototypeSearch, ShortlistSearch};
use crate::{LinearMap, MemoryError, Result};

/// How a bank finds the nearest prototype.
///
/// In TOML: `search = "exact"`, `search = { shortlist = { directions = 128 } }`, `search = { cells = { visited = 16, keys = "both" } }` or
/// `search = { hnsw = { connections = 32 } }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Search {
    /// Compared with all prototypes ([`ExactSearch`]).
    Exact,
    /// Compared with the few prototypes that are nearest by the leading principal directions ([`ShortlistSearch`]); the default.
    Shortlist {
        /// Principal directions, 1 to 4096; descriptors at most twice as long are searched exactly. Default 128.
        #[serde(default = "directions")]
        directions: usize,
        /// Prototypes that a query is compared with directly, 1 to 4096; where neighbours look together, at most. Default 8.
        #[serde(default = "candidates")]
        candidates: usize,
    },
    /// Compared with the prototypes of the nearest cells ([`CellSearch`]).
    Cells {
        /// The number of cells; 0 (the default) is the square root of the number of prototypes.
        #[serde(default)]
        cells: usize,
        /// Cells that a query visits, at least 1. Default 16.
        #[serde(default = "visited")]
        visited: usize,
        /// What the cells are keyed by. Default descriptors.
        #[serde(default)]
        keys: CellKeys,
    },
    /// A navigable graph (`HnswSearch`); needs the feature `hnsw`.
    Hnsw {
        /// Edges of a prototype and layer, 2 to 128. Default 32.
        #[serde(default = "connections")]
        connections: usize,
        /// Candidates that are kept while a prototype is inserted, 1 to 4096. Default 200.
        #[serde(default = "construction")]
        construction: usize,
        /// Candidates that are kept while searching, 1 to 65,536. Default 64.
        #[serde(default = "search")]
        search: usize,
    },
}

impl Default for Search {
    fn default() -> Self {
        Self::Shortlist { directions: directions(), candidates: candidates() }
    }
}

fn directions() -> usize {
    128
}

fn candidates() -> usize {
    8
}

fn visited() -> usize {
    16
}

fn connections() -> usize {
    32
}

fn construction() -> usize {
    200
}

fn search() -> usize {
    64
}

/// What the cells of a [`Search::Cells`] are keyed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CellKeys {
    /// The descriptors (reduced, where they are).
    #[default]
    Descriptors,
    /// The spectral anchors: turned patches are looked for in the same cells.
    Anchors,
    /// Descriptors and anchors side by side.
    Both,
}

impl Search {
    /// Whether the cells are keyed by anchors.
    pub(crate) fn uses_anchors(self) -> bool {
        matches!(self, Self::Cells { keys: CellKeys::Anchors | CellKeys::Both, .. })
    }

    pub(crate) fn check(self) -> Result<()> {
        match self {
            Self::Exact => Ok(()),
            Self::Shortlist { directions, candidates } => {
                for (name, value) in [("directions", directions), ("candidates", candidates)] {
                    if !(1..=4096).contains(&value) {
                        return Err(MemoryError::parameter(name, value, "1 to 4096"));
                    }
                }
                Ok(())
            }
            Self::Cells { cells, visited, .. } => {
                let most = crate::params::MOST_ROWS;
                if cells > most {
                    return Err(MemoryError::parameter("cells", cells, format!("0 (by the prototypes) to {most}")));
                }
                if !(1..=most).contains(&visited) {
                    return Err(MemoryError::parameter("visited", visited, format!("1 to {most}")));
                }
                Ok(())
            }
            #[cfg(feature = "hnsw")]
            Self::Hnsw { connections, construction, search } => {
                super::HnswParams { connections, construction, search }.check()
            }
            #[cfg(not(feature = "hnsw"))]
            Self::Hnsw { .. } => Err(MemoryError::parameter(
                "search",
                "hnsw",
                "exact, shortlist or cells, or a build with the feature `hnsw`",
            )),
        }
    }
}

/// How the entries of a row divide: descriptor, then anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) descriptor: usize,
    pub(crate) anchor: usize,
    /// Whether distances are taken of the anchors, too.
    pub(crate) anchors_count: bool,
}

impl Columns {
    /// All entries.
    pub(crate) fn all(self) -> usize {
        self.descriptor + self.anchor
    }

    /// The entries that cells are keyed by.
    pub(crate) fn key(self, keys: CellKeys) -> std::ops::Range<usize> {
        match keys {
            CellKeys::Descriptors => 0..self.descriptor,
            CellKeys::Anchors => self.descriptor..self.all(),
            CellKeys::Both => 0..self.all(),
        }
    }

    /// The entries that distances are taken of, from the first on.
    pub(crate) fn measured(self) -> usize {
        if self.anchors_count { self.all() } else { self.descriptor }
    }
}

/// The search of a bank.
#[derive(Debug)]
pub(crate) enum Backend {
    Exact(ExactSearch),
    Shortlist(ShortlistSearch),
    Cells(Box<CellSearch>),
    #[cfg(feature = "hnsw")]
    Hnsw(super::HnswSearch),
}

impl Backend {
    /// The search among rows; the centres of cells may be known already.
    pub(crate) fn build(
        rows: Vec<f32>,
        columns: Columns,
        search: Search,
        seed: u64,
        centres: Option<Vec<f32>>,
        progress: &dyn Progress,
    ) -> Result<Self> {
        search.check()?;
        MemoryError::if_cancelled(progress)?;
        let dimensions = columns.all();
        match search {
            Search::Exact => Ok(Self::Exact(ExactSearch::new(rows, dimensions)?)),
            Search::Shortlist { directions, candidates } => {
                Ok(Self::Shortlist(ShortlistSearch::new(rows, dimensions, directions, candidates)?))
            }
            Search::Cells { cells, visited, keys } => {
                let (distance, key) = (0..columns.measured(), columns.key(keys));
                let params = CellParams { cells, visited, distance, key, seed };
                Ok(Self::Cells(Box::new(CellSearch::with_centres(rows, dimensions, params, centres)?)))
            }
            #[cfg(feature = "hnsw")]
            Search::Hnsw { connections, construction, search } => {
                let params = super::HnswParams { connections, construction, search };
                Ok(Self::Hnsw(super::HnswSearch::build(rows, dimensions, params, progress)?))
            }
            #[cfg(not(feature = "hnsw"))]
            Search::Hnsw { .. } => Err(MemoryError::parameter("search", "hnsw", "exact, shortlist or cells")),
        }
    }

    /// The directions that keys are made with, and the prototypes' mean along them, where there are keys.
    pub(crate) fn keys(&self) -> Option<(&LinearMap, &[f32])> {
        match self {
            Self::Shortlist(search) => search.keys(),
            _ => None,
        }
    }

    pub(crate) fn get(&self) -> &dyn PrototypeSearch {
        match self {
            Self::Exact(search) => search,
            Self::Shortlist(search) => search,
            Self::Cells(search) => search.as_ref(),
            #[cfg(feature = "hnsw")]
            Self::Hnsw(search) => search,
        }
    }
}
