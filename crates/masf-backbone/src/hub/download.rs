//! One file over HTTP: streamed to a partial file, continued by range requests, bounded in size.
//!
//! A continued download must be of the same content: the server's entity tag is kept beside the partial file and sent as `If-Range`
//! (RFC 9110, 13.1.5), so that a changed file starts from the beginning.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use masf_core::Progress;
use ureq::Agent;
use ureq::http::{HeaderMap, StatusCode, header};

use crate::{BackboneError, Result};

/// Attempts in a row that may bring nothing beyond the most that there was.
const ATTEMPTS: u32 = 4;
/// A connection that is silent for this long is given up.
const SILENCE: Duration = Duration::from_secs(30);
/// Wait before the second attempt; doubled for each one after.
const PAUSE: Duration = Duration::from_millis(250);

pub(super) struct Download<'a> {
    pub(super) url: &'a str,
    /// Receives the content.
    pub(super) part: &'a Path,
    /// Holds the entity tag of the partial content.
    pub(super) validator: &'a Path,
    pub(super) max_bytes: u64,
}

/// How an attempt ended.
enum Attempt {
    Complete,
    /// The connection broke; what arrived is kept.
    Broken(String),
    /// What had been kept is of no use; it has been discarded.
    Restart,
}

impl Download<'_> {
    /// Downloads the whole file.
    pub(super) fn run(&self, stage: &str, progress: &dyn Progress) -> Result<()> {
        let agent = agent(self.url);
        let mut started = false;
        let mut failures = 0;
        let mut most = self.received();
        let result = loop {
            match self.attempt(&agent, stage, &mut started, progress) {
                Ok(Attempt::Complete) => break Ok(()),
                Ok(Attempt::Restart) => failures += 1,
                Ok(Attempt::Broken(reason)) => {
                    let received = self.received();
                    failures = if received > most { 1 } else { failures + 1 };
                    most = most.max(received);
                    tracing::warn!(url = self.url, reason, "the download was interrupted");
                    if failures >= ATTEMPTS {
                        let next = match received {
                            0 => "run again",
                            _ if self.validator.exists() => "run again to continue the download",
                            _ => "another run starts over, as the server sends no entity tag to continue by",
                        };
                        break Err(self.failed(format!("{reason}; {next}")));
                    }
                }
                Err(error) => break Err(error),
            }
            if failures >= ATTEMPTS {
                break Err(self.failed("the server keeps sending another part of the file than was asked for"));
            }
            if progress.is_cancelled() {
                break Err(BackboneError::Cancelled);
            }
            std::thread::sleep(PAUSE * 2u32.pow(failures.saturating_sub(1)));
        };
        if started {
            progress.finish();
        }
        result
    }

    fn attempt(&self, agent: &Agent, stage: &str, started: &mut bool, progress: &dyn Progress) -> Result<Attempt> {
        let kept = self.received();
        let tag = std::fs::read_to_string(self.validator).ok().filter(|tag| is_strong(tag));
        let mut request = agent.get(self.url).header(header::ACCEPT_ENCODING, "identity");
        if let (1.., Some(tag)) = (kept, &tag) {
            request = request.header(header::RANGE, format!("bytes={kept}-")).header(header::IF_RANGE, tag);
        }
        let response = match request.call() {
            Ok(response) => response,
            Err(error) if is_permanent(&error) => return Err(self.failed(error)),
            Err(error) => return Ok(Attempt::Broken(error.to_string())),
        };
        let status = response.status();
        let offset = match status {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if range_start(response.headers()) == Some(kept) => kept,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                super::discard(self.part);
                return Ok(Attempt::Restart);
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Ok(Attempt::Broken(format!("the server answers {status}")));
            }
            status => return Err(self.failed(refusal(status))),
        };
        let length = response.headers().get(header::CONTENT_LENGTH);
        let length: Option<u64> = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let total = length.map(|length| offset.saturating_add(length));
        if let Some(total) = total.filter(|total| *total > self.max_bytes) {
            return Err(self.too_large(total));
        }
        if status == StatusCode::OK {
            // First, so that the tag never stands beside other bytes.
            super::discard(self.part);
            self.keep_tag(response.headers())?;
        }
        if !*started {
            *started = true;
            progress.start(stage, total.unwrap_or(0));
            progress.step(offset);
        }
        self.receive(response.into_body().into_reader(), offset, total, progress)
    }

    /// Appends the body to what there is up to `offset`.
    fn receive(
        &self,
        mut body: impl Read,
        offset: u64,
        total: Option<u64>,
        progress: &dyn Progress,
    ) -> Result<Attempt> {
        let refused = |source| BackboneError::io(self.part, source);
        let file = File::options().create(true).truncate(false).write(true).open(self.part);
        let mut file = file.map_err(refused)?;
        file.set_len(offset).map_err(refused)?;
        file.seek(SeekFrom::Start(offset)).map_err(refused)?;
        let mut received = offset;
        let mut buffer = vec![0; 64 << 10];
        let broken = loop {
            if progress.is_cancelled() {
                return Err(BackboneError::Cancelled);
            }
            let bytes = match body.read(&mut buffer) {
                Ok(0) => break None,
                Ok(count) => &buffer[..count],
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => break Some(error.to_string()),
            };
            received += bytes.len() as u64;
            if received > self.max_bytes {
                super::discard(self.part);
                return Err(self.too_large(received));
            }
            file.write_all(bytes).map_err(refused)?;
            progress.step(bytes.len() as u64);
        };
        file.sync_all().map_err(refused)?;
        Ok(match (broken, total) {
            (Some(reason), _) => Attempt::Broken(reason),
            (None, Some(total)) if received < total => Attempt::Broken(format!("{received} of {total} bytes arrived")),
            (None, _) => Attempt::Complete,
        })
    }

    /// The length of the partial file.
    fn received(&self) -> u64 {
        std::fs::metadata(self.part).map_or(0, |metadata| metadata.len())
    }

    fn keep_tag(&self, headers: &HeaderMap) -> Result<()> {
        match headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()).filter(|tag| is_strong(tag)) {
            Some(tag) => std::fs::write(self.validator, tag).map_err(|e| BackboneError::io(self.validator, e)),
            None => {
                super::discard(self.validator);
                Ok(())
            }
        }
    }

    fn failed(&self, reason: impl ToString) -> BackboneError {
        BackboneError::Download { url: self.url.into(), reason: reason.to_string() }
    }

    fn too_large(&self, bytes: u64) -> BackboneError {
        self.failed(format!("{bytes} bytes are more than the limit of {} for weights", self.max_bytes))
    }
}

/// A client that stays with https where it began with it.
fn agent(url: &str) -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .https_only(url.starts_with("https://"))
        .user_agent(concat!("masf/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(SILENCE))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .build()
        .new_agent()
}

/// Only strong tags promise equal bytes.
fn is_strong(tag: &str) -> bool {
    tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2
}

/// The first byte's position in `Content-Range: bytes 10-99/100`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// Whether another attempt cannot help.
fn is_permanent(error: &ureq::Error) -> bool {
    !matches!(
        error,
        ureq::Error::Io(_)
            | ureq::Error::Timeout(_)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Protocol(_)
    )
}

fn refusal(status: StatusCode) -> String {
    match status {
        StatusCode::NOT_FOUND => "the server has no such file (404); check the endpoint and the revision".into(),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => format!("the server refuses access ({status})"),
        status => format!("the server answers {status}"),
    }
}
