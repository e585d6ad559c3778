//! A full or failing disk refuses message after message: the log says when that begins, and when it is over.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use empath_common::MessageId;
use empath_smtp::server::IntakeError;
use empath_spool::CommitError;
use tracing::{debug, error, info, warn};

/// Messages that were refused since the last one that was not.
#[derive(Debug, Default)]
pub(super) struct Refusals(AtomicU64);

impl Refusals {
    /// What the client is told of a failure of the spool.
    pub(super) fn refuse(&self, id: MessageId, failure: &CommitError) -> IntakeError {
        let answer = match failure {
            CommitError::Full(_) => IntakeError::Full,
            CommitError::TooLarge(_) => {
                // That says nothing about others.
                warn!(message_id = %id, error = %failure, "message refused");
                return IntakeError::TooLarge;
            }
            CommitError::Io(_) | CommitError::Unsettled(_) | CommitError::Closed => IntakeError::Failed,
        };
        if self.begins() {
            error!(message_id = %id, error = %failure, "messages are refused: the spool cannot store them");
        } else {
            debug!(message_id = %id, error = %failure, "message refused");
        }
        answer
    }

    /// Notes that a message was stored.
    pub(super) fn stored(&self) {
        if let Some(refused) = self.ends() {
            info!(refused, "messages are stored again");
        }
    }

    fn begins(&self) -> bool {
        self.0.fetch_add(1, Relaxed) == 0
    }

    /// How many there were, if this is the end of it.
    fn ends(&self) -> Option<u64> {
        // Most of the time there were none, and then nothing is written that other threads have in their caches.
        (self.0.load(Relaxed) > 0).then(|| self.0.swap(0, Relaxed)).filter(|refused| *refused > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_refusal_is_news_and_the_end_of_them_with_their_number() {
        let refusals = Refusals::default();
        for count in 1..4 {
            assert_eq!(refusals.ends(), None);
            let news: Vec<_> = (0..count).map(|_| refusals.begins()).collect();
            assert_eq!(news.iter().position(|news| *news), Some(0));
            assert_eq!(news.iter().filter(|news| **news).count(), 1);
            assert_eq!(refusals.ends(), Some(count));
        }
        let id = MessageId::from_bytes([0; 16]);
        assert_eq!(refusals.refuse(id, &CommitError::TooLarge(1)), IntakeError::TooLarge);
        assert_eq!(refusals.ends(), None, "one message is no streak");
    }
}
