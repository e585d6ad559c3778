use std::collections::BTreeMap;

use empath_common::MessageId;
use serde::{Deserialize, Serialize};

/// Numbers about the spool: the answer of `spool.stats`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolStats {
    /// Messages that have not ended.
    pub messages: u64,
    /// Octets of the journal's files.
    pub journal_octets: u64,
    /// Octets in them that belong to messages that have not ended.
    pub live_octets: u64,
    /// Octets of large messages, which have files of their own.
    pub large_octets: u64,
    /// Octets that still fit; `None` where there is no bound, or none is known.
    pub free_octets: Option<u64>,
    /// Files that can still be created; `None` where there is no bound, or none is known.
    pub free_inodes: Option<u64>,
    /// How many things are kept of damage.
    pub damaged: u64,
    /// Octets of what is kept of damage.
    pub damaged_octets: u64,
    /// Segments that stay, with all younger ones, because they cannot be read or their damage not be copied.
    pub kept: u64,
    /// The oldest of them.
    pub kept_segments: Vec<KeptSegment>,
    /// Whether messages can be stored at present.
    pub healthy: bool,
}

/// A segment of the journal that stays although its time has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSegment {
    /// Its number.
    pub segment: u32,
    /// Its file.
    pub path: String,
    /// Why it stays.
    pub reason: String,
}

/// What a check of the spool says: the answers of `spool.verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Finding {
    /// A range of the journal that does not verify.
    Damage {
        /// The segment.
        segment: u32,
        /// Where the range begins.
        offset: u64,
        /// Its octets.
        length: u64,
        /// What is wrong with it.
        reason: String,
        /// The messages that it seems to be about, not more than fit into an answer.
        messages: Vec<MessageId>,
    },
    /// A message that cannot be read.
    Unreadable {
        /// Its id.
        id: MessageId,
        /// Why.
        reason: String,
    },
    /// A segment that stays, with all younger ones.
    Kept(KeptSegment),
    /// The last one: what was checked.
    Summary(Checked),
}

/// What a check of the spool has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Whether everything is as it was stored.
    pub clean: bool,
    /// Segments of the journal.
    pub segments: u64,
    /// Records that are whole.
    pub records: u64,
    /// Octets of the journal.
    pub octets: u64,
    /// Files of large messages.
    pub large: u64,
    /// Octets of a last write that did not finish and was never acknowledged.
    pub unfinished: u64,
    /// Ranges that do not verify.
    pub damaged: u64,
    /// Messages that cannot be read.
    pub unreadable: u64,
    /// Segments that stay because they cannot be read or their damage not be copied.
    pub kept: u64,
}

/// One thing that is kept of damage, as `spool.damaged.list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The name by which it is exported and discarded.
    pub name: String,
    /// Its octets.
    pub octets: u64,
    /// What is known about it: segment, offset, length, reason.
    pub report: BTreeMap<String, String>,
    /// The messages that it seems to be about.
    pub messages: Vec<MessageId>,
    /// What is wrong with the entry itself, or that it is none of the spool's; else `None`.
    pub problem: Option<String>,
}

/// Some octets of an export, in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Where they begin.
    pub at: u64,
    /// The octets.
    #[serde(with = "base64_text")]
    pub octets: Vec<u8>,
}

/// The answer of `spool.damaged.discard`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discarded {
    /// How many were deleted.
    pub discarded: u64,
}

/// RFC 4648 §4
mod base64_text {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(octets: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(octets))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn octets_are_base64_in_an_object() {
        let piece = Piece { at: 3, octets: vec![0, 255, b'\n'] };
        let value = serde_json::to_value(&piece).unwrap();
        assert_eq!(value, json!({"at": 3, "octets": "AP8K"}));
        assert_eq!(serde_json::from_value::<Piece>(value).unwrap(), piece);
    }

    #[test]
    fn findings_say_what_kind_they_are() {
        let finding = Finding::Unreadable { id: MessageId::from_bytes([0; 16]), reason: "gone".to_owned() };
        let value = serde_json::to_value(&finding).unwrap();
        let id = "00000000000000000000000000";
        assert_eq!(value, json!({"kind": "unreadable", "id": id, "reason": "gone"}));
        assert_eq!(serde_json::from_value::<Finding>(value).unwrap(), finding);
    }
}
