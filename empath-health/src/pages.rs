use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router, extract::State, http::StatusCode, http::header::CONTENT_TYPE, response::IntoResponse,
    routing::get,
};
use empath_metrics::Registry;
use serde::Serialize;
use tokio::time::Instant;
use tower_http::timeout::TimeoutLayer;

use crate::{Readiness, readiness::Report};

/// No page takes longer than this to make.
const TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Daemon {
    readiness: Readiness,
    version: &'static str,
    started: Instant,
}

#[derive(Debug, Serialize)]
struct Detailed {
    version: &'static str,
    uptime_seconds: u64,
    #[serde(flatten)]
    parts: Report,
}

/// The health pages of a daemon of this version that starts now.
pub fn health(readiness: Readiness, version: &'static str) -> Router {
    let daemon = Arc::new(Daemon { readiness, version, started: Instant::now() });
    let pages = Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/health/detailed", get(detailed))
        .with_state(daemon);
    limited(pages)
}

/// The page for Prometheus.
pub fn metrics(registry: Registry) -> Router {
    limited(Router::new().route("/metrics", get(page)).with_state(registry))
}

fn limited(pages: Router) -> Router {
    pages.layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, TIMEOUT))
}

/// Whoever can answer is alive.
async fn live() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "live": true }))
}

async fn ready(State(daemon): State<Arc<Daemon>>) -> (StatusCode, Json<Report>) {
    let report = daemon.readiness.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report))
}

async fn detailed(State(daemon): State<Arc<Daemon>>) -> Json<Detailed> {
    let uptime_seconds = daemon.started.elapsed().as_secs();
    Json(Detailed { version: daemon.version, uptime_seconds, parts: daemon.readiness.report() })
}

async fn page(State(registry): State<Registry>) -> impl IntoResponse {
    ([(CONTENT_TYPE, empath_metrics::CONTENT_TYPE)], registry.encode())
}
