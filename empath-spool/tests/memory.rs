//! A start takes memory for messages, and little for records. Each has a process of its own, to be measured alone.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{env, fs, path::Path, process::Command, sync::Arc, time::Duration};

use empath_common::{Envelope, ForwardPath, MessageId, ReversePath};
use empath_metrics::Registry;
use empath_spool::{Batch, Config, Entry, FileSpool, Metrics, Spool};

/// Where the process to be measured finds its spool.
const SPOOL: &str = "EMPATH_TEST_SPOOL";
/// Records of 70 octets, so that they fit into one segment.
const RECORDS: u64 = 200_000;
/// Most octets that a start may take with them: what it reads at a time, the program, threads.
const MOST: usize = 12 << 20;

fn open(directory: &Path) -> FileSpool {
    let config = Config { path: directory.join("spool"), ..Config::default() };
    FileSpool::open(&config, Metrics::new(&Registry::default())).unwrap().0
}

fn id(number: u64) -> MessageId {
    MessageId::from_bytes(u128::from(number).to_be_bytes())
}

async fn write(directory: &Path, in_a_batch: u64) {
    let spool = open(directory);
    let envelope = Arc::new(Envelope::new(ReversePath::Null, ForwardPath::Postmaster));
    let accepted = Entry::Accepted { id: id(0), envelope, content: bytes::Bytes::new().into() };
    spool.commit(accepted.into()).await.unwrap();
    for first in (1..RECORDS).step_by(usize::try_from(in_a_batch).unwrap()) {
        let removed = (first..RECORDS.min(first + in_a_batch)).map(|number| Entry::Removed(id(number)));
        spool.commit(Batch(removed.collect())).await.unwrap();
    }
    spool.close().await;
}

/// What the process that opens the spool takes at most, with what is done behind it.
fn largest_memory(directory: &Path) -> usize {
    let this = env::current_exe().unwrap();
    let arguments = ["--exact", "the_process_that_is_measured", "--nocapture"];
    let output = Command::new(this).args(arguments).env(SPOOL, directory).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.split_once("VmHWM:")).unwrap().1;
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn the_process_that_is_measured() {
    let Some(directory) = env::var_os(SPOOL) else {
        return;
    };
    let spool = open(directory.as_ref());
    assert_eq!(spool.ids(), [id(0)]);
    let journal = Path::new(&directory).join("spool/journal");
    let (segment, contents) = (journal.join("00000001.seg"), journal.join("00000001.contents"));
    let mut polls = tokio::time::interval(Duration::from_millis(10));
    // Nearly nothing in it is needed any more, so it may be gone before it is looked at.
    while segment.exists() && !contents.exists() {
        polls.tick().await;
    }
    // The keeper's thread ends with the last of what it has begun.
    drop(spool);
    println!("{}", fs::read_to_string("/proc/self/status").unwrap());
}

#[tokio::test]
async fn a_start_with_many_small_records_takes_little_memory() {
    for in_a_batch in [1000, RECORDS] {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), in_a_batch).await;
        for what in ["read from the segment", "from what is written down about it"] {
            let memory = largest_memory(directory.path());
            println!("{what}, {in_a_batch} in a batch: {memory}");
            assert!(memory < MOST, "{what}, {in_a_batch} in a batch: {memory} octets");
        }
    }
}
