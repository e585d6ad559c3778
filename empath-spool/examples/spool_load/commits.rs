use std::{sync::Arc, time::Duration};

use clap::Args;
use empath_metrics::Registry;
use empath_spool::{Entry, FileSpool, Spool};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    figures::{Latencies, Run},
    message::{Messages, deferred},
};

/// Writers that commit one message after the other. Each message is removed again, without waiting, when it is durable,
/// as by a relay that is not behind: a commit here is a message that came and went.
#[derive(Debug, Args)]
pub(crate) struct Commits {
    /// How many at a time.
    #[arg(long, default_value_t = 128)]
    writers: u64,
    /// Octets of content.
    #[arg(long, default_value_t = 4096)]
    octets: usize,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// The messages stay.
    #[arg(long)]
    keep: bool,
}

impl Commits {
    pub(crate) async fn run(self, spool: Arc<FileSpool>, registry: &Registry) {
        let run = Run::start(registry);
        let until = Instant::now() + Duration::from_secs_f64(self.seconds);
        let mut writers = JoinSet::new();
        for writer in 0..self.writers {
            let (spool, mut messages) = (Arc::clone(&spool), Messages::new(writer, self.octets));
            writers.spawn(async move {
                let mut latencies = Latencies::default();
                let mut started = Instant::now();
                while started < until {
                    let (id, accepted) = messages.next();
                    spool.commit(accepted.into()).await.unwrap();
                    if !self.keep {
                        drop(spool.commit(Entry::Removed(id).into()));
                    }
                    let now = Instant::now();
                    latencies.add(now - started);
                    started = now;
                }
                latencies
            });
        }
        run.finish(self.octets, writers.join_all().await.into_iter().collect());
    }
}

/// Messages that stay.
#[derive(Debug, Args)]
pub(crate) struct Fill {
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Octets of content.
    #[arg(long, default_value_t = 4096)]
    octets: usize,
    /// Attempts that each message has behind it.
    #[arg(long, default_value_t = 0)]
    attempts: u32,
}

impl Fill {
    const WRITERS: u64 = 1000;

    pub(crate) async fn run(self, spool: Arc<FileSpool>, registry: &Registry) {
        let run = Run::start(registry);
        let mut writers = JoinSet::new();
        for writer in 0..Self::WRITERS {
            let (spool, mut messages) = (Arc::clone(&spool), Messages::new(writer, self.octets));
            let mine = self.messages / Self::WRITERS + u64::from(writer < self.messages % Self::WRITERS);
            writers.spawn(async move {
                let mut latencies = Latencies::default();
                for _ in 0..mine {
                    let started = Instant::now();
                    let (id, accepted) = messages.next();
                    let mut answers = vec![spool.commit(accepted.into())];
                    answers.extend(
                        (1..=self.attempts).map(|attempt| spool.commit(deferred(id, attempt).into())),
                    );
                    for answer in answers {
                        answer.await.unwrap();
                    }
                    latencies.add(started.elapsed());
                }
                latencies
            });
        }
        run.finish(self.octets, writers.join_all().await.into_iter().collect());
    }
}
