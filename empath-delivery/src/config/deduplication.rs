use std::time::Duration;

use empath_common::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How messages that come in twice are recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Deduplication {
    /// A message with the same `Message-ID`, reverse-path and recipient as another is not delivered again for so long; `None`
    /// delivers everything.
    ///
    /// It makes up for clients that submit again what was accepted already. The other one must have been delivered, or
    /// still be tried: then whatever becomes of it, and what its sender asked to be told, holds for both. What is not delivered
    /// again ends as delivered, with a line `duplicate` in the log and in `empath_delivery_duplicates_total`. Whoever knows a `Message-ID` in advance can keep a message of the same sender from
    /// its recipient, so it is not for mail of strangers. A restart forgets. Default: `None`.
    #[serde(with = "humantime_serde::option")]
    #[schemars(with = "Option<String>")]
    pub window: Option<Duration>,
    /// Most pairs of message and recipient that are remembered, of about 200 octets each; beyond that, the oldest is forgotten.
    /// Default: `100000`.
    pub entries: usize,
}

impl Default for Deduplication {
    fn default() -> Self {
        Self { window: None, entries: 100_000 }
    }
}

impl Deduplication {
    /// What is wrong with the values.
    pub fn validate(&self) -> Vec<Problem> {
        let checks = [
            (
                self.window.is_some_and(|window| window.is_zero()),
                "window",
                "recognises nothing; give at least \"1s\", or None",
            ),
            (self.entries == 0, "entries", "nothing could be recognised; give at least 1, or `window: None`"),
        ];
        let wrong = checks.into_iter().filter(|(wrong, ..)| *wrong);
        wrong.map(|(_, key, message)| Problem::new(key, message)).collect()
    }
}
