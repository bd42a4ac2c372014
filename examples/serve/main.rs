//! Inspection over HTTP: POST an image, get the verdict as JSON or the heat map as PNG.
//!
//! ```text
//! cargo run --release --example serve --features serve -- --model part.masf
//! curl --data-binary @part.png http://127.0.0.1:8080/inspect
//! curl --data-binary @part.png -H 'Accept: image/png' http://127.0.0.1:8080/inspect > heat.png
//! ```
//!
//! | path | what it gives |
//! |---|---|
//! | `GET /` | a page to drop images on |
//! | `POST /inspect` | the verdict as JSON; with `?heatmap` also the heat map, as a data URL; with `Accept: image/png` the heat map alone |
//! | `GET /health` | 200 and a line of JSON as soon as the model is loaded |
//! | `GET /metrics` | counters and times in the form of Prometheus |
//!
//! The file itself is the body, not a form that holds it. Bodies, pixels, uploads at a time and inspections at a time are limited, and
//! a body has to be there in time. The number of connections and the time that the head of a request may take are not limited, and
//! there is no encryption and no login: put a proxy before it that sees to these.

mod metrics;

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use clap::Parser;
use masf::data::{ImageInput, Limits, decode_image};
use masf::{Detector, Fault};
use masf_examples::demo::OptionalModel;
use masf_examples::{Common, as_json, outln, png, run};
use metrics::Metrics;
use serde_json::json;
use tokio::sync::Semaphore;

/// Inspect images over HTTP.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: OptionalModel,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    address: SocketAddr,
    /// Largest body in MiB
    #[arg(long, value_name = "MIB", default_value_t = 32)]
    max_body: usize,
    /// Most pixels of an image, in millions
    #[arg(long, value_name = "MILLIONS", default_value_t = 50)]
    max_pixels: u64,
    /// Images that are inspected at the same time
    #[arg(long, value_name = "N", default_value_t = 2)]
    concurrency: usize,
    /// Requests that may be under way at the same time; further ones are answered with 503
    #[arg(long, value_name = "N", default_value_t = 16)]
    queue: usize,
    /// Seconds that an upload may take
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    upload_seconds: u64,
    #[command(flatten)]
    common: Common,
}

/// What all requests share.
struct App {
    detector: Detector,
    limits: Limits,
    max_body: usize,
    upload_time: Duration,
    under_way: Arc<Semaphore>,
    workers: Arc<Semaphore>,
    metrics: Metrics,
}

/// What a client wants to have back.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    Json,
    JsonWithHeatMap,
    Png,
}

/// Why a request gets no verdict.
struct Refusal {
    status: StatusCode,
    outcome: &'static str,
    reason: String,
}

impl Refusal {
    fn new(status: StatusCode, outcome: &'static str, reason: impl Into<String>) -> Self {
        Self { status, outcome, reason: reason.into() }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(|| {
        args.common.apply()?;
        let permits = 1..=Semaphore::MAX_PERMITS;
        anyhow::ensure!(
            permits.contains(&args.concurrency) && permits.contains(&args.queue),
            "--concurrency and --queue are from 1 to {}",
            permits.end()
        );
        let app = Arc::new(App {
            detector: args.model.load()?,
            limits: Limits { max_pixels: args.max_pixels.saturating_mul(1_000_000), ..Limits::default() },
            max_body: args.max_body.saturating_mul(1 << 20),
            upload_time: Duration::from_secs(args.upload_seconds),
            under_way: Arc::new(Semaphore::new(args.queue)),
            workers: Arc::new(Semaphore::new(args.concurrency)),
            metrics: Metrics::new(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(serve(args.address, app))?;
        // An inspection that has been given up on must not keep the process alive.
        runtime.shutdown_timeout(Duration::from_secs(1));
        Ok(ExitCode::SUCCESS)
    })
}

/// Serves until Ctrl-C or SIGTERM; requests that are under way then have ten seconds to end.
async fn serve(address: SocketAddr, app: Arc<App>) -> anyhow::Result<()> {
    let listener =
        tokio::net::TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"))?;
    let router = Router::new()
        .route("/", get(page))
        .route("/inspect", post(inspect))
        .route("/health", get(health))
        .route("/metrics", get(metrics_page))
        .layer(DefaultBodyLimit::max(app.max_body))
        .with_state(app);
    outln!("listening at http://{}", listener.local_addr()?)?;
    std::io::stdout().flush()?;
    let stop = Arc::new(tokio::sync::Notify::new());
    let stopping = stop.clone();
    let server = axum::serve(listener, router).with_graceful_shutdown(async move { stopping.notified().await });
    let deadline = async {
        asked_to_stop().await;
        stop.notify_one();
        tokio::time::sleep(Duration::from_secs(10)).await;
    };
    tokio::select! {
        result = server => result.context("the server failed"),
        () = deadline => Ok(()),
    }
}

async fn asked_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// Counts a request when it ends, or when its future is dropped since the client has hung up.
struct Counted<'a> {
    metrics: &'a Metrics,
    started: Instant,
    outcome: &'static str,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.metrics.count(self.outcome, self.started.elapsed());
    }
}

async fn inspect(State(app): State<Arc<App>>, request: Request) -> Response {
    let mut counted = Counted { metrics: &app.metrics, started: Instant::now(), outcome: "gone" };
    let answer = app.clone().answer(request).await;
    counted.outcome = answer.as_ref().map_or_else(|refusal| refusal.outcome, |_| "inspected");
    answer.unwrap_or_else(|refusal| {
        let body = as_text(&json!({ "error": refusal.reason }));
        match refusal.status {
            status @ StatusCode::SERVICE_UNAVAILABLE => (status, [(header::RETRY_AFTER, "1")], body).into_response(),
            status => (status, body).into_response(),
        }
    })
}

impl App {
    async fn answer(self: Arc<Self>, request: Request) -> Result<Response, Refusal> {
        let unavailable = |reason| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", reason);
        let under_way = self.under_way.clone().try_acquire_owned();
        let under_way = under_way.map_err(|_| unavailable("too many requests at the same time; try again"))?;
        let wanted = wanted(&request);
        let bytes = self.body(request).await?;
        let worker = self.workers.clone().acquire_owned().await.map_err(|_| unavailable("the server is stopping"))?;
        // The permits go along: work goes on to its end, whether the client still waits or not.
        let work = move || {
            let _permits = (under_way, worker);
            self.work(&bytes, wanted)
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
            let reason = format!("the inspection failed: {error}");
            Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", reason))
        })
    }

    /// The body, if it is small enough and comes in time.
    async fn body(&self, request: Request) -> Result<Bytes, Refusal> {
        let too_large = || {
            let reason = format!("the body is larger than {} MiB", self.max_body >> 20);
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", reason)
        };
        let length =
            request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > self.max_body as u64) {
            return Err(too_large());
        }
        let form = is_form(request.headers());
        match tokio::time::timeout(self.upload_time, Bytes::from_request(request, &())).await {
            Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "slow", "the body did not come in time")),
            Ok(Err(error)) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(too_large()),
            Ok(Err(error)) => Err(Refusal::new(StatusCode::BAD_REQUEST, "refused", error.body_text())),
            Ok(Ok(_)) if form => {
                let reason = "the body is a form; send the file itself as the body (curl --data-binary @FILE)";
                Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "refused", reason))
            }
            Ok(Ok(bytes)) => Ok(bytes),
        }
    }

    /// Decodes, inspects and draws, on a thread where that may take its time.
    fn work(&self, bytes: &[u8], wanted: Wanted) -> Result<Response, Refusal> {
        let refused = |error: masf::Error| match error.fault() {
            Fault::Data | Fault::Argument => {
                Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "refused", error.to_string())
            }
            _ => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", error.to_string()),
        };
        let image = decode_image("image", bytes, &self.limits).map_err(|error| refused(error.into()))?;
        let image = Arc::new(image);
        let found = self.detector.inspect(ImageInput::Image(image.clone())).map_err(refused)?;
        self.metrics.count_verdict(found.is_anomalous);
        let heat_map = || {
            png(&masf::heatmap::render(&image, &found))
                .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", error.to_string()))
        };
        if wanted == Wanted::Png {
            return Ok(([(header::CONTENT_TYPE, "image/png")], heat_map()?).into_response());
        }
        let mut answer = as_json(&found);
        if wanted == Wanted::JsonWithHeatMap {
            let text = base64::engine::general_purpose::STANDARD.encode(heat_map()?);
            answer["heatmap"] = format!("data:image/png;base64,{text}").into();
        }
        Ok(as_text(&answer).into_response())
    }
}

/// A body of JSON.
fn as_text(value: &serde_json::Value) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string())
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("multipart/form-data"))
}

fn wanted(request: &Request) -> Wanted {
    let accepts = |headers: &HeaderMap| {
        headers.get(header::ACCEPT).and_then(|value| Some(value.to_str().ok()?.contains("image/png")))
    };
    if accepts(request.headers()) == Some(true) {
        Wanted::Png
    } else if request
        .uri()
        .query()
        .is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some("heatmap")))
    {
        Wanted::JsonWithHeatMap
    } else {
        Wanted::Json
    }
}

async fn page() -> Response {
    // The page asks this server alone, whatever else it might be made to hold.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; connect-src 'self'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(include_str!("page.html"))).into_response()
}

async fn health(State(app): State<Arc<App>>) -> Response {
    let provenance = app.detector.provenance();
    let model = json!({
        "backbone": app.detector.backbone().name(),
        "threshold": app.detector.threshold().value,
        "images": provenance.images,
        "images_sha256": provenance.images_sha256,
    });
    as_text(&json!({ "status": "ok", "model": model })).into_response()
}

async fn metrics_page(State(app): State<Arc<App>>) -> Response {
    let text = app.metrics.text(&app.detector, app.under_way.available_permits());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
