use empath_common::{Domain, MessageId};
use serde::{Deserialize, Serialize};

use crate::{Failure, FailureCode, QueueEntry, Status};

/// Which messages are meant. Every condition that is there must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Messages with this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Messages with a recipient in this domain that has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
    /// Messages of this sender, without brackets; empty for the null reverse-path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
}

/// The messages that a command changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// The whole queue.
    All,
    /// These.
    Ids(Vec<MessageId>),
    /// Those that match, by at least one condition.
    Filter(Filter),
}

impl Filter {
    /// Whether there is no condition at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether every condition holds.
    pub fn matches(&self, entry: &QueueEntry) -> bool {
        self.status.is_none_or(|status| entry.status == status)
            && self.sender.as_ref().is_none_or(|sender| entry.sender.eq_ignore_ascii_case(sender))
            && self.domain.as_ref().is_none_or(|domain| {
                entry.recipients.iter().any(|recipient| {
                    let ended =
                        matches!(recipient.status, Status::Completed | Status::Failed | Status::Expired);
                    !ended && domain_of(&recipient.address).is_some_and(|other| other == *domain)
                })
            })
    }
}

fn domain_of(address: &str) -> Option<Domain> {
    address.rsplit_once('@').and_then(|(_, domain)| domain.parse().ok())
}

impl Selection {
    /// A filter without a condition would mean the whole queue; that has to be said.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self {
            Self::Filter(filter) if filter.is_empty() => Err(Failure::new(
                FailureCode::BadRequest,
                "the filter has no condition; say \"all\" for all messages",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Priority, RecipientEntry};

    use super::*;

    fn entry() -> QueueEntry {
        let recipient = |address: &str, status| RecipientEntry {
            address: address.to_owned(),
            status,
            attempts: 1,
            next_attempt_at: None,
            next_hop: None,
            host: None,
            last_reply: None,
        };
        QueueEntry {
            id: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(),
            sender: "Alice@example.test".to_owned(),
            size: 1,
            received_at: jiff::Timestamp::UNIX_EPOCH,
            status: Status::Deferred,
            priority: Priority::Normal,
            recipients: vec![
                recipient("bob@b.test", Status::Deferred),
                recipient("carol@c.test", Status::Completed),
            ],
        }
    }

    #[test]
    fn every_condition_must_hold() {
        let filter = |status, domain: Option<&str>, sender: Option<&str>| Filter {
            status,
            domain: domain.map(|domain| domain.parse().unwrap()),
            sender: sender.map(ToOwned::to_owned),
        };
        for (filter, expected) in [
            (filter(None, None, None), true),
            (filter(Some(Status::Deferred), Some("B.test"), Some("alice@EXAMPLE.test")), true),
            (filter(Some(Status::Pending), Some("b.test"), Some("alice@example.test")), false),
            (filter(Some(Status::Deferred), Some("c.test"), None), false),
            (filter(Some(Status::Deferred), Some("d.test"), None), false),
            (filter(None, None, Some("")), false),
        ] {
            assert_eq!(filter.matches(&entry()), expected, "{filter:?}");
        }
    }

    #[test]
    fn the_status_of_a_message_is_that_of_its_most_active_recipient() {
        use Status::{Completed, Deferred, Held, InProgress, Pending};
        for (recipients, expected) in [
            (&[Completed, Held, Pending, Deferred, InProgress][..], InProgress),
            (&[Completed, Held, Pending, Deferred], Deferred),
            (&[Completed, Held, Pending], Pending),
            (&[Completed, Held], Held),
            (&[Completed], Completed),
        ] {
            assert_eq!(Status::of_message(recipients.iter().copied()), expected);
        }
    }
}
