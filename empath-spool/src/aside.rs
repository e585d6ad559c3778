//! Keeping what is stored of a message that cannot be read, before the message is ended.

use std::{io, path::PathBuf};

use empath_common::MessageId;

use crate::{
    LoadError,
    committer::Shared,
    damage::{Damage, DamageReason},
    encoding::LargeContent,
    index::Message,
    large::{self, Large},
    quarantine::CONTENT,
    reader::{self, Failure},
    record::At,
};

/// Copies the record of a message to `damaged/`, and moves the file of a large one there. Blocks.
pub(crate) fn set_aside(shared: &Shared, id: MessageId) -> Result<(), LoadError> {
    // It may have been set aside before.
    let Some(message) = shared.index().message(id) else {
        return Ok(());
    };
    if reader::is_lost(shared, id, message.accepted) {
        return Ok(());
    }
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

/// Takes content back whose record seemed lost and is there again: it was in a segment that could not be read at one start
/// and can at the next. Only one that is what the record says; the rest stays.
pub(crate) fn give_back(shared: &Shared) {
    let kept = shared.journal.files.list(&shared.journal.damaged_directory()).unwrap_or_default();
    let ids = kept.iter().filter_map(|name| large::id_of(name.strip_suffix(CONTENT)?.strip_suffix('.')?));
    for id in ids {
        let index = shared.index();
        let known = index.message(id).filter(|_| !index.is_large(id));
        drop(index);
        let given = known.map(|message| take_back(shared, id, message.accepted));
        match given {
            None | Some(Ok(None)) => {}
            Some(Ok(Some(octets))) => {
                shared.index().has_large(id, octets);
                tracing::warn!(message_id = %id, octets, "content whose record seemed lost has its record again");
            }
            Some(Err(failure)) => {
                let failure = failure.about(id);
                tracing::error!(message_id = %id, error = %failure, "content that was set aside stays there");
            }
        }
    }
}

/// Moves the file of a message back, if it is one; returns its octets. A crash leaves it in one place or the other.
fn take_back(shared: &Shared, id: MessageId, at: At) -> Result<Option<u64>, Failure> {
    let journal = &shared.journal;
    let Some(LargeContent { length, crc }) = reader::large(shared, id, at)? else {
        return Ok(None);
    };
    let kept = journal.damaged_directory().join(format!("{id}.{CONTENT}"));
    Large::open_at(journal, &kept, id, length, crc)?.check()?;
    journal.files.rename(&kept, &journal.large(id))?;
    // Should either fail, the next start finds the file in one of the two.
    let synced =
        journal.sync_dir(&journal.large_directory()).and(journal.sync_dir(&journal.damaged_directory()));
    if let Err(failure) = synced {
        tracing::warn!(message_id = %id, error = %failure, "a directory could not be synced");
    }
    Ok(Some(length))
}

fn keep_file(shared: &Shared, id: MessageId) -> io::Result<PathBuf> {
    let journal = &shared.journal;
    let kept = journal.damaged_directory().join(format!("{id}.{CONTENT}"));
    match journal.files.rename(&journal.large(id), &kept) {
        Err(failure) if failure.kind() == io::ErrorKind::NotFound => {}
        renamed => renamed?,
    }
    journal.files.sync_dir(&journal.damaged_directory())?;
    // It is counted, and not refused: it takes no more space than before.
    let _ = journal.damaged.octets();
    Ok(kept)
}

fn keep_record(shared: &Shared, id: MessageId, message: &Message) -> io::Result<PathBuf> {
    let journal = &shared.journal;
    let (number, from) = (message.accepted.segment.get(), u64::from(message.accepted.offset));
    let file = journal.files.open_read(&journal.segment(number))?;
    let used = shared.index().segment(number);
    let end = used.map_or(u64::MAX, |used| used.end).min(file.size()?);
    // The header may be what is damaged; the index knows where the record ends.
    let range = from..(from + u64::from(message.accepted_octets)).min(end.max(from));
    let damage = Damage { ids: vec![id], ..Damage::new(number, range, DamageReason::Message) };
    let epoch = used.map_or(0, |used| used.epoch);
    journal.damaged.keep(&damage, epoch, &*file)
}
