//! What the control socket can ask of the daemon.

mod dns;
mod spool;

use std::{error::Error, sync::Arc, time::Duration};

use empath_common::MessageId;
use empath_control::{
    Answers, Because, Changed, Connections, Failure, FailureCode, Filter, Frozen, Handler, HistoryEntry,
    LastReply, NotificationEntry, Pong, QueueEntry, QueueStats, QueueView, QueueWhy, RecipientEntry, Request,
    Selection, Status, SystemStatus, WhyEntry,
};
use empath_delivery::{
    HistoryView, MessageStatus, MessageView, Processor, RecipientStatus, RecipientView, ReplyView, Touched,
    WhyView,
};
use empath_health::Readiness;
use empath_smtp::server;
use empath_spool::Spool;
use tokio::time::{Instant, timeout};

use crate::daemon::{ReloadError, Reloaded, Reloader};
pub use spool::SpoolOperations;
pub(crate) use spool::findings;

/// The daemon as the control socket sees it.
pub struct Operations {
    /// Whose queue it is.
    pub processor: Processor,
    /// What reads the configuration again.
    pub reloader: Arc<Reloader>,
    /// Where the content of queued messages is.
    pub spool: Arc<dyn Spool>,
    /// What looks after the spool.
    pub storage: SpoolOperations,
    /// What `/health/ready` says.
    pub readiness: Readiness,
    /// Connections of clients.
    pub inbound: Arc<server::Connections>,
    /// When the daemon started.
    pub started: Instant,
}

/// The version of the daemon.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long a request about the queue waits for messages that are still being read from the spool after a start.
const READING: Duration = Duration::from_secs(10);

/// Messages that are looked up between two answers.
const PAGE: usize = 128;

impl Handler for Operations {
    async fn handle(&self, request: Request, answers: &mut Answers) -> Result<(), Failure> {
        match request {
            Request::Ping {} => answers.send(&Pong { pong: true, version: VERSION.to_owned() }).await,
            Request::Status {} => answers.send(&self.status()).await,
            Request::List { filter, limit } => self.list(&filter, limit, answers).await,
            Request::View { id } => answers.send(&self.view(id).await?).await,
            Request::Why { id } => answers.send(&self.why(id).await?).await,
            Request::Stats {} => {
                self.all_read().await?;
                answers.send(&self.stats().await).await
            }
            Request::Retry { messages } => {
                self.all_read().await?;
                let mut changed = Changed::default();
                for filter in selected(&messages) {
                    add(&mut changed, self.processor.retry(&filter).await);
                }
                answers.send(&found(&messages, changed)?).await
            }
            Request::Delete { messages } => {
                self.all_read().await?;
                let mut changed = Changed::default();
                for filter in selected(&messages) {
                    let deleted = self.processor.delete(&filter).await;
                    let failed = |error| Failure::new(FailureCode::Failed, format!("not deleted: {error}"));
                    add(&mut changed, deleted.map_err(failed)?);
                }
                answers.send(&found(&messages, changed)?).await
            }
            Request::Hold { messages } => {
                self.all_read().await?;
                let mut changed = Changed::default();
                for filter in selected(&messages) {
                    let held = self.processor.hold(&filter).await;
                    let failed = |error| Failure::new(FailureCode::Failed, format!("not held: {error}"));
                    add(&mut changed, held.map_err(failed)?);
                }
                answers.send(&found(&messages, changed)?).await
            }
            Request::Release { messages } => {
                self.all_read().await?;
                let mut changed = Changed::default();
                for filter in selected(&messages) {
                    let released = self.processor.release(&filter).await;
                    let failed = |error| Failure::new(FailureCode::Failed, format!("not released: {error}"));
                    add(&mut changed, released.map_err(failed)?);
                }
                answers.send(&found(&messages, changed)?).await
            }
            Request::Freeze { domain } => {
                let frozen = self.processor.freeze(&domain).await;
                let failed = |error| Failure::new(FailureCode::Failed, format!("not frozen: {error}"));
                let changed = frozen.map_err(failed)?;
                answers.send(&Frozen { domain, frozen: true, changed }).await
            }
            Request::Thaw { domain } => {
                let thawed = self.processor.thaw(&domain).await;
                let failed = |error| Failure::new(FailureCode::Failed, format!("not thawed: {error}"));
                let changed = thawed.map_err(failed)?;
                answers.send(&Frozen { domain, frozen: false, changed }).await
            }
            Request::Reload {} => self.reload(answers).await,
            Request::SpoolStats {} => self.storage.stats(answers).await,
            Request::SpoolVerify {} => self.storage.verify(answers).await,
            Request::DamagedList {} => self.storage.damaged(answers).await,
            Request::DamagedExport { name } => self.storage.export(name, answers).await,
            Request::DamagedDiscard { names } => self.storage.discard(names, answers).await,
            Request::CacheList { domain } => self.cache_list(domain.as_ref(), answers).await,
            Request::CacheClear { domain } => self.cache_clear(domain.as_ref(), answers).await,
            Request::Refresh { domain } => self.refresh(&domain, answers).await,
            Request::OverrideList {} => self.override_list(answers).await,
            Request::OverrideSet { domain, host } => self.override_set(domain, &host, answers).await,
            Request::OverrideRemove { domain } => self.override_remove(domain, answers).await,
        }
    }
}

impl Operations {
    async fn reload(&self, answers: &mut Answers) -> Result<(), Failure> {
        let reloaded = answers.during(self.reloader.reload()).await?;
        let refused =
            |error: ReloadError| Failure::new(FailureCode::Refused, error.to_string().trim_end().to_owned());
        let Reloaded { changed, needs_restart } = reloaded.map_err(refused)?;
        answers.send(&empath_control::Reloaded { changed, needs_restart }).await
    }

    fn status(&self) -> SystemStatus {
        SystemStatus {
            version: VERSION.to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            queue_size: self.processor.queue_len() as u64,
            recovering: self.processor.unread() as u64,
            unreadable: self.processor.unreadable() as u64,
            ready: self.readiness.is_ready(),
            connections: Connections {
                inbound: self.inbound.count() as u64,
                outbound: self.processor.connections() as u64,
            },
            dns_cache_entries: Some(self.processor.resolver().cache_len() as u64),
        }
    }

    /// What is asked of the queue has no true answer before all of it has been read; the spool is not read for it.
    async fn all_read(&self) -> Result<(), Failure> {
        let read = timeout(READING, self.processor.all_read()).await;
        read.map_err(|_| {
            let unread = self.processor.unread();
            let message =
                format!("{unread} messages are still being read from the spool; ask again in a while");
            Failure::new(FailureCode::Refused, message)
        })
    }

    async fn list(&self, filter: &Filter, limit: Option<u64>, answers: &mut Answers) -> Result<(), Failure> {
        self.all_read().await?;
        let Some(filter) = delivery_filter(filter) else {
            return Ok(());
        };
        let mut left = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let mut after = None;
        while left > 0 {
            let page = self.processor.list(&filter, after, left.min(PAGE)).await;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            left -= page.len();
            for message in page {
                answers.send(&entry(message)).await?;
            }
        }
        Ok(())
    }

    async fn view(&self, id: MessageId) -> Result<QueueView, Failure> {
        let mut found = self.processor.view(id).await;
        if found.is_none() && self.processor.unread() > 0 {
            self.all_read().await?;
            found = self.processor.view(id).await;
        }
        let (message, history) = found.ok_or_else(|| unknown(&[id]))?;
        let failed = |error: &dyn Error| Failure::new(FailureCode::Failed, error.to_string());
        let content = self.spool.content(id).await.map_err(|error| failed(&error))?;
        let header = empath_delivery::header(&content).await.map_err(|error| failed(&error))?;
        let ret = message.notification.ret.map(|ret| ret.to_string());
        let envid = message.notification.envid.as_ref().map(|envid| envid.as_str().to_owned());
        Ok(QueueView {
            ret,
            envid,
            notifications: message.recipients.iter().filter_map(asked).collect(),
            entry: entry(message),
            headers: headers(&header),
            history: history.into_iter().map(past).collect(),
        })
    }

    async fn why(&self, id: MessageId) -> Result<QueueWhy, Failure> {
        let mut found = self.processor.why(id).await;
        if found.is_none() && self.processor.unread() > 0 {
            self.all_read().await?;
            found = self.processor.why(id).await;
        }
        let recipients = found.ok_or_else(|| unknown(&[id]))?;
        Ok(QueueWhy { id, recipients: recipients.into_iter().map(why).collect() })
    }

    async fn stats(&self) -> QueueStats {
        let stats = self.processor.stats().await;
        let by_status =
            stats.by_status.into_iter().map(|(status, count)| (message_status(status), count as u64));
        QueueStats {
            total: stats.total as u64,
            by_status: by_status.collect(),
            by_domain: stats.by_domain.into_iter().map(|(domain, count)| (domain, count as u64)).collect(),
            oldest_seconds: stats.oldest_seconds,
            frozen: self.processor.frozen(),
        }
    }
}

fn selected(messages: &Selection) -> Vec<empath_delivery::Filter> {
    match messages {
        Selection::All => vec![empath_delivery::Filter::default()],
        Selection::Ids(ids) => ids
            .iter()
            .map(|id| empath_delivery::Filter { id: Some(*id), ..empath_delivery::Filter::default() })
            .collect(),
        Selection::Filter(filter) => delivery_filter(filter).into_iter().collect(),
    }
}

/// `None` when no message of the queue can have the status.
fn delivery_filter(filter: &Filter) -> Option<empath_delivery::Filter> {
    let Filter { status, domain, sender } = filter.clone();
    let status = match status {
        None => None,
        Some(wanted) => {
            Some(MessageStatus::ALL.into_iter().find(|status| message_status(*status) == wanted)?)
        }
    };
    Some(empath_delivery::Filter { id: None, status, domain, sender })
}

fn add(changed: &mut Changed, touched: Touched) {
    changed.matched += touched.matched as u64;
    changed.changed += touched.changed as u64;
}

/// Ids that name nothing are an error, a filter that matches nothing is not.
fn found(messages: &Selection, changed: Changed) -> Result<Changed, Failure> {
    match messages {
        Selection::Ids(ids) if changed.matched == 0 => Err(unknown(ids)),
        _ => Ok(changed),
    }
}

fn unknown(ids: &[MessageId]) -> Failure {
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    Failure::new(FailureCode::NotFound, format!("there is no message {}", ids.join(", ")))
}

fn entry(message: MessageView) -> QueueEntry {
    QueueEntry {
        id: message.id,
        sender: message.sender,
        size: message.size,
        received_at: message.received_at,
        status: message_status(message.status),
        priority: message.priority,
        recipients: message.recipients.into_iter().map(recipient).collect(),
    }
}

fn recipient(recipient: RecipientView) -> RecipientEntry {
    RecipientEntry {
        address: recipient.address,
        status: recipient_status(recipient.status),
        attempts: recipient.attempts,
        next_attempt_at: recipient.next_attempt_at,
        next_hop: recipient.next_hop,
        host: recipient.host,
        last_reply: recipient.last_reply.map(reply),
    }
}

fn asked(recipient: &RecipientView) -> Option<NotificationEntry> {
    let RecipientView { address, notification, .. } = recipient;
    (!notification.is_empty()).then(|| NotificationEntry {
        address: address.clone(),
        notify: notification.notify.map(|notify| notify.to_string()),
        orcpt: notification.orcpt.as_ref().map(|orcpt| orcpt.as_str().to_owned()),
    })
}

fn why(recipient: WhyView) -> WhyEntry {
    use empath_delivery::Because as Known;
    let because = match recipient.because {
        Known::InProgress => Because::InProgress,
        Known::Resolving => Because::Resolving,
        Known::Ready => Because::Ready,
        Known::LaneBusy => Because::LaneBusy,
        Known::RateLimited => Because::RateLimited,
        Known::BreakerOpen => Because::BreakerOpen,
        Known::Deferred => Because::Deferred,
        Known::Scheduled => Because::Scheduled,
        Known::Held => Because::Held,
        Known::Frozen => Because::Frozen,
        Known::Untold => Because::Untold,
    };
    let WhyView { address, status, until, detail, .. } = recipient;
    WhyEntry { address, state: recipient_status(status), because, until, detail }
}

fn past(attempt: HistoryView) -> HistoryEntry {
    HistoryEntry {
        at: attempt.at,
        address: attempt.address,
        next_hop: Some(attempt.next_hop),
        host: attempt.host,
        reply: reply(attempt.reply),
    }
}

fn reply(reply: ReplyView) -> LastReply {
    LastReply { code: reply.code, enhanced: reply.enhanced, text: reply.text }
}

fn message_status(status: MessageStatus) -> Status {
    match status {
        MessageStatus::Pending => Status::Pending,
        MessageStatus::InProgress => Status::InProgress,
        MessageStatus::Deferred => Status::Deferred,
        MessageStatus::Held => Status::Held,
    }
}

fn recipient_status(status: RecipientStatus) -> Status {
    match status {
        RecipientStatus::Pending => Status::Pending,
        RecipientStatus::InProgress => Status::InProgress,
        RecipientStatus::Deferred => Status::Deferred,
        RecipientStatus::Held => Status::Held,
        RecipientStatus::Completed => Status::Completed,
        RecipientStatus::Failed => Status::Failed,
        RecipientStatus::Expired => Status::Expired,
    }
}

/// The fields of a header, in order; names as they are, values unfolded and decoded.
fn headers(header: &[u8]) -> Vec<(String, String)> {
    match mailparse::parse_headers(header) {
        Ok((fields, _)) => fields
            .iter()
            .map(|field| (field.get_key(), field.get_value()))
            // A line without a colon is taken for a name, its end included.
            .filter(|(name, _)| !name.contains(['\r', '\n']))
            .collect(),
        // What is no header section is shown as none.
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_and_lines_that_are_none_are_left_out() {
        let content = "Subject: gr\u{fc}\u{df}e\r\nNoColon\r\nX-Folded: a\r\n b\r\n\
                       From: =?utf-8?q?=C3=A9?= <a@b.test>\r\n";
        let fields = headers(content.as_bytes());
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [("Subject", "gr\u{fc}\u{df}e"), ("X-Folded", "a b"), ("From", "\u{e9} <a@b.test>")];
        assert_eq!(fields, expected);
    }
}
