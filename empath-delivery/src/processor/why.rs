use std::{
    collections::HashSet,
    sync::{Arc, MutexGuard, PoisonError},
};

use empath_common::{Host, MessageId};
use jiff::Timestamp;

use super::{Processor, Shared, view::RecipientView};
use crate::{
    queue::{ConnectionId, Obstacle, RecipientStatus, Snapshot},
    route::NextHop,
};

/// Why a recipient has not got its message yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhyView {
    /// The forward-path without brackets.
    pub address: String,
    /// How far it is.
    pub status: RecipientStatus,
    /// What it waits for.
    pub because: Because,
    /// When that is over, if it is known.
    pub until: Option<Timestamp>,
    /// The same for people.
    pub detail: String,
}

/// What a recipient waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// Nothing: an attempt is being made.
    InProgress,
    /// Name servers.
    Resolving,
    /// Nothing: its attempt is about to start.
    Ready,
    /// A connection.
    LaneBusy,
    /// A rate limit.
    RateLimited,
    /// The circuit breaker of its destination.
    BreakerOpen,
    /// Its next attempt.
    Deferred,
    /// The time that its sender asked for.
    Scheduled,
    /// An operator who holds the message.
    Held,
    /// An operator who has frozen its domain.
    Frozen,
    /// Nothing: it has ended, and its sender is about to be told.
    Untold,
}

impl Processor {
    /// Why a message is still here: each of its recipients that have not ended, or whose end their sender does not know.
    pub async fn why(&self, id: MessageId) -> Option<Vec<WhyView>> {
        let (view, _) = self.view(id).await?;
        let now = self.0.now();
        let state = self.0.lock();
        let message = state.queue.snapshot(id)?;
        let untold = state.queue.untold(id);
        let recipients = view.recipients.iter().zip(&message.recipients).enumerate();
        let why = recipients.filter_map(|(index, (recipient, (status, _, due)))| {
            let obstacle = state.queue.obstacle(id, index, now);
            let host = message.hosts.get(index).and_then(Option::as_ref);
            let (because, until, detail) = match (obstacle, status) {
                (_, RecipientStatus::Held) => {
                    (Because::Held, None, "an operator holds it; queue release lets it go on".to_owned())
                }
                (Some(obstacle), _) => {
                    let to = destination(state.queue.lane(id, index).as_ref(), host);
                    blocked(obstacle, &to, recipient)
                }
                (None, RecipientStatus::Pending | RecipientStatus::Deferred)
                    if state.queue.is_frozen(host) =>
                {
                    frozen(recipient)
                }
                (None, RecipientStatus::InProgress) => self.0.flying(&message, index, &state.queue),
                (None, RecipientStatus::Pending) if due.is_some() => (
                    Because::Scheduled,
                    *due,
                    "its sender asked for that time; queue retry sends it now".to_owned(),
                ),
                (None, RecipientStatus::Pending | RecipientStatus::Deferred) => {
                    (Because::Deferred, *due, last(recipient))
                }
                (None, RecipientStatus::Completed | RecipientStatus::Failed | RecipientStatus::Expired) => {
                    let (untold, _) = untold.iter().find(|(untold, _)| untold.index as usize == index)?;
                    let detail =
                        format!("it has ended{}; its sender is about to be told", because(recipient));
                    (Because::Untold, Some(untold.due).filter(|due| *due > now), detail)
                }
            };
            Some(WhyView { address: recipient.address.clone(), status: *status, because, until, detail })
        });
        Some(why.collect())
    }
}

type Reason = (Because, Option<Timestamp>, String);

/// The lane of mail for somebody at `host`: where it goes, and whose connections and breaker it shares.
fn destination(lane: Option<&NextHop>, host: Option<&Host>) -> String {
    let Some(lane) = lane else { return "its destination".to_owned() };
    let domain = match host {
        Some(Host::Domain(domain)) => Some(domain),
        _ => None,
    };
    let mut to = lane.to_domain(domain).to_string();
    if let Some(source) = lane.terms().and_then(|terms| terms.source.as_ref()) {
        to = format!("{to} from {source}");
    }
    match lane {
        NextHop::Site(site, _) => format!("{to} (with all domains at {site})"),
        _ => to,
    }
}

fn blocked(obstacle: Obstacle, to: &str, recipient: &RecipientView) -> Reason {
    match obstacle {
        Obstacle::Frozen => frozen(recipient),
        Obstacle::None => (Because::Ready, None, "its attempt is about to start".to_owned()),
        Obstacle::Busy { connections, allowed, ready } if connections < allowed => {
            let detail =
                format!("the connections that {to} may have are in use by other destinations; {ready} wait");
            (Because::LaneBusy, None, detail)
        }
        Obstacle::Busy { connections, ready, .. } => {
            let busy = if connections == 1 { "connection to" } else { "connections to" };
            let are = if connections == 1 { "is" } else { "are" };
            let wait = if ready == 1 { "transaction waits" } else { "transactions wait" };
            let detail = format!("{connections} {busy} {to} {are} busy, {ready} {wait}");
            (Because::LaneBusy, None, detail)
        }
        Obstacle::Rate { until, common: true } => (
            Because::RateLimited,
            Some(until),
            "the rate limit of all mail; then the next one goes".to_owned(),
        ),
        Obstacle::Rate { until, common: false } => (
            Because::RateLimited,
            Some(until),
            "the rate limit of its domain; then the next one goes".to_owned(),
        ),
        Obstacle::Breaker { until: until @ Some(_) } => (
            Because::BreakerOpen,
            until,
            format!("{to} takes no mail at present{}; then it is tried again", because(recipient)),
        ),
        Obstacle::Breaker { until: None } => (
            Because::BreakerOpen,
            None,
            format!("{to} takes no mail at present{}; it is being tried", because(recipient)),
        ),
    }
}

fn frozen(recipient: &RecipientView) -> Reason {
    let detail =
        format!("an operator has frozen its domain{}; queue thaw lets mail go on", because(recipient));
    (Because::Frozen, None, detail)
}

/// What the last attempt came to, if there was one.
fn because(recipient: &RecipientView) -> String {
    recipient.last_reply.as_ref().map_or_else(String::new, |_| format!(" ({})", last(recipient)))
}

/// What the last attempt came to.
fn last(recipient: &RecipientView) -> String {
    let RecipientView { host, last_reply, .. } = recipient;
    let Some(reply) = last_reply else {
        return "it waits for its time".to_owned();
    };
    let host = host.as_ref().map(|host| format!("{host}: ")).unwrap_or_default();
    let code = reply.code.map(|code| format!("{code} ")).unwrap_or_default();
    let enhanced = reply.enhanced.as_ref().map(|enhanced| format!("{enhanced} ")).unwrap_or_default();
    format!("{host}{code}{enhanced}{}", reply.text)
}

impl Shared {
    fn flying(&self, message: &Snapshot, recipient: usize, queue: &crate::queue::Queue) -> Reason {
        let afterwards = match message.id {
            id if queue.is_removing(id) => "; if it fails the message is removed",
            id if queue.is_held(id) => "; if it fails the message is held",
            _ => "",
        };
        let connection = queue.connection_of(message.id, recipient);
        if connection.is_some_and(|connection| self.set().contains(&connection)) {
            return (Because::Resolving, None, format!("its hosts are being looked up{afterwards}"));
        }
        (Because::InProgress, None, format!("an attempt is being made{afterwards}"))
    }

    /// As long as this lives the connection waits for name servers.
    pub(crate) fn resolving(self: &Arc<Self>, connection: ConnectionId) -> Resolving {
        self.set().insert(connection);
        Resolving(Arc::clone(self), connection)
    }

    fn set(&self) -> MutexGuard<'_, HashSet<ConnectionId>> {
        self.resolving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that waits for name servers.
pub(crate) struct Resolving(Arc<Shared>, ConnectionId);

impl Drop for Resolving {
    fn drop(&mut self) {
        self.0.set().remove(&self.1);
    }
}
