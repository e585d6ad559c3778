//! What the spool costs beside the disk: `cargo bench -p empath-spool`. Nothing is synced here; the example `spool_load`
//! measures with the disk.

#![expect(clippy::unwrap_used, reason = "a bench")]

use std::{iter, sync::Arc};

use bytes::Bytes;
use divan::{Bencher, counter::ItemsCount};
use empath_common::{Clock, Envelope, ForwardPath, MessageId, ReversePath, SystemClock};
use empath_metrics::Registry;
use empath_spool::{Batch, Config, Entry, FileSpool, Metrics, Spool, Sync};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

const OCTETS: [usize; 3] = [1 << 10, 10 << 10, 100 << 10];

fn main() {
    divan::main();
}

fn open(directory: &TempDir) -> FileSpool {
    let config = Config { path: directory.path().to_owned(), sync: Sync::Never, ..Config::default() };
    FileSpool::open(&config, Metrics::new(&Registry::default())).unwrap().0
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).build().unwrap()
}

/// Messages without end.
fn messages(octets: usize) -> impl Iterator<Item = (MessageId, Entry)> {
    let mailbox = |name: &str| name.parse().unwrap();
    let mut envelope = Envelope::new(
        ReversePath::Mailbox(mailbox("sender@department.example.test")),
        ForwardPath::Mailbox(mailbox("first@department.example.test")),
    );
    envelope.add(ForwardPath::Mailbox(mailbox("second@department.example.test")), 100).unwrap();
    let (envelope, content) = (Arc::new(envelope), Bytes::from(vec![b'x'; octets]));
    let mut rng = fastrand::Rng::with_seed(0);
    iter::repeat_with(move || {
        let id = MessageId::generate(SystemClock.now(), &mut rng);
        (id, Entry::Accepted { id, envelope: Arc::clone(&envelope), content: content.clone().into() })
    })
}

/// The part of a commit that the caller's thread does: to encode, to compute the checksum, to queue.
#[divan::bench(args = OCTETS)]
fn encode(bencher: Bencher<'_, '_>, octets: usize) {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(&directory);
    let mut messages = messages(octets);
    bencher
        .with_inputs(|| messages.next().unwrap().1)
        .bench_local_values(|accepted| spool.commit(accepted.into()));
}

/// 128 messages from the first call to the last answer.
#[divan::bench(args = OCTETS)]
fn commit_group(bencher: Bencher<'_, '_>, octets: usize) {
    let directory = tempfile::tempdir().unwrap();
    let (spool, runtime) = (open(&directory), runtime());
    let mut messages = messages(octets);
    bencher
        .counter(128_usize)
        .with_inputs(|| messages.by_ref().take(128).collect::<Vec<_>>())
        .bench_local_values(|group| {
            let (ids, group): (Vec<_>, Vec<_>) = group.into_iter().unzip();
            let answers: Vec<_> = group.into_iter().map(|entry| spool.commit(entry.into())).collect();
            runtime.block_on(async {
                for answer in answers {
                    answer.await.unwrap();
                }
            });
            drop(spool.commit(Batch(ids.into_iter().map(Entry::Removed).collect())));
        });
}

/// A start that finds one segment of messages.
#[divan::bench(args = OCTETS, sample_count = 10, sample_size = 1)]
fn recovery(bencher: Bencher<'_, '_>, octets: usize) {
    let directory = tempfile::tempdir().unwrap();
    let count = (48 << 20) / octets;
    fill(&open(&directory), octets, count);
    bencher.counter(ItemsCount::new(count)).bench_local(|| open(&directory));
}

/// Envelope and state of a message.
#[divan::bench]
fn load(bencher: Bencher<'_, '_>) {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(&directory);
    fill(&spool, 4096, 1000);
    let (runtime, ids) = (runtime(), spool.ids());
    let mut ids = ids.iter().cycle();
    bencher.bench_local(|| runtime.block_on(spool.load(*ids.next().unwrap())).unwrap());
}

/// The content of a message.
#[divan::bench(args = OCTETS)]
fn content(bencher: Bencher<'_, '_>, octets: usize) {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(&directory);
    fill(&spool, octets, 100);
    let (runtime, ids) = (runtime(), spool.ids());
    let mut ids = ids.iter().cycle();
    bencher.bench_local(|| runtime.block_on(spool.content(*ids.next().unwrap())).unwrap());
}

fn fill(spool: &FileSpool, octets: usize, count: usize) {
    let batch: Vec<_> = messages(octets).take(count).map(|(_, entry)| entry).collect();
    let runtime = runtime();
    for entry in batch {
        runtime.block_on(spool.commit(entry.into())).unwrap();
    }
}
