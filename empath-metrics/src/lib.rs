//! Metrics: one definition of each, several exporters; and the set-up of logs.
//!
//! A crate that counts has a struct of [`Counter`]s, [`Gauge`]s, [`Histogram`]s and [`Family`]s, made from the
//! daemon's one [`Registry`]. Nothing is global.

pub mod log;
pub mod process;

mod lines;
mod prometheus;
mod registry;

pub use log::LogConfig;
pub use prometheus::CONTENT_TYPE;
pub use registry::{Counter, Family, Gauge, Histogram, Kind, Metric, Registry};
