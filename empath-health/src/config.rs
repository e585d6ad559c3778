use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use empath_common::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Health and readiness over HTTP: `/health/live`, `/health/ready`, `/health/detailed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// Whether there is a health server.
    ///
    /// Default: `true`.
    pub enabled: bool,
    /// Address and port of the health server.
    ///
    /// The pages have no secrets, but no authentication either; bind a private address where strangers can reach
    /// the machine. Default: `"[::]:8080"`, every address.
    pub listen_address: SocketAddr,
    /// Not ready while more messages than this are queued.
    ///
    /// A load balancer then sends new mail elsewhere until the queue has drained. Mail that comes all the same is
    /// accepted. Default: `10000`.
    pub max_queue_size: u64,
}

impl Default for HealthConfig {
    fn default() -> Self {
        let listen_address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8080));
        Self { enabled: true, listen_address, max_queue_size: 10_000 }
    }
}

impl HealthConfig {
    /// What is wrong with the configuration.
    pub fn validate(&self) -> Vec<Problem> {
        if self.enabled && self.max_queue_size == 0 {
            return vec![Problem::new(
                "max_queue_size",
                "must be at least 1, or one message makes us unready",
            )];
        }
        Vec::new()
    }
}

/// Metrics over HTTP, for Prometheus: `/metrics`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Whether there is a metrics server.
    ///
    /// Default: `true`.
    pub enabled: bool,
    /// Address and port of the metrics server.
    ///
    /// Metrics tell how much mail goes where; keep them from strangers. Default: `"127.0.0.1:9090"`.
    pub listen_address: SocketAddr,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { enabled: true, listen_address: SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)) }
    }
}
