use std::{sync::Arc, thread, time::Duration};

use clap::Args;
use empath_metrics::Registry;
use empath_spool::{Entry, FileSpool, Spool};
use tokio::{
    runtime::Handle,
    task::{JoinHandle, spawn_blocking},
    time::Instant,
};

use crate::{
    figures::{Latencies, Run},
    message::Messages,
};

/// Messages that arrive at a given rate, whether or not those before have been answered. The time of each runs from when
/// it was to arrive, so that a spool which falls behind shows.
#[derive(Debug, Args)]
pub(crate) struct Latency {
    /// Messages a second, at random moments.
    #[arg(long)]
    rate: f64,
    /// Octets of content.
    #[arg(long, default_value_t = 4096)]
    octets: usize,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

impl Latency {
    pub(crate) async fn run(self, spool: Arc<FileSpool>, registry: &Registry) {
        let run = Run::start(registry);
        let (octets, runtime) = (self.octets, Handle::current());
        let arrivals = spawn_blocking(move || self.arrive(&spool, &runtime));
        let mut latencies = Latencies::default();
        for answered in arrivals.await.unwrap() {
            latencies.add(answered.await.unwrap());
        }
        run.finish(octets, latencies);
    }

    #[expect(clippy::disallowed_methods, reason = "the runtime's timers are too coarse")]
    fn arrive(self, spool: &Arc<FileSpool>, runtime: &Handle) -> Vec<JoinHandle<Duration>> {
        let (mut messages, mut rng) = (Messages::new(0, self.octets), fastrand::Rng::with_seed(0));
        let mut due = Instant::now();
        let end = due + Duration::from_secs_f64(self.seconds);
        let mut answers = Vec::new();
        while due < end {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let (id, accepted) = messages.next();
            let answer = spool.commit(accepted.into());
            let spool = Arc::clone(spool);
            answers.push(runtime.spawn(async move {
                answer.await.unwrap();
                let latency = due.elapsed();
                drop(spool.commit(Entry::Removed(id).into()));
                latency
            }));
            // The gaps of a Poisson process.
            due += Duration::from_secs_f64(-(1.0 - rng.f64()).ln() / self.rate);
        }
        answers
    }
}
