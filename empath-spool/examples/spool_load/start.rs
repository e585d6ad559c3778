use std::sync::Arc;

use clap::Args;
use empath_spool::{FileSpool, Spool};
use tokio::time::Instant;

use crate::figures::{memory, per};

/// Opens the spool as it is: how long that takes, and how much more memory the process has then.
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Then loads the envelope and the state of every message, as the daemon does before it delivers.
    #[arg(long)]
    load: bool,
}

impl Start {
    pub(crate) async fn run(self, open: impl FnOnce() -> Arc<FileSpool>) {
        let (before, started) = (memory(), Instant::now());
        let spool = open();
        let (opened, memory) = (started.elapsed(), memory() - before);
        let messages = spool.len();
        println!(
            "messages={messages} open_seconds={:.3} memory={memory} memory/message={:.1}",
            opened.as_secs_f64(),
            per(memory, messages),
        );
        if self.load {
            let started = Instant::now();
            for id in spool.ids() {
                spool.load(id).await.unwrap();
            }
            let elapsed = started.elapsed().as_secs_f64();
            println!("load_seconds={elapsed:.3} us/message={:.1}", elapsed * 1e6 / per(messages, 1));
        }
        spool.close().await;
    }
}
