//! What the spool has promised, and whether it keeps it.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use empath_common::{Envelope, MessageId};

use crate::{
    Attempt, Entry, Progress, RecipientState, RecipientUpdate, Status, encoding::encode, index::MAX_LINKS,
    progress::HISTORY,
};

/// A message as it was given to the spool or read from it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    pub(super) envelope: Arc<Envelope>,
    pub(super) content: Bytes,
    pub(super) recipients: Vec<RecipientState>,
    pub(super) held: bool,
}

pub(super) type Messages = BTreeMap<MessageId, Message>;

#[derive(Debug, Clone)]
pub(super) enum Change {
    Accepted(MessageId, Message),
    /// Each has an attempt whose detail no other has.
    Progress(Progress),
    Held(MessageId, bool),
    Removed(MessageId),
}

/// Octets of a `Progress` of the workload, at most.
const LARGEST_PROGRESS: usize = 1000;

/// Changes that happen together.
pub(super) type Changes = Vec<Change>;

/// The state that the spool must be in.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    /// What was acknowledged, or recovered and so will stay.
    pub(super) messages: Messages,
    /// What nobody has heard about, or was refused by a spool that could not write down the refusal: each is there
    /// after the next start or not.
    open: Vec<Changes>,
    /// Whether what came later may be there without what came before.
    gaps: bool,
}

impl Model {
    pub(super) fn acknowledged(&mut self, changes: &Changes) {
        // What is durable decides about everything before it.
        self.open.clear();
        apply(&mut self.messages, changes);
    }

    /// `gaps` says that later changes may be there without these.
    pub(super) fn open(&mut self, changes: Changes, gaps: bool) {
        self.open.push(changes);
        self.gaps |= gaps;
    }

    /// The spool works: what it did not acknowledge is refused for good.
    pub(super) fn settle(&mut self) {
        self.open.clear();
        self.gaps = false;
    }

    /// Most octets of the records that say all this when all is at rest: of each message its acceptance, its history
    /// condensed, and as many `Progress` as are left alone, or as many octets of them again. Content in files of its own is
    /// not counted.
    pub(super) fn live(&self) -> usize {
        let most = |(id, message): (&MessageId, &Message)| {
            let condensed = progress(*id, message);
            accepted(*id, message) + condensed + condensed.max(MAX_LINKS as usize * LARGEST_PROGRESS)
        };
        self.messages.iter().map(most).sum()
    }

    /// Whether no message is lost. Those that have ended may be back, and their recipients be tried again.
    pub(super) fn nothing_lost(&self, found: &Messages) -> Result<(), String> {
        for (id, message) in &self.messages {
            let found = found.get(id).ok_or_else(|| format!("{id} is missing"))?;
            if (&message.content, &message.envelope) != (&found.content, &found.envelope) {
                return Err(format!("{id} has other content"));
            }
        }
        Ok(())
    }

    /// Compares with what a running spool has.
    pub(super) fn check(&self, found: &Messages) -> Result<(), String> {
        difference(&self.messages, found).map_or(Ok(()), Err)
    }

    /// Finds out what of the open changes is there after a start. They come in order and whole, and then they stay.
    pub(super) fn recover(&mut self, found: &Messages) -> Result<(), String> {
        let gaps = self.gaps;
        let open = std::mem::take(&mut self.open);
        self.gaps = false;
        let first = difference(&self.messages, found);
        if first.is_none() {
            return Ok(());
        }
        let state = if gaps {
            some_of(&self.messages, &open, found)?
        } else {
            let mut state = self.messages.clone();
            open.iter().find_map(|changes| {
                apply(&mut state, changes);
                (state == *found).then(|| state.clone())
            })
        };
        let without = first.unwrap_or_default();
        self.messages = state.ok_or_else(|| {
            format!("after a start: {without}; {} open changes, gaps {gaps}:\n{}", open.len(), show(&open))
        })?;
        Ok(())
    }
}

fn apply(messages: &mut Messages, changes: &Changes) {
    for change in changes {
        match change {
            Change::Accepted(id, message) => {
                messages.insert(*id, message.clone());
            }
            Change::Progress(progress) => {
                if let Some(message) = messages.get_mut(&progress.id) {
                    progress.clone().apply(&mut message.recipients);
                }
            }
            Change::Held(id, held) => {
                if let Some(message) = messages.get_mut(id) {
                    message.held = *held;
                }
            }
            Change::Removed(id) => {
                messages.remove(id);
            }
        }
    }
}

/// The messages after those open changes that `found` has, if that explains it.
fn some_of(messages: &Messages, open: &[Changes], found: &Messages) -> Result<Option<Messages>, String> {
    let Some((changes, later)) = open.split_first() else {
        return Ok((messages == found).then(|| messages.clone()));
    };
    let happened = happened(changes, found)?;
    for guess in [true, false] {
        if happened.is_none_or(|happened| happened == guess) {
            let mut messages = messages.clone();
            if guess {
                apply(&mut messages, changes);
            }
            if let Some(state) = some_of(&messages, later, found)? {
                return Ok(Some(state));
            }
        }
    }
    Ok(None)
}

/// Whether the changes of a batch are there, as far as they leave traces.
fn happened(changes: &Changes, found: &Messages) -> Result<Option<bool>, String> {
    let traces = changes.iter().map(|change| match change {
        Change::Accepted(id, _) => found.contains_key(id).then_some(true),
        Change::Progress(progress) => found.get(&progress.id).and_then(|message| {
            let update = progress.updates.first()?;
            let history = &message.recipients[update.recipient as usize].history;
            let there = history.iter().any(|attempt| Some(attempt) == update.attempt.as_ref());
            // Later attempts may have pushed it out.
            (there || history.len() < HISTORY).then_some(there)
        }),
        // What came before or after may have said the same.
        Change::Held(..) => None,
        Change::Removed(id) => found.contains_key(id).then_some(false),
    });
    let mut traces: Vec<bool> = traces.flatten().collect();
    traces.dedup();
    match traces[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => Err(format!("half a batch:\n{}", show(std::slice::from_ref(changes)))),
    }
}

/// Octets of the record that says that a message was accepted.
fn accepted(id: MessageId, message: &Message) -> usize {
    let content = if message.is_large() { Bytes::new() } else { message.content.clone() };
    octets(Entry::Accepted { id, envelope: Arc::clone(&message.envelope), content: content.into() })
}

/// Octets of the records that led to the states of the recipients, had each its own.
fn progress(id: MessageId, message: &Message) -> usize {
    let attempts = message.recipients.iter().flat_map(|recipient| &recipient.history);
    let record = |attempt: &Attempt| {
        let update = RecipientUpdate {
            recipient: 0,
            status: Status::Deferred,
            attempts: 0,
            next_attempt_at: Some(attempt.at),
            told_of_delay: true,
            untold: None,
            attempt: Some(attempt.clone()),
        };
        octets(Entry::Progress(Progress { id, updates: vec![update] }))
    };
    attempts.map(record).sum()
}

fn octets(entry: Entry) -> usize {
    usize::try_from(encode(entry, 0).len()).unwrap_or(usize::MAX)
}

/// What is not as expected, in short.
fn difference(expected: &Messages, found: &Messages) -> Option<String> {
    if let Some(id) = expected.keys().find(|id| !found.contains_key(id)) {
        return Some(format!("{id} is missing"));
    }
    if let Some(id) = found.keys().find(|id| !expected.contains_key(id)) {
        return Some(format!("{id} should not be there"));
    }
    expected.iter().find_map(|(id, message)| {
        let found = &found[id];
        if message.held != found.held {
            return Some(format!("{id} should {}be held", if message.held { "" } else { "not " }));
        }
        if message.content != found.content {
            Some(format!("{id} has other content"))
        } else if message.recipients != found.recipients {
            let states = (&message.recipients, &found.recipients);
            Some(format!("{id} has other states: {:?} expected, {:?} found", states.0, states.1))
        } else {
            (message.envelope != found.envelope).then(|| format!("{id} has another envelope"))
        }
    })
}

fn show(batches: &[Changes]) -> String {
    let show = |change: &Change| match change {
        Change::Accepted(id, message) => format!("accepted {id} +{}", message.content.len()),
        Change::Progress(progress) => {
            let details = progress.updates.iter().filter_map(|update| update.attempt.as_ref());
            let details: Vec<_> = details.map(|attempt| attempt.detail.as_str()).collect();
            format!("progress {} {}", progress.id, details.join(" "))
        }
        Change::Held(id, held) => format!("held {id} {held}"),
        Change::Removed(id) => format!("removed {id}"),
    };
    let show = |changes: &Changes| changes.iter().map(show).collect::<Vec<_>>().join(", ");
    batches.iter().map(show).collect::<Vec<_>>().join("\n")
}
