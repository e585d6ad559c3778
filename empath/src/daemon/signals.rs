use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that mean something to the daemon.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, hang_up: signal(SignalKind::hangup())? })
    }

    /// Waits for one that says to stop.
    pub(super) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Does `reload` at each SIGHUP until a signal says to stop; what is being done then is given up. Any number of
    /// SIGHUPs during a reload ask for one more.
    pub(super) async fn reload_until_stop(&mut self, reload: impl AsyncFn()) {
        let Self { terminate, interrupt, hang_up } = self;
        let reloads = async {
            loop {
                hang_up.recv().await;
                reload().await;
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = reloads => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::pending};

    use rustix::process::{Signal, getpid, kill_process};
    use tokio::sync::Notify;

    use super::*;

    /// One test for all, since signals are the whole process's.
    #[tokio::test]
    async fn orders_to_reload_are_joined_and_none_keeps_an_order_to_stop_from_being_heard() {
        let mut signals = Signals::new().unwrap();
        let (reloads, begun) = (Cell::new(0), Notify::new());
        let kill = |signal| kill_process(getpid(), signal).unwrap();
        let reload = async || {
            reloads.set(reloads.get() + 1);
            begun.notify_one();
            match reloads.get() {
                // Those that come meanwhile are there when it has ended.
                1 => (0..3).for_each(|_| kill(Signal::HUP)),
                _ => pending().await,
            }
        };
        let operator = async {
            kill(Signal::HUP);
            begun.notified().await;
            begun.notified().await;
            kill(Signal::TERM);
        };
        tokio::join!(signals.reload_until_stop(reload), operator);
        assert_eq!(reloads.get(), 2);
        kill(Signal::INT);
        signals.stop().await;
    }
}
