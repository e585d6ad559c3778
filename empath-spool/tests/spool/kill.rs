//! A process that is killed in the middle of its commits loses nothing that it was told is durable.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use crate::support::{accepted, assert_whole, commit, id, open};
use empath_spool::Spool;

const DIRECTORY: &str = "EMPATH_SPOOL_TEST_DIRECTORY";
const FIRST: &str = "EMPATH_SPOOL_TEST_FIRST";
const WRITERS: u64 = 8;

/// The process that is killed: it commits for ever and prints each number that is durable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn committing_child() {
    let (Ok(directory), Ok(first)) = (env::var(DIRECTORY), env::var(FIRST)) else {
        return;
    };
    let first: u64 = first.parse().unwrap();
    let spool = Arc::new(open(Path::new(&directory)).0);
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let spool = Arc::clone(&spool);
        writers.spawn(async move {
            for number in (first + writer..).step_by(8) {
                commit(&*spool, accepted(number, 3000)).await;
                // A single write, so that a killed process leaves whole lines.
                std::io::stdout().lock().write_all(format!("\ndurable {number}\n").as_bytes()).unwrap();
            }
        });
    }
    writers.join_all().await;
}

#[tokio::test]
async fn sigkill_loses_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..6 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "kill::committing_child", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .env(FIRST, (round * 1_000_000).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut count, enough) = (0, 50 + fastrand::usize(..300));
        for line in lines.map_while(Result::ok) {
            let Some(number) = line.strip_prefix("durable ") else {
                continue;
            };
            acknowledged.push(number.parse::<u64>().unwrap());
            count += 1;
            if count == enough {
                // The rest of what it printed is read to the end of the pipe.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(count >= enough);
        let (spool, report) = open(directory.path());
        assert_eq!(report.damaged, []);
        let ids = spool.ids();
        assert!(acknowledged.iter().all(|number| ids.binary_search(&id(*number)).is_ok()));
        assert!(ids.len() <= acknowledged.len() + 6 * usize::try_from(WRITERS).unwrap());
        for number in acknowledged.iter().rev().take(count) {
            assert_whole(&spool, *number, 3000).await;
        }
    }
}
