use std::time::Duration;

use tokio::time::Instant;

use super::{Phase, Timeouts};

/// Until when the client may take for what comes next.
#[derive(Debug)]
pub(super) struct Deadline<'a> {
    timeouts: &'a Timeouts,
    /// Of the whole session.
    end: Instant,
    /// Of the command that is going on.
    command: Instant,
    /// How long content may be waited for. Waiting uses it up, what comes fills it, up to `data_block`: a client may fall
    /// behind `content_rate` for so long, and whoever is faster always has all of it.
    credit: Duration,
}

impl<'a> Deadline<'a> {
    /// Of a session that begins now.
    pub(super) fn new(timeouts: &'a Timeouts, now: Instant) -> Self {
        let end = now + timeouts.connection;
        Self { timeouts, end, command: end, credit: timeouts.data_block }
    }

    /// Content begins.
    pub(super) fn begin(&mut self) {
        self.credit = self.timeouts.data_block;
    }

    /// Of reading, if it begins now. Octets that complete no command win no time, so a session can't be kept by one octet
    /// now and then.
    pub(super) fn read(&mut self, phase: Phase, now: Instant) -> Instant {
        let deadline = match phase {
            Phase::Command => {
                self.command = now + self.timeouts.command;
                // What a message has used up is not missing to the next chunk, even if that one is refused.
                self.begin();
                self.command
            }
            Phase::RestOfCommand => self.command,
            Phase::DataInit => now + self.timeouts.data_init,
            Phase::DataBlock => now + self.credit,
        };
        deadline.min(self.end)
    }

    /// So much of the content came after so long. The time between reading, which we took ourselves, doesn't count.
    pub(super) fn content(&mut self, octets: usize, waited: Duration) {
        let full = self.timeouts.data_block;
        let earned = match self.timeouts.content_rate.0 {
            0 => full,
            rate => Duration::from_millis((octets as u64).saturating_mul(1000) / rate),
        };
        self.credit = self.credit.saturating_sub(waited).saturating_add(earned).min(full);
    }

    /// Of writing, if it begins now.
    pub(super) fn write(&self, now: Instant) -> Instant {
        (now + self.timeouts.command).min(self.end)
    }
}
