//! Metrics: one definition of each, several exporters; and the set-up of logs.
//!
//! A crate that counts has a struct of [`Counter`]s, [`Gauge`]s, [`Histogram`]s and [`Family`]s, made from the
//! daemon's one [`Registry`]. Nothing is global.

mod registry;

pub use registry::{Counter, Family, Gauge, Histogram, Metric, Registry};
