use std::{
    path::{Component, Path, PathBuf},
    time::Duration,
};

use empath_common::{ByteSize, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where accepted messages live until their end.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The directory of the spool.
    ///
    /// It is created with mode 0700 if it does not exist, else it must be empty or a spool. It must belong to the daemon's
    /// user and is used by one daemon at a time. It holds every message that was answered 250 and not yet delivered: put it on a disk that honours
    /// fdatasync, and never remove anything from it by hand. It can't lie in a directory of the system (`/etc`,
    /// `/usr`, …), nor have `..` in it. Relative to the configuration file. Default: `"/var/spool/empath"`.
    pub path: PathBuf,

    /// How messages are kept.
    ///
    /// `File` is the journal: a message survives power loss from the moment of the 250. `Memory` keeps nothing
    /// across a restart, which RFC 5321 §6.1 does not allow for mail that anyone wants: for tests and benches.
    /// Default: `File`.
    pub backend: Backend,

    /// Octets of one file of the journal.
    ///
    /// The disk space of ended messages comes back a whole file at a time; larger files are changed less often. Two
    /// of them are allocated in advance. A message that is larger gets a file of its own. From `"64KiB"` to `"1GiB"`.
    /// Default: `"64MiB"`.
    pub segment_size: ByteSize,

    /// How a message is made durable before it is acknowledged.
    ///
    /// `Data` is fdatasync(2), which is enough wherever disk and file system keep to POSIX. `All` is fsync(2), for file
    /// systems whose fdatasync is known to forget something; it costs speed. `Never` leaves the moment to the kernel: a
    /// power loss then loses mail that was acknowledged, which RFC 5321 §6.1 does not allow; a crash of the daemon alone
    /// does not. Default: `Data`.
    pub sync: Sync,

    /// Whether segments are filled with zeros before they are used.
    ///
    /// A sync is faster into space that was written before. On a file system that never writes to the same place twice
    /// (btrfs, ZFS) filling is wasted: `false` saves it. Default: `true`.
    pub preallocate: bool,

    /// Messages of more octets than this are kept in a file of their own.
    ///
    /// Such content is written to `large/` as it arrives and read from there as it is sent, so that a message of any size
    /// takes little memory; smaller content is in memory until its first delivery attempt. From `"4KiB"` to
    /// `"64MiB"`. Default: `"1MiB"`.
    pub large_threshold: ByteSize,

    /// Octets of what is kept of damage.
    ///
    /// What does not verify is copied to `damaged/` in the spool, for an operator to look at and to discard. Where a copy
    /// would make more of it than this, it is not made: the segment with the damage stays instead, with all younger
    /// ones, until copies are discarded; the log says so as an error and `empath_spool_kept_segments` counts it. Large
    /// content that has lost its record is moved there all the same, for that takes no space. At least `"1MiB"`.
    /// Default: `"1GiB"`.
    pub max_damaged: ByteSize,

    /// How long to wait before a file that could not be deleted, or damage that could not be copied, is tried again.
    ///
    /// The wait doubles with each failure, up to an hour. Default: `"60s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub cleanup_interval: Duration,

    /// After how many failures to delete a file an operator must look.
    ///
    /// From then on the log says it as an error and `empath_spool_undeleted_files` counts the file; it goes on being
    /// tried. Default: `3`.
    pub max_cleanup_attempts: u32,
}

/// How a message is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Sync {
    /// fdatasync(2): the content and what is needed to find it.
    #[default]
    Data,
    /// fsync(2): everything about the file.
    All,
    /// Not at all.
    Never,
}

/// How messages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Backend {
    /// A journal in files.
    #[default]
    File,
    /// In memory, gone when the process ends.
    Memory,
}

/// Directories where no spool may be.
const SYSTEM: [&str; 10] =
    ["/etc", "/bin", "/sbin", "/lib", "/lib64", "/usr", "/boot", "/sys", "/proc", "/dev"];

/// Directories that may hold a spool and must not be one, even when they are empty.
const SHARED: [&str; 2] = ["/tmp", "/var/tmp"];

impl Default for Config {
    fn default() -> Self {
        Self {
            path: "/var/spool/empath".into(),
            backend: Backend::default(),
            segment_size: ByteSize(64 << 20),
            sync: Sync::default(),
            preallocate: true,
            large_threshold: ByteSize(1 << 20),
            max_damaged: ByteSize(1 << 30),
            cleanup_interval: Duration::from_mins(1),
            max_cleanup_attempts: 3,
        }
    }
}

impl Config {
    /// What is wrong beyond what the types say.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Err(reason) = check(&self.path) {
            problems.push(Problem::new("path", format!("{}: {reason}", self.path.display())));
        }
        if !(64 << 10..=1 << 30).contains(&self.segment_size.0) {
            problems.push(Problem::new("segment_size", "must be from 64KiB to 1GiB"));
        }
        if !(4 << 10..=64 << 20).contains(&self.large_threshold.0) {
            problems.push(Problem::new("large_threshold", "must be from 4KiB to 64MiB"));
        }
        if self.max_damaged.0 < 1 << 20 {
            problems.push(Problem::new("max_damaged", "must be at least 1MiB"));
        }
        if self.cleanup_interval < Duration::from_secs(1) {
            problems.push(Problem::new("cleanup_interval", "must be at least 1s"));
        }
        if self.max_cleanup_attempts == 0 {
            problems.push(Problem::new("max_cleanup_attempts", "must be at least 1"));
        }
        problems
    }
}

/// Why a directory can't be a spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    /// It goes up.
    #[error("a spool path has no \"..\"; write the path that is meant")]
    Parent,
    /// It is part of the system.
    #[error("the spool can't be in {0}, which belongs to the system; choose a directory below /var/spool")]
    System(&'static str),
    /// It would be taken from everybody else.
    #[error("the spool can't be {0}, which all users share; choose a directory below /var/spool")]
    Shared(&'static str),
    /// There is none.
    #[error("the spool path is empty; name a directory")]
    Empty,
}

/// The rules that a path keeps, with symbolic links resolved and without.
pub(crate) fn check(path: &Path) -> Result<(), PathProblem> {
    if path.as_os_str().is_empty() {
        return Err(PathProblem::Empty);
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(PathProblem::Parent);
    }
    if path == Path::new("/") {
        return Err(PathProblem::System("/"));
    }
    if let Some(shared) = SHARED.iter().find(|shared| path == Path::new(shared)) {
        return Err(PathProblem::Shared(shared));
    }
    // `/usr` and `/usr/x`, not `/usrlocal`.
    SYSTEM
        .iter()
        .find(|system| path.starts_with(system))
        .map_or(Ok(()), |system| Err(PathProblem::System(system)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_system_and_paths_that_go_up_are_refused() {
        for (path, expected) in [
            ("/var/spool/empath", Ok(())),
            ("var/spool", Ok(())),
            ("/usrlocal/spool", Ok(())),
            ("/", Err(PathProblem::System("/"))),
            ("/lib/spool", Err(PathProblem::System("/lib"))),
            ("/lib64", Err(PathProblem::System("/lib64"))),
            ("/etc", Err(PathProblem::System("/etc"))),
            ("/usr/spool", Err(PathProblem::System("/usr"))),
            ("//dev///shm", Err(PathProblem::System("/dev"))),
            ("/var/./spool", Ok(())),
            ("/tmp/spool", Ok(())),
            ("/tmp", Err(PathProblem::Shared("/tmp"))),
            ("/var/tmp/", Err(PathProblem::Shared("/var/tmp"))),
            ("/var/../etc", Err(PathProblem::Parent)),
            ("..", Err(PathProblem::Parent)),
            ("", Err(PathProblem::Empty)),
        ] {
            assert_eq!(check(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn every_problem_is_reported_under_its_key() {
        let config = Config {
            path: "/etc/spool".into(),
            segment_size: ByteSize(1),
            large_threshold: ByteSize(1),
            max_damaged: ByteSize(1),
            cleanup_interval: Duration::ZERO,
            max_cleanup_attempts: 0,
            ..Config::default()
        };
        let keys: Vec<_> = config.validate().into_iter().map(|problem| problem.key).collect();
        assert_eq!(
            keys,
            [
                "path",
                "segment_size",
                "large_threshold",
                "max_damaged",
                "cleanup_interval",
                "max_cleanup_attempts"
            ]
        );
        assert!(Config::default().validate().is_empty());
    }
}
