//! A daemon with a message and a spool, to be asked.

use empath_control::{
    Answers, Because, Changed, Checked, Connections, Discarded, Failure, FailureCode, Finding, Frozen,
    Handler, HistoryEntry, Kept, KeptSegment, LastReply, NotificationEntry, Piece, Pong, Priority,
    QueueEntry, QueueStats, QueueView, QueueWhy, RecipientEntry, Reloaded, Request, Selection, SpoolStats,
    Status, SystemStatus, WhyEntry,
};

pub(crate) const ID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
pub(crate) const OTHER: &str = "01BX5ZZKBKACTAV9WEVGEMMVRZ";

/// The name of what is kept of damage; of another the export breaks off.
pub(crate) const KEPT: &str = "00000001-0000004096-00000000000000ab.octets";
pub(crate) const BROKEN: &str = "broken.octets";

/// A daemon with one message in its queue, listed `copies` times, and a spool with as many damaged ranges.
pub(crate) struct Fake {
    pub(crate) copies: u64,
}

impl Fake {
    async fn spool(&self, request: Request, answers: &mut Answers) -> Result<(), Failure> {
        let reason = "a record does not verify \u{1b}[31m".to_owned();
        let unknown = || Failure::new(FailureCode::NotFound, "nothing of this name is kept");
        match request {
            Request::SpoolVerify {} => {
                for _ in 0..self.copies {
                    let (reason, messages) = (reason.clone(), vec![entry().id]);
                    let damage = Finding::Damage { segment: 1, offset: 4096, length: 7, reason, messages };
                    answers.send(&damage).await?;
                }
                if self.copies > 0 {
                    answers.send(&Finding::Kept(kept())).await?;
                }
                let checked = Checked {
                    clean: self.copies == 0,
                    segments: 2,
                    records: 30,
                    octets: 4000,
                    large: 1,
                    unfinished: 0,
                    damaged: self.copies,
                    unreadable: 0,
                    kept: self.copies.min(1),
                };
                answers.send(&Finding::Summary(checked)).await
            }
            Request::DamagedList {} => {
                let report =
                    [("segment", "00000001"), ("offset", "4096"), ("length", "7"), ("reason", &reason)];
                let report = report.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
                let messages = vec![entry().id];
                let name = KEPT.to_owned();
                answers.send(&Kept { name, octets: 7, report, messages, problem: None }).await
            }
            Request::DamagedExport { name } if name == KEPT || name == BROKEN => {
                answers.send(&Piece { at: 0, octets: b"\x00\xff\r\n".to_vec() }).await?;
                if name == BROKEN {
                    return Err(unknown());
                }
                answers.send(&Piece { at: 4, octets: b"end".to_vec() }).await
            }
            Request::DamagedDiscard { names } if names == [KEPT] => {
                answers.send(&Discarded { discarded: 1 }).await
            }
            Request::SpoolStats {} => {
                let stats = SpoolStats {
                    messages: 1,
                    journal_octets: 2,
                    live_octets: 3,
                    large_octets: 4,
                    free_octets: Some(5),
                    free_inodes: None,
                    damaged: self.copies,
                    damaged_octets: 6,
                    kept: 1,
                    kept_segments: vec![kept()],
                    healthy: true,
                };
                answers.send(&stats).await
            }
            _ => Err(unknown()),
        }
    }
}

pub(crate) fn kept() -> KeptSegment {
    KeptSegment { segment: 7, path: "/spool/\u{1b}[31m".to_owned(), reason: "it cannot be read".to_owned() }
}

pub(crate) fn entry() -> QueueEntry {
    QueueEntry {
        id: ID.parse().unwrap(),
        sender: "\u{1b}[31malice@home.test".to_owned(),
        size: 1234,
        received_at: "2026-01-02T03:04:05Z".parse().unwrap(),
        status: Status::Deferred,
        priority: Priority::Normal,
        recipients: vec![RecipientEntry {
            address: "bob@example.test".to_owned(),
            status: Status::Deferred,
            attempts: 2,
            next_attempt_at: Some("2026-01-02T03:14:05Z".parse().unwrap()),
            next_hop: Some("mx:example.test".to_owned()),
            host: None,
            last_reply: Some(reply()),
        }],
    }
}

pub(crate) fn reply() -> LastReply {
    LastReply { code: Some(451), enhanced: Some("4.3.2".to_owned()), text: "later".to_owned() }
}

impl Handler for Fake {
    async fn handle(&self, request: Request, answers: &mut Answers) -> Result<(), Failure> {
        let version = "1.2.3".to_owned();
        match request {
            Request::Ping {} => answers.send(&Pong { pong: true, version }).await,
            Request::Status {} => {
                let connections = Connections { inbound: 3, outbound: 4 };
                let (uptime_seconds, queue_size, ready, dns_cache_entries) = (93_784, 1, true, Some(7));
                let status = SystemStatus {
                    version,
                    uptime_seconds,
                    queue_size,
                    recovering: 0,
                    unreadable: 0,
                    ready,
                    connections,
                    dns_cache_entries,
                };
                answers.send(&status).await
            }
            Request::List { filter, limit } => {
                for _ in 0..limit.unwrap_or(self.copies) {
                    if filter.matches(&entry()) {
                        answers.send(&entry()).await?;
                    }
                }
                Ok(())
            }
            Request::View { id } if id == entry().id => {
                let history = vec![HistoryEntry {
                    at: "2026-01-02T03:05:05Z".parse().unwrap(),
                    address: "bob@example.test".to_owned(),
                    next_hop: None,
                    host: Some("mx1.example.test[192.0.2.1]:25".to_owned()),
                    reply: reply(),
                }];
                let headers = vec![("Subject".to_owned(), "\u{1b}]0;owned\u{7}".to_owned())];
                let notification = NotificationEntry {
                    address: "bob@example.test".to_owned(),
                    notify: Some("SUCCESS,FAILURE".to_owned()),
                    orcpt: Some("rfc822;b@x.test".to_owned()),
                };
                let view = QueueView {
                    entry: entry(),
                    ret: Some("HDRS".to_owned()),
                    envid: Some("QQ+2B1".to_owned()),
                    notifications: vec![notification],
                    headers,
                    history,
                };
                answers.send(&view).await
            }
            Request::Why { id } if id == entry().id => {
                let recipients = vec![WhyEntry {
                    address: "bob@example.test".to_owned(),
                    state: Status::Pending,
                    because: Because::RateLimited,
                    until: Some("2026-01-02T03:05:05Z".parse().unwrap()),
                    detail: "\u{1b}[31m".to_owned(),
                }];
                answers.send(&QueueWhy { id, recipients }).await
            }
            Request::View { id } | Request::Why { id } => {
                Err(Failure::new(FailureCode::NotFound, format!("there is no message {id}")))
            }
            Request::Stats {} => {
                let by_status = [(Status::Deferred, 1)].into();
                let by_domain = [("example.test".to_owned(), 1)].into();
                answers
                    .send(&QueueStats {
                        total: 1,
                        by_status,
                        by_domain,
                        oldest_seconds: Some(60),
                        frozen: vec!["slow.test".parse().unwrap()],
                    })
                    .await
            }
            Request::Reload {} => {
                let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
                let (changed, needs_restart) = (keys(&["dsn.enabled"]), keys(&["\u{1b}hostname"]));
                answers.send(&Reloaded { changed, needs_restart }).await
            }
            Request::Freeze { domain } => answers.send(&Frozen { domain, frozen: true, changed: true }).await,
            Request::Thaw { domain } => answers.send(&Frozen { domain, frozen: false, changed: false }).await,
            Request::Retry { messages }
            | Request::Delete { messages }
            | Request::Hold { messages }
            | Request::Release { messages } => {
                let matched = match messages {
                    Selection::All => 100,
                    Selection::Ids(ids) => ids.len() as u64,
                    Selection::Filter(_) => 10,
                };
                answers.send(&Changed { matched, changed: 1 }).await
            }
            other => self.spool(other, answers).await,
        }
    }
}
