//! What a run was like, from this process and from the metrics of the spool.

use std::{fs, time::Duration};

use empath_metrics::Registry;
use tokio::time::Instant;

/// A run that is measured: the spool's metrics begin at 0 with it.
pub(crate) struct Run<'a> {
    registry: &'a Registry,
    before: Vec<(String, f64)>,
    cpu: Duration,
    started: Instant,
}

impl<'a> Run<'a> {
    pub(crate) fn start(registry: &'a Registry) -> Self {
        Self { registry, before: samples(registry), cpu: cpu_time(), started: Instant::now() }
    }

    pub(crate) fn finish(self, octets: usize, latencies: Latencies) {
        let elapsed = self.started.elapsed().as_secs_f64();
        let cpu = cpu_time().saturating_sub(self.cpu).as_secs_f64();
        let after = samples(self.registry);
        let of = |samples: &[(String, f64)], name: &str| {
            samples.iter().find(|(found, _)| found == name).map_or(0.0, |(_, value)| *value)
        };
        let grown = |name: &str| of(&after, name) - of(&self.before, name);
        let commits = per(latencies.0.len(), 1);
        let syncs = grown("empath_spool_sync_duration_seconds_count");
        println!(
            "commits={commits} seconds={elapsed:.3} commits/s={:.0} content_bytes/s={:.0} written_bytes/s={:.0} cpu={:.2} cpus={:.2} {} \
             syncs/s={:.0} sync_mean={:.1} commits/sync={:.2} largest_memory={}",
            commits / elapsed,
            commits * per(octets, 1) / elapsed,
            grown("empath_spool_written_bytes_total") / elapsed,
            cpu * 1e6 / commits,
            cpu / elapsed,
            latencies.show(),
            syncs / elapsed,
            grown("empath_spool_sync_duration_seconds_sum") * 1e6 / syncs,
            commits / syncs,
            status("VmHWM:"),
        );
    }
}

/// How long each commit took.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn add(&mut self, latency: Duration) {
        self.0.push(latency);
    }

    fn show(mut self) -> String {
        self.0.sort_unstable();
        let at = |thousandths: usize| {
            let place = (self.0.len() * thousandths / 1000).min(self.0.len().saturating_sub(1));
            self.0.get(place).map_or(0, Duration::as_micros)
        };
        format!("p50={} p90={} p99={} p999={} max={}", at(500), at(900), at(990), at(999), at(1000))
    }
}

impl FromIterator<Self> for Latencies {
    fn from_iter<I: IntoIterator<Item = Self>>(all: I) -> Self {
        Self(all.into_iter().flat_map(|latencies| latencies.0).collect())
    }
}

#[expect(clippy::cast_precision_loss, reason = "for show")]
pub(crate) fn per(all: usize, number: usize) -> f64 {
    all as f64 / number as f64
}

/// Octets of this process in memory.
pub(crate) fn memory() -> usize {
    status("VmRSS:")
}

fn status(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// What all threads have used: the 14th and 15th field of `proc_pid_stat(5)`, in hundredths of a second.
fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    Duration::from_millis(fields.map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
}

/// The spool's metrics as the daemon would show them.
fn samples(registry: &Registry) -> Vec<(String, f64)> {
    let text = registry.encode();
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(sample).collect()
}
