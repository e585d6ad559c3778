//! Memory: what there is of it, and what is given back.

use std::{fs, path::Path, sync::Arc, time::Duration};

use empath_common::ByteSize;
use empath_smtp::server::{Connections, Limits};
use rustix::process::{Resource, getrlimit};
use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// So long at least from one time to the next.
const PAUSE: Duration = Duration::from_secs(10);

/// What a session takes, encrypted and all.
const SESSION: u64 = 20 << 10;

/// Most threads that work on files, and address space for the stack of each.
const THREADS: (u64, u64) = (512, 2 << 20);

/// Gives the memory of sessions back to the system when many have ended.
pub(super) async fn give_back(connections: Arc<Connections>, stop: CancellationToken) {
    let ebbs = async {
        loop {
            connections.ebb().await;
            sleep(PAUSE).await;
            // A failure is a panic of it, which costs nothing but the memory.
            let _ = spawn_blocking(empath_ffi::memory::give_back).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = ebbs => {}
    }
}

/// The memory that the service or container may have, if that is bounded.
pub(super) fn limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let memory = [group_limit(&groups, Path::new("/sys/fs/cgroup")), address_space()];
    memory.into_iter().flatten().min()
}

/// Where the service or container may have less memory than the limits allow clients to use, there is a warning, and the
/// limits are less than configured: clients are refused then, where otherwise the system would end the daemon, or an
/// allocation would fail.
pub(super) fn fit(limits: &mut Limits, memory: Option<u64>) {
    if let Some(memory) = memory
        && fit_into(limits, memory)
    {
        warn!(
            memory,
            content_memory = limits.content_memory.0,
            connections = limits.connections,
            "too little memory for smtp.limits.content_memory and connections, so they are less than configured: raise \
             MemoryMax= or LimitAS= of the service (ulimit -Hv), or lower them"
        );
    }
}

/// How many threads there may be for work on files: where the address space has a limit, their stacks use up a quarter of
/// it at most. A thread that finds no room when it begins ends the daemon. The allocator keeps to that limit as well.
pub(super) fn threads() -> usize {
    let limit = getrlimit(Resource::As).current;
    if limit.is_some() {
        empath_ffi::memory::share_arenas();
    }
    threads_in(limit)
}

fn threads_in(address_space: Option<u64>) -> usize {
    let (most, stack) = THREADS;
    let threads = address_space.map_or(most, |limit| (limit / 4 / stack).clamp(4, most));
    usize::try_from(threads).unwrap_or(usize::MAX)
}

/// Memory that fits into what is left of the address space, if that has a limit, beside the stacks of threads and what
/// the allocator sets aside.
fn address_space() -> Option<u64> {
    let limit = getrlimit(Resource::As).current?;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    Some(limit.saturating_sub(used(&status)) / 2)
}

/// The address space that is in use, as `/proc/self/status` says it.
fn used(status: &str) -> u64 {
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB"));
    size.and_then(|size| size.trim().parse::<u64>().ok()).map_or(0, |size| size << 10)
}

/// A quarter for content, and half for sessions. Whether anything had to be less.
fn fit_into(limits: &mut Limits, memory: u64) -> bool {
    let before = (limits.content_memory, limits.connections);
    let connections = usize::try_from(memory / 2 / SESSION).unwrap_or(usize::MAX).max(1);
    limits.content_memory = limits.content_memory.min(ByteSize(memory / 4));
    limits.connections = limits.connections.min(connections);
    before != (limits.content_memory, limits.connections)
}

/// The least memory that any of the process's control groups has, as cgroups(7) describes them: `groups` is
/// `/proc/self/cgroup`, and both versions may be there. Seen from a container, the own group is at the root.
fn group_limit(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (controllers, group) = line.split_once(':')?;
        let (root, file) = match controllers {
            "" => (root.to_path_buf(), "memory.max"),
            "memory" => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return None,
        };
        let own = root.join(group.trim_start_matches('/'));
        let above = own.ancestors().take_while(|directory| directory.starts_with(&root));
        above.filter_map(|directory| fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok()).min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_memory_of_all_groups_counts_in_either_version() {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("memory.max", "max\n");
        write("system.slice/memory.max", "500\n");
        write("system.slice/empath.service/memory.max", "max\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/docker/x/memory.limit_in_bytes", "300\n");
        for (groups, limit) in [
            ("0::/system.slice/empath.service\n", Some(500)),
            ("0::/\n", None),
            ("0::/elsewhere\n", None),
            ("4:memory:/docker/x\n1:cpu:/docker/x\n", Some(300)),
            ("4:memory:/unseen\n", Some(9_223_372_036_854_771_712)),
            ("4:memory:/docker/x\n0::/system.slice\n", Some(300)),
            ("nonsense\n\n", None),
        ] {
            assert_eq!(group_limit(groups, root.path()), limit, "{groups:?}");
        }
    }

    #[test]
    fn the_address_space_in_use_is_read_in_octets() {
        assert_eq!(
            used("Name:\tempath\nVmPeak:\t    2048 kB\nVmSize:\t    1024 kB\nVmRSS:\t 1 kB\n"),
            1 << 20
        );
        assert_eq!(used("VmSize:\tmuch\n") + used(""), 0);
        assert!(used(&fs::read_to_string("/proc/self/status").unwrap()) > 0);
    }

    #[test]
    fn threads_use_up_a_part_of_the_address_space_at_most() {
        for (limit, threads) in
            [(None, 512), (Some(u64::MAX), 512), (Some(512 << 20), 64), (Some(1 << 20), 4)]
        {
            assert_eq!(threads_in(limit), threads, "{limit:?}");
        }
    }

    #[test]
    fn limits_fit_into_the_memory_that_there_is() {
        let mut limits = Limits::default();
        assert!(!fit_into(&mut limits, 1 << 30));
        assert!(fit_into(&mut limits, 128 << 20));
        assert_eq!((limits.content_memory.0, limits.connections), (32 << 20, 3276));
        assert!(!fit_into(&mut limits, 128 << 20));
    }
}
