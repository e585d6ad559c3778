//! Commits from many writers at once and says how fast that was:
//! `cargo run -p empath-spool --release --example spool_load -- DIRECTORY [WRITERS] [OCTETS] [COMMITS]`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for developers")]

use std::{env, sync::Arc, time::Duration};

use bytes::Bytes;
use empath_common::{Clock, Envelope, ForwardPath, MessageId, ReversePath, SystemClock};
use empath_metrics::Registry;
use empath_spool::{Config, Entry, FileSpool, Metrics, Spool};
use tokio::time::Instant;

fn main() {
    let mut arguments = env::args().skip(1);
    let path = arguments.next().unwrap_or_else(|| "spool".to_owned());
    let mut number = |default: u64| arguments.next().map_or(default, |text| text.parse().unwrap());
    let (writers, octets, commits) = (number(128), number(4096), number(200_000));
    let config = Config { path: path.into(), ..Config::default() };
    let (spool, report) = FileSpool::open(&config, Metrics::new(&Registry::default())).unwrap();
    println!("opened with {} messages", report.messages);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (cpu, started) = (cpu_time(), Instant::now());
    runtime.block_on(load(Arc::new(spool), writers, octets, commits));
    let (elapsed, cpu) = (started.elapsed().as_secs_f64(), cpu_time().saturating_sub(cpu).as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "for show")]
    let commits = commits as f64;
    println!(
        "{writers} writers, {octets} octets: {:.0} commits/s, {:.1} µs CPU each",
        commits / elapsed,
        cpu / commits * 1e6
    );
}

/// Every message is removed again by the commit after the next, as by a relay that is not behind.
async fn load(spool: Arc<FileSpool>, writers: u64, octets: u64, commits: u64) {
    let recipient = ForwardPath::Mailbox("bob@example.test".parse().unwrap());
    let envelope =
        Arc::new(Envelope::new(ReversePath::Mailbox("alice@example.test".parse().unwrap()), recipient));
    let content = Bytes::from(vec![b'x'; usize::try_from(octets).unwrap()]);
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let (spool, envelope, content) = (Arc::clone(&spool), Arc::clone(&envelope), content.clone());
        tasks.spawn(async move {
            let mut rng = fastrand::Rng::with_seed(writer);
            for _ in 0..commits / writers {
                let id = MessageId::generate(SystemClock.now(), &mut rng);
                let (envelope, content) = (Arc::clone(&envelope), content.clone().into());
                spool.commit(Entry::Accepted { id, envelope, content }.into()).await.unwrap();
                drop(spool.commit(Entry::Removed(id).into()));
            }
        });
    }
    tasks.join_all().await;
    spool.close().await;
}

/// What all threads have used: the 14th and 15th field of `proc_pid_stat(5)`, in hundredths of a second.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    Duration::from_millis(fields.map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
}
