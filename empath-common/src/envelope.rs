use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
};

use jiff::Timestamp;

use crate::{
    ForwardPath, FutureRelease, MessageNotification, MtPriority, Priority, RecipientNotification, ReversePath,
};

/// How the content is encoded: the `BODY` parameter of MAIL (RFC 6152 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Body {
    /// Lines of ASCII.
    #[default]
    SevenBit,
    /// Lines that may have octets above 127.
    EightBitMime,
}

/// Everything about a message that is not its content (RFC 5321 §2.3.1). It has at least one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Who is told about failures.
    pub reverse_path: ReversePath,
    /// The encoding that the client declared.
    pub body: Body,
    /// Whether the client asked for SMTPUTF8 (RFC 6531 §3.4).
    pub smtputf8: bool,
    /// When the message was accepted.
    pub received_at: Timestamp,
    /// How urgent it is.
    pub priority: Priority,
    /// What the client said about that, for hosts that want to know it (RFC 6710).
    pub mt_priority: Option<MtPriority>,
    /// Until when it stays here, if its sender wants that (RFC 4865).
    pub future_release: Option<FutureRelease>,
    /// What hooks stored about the message.
    pub metadata: Metadata,
    recipients: Vec<ForwardPath>,
    /// Hashes of the recipients, once there are more than [`FEW`].
    #[expect(
        clippy::box_collection,
        reason = "most have none, and then it takes little room in a long queue"
    )]
    hashes: Option<Box<HashSet<u64>>>,
    /// Mostly nothing, and then it takes no room in a long queue.
    asked: Option<Box<Asked>>,
}

/// What the sender wants to hear.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Asked {
    message: MessageNotification,
    /// By the numbers of the recipients about whom anything was asked.
    recipients: BTreeMap<usize, RecipientNotification>,
}

/// The message already has as many recipients as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message already has as many recipients as it may have")]
pub struct TooManyRecipients;

/// So many recipients are as well looked through one by one.
const FEW: usize = 64;

/// The same for equal recipients; different ones may share it.
fn hash(recipient: &ForwardPath) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(recipient)
}

impl Envelope {
    /// An envelope with its first recipient.
    pub fn new(reverse_path: ReversePath, recipient: ForwardPath) -> Self {
        Self {
            reverse_path,
            body: Body::default(),
            smtputf8: false,
            received_at: Timestamp::UNIX_EPOCH,
            priority: Priority::default(),
            mt_priority: None,
            future_release: None,
            metadata: Metadata::default(),
            recipients: vec![recipient],
            hashes: None,
            asked: None,
        }
    }

    /// Adds a recipient, unless there are `max` already. The same recipient twice counts once.
    pub fn add(&mut self, recipient: ForwardPath, max: usize) -> Result<(), TooManyRecipients> {
        let hash = hash(&recipient);
        let may_be_there = self.hashes.as_ref().is_none_or(|hashes| hashes.contains(&hash));
        if may_be_there && self.recipients.contains(&recipient) {
            return Ok(());
        }
        if self.recipients.len() >= max {
            return Err(TooManyRecipients);
        }
        self.recipients.push(recipient);
        match &mut self.hashes {
            Some(hashes) => {
                hashes.insert(hash);
            }
            None if self.recipients.len() > FEW => {
                self.hashes = Some(Box::new(self.recipients.iter().map(self::hash).collect()));
            }
            None => {}
        }
        Ok(())
    }

    /// When delivery may begin: at once, if the sender wants nothing else. The time that it may take counts from then.
    pub fn released_at(&self) -> Timestamp {
        self.future_release.map_or(self.received_at, |request| request.time(self.received_at))
    }

    /// Notes what the sender wants of reports about the message.
    pub fn ask(&mut self, notification: MessageNotification) {
        if notification != *self.notification() {
            self.asked.get_or_insert_default().message = notification;
        }
    }

    /// Notes what the sender wants to hear about the recipient with this number, unless something was asked already.
    pub fn ask_about(&mut self, number: usize, notification: RecipientNotification) {
        if number < self.recipients.len() && !notification.is_empty() {
            self.asked.get_or_insert_default().recipients.entry(number).or_insert(notification);
        }
    }

    /// What the sender wants of reports about the message.
    pub fn notification(&self) -> &MessageNotification {
        self.asked.as_ref().map_or(&NOTHING_ASKED.message, |asked| &asked.message)
    }

    /// What the sender wants to hear about the recipient with this number.
    pub fn notification_of(&self, number: usize) -> &RecipientNotification {
        let asked = self.asked.as_ref().and_then(|asked| asked.recipients.get(&number));
        asked.unwrap_or(&NOTHING_ASKED_ABOUT)
    }

    /// What was asked about recipients, with their numbers.
    pub fn notifications(&self) -> impl Iterator<Item = (usize, &RecipientNotification)> {
        let recipients = &self.asked.as_deref().unwrap_or(&NOTHING_ASKED).recipients;
        recipients.iter().map(|(number, notification)| (*number, notification))
    }

    /// The recipients in the order of acceptance; a recipient's place in it is its number ever after.
    pub fn recipients(&self) -> &[ForwardPath] {
        &self.recipients
    }
}

static NOTHING_ASKED: Asked =
    Asked { message: MessageNotification { ret: None, envid: None }, recipients: BTreeMap::new() };
static NOTHING_ASKED_ABOUT: RecipientNotification = RecipientNotification { notify: None, orcpt: None };

/// What hooks know about a message: bounded `name = value` text that travels with it until its end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    values: BTreeMap<String, String>,
    /// Octets of all names and values.
    octets: usize,
}

/// The metadata of the message has reached its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message carries at most {} octets of metadata", Metadata::MAX_OCTETS)]
pub struct MetadataFull;

impl Metadata {
    /// Most octets of names and values together.
    pub const MAX_OCTETS: usize = 16 * 1024;

    /// Stores `value` under `name`, in place of an earlier value.
    pub fn insert(&mut self, name: String, value: String) -> Result<(), MetadataFull> {
        let replaced = self.values.get(&name).map_or(0, |old| name.len() + old.len());
        let octets = self.octets - replaced + name.len() + value.len();
        if octets > Self::MAX_OCTETS {
            return Err(MetadataFull);
        }
        self.octets = octets;
        self.values.insert(name, value);
        Ok(())
    }

    /// The value stored under `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// All names and values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Takes over everything from `other`, whose values win. What no longer fits is left out and said so.
    pub fn merge(&mut self, other: Self) -> Result<(), MetadataFull> {
        let mut all = Ok(());
        for (name, value) in other.values {
            all = all.and(self.insert(name, value));
        }
        all
    }
}
