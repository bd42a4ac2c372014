//! Downloads from a loopback server that behaves well and badly.
#![cfg(feature = "hub")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use masf_backbone::hub::{Hub, Trust};
use masf_backbone::{Backbone, BackboneError};
use masf_core::{Fault, Progress, Silent};
use sha2::{Digest, Sha256};

/// A request: its path and lower-case headers.
#[derive(Debug, Clone)]
struct Request {
    path: String,
    headers: HashMap<String, String>,
}

impl Request {
    /// The position after which a range request asks.
    fn start(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// A server that answers by a function of the request and its number; it lives as long as the test.
struct Server {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn start(answer: impl Fn(usize, &Request) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let Some(request) = read_request(&stream) else { continue };
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(request.clone());
                    seen.len() - 1
                };
                let _ = stream.write_all(&answer(number, &request));
            }
        });
        Self { address, requests }
    }

    fn hub(&self, cache: &Path) -> Hub {
        Hub::default().with_endpoint(&self.address).with_cache(cache)
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(|line| line.ok());
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_lowercase(), value.to_owned()))
    });
    Some(Request { path, headers: headers.collect() })
}

fn response(status: &str, headers: &[(&str, String)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

const TAG: &str = "\"one\"";

/// The whole file.
fn whole(content: &[u8]) -> Vec<u8> {
    response("200 OK", &[("Content-Length", content.len().to_string()), ("ETag", TAG.into())], content)
}

/// The whole file, or the part that was asked for.
fn ranged(request: &Request, content: &[u8]) -> Vec<u8> {
    let Some(start) = request.start() else { return whole(content) };
    assert_eq!(request.headers["if-range"], TAG);
    let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
    let length = (content.len() - start).to_string();
    response("206 Partial Content", &[("Content-Range", range), ("Content-Length", length)], &content[start..])
}

/// The first bytes of a response; then the connection closes.
fn cut(mut response: Vec<u8>, content: &[u8], bytes: usize) -> Vec<u8> {
    response.truncate(response.len() - (content.len() - bytes));
    response
}

/// A safetensors file of some size.
fn content(seed: u8) -> Vec<u8> {
    let values: Vec<u8> = (0..200_000u32).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![values.len()], &values).unwrap();
    safetensors::serialize([("x", view)], None).unwrap()
}

fn hash(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn model() -> &'static masf_models::Model {
    masf_models::find("resnet18").unwrap()
}

fn cache() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// The names of the files in the cache's folder of the model, sorted.
fn files(cache: &Path) -> Vec<String> {
    let folder = cache.join("timm--resnet18.tv_in1k").join("main");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = entries.filter(|name| !name.ends_with(".lock")).collect();
    names.sort();
    names
}

const KEPT: [&str; 2] = ["model.safetensors", "model.safetensors.sha256"];

#[test]
fn downloads_once_and_records_the_hash() {
    let (cache, file) = (cache(), content(0));
    let server = Server::start(|_, request| ranged(request, &content(0)));
    let hub = server.hub(cache.path());
    let first = hub.fetch(model(), &Silent).unwrap();
    assert_eq!((first.trust, first.weights.sha256()), (Trust::FirstUse, hash(&file).as_str()));
    assert_eq!(std::fs::read(&first.path).unwrap(), file);
    assert_eq!(first.weights.origin(), first.path.display().to_string());
    assert_eq!(files(cache.path()), KEPT);
    let again = hub.fetch(model(), &Silent).unwrap();
    assert_eq!((again.trust, again.path), (Trust::Recorded, first.path));
    // A lock that cannot be taken, as in a read-only cache.
    let lock = cache.path().join("timm--resnet18.tv_in1k/main/model.safetensors.lock");
    std::fs::remove_file(&lock).unwrap();
    std::fs::create_dir(&lock).unwrap();
    assert_eq!(hub.fetch(model(), &Silent).unwrap().trust, Trust::Recorded);
    let requests = server.requests();
    assert_eq!(requests.len(), 1, "after the first time the cache answers");
    assert_eq!(requests[0].path, "/timm/resnet18.tv_in1k/resolve/main/model.safetensors");
}

#[test]
fn continues_after_cut_connections() {
    let (cache, file) = (cache(), content(0));
    let server = Server::start({
        let file = file.clone();
        move |number, request| match number {
            0 => cut(whole(&file), &file, 1000),
            1 => cut(ranged(request, &file), &file, 50_000),
            _ => ranged(request, &file),
        }
    });
    let counted = Counted::default();
    let fetched = server.hub(cache.path()).fetch(model(), &counted).unwrap();
    assert_eq!(std::fs::read(&fetched.path).unwrap(), file);
    let starts: Vec<_> = server.requests().iter().map(Request::start).collect();
    assert_eq!(starts, [None, Some(1000), Some(50_000)]);
    assert_eq!(counted.steps.load(Ordering::Relaxed), file.len() as u64, "every byte is reported once");
    assert_eq!(files(cache.path()), KEPT);
}

#[test]
fn a_later_call_continues_what_an_earlier_one_left() {
    let (cache, file) = (cache(), content(0));
    // Cancelled after the first bytes.
    let server = Server::start(|_, request| ranged(request, &content(0)));
    let counted = Counted { stop: AtomicBool::new(true), ..Counted::default() };
    let error = server.hub(cache.path()).fetch(model(), &counted).unwrap_err();
    assert!(matches!(error, BackboneError::Cancelled), "{error}");
    let left =
        std::fs::metadata(cache.path().join("timm--resnet18.tv_in1k/main/model.safetensors.part")).unwrap().len();
    assert!(left > 0 && left < file.len() as u64, "{left}");
    let fetched = server.hub(cache.path()).fetch(model(), &Silent).unwrap();
    assert_eq!(fetched.weights.sha256(), hash(&file));
    assert_eq!(server.requests()[1].start(), Some(left as usize));
}

#[test]
fn a_server_that_ignores_ranges_starts_over() {
    let (cache, file) = (cache(), content(0));
    let server = Server::start({
        let file = file.clone();
        move |number, _| if number == 0 { cut(whole(&file), &file, 70_000) } else { whole(&file) }
    });
    let fetched = server.hub(cache.path()).fetch(model(), &Silent).unwrap();
    assert_eq!(std::fs::read(&fetched.path).unwrap(), file);
    assert_eq!(server.requests()[1].start(), Some(70_000));
}

#[test]
fn another_part_than_asked_for_starts_over() {
    let (cache, file) = (cache(), content(0));
    let server = Server::start({
        let file = file.clone();
        move |number, request| match number {
            0 => cut(whole(&file), &file, 70_000),
            1 => response("206 Partial Content", &[("Content-Range", "bytes 5-9/10".into())], b"wrong"),
            _ => ranged(request, &file),
        }
    });
    let fetched = server.hub(cache.path()).fetch(model(), &Silent).unwrap();
    assert_eq!(std::fs::read(&fetched.path).unwrap(), file);
    assert_eq!(server.requests()[2].start(), None);
}

#[test]
fn gives_up_on_a_server_that_sends_nothing_but_keeps_the_part() {
    let (cache, file) = (cache(), content(0));
    let server = Server::start(move |number, _| match number {
        0 => cut(whole(&file), &file, 70_000),
        _ => response("503 Service Unavailable", &[("Content-Length", "0".into())], b""),
    });
    let error = server.hub(cache.path()).fetch(model(), &Silent).unwrap_err();
    assert!(error.to_string().contains("503") && error.to_string().contains("run again"), "{error}");
    assert_eq!(error.fault(), Fault::Io);
    assert_eq!(files(cache.path()), ["model.safetensors.etag", "model.safetensors.part"]);
}

#[test]
fn downloads_that_cannot_be_continued_end_and_say_so() {
    let cache = cache();
    let server = Server::start(|number, _| {
        let file = content(0);
        let answer = response("200 OK", &[("Content-Length", file.len().to_string())], &file);
        match [70_000, 50_000, 60_000, 40_000, 50_000, 30_000].get(number) {
            Some(bytes) => cut(answer, &file, *bytes),
            None => answer,
        }
    });
    let error = server.hub(cache.path()).fetch(model(), &Silent).unwrap_err();
    assert!(error.to_string().contains("starts over"), "{error}");
    assert!(server.requests().len() <= 5, "{}", server.requests().len());
}

#[test]
fn a_first_download_of_another_network_is_not_kept() {
    let cache = cache();
    let server = Server::start(|_, _| whole(&content(0)));
    let builder = Backbone::builder("resnet18").unwrap();
    let error = builder.download(&server.hub(cache.path()), &Silent).unwrap_err();
    assert!(matches!(error, BackboneError::Weights { .. }), "{error}");
    assert!(!error.to_string().contains(".part") && error.to_string().contains("not kept"), "{error}");
    assert!(files(cache.path()).is_empty());
}

#[test]
fn a_file_that_was_put_into_the_cache_is_not_deleted() {
    let cache = cache();
    let server = Server::start(|_, _| whole(&content(0)));
    let hub = server.hub(cache.path());
    let path = hub.fetch(model(), &Silent).unwrap().path;
    // As after copying it by hand.
    std::fs::remove_file(path.with_file_name("model.safetensors.sha256")).unwrap();
    let error = Backbone::builder("resnet18").unwrap().download(&hub, &Silent).unwrap_err();
    assert!(matches!(error, BackboneError::Weights { .. }) && error.to_string().contains("delete it"), "{error}");
    assert_eq!(files(cache.path()), ["model.safetensors"]);
}

#[test]
fn a_file_that_changed_since_the_first_download_is_refused() {
    let (cache, file, other) = (cache(), content(0), content(1));
    let server = Server::start({
        let (file, other) = (file.clone(), other.clone());
        move |number, _| whole(if number == 0 { &file } else { &other })
    });
    let hub = server.hub(cache.path());
    let first = hub.fetch(model(), &Silent).unwrap();
    // Someone tampers with the cache.
    std::fs::write(&first.path, &other).unwrap();
    let error = hub.fetch(model(), &Silent).unwrap_err();
    let BackboneError::Hash { found, expected, .. } = &error else { panic!("{error}") };
    assert_eq!((found, expected), (&hash(&other), &hash(&file)));
    // The file is deleted, and the server gives another one.
    std::fs::remove_file(&first.path).unwrap();
    let error = hub.fetch(model(), &Silent).unwrap_err();
    assert!(matches!(error, BackboneError::Hash { .. }), "{error}");
    assert!(!first.path.exists(), "a refused file must not stay");
    assert!(error.to_string().contains("it was not kept"), "{error}");
}

#[test]
fn old_bytes_go_before_a_new_tag_comes() {
    let cache = cache();
    let folder = cache.path().join("timm--resnet18.tv_in1k/main");
    // A tag that cannot be written ends it there.
    std::fs::create_dir_all(folder.join("model.safetensors.etag")).unwrap();
    std::fs::write(folder.join("model.safetensors.part"), "old").unwrap();
    let server = Server::start(|_, _| whole(&content(0)));
    assert!(server.hub(cache.path()).fetch(model(), &Silent).is_err());
    assert_eq!(files(cache.path()), ["model.safetensors.etag"]);
}

#[test]
fn the_hash_of_the_registry_is_enforced() {
    let (cache, file) = (cache(), content(0));
    let server = Server::start(move |_, _| whole(&file));
    let mut known = *model();
    let weights = known.weights.as_mut().unwrap();
    weights.sha256 = Some("00");
    let error = server.hub(cache.path()).fetch(&known, &Silent).unwrap_err();
    assert!(matches!(&error, BackboneError::Hash { expected, .. } if expected == "00"), "{error}");
    assert_eq!(error.fault(), Fault::Model);
    known.weights.as_mut().unwrap().sha256 = Some(Box::leak(hash(&content(0)).into_boxed_str()));
    assert_eq!(server.hub(cache.path()).fetch(&known, &Silent).unwrap().trust, Trust::Registry);
    assert_eq!(files(cache.path()), ["model.safetensors"]);
}

#[test]
fn refusals_are_explained() {
    for (status, part) in [("404 Not Found", "404"), ("403 Forbidden", "refuses access")] {
        let cache = cache();
        let server = Server::start(move |_, _| response(status, &[("Content-Length", "0".into())], b""));
        let error = server.hub(cache.path()).fetch(model(), &Silent).unwrap_err();
        assert!(error.to_string().contains(part) && error.to_string().contains(&server.address), "{error}");
        assert_eq!(server.requests().len(), 1, "no second attempt");
        assert!(files(cache.path()).is_empty());
    }
}

#[test]
fn redirects_are_followed() {
    let (cache, file) = (cache(), content(0));
    let server = Server::start({
        let file = file.clone();
        move |number, request| match request.path.as_str() {
            "/elsewhere" if number == 1 => cut(whole(&file), &file, 1234),
            "/elsewhere" => ranged(request, &file),
            _ => response("302 Found", &[("Location", "/elsewhere".into()), ("Content-Length", "0".into())], b""),
        }
    });
    let fetched = server.hub(cache.path()).fetch(model(), &Silent).unwrap();
    assert_eq!(fetched.weights.sha256(), hash(&file));
    assert_eq!(server.requests()[3].start(), Some(1234), "the range must survive the redirect");
}

#[test]
fn oversized_files_are_refused_announced_or_not() {
    let file = content(0);
    let announced = whole(&file);
    let unannounced = response("200 OK", &[], &file);
    for answer in [announced, unannounced] {
        let cache = cache();
        let server = Server::start(move |_, _| answer.clone());
        let error = server.hub(cache.path()).with_max_bytes(100_000).fetch(model(), &Silent).unwrap_err();
        assert!(error.to_string().contains("limit of 100000"), "{error}");
        assert!(!files(cache.path()).iter().any(|name| name.ends_with("part")));
    }
}

#[test]
fn what_is_no_safetensors_file_is_not_recorded() {
    let cache = cache();
    let server = Server::start(|_, _| whole(b"<html>please log in</html>"));
    let error = server.hub(cache.path()).fetch(model(), &Silent).unwrap_err();
    assert!(matches!(error, BackboneError::Container { .. }), "{error}");
    assert!(!files(cache.path()).iter().any(|name| name.ends_with("sha256") || name.ends_with("part")));
}

#[test]
fn several_at_once_download_once() {
    let (cache, file) = (cache(), content(0));
    let server = Server::start(move |_, request| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        ranged(request, &file)
    });
    let hub = server.hub(cache.path());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| hub.fetch(model(), &Silent).unwrap());
        }
    });
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn models_that_are_not_on_the_hub_say_so() {
    let model = masf_models::find("mobilenet-v2").unwrap();
    let error = Hub::default().with_cache("nowhere").fetch(model, &Silent).unwrap_err();
    assert!(error.to_string().contains("`mobilenet-v2`") && error.fault() == Fault::Argument, "{error}");
}

/// Counts steps; asks to stop after the first bytes where `stop` is set.
#[derive(Default)]
struct Counted {
    steps: AtomicU64,
    stop: AtomicBool,
}

impl Progress for Counted {
    fn start(&self, _stage: &str, total: u64) {
        assert!(total > 0);
    }

    fn step(&self, count: u64) {
        self.steps.fetch_add(count, Ordering::Relaxed);
    }

    fn finish(&self) {}

    fn is_cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed) && self.steps.load(Ordering::Relaxed) > 0
    }
}
