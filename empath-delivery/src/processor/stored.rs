//! What is told of recipients by what the spool has of them.

use empath_common::{Domain, Reply};
use empath_spool::{Attempt, Ended, RecipientState, Status, Untold};

use super::outcome::EXPIRED;
use crate::{
    config::HostAddr,
    dsn::{Arrived, Failed, Local, News, Success},
    queue::{Job, JobRecipient},
};

impl News {
    /// Adds what the sender is still to be told of a recipient.
    pub(super) fn add(&mut self, job: &Job, recipient: &JobRecipient, state: &RecipientState) {
        let last = last_attempt(state);
        let how = match state.untold {
            None => return,
            Some(Untold::Failed) => {
                let expired = state.status == Status::Ended(Ended::Expired);
                let status = last.filter(|_| !expired).map_or(EXPIRED, |last| last.status);
                self.failed.extend(failed(job, recipient, last).map(|failed| Failed {
                    status,
                    expired,
                    ..failed
                }));
                return;
            }
            Some(Untold::Delivered) => Arrived::Delivered,
            Some(Untold::Relayed) => Arrived::Relayed,
        };
        let (Some(last), Some(path)) = (last, job.envelope.recipients().get(recipient.index as usize)) else {
            return;
        };
        self.arrived.push(Success {
            recipient: path.clone(),
            orcpt: job.envelope.notification_of(recipient.index as usize).orcpt.clone(),
            how,
            host: last.host.as_deref().and_then(host),
            reply: last.reply.clone().unwrap_or_else(|| Reply::plain(250, "")),
        });
    }
}

pub(super) fn last_attempt(state: &RecipientState) -> Option<&Attempt> {
    state.history.last()
}

/// What is told about a recipient by its last attempt, when its time in the queue is over.
pub(super) fn failed(job: &Job, recipient: &JobRecipient, last: Option<&Attempt>) -> Option<Failed> {
    Some(Failed {
        recipient: job.envelope.recipients().get(recipient.index as usize)?.clone(),
        orcpt: job.envelope.notification_of(recipient.index as usize).orcpt.clone(),
        status: EXPIRED,
        host: last.and_then(|last| last.host.as_deref()).and_then(host),
        reply: last.and_then(|last| last.reply.clone()),
        detail: last.map_or_else(|| "no attempt could be made".to_owned(), |last| last.detail.clone()),
        local: last.and_then(|last| Local::of(last.status, last.reply.as_ref())),
        last_attempt: last.map(|last| last.at),
        expired: true,
    })
}

/// The host of `mx1.example.test[192.0.2.1]:25` or of an address with its port.
fn host(shown: &str) -> Option<HostAddr> {
    match shown.split_once('[') {
        Some((name, _)) if !name.is_empty() => Domain::parse_host(name).ok().map(HostAddr::Name),
        _ => shown.parse::<std::net::SocketAddr>().ok().map(|address| HostAddr::Ip(address.ip())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_stored_attempt_is_found_again() {
        let table = [
            ("mx1.example.test[192.0.2.1]:25", Some("mx1.example.test")),
            ("mx_1.example.test[192.0.2.1]:25", Some("mx_1.example.test")),
            ("192.0.2.1:25", Some("192.0.2.1")),
            ("[2001:db8::1]:25", Some("[2001:db8::1]")),
            ("unix:/run/lmtp", None),
            ("nonsense", None),
        ];
        for (shown, expected) in table {
            assert_eq!(host(shown).map(|host| host.to_string()).as_deref(), expected, "{shown}");
        }
    }
}
