//! The example `serve`: verdicts, heat maps, metrics, and what it does with bodies that are broken, huge, slow or too many.
#![cfg(feature = "serve")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use masf::data::synthetic::{SyntheticConfig, write_dataset};
use masf::{Config, Detector, Size};
use serde_json::Value;
use tempfile::TempDir;

/// The example that was built with these tests.
fn serve() -> Command {
    let tests = std::env::current_exe().expect("the path of this program");
    let built = tests.parent().and_then(Path::parent).expect("the build folder");
    Command::new(built.join("examples/serve").with_extension(std::env::consts::EXE_EXTENSION))
}

/// A running server, and an image to send.
struct Server {
    child: Child,
    address: String,
    folder: TempDir,
}

impl Server {
    fn start(more: &[&str]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let config = SyntheticConfig { train: 8, test_good: 1, test_per_kind: 1, ..SyntheticConfig::default() };
        write_dataset(folder.path().join("data"), &config).expect("a data set");
        let mut config = Config::default();
        config.memory.candidates = 1000;
        config.memory.prototypes = 100;
        let builder = Detector::builder().config(config).image_size(Size::square(64));
        let detector = builder.fit_folder(folder.path().join("data")).expect("a model");
        detector.save(folder.path().join("model.masf")).expect("a file");
        let mut child = serve()
            .current_dir(folder.path())
            .args([&["--model", "model.masf", "--address", "127.0.0.1:0"], more].concat())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening at http://").expect("an address").to_owned();
        Self { child, address, folder }
    }

    fn image(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("data/test/scratch/000.png")).expect("an image")
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit");
        stream
    }

    /// Sends a request and gives status, head and body of the answer.
    fn ask(&self, first_line: &str, headers: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let mut stream = self.connect();
        let head = format!("{first_line} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).expect("a request");
        // The server may answer and hang up before it has read all.
        let _ = stream.write_all(body);
        answer(stream)
    }

    fn post(&self, path: &str, headers: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        self.ask(&format!("POST {path}"), &format!("{headers}Content-Length: {}\r\n", body.len()), body)
    }

    fn metric(&self, name: &str) -> f64 {
        let (status, head, body) = self.ask("GET /metrics", "", b"");
        assert!(status == 200 && head.contains("text/plain; version=0.0.4"), "{head}");
        let text = String::from_utf8(body).expect("text");
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
        line.rsplit(' ').next().expect("a value").parse().expect("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(mut stream: TcpStream) -> (u16, String, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    // A server that hangs up on an upload may reset the connection after its answer.
    while let Ok(count @ 1..) = stream.read(&mut part) {
        bytes.extend(&part[..count]);
    }
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer") + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, head, bytes.split_off(end))
}

fn json(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("JSON")
}

#[test]
fn images_get_verdicts_and_others_reasons() {
    let server = Server::start(&["--max-body", "1", "--max-pixels", "1"]);
    let image = server.image();
    let (status, _, body) = server.ask("GET /health", "", b"");
    assert!(status == 200 && json(&body)["status"] == "ok", "{}", String::from_utf8_lossy(&body));
    let (status, head, body) = server.ask("GET /", "", b"");
    assert!(status == 200 && head.contains("content-security-policy") && body.starts_with(b"<!doctype html>"));

    let (status, _, body) = server.post("/inspect", "", &image);
    let found = json(&body);
    assert!(status == 200 && found.get("heatmap").is_none() && found.get("path").is_none(), "{found}");
    let detector = Detector::load(server.folder.path().join("model.masf")).expect("a model");
    let expected = detector.inspect(server.folder.path().join("data/test/scratch/000.png")).expect("an inspection");
    assert_eq!(found["image_score"], serde_json::json!(expected.image_score));
    assert_eq!(found["is_anomalous"], Value::Bool(expected.is_anomalous));
    for query in ["heatmap", "heatmap=", "a=b&heatmap=1"] {
        let (_, _, body) = server.post(&format!("/inspect?{query}"), "", &image);
        assert!(
            json(&body)["heatmap"].as_str().is_some_and(|url| url.starts_with("data:image/png;base64,")),
            "{query}"
        );
    }
    let (status, head, body) = server.post("/inspect", "Accept: image/png\r\n", &image);
    assert!(status == 200 && head.contains("content-type: image/png"), "{head}");
    assert_eq!(image::load_from_memory(&body).expect("a PNG").height(), 256);

    // Broken, empty, no image, and an image that says it is huge.
    let huge = {
        let picture = image::GrayImage::new(3000, 1000);
        let mut png = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut png, image::ImageFormat::Png).expect("a PNG");
        png.into_inner()
    };
    let bodies: [(&[u8], &str); 4] =
        [(&image[..image.len() / 2], "truncated"), (b"", "empty"), (b"hello", "not an image"), (&huge, "limit")];
    for (body, reason) in bodies {
        let (status, _, body) = server.post("/inspect", "", body);
        let error = json(&body)["error"].as_str().expect("a reason").to_owned();
        assert!(status == 422 && error.contains(reason), "{status} {error}");
    }

    // As `curl -F file=@x.png` sends it.
    let head = b"--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x.png\"\r\n\r\n";
    let form = [head.as_slice(), &image, b"\r\n--x--\r\n"].concat();
    let (status, _, body) = server.post("/inspect", "Content-Type: multipart/form-data; boundary=x\r\n", &form);
    let error = json(&body)["error"].as_str().expect("a reason").to_owned();
    assert!(status == 422 && error.contains("--data-binary @FILE"), "{status} {error}");

    // Too large: said to be, or found out on the way.
    let (status, _, body) = server.ask("POST /inspect", "Content-Length: 99999999999\r\n", b"some");
    assert!(status == 413 && json(&body)["error"].as_str().is_some_and(|error| error.contains("1 MiB")));
    let chunk = [b"10000\r\n".as_slice(), &[0; 0x10000], b"\r\n"].concat();
    let (status, ..) = server.ask("POST /inspect", "Transfer-Encoding: chunked\r\n", &chunk.repeat(20));
    assert_eq!(status, 413);
    assert_eq!(server.ask("GET /inspect", "", b"").0, 405);
    assert_eq!(server.ask("GET /nothing", "", b"").0, 404);

    assert_eq!(server.metric("masf_requests_total{outcome=\"inspected\"}"), 5.0);
    assert_eq!(server.metric("masf_requests_total{outcome=\"refused\"}"), 5.0);
    assert_eq!(server.metric("masf_requests_total{outcome=\"too_large\"}"), 2.0);
    assert_eq!(server.metric("masf_request_seconds_count"), 5.0);
    assert!(
        server.metric("masf_request_seconds_bucket{le=\"+Inf\"}") == 5.0 && server.metric("masf_free_requests") > 0.0
    );
}

#[test]
fn slow_and_many_uploads_are_turned_away() {
    let server = Server::start(&["--queue", "2", "--upload-seconds", "2"]);
    let start = |server: &Server| {
        let mut stream = server.connect();
        stream
            .write_all(b"POST /inspect HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\nsome")
            .expect("a request");
        stream
    };
    let slow = [start(&server), start(&server)];
    std::thread::sleep(Duration::from_millis(500));
    let (status, head, _) = server.post("/inspect", "", &server.image());
    assert!(status == 503 && head.contains("retry-after"), "{head}");
    assert_eq!(server.ask("GET /health", "", b"").0, 200);
    for stream in slow {
        assert_eq!(answer(stream).0, 408);
    }
    assert_eq!(server.post("/inspect", "", &server.image()).0, 200);
    assert_eq!(server.metric("masf_requests_total{outcome=\"busy\"}"), 1.0);
}

#[test]
fn clients_that_hang_up_are_counted() {
    // In bytes it is one more than a `usize` holds.
    let largest = (1_usize << (usize::BITS - 20)).to_string();
    let server = Server::start(&["--max-body", &largest]);
    assert_eq!(server.post("/inspect", "", &server.image()).0, 200);
    // The heat map of so large an image takes far longer than the news that nobody waits for it.
    let mut png = std::io::Cursor::new(Vec::new());
    image::GrayImage::new(4000, 4000).write_to(&mut png, image::ImageFormat::Png).expect("a PNG");
    let body = png.into_inner();
    let mut stream = server.connect();
    let head =
        format!("POST /inspect HTTP/1.1\r\nHost: test\r\nAccept: image/png\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), &body].concat()).expect("a request");
    drop(stream);
    while server.metric("masf_requests_total{outcome=\"gone\"}") == 0.0 {
        for (outcome, count) in [("inspected", 1.0), ("refused", 0.0), ("failed", 0.0)] {
            assert_eq!(server.metric(&format!("masf_requests_total{{outcome=\"{outcome}\"}}")), count);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn more_permits_than_there_can_be_are_refused() {
    let most = usize::MAX.to_string();
    for option in ["--queue", "--concurrency"] {
        let refused = serve().args([option, &most, "--model", "none.masf"]).output().expect("it runs");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(1) && said.contains(option), "{said}");
    }
}

#[cfg(unix)]
#[test]
fn a_request_under_way_is_answered_before_the_server_ends() {
    let mut server = Server::start(&[]);
    let image = server.image();
    let mut stream = server.connect();
    let head =
        format!("POST /inspect HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", image.len());
    stream.write_all(head.as_bytes()).expect("a request");
    stream.write_all(&image[..1000]).expect("some of the body");
    std::thread::sleep(Duration::from_millis(300));
    Command::new("kill").args(["-TERM", &server.child.id().to_string()]).status().expect("kill runs");
    std::thread::sleep(Duration::from_millis(300));
    assert!(TcpStream::connect(&server.address).is_err(), "it still takes connections");
    stream.write_all(&image[1000..]).expect("the rest");
    assert_eq!(answer(stream).0, 200);
    assert!(server.child.wait().expect("the server ends").success());
}
