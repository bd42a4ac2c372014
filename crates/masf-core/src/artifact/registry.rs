//! Which type reads which tag.

use std::collections::BTreeMap;

use super::{ArtifactReader, ModelFileError};
use crate::{FeatureExtractor, Fusion, Result, Scorer};

type Read<T> = fn(&ArtifactReader<'_>) -> Result<Box<T>>;

/// Maps type tags to readers, so that a model made of a user's own parts loads like any other.
#[derive(Clone, Default)]
pub struct Registry {
    backbones: BTreeMap<&'static str, Read<dyn FeatureExtractor>>,
    scorers: BTreeMap<&'static str, Read<dyn Scorer>>,
    fusions: BTreeMap<&'static str, Read<dyn Fusion>>,
}

impl Registry {
    /// A registry that knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind of backbone.
    #[must_use]
    pub fn with_backbone<T: FeatureExtractor + 'static>(mut self, tag: &'static str) -> Self {
        self.backbones.insert(tag, |reader| Ok(Box::new(T::read(reader)?)));
        self
    }

    /// Adds a kind of scorer.
    #[must_use]
    pub fn with_scorer<T: Scorer + 'static>(mut self, tag: &'static str) -> Self {
        self.scorers.insert(tag, |reader| Ok(Box::new(T::read(reader)?)));
        self
    }

    /// Adds a kind of fusion.
    #[must_use]
    pub fn with_fusion<T: Fusion + 'static>(mut self, tag: &'static str) -> Self {
        self.fusions.insert(tag, |reader| Ok(Box::new(T::read(reader)?)));
        self
    }

    /// Reads the backbone at `reader`.
    ///
    /// # Errors
    /// [`ModelFileError::UnknownTag`], or those of the backbone's reader.
    pub fn backbone(&self, reader: &ArtifactReader<'_>) -> Result<Box<dyn FeatureExtractor>> {
        find(&self.backbones, reader)?(reader)
    }

    /// Reads the scorer at `reader`.
    ///
    /// # Errors
    /// [`ModelFileError::UnknownTag`], or those of the scorer's reader.
    pub fn scorer(&self, reader: &ArtifactReader<'_>) -> Result<Box<dyn Scorer>> {
        find(&self.scorers, reader)?(reader)
    }

    /// Reads the fusion at `reader`.
    ///
    /// # Errors
    /// [`ModelFileError::UnknownTag`], or those of the fusion's reader.
    pub fn fusion(&self, reader: &ArtifactReader<'_>) -> Result<Box<dyn Fusion>> {
        find(&self.fusions, reader)?(reader)
    }
}

fn find<T: ?Sized>(known: &BTreeMap<&'static str, Read<T>>, reader: &ArtifactReader<'_>) -> Result<Read<T>> {
    known.get(reader.tag()).copied().ok_or_else(|| {
        let known = known.keys().copied().collect::<Vec<_>>().join(", ");
        ModelFileError::UnknownTag { tag: reader.tag().to_owned(), known }.into()
    })
}
