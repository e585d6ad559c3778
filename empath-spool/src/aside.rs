//! Keeping what is stored of a message that cannot be read, before the message is ended.

use std::{io, path::PathBuf};

use empath_common::MessageId;

use crate::{
    LoadError,
    committer::Shared,
    damage::{Damage, DamageReason, quarantine},
    index::Message,
};

/// Copies the record of a message to `damaged/`, and moves the file of a large one there. Blocks.
pub(crate) fn set_aside(shared: &Shared, id: MessageId) -> Result<(), LoadError> {
    // It may have been set aside before.
    let Some(message) = shared.index().message(id) else {
        return Ok(());
    };
    let kept = keep(shared, id, &message);
    match kept {
        Ok(copy) => {
            shared.metrics.damaged.increment();
            tracing::error!(message_id = %id, copy = %copy.display(), "a message is damaged; what there is of it was set aside");
            Ok(())
        }
        Err(source) => Err(LoadError::Io { id, source }),
    }
}

/// Keeps the `Accepted` of a message, and its file, if it has one.
pub(crate) fn keep(shared: &Shared, id: MessageId, message: &Message) -> io::Result<PathBuf> {
    let record = keep_record(shared, id, message)?;
    // Not in the condition: the index is not locked while files are moved.
    let large = shared.index().is_large(id);
    if large { keep_file(shared, id) } else { Ok(record) }
}

fn keep_file(shared: &Shared, id: MessageId) -> io::Result<PathBuf> {
    let journal = &shared.journal;
    let kept = journal.damaged_directory().join(format!("{id}.content"));
    match journal.files.rename(&journal.large(id), &kept) {
        Err(failure) if failure.kind() == io::ErrorKind::NotFound => {}
        renamed => renamed?,
    }
    journal.files.sync_dir(&journal.damaged_directory())?;
    Ok(kept)
}

fn keep_record(shared: &Shared, id: MessageId, message: &Message) -> io::Result<PathBuf> {
    let journal = &shared.journal;
    let (number, from) = (message.accepted.segment.get(), u64::from(message.accepted.offset));
    let file = journal.files.open(&journal.segment(number))?;
    let used = shared.index().segment(number);
    let end = used.map_or(u64::MAX, |used| used.end).min(file.size()?);
    // The header may be what is damaged; the index knows where the record ends.
    let range = from..(from + u64::from(message.accepted_octets)).min(end.max(from));
    let damage = Damage { ids: vec![id], ..Damage::new(number, range, DamageReason::Message) };
    let epoch = used.map_or(0, |used| used.epoch);
    quarantine(&*journal.files, &journal.damaged_directory(), &damage, epoch, &*file)
}
