//! What Prometheus expects to know of every process.

use std::fs;

use crate::{Kind, Registry};

/// Ticks of a second in `/proc/*/stat`: `USER_HZ`, which Linux keeps at 100 on every architecture that we run on.
const USER_HZ: f64 = 100.0;

/// Defines the `process_*` metrics that Prometheus expects of every process. They are read from `/proc` when
/// the page is made; one that can't be read has no value.
pub fn define(registry: &Registry) {
    let started = start_time();
    registry.collected(
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
        Kind::Gauge,
        resident_memory,
    );
    registry.collected("process_open_fds", "Number of open file descriptors.", Kind::Gauge, open_files);
    registry.collected(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        Kind::Counter,
        || Some((stat_field(14)? + stat_field(15)?) / USER_HZ),
    );
    registry.collected(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        Kind::Gauge,
        move || started,
    );
}

/// A field of `/proc/self/stat` by its number in `proc_pid_stat(5)`. The second one, the name of the program, may
/// have spaces and parentheses in it, so counting starts behind it.
fn stat_field(number: usize) -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn start_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + stat_field(22)? / USER_HZ)
}

fn resident_memory() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = resident.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

fn open_files() -> Option<f64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    // The directory itself was open while it was read.
    u32::try_from(open.saturating_sub(1)).ok().map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(page: &str, name: &str) -> f64 {
        let line = page.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    #[test]
    fn the_process_is_described_as_it_is_when_the_page_is_made() {
        let registry = Registry::default();
        define(&registry);
        let before = registry.encode();
        assert!(value(&before, "process_resident_memory_bytes") > 100_000.0);
        assert!(value(&before, "process_start_time_seconds") > 1.6e9);
        assert!(value(&before, "process_cpu_seconds_total") >= 0.0);
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        let after = registry.encode();
        // Other tests of this process open and close files at the same time, but not that many.
        assert!(value(&after, "process_open_fds") >= value(&before, "process_open_fds") + 30.0);
        drop(files);
    }
}
