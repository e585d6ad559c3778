//! Health, readiness and metrics over HTTP.
//!
//! Two small servers: one tells a load balancer or supervisor how the daemon is, the other Prometheus what it
//! counted. Parts of the daemon say themselves whether they are ready, through [`Readiness`].

mod config;
mod pages;
mod readiness;
mod server;

pub use config::{HealthConfig, MetricsConfig};
pub use pages::{health, metrics};
pub use readiness::{Part, Readiness};
pub use server::{BindError, HttpServer};
