use empath_common::{Domain, MessageId};
use serde::{Deserialize, Serialize};

use crate::{Failure, FailureCode, Filter, Selection};

/// What a control client can ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", deny_unknown_fields)]
pub enum Request {
    /// Are you there? Answered by one [`Pong`].
    #[serde(rename = "system.ping")]
    Ping {},
    /// How are you? Answered by one [`SystemStatus`].
    #[serde(rename = "system.status")]
    Status {},
    /// The messages of the queue, oldest first. Answered by a [`crate::QueueEntry`] for each.
    #[serde(rename = "queue.list")]
    List {
        /// Which messages.
        #[serde(default, skip_serializing_if = "Filter::is_empty")]
        filter: Filter,
        /// At most this many.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
    },
    /// One message. Answered by a [`crate::QueueView`]; `not_found` when there is no such message.
    #[serde(rename = "queue.view")]
    View {
        /// Its id.
        id: MessageId,
    },
    /// Why a message is still in the queue. Answered by one [`crate::QueueWhy`]; `not_found` when there is no such message.
    #[serde(rename = "queue.why")]
    Why {
        /// Its id.
        id: MessageId,
    },
    /// Numbers about the queue. Answered by one [`crate::QueueStats`].
    #[serde(rename = "queue.stats")]
    Stats {},
    /// Makes deferred recipients due now, and those of messages given by id that their sender has scheduled. Answered by one [`crate::Changed`]; `not_found` when ids are given and
    /// none exists.
    #[serde(rename = "queue.retry")]
    Retry {
        /// Which messages.
        messages: Selection,
    },
    /// Ends all recipients of messages without telling anyone. Answered as `queue.retry` is.
    #[serde(rename = "queue.delete")]
    Delete {
        /// Which messages.
        messages: Selection,
    },
    /// Stops messages until they are released: what is in flight is finished, nothing else starts, and they don't expire.
    /// Answered as `queue.retry` is.
    #[serde(rename = "queue.hold")]
    Hold {
        /// Which messages.
        messages: Selection,
    },
    /// Lets held messages go on. Answered as `queue.retry` is.
    #[serde(rename = "queue.release")]
    Release {
        /// Which messages.
        messages: Selection,
    },
    /// Starts nothing more to a domain until it is thawed, also after a restart. Answered by one [`crate::Frozen`].
    #[serde(rename = "queue.freeze")]
    Freeze {
        /// Which.
        domain: Domain,
    },
    /// Lets mail to a domain go on. Answered as `queue.freeze` is.
    #[serde(rename = "queue.thaw")]
    Thaw {
        /// Which.
        domain: Domain,
    },
    /// Reads the configuration again and applies what is new. Answered by one [`Reloaded`]; `refused`, with a line for each
    /// problem, when something is wrong with it: then nothing has changed.
    #[serde(rename = "config.reload")]
    Reload {},
    /// Numbers about the spool. Answered by one [`crate::SpoolStats`].
    #[serde(rename = "spool.stats")]
    SpoolStats {},
    /// Reads everything in the spool and checks it. Answered by a [`crate::Finding`] for each thing that is wrong and
    /// then the summary; `refused` while another check is under way.
    #[serde(rename = "spool.verify")]
    SpoolVerify {},
    /// What is kept of damage. Answered by a [`crate::Kept`] for each.
    #[serde(rename = "spool.damaged.list")]
    DamagedList {},
    /// The octets of one of them. Answered by [`crate::Piece`]s in their order; `not_found` when nothing of the name is
    /// kept.
    #[serde(rename = "spool.damaged.export")]
    DamagedExport {
        /// Its name.
        name: String,
    },
    /// Deletes some of them for good. Answered by one [`crate::Discarded`]; `not_found`, and nothing is deleted, when
    /// one of the names names nothing.
    #[serde(rename = "spool.damaged.discard")]
    DamagedDiscard {
        /// Their names.
        names: Vec<String>,
    },
    /// What the resolver remembers, by name. Answered by a [`crate::CachedAnswer`] for each.
    #[serde(rename = "dns.cache.list")]
    CacheList {
        /// Of this domain and the names below it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        domain: Option<Domain>,
    },
    /// Forgets what `dns.cache.list` lists. Answered by one [`crate::Cleared`].
    #[serde(rename = "dns.cache.clear")]
    CacheClear {
        /// Of this domain and the names below it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        domain: Option<Domain>,
    },
    /// Looks the MX hosts of a domain and their addresses up anew. Answered by a [`crate::ResolvedHost`] for each;
    /// `failed` when there is none.
    #[serde(rename = "dns.refresh")]
    Refresh {
        /// The domain.
        domain: Domain,
    },
    /// Next hops that operators chose, by domain. Answered by a [`crate::DnsOverride`] for each.
    #[serde(rename = "dns.override.list")]
    OverrideList {},
    /// From now on mail for exactly this domain goes to one host, until the daemon ends. Answered by the
    /// [`crate::DnsOverride`]; `bad_request` when the host is none, `refused` when there are too many.
    #[serde(rename = "dns.override.set")]
    OverrideSet {
        /// The domain.
        domain: Domain,
        /// The host, with or without a port.
        host: String,
    },
    /// Takes one back. Answered by the [`crate::DnsOverride`] that was; `not_found` when there was none.
    #[serde(rename = "dns.override.remove")]
    OverrideRemove {
        /// The domain.
        domain: Domain,
    },
}

impl Request {
    /// The name of the command.
    pub fn command(&self) -> &'static str {
        match self {
            Self::Ping {} => "system.ping",
            Self::Status {} => "system.status",
            Self::List { .. } => "queue.list",
            Self::View { .. } => "queue.view",
            Self::Why { .. } => "queue.why",
            Self::Stats {} => "queue.stats",
            Self::Retry { .. } => "queue.retry",
            Self::Delete { .. } => "queue.delete",
            Self::Hold { .. } => "queue.hold",
            Self::Release { .. } => "queue.release",
            Self::Freeze { .. } => "queue.freeze",
            Self::Thaw { .. } => "queue.thaw",
            Self::Reload {} => "config.reload",
            Self::SpoolStats {} => "spool.stats",
            Self::SpoolVerify {} => "spool.verify",
            Self::DamagedList {} => "spool.damaged.list",
            Self::DamagedExport { .. } => "spool.damaged.export",
            Self::DamagedDiscard { .. } => "spool.damaged.discard",
            Self::CacheList { .. } => "dns.cache.list",
            Self::CacheClear { .. } => "dns.cache.clear",
            Self::Refresh { .. } => "dns.refresh",
            Self::OverrideList {} => "dns.override.list",
            Self::OverrideSet { .. } => "dns.override.set",
            Self::OverrideRemove { .. } => "dns.override.remove",
        }
    }

    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self {
            Self::Retry { messages }
            | Self::Delete { messages }
            | Self::Hold { messages }
            | Self::Release { messages } => messages.check(),
            Self::DamagedDiscard { names } if names.is_empty() => {
                Err(Failure::new(FailureCode::BadRequest, "the request names nothing to discard"))
            }
            _ => Ok(()),
        }
    }
}

/// The answer of `system.ping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// Always true.
    pub pong: bool,
    /// The version of the daemon.
    pub version: String,
}

/// What a reload has come to, by the keys of the configuration: the answer of `config.reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Keys whose new values apply.
    pub changed: Vec<String>,
    /// Keys whose old values apply until the next start.
    pub needs_restart: Vec<String>,
}

/// The answer of `system.status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemStatus {
    /// The version of the daemon.
    pub version: String,
    /// How long it has been running.
    pub uptime_seconds: u64,
    /// Messages in the queue.
    pub queue_size: u64,
    /// Those among them that are still being read from the spool after a start.
    pub recovering: u64,
    /// Messages that the disk did not give back; they are tried again.
    pub unreadable: u64,
    /// What `/health/ready` says.
    pub ready: bool,
    /// Connections at present.
    pub connections: Connections,
    /// Answers in the resolver's cache; `None` from a daemon that does not tell.
    pub dns_cache_entries: Option<u64>,
}

/// Connections at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Connections {
    /// Of clients to us.
    pub inbound: u64,
    /// Of us to next hops.
    pub outbound: u64,
}
