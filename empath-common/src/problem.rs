use std::fmt;

/// Something in the configuration that is well-formed and still wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The place, as a path from the root: `delivery.retry.max_delay`, `smtp.listeners[0].socket`,
    /// `delivery.domains["example.test"].mx_override`.
    pub key: String,
    /// What is wrong with it and what to do.
    pub message: String,
}

impl Problem {
    /// A problem at `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }

    /// The same problem seen from one level up: `retry.max_delay` within `delivery` is `delivery.retry.max_delay`.
    #[must_use]
    pub fn within(self, parent: &str) -> Self {
        let separator = if self.key.is_empty() || self.key.starts_with('[') { "" } else { "." };
        Self { key: format!("{parent}{separator}{}", self.key), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}
