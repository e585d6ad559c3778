//! Puts load on a spool and says how fast it was:
//! `cargo run -p empath-spool --release --example spool_load -- --help`.
//!
//! Every mode prints lines of `name=value`; times are in microseconds where the name does not say otherwise.
//! `tests/bench/spool.py` runs it beside fio and makes a table of it.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for developers")]

mod commits;
mod figures;
mod latency;
mod message;
mod start;

use std::{path::PathBuf, sync::Arc};

use clap::{Parser, Subcommand};
use empath_metrics::Registry;
use empath_spool::{Config, FileSpool, Metrics, Spool};

/// Puts load on a spool.
#[derive(Debug, Parser)]
struct Arguments {
    /// The directory of the spool.
    path: PathBuf,
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Writers that commit one message after the other.
    Commits(commits::Commits),
    /// Messages that arrive at a given rate, whether or not those before have been answered.
    Latency(latency::Latency),
    /// Fills the spool with messages that stay.
    Fill(commits::Fill),
    /// Opens the spool as it is.
    Start(start::Start),
}

fn main() {
    let Arguments { path, mode } = Arguments::parse();
    let config = Config { path, ..Config::default() };
    let registry = Registry::default();
    let open = || {
        let (spool, _) = FileSpool::open(&config, Metrics::new(&registry)).unwrap();
        Arc::new(spool)
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match mode {
        Mode::Commits(commits) => runtime.block_on(closing(open(), |spool| commits.run(spool, &registry))),
        Mode::Latency(latency) => runtime.block_on(closing(open(), |spool| latency.run(spool, &registry))),
        Mode::Fill(fill) => runtime.block_on(closing(open(), |spool| fill.run(spool, &registry))),
        Mode::Start(start) => runtime.block_on(start.run(open)),
    }
}

async fn closing<F: Future<Output = ()>>(spool: Arc<FileSpool>, run: impl FnOnce(Arc<FileSpool>) -> F) {
    run(Arc::clone(&spool)).await;
    spool.close().await;
}
