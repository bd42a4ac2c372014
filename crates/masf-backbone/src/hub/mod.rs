//! Weights by name from the Hugging Face hub, kept in a cache folder.
//!
//! A file is verified by its SHA-256: the registry's where it knows one, otherwise that of the first download, which is
//! recorded beside the file and enforced from then on. Cut downloads continue where they stopped.

mod download;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use masf_core::Progress;
use masf_models::{HubFile, Model};

use crate::{BackboneError, Result, Weights};
use download::Download;

/// Where weights are downloaded from and kept.
///
/// The default takes the endpoint from `HF_ENDPOINT` (or `https://huggingface.co`) and the folder from `MASF_CACHE` (or
/// `masf` in `XDG_CACHE_HOME`, in `~/.cache`, or in `LOCALAPPDATA`).
#[derive(Debug, Clone)]
pub struct Hub {
    endpoint: String,
    cache: Option<PathBuf>,
    max_bytes: u64,
}

impl Default for Hub {
    fn default() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let endpoint = std::env::var("HF_ENDPOINT").ok().filter(|endpoint| !endpoint.is_empty());
        let cache = variable("MASF_CACHE")
            .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("masf")))
            .or_else(|| Some(variable("HOME")?.join(".cache").join("masf")))
            .or_else(|| Some(variable("LOCALAPPDATA")?.join("masf")));
        let endpoint = endpoint.unwrap_or_else(|| "https://huggingface.co".into());
        Self { endpoint, cache, max_bytes: Weights::MAX_BYTES }
    }
}

/// How a file in the cache was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trust {
    /// Its SHA-256 is the registry's.
    Registry,
    /// Its SHA-256 is the one that was recorded at the first download.
    Recorded,
    /// It was downloaded for the first time, and its SHA-256 was recorded now.
    FirstUse,
}

/// A file of weights in the cache.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Fetched {
    /// Where it is.
    pub path: PathBuf,
    /// The weights, read and hashed.
    pub weights: Weights,
    /// How it was verified.
    pub trust: Trust,
    /// Whether it was not there before.
    pub downloaded: bool,
}

impl Hub {
    /// Another server with the hub's paths, such as a mirror.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = endpoint.into();
        self
    }

    /// Another cache folder.
    #[must_use]
    pub fn with_cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache = Some(folder.into());
        self
    }

    /// Refuses files larger than this; [`Weights::MAX_BYTES`] by default.
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes.min(Weights::MAX_BYTES);
        self
    }

    /// The weights of a model, from the cache or downloaded into it. Several processes may ask for the same file, and a cache that holds
    /// it and its hash may be read-only.
    ///
    /// # Errors
    /// [`BackboneError::Argument`] for a model that is not on the hub, [`BackboneError::Download`] for what the server
    /// refuses, [`BackboneError::Hash`] for a file that is not the expected one, [`BackboneError::Cancelled`].
    pub fn fetch(&self, model: &Model, progress: &dyn Progress) -> Result<Fetched> {
        let source = model.weights.and_then(|weights| Some((weights.hub?, weights.sha256)));
        let Some((file, known)) = source else {
            let expected = "a file of weights; this model cannot be downloaded by name";
            return Err(BackboneError::argument("weights", format!("missing for `{}`", model.name), expected));
        };
        let path = self.path(file)?;
        let record = beside(&path, "sha256");
        let cached = || -> Result<Option<Fetched>> {
            if !path.exists() {
                return Ok(None);
            }
            let weights = Weights::read(&path)?;
            let trust = verify(&path, &weights, known, &record, false)?;
            Ok(Some(Fetched { path: path.clone(), weights, trust, downloaded: false }))
        };
        // Without the lock: a file that is there is whole, and its hash was recorded before.
        if let Some(found) = cached()? {
            return Ok(found);
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|source| BackboneError::io(folder, source))?;
        let _lock = lock(&beside(&path, "lock"), progress)?;
        // Another process may have downloaded it meanwhile.
        if let Some(found) = cached()? {
            return Ok(found);
        }
        let url = self.url(file);
        let part = beside(&path, "part");
        Download { url: &url, part: &part, validator: &beside(&path, "etag"), max_bytes: self.max_bytes }
            .run(&format!("download {}", model.name), progress)?;
        let weights = Weights::read(&part).inspect_err(|_| discard(&part))?;
        let trust = verify(&part, &weights, known, &record, true).inspect_err(|_| discard(&part))?;
        std::fs::rename(&part, &path).map_err(|source| BackboneError::io(&path, source))?;
        discard(&beside(&path, "etag"));
        let weights = weights.with_origin(path.display().to_string());
        Ok(Fetched { path, weights, trust, downloaded: true })
    }

    fn path(&self, file: HubFile) -> Result<PathBuf> {
        let cache = self.cache.as_ref().ok_or_else(|| {
            BackboneError::argument("cache folder", "unknown", "the environment variable MASF_CACHE to name one")
        })?;
        Ok(cache.join(file.repository.replace('/', "--")).join(file.revision).join(file.path))
    }

    fn url(&self, file: HubFile) -> String {
        let HubFile { repository, revision, path, .. } = file;
        format!("{}/{repository}/resolve/{revision}/{path}", self.endpoint.trim_end_matches('/'))
    }
}

/// `model.safetensors` with another ending after it.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

/// Removes a file; one that is not there is as good.
fn discard(path: &Path) {
    let _ = std::fs::remove_file(path);
}

/// Removes the recorded hash of a file of weights, and the file if it was `downloaded`.
pub(crate) fn forget(path: &Path, downloaded: bool) {
    if downloaded {
        discard(path);
    }
    discard(&beside(path, "sha256"));
}

/// Waits for the exclusive right to download a file; it ends with the process at the latest.
fn lock(path: &Path, progress: &dyn Progress) -> Result<File> {
    let refused = |source| BackboneError::io(path, source);
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(refused)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if progress.is_cancelled() => return Err(BackboneError::Cancelled),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(100)),
            Err(TryLockError::Error(source)) => return Err(refused(source)),
        }
    }
}

/// Compares the hash with the registry's or the recorded one, or records it. What was `downloaded` is not kept if it is refused.
fn verify(path: &Path, weights: &Weights, known: Option<&str>, record: &Path, downloaded: bool) -> Result<Trust> {
    let recorded = match std::fs::read_to_string(record) {
        Ok(text) => Some(text.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(source) => return Err(BackboneError::io(record, source)),
    };
    let (expected, trust) = match (known, &recorded) {
        (Some(known), _) => (known, Trust::Registry),
        (None, Some(recorded)) => (recorded.as_str(), Trust::Recorded),
        (None, None) => {
            write(record, &format!("{}\n", weights.sha256()))?;
            tracing::info!(path = %path.display(), sha256 = weights.sha256(), "recorded the hash of the first download");
            return Ok(Trust::FirstUse);
        }
    };
    if weights.sha256() == expected {
        return Ok(trust);
    }
    let again = if downloaded { "it was not kept, run again" } else { "delete it" };
    let hint = match trust {
        Trust::Registry => format!("the file is damaged or not the published one; {again} to download it again"),
        _ => format!(
            "the file differs from the first download; {again} to download it again, but first delete {} if the change is known and wanted",
            record.display()
        ),
    };
    Err(BackboneError::Hash {
        origin: path.display().to_string(),
        found: weights.sha256().to_owned(),
        expected: expected.to_owned(),
        hint,
    })
}

/// Writes a small file in one step.
fn write(path: &Path, text: &str) -> Result<()> {
    masf_core::replace_file(path, |temporary| std::fs::write(temporary, text))
        .map_err(|source| BackboneError::io(path, source))
}
